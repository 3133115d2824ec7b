"""The story in miniature. One short warm-up serves all; about two minutes on two cores.

GRPO lifts accuracy, a constant reward changes nothing, a shuffled one teaches nothing, a frozen
reward model is hacked and Cooper is not.
"""

import dataclasses

import pytest
import torch

import cooper
import grpo
import reward_model
import rewards
import tiny


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """(policy folder, reward model folder) after a short warm-up."""
    folder = tmp_path_factory.mktemp("start")
    policy, rm = str(folder / "policy"), str(folder / "rm")
    tiny.warm_up(tiny.WarmUpConfig(output=policy, steps=600))
    reward_model.train(
        reward_model.RewardModelConfig(model=policy, output=rm, problems=600, steps=120)
    )
    return policy, rm


@pytest.fixture
def cfg(start, tmp_path):
    return cooper.CooperConfig(
        model=start[0], rm_model=start[1], output=str(tmp_path / "run"), eval_problems=100,
        eval_every=10,
    )  # fmt: skip


def plain(cfg, **changes):
    names = {field.name for field in dataclasses.fields(grpo.GRPOConfig)}
    return grpo.GRPOConfig(**{name: getattr(cfg, name) for name in names} | changes)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_grpo_on_the_rule_lifts_accuracy(cfg, seed):
    history = grpo.train(plain(cfg, seed=seed, steps=30, eval_every=30))
    assert history[0]["eval/accuracy"] < 0.5
    assert history[-1]["eval/accuracy"] > 0.85
    assert history[1]["sampling/sampling_logp_difference/max"] < 1e-4


def test_a_constant_reward_changes_no_parameter(cfg):
    before = grpo.start(cfg).policy.state_dict()
    grpo.train(plain(cfg, steps=3, eval_every=0), reward=lambda r: torch.full((len(r.texts),), 0.7))
    after = torch.load(f"{cfg.output}/checkpoint.pt")["policy"]
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_shuffled_reward_teaches_nothing(cfg):
    generator = torch.Generator().manual_seed(0)

    def shuffled(rollouts):
        reward = rewards.rule(rollouts)
        return reward[torch.randperm(len(reward), generator=generator)]

    history = grpo.train(plain(cfg, steps=30, eval_every=30), reward=shuffled)
    assert history[-1]["eval/accuracy"] < history[0]["eval/accuracy"] + 0.2
