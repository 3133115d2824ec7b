r"""Accuracy over k samples, pass@k and the share of code, with intervals.

    accuracy = mean over problems of (correct samples / samples)           "avg@k" in the papers
    pass@k   = 1 - C(n - c, k) / C(n, k), of n samples c correct           arXiv:2107.03374, eq. 1

Correct means that the last \boxed{} equals the reference by the rule verifier. Defaults are
Cooper's: 8 samples per problem at temperature 0.7, top-p 0.95. `--temperature 0` decodes greedily.

    python eval.py --model runs/demo/policy --data arithmetic
    python eval.py --model DIR --data gsm8k_test.jsonl --limit 100 --max_new_tokens 512
"""

import json
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

import rewards
from data import load_problems
from rollout import load_policy, sample, those_that_fit
from support.checks import check_settings
from support.errors import InputError
from support.files import check_apart, write
from support.flags import command_line
from support.progress import progress
from support.run import due, torch_rng
from support.stats import t95
from survey.process import steps_taken


def pass_at_k(n: int, c: int, k: int) -> float:
    """Chance that k of the n samples, drawn without replacement, hold one of the c correct ones.

    >>> pass_at_k(n=4, c=1, k=2)  # of the 6 pairs, 3 hold the correct one
    0.5
    """
    if not 0 <= c <= n or not 1 <= k <= n:
        raise ValueError(f"pass_at_k needs 0 <= c <= n and 1 <= k <= n, got n={n}, c={c}, k={k}")
    return 1.0 - math.comb(n - c, k) / math.comb(n, k)


def interval(shares: list[float], samples: int = 8) -> tuple[float, float]:
    """95% interval of the mean p of N per-problem shares, each of `samples` completions: Wilson's
    (1927) for n trials, with Student's t for N problems (see the test by simulation),

        (p + q/2 -+ sqrt(p (1 - p) q + q^2/4)) / (1 + q),  q = t^2 / n

    Samples of one problem are not independent: n = p (1 - p) / var, of the mean's unbiased
    variance, is how many independent ones would spread as much; at most N * samples, and N where
    there is no spread to go by. Of a single problem nothing follows for others.

    >>> [round(x, 3) for x in interval([1.0] * 5 + [0.0] * 5)]  # var 1/36, n = 9, t = 2.26
    [0.199, 0.801]
    """
    count, p = len(shares), sum(shares) / len(shares)
    if count == 1:
        return 0.0, 1.0
    variance = sum((s - p) ** 2 for s in shares) / (count - 1) / count  # of the mean
    n = min(p * (1 - p) / variance, count * samples) if variance > 0 else count
    q = t95(count) ** 2 / n
    half = math.sqrt(p * (1 - p) * q + q**2 / 4)
    return max(0.0, (p + q / 2 - half) / (1 + q)), min(1.0, (p + q / 2 + half) / (1 + q))


