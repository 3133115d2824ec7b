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
                    `minibatches` or `inner_epochs` above 1; watch grad_norm, not the loss
    KL              a loss term, not part of the reward; as such k2 has the gradient of
                    KL(pi || ref), k1 none in expectation, k3 that of KL(ref || pi)
    std             sample std (G - 1), as in TRL and veRL; `--no_scale_by_std` as in Dr. GRPO
    aggregation     mean over the tokens of the minibatch, as in DAPO and veRL; see `loss_norm`
    equal rewards   the group has A = 0 exactly, and its tokens still count in Z
    old log-probs   the sampler's own; the trainer's may differ, see docs/metrics.md: sampling/...

Two calls lead from the loop to the formula: train > update > policy_loss.

    python grpo.py --model runs/demo/policy --reward rule --clip_eps None

N prompts, G completions each, B = N*G rows, P prompt length, T completion length, V vocabulary.
"""

import math
import time
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch

import rewards
import rules
from data import draw_problems
from eval import eval_metrics, evaluation_due
from judge import Judge
from learner import check, start
from metrics import rollout_metrics
from rollout import sample, token_logprobs
from support import memory
from support.errors import InputError
from support.flags import command_line
from support.optimize import norm_stats, optimizer_step
from support.run import Run, rng, summary, torch_rng
from survey import objectives, sampling

HELP = objectives.HELP


@dataclass(frozen=True)
class GRPOConfig(objectives.Switches, memory.Resources):
    model: str = "runs/demo/policy"  # policy to start from: Hugging Face folder or hub name
    system: str | None = None  # system prompt; None leaves it to the model's chat template
    chat: str | None = None  # "plain" for a base model, or JSON: {"enable_thinking": false}
    data: str = "arithmetic"  # training problems: "arithmetic", a .jsonl file, or a named benchmark
    eval_data: str | None = None  # evaluation problems; None takes the test split of data
    output: str = "runs/grpo"  # folder of this run; one that was interrupted there goes on
    reward: str = "rule"  # rule, random, majority, ...: see rewards.py; or "rule and not python"
    rule: str = "verifier"  # what training takes for right: see rules.rule_of
    gamma: float = 0.5  # chance of a reward of 1 under "random"
    votes: int = 64  # samples of the initial policy per label, for "majority" and "incorrect"
    train_problems: int | None = None  # size of the training set; None is all, 2000 of arithmetic
    seed: int = 0  # of problems and sampling

    steps: int = 100  # rollout phases
    prompts: int = 32  # N, problems per step
    group_size: int = 8  # G, completions per problem, at least 2
    max_new_tokens: int = 40  # length limit of a completion, tokens
    temperature: float = 1.0  # of sampling while training; above 0

    scale_by_std: bool = True  # divide the advantage by the group's std
    clip_eps: float | None = 0.2  # ratio is clipped to 1 - eps .. 1 + eps; None is no clipping
    clip_eps_low: float | None = None  # lower eps if it differs; inf has no lower bound
    clip_eps_high: float | None = None  # upper eps if it differs (DAPO: 0.28); inf has none
    kl_coef: float = 0.0  # weight of KL(policy || start); 0 loads no reference model
    kl_estimator: Literal["k1", "k2", "k3"] = "k3"  # per-token estimate of that KL
    entropy_coef: float = 0.0  # weight of the entropy bonus; 0 is none
    loss_norm: Literal["token", "sequence", "constant"] = "token"  # see loss_normaliser

    inner_epochs: int = 1  # passes over the rollouts of a step
    minibatches: int = 2  # updates per pass
    micro_batch: int | None = 64  # rows per forward pass; None takes the whole minibatch
    lr: float = 2e-4  # of AdamW; 1e-6 for a real LLM
    lr_warmup: int = 0  # steps until lr is reached
    weight_decay: float = 0.0  # of AdamW
    max_grad_norm: float = 1.0  # gradients are clipped to this norm

    eval_every: int = 20  # steps between evaluations, 0 for none
    eval_early: int = 0  # up to this step every other step is evaluated as well; 0 for none
    eval_problems: int = 200  # problems per evaluation
    eval_samples: int = 4  # completions per problem; one greedy one besides
    eval_temperature: float = 0.7  # of the sampled evaluation
    eval_top_p: float = 0.95  # likewise
    save_every: int = 25  # steps between checkpoints; the last step is always saved


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
    # NOTE: in float32 the mean of nearly equal rewards is off by a rounding, and 1 / std makes that
    # an advantage; of equal ones it can be in float64, too
    exact = reward.double()
    centred = exact - exact.mean(1, keepdim=True)
    centred = centred.masked_fill((reward == reward[:, :1]).all(1, keepdim=True), 0.0)
    adv = centred / (exact.std(1, keepdim=True) + 1e-6) if scale_by_std else centred
    return adv.to(reward.dtype)


def clip_bounds(cfg: GRPOConfig) -> tuple[float, float]:
    """(lowest, highest) ratio that still has a gradient; infinite where clipping is off."""
    low = cfg.clip_eps if cfg.clip_eps_low is None else cfg.clip_eps_low
    high = cfg.clip_eps if cfg.clip_eps_high is None else cfg.clip_eps_high
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


def policy_loss(logp, logp_old, adv, mask, cfg, logp_ref=None, normaliser=None, entropy=None):
    """loss = -J of the module docstring (PPO eq. 7 with group advantages).

    logp, logp_old, logp_ref, entropy, mask: [B, T] float. adv: [B], or [B, T] for one per token.
    normaliser: Z of the minibatch that this is a part of; None: this is all of it.
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
    if (cfg.weight, cfg.clip) != ("token", "min"):
        objective, ratio = objectives.surrogate(logp, logp_old, adv, mask, cfg, (low, high))
    stats = {"ratio": ratio, "token_prob": logp.exp()}
    if cfg.kl_coef:
        stats["kl"] = kl_estimate(logp, logp_ref, cfg.kl_estimator)
        objective = objective - cfg.kl_coef * stats["kl"]
    if cfg.entropy_coef:
        objective = objective + cfg.entropy_coef * entropy
    weight = mask / mask.sum(1, keepdim=True).clamp(min=1) if cfg.loss_norm == "sequence" else mask
    loss = -(objective * weight).sum() / (normaliser or loss_normaliser(mask, cfg))

    cut = cfg.clip == "weight"  # whatever the sign of A
    below, above = (ratio < low) & ((adv < 0) | cut), (ratio > high) & ((adv > 0) | cut)
    stats |= {"clip_ratio/low_mean": below, "clip_ratio/high_mean": above}
    stats |= {"clip_ratio/region_mean": below | above}
    stats |= {} if entropy is None else {"entropy": entropy}
    count = mask.sum().clamp(min=1)
    return loss, {k: ((v.detach() * mask).sum() / count).item() for k, v in stats.items()}


