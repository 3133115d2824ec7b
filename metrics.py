"""What training runs log of completions and of graders; docs/metrics.md says what each name means.

A grader is whatever says yes or no, or gives a score: a rule, a reward model.
"""

import math

import torch

import rewards
from survey.process import steps_taken


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
