r"""A reference-conditioned reward model: question + reference + completion -> one logit z.

    <question>q</question> <reference_answer>r</reference_answer> <completion>y</completion>  ->  z
    score = sigmoid(z)

The backbone is a causal LM, the head a linear map read at the last token (Cooper's VerifyRM,
arXiv:2508.05613). This file trains the initial one offline, from samples of the policy that rule
and judge label alike (annotation.py), by

    BCE = -mean[ y log sigmoid(z) + (1 - y) log(1 - sigmoid(z)) ]

Cooper goes on training it with `pairwise_loss`.

An option that the paper does not have, `swap_share`: negatives that are correct completions beside
another problem's reference. A small reward model first learns what correct solutions look like and
only late to compare the answer; it is that shortcut which the policy exploits.

    python reward_model.py --model runs/demo/policy --output runs/demo/rm

Any Hugging Face sequence classifier with one label can take its place, and any causal LM start it.
"""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F

import prompts
from annotation import in_words, make_examples, swap_references, texts_of
from metrics import measure
from rollout import Rollouts, autocast, device, load_tokenizer
from support.chat import cut_to_fit, defuse
from support.checks import check_settings
from support.errors import InputError
from support.files import finished, read_json, save_model, settings_note
from support.flags import command_line
from support.models import load_classifier, pad_id, readable_length
from support.optimize import norm_stats, optimizer_step
from support.progress import progress, say
from support.run import rng
from support.selfcheck import check_classifier, set_bf16


def format_input(
    question: str, reference: str | None, completion: str, clean=prompts.neutralise
) -> str:
    """What a grader reads: the template of Cooper's VerifyRM, to the letter; no chat template.

    reference: None leaves its line out. clean: keeps the template's own tags out of the texts,
    which VerifyRM's does not.
    """
    question, completion = clean(question), clean(shorten(completion))
    line = f"<reference_answer>{clean(shorten(reference or ''))}</reference_answer>\n"
    return (
        f"<question>{question}</question>\n"
        f"{'' if reference is None else line}"
        f"<completion>{completion}</completion>"
    )


def shorten(text: str) -> str:
    """Over 1500 characters: the first 500 and the last 1000, where the answer is (VerifyRM)."""
    return text if len(text) <= 1500 else text[:500] + text[-1000:]


