r"""GRPO, group-relative policy optimisation (DeepSeekMath, arXiv:2402.03300); a switch is a field.

For each of N prompts sample G completions from pi_old, score them, and maximise

    J = 1/Z sum_{n,g,t}  min(ratio * A, clip(ratio, 1 - eps_low, 1 + eps_high) * A)  -  kl_coef * KL

    ratio = pi(y_t | x, y_<t) / pi_old(y_t | x, y_<t)
    A     = (reward - mean of its group) / (std of its group + 1e-6)

Choices that implementations make silently, and the one made here:
    EOS             the first EOS of a completion receives gradient, nothing after it does
    distribution    tokens are scored under the distribution that they were sampled from:
                    temperature included, no top-k or top-p while training
    micro-batch     Z belongs to the whole minibatch: the gradient does not depend on `micro_batch`
    clip            `min` for both signs of A (PPO, arXiv:1707.06347, eq. 7); None switches it off
    when it acts    not in the first update after sampling, where ratio = 1 (in fp32); it needs
                    `minibatches` or `inner_epochs` above 1. The loss is about 0: watch grad_norm
    KL              a loss term, not part of the reward; as one, k2 has the gradient of
                    KL(pi || ref), k1 none in expectation, k3 that of KL(ref || pi)
    std             sample std (G - 1), as in TRL and veRL; `--no_scale_by_std` as in Dr. GRPO
    aggregation     mean over the tokens of the minibatch, as in DAPO and veRL; see `loss_norm`
    equal rewards   the group has A = 0 exactly, and its tokens still count in Z
    old log-probs   the sampler's own; in fp32 they are the trainer's to 1e-5, logged as
                    sampling/sampling_logp_difference/max

    python grpo.py --model runs/demo/policy --reward rule --clip_eps none

N prompts, G completions each, B = N*G rows, P prompt length, T completion length, V vocabulary.
"""

import math
import time
from dataclasses import dataclass
from typing import Literal

import torch
from tqdm import tqdm

import eval as evaluation
import labels
import rewards
from data import InputError, load_problems
from rollout import load_policy, sample, token_logprobs
from support.flags import command_line
from support.run import Run, due, rng, save_model, torch_rng


@dataclass(frozen=True)
class GRPOConfig:
    model: str = "runs/demo/policy"  # policy to start from: Hugging Face folder or hub name
    data: str = "arithmetic"  # training problems: "arithmetic", a .jsonl file, or a named benchmark
    eval_data: str | None = None  # evaluation problems; none takes the test split of data
    output: str = "runs/grpo"  # folder of this run; one that was interrupted there goes on
    reward: str = "rule"  # rule, random, majority, ...: see rewards.py; or "rule and not python"
    gamma: float = 0.5  # chance of a reward of 1 under "random"
    votes: int = 64  # samples of the initial policy that vote a label for "majority", "incorrect"
    train_problems: int | None = None  # size of the training set; none takes all
    seed: int = 0  # of problems and sampling

    steps: int = 100  # rollout phases
    prompts: int = 32  # N, problems a step
    group_size: int = 8  # G, completions a problem, at least 2
    max_new_tokens: int = 32  # length limit of a completion, tokens
    temperature: float = 1.0  # of sampling while training; above 0

    scale_by_std: bool = True  # divide the advantage by the group's std
    clip_eps: float | None = 0.2  # ratio is clipped to 1 - eps .. 1 + eps; none is no clipping
    clip_eps_low: float | None = None  # lower eps if it differs; inf has no lower bound
    clip_eps_high: float | None = None  # upper eps if it differs (DAPO: 0.28); inf has none
    kl_coef: float = 0.0  # weight of KL(policy || start); 0 loads no reference model
    kl_estimator: Literal["k1", "k2", "k3"] = "k3"  # per-token estimate of that KL
    entropy_coef: float = 0.0  # weight of the entropy bonus; 0 is none
    loss_norm: Literal["token", "sequence", "constant"] = "token"  # see loss_normaliser

    inner_epochs: int = 1  # passes over the rollouts of a step
    minibatches: int = 2  # updates a pass
    micro_batch: int | None = None  # rows a forward pass; none takes the whole minibatch
    lr: float = 2e-4  # of AdamW; 1e-6 for a real LLM
    lr_warmup: int = 0  # steps until lr is reached
    weight_decay: float = 0.0  # of AdamW
    max_grad_norm: float = 1.0  # gradients are clipped to this norm

    eval_every: int = 20  # steps between evaluations, 0 for none
    eval_problems: int = 200  # problems an evaluation
    eval_samples: int = 4  # completions a problem; one greedy one besides
    eval_temperature: float = 0.7  # of the sampled evaluation
    eval_top_p: float = 0.95  # likewise
    save_every: int = 25  # steps between checkpoints


