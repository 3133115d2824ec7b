r"""Cooper: co-optimising policy and reward model (arXiv:2508.05613).

A frozen reward model gets hacked: the policy finds texts that it scores near 1 and that are wrong.
Cooper goes on training it, on pairs that need no human: a completion that the rule verifier proves
correct against a wrong one. Each step:

    1 sample                G completions for each of N prompts
    2 score                 sigmoid(z(question, reference, completion)), before the model's update
    3 advantages            group-relative: grpo.group_advantages
    4 policy update         clipped objective - kl_coef * KL: grpo.update
    5 positives             a completion of each prompt, at random among those the rule proves right
    6 negatives             a wrong completion of the same prompt, see below
    7 reward-model update   L = -mean log sigmoid(z_pos - z_neg)
    8 log / eval

Where the negatives come from. The paper has a frozen assistant LLM rewrite the positive into a
wrong solution, until the rule says that it is wrong: the rule's "correct" can be trusted, its
"wrong" cannot, since rules miss equivalent forms (`--negatives assistant`). Our default is a
completion of the same prompt that the rule rejects (`--negatives rollouts`): in the embedded world
the rule misses nothing, and what the policy itself does wrong is what the reward model must learn.
An assistant that does not know the policy's latest trick teaches nothing about it, and on some
seeds the policy outruns the reward model (README, results).

Where paper and released code differ this follows the paper: the positive is random, not the first,
and a rewrite must hold an answer that is wrong *against the reference*; the code compares with the
positive and lets texts without any answer pass. `--rm_lr 0` is the frozen arm: GRPO on that reward
model, bit for bit.

    python cooper.py --model runs/demo/policy --rm_model runs/demo/rm
"""

import math
import time
from dataclasses import dataclass
from typing import Literal

import torch

import grpo
import rewards
from annotation import Example
from data import draw_problems, rewrite_prompt
from eval import eval_metrics, evaluation_due, rollout_metrics
from grpo import GRPOConfig, group_advantages, update
from reward_model import RewardModel, measure, pairwise_loss
from rollout import Rollouts, load_policy, sample
from support.chat import within_context
from support.errors import InputError
from support.flags import command_line
from support.optimize import norm_stats, optimizer_step
from support.run import Run, rng, summary, torch_rng
from verifier import equivalent, extract_answer


@dataclass(frozen=True)
class CooperConfig(GRPOConfig):
    output: str = "runs/cooper"  # folder of this run; one that was interrupted there goes on
    rm_model: str = "runs/demo/rm"  # reward model to start from; of a causal LM the head is new
    neutralise: bool = True  # tags that a text spells stay text; off: the policy can write them
    assistant: str | None = None  # LLM that writes the negatives, frozen; None takes model

    lr: float = 1e-4  # of AdamW; 1e-6 for a real LLM
    steps: int = 120  # rollout phases
    rm_lr: float = 3e-4  # of AdamW; 1e-5 for a real LLM; 0 freezes the reward model
    rm_minibatches: int = 1  # updates per step at most, each on its share of the pairs
    rm_micro_batch: int | None = None  # pairs per forward pass; None takes the whole minibatch
    negatives: Literal["rollouts", "assistant"] = "rollouts"  # rejected by the rule | rewritten
    max_retries: int = 3  # further tries of the assistant where a rewrite is not wrong
    assistant_temperature: float = 0.7  # of the assistant's sampling
    assistant_max_new_tokens: int = 32  # length limit of a rewrite, tokens


# --------------------------------------------------------------------------------------------------
# Pairs


def select_positives(rollouts: Rollouts, correct, random) -> list[int]:
    """One correct row of each prompt, drawn with `random`; prompts without one are left out.

    correct: [B] bool or 0/1, by the rule verifier. random: a random.Random. Returns row indices.
    """
    flags, size = [bool(c) for c in correct], rollouts.group_size
    groups = [[i for i in range(n, n + size) if flags[i]] for n in range(0, len(flags), size)]
    return [random.choice(rows) for rows in groups if rows]


def is_negative(text: str, reference: str) -> bool:
    """Holds a boxed answer, and the rule says that it is not the reference."""
    answer = extract_answer(text, require_box=True)
    return bool(answer) and not equivalent(answer, reference)