def bce_loss(z: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """-mean[ y log sigmoid(z) + (1 - y) log(1 - sigmoid(z)) ]; z, y: [B], y in {0, 1}.

    >>> bce_loss(torch.tensor([0.0]), torch.tensor([1.0]))  # log 2
    tensor(0.6931)
    """
    return F.binary_cross_entropy_with_logits(z, y.to(z))


def pairwise_loss(z_pos: torch.Tensor, z_neg: torch.Tensor) -> torch.Tensor:
    """-mean log sigmoid(z_pos - z_neg), on logits (Bradley-Terry; Cooper eq. for L_RM); z: [pairs].

    >>> pairwise_loss(torch.tensor([1.0]), torch.tensor([1.0]))  # undecided: log 2
    tensor(0.6931)
    """
    return -F.logsigmoid(z_pos - z_neg).mean()


class RewardModel:
    """A sequence classifier with one label, its tokenizer, and the template around both."""

    def __init__(
        self, model, tokenizer, max_length: int = 2048, batch: int = 256, neutralise: bool = True
    ):
        """max_length: tokens an input is cut to. batch: inputs scored at a time.

        neutralise: tags and special tokens that a text spells stay text. Switched off, a policy
        can write the template, and be paid for the right answer to a question of its own.
        """
        if model.config.num_labels != 1:
            raise InputError(f"a reward model has one label, not {model.config.num_labels}")
        if tokenizer.pad_token_id is None and tokenizer.eos_token_id is not None:
            tokenizer.pad_token = tokenizer.eos_token
        # The head reads the last token that is not pad: the model must know which id that is.
        self.pad = pad_id(model, tokenizer)
        model.config.pad_token_id = model.config.get_text_config().pad_token_id = self.pad
        self.model, self.tokenizer = model.to(device()).eval(), tokenizer
        self.max_length = min(max_length, readable_length(model) or max_length)
        self.batch, self.neutralise = batch, neutralise
        self.reads_reference = getattr(model.config, "reads_reference", True)
        self.truncated = 0  # inputs that had to be cut since truncations() was asked

    @classmethod
    def load(cls, name: str, neutralise: bool = True) -> "RewardModel":
        """A folder or hub name; of a causal LM it takes the backbone and draws a new head."""
        model, new_head = load_classifier(name)
        rm = cls(model, load_tokenizer(name), neutralise=neutralise)
        if new_head:
            say(f"{name}: not a reward model yet, its head is new")
        check_classifier(rm, [("1 + 2 = ?", "3", "3"), ("12 - 3 + 4 = ?", "13", "9 + 4 is 13")])
        return rm

    def encode(self, rows: list[tuple[str, str, str]]) -> list[list[int]]:
        """Token ids of (question, reference, completion) rows, at most max_length of each."""

        def clean(text):
            return defuse(self.tokenizer, prompts.neutralise(text)) if self.neutralise else text

        def ids(rows):
            if not self.reads_reference:
                rows = [(question, None, completion) for question, _, completion in rows]
            texts = [format_input(*row, clean) for row in rows]
            return self.tokenizer(texts, add_special_tokens=False).input_ids

        tokens = ids(rows)
        for i, row in enumerate(rows):
            if len(tokens[i]) > self.max_length:
                self.truncated += 1
                question, reference, completion = row
                parts = [question, shorten(reference), shorten(completion)]
                short = cut_to_fit(parts, lambda row: len(ids([row])[0]) <= self.max_length)
                tokens[i] = ids([short])[0]
        return tokens

    def truncations(self) -> dict[str, int]:
        """What is logged of inputs cut since the last call: nothing where there was none."""
        count, self.truncated = self.truncated, 0
        return {"rm/truncated": count} if count else {}

    def logits(self, questions, references, completions) -> torch.Tensor:
        """z [B] of three lists of B strings, with gradient where it is enabled."""
        rows = list(zip(questions, references, completions, strict=True))
        ids, mask = right_pad(self.encode(rows), self.pad, self.model.device)
        with autocast():
            return self.model(input_ids=ids, attention_mask=mask).logits[:, 0].float()

    @torch.no_grad()
    def score(self, questions, references, completions) -> torch.Tensor:
        """sigmoid(z) [B] in (0, 1), no gradient, dropout off."""
        self.model.eval()
        rows = list(zip(questions, references, completions, strict=True))
        parts = [rows[i : i + self.batch] for i in range(0, len(rows), self.batch)]
        score = torch.cat([self.logits(*zip(*part)) for part in parts]).sigmoid()
        if not score.isfinite().all():
            raise InputError("the reward model's scores are not finite: it has diverged (lower lr)")
        return score

    def reward(self, rollouts: Rollouts) -> torch.Tensor:
        """The score as a reward on rollouts, [B]."""
        questions, references = zip(*[(p.question, p.answer) for p in rollouts.problems])
        return self.score(questions, references, rollouts.texts)


def right_pad(rows: list[list[int]], pad: int, to) -> tuple[torch.Tensor, torch.Tensor]:
    """Token id lists -> (ids, mask) [B, L], real tokens flush left."""
    width = max(map(len, rows))
    ids = [row + [pad] * (width - len(row)) for row in rows]
    mask = [[1] * len(row) + [0] * (width - len(row)) for row in rows]
    return torch.tensor(ids, device=to), torch.tensor(mask, device=to)


# --------------------------------------------------------------------------------------------------
# Training


@dataclass(frozen=True)
class RewardModelConfig:
    model: str = "runs/demo/policy"  # policy that is sampled
    backbone: str | None = None  # causal LM that the reward model starts from; None takes model
    judge: str | None = None  # LLM that labels beside the rule; None takes model
    judge_max_new_tokens: int = 32  # length limit of a verdict; a judge that thinks wants 1000
    system: str | None = None  # system prompt of model; None leaves it to its chat template
    chat: str | None = None  # "plain" for a base model, or JSON: {"enable_thinking": false}
    data: str = "arithmetic"  # problems: "arithmetic", a .jsonl file, or a named benchmark
    eval_data: str | None = None  # evaluation problems, left out here as in grpo.py and cooper.py
    eval_problems: int = 200  # how many those are
    output: str = "runs/demo/rm"  # folder of the reward model
    problems: int = 1000  # problems sampled; a tenth is for validation, a tenth held out
    rule: str = "verifier"  # what annotation takes for right, see rules.rule_of; measuring: never
    labels: Literal["both", "rule", "judge"] = "both"  # kept where both agree; or of one of them
    reference: bool = True  # the reward model reads it
    group_size: int = 8  # completions per problem
    max_new_tokens: int = 40  # length limit of a completion, tokens
    steps: int = 400  # updates at most
    target: float | None = 0.88  # validation accuracy at which training stops; None runs all steps
    batch: int = 128  # examples per update, half of them right; samples at a time
    micro_batch: int | None = None  # examples per forward pass; None takes the whole batch
    bf16: bool | None = None  # arithmetic in bfloat16 over fp32 weights; None: on a GPU
    swap_share: float = 0.0  # of a batch: right beside a wrong reference, 0 to 0.5
    lr: float = 1e-3  # peak of AdamW (one cycle, cosine to 0); 2e-5 for a real LLM
    max_grad_norm: float = 1.0  # gradients are clipped to this norm
    seed: int = 0  # of sampling, batches and the new head


def fit(rm: RewardModel, examples, cfg: RewardModelConfig, validation=()) -> int:
    """BCE on balanced batches: half right, `swap_share` right beside a wrong reference.

    Stops where validation accuracy reaches `target`, looking every ten steps. Returns the steps.
    """
    random = rng(cfg.seed, "fit")
    right = [e for e in examples if e.label == 1]
    wrong = [e for e in examples if e.label == 0]
    if not right or not wrong:
        raise InputError(
            f"{len(right)} right and {len(wrong)} wrong samples on which rule and judge agree: "
            "both kinds are needed; take easier or more problems, another judge, or more "
            "judge_max_new_tokens"
        )
    swapped = swap_references(examples, random) or wrong
    half, swaps = cfg.batch // 2, round(cfg.batch // 2 * 2 * cfg.swap_share)
    optimizer = torch.optim.AdamW(rm.model.parameters(), lr=cfg.lr, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, cfg.lr, total_steps=cfg.steps, pct_start=max(0.05, 2 / cfg.steps)
    )
    bar, norms = progress(range(1, cfg.steps + 1), "reward model"), []
    for step in bar:
        batch = random.choices(right, k=half) + random.choices(wrong, k=half - swaps)
        batch += random.choices(swapped, k=swaps)
        rm.model.train()
        size = cfg.micro_batch or len(batch)
        for part in (batch[i : i + size] for i in range(0, len(batch), size)):
            labels = torch.tensor([e.label for e in part]).to(rm.model.device)
            loss = bce_loss(rm.logits(*texts_of(part)), labels) * len(part) / len(batch)
            loss.backward()
        norms.append(optimizer_step(rm.model, optimizer, cfg.max_grad_norm))
        schedule.step()
        if step % 10 == 0:
            norm_stats(norms[-10:])  # raises where none of them was finite
        if validation and cfg.target is not None and step % 10 == 0:
            accuracy = measure(rm, validation)["accuracy"]
            bar.set_postfix(validation=f"{accuracy:.3f}", refresh=False)
            if accuracy >= cfg.target:
                break
    rm.model.eval()
    return step


def check(cfg: RewardModelConfig) -> None:
    """Raise InputError for settings that make no sense."""
    # the rate rises and falls: three steps at least
    check_settings(cfg, steps=(3, None), group_size=(1, None), problems=(10, None), batch=(2, None))


def train(cfg: RewardModelConfig) -> dict[str, float]:
    """Annotate, fit, measure, save; once only. Returns what was measured, as in metrics.json."""
    check(cfg)
    set_bf16(cfg.bf16)
    began, folder = time.time(), Path(cfg.output)
    if finished(cfg):
        return read_json(folder / "metrics.json")
    torch.manual_seed(cfg.seed)  # the new head
    # first: what cannot be one is refused before any sampling
    rm = RewardModel.load(cfg.backbone or cfg.model)
    rm.model.config.reads_reference = rm.reads_reference = cfg.reference
    examples, validation, held_out, annotated = make_examples(cfg)
    steps = fit(rm, examples, cfg, validation)
    swapped = swap_references(held_out, rng(cfg.seed, "held out"))
    result = {
        **annotated,
        "examples": len(examples),
        "steps": steps,
        "validation/accuracy": measure(rm, validation)["accuracy"],
        **{f"held_out/{name}": value for name, value in measure(rm, held_out).items()},
        "held_out/swap_accuracy": measure(rm, swapped)["accuracy"],
        "seconds": time.time() - began,
    }
    reached = result["validation/accuracy"]
    if reached < (cfg.target or 0):
        missed = folder.with_name(folder.name + ".missed")
        if not missed.exists():
            save_model(missed, rm.model, rm.tokenizer, metrics=result)
        raise InputError(
            f"the reward model stopped at {reached:.2f} validation accuracy after {steps} "
            f"updates, below target={cfg.target}, and is not handed on (see {missed}). "
            f"{in_words(annotated)}. Take another judge or --seed, more steps, or --target none"
        )
    say(in_words(annotated))
    save_model(folder, rm.model, rm.tokenizer, settings=settings_note(cfg), metrics=result)
    return result


def main(cfg: RewardModelConfig) -> None:
    for name, value in train(cfg).items():
        print(f"  {name:28} {value:.3f}")


if __name__ == "__main__":
    command_line(RewardModelConfig, main)