@torch.enable_grad()
def update(policy, optimizer, rollouts, adv, cfg, reference=None, generator=None) -> dict:
    """Stage 4: `inner_epochs` passes over the rollouts, `minibatches` updates per pass.

    adv: [B], or [B, T] for one per token. Completions whose advantage is 0 are not read where no
    KL or entropy asks for them: they would add a gradient of 0. The normaliser counts them.
    Returns the stats of policy_loss, means over the tokens that were read (clip_ratio/...: over
    all), those of norm_stats, how far sampler and trainer differ, and the entropy when sampled.
    Raises InputError if no update could be applied.
    """
    sums, tokens, in_all, norms, distances = {}, 0.0, 0.0, [], []
    adv = adv.view(len(adv), -1)  # [B, 1] or [B, T]
    read = (adv != 0).any(1) | bool(cfg.kl_coef or cfg.entropy_coef)
    score = partial(token_logprobs, temperature=cfg.temperature, share_prompts=cfg.share_prompts)
    for _ in range(cfg.inner_epochs):
        order = torch.randperm(len(adv), generator=generator, device=adv.device)
        for minibatch in order.tensor_split(cfg.minibatches):
            normaliser = loss_normaliser(rollouts.mask[minibatch], cfg)
            in_all += rollouts.mask[minibatch].sum().item()
            # at least one, for an optimizer with momentum steps all the same
            minibatch = minibatch[read[minibatch]] if read[minibatch].any() else minibatch[:1]
            if cfg.micro_batch is not None:
                # rows of like length together: less padding to compute, the same gradient
                like = minibatch if cfg.share_prompts else rollouts.mask[minibatch].sum(1)
                minibatch = minibatch[like.argsort(stable=True)]
            for rows in minibatch.split(cfg.micro_batch or len(minibatch)):
                part, logp_ref = rollouts.rows(rows), None
                part_adv = adv[rows][:, : part.mask.shape[1]]
                if reference is not None:
                    with torch.no_grad(), memory.as_reference(reference, policy):
                        logp_ref, _ = score(reference, part)
                with memory.recomputing(policy):
                    logp, entropy = score(policy, part, entropy_grad=bool(cfg.entropy_coef))
                loss, stats = policy_loss(
                    logp, part.logp, part_adv, part.mask, cfg, logp_ref, normaliser, entropy
                )
                loss.backward()
                count = part.mask.sum().item()
                tokens += count
                for name, value in stats.items():
                    sums[name] = sums.get(name, 0.0) + value * count
                # before the first update sampler and trainer hold the same weights: they agree
                if not norms:
                    distances.append((logp.detach() - part.logp).abs().max())
            norms.append(optimizer_step(policy, optimizer, cfg.max_grad_norm))
    means = {name: value / tokens for name, value in sums.items()}
    if cfg.clip == "min":  # then what has no advantage is not clipped
        means |= {n: sums[n] / in_all for n in sums if n.startswith("clip_ratio")}
    if rollouts.entropy is not None:
        means["entropy"] = (rollouts.entropy.sum() / rollouts.mask.sum()).item()
    furthest = torch.stack(distances).max().item()  # Python's max would pass over a nan
    return means | norm_stats(norms) | {"sampling/sampling_logp_difference/max": furthest}


