"""Learning in a small form: one short warm-up serves all, about a minute on two cores.

GRPO lifts accuracy, a constant reward changes nothing, a shuffled one teaches nothing. Hacking and
its cure take minutes per seed: `make reproduce` runs them, tests/test_results.py holds the claims
against the committed logs.
"""

import dataclasses

import pytest
import torch

import grpo
import rewards
import tiny


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """The folder of a policy after a short warm-up."""
    folder = str(tmp_path_factory.mktemp("start") / "policy")
    tiny.warm_up(tiny.WarmUpConfig(output=folder, steps=400, helpers=False))
    return folder


@pytest.fixture
def cfg(start, tmp_path):
    return grpo.GRPOConfig(
        model=start, output=str(tmp_path / "run"), steps=24, eval_problems=60, eval_every=24
    )


@pytest.mark.parametrize("seed", [0, 1])
def test_grpo_on_the_rule_lifts_accuracy(cfg, seed):
    history = grpo.train(dataclasses.replace(cfg, seed=seed))
    assert history[0]["eval/accuracy"] < 0.5
    assert history[-1]["eval/accuracy"] > 0.75
    assert history[1]["sampling/sampling_logp_difference/max"] < 1e-4


def test_a_constant_reward_changes_no_parameter(cfg):
    before = grpo.start(cfg).policy.state_dict()
    constant = dataclasses.replace(cfg, steps=3, eval_every=0)
    grpo.train(constant, reward=lambda r: torch.full((len(r.texts),), 0.7))
    after = torch.load(f"{cfg.output}/checkpoint.pt")["policy"]
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_shuffled_reward_teaches_nothing(cfg):
    generator = torch.Generator().manual_seed(0)

    def shuffled(rollouts):
        reward = rewards.rule(rollouts)
        return reward[torch.randperm(len(reward), generator=generator)]

    history = grpo.train(dataclasses.replace(cfg, steps=12, eval_every=12), reward=shuffled)
    assert history[-1]["eval/accuracy"] < history[0]["eval/accuracy"] + 0.2
