r"""What the relatives of GRPO do otherwise, one line each (survey, arXiv:2509.08827, equation 5).

All of them maximise

    J = 1/Z sum_{n,g,t}  min(w * A, clip(w) * A)

and differ in four places: the advantage A, the weight w, what clipping means, and the normaliser Z
(grpo.loss_normaliser). PRESETS names the combinations: `python grpo.py --algorithm rloo` takes one.

Plain GRPO needs nothing of this file but its defaults.
"""

import math
from dataclasses import dataclass, fields, replace
from typing import Literal

import torch

from rollout import token_logprobs
from support.errors import InputError
from survey import process
from survey.sampling import segment_advantages

Advantage = Literal[
    "group", "reward", "batch_mean", "batch", "leave_one_out", "batch_std", "best", "pass@k"
]


@dataclass(frozen=True)
class Switches:
    """The fields of grpo.GRPOConfig by which its relatives differ from it."""

    algorithm: str = "grpo"  # a name of objectives.PRESETS: sets fields that are at their defaults
    advantage: Advantage = "group"  # what a completion is compared with, see objectives.advantages
    pass_k: int = 4  # k of the advantage "pass@k"
    weight: Literal["token", "none", "sequence", "geometric"] = "token"  # see objectives.surrogate
    clip: Literal["min", "weight"] = "min"  # what is outside loses its gradient, or is cut
    clip_cov: float = 0.0  # share of the tokens that lose their gradient, see objectives.clip_cov
    tis_cap: float | None = None  # truncated importance sampling's cap; None: old logp as sampled
    process_coef: float = 0.0  # weight of the reward for right steps, see process.py
    judge_max_new_tokens: int = 32  # of the judge's reply, for the reward "judge"
    overlong: int = 0  # the last so many tokens before the limit cost, see sampling.overlong

    dynamic_sampling: int = 0  # times that groups of equal rewards are replaced, see sampling.py
    prioritised: bool = False  # problems that are seldom solved are drawn more often
    segment: int = 0  # tokens from one value to the next (VinePPO); 0 is the group's advantage
    segment_samples: int = 4  # completions per such value
    staleness: int = 0  # the completions are those of the policy so many steps ago
    entropy_target: float | None = None  # entropy_coef adapts to it, see sampling.next_entropy_coef
    entropy_delta: float = 0.005  # by so much a step
    reference_reset: int = 0  # steps until the KL's reference becomes the policy; 0 is never


# name: (fields of GRPOConfig, source). GRPO itself is the defaults.
PRESETS = {
    "grpo": ({}, "DeepSeekMath, 2402.03300; token mean as in DAPO"),
    "grpo_sequence": ({"loss_norm": "sequence"}, "DeepSeekMath as published"),
    "dr_grpo": ({"scale_by_std": False, "loss_norm": "constant"}, "2503.20783"),
    "reinforce": ({"advantage": "reward", "weight": "none"}, "Williams 1992"),
    "reinforce_baseline": ({"advantage": "batch_mean", "weight": "none"}, "Williams 1992"),
    "raft": ({"advantage": "best", "weight": "none"}, "2304.06767"),
    "rloo": ({"advantage": "leave_one_out", "weight": "none"}, "2402.14740"),
    "reinforce++": ({"advantage": "batch"}, "2501.03262, without its KL in the reward"),
    "lite_ppo": ({"advantage": "batch_std"}, "2508.08221"),
    "dapo": ({"clip_eps_high": 0.28, "dynamic_sampling": 3, "overlong": 8}, "2503.14476"),
    "gspo": (
        {"weight": "sequence", "loss_norm": "sequence"}
        | {"clip_eps_low": 3e-4, "clip_eps_high": 4e-4},
        "2507.18071",
    ),
    "cispo": ({"clip": "weight", "clip_eps_low": math.inf}, "2506.13585"),
    "gmpo": (
        {"weight": "geometric", "loss_norm": "sequence"}
        | {"clip_eps_low": 0.33, "clip_eps_high": 0.49},  # e^-0.4 to e^0.4
        "2507.20673",
    ),
    "pass@k": ({"advantage": "pass@k"}, "2508.10751"),
    "clip_cov": ({"clip_cov": 0.002}, "2505.22617, there of 0.0002 of the tokens"),
    "vine_ppo": ({"segment": 8}, "2410.01679, a value every 8 tokens"),
}


def with_preset(cfg):
    """cfg with the fields of its algorithm, except where it differs from its defaults already.

    Raises InputError: no algorithm of that name.
    """
    if cfg.algorithm not in PRESETS:
        raise InputError(f"no algorithm {cfg.algorithm!r}: choose from {', '.join(PRESETS)}")
    defaults = {field.name: field.default for field in fields(cfg)}
    preset, _ = PRESETS[cfg.algorithm]
    return replace(cfg, **{k: v for k, v in preset.items() if getattr(cfg, k) == defaults[k]})


