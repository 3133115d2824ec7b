r"""PPO with a critic (arXiv:1707.06347; GAE: arXiv:1506.02438): a value for every token.

Where GRPO compares a completion with others of its prompt, PPO asks a second model, the critic,
what it expected at each token, V(x, y_<t), and learns from the surprise:

    delta_t = r_t + gamma V_{t+1} - V_t,      V = 0 behind the last token, r_t = 0 but there
    A_t     = delta_t + gamma lambda A_{t+1}
    critic:   1/2 mean max((V - R)^2, (clip(V, V_old - eps, V_old + eps) - R)^2),   R = A + V_old

Policy update, reward and evaluation are those of grpo.py. With lambda = gamma = 1 and V the mean
reward of the prompt, A is GRPO's without its std. Of one prompt one completion is enough; here as
many as for GRPO, so that both cost alike.

    python -m survey.ppo --model runs/demo/policy
"""

import copy
import time
from dataclasses import dataclass

import torch

import learner as learning
import rewards
import rules
from data import draw_problems
from eval import eval_metrics, evaluation_due
from grpo import GRPOConfig, update
from metrics import rollout_metrics
from rollout import Rollouts, positions, sample
from support import memory
from support.errors import InputError
from support.flags import command_line
from support.optimize import norm_stats, optimizer_step
from support.run import Run, rng, summary, torch_rng
from support.selfcheck import autocast
from survey import objectives


@dataclass(frozen=True)
class PPOConfig(GRPOConfig):
    output: str = "runs/ppo"  # folder of this run; one that was interrupted there goes on
    discount: float = 1.0  # gamma of the returns, 0 to 1
    gae_lambda: float = 1.0  # 1: what is earned in the end; 0: what the critic expects next
    critic_lr: float = 1e-3  # of AdamW; 1e-5 for a real LLM
    critic_warmup: int = 5  # steps in which only the critic learns
    value_clip: float | None = 0.2  # how far a step moves V; None is no clipping


class Critic(torch.nn.Module):
    """V(x, y_<t) of every token: the policy's backbone, copied, under a head of its own."""

    def __init__(self, policy):
        super().__init__()
        self.backbone = copy.deepcopy(policy.get_decoder())
        width = policy.config.get_text_config().hidden_size
        self.head = torch.nn.Linear(width, 1, device=policy.device)
        torch.nn.init.zeros_(self.head.weight)
        torch.nn.init.zeros_(self.head.bias)

    def forward(self, rollouts: Rollouts) -> torch.Tensor:
        """[B, T]: what is expected before token t is written; 0 off the mask."""
        ids = torch.cat([rollouts.prompt_ids, rollouts.completion_ids], dim=1)
        seen = torch.cat([rollouts.prompt_mask, rollouts.mask.long()], dim=1)
        with autocast():
            hidden = self.backbone(
                input_ids=ids, attention_mask=seen, position_ids=positions(seen), use_cache=False
            ).last_hidden_state
        T = rollouts.mask.shape[1]
        return self.head(hidden[:, -T - 1 : -1].float())[..., 0] * rollouts.mask


def gae(reward, value, mask, discount: float = 1.0, gae_lambda: float = 1.0) -> torch.Tensor:
    """A_t of the module docstring, [B, T]; reward: [B], paid at the last token; value: [B, T].

    >>> one = torch.ones(1, 2)
    >>> gae(torch.tensor([1.0]), torch.tensor([[0.5, 0.7]]), one)
    tensor([[0.5000, 0.3000]])
    >>> gae(torch.tensor([1.0]), torch.tensor([[0.5, 0.7]]), one, gae_lambda=0.0)
    tensor([[0.2000, 0.3000]])
    """
    adv, T = torch.zeros_like(value), mask.shape[1]
    last = mask.sum(1).long() - 1
    following = next_value = torch.zeros_like(reward)
    for t in reversed(range(T)):
        paid = torch.where(last == t, reward, 0.0)
        delta = paid + discount * next_value - value[:, t]
        following = (delta + discount * gae_lambda * following) * mask[:, t]
        next_value = value[:, t] * mask[:, t]
        adv[:, t] = following
    return adv


