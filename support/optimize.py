"""One optimizer step, shared by the policy and the reward model."""

import math

import torch
from tqdm import tqdm


def optimizer_step(model, optimizer, max_grad_norm: float) -> float:
    """Clip, apply and clear the gradient -> its norm before. Not finite: nothing is applied."""
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), max_grad_norm).item()
    if math.isfinite(norm):
        optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return norm


def norm_stats(norms: list[float]) -> dict[str, float]:
    """Mean of the finite gradient norms, and how many updates were skipped for one that is not."""
    finite = [norm for norm in norms if math.isfinite(norm)]
    if len(finite) < len(norms):
        tqdm.write(f"{len(norms) - len(finite)} update(s) skipped: loss or gradient not finite")
    mean = sum(finite) / max(len(finite), 1)
    return {"grad_norm": mean, "skipped_updates": len(norms) - len(finite)}