# --------------------------------------------------------------------------------------------------
# The mathematics: pure functions of tensors


def group_advantages(reward: torch.Tensor, scale_by_std: bool = True) -> torch.Tensor:
    """A = (r - mean) / (std + 1e-6) within each group (DeepSeekMath, section 4.1.2).

    reward: [N, G] float. Returns [N, G]. The std is the sample std (divides by G - 1). Groups of
    equal rewards get exactly 0. Raises InputError for G = 1: nothing to be compared with.

    >>> group_advantages(torch.tensor([[1.0, 0.0, 0.0, 0.0]]), scale_by_std=False)
    tensor([[ 0.7500, -0.2500, -0.2500, -0.2500]])
    >>> group_advantages(torch.tensor([[1.0, 0.0, 0.0, 0.0]]))  # std = 1/2
    tensor([[ 1.5000, -0.5000, -0.5000, -0.5000]])
    """
    if reward.shape[1] < 2:
        raise InputError("group_size must be at least 2: an advantage compares within a group")
    centred = reward - reward.mean(1, keepdim=True)
    # NOTE: the mean of equal floats can be off by a rounding, and 1 / std makes that an advantage.
    centred = centred.masked_fill((reward == reward[:, :1]).all(1, keepdim=True), 0.0)
    return centred / (reward.std(1, keepdim=True) + 1e-6) if scale_by_std else centred


def clip_bounds(cfg: GRPOConfig) -> tuple[float, float]:
    """(lowest, highest) ratio that still has a gradient; infinite where clipping is off."""
    low, high = (
        eps if side is None else side
        for eps, side in ((cfg.clip_eps, cfg.clip_eps_low), (cfg.clip_eps, cfg.clip_eps_high))
    )
    return 1 - (math.inf if low is None else low), 1 + (math.inf if high is None else high)


def kl_estimate(logp, logp_ref, estimator: str = "k3") -> torch.Tensor:
    """Estimates of KL(pi || ref) at tokens of pi (Schulman 2020): with x = log pi - log ref

    k1 = x,  k2 = x^2 / 2,  k3 = exp(-x) - 1 + x.  k1 and k3 have mean KL; k3 is never negative.
    """
    x = logp - logp_ref
    return {"k1": x, "k2": 0.5 * x**2, "k3": torch.exp(-x) - 1 + x}[estimator]


def loss_normaliser(mask: torch.Tensor, cfg: GRPOConfig) -> float:
    """Z of a whole minibatch, mask [B, T].

    "token": its tokens. "sequence": its rows, each token weighing 1 / length of its row (GRPO as
    published). "constant": rows times the length limit (Dr. GRPO, arXiv:2503.20783).
    """
    rows = mask.shape[0]
    sizes = {"token": mask.sum().item(), "sequence": rows, "constant": rows * cfg.max_new_tokens}
    return max(sizes[cfg.loss_norm], 1)


def policy_loss(logp, logp_old, adv, mask, cfg, logp_ref=None, tokens=None, entropy=None):
    """loss = -J of the module docstring (PPO eq. 7 with group advantages).

    logp, logp_old, logp_ref, entropy, mask: [B, T] float. adv: [B], or [B, T] for one a token.
    tokens: Z of the minibatch that this is a part of (`loss_normaliser`); None: this is all of it.
    Returns (loss, stats): a scalar, and means over the tokens of `mask` as floats.

    >>> cfg, one = GRPOConfig(clip_eps=0.2), torch.ones(1, 1)
    >>> loss, stats = policy_loss(torch.tensor([[1.5]]).log(), 0 * one, one[0], one, cfg)
    >>> round(loss.item(), 4), stats["clip_ratio/high_mean"]  # min(1.5 * 1, 1.2 * 1)
    (-1.2, 1.0)
    """
    adv = adv[:, None] if adv.dim() == 1 else adv
    low, high = clip_bounds(cfg)
    ratio = torch.exp(logp - logp_old)
    objective = torch.minimum(ratio * adv, ratio.clamp(low, high) * adv)
    clipped_low, clipped_high = (ratio < low) & (adv < 0), (ratio > high) & (adv > 0)
    stats = {
        "ratio": ratio,
        "clip_ratio/low_mean": clipped_low,
        "clip_ratio/high_mean": clipped_high,
        "clip_ratio/region_mean": clipped_low | clipped_high,
        "token_prob": logp.exp(),
    }
    if cfg.kl_coef:
        stats["kl"] = kl_estimate(logp, logp_ref, cfg.kl_estimator)
        objective = objective - cfg.kl_coef * stats["kl"]
    if entropy is not None:
        stats["entropy"] = entropy
        if cfg.entropy_coef:
            objective = objective + cfg.entropy_coef * entropy
    weight = mask / mask.sum(1, keepdim=True).clamp(min=1) if cfg.loss_norm == "sequence" else mask
    loss = -(objective * weight).sum() / (loss_normaliser(mask, cfg) if tokens is None else tokens)
    count = mask.sum().clamp(min=1)
    return loss, {k: ((v.detach() * mask).sum() / count).item() for k, v in stats.items()}