def in_words(preset: dict) -> str:
    """
    >>> in_words(PRESETS["dr_grpo"][0]), in_words({})
    ('scale_by_std=False, loss_norm=constant', 'the defaults')
    """
    return ", ".join(f"{name}={value}" for name, value in preset.items()) or "the defaults"


# what --help shows
HELP = "--algorithm NAME sets, where they are at their defaults:\n" + "\n".join(
    f"    {name:20} {in_words(preset)} ({source})" for name, (preset, source) in PRESETS.items()
)


def changed(cfg, but: tuple = ()) -> list[str]:
    """The fields of Switches that are not at their defaults."""
    rows = [(field.name, field.default) for field in fields(Switches)]
    return [name for name, value in rows if name not in but and getattr(cfg, name) != value]


def is_plain(cfg) -> bool:
    """Whether stage 3 is GRPO's own."""
    return not {"advantage", "clip_cov", "tis_cap", "process_coef", "segment"} & set(changed(cfg))


# --------------------------------------------------------------------------------------------------
# The advantage


def token_advantages(adv, learner, rollouts, score, reward, cfg, generator):
    """Stage 3 where is_plain(cfg) does not hold; adv: GRPO's, [B].

    Returns (rollouts, advantages [B, T]): each token of a completion has its own.
    """
    if cfg.advantage != "group":
        adv = advantages(score.view(-1, cfg.group_size), cfg.advantage, cfg.pass_k).flatten()
    adv = adv[:, None] * rollouts.mask
    if cfg.segment:
        adv = segment_advantages(learner, rollouts, score, reward, cfg, generator)
    if cfg.process_coef:
        found = process.step_rewards(rollouts, learner.tokenizer)
        steps = process.step_advantages(*found, cfg.group_size, cfg.scale_by_std)
        adv = adv + cfg.process_coef * steps * rollouts.mask
    if cfg.clip_cov:
        adv = adv.masked_fill(
            clip_cov(adv, rollouts.logp, rollouts.mask, cfg.clip_cov, generator), 0.0
        )
    if cfg.tis_cap is not None:
        with torch.no_grad():
            logp, _ = token_logprobs(learner.policy, rollouts, cfg.temperature)
        weight, inside = truncated_weight(logp, rollouts.logp, cfg.tis_cap), rollouts.mask.bool()
        learner.to_log |= {
            "tis/weight": weight[inside].mean().item(),
            "tis/capped": (weight[inside] == cfg.tis_cap).double().mean().item(),
            "tis/sampling_logp_difference/max": (logp - rollouts.logp).abs().max().item(),
        }
        adv, rollouts = adv * weight, replace(rollouts, logp=logp)
    return rollouts, adv


def advantages(reward: torch.Tensor, kind: str, k: int = 4) -> torch.Tensor:
    """A of reward [N, G], by what a completion is compared with; [N, G].

    "reward"         nothing: A = r. Of rewards 0 and 1 only what is right is learnt
    "batch_mean"     the mean of all: r - mean
    "batch"          mean and std of all (REINFORCE++)
    "leave_one_out"  the mean of the others of its group (RLOO): G / (G - 1) * (r - mean)
    "batch_std"      the mean of its group, over the std of all (LitePPO)
    "best"           1 for the best of its group if that earned anything, else 0 (RAFT)
    "pass@k"         what a draw of k of the group earns, the best of them: see pass_at_k_advantages

    >>> advantages(torch.tensor([[1.0, 0.0, 0.0, 0.0]]), "leave_one_out")
    tensor([[ 1.0000, -0.3333, -0.3333, -0.3333]])
    """
    groups = reward.double()
    mean, size = groups.mean(1, keepdim=True), reward.shape[1]
    if kind == "reward":
        found = groups
    elif kind == "batch_mean":
        found = groups - groups.mean()
    elif kind == "batch":
        found = (groups - groups.mean()) / (groups.std() + 1e-6)
    elif kind == "leave_one_out":
        found = size / (size - 1) * (groups - mean)
    elif kind == "batch_std":
        found = (groups - mean) / (groups.std() + 1e-6)
    elif kind == "best":
        first = torch.zeros_like(groups).scatter(1, groups.argmax(1, keepdim=True), 1.0)
        found = first * (groups.amax(1, keepdim=True) > 0)
    else:
        found = pass_at_k_advantages(groups, k)
    return found.to(reward.dtype)