def make_negatives(
    assistant, tokenizer, rollouts, positives, max_new_tokens, max_retries=3, temperature=0.7,
    generator=None,
) -> list[str | None]:  # fmt: skip
    """A wrong rewrite of each positive row, by an LLM; None where every try failed.

    positives: row indices from select_positives. Tries again, up to `max_retries` times, where
    the text has no boxed answer or the rule does not call it wrong against the reference.
    """
    negatives: list[str | None] = [None] * len(positives)
    for _ in range(1 + max_retries):
        missing = [i for i, text in enumerate(negatives) if text is None]
        if not missing:
            break
        rows = [positives[i] for i in missing]
        problems = [rollouts.problems[row] for row in rows]
        prompts = [rewrite_prompt(p.question, rollouts.texts[r]) for p, r in zip(problems, rows)]
        rewrites = sample(
            assistant, tokenizer, problems, 1, max_new_tokens, temperature,
            generator=generator, prompts=prompts,
        ).texts  # fmt: skip
        for i, problem, text in zip(missing, problems, rewrites):
            if is_negative(text, problem.answer):
                negatives[i] = text
    return negatives


def rejected_rollouts(rollouts: Rollouts, correct, positives, random) -> list[str | None]:
    """A rollout of the same prompt that the rule rejects, for each positive; None where none is."""
    size, texts = rollouts.group_size, []
    for row in positives:
        group = range(row - row % size, row - row % size + size)
        wrong = [rollouts.texts[i] for i in group if not correct[i]]
        texts.append(random.choice(wrong) if wrong else None)
    return texts


def find_negatives(
    rollouts, correct, positives, random, assistant, cfg: CooperConfig, step: int
) -> list[str | None]:
    """A wrong text for each positive, from where cfg.negatives says; None where there is none."""
    if cfg.negatives == "rollouts":
        return rejected_rollouts(rollouts, correct, positives, random)
    (model, tokenizer), limit = assistant, cfg.assistant_max_new_tokens
    prompts = [rewrite_prompt(rollouts.problems[i].question, rollouts.texts[i]) for i in positives]
    readable = within_context(model, tokenizer, prompts, limit)
    rows = [row for row, fits in zip(positives, readable) if fits]
    negatives = make_negatives(
        model, tokenizer, rollouts, rows, limit, cfg.max_retries, cfg.assistant_temperature,
        torch_rng(model.device, cfg.seed, "negatives", step),
    )  # fmt: skip
    written = dict(zip(rows, negatives))
    return [written.get(row) for row in positives]


def pair_up(rollouts: Rollouts, positives, negatives) -> list[tuple[str, str, str, str]]:
    """(question, reference, positive, negative) of each positive row that got a negative."""
    return [
        (rollouts.problems[row].question, rollouts.problems[row].answer, rollouts.texts[row], wrong)
        for row, wrong in zip(positives, negatives)
        if wrong is not None
    ]


# --------------------------------------------------------------------------------------------------
# Stage 7


@torch.enable_grad()
def update_reward_model(rm: RewardModel, optimizer, pairs: list[tuple], cfg: CooperConfig) -> dict:
    """Pairwise loss on (question, reference, positive, negative) tuples, `rm_minibatches` updates.

    Returns rm/loss, rm/margin (mean of z_pos - z_neg), rm/pair_accuracy, and norm_stats as rm/...
    """
    if not pairs:
        return {}
    rm.model.train()
    sums, norms = torch.zeros(3), []
    size = math.ceil(len(pairs) / cfg.rm_minibatches)
    for minibatch in (pairs[i : i + size] for i in range(0, len(pairs), size)):
        part = cfg.rm_micro_batch or size
        for micro in (minibatch[i : i + part] for i in range(0, len(minibatch), part)):
            questions, references, positive, negative = map(list, zip(*micro))
            # positives and negatives in one pass: the same padding for both
            z = rm.logits(questions * 2, references * 2, positive + negative)
            z_pos, z_neg = z.chunk(2)
            loss = pairwise_loss(z_pos, z_neg) * len(micro) / len(minibatch)
            loss.backward()
            margin = (z_pos - z_neg).detach().cpu()
            right = (margin > 0).sum().item()
            sums += torch.tensor([loss.item() * len(minibatch), margin.sum().item(), right])
        norms.append(optimizer_step(rm.model, optimizer, cfg.max_grad_norm))
    rm.model.eval()
    loss, margin, accuracy = (sums / len(pairs)).tolist()
    named = {f"rm/{name}": value for name, value in norm_stats(norms).items()}
    return {"rm/loss": loss, "rm/margin": margin, "rm/pair_accuracy": accuracy} | named


# --------------------------------------------------------------------------------------------------
# Watching the reward model