# --------------------------------------------------------------------------------------------------
# One step


def optimizer_step(model, optimizer, max_grad_norm: float) -> float:
    """Clip, apply and clear the gradient -> its norm before. Not finite: nothing is applied."""
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), max_grad_norm).item()
    if math.isfinite(norm):
        optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return norm


def accumulate(policy, rollouts, index, adv, cfg, reference=None):
    """Add the gradient of one minibatch, the rows `index`, a micro-batch at a time.

    Returns (stats of policy_loss summed over tokens, furthest |trainer - sampler| log-probability).
    """
    z = loss_normaliser(rollouts.mask[index], cfg)
    if cfg.micro_batch is not None:  # rows of like length together: less padding to compute
        index = index[rollouts.mask[index].sum(1).argsort(stable=True)]
    sums, furthest = {"tokens": 0.0}, 0.0
    for micro in index.split(cfg.micro_batch or len(index)):
        part, logp_ref = rollouts.rows(micro), None
        logp, entropy = token_logprobs(policy, part, cfg.temperature)
        if reference is not None:
            with torch.no_grad():
                logp_ref, _ = token_logprobs(reference, part, cfg.temperature)
        loss, stats = policy_loss(
            logp, part.logp, adv[micro], part.mask, cfg, logp_ref, tokens=z, entropy=entropy
        )
        loss.backward()
        furthest = max(furthest, (logp.detach() - part.logp).abs().max().item())
        tokens = part.mask.sum().item()
        for name, value in (stats | {"tokens": 1.0}).items():
            sums[name] = sums.get(name, 0.0) + value * tokens
    return sums, furthest


def update(policy, optimizer, rollouts, adv, cfg, reference=None, generator=None) -> dict:
    """`inner_epochs` passes over the rollouts, `minibatches` updates a pass; adv: [B].

    Returns the stats of policy_loss as means over the tokens of all updates, `grad_norm` (mean of
    the norms before clipping) and `skipped_updates`: those with a loss or gradient not finite.
    """
    total, norms, differences = {}, [], []
    for _ in range(cfg.inner_epochs):
        order = torch.randperm(len(adv), generator=generator, device=adv.device)
        for index in order.tensor_split(cfg.minibatches):
            sums, furthest = accumulate(policy, rollouts, index, adv, cfg, reference)
            norms.append(optimizer_step(policy, optimizer, cfg.max_grad_norm))
            differences.append(furthest)
            total = {name: total.get(name, 0.0) + value for name, value in sums.items()}
    tokens = total.pop("tokens")
    return {
        **{name: value / tokens for name, value in total.items()},
        **norm_stats(norms),
        # Before the first update sampler and trainer hold the same weights: they should agree.
        "sampling/sampling_logp_difference/max": differences[0],
    }


def norm_stats(norms: list[float]) -> dict[str, float]:
    """Mean of the finite gradient norms, and how many updates were skipped for one that is not."""
    finite = [norm for norm in norms if math.isfinite(norm)]
    if len(finite) < len(norms):
        tqdm.write(f"{len(norms) - len(finite)} update(s) skipped: loss or gradient not finite")
    mean = sum(finite) / max(len(finite), 1)
    return {"grad_norm": mean, "skipped_updates": len(norms) - len(finite)}


@dataclass
class Learner:
    """What a run trains and on what."""

    policy: torch.nn.Module
    tokenizer: object
    optimizer: torch.optim.Optimizer
    reference: torch.nn.Module | None  # the frozen start, only where kl_coef asks for it
    problems: list
    eval_problems: list


