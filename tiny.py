"""The tiny policy: a Qwen2 of 0.15 M parameters, taught in minutes what world.py writes.

Supervised training (`warm_up`) on a mixture of solutions, mistakes and all, gives a policy that
knows the arithmetic but samples the mistakes that it was taught too. It is done not after a number
of updates but when policy, assistant and judge reach their `MARKS` on texts drawn apart: what
begins with a judge that cannot judge would only look like an experiment.

The tokenizer is word-level, one token per number; each instruction of prompts.py is one token, so
that the toy and a real Qwen are prompted alike. Both are ordinary Hugging Face folders.
NOTE: the warm-up draws from all questions, those of the test split too: it is the pretraining of
this world. What is held out is held out from RL and from the reward model.

    python tiny.py --prior mixed --output runs/demo/policy
"""

from dataclasses import dataclass
from typing import Literal

import torch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from data import MAX_TOTAL, Chains, Problem, chains_of
from judge import verdict
from prompts import JUDGE, REWRITE, SOLVE, solve_prompt
from rollout import sample
from support.checks import check_settings
from support.errors import InputError
from support.files import finished, save_model, settings_note
from support.flags import command_line
from support.progress import progress
from support.run import rng, torch_rng
from verifier import extract_answer
from world import (
    PRIORS,
    Prior,
    draw_question,
    judge_example,
    neat_rewrite_example,
    rewrite_example,
    solve_example,
    write_solution,
)

# --------------------------------------------------------------------------------------------------
# Tokenizer and model

CHAT_TEMPLATE = (
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}"
    "{% if m.role == 'assistant' %}<|end|>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def build_tokenizer() -> PreTrainedTokenizerFast:
    """Word-level: the numbers 0..20, the words of the world, each instruction and tag one token."""
    words = [str(n) for n in range(MAX_TOTAL + 1)]
    words += "+ - += -= = ? # x \\boxed{ } I guess plus minus is so python print : Yes No".split()
    words += "Problem Correct Reference Solution solution answer".split()
    special = ["<|pad|>", "<|end|>", "<|unk|>", "<|user|>", "<|assistant|>"]
    tags = [f"<{s}{t}>" for t in ("question", "reference_answer", "completion") for s in ("", "/")]
    whole = [SOLVE, REWRITE, JUDGE, *tags]
    vocab = {word: i for i, word in enumerate(special + whole + words)}
    tokenizer = Tokenizer(models.WordLevel(vocab, unk_token="<|unk|>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.WhitespaceSplit(),
            pre_tokenizers.Split(Regex(r"\\boxed\{|[-+]=|\d+|[A-Za-z]+|[^\sA-Za-z\d]"), "isolated"),
        ]
    )
    tokenizer.decoder = decoders.Sequence(  # tokens joined by spaces, none inside a box
        [
            decoders.WordPiece(prefix="##", cleanup=False),
            decoders.Fuse(),
            decoders.Replace("\\boxed{ ", "\\boxed{"),
            decoders.Replace(" }", "}"),
        ]
    )
    tokenizer.add_tokens([AddedToken(text, normalized=False) for text in whole])
    tokenizer.add_special_tokens(special)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<|pad|>", eos_token="<|end|>", unk_token="<|unk|>"
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast


def build_policy(tokenizer, hidden=64, layers=3, heads=4) -> Qwen2ForCausalLM:
    """A Qwen2 of 0.15 M parameters, drawn at random with torch's global seed."""
    return Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=len(tokenizer),
            hidden_size=hidden,
            intermediate_size=3 * hidden,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            num_key_value_heads=heads // 2,
            max_position_embeddings=256,
            # NOTE: two settings of the big models do not suit one 64 wide. Weights drawn at 0.02
            # start too near zero, and a rotary base of 10,000 is made for texts of thousands of
            # tokens; here nothing is further away than a hundred.
            initializer_range=0.08,
            rope_parameters={"rope_type": "default", "rope_theta": 100.0},
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