def evaluate(
    policy,
    tokenizer,
    problems,
    samples: int = 8,
    temperature: float = 0.7,
    top_p: float = 0.95,
    max_new_tokens: int = 40,
    batch: int = 256,
    seed: int = 0,
    keep: list | None = None,
    quiet: bool = True,
) -> dict:
    """Sample `samples` completions per problem and score them by the rule.

    batch: completions sampled at a time. keep: a list that receives every row as a dict.
    Returns accuracy, accuracy_low, accuracy_high (95%), pass@1, pass@2, pass@4, ... to `samples`,
    the shares boxed, code and truncated, length (mean tokens), and the accuracy on each
    Problem.benchmark by its name.
    """
    correct, boxed, code, length, truncated = [], [], [], [], []
    generator = torch_rng(policy.device, seed, "evaluate")
    prompts = max(1, batch // samples)
    starts = range(0, len(problems), prompts)
    for start in starts if quiet else progress(starts, "eval", leave=False):
        part = problems[start : start + prompts]
        rollouts = sample(
            policy, tokenizer, part, samples, max_new_tokens, temperature, top_p, generator
        )
        right = rewards.rule(rollouts)
        correct += right.view(len(part), samples).sum(1).int().tolist()
        boxed += rewards.boxed(rollouts).tolist()
        code += rewards.python(rollouts).tolist()
        length += rollouts.mask.sum(1).tolist()
        truncated += rollouts.truncated.tolist()
        if keep is not None:
            rows = zip(rollouts.problems, rollouts.texts, right.bool().tolist())
            keep += [
                {"question": p.question, "reference": p.answer, "completion": t, "correct": r}
                for p, t, r in rows
            ]
    shares = [c / samples for c in correct]
    accuracy = {
        name: [s for p, s in zip(problems, shares) if p.benchmark == name]
        for name in benchmarks(problems)
    }
    low, high = interval(shares, samples)
    mean = {"boxed": boxed, "code": code, "truncated": truncated, "length": length}
    ks = [2**i for i in range(samples.bit_length())]
    return (
        {"accuracy": sum(shares) / len(shares), "accuracy_low": low, "accuracy_high": high}
        | {f"pass@{k}": sum(pass_at_k(samples, c, k) for c in correct) / len(correct) for k in ks}
        | {name: sum(values) / len(values) for name, values in (mean | accuracy).items()}
    )


# --------------------------------------------------------------------------------------------------
# What training runs log


def rollout_metrics(rollouts, reward: torch.Tensor, correct: torch.Tensor, rule) -> dict:
    """What is logged of the completions of a step; reward, correct (by the verifier): [B].

    rule: the reward function that training takes for right.
    """
    groups = reward.view(-1, rollouts.group_size)
    with_steps, wrong = ((x * correct.cpu()).sum().item() for x in steps_taken(rollouts))
    return verdict_metrics("rule", rule(rollouts), correct) | {
        "reward": reward.mean().item(),
        "reward_std": groups.double().std(1, correction=min(1, groups.shape[1] - 1)).mean().item(),
        "frac_reward_zero_std": (groups == groups[:, :1]).all(1).float().mean().item(),
        "accuracy": correct.mean().item(),
        "right_with_wrong_step": wrong / with_steps if with_steps else math.nan,
        "code": rewards.python(rollouts).mean().item(),
        "completions/mean_length": rollouts.mask.sum(1).mean().item(),
        "completions/clipped_ratio": rollouts.truncated.float().mean().item(),
    }


def verdict_metrics(name: str, said: torch.Tensor, correct: torch.Tensor) -> dict:
    """Of a grader's yes on the completions of a step: the share that is right, and the share of
    what is right that gets one. said, correct: [B], 0/1. nan where there is nothing to divide by.

    >>> verdict_metrics("rule", torch.tensor([1, 1, 0, 0]), torch.tensor([1, 0, 1, 1]))
    {'rule/precision': 0.5, 'rule/recall': 0.3333333333333333}
    """
    both = float(((said > 0) & (correct > 0)).sum())
    yes, right = float((said > 0).sum()), float((correct > 0).sum())
    return {
        f"{name}/precision": both / yes if yes else math.nan,
        f"{name}/recall": both / right if right else math.nan,
    }


def order(score: torch.Tensor, correct: torch.Tensor, group_size: int) -> float:
    """Share of (right, wrong) pairs of one prompt whose right one scores higher; ties are half.

    That is what a group-relative advantage feels; where the scores lie, it does not. nan where no
    group holds both.

    >>> order(torch.tensor([0.9, 0.2, 0.5, 0.1, 0.1, 0.7]), torch.tensor([1, 0, 1, 0, 1, 1]), 3)
    0.875
    """
    score, correct = score.view(-1, group_size), correct.view(-1, group_size) > 0
    pair = correct[:, :, None] & ~correct[:, None, :]
    gap = score[:, :, None] - score[:, None, :]
    won = (gap > 0).double() + (gap == 0).double() / 2
    return (won[pair].mean().item()) if pair.any() else math.nan


def evaluation_due(cfg, step: int) -> bool:
    """Every `eval_every` steps and at the last, every other one up to `eval_early`; 0 is never."""
    early = step <= cfg.eval_early and step % 2 == 0
    return cfg.eval_every > 0 and (early or due(cfg.eval_every, step, cfg.steps))


def benchmarks(problems) -> list[str]:
    """The benchmarks that `problems` are of."""
    return sorted({problem.benchmark for problem in problems} - {""})


def eval_metrics(learner, cfg) -> dict:
    """Accuracy on learner.held_out, sampled and greedy, by the rule whatever the reward.

    learner: learner.Learner. cfg: grpo.GRPOConfig; nothing is evaluated if its eval_every is 0.
    """
    if not cfg.eval_every:
        return {}
    model = (learner.policy, learner.tokenizer, learner.held_out)
    size = {"max_new_tokens": cfg.max_new_tokens, "batch": cfg.prompts * cfg.group_size}
    sampled = evaluate(
        *model, cfg.eval_samples, cfg.eval_temperature, cfg.eval_top_p, seed=cfg.seed, **size
    )
    greedy = evaluate(*model, samples=1, temperature=0.0, **size)
    return {
        "eval/accuracy": sampled["accuracy"],
        "eval/greedy": greedy["accuracy"],
        "eval/code": sampled["code"],
        "eval/boxed": sampled["boxed"],
        "training_problems": len(learner.problems),
    } | {
        f"eval/{name}": sampled[name]
        for name in (*benchmarks(learner.held_out), *(key for key in sampled if "pass@" in key))
        if name != "pass@1"  # the accuracy
    }


# --------------------------------------------------------------------------------------------------
# Of a reward model


def measure(rm, examples) -> dict[str, float]:
    """Accuracy at score 1/2, and expected calibration error over ten bins of the score."""
    if not examples:
        return {"accuracy": math.nan, "calibration_error": math.nan}
    texts = zip(*[(e.question, e.reference, e.completion) for e in examples])
    score = rm.score(*texts).cpu()
    label = torch.tensor([float(e.label) for e in examples])
    bins = (score * 10).long().clamp(max=9)
    gaps = [(score[bins == b] - label[bins == b]).sum().abs().item() for b in range(10)]
    return {
        "accuracy": ((score > 0.5) == label.bool()).float().mean().item(),
        "calibration_error": sum(gaps) / len(examples),
    }


def measure_pairs(rm, pairs: list[tuple]) -> dict[str, float]:
    """Share of (question, reference, right, wrong) whose right text scores higher, ties half."""
    if not pairs:
        return {"order": math.nan}
    question, reference, right, wrong = zip(*pairs)
    gap = rm.score(question, reference, right) - rm.score(question, reference, wrong)
    return {"order": ((gap > 0).double() + (gap == 0).double() / 2).mean().item()}


# --------------------------------------------------------------------------------------------------
# The command


@dataclass(frozen=True)
class EvalConfig:
    model: str = "runs/demo/policy"  # folder or hub name of a causal LM
    system: str | None = None  # system prompt; None leaves it to the model's chat template
    chat: str | None = None  # "plain" for a base model, or JSON: {"enable_thinking": false}
    data: str = "arithmetic"  # "arithmetic", a .jsonl file, or a named benchmark
    split: Literal["train", "test"] = "test"  # files are taken whole
    limit: int | None = 200  # problems; None takes all. Of a file seed 0 draws those held out
    samples: int = 8  # completions per problem
    temperature: float = 0.7  # 0 decodes greedily (and then one sample is enough)
    top_p: float = 0.95  # 1 samples the full distribution
    max_new_tokens: int = 40  # tokens per completion; real models want 512 or more
    batch: int = 256  # completions sampled at a time
    seed: int = 0  # of problems and sampling
    output: str | None = None  # .jsonl file for every completion; None keeps none


def completions(cfg: EvalConfig, model: str) -> tuple[dict, list[dict]]:
    """(result of evaluate, every completion as a row) of a model."""
    policy, tokenizer = load_policy(model, "auto", cfg.system, cfg.chat)
    problems = load_problems(cfg.data, cfg.split, cfg.limit, cfg.seed)
    (problems,) = those_that_fit(policy, tokenizer, cfg.max_new_tokens, problems)
    samples, keep = 1 if cfg.temperature == 0 else cfg.samples, []
    with torch.inference_mode():
        result = evaluate(
            policy, tokenizer, problems, samples, cfg.temperature, cfg.top_p, cfg.max_new_tokens,
            cfg.batch, cfg.seed, keep, quiet=False,
        )  # fmt: skip
    print(f"{model} on {cfg.data}: {len(problems)} problems x {samples} samples")
    if result["truncated"] > 0.5:
        print(f"most completions ran into max_new_tokens={cfg.max_new_tokens}: allow more")
    return result, keep


def main(cfg: EvalConfig) -> dict:
    check_settings(cfg)
    if cfg.output is not None:
        check_apart(cfg)
        if not cfg.output.endswith(".jsonl") or os.path.lexists(cfg.output):
            raise InputError(f"--output {cfg.output}: name a .jsonl file that is not there already")
    result, keep = completions(cfg, cfg.model)
    if cfg.output:
        Path(cfg.output).parent.mkdir(parents=True, exist_ok=True)
        write(Path(cfg.output), "".join(json.dumps(row) + "\n" for row in keep), new=True)
    for name, value in result.items():
        print(f"  {name:14} {value:.3f}")
    return result


if __name__ == "__main__":
    command_line(EvalConfig, main)
