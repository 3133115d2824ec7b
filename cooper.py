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
from data import InputError, rewrite_prompt
from grpo import GRPOConfig, evaluate, grpo_step, norm_stats, optimizer_step
from reward_model import Example, RewardModel, measure, pairwise_loss
from rollout import Rollouts, load_policy, sample
from support.flags import command_line
from support.run import Run, due, rng, save_model, torch_rng
from verifier import equivalent, extract_answer


@dataclass(frozen=True)
class CooperConfig(GRPOConfig):
    output: str = "runs/cooper"  # folder of this run; one that was interrupted there goes on
    rm_model: str = "runs/demo/rm"  # reward model to start from: folder with one label
    assistant: str | None = None  # LLM that writes the negatives, frozen; none takes model

    rm_lr: float = 3e-4  # of AdamW; 1e-5 for a real LLM; 0 freezes the reward model
    rm_minibatches: int = 1  # updates a step, each on its share of the pairs
    rm_micro_batch: int | None = None  # pairs a forward pass; none takes the whole minibatch
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
    assistant,
    tokenizer,
    rollouts,
    positives,
    max_new_tokens,
    max_retries=3,
    temperature=0.7,
    generator=None,
) -> list[str | None]:
    """A wrong rewrite of each positive row, by an LLM; None where every try failed.

    positives: row indices from select_positives. Tries again, up to `max_retries` times, where
    the text has no boxed answer or the rule does not call it wrong against the reference.
    """
    negatives: list[str | None] = [None] * len(positives)
    for _ in range(1 + max_retries):
        missing = [i for i, text in enumerate(negatives) if text is None]
        if not missing:
            break
        problems = [rollouts.problems[positives[i]] for i in missing]
        prompts = [
            rewrite_prompt(problem.question, rollouts.texts[positives[i]])
            for i, problem in zip(missing, problems)
        ]
        tries = sample(
            assistant,
            tokenizer,
            problems,
            1,
            max_new_tokens,
            temperature,
            generator=generator,
            prompts=prompts,
        ).texts
        for i, problem, text in zip(missing, problems, tries):
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


# --------------------------------------------------------------------------------------------------
# Stage 2


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
        step = cfg.rm_micro_batch or size
        for micro in (minibatch[i : i + step] for i in range(0, len(minibatch), step)):
            questions, references, positive, negative = map(list, zip(*micro))
            z = rm.logits(
                questions * 2, references * 2, positive + negative
            )  # one pass: same padding
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


def reward_model_step(
    rm, rm_optimizer, assistant, tokenizer, rollouts, cfg: CooperConfig, step: int
) -> dict:
    """Stages 5-7 of a step -> metrics."""
    random = rng(cfg.seed, "pairs", step)
    correct = rewards.rule(rollouts).bool().tolist()

    # 5 positives
    positives = select_positives(rollouts, correct, random)

    # 6 negatives
    if cfg.negatives == "rollouts":
        negatives = rejected_rollouts(rollouts, correct, positives, random)
    else:
        negatives = make_negatives(
            assistant, tokenizer, rollouts, positives, cfg.assistant_max_new_tokens,
            cfg.max_retries, cfg.assistant_temperature,
            torch_rng(assistant.device, cfg.seed, "negatives", step),
        )  # fmt: skip
    pairs = [
        (rollouts.problems[i].question, rollouts.problems[i].answer, rollouts.texts[i], wrong)
        for i, wrong in zip(positives, negatives)
        if wrong is not None
    ]

    # 7 reward-model update
    torch.manual_seed(random.getrandbits(32))  # of dropout, if the model has any
    stats = update_reward_model(rm, rm_optimizer, pairs, cfg)
    return stats | {"rm/valid_rate": len(pairs) / cfg.prompts}


# --------------------------------------------------------------------------------------------------


def held_out_examples(learner, cfg: CooperConfig) -> list[Example]:
    """A fixed set to watch the reward model on: samples of the initial policy, with rule labels."""
    examples, generator = [], torch_rng(learner.policy.device, cfg.seed, "held out")
    for i in range(0, len(learner.eval_problems), cfg.prompts):
        rollouts = sample(
            learner.policy, learner.tokenizer, learner.eval_problems[i : i + cfg.prompts],
            cfg.eval_samples, cfg.max_new_tokens, generator=generator,
        )  # fmt: skip
        rows = zip(rollouts.problems, rollouts.texts, rewards.rule(rollouts).int().tolist())
        examples += [Example(p.question, p.answer, text, label) for p, text, label in rows]
    return examples


def agreement(score: torch.Tensor, rollouts: Rollouts) -> float:
    """Share of rollouts on which the reward model (score above 1/2) and the rule say the same."""
    return ((score > 0.5).cpu() == rewards.rule(rollouts).bool()).float().mean().item()


def train(cfg: CooperConfig) -> list[dict]:
    """The two stages, step by step. Writes cfg.output (see run.py) and returns its history."""
    if cfg.reward != "rule":
        raise InputError("the reward of Cooper is rm_model: --reward is for grpo.py")
    folder, learner = Run(cfg), grpo.start(cfg)
    torch.manual_seed(cfg.seed)  # of a new head, where rm_model has none
    rm = RewardModel.load(cfg.rm_model)
    rm_optimizer = torch.optim.AdamW(rm.model.parameters(), lr=cfg.rm_lr, weight_decay=0.01)
    needed = cfg.rm_lr > 0 and cfg.negatives == "assistant"
    assistant = load_policy(cfg.assistant or cfg.model) if needed else (None, None)
    held_out = held_out_examples(learner, cfg)  # before training and before resuming
    parts = {
        "policy": learner.policy, "optimizer": learner.optimizer,
        "rm": rm.model, "rm_optimizer": rm_optimizer,
    }  # fmt: skip

    with folder.steps(cfg, **parts) as steps:
        for step in steps:
            row, began = {"step": step}, time.time()
            if step > 0:
                rollouts, score, metrics = grpo_step(learner, rm.reward, cfg, step)  # 1-4
                row |= metrics | {"rm/agreement": agreement(score, rollouts)}
                if cfg.rm_lr > 0:
                    row |= reward_model_step(
                        rm, rm_optimizer, *assistant, rollouts, cfg, step
                    )  # 5-7
                row["step_time"] = time.time() - began
            # 8 log / eval
            if due(cfg.eval_every, step, cfg.steps):
                row |= evaluate(learner, cfg)
                row |= {f"rm/held_out_{k}": v for k, v in measure(rm, held_out).items()}
            folder.log(row)
            if step > 0 and due(cfg.eval_every, step, cfg.steps):
                folder.log_samples(step, rollouts, score)
    save_model(folder.folder / "policy", learner.policy, learner.tokenizer)
    save_model(folder.folder / "rm", rm.model, rm.tokenizer)
    return folder.history


if __name__ == "__main__":
    command_line(CooperConfig, train)
