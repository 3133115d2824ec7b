r"""Every reward is a function `reward(rollouts) -> [B]`: one number a completion.

The rule verifier gives one, a reward model gives another (`reward_model.RewardModel.reward`), and
so does any function of yours: GRPO with rules, GRPO on a frozen reward model and Cooper are the
same loop.
"""

import torch

from data import InputError
from rollout import Rollouts
from verifier import extract_answer, verify


def rule(rollouts: Rollouts) -> torch.Tensor:
    r"""1 where the last \boxed{} equals the reference. The prompt asks for a box: without, 0."""
    pairs = zip(rollouts.texts, rollouts.problems)
    return torch.tensor([float(verify(text, p.answer, require_box=True)) for text, p in pairs])


def format(rollouts: Rollouts) -> torch.Tensor:
    r"""1 where there is a non-empty \boxed{}, right or wrong (Spurious Rewards, "format")."""
    return torch.tensor([float(bool(extract_answer(t, require_box=True))) for t in rollouts.texts])


def python(rollouts: Rollouts) -> torch.Tensor:
    """1 where the text mentions python in any case (Spurious Rewards, "python")."""
    return torch.tensor([float("python" in text.lower()) for text in rollouts.texts])


REWARDS = {f.__name__: f for f in (rule, format, python)}


def by_name(name: str):
    if name not in REWARDS:
        raise InputError(f"no reward called {name!r}: choose from {', '.join(REWARDS)}")
    return REWARDS[name]