# --------------------------------------------------------------------------------------------------
# Supervised warm-up

# How many examples of each role a training step holds; each role is padded by itself.
ROLES = ((solve_example, 64), (rewrite_example, 16), (judge_example, 24))

# What each role must reach, as `marks` measures it.
MARKS = {"policy": 0.95, "assistant": 0.6, "judge says Yes": 0.95, "judge says No": 0.95}


def encode(tokenizer, examples) -> tuple[torch.Tensor, torch.Tensor]:
    """(prompt, completion) pairs -> input_ids, labels [B, L]; -100, no loss, off the completion."""
    chats = [[{"role": "user", "content": prompt}] for prompt, _ in examples]
    texts = tokenizer.apply_chat_template(chats, tokenize=False, add_generation_prompt=True)
    prompts = tokenizer(texts, add_special_tokens=False).input_ids
    completions = [completion + tokenizer.eos_token for _, completion in examples]
    answers = tokenizer(completions, add_special_tokens=False).input_ids
    length = max(len(p) + len(a) for p, a in zip(prompts, answers))
    ids = torch.full((len(examples), length), tokenizer.pad_token_id)
    labels = torch.full_like(ids, -100)
    for row, (p, a) in enumerate(zip(prompts, answers)):
        ids[row, : len(p) + len(a)] = torch.tensor(p + a)
        labels[row, len(p) : len(p) + len(a)] = torch.tensor(a)
    return ids, labels


