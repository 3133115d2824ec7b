"""One optimizer step, shared by the policy and the reward model."""

import math

import torch

from support.errors import InputError
from support.progress import say


def optimizer_step(model, optimizer, max_grad_norm: float) -> float:
    """Clip, apply and clear the gradient -> its norm before. Not finite: nothing is applied."""
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), max_grad_norm).item()
    if math.isfinite(norm):
        optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return norm


def norm_stats(norms: list[float]) -> dict[str, float]:
    """Mean of the finite gradient norms, and how many updates were skipped for one that is not.

    Raises InputError where every one was: a run that learns nothing must not go on.
    """
    finite = [norm for norm in norms if math.isfinite(norm)]
    if not finite:
        raise InputError(
            "no update of this step could be applied, loss or gradient is not finite: lower the "
            "learning rate, and look at the rewards"
        )
    if len(finite) < len(norms):
        say(f"{len(norms) - len(finite)} update(s) skipped: loss or gradient not finite")
    return {"grad_norm": sum(finite) / len(finite), "skipped_updates": len(norms) - len(finite)}