# --------------------------------------------------------------------------------------------------
# The loop


def train(cfg: GRPOConfig, reward=None, on_row=None) -> list[dict]:
    """GRPO on `reward(rollouts) -> [B]`; default: the function of rewards.py that cfg.reward names.

    Writes cfg.output (see support/run.py), returns its history: a dict per step, 0 is the start.
    on_row: called with each, e.g. wandb.log.
    """
    cfg = objectives.with_preset(cfg)
    check(cfg)
    rule = rules.by_rule(rules.rule_of(cfg.rule))
    how = cfg.system, cfg.chat, cfg.judge_max_new_tokens, cfg.cuda_graphs
    judge = Judge(cfg.model, *how)
    reward = reward or rewards.by_name(cfg.reward, cfg.gamma, rule, judge=judge)
    with Run(cfg, reward, on_row) as run:
        learner = start(cfg)
        policy, tokenizer, optimizer = learner.policy, learner.tokenizer, learner.optimizer
        N, G, T = cfg.prompts, cfg.group_size, cfg.max_new_tokens
        run.resume(policy=memory.trained(policy), optimizer=optimizer, **learner.extra)
        if not run.history:
            run.log({"step": 0} | eval_metrics(learner, cfg))

        for step in run.steps():
            began, seeded = time.time(), torch_rng(policy.device, cfg.seed, "step", step)
            optimizer.param_groups[0]["lr"] = cfg.lr * min(1.0, step / max(cfg.lr_warmup, 1))

            # 1 sample
            draw, heat = rng(cfg.seed, "problems", step), cfg.temperature
            problems = draw_problems(learner.problems, N, draw, learner.chances)
            rollouts = sample(learner.writer, tokenizer, problems, G, T, heat, generator=seeded)

            # 2 score
            score = rewards.checked(reward, rollouts)
            if cfg.dynamic_sampling or cfg.overlong:
                rollouts, score = sampling.replace_and_punish(
                    rollouts, score, learner, reward, cfg, draw, seeded
                )

            # 3 advantages
            adv = group_advantages(score.view(N, G), cfg.scale_by_std).flatten()
            if not objectives.is_plain(cfg):
                rollouts, adv = objectives.token_advantages(
                    adv, learner, rollouts, score, reward, cfg, seeded
                )

            # 4 policy update
            now = sampling.adapted(cfg, learner, run.history)
            stats = update(policy, optimizer, rollouts, adv, now, learner.reference, seeded)

            # 8 log / eval (5-7 are Cooper's)
            correct = rewards.rule(rollouts)
            row = {"step": step} | rollout_metrics(rollouts, score, correct, rule) | stats
            row |= sampling.after_step(learner, rollouts, rule, cfg, step)
            row["step_time"] = time.time() - began
            if evaluation_due(cfg, step):
                row |= eval_metrics(learner, cfg)
                run.log_samples(step, rollouts, score, correct)
            run.log(row)
            run.checkpoint(step)

        run.save_model("policy", memory.merged(policy), tokenizer)
    return run.history


def main(cfg: GRPOConfig) -> None:
    print(summary(train(cfg), cfg.output))


if __name__ == "__main__":
    command_line(GRPOConfig, main)