def pass_at_k_advantages(reward: torch.Tensor, k: int) -> torch.Tensor:
    """Advantages for pass@k (arXiv:2508.10751, section 2.4), reward [N, G] of 0 and 1.

    Of all draws of k of a group's G completions a share R holds a right one. A right completion is
    in draws that are all worth 1, a wrong one in draws of which the share S is:

        A_right = (1 - R) / std,   A_wrong = (S - R) / std,   std = sqrt(R (1 - R))

    so a group in which most are right teaches little: it already passes. Groups that are all wrong,
    or have fewer than k wrong, get 0. With k = 1 this is A = (r - mean) / std, std dividing by G.

    >>> pass_at_k_advantages(torch.tensor([[1.0, 0.0, 0.0]]), 2)  # R = 2/3, S = 1/2
    tensor([[ 0.7071, -0.3536, -0.3536]])
    """
    size = reward.shape[1]
    if not 1 <= k <= size or not ((reward == 0) | (reward == 1)).all():
        raise InputError(f"pass@{k} needs rewards of 0 and 1, and a group of {k} or more")
    wrong = (reward == 0).sum(1).tolist()
    passes = [1 - math.comb(w, k) / math.comb(size, k) for w in wrong]
    beside = [1 - math.comb(max(w - 1, 0), k - 1) / math.comb(size - 1, k - 1) for w in wrong]
    R, S = (
        torch.tensor(x, dtype=reward.dtype, device=reward.device)[:, None] for x in (passes, beside)
    )
    std = (R * (1 - R)).sqrt()
    found = torch.where(reward == 1, 1 - R, S - R) / std
    return found.masked_fill(std == 0, 0.0)


def clip_cov(adv, logp, mask, share: float, generator=None, low=1.0, high=5.0) -> torch.Tensor:
    """Which tokens lose their gradient, [B, T] bool: a random `share` of all tokens, of those with

        low < cov_t < high,   cov_t = (A_t - mean A) (log pi(y_t) - mean log pi)

    (Clip-Cov, arXiv:2505.22617, there 0.0002 of the tokens). A likely token of a good answer has a
    high cov, and an unlikely one of a bad answer: what is learnt of either drives entropy down.
    """
    inside = mask.bool()
    cov = (adv - adv[inside].mean()) * (logp - logp[inside].mean())
    eligible = ((low < cov) & (cov < high) & inside).flatten().nonzero()[:, 0]
    order = torch.randperm(len(eligible), generator=generator, device=mask.device)
    chosen = eligible[order[: math.ceil(share * int(inside.sum()))]]
    found = torch.zeros_like(inside).flatten()
    found[chosen] = True
    return found.view_as(inside)


def truncated_weight(logp, logp_sampled, cap: float) -> torch.Tensor:
    """min(pi / pi_sampled, cap), [B, T]: how much more often the policy, before its update, would
    write a token than whoever sampled it, a stale policy or an engine that rounds otherwise
    (truncated importance sampling; FlashRL, decoupled PPO of AReaL, arXiv:2505.24298).

    >>> truncated_weight(torch.tensor([0.5, 0.9]).log(), torch.tensor([0.5, 0.1]).log(), cap=2.0)
    tensor([1., 2.])
    """
    return (logp - logp_sampled).exp().clamp(max=cap)


# --------------------------------------------------------------------------------------------------
# The weight, and what clipping means


def surrogate(logp, logp_old, adv, mask, cfg, bounds) -> tuple[torch.Tensor, torch.Tensor]:
    """(min(w * A, clip(w) * A), w), both [B, T], for the fields `weight` and `clip`.

    logp, logp_old, mask: [B, T]; adv: [B, 1] or [B, T]; bounds: (low, high) of the ratio.

    weight    "token"      w = pi / pi_old of the token (PPO, GRPO)
              "none"       w = 1: A grad log pi (REINFORCE); clipping has nothing to act on
              "sequence"   w = exp(mean over the tokens of log ratio) for all of a row (GSPO)
              "geometric"  the same mean over log ratios that are clipped one by one (GMPO)
    clip      "min"        a token outside the bounds loses its gradient (PPO)
              "weight"     its weight is cut instead: clip(w) A log pi (CISPO)
    """
    low, high = bounds
    log_ratio = logp - logp_old
    length = mask.sum(1, keepdim=True).clamp(min=1)
    if cfg.weight == "none":
        log_ratio = logp - logp.detach()
    elif cfg.weight == "sequence":
        log_ratio = ((log_ratio * mask).sum(1, keepdim=True) / length).expand_as(logp)
    elif cfg.weight == "geometric":
        lowest, highest = math.log(max(low, 1e-6)), math.log(high)
        kept = torch.where(adv > 0, log_ratio.clamp(max=highest), log_ratio.clamp(min=lowest))
        mean = ((kept * mask).sum(1, keepdim=True) / length).expand_as(logp)
        return mean.exp() * adv, log_ratio.exp()
    ratio = log_ratio.exp()
    if cfg.clip == "weight":
        return ratio.clamp(low, high).detach() * adv * logp, ratio
    return torch.minimum(ratio * adv, ratio.clamp(low, high) * adv), ratio