def held_out_examples(learner, cfg: CooperConfig) -> list[Example]:
    """A fixed set to watch the reward model on: samples of the initial policy, with rule labels."""
    examples, generator = [], torch_rng(learner.policy.device, cfg.seed, "held out")
    for i in range(0, len(learner.held_out), cfg.prompts):
        rollouts = sample(
            learner.policy, learner.tokenizer, learner.held_out[i : i + cfg.prompts],
            cfg.eval_samples, cfg.max_new_tokens, generator=generator,
        )  # fmt: skip
        rows = zip(rollouts.problems, rollouts.texts, rewards.rule(rollouts).int().tolist())
        examples += [Example(p.question, p.answer, text, label) for p, text, label in rows]
    return examples


def watch(learner, rm: RewardModel, watched: list[Example], cfg: CooperConfig) -> dict:
    """Evaluation of both: the policy by the rule, the reward model on fixed examples, if any."""
    if not watched:
        return {}
    return eval_metrics(learner, cfg) | {
        f"rm/held_out_{name}": value for name, value in measure(rm, watched).items()
    }


def agreement(score: torch.Tensor, correct: torch.Tensor) -> float:
    """Share of rollouts on which the reward model (score above 1/2) and the rule say the same."""
    return ((score > 0.5).cpu() == correct.bool()).float().mean().item()


# --------------------------------------------------------------------------------------------------
# The loop


def train(cfg: CooperConfig) -> list[dict]:
    """Policy and reward model, step by step: grpo.train with stages 5-7.

    Writes cfg.output (see support/run.py). Returns its history, as grpo.train does.
    """
    grpo.check(cfg)
    if cfg.reward != "rule":
        raise InputError("the reward of Cooper is rm_model: --reward is for grpo.py")
    with Run(cfg) as run:
        learner = grpo.start(cfg)
        policy, tokenizer, optimizer = learner.policy, learner.tokenizer, learner.optimizer
        N, G, T = cfg.prompts, cfg.group_size, cfg.max_new_tokens
        # draws the head, if rm_model is a causal LM
        torch.manual_seed(cfg.seed)
        rm = RewardModel.load(cfg.rm_model, cfg.neutralise)
        rm_optimizer = torch.optim.AdamW(rm.model.parameters(), lr=cfg.rm_lr, weight_decay=0.01)
        rewrites = cfg.rm_lr > 0 and cfg.negatives == "assistant"
        prompting = {} if cfg.assistant else {"system": cfg.system, "chat": cfg.chat}
        assistant = load_policy(cfg.assistant or cfg.model, **prompting) if rewrites else None
        watched = held_out_examples(learner, cfg) if cfg.eval_every else []
        run.resume(policy=policy, optimizer=optimizer, rm=rm.model, rm_optimizer=rm_optimizer)
        if not run.history:
            run.log({"step": 0} | watch(learner, rm, watched, cfg))

        for step in run.steps():
            began, seeded = time.time(), torch_rng(policy.device, cfg.seed, "step", step)
            optimizer.param_groups[0]["lr"] = cfg.lr * min(1.0, step / max(cfg.lr_warmup, 1))

            # 1 sample
            problems = draw_problems(learner.problems, N, rng(cfg.seed, "problems", step))
            rollouts = sample(policy, tokenizer, problems, G, T, cfg.temperature, generator=seeded)

            # 2 score
            score = rewards.checked(rm.reward, rollouts)

            # 3 advantages
            adv = group_advantages(score.view(N, G), cfg.scale_by_std).flatten()

            # 4 policy update
            stats = update(policy, optimizer, rollouts, adv, cfg, learner.reference, seeded)

            correct = rewards.rule(rollouts)
            if cfg.rm_lr > 0:
                draw = rng(cfg.seed, "pairs", step)

                # 5 positives
                positives = select_positives(rollouts, correct, draw)

                # 6 negatives
                negatives = find_negatives(rollouts, correct, positives, draw, assistant, cfg, step)

                # 7 reward-model update
                pairs = pair_up(rollouts, positives, negatives)
                # of dropout, if the model has any
                torch.manual_seed(draw.getrandbits(32))
                stats |= update_reward_model(rm, rm_optimizer, pairs, cfg)
                stats["rm/valid_rate"] = len(pairs) / N

            # 8 log / eval
            row = {"step": step} | rollout_metrics(rollouts, score, correct) | stats
            row |= {"rm/agreement": agreement(score, correct), "step_time": time.time() - began}
            row |= rm.truncations()
            if evaluation_due(cfg, step):
                row |= watch(learner, rm, watched, cfg)
                run.log_samples(step, rollouts, score, correct)
            run.log(row)
            run.checkpoint(step)

        run.save_model("policy", policy, tokenizer)
        run.save_model("rm", rm.model, rm.tokenizer)
    return run.history


def main(cfg: CooperConfig) -> None:
    print(summary(train(cfg), cfg.output))


if __name__ == "__main__":
    command_line(CooperConfig, main)