def whiten(adv: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """(A - mean) / std over the tokens of the mask."""
    inside = adv[mask.bool()]
    return (adv - inside.mean()) / (inside.std() + 1e-6) * mask


def value_loss(value, value_old, returns, mask, clip: float | None) -> torch.Tensor:
    """The critic's loss, a mean over the tokens of the mask; all [B, T]."""
    error = (value - returns) ** 2
    if clip is not None:
        near = value_old + (value - value_old).clamp(-clip, clip)
        error = torch.maximum(error, (near - returns) ** 2)
    return 0.5 * (error * mask).sum() / mask.sum()


@torch.enable_grad()
def update_critic(critic, optimizer, rollouts, value_old, returns, cfg, generator) -> dict:
    """As many passes and updates as the policy gets. Raises InputError: none could be applied."""
    losses, norms = [], []
    for _ in range(cfg.inner_epochs):
        order = torch.randperm(len(returns), generator=generator, device=returns.device)
        for minibatch in order.tensor_split(cfg.minibatches):
            tokens = rollouts.mask[minibatch].sum()
            for rows in minibatch.split(cfg.micro_batch or len(minibatch)):
                part = rollouts.rows(rows)
                T = part.mask.shape[1]
                old, wanted = value_old[rows, :T], returns[rows, :T]
                with memory.recomputing(critic):
                    value = critic(part)
                loss = value_loss(value, old, wanted, part.mask, cfg.value_clip)
                loss = loss * part.mask.sum() / tokens
                loss.backward()
                losses.append(loss.item())
            norms.append(optimizer_step(critic, optimizer, cfg.max_grad_norm))
    stats = {f"critic/{name}": value for name, value in norm_stats(norms).items()}
    return stats | {"critic/loss": sum(losses) / (cfg.inner_epochs * cfg.minibatches)}


def explained(value, returns, mask) -> float:
    """Share of the returns' variance over tokens that the critic foresees; 1 is all of it."""
    inside = mask.bool()
    spread = returns[inside].var()
    left = (returns - value)[inside].var()
    return float("nan") if spread == 0 else (1 - left / spread).item()


def train(cfg: PPOConfig, reward=None, on_row=None) -> list[dict]:
    """grpo.train with a critic in place of the group."""
    learning.check(cfg, group_size=(1, None), discount=(0, 1), gae_lambda=(0, 1))
    if asked := objectives.changed(cfg, but=("weight", "clip")):
        raise InputError(f"PPO has its own advantage and sampling: leave out {', '.join(asked)}")
    rule = rules.by_rule(rules.rule_of(cfg.rule))
    reward = reward or rewards.by_name(cfg.reward, cfg.gamma, rule)
    with Run(cfg, reward, on_row) as run:
        learner = learning.start(cfg)
        policy, tokenizer, optimizer = learner.policy, learner.tokenizer, learner.optimizer
        N, G, T = cfg.prompts, cfg.group_size, cfg.max_new_tokens
        critic = Critic(policy)
        critic_optimizer = torch.optim.AdamW(critic.parameters(), lr=cfg.critic_lr)
        parts = {"critic": critic, "critic_optimizer": critic_optimizer}
        run.resume(policy=memory.trained(policy), optimizer=optimizer, **parts)
        if not run.history:
            run.log({"step": 0} | eval_metrics(learner, cfg))

        for step in run.steps():
            began, seeded = time.time(), torch_rng(policy.device, cfg.seed, "step", step)
            optimizer.param_groups[0]["lr"] = cfg.lr * min(1.0, step / max(cfg.lr_warmup, 1))

            # 1 sample
            problems = draw_problems(learner.problems, N, rng(cfg.seed, "problems", step))
            rollouts = sample(policy, tokenizer, problems, G, T, cfg.temperature, generator=seeded)

            # 2 score
            score = rewards.checked(reward, rollouts)

            # 3 advantages
            with torch.no_grad():
                value = critic(rollouts)
            adv = gae(score, value, rollouts.mask, cfg.discount, cfg.gae_lambda)
            returns = adv + value

            # 4 policy update, and the critic's
            stats = update_critic(
                critic, critic_optimizer, rollouts, value, returns, cfg, seeded
            )  # fmt: skip
            if step > cfg.critic_warmup:
                adv = whiten(adv, rollouts.mask) if cfg.scale_by_std else adv
                stats |= update(policy, optimizer, rollouts, adv, cfg, learner.reference, seeded)

            # 8 log / eval
            correct = rewards.rule(rollouts)
            row = {"step": step} | rollout_metrics(rollouts, score, correct, rule) | stats
            row["completions"] = N * G
            row["critic/explained_variance"] = explained(value, returns, rollouts.mask)
            row["step_time"] = time.time() - began
            if evaluation_due(cfg, step):
                row |= eval_metrics(learner, cfg)
                run.log_samples(step, rollouts, score, correct)
            run.log(row)
            run.checkpoint(step)

        run.save_model("policy", memory.merged(policy), tokenizer)
    return run.history


def main(cfg: PPOConfig) -> None:
    print(summary(train(cfg), cfg.output))


if __name__ == "__main__":
    command_line(PPOConfig, main)