@torch.no_grad()
def marks(policy, tokenizer, prior: Prior, chains: Chains, count: int = 256) -> dict[str, float]:
    """How well each role is known, on `count` texts of a stream of their own; 1 is best.

    policy: share of right solutions, in words and in code, all of whose running totals are the
    policy's first choice. assistant: share of its rewrites with a wrong answer in a box.
    judge says Yes, judge says No: of the texts that deserve it.
    """
    random, rows = rng(0, "marks"), []
    for strategy in ("words", "python"):
        for question in (draw_question(random, chains) for _ in range(count // 2)):
            rows.append((solve_prompt(question), write_solution(question, strategy, random)))
    ids, labels = (found.to(policy.device) for found in encode(tokenizer, rows))
    wrong = policy(input_ids=ids).logits.argmax(-1)[:, :-1] != ids[:, 1:]
    before_totals = torch.tensor(tokenizer("is #", add_special_tokens=False).input_ids).to(ids)
    wrong &= torch.isin(ids[:, :-1], before_totals) & (labels[:, 1:] != -100)
    found = {"policy": 1 - wrong.any(1).float().mean().item()}

    def say(prompts, temperature):
        nobody, generator = [Problem("", "")] * len(prompts), torch_rng(policy.device, 0, "marks")
        return sample(policy, tokenizer, nobody, 1, 64, temperature, 1.0, generator, prompts).texts

    prompts = [rewrite_example(random, prior, chains)[0] for _ in range(count)]
    right = [extract_answer(prompt.rpartition("Correct solution: ")[2]) for prompt in prompts]
    rows = zip(say(prompts, 0.7), right)
    answers = [(extract_answer(text, require_box=True), a) for text, a in rows]
    found["assistant"] = sum(bool(said) and said != a for said, a in answers) / count

    prompts, said = zip(*[judge_example(random, prior, chains) for _ in range(count)])
    rows = list(zip(map(verdict, say(prompts, 0.0)), map(verdict, said)))
    for name, truth in (("Yes", 1), ("No", 0)):
        answers = [answer for answer, asked in rows if asked == truth]
        found[f"judge says {name}"] = answers.count(truth) / len(answers)
    return found


@dataclass(frozen=True)
class WarmUpConfig:
    prior: Literal[tuple(PRIORS)] = "mixed"  # what the policy is taught, see world.PRIORS
    data: str = "arithmetic"  # its questions, or a variant of them: see data.Chains
    output: str = "runs/demo/policy"  # folder of the policy
    hidden: int = 64  # width of the policy; 64 is 0.15 M parameters
    odd_rewrites: bool = True  # the assistant learns to keep oddities, see world.rewrite_example
    helpers: bool = True  # teach the roles of assistant and judge as well; Cooper needs them
    steps: int = 800  # updates; with helpers, more where a mark is not reached
    extra_rounds: int = 6  # at most, of steps / 4 updates each; then it gives up
    muon_lr: float = 0.02  # of the weight matrices (Muon), decaying linearly to 0
    lr: float = 3e-3  # of embeddings, norms and biases (AdamW), likewise
    seed: int = 0  # of weights and texts


def warm_up(cfg: WarmUpConfig) -> None:
    """Train a fresh policy on the texts of a prior, save model and tokenizer; once only.

    Loss: mean cross-entropy over completion tokens, the roles averaged. Writes marks.json beside
    the model. Raises InputError where the marks are not reached.
    """
    check_settings(cfg, steps=(1, None))
    if cfg.hidden % 8:
        raise InputError(f"hidden={cfg.hidden}: must be a multiple of 8, for four heads")
    if (chains := chains_of(cfg.data)) is None:
        raise InputError(f"the tiny policy learns arithmetic only, not {cfg.data!r}")
    if finished(cfg):
        return
    torch.manual_seed(cfg.seed)
    random, prior = rng(cfg.seed, "warm-up"), PRIORS[cfg.prior]
    tokenizer = build_tokenizer()
    policy = build_policy(tokenizer, cfg.hidden)
    # Muon for the matrices, AdamW for the rest: it needs about half of the steps of AdamW alone.
    matrices = [p for name, p in policy.named_parameters() if p.ndim == 2 and "embed" not in name]
    others = [p for name, p in policy.named_parameters() if p.ndim != 2 or "embed" in name]
    optimizers = {
        torch.optim.Muon(matrices, weight_decay=0.01, momentum=0.9): cfg.muon_lr,
        torch.optim.AdamW(others, betas=(0.9, 0.98), weight_decay=0.01): cfg.lr,
    }
    roles = ROLES if cfg.helpers else ROLES[:1]
    if not cfg.odd_rewrites:
        neat = {rewrite_example: neat_rewrite_example}
        roles = [(neat.get(make, make), count) for make, count in roles]

    def train(steps: int, share: float) -> None:
        """`steps` updates at rates that fall from `share` of their peaks to 0."""
        bar = progress(range(steps), f"warm-up {cfg.prior}")
        for i in bar:
            for make, count in roles:
                examples = [make(random, prior, chains) for _ in range(count)]
                ids, labels = encode(tokenizer, examples)
                loss = policy(input_ids=ids, labels=labels).loss
                (loss / len(roles)).backward()
            torch.nn.utils.clip_grad_norm_(policy.parameters(), 1.0)
            for optimizer, peak in optimizers.items():
                optimizer.param_groups[0]["lr"] = share * peak * min(1, (i + 1) / 20, 1 - i / steps)
                optimizer.step()
                optimizer.zero_grad()
            bar.set_postfix(loss=f"{loss.item():.3f}", refresh=False)

    reached, more, rounds = {}, max(1, cfg.steps // 4), 0
    train(cfg.steps, 1.0)
    while cfg.helpers:
        reached = marks(policy, tokenizer, prior, chains)
        missed = [
            f"{name} {reached[name]:.2f} (of {mark})"
            for name, mark in MARKS.items()
            if reached[name] < mark
        ]
        if not missed:
            break
        if rounds == cfg.extra_rounds:
            raise InputError(
                f"after {cfg.steps + rounds * more} updates the warm-up still misses its marks: "
                f"{', '.join(missed)}; take another --seed, or more steps"
            )
        rounds += 1
        train(more, 0.5)
    reached |= {"updates": cfg.steps + rounds * more}
    save_model(cfg.output, policy, tokenizer, settings=settings_note(cfg), marks=reached)


if __name__ == "__main__":
    command_line(WarmUpConfig, warm_up)
