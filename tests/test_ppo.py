"""GAE by hand, a critic that learns, and where PPO is GRPO."""

import dataclasses

import pytest
import torch

from data import Problem
from grpo import group_advantages
from rollout import sample
from support.errors import InputError
from survey import ppo
from survey.ppo import Critic, PPOConfig, explained, gae, value_loss, whiten

PROBLEMS = [Problem("7 + 5 - 3 = ?", "9"), Problem("1 + 1 = ?", "2")]


def rows(*values):
    return torch.tensor(values, dtype=torch.float64)


REWARD, VALUE = rows(1.0, 0.0), rows([0.2, 0.5, 0.9], [0.4, 0.3, 0.0])
MASK = rows([1, 1, 1], [1, 1, 0])


@pytest.mark.parametrize(
    "discount, lam, expected",
    [
        (1.0, 1.0, [[0.8, 0.5, 0.1], [-0.4, -0.3, 0]]),  # what was earned minus what was expected
        (1.0, 0.0, [[0.3, 0.4, 0.1], [-0.1, -0.3, 0]]),  # one step ahead
        (0.0, 1.0, [[-0.2, -0.5, 0.1], [-0.4, -0.3, 0]]),  # nothing ahead
        # delta = (0.25, 0.31, 0.1) and (-0.13, -0.3), each next one times 0.45
        (0.9, 0.5, [[0.25 + 0.45 * (0.31 + 0.45 * 0.1), 0.31 + 0.45 * 0.1, 0.1],
                    [-0.13 - 0.45 * 0.3, -0.3, 0]]),
    ],
)  # fmt: skip
def test_gae_by_hand(discount, lam, expected):
    torch.testing.assert_close(gae(REWARD, VALUE, MASK, discount, lam), rows(*expected))


def test_with_the_mean_of_the_prompt_as_value_it_is_grpo_without_its_std():
    reward = rows(1.0, 0.0, 0.0, 1.0)
    adv = gae(reward, torch.full((4, 3), 0.5, dtype=torch.float64), torch.ones(4, 3).double())
    of_group = group_advantages(reward[None], scale_by_std=False)[0]
    torch.testing.assert_close(adv, of_group[:, None].expand(4, 3))


def test_value_loss_by_hand():
    value, old, returns, mask = rows([0.9, 0.1]), rows([0.5, 0.1]), rows([1.0, 0.0]), rows([1, 1])
    # clipped, 0.9 counts as 0.7: (0.3^2 + 0.1^2) / 2 / 2
    assert value_loss(value, old, returns, mask, 0.2).item() == pytest.approx(0.1 / 4)
    assert value_loss(value, old, returns, mask, None).item() == pytest.approx(0.02 / 4)


def test_whitened_and_explained_by_hand():
    adv = whiten(rows([1.0, 3.0, 99.0]), rows([1, 1, 0]))
    torch.testing.assert_close(adv, rows([-1, 1, 0]) / 2**0.5, atol=1e-5, rtol=0)
    returns = rows([0.0, 1.0, 99.0])
    assert explained(returns, returns, rows([1, 1, 0])) == 1
    assert explained(rows([0.5, 0.5, 0]), returns, rows([1, 1, 0])) == 0


def test_the_critic_reads_what_is_before_a_token_and_not_the_token(policy, tokenizer):
    critic = Critic(policy)
    torch.nn.init.normal_(critic.head.weight)
    rollouts = sample(policy, tokenizer, PROBLEMS, 2, 6)
    value = critic(rollouts)
    assert value.shape == rollouts.mask.shape
    torch.testing.assert_close(value[0, 0], value[1, 0])  # same prompt, other completions
    other = dataclasses.replace(rollouts, completion_ids=rollouts.completion_ids.clone())
    other.completion_ids[:, 3] += 1
    changed = (critic(other) - value).abs().max(0).values
    assert changed[:4].max() < 1e-5 and changed[4:].max() > 1e-3


def test_the_critic_learns_and_the_policy_waits_for_it(untrained, tmp_path):
    """Reward 1 whatever is written: the critic comes to expect it."""
    cfg = PPOConfig(
        model=untrained, output=str(tmp_path / "run"), prompts=4, group_size=2, max_new_tokens=6,
        eval_every=0, eval_problems=4, steps=30, critic_warmup=30, critic_lr=1e-2,
    )  # fmt: skip
    losses = [row["critic/loss"] for row in ppo.train(cfg, lambda r: torch.ones(len(r.texts)))[1:]]
    assert losses[0] == pytest.approx(0.5, abs=0.2) and losses[-1] < losses[0] / 10
    weights = torch.load(tmp_path / "run" / "checkpoint.pt")["policy"]
    start = ppo.learning.start(cfg).policy.state_dict()
    assert all(torch.equal(weights[name], start[name]) for name in start)


def test_the_gradient_of_the_critic_does_not_depend_on_micro_batch(policy, tokenizer):
    rollouts = sample(policy, tokenizer, PROBLEMS, 3, 6)
    returns, weights = torch.arange(6.0)[:, None] * rollouts.mask, []
    for size in (None, 1, 4):
        torch.manual_seed(1)
        critic = Critic(policy)
        optimizer = torch.optim.SGD(critic.parameters(), lr=1e-3)
        cfg = PPOConfig(micro_batch=size, minibatches=2, max_grad_norm=1e9, value_clip=None)
        draw = torch.Generator().manual_seed(0)
        ppo.update_critic(critic, optimizer, rollouts, 0 * returns, returns, cfg, draw)
        weights.append(torch.cat([p.flatten() for p in critic.parameters()]))
    assert weights[0].abs().sum() > 0
    torch.testing.assert_close(weights[1], weights[0], atol=1e-6, rtol=0)
    torch.testing.assert_close(weights[2], weights[0], atol=1e-6, rtol=0)


def test_killed_and_resumed_it_ends_bit_for_bit_alike(untrained, tmp_path, resumes_alike):
    cfg = PPOConfig(
        model=untrained, output=str(tmp_path / "whole"), prompts=4, group_size=1, max_new_tokens=6,
        eval_every=0, eval_problems=4, steps=4, critic_warmup=1, save_every=1, reward="random",
    )  # fmt: skip
    resumes_alike(ppo, cfg)


def test_what_ppo_ignores_is_refused(untrained, tmp_path):
    cfg = PPOConfig(
        model=untrained, output=str(tmp_path / "run"), advantage="batch", prioritised=True
    )
    with pytest.raises(InputError, match="leave out advantage, prioritised"):
        ppo.train(cfg)