def start(cfg: GRPOConfig) -> Learner:
    """Check the config, load the policy and the problems. Raises InputError."""
    rows = cfg.prompts * cfg.group_size
    if cfg.group_size < 2:
        raise InputError("group_size must be at least 2: an advantage compares within a group")
    if cfg.temperature <= 0:
        raise InputError("temperature must be above 0: without chance there is no gradient")
    if not 1 <= cfg.minibatches <= rows:
        raise InputError(f"minibatches must be between 1 and the {rows} completions of a step")
    if cfg.votes < 1 or (cfg.train_problems is not None and cfg.train_problems < 1):
        raise InputError("votes and train_problems must be at least 1")
    eval_problems = load_problems(cfg.eval_data or cfg.data, "test", limit=cfg.eval_problems)
    held_out = {p.question for p in eval_problems}  # one file may serve both
    problems = [p for p in load_problems(cfg.data, "train") if p.question not in held_out]
    if not problems:
        raise InputError(f"{cfg.data}: every problem is held out; lower eval_problems")
    if cfg.train_problems is not None and cfg.train_problems < len(problems):
        problems = rng(cfg.seed, "training set").sample(problems, cfg.train_problems)
    policy, tokenizer = load_policy(cfg.model)
    for field in ("final_logit_softcapping", "logits_scaling", "logit_scale"):
        if getattr(policy.config, field, None) not in (None, 1, 1.0):
            raise InputError(f"{cfg.model}: {field} changes the logits, which training leaves out")
    if labels.needs_labels(cfg.reward) and any(p.label is None for p in problems):
        problems = labels.labelled(cfg, policy, tokenizer, problems)
    problems = labels.training_problems(cfg.reward, problems, rng(cfg.seed, "one shot"))
    return Learner(
        policy=policy,
        tokenizer=tokenizer,
        optimizer=torch.optim.AdamW(policy.parameters(), lr=cfg.lr, weight_decay=cfg.weight_decay),
        reference=load_policy(cfg.model)[0].requires_grad_(False) if cfg.kl_coef else None,
        problems=problems,
        eval_problems=eval_problems,
    )


def grpo_step(learner: Learner, reward, cfg: GRPOConfig, step: int):
    """Stages 1-4 of a step -> (rollouts, reward [B], metrics)."""
    generator = torch_rng(learner.policy.device, cfg.seed, "step", step)
    for group in learner.optimizer.param_groups:
        group["lr"] = cfg.lr * min(1.0, step / max(cfg.lr_warmup, 1))

    # 1 sample
    draw = rng(cfg.seed, "problems", step)
    few = len(learner.problems) < cfg.prompts  # then a problem may come up twice
    problems = (draw.choices if few else draw.sample)(learner.problems, k=cfg.prompts)
    rollouts = sample(
        learner.policy, learner.tokenizer, problems, cfg.group_size, cfg.max_new_tokens,
        cfg.temperature, generator=generator,
    )  # fmt: skip

    # 2 score
    score = reward(rollouts).to(rollouts.logp)
    groups = score.view(cfg.prompts, cfg.group_size)

    # 3 advantages
    adv = group_advantages(groups, cfg.scale_by_std).flatten()

    # 4 policy update
    stats = update(
        learner.policy, learner.optimizer, rollouts, adv, cfg, learner.reference, generator
    )
    metrics = {
        "reward": score.mean().item(),
        "reward_std": groups.std(1).mean().item(),
        "frac_reward_zero_std": (groups == groups[:, :1]).all(1).float().mean().item(),
        "accuracy": rewards.rule(rollouts).mean().item(),
        "code": rewards.python(rollouts).mean().item(),
        "completions/mean_length": rollouts.mask.sum(1).mean().item(),
        "completions/clipped_ratio": rollouts.truncated.float().mean().item(),
        **stats,
    }
    return rollouts, score, metrics


def evaluate(learner: Learner, cfg: GRPOConfig) -> dict:
    """Accuracy on the evaluation problems, sampled and greedy, by the rule whatever the reward."""
    model = (learner.policy, learner.tokenizer, learner.eval_problems)
    size = {"max_new_tokens": cfg.max_new_tokens, "batch": cfg.prompts * cfg.group_size}
    sampled = evaluation.evaluate(
        *model, cfg.eval_samples, cfg.eval_temperature, cfg.eval_top_p, seed=cfg.seed, **size
    )
    greedy = evaluation.evaluate(*model, samples=1, temperature=0.0, **size)
    return {
        "eval/accuracy": sampled["accuracy"],
        "eval/greedy": greedy["accuracy"],
        "eval/code": sampled["code"],
        "eval/boxed": sampled["boxed"],
        "training_problems": len(learner.problems),
    }


def train(cfg: GRPOConfig, reward=None) -> list[dict]:
    """GRPO on `reward(rollouts) -> [B]`; default: the function of rewards.py that cfg.reward names.

    Writes cfg.output (see run.py). Returns its history: one dict a step, step 0 an evaluation.
    """
    reward = reward or rewards.by_name(cfg.reward, cfg.gamma)
    folder, learner = Run(cfg), start(cfg)
    with folder.steps(cfg, policy=learner.policy, optimizer=learner.optimizer) as steps:
        for step in steps:
            row, began = {"step": step}, time.time()
            if step > 0:
                rollouts, score, metrics = grpo_step(learner, reward, cfg, step)
                row |= metrics | {"step_time": time.time() - began}
            # 8 log / eval
            if due(cfg.eval_every, step, cfg.steps):
                row |= evaluate(learner, cfg)
            folder.log(row)
            if step > 0 and due(cfg.eval_every, step, cfg.steps):
                folder.log_samples(step, rollouts, score)
    save_model(folder.folder / "policy", learner.policy, learner.tokenizer)
    return folder.history


if __name__ == "__main__":
    command_line(GRPOConfig, train)
