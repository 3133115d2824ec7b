"""Each relative of GRPO against numbers worked out by hand, and the identities between them."""

import dataclasses
import math
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import grpo
import tiny
from data import Problem
from grpo import GRPOConfig
from rollout import sample
from support.errors import InputError
from survey import objectives
from survey.objectives import advantages, pass_at_k_advantages, surrogate
from survey.sampling import overlong

R = torch.tensor([[1.0, 0.0, 0.0, 0.0], [1.0, 1.0, 1.0, 0.0]], dtype=torch.float64)


def rows(*values):
    return torch.tensor(values, dtype=torch.float64)


@pytest.mark.parametrize(
    "kind, expected",
    [
        ("reward", [[1, 0, 0, 0], [1, 1, 1, 0]]),
        ("batch_mean", [[0.5, -0.5, -0.5, -0.5], [0.5, 0.5, 0.5, -0.5]]),
        # RLOO by its definition: r minus the mean of the other three
        ("leave_one_out", [[1, -1 / 3, -1 / 3, -1 / 3], [1 / 3, 1 / 3, 1 / 3, -1]]),
        ("best", [[1, 0, 0, 0], [1, 0, 0, 0]]),
    ],
)
def test_advantages_by_hand(kind, expected):
    torch.testing.assert_close(advantages(R, kind), rows(*expected))


def test_advantages_over_the_std_of_all():
    std = math.sqrt(8 * 0.25 / 7)  # half of the eight are right, n - 1
    torch.testing.assert_close(advantages(R, "batch"), (R - 0.5) / (std + 1e-6))
    centred = R - rows([0.25], [0.75])
    torch.testing.assert_close(advantages(R, "batch_std"), centred / (std + 1e-6))


def test_leave_one_out_is_the_centred_reward_times_g_over_g_minus_1():
    reward = torch.rand(5, 8, dtype=torch.float64)
    centred = reward - reward.mean(1, keepdim=True)
    torch.testing.assert_close(advantages(reward, "leave_one_out"), 8 / 7 * centred)


def test_pass_at_k_by_counting_all_draws():
    from itertools import combinations

    reward, k = rows([1, 1, 0, 0, 0, 0]), 3
    draws = list(combinations(range(6), k))
    worth = {draw: max(reward[0, i].item() for i in draw) for draw in draws}
    mean = sum(worth.values()) / len(draws)
    std = math.sqrt(mean * (1 - mean))
    expected = []
    for i in range(6):
        with_i = [worth[draw] for draw in draws if i in draw]
        expected.append((sum(with_i) / len(with_i) - mean) / std)
    torch.testing.assert_close(pass_at_k_advantages(reward, k), rows(expected))


def test_pass_at_1_is_grpo_with_the_population_std():
    std = R.std(1, correction=0, keepdim=True)
    torch.testing.assert_close(pass_at_k_advantages(R, 1), (R - R.mean(1, keepdim=True)) / std)


def test_pass_at_k_of_groups_without_a_difference_is_0():
    assert (pass_at_k_advantages(rows([1, 1, 1, 1], [0, 0, 0, 0]), 2) == 0).all()
    # with one wrong, every draw of two passes: nothing left to learn
    assert (pass_at_k_advantages(rows([1, 1, 1, 0]), 2) == 0).all()
    with pytest.raises(InputError, match="needs rewards of 0 and 1"):
        pass_at_k_advantages(rows([0.5, 0.0]), 1)
    with pytest.raises(InputError, match="a group of 5 or more"):
        pass_at_k_advantages(R, 5)


# -- weights -------------------------------------------------------------------------------------

OLD = torch.tensor([[0.5, 0.25, 0.5], [0.5, 0.5, 0.5]], dtype=torch.float64).log()
NEW = torch.tensor([[0.6, 0.5, 0.1], [0.45, 0.5, 0.5]], dtype=torch.float64).log()
MASK = rows([1, 1, 0], [1, 1, 1])
ADV = rows([1.0], [-2.0])


def of(weight="token", clip="min", low=0.8, high=1.2, adv=ADV, new=NEW, mask=MASK):
    cfg = SimpleNamespace(weight=weight, clip=clip)
    new = new.clone().requires_grad_()
    objective, ratio = surrogate(new, OLD, adv, mask, cfg, (low, high))
    (objective * mask).sum().backward()
    return objective.detach(), ratio.detach(), new.grad


def test_sequence_ratio_by_hand():
    objective, ratio, gradient = of("sequence", low=0.5, high=3.0)
    first, second = math.sqrt(1.2 * 2.0), 0.9 ** (1 / 3)  # geometric means over the mask
    torch.testing.assert_close(ratio, rows([first] * 3, [second] * 3))
    torch.testing.assert_close(objective, rows([first] * 3, [-2 * second] * 3))
    # d/dlogp_t of two equal terms s * A: each token moves s by s / length
    torch.testing.assert_close(gradient[0], rows(first, first, 0))
    clipped = of("sequence")
    assert (clipped[0][0] == 1.2).all() and (clipped[2][0] == 0).all(), "the whole row is clipped"


def test_cispo_keeps_the_gradient_of_a_token_that_ppo_clips():
    _, _, ppo = of()
    objective, _, cispo = of(clip="weight")
    assert ppo[0, 1] == 0 and cispo[0, 1] == 1.2, "ratio 2, A = 1: the weight is cut to 1.2"
    torch.testing.assert_close(cispo[1], -2 * rows(0.9, 1.0, 1.0))
    torch.testing.assert_close(objective[0, 1], 1.2 * NEW[0, 1])


def test_gmpo_by_hand():
    objective, _, gradient = of("geometric")
    first = math.sqrt(1.2 * 1.2)  # 2.0 is clipped to 1.2 before the mean
    second = 0.9 ** (1 / 3)
    torch.testing.assert_close(objective, rows([first] * 3, [-2 * second] * 3))
    assert gradient[0, 1] == 0 and gradient[0, 0] > 0, "one token is clipped, the other is not"


def test_gmpo_clips_only_what_would_go_too_far():
    """Not a token of a right text whose ratio is small, nor of a wrong one where it is large."""
    new, mask = OLD + rows([0.1, 1, 1], [2.0, 1, 1]).log(), torch.ones(2, 3).double()
    objective, _, gradient = of("geometric", adv=rows([1.0], [-1.0]), new=new, mask=mask)
    torch.testing.assert_close(objective[:, 0], rows(0.1 ** (1 / 3), -(2.0 ** (1 / 3))))
    assert (gradient != 0).all()


def test_without_a_weight_the_gradient_is_that_of_reinforce():
    objective, ratio, gradient = of("none")
    torch.testing.assert_close(gradient, ADV * MASK)
    assert (ratio == 1).all() and (objective == ADV).all()


@pytest.mark.parametrize("weight, clip", [("none", "min"), ("token", "weight")])
def test_on_policy_all_token_objectives_have_one_gradient(weight, clip):
    _, _, expected = of(new=OLD)
    torch.testing.assert_close(of(weight, clip, new=OLD)[2], expected)


@pytest.mark.parametrize("weight", ["sequence", "geometric"])
def test_on_policy_sequence_objectives_have_it_too(weight):
    """Each of a row's T equal terms s * A moves a token by A / T: together A."""
    _, _, expected = of(new=OLD)
    torch.testing.assert_close(of(weight, new=OLD)[2], expected)


# -- one token at a time -------------------------------------------------------------------------


def test_clip_cov_takes_some_of_those_in_its_range():
    """Means over the mask: A 0, log pi -2.5. The likely token of the good row and the unlikely one
    of the bad row are in the range, a very unlikely one is beyond it."""
    adv, mask = rows([1.0, 1.0, 1.0], [-1.0, -1.0, -1.0]), torch.ones(2, 3).double()
    logp = rows([-0.5, -2.5, -1.0], [-0.5, -4.0, -6.5])
    cov = adv * (logp + 2.5)
    assert cov.tolist() == [[2.0, 0.0, 1.5], [-2.0, 1.5, 4.0]]
    eligible = [[True, False, True], [False, True, True]]
    assert objectives.clip_cov(adv, logp, mask, 1.0).tolist() == eligible
    assert objectives.clip_cov(adv, logp, mask, 1.0, high=3.0).tolist()[1] == [False, True, False]
    outside = rows([0, 1, 1], [1, 1, 1])  # A -0.2, log pi -2.9: cov 2.28, 0.88 and 4.48 or less
    assert not objectives.clip_cov(adv, logp, outside, 1.0)[0, 0]
    counts = torch.zeros(2, 3)
    draw = torch.Generator().manual_seed(0)
    for _ in range(400):
        one = objectives.clip_cov(adv, logp, mask, 1 / 6, draw)
        assert one.sum() == 1
        counts += one
    assert (counts[torch.tensor(eligible)] > 60).all() and counts.sum() == 400


def test_truncated_importance_weights_scale_a_tokens_gradient(policy, tokenizer):
    """min(pi / pi_sampled, cap) of each token, on the policy before its update."""
    rollouts = sample(policy, tokenizer, [Problem("1 + 1 = ?", "2")], 4, 5)
    told = dataclasses.replace(rollouts, logp=rollouts.logp - math.log(3))
    learner = SimpleNamespace(policy=policy, tokenizer=tokenizer, to_log={})
    cfg = GRPOConfig(group_size=4, tis_cap=2.0)
    new, adv = objectives.token_advantages(torch.ones(4), learner, told, None, None, cfg, None)
    torch.testing.assert_close(adv, 2 * rollouts.mask, msg="3 is cut to 2")
    torch.testing.assert_close(new.logp, rollouts.logp, atol=2e-5, rtol=0)
    assert learner.to_log["tis/weight"] == 2 and learner.to_log["tis/capped"] == 1
    gap = learner.to_log["tis/sampling_logp_difference/max"]
    assert gap == pytest.approx(math.log(3), abs=1e-4)


def test_an_advantage_for_each_token_is_cut_with_its_rows(untrained_update):
    """update() takes [B] and [B, T] alike, whatever micro_batch cuts off on the right."""
    for size in (None, 2):
        flat, dense = (untrained_update(shape, size) for shape in ("[B]", "[B, T]"))
        assert flat == dense


@pytest.fixture
def untrained_update(tokenizer):
    def run(shape, micro_batch):
        torch.manual_seed(0)
        policy = tiny.build_policy(tokenizer).eval()
        draw = torch.Generator().manual_seed(1)
        rollouts = sample(policy, tokenizer, [Problem("1 + 1 = ?", "2")], 6, 9, generator=draw)
        adv = torch.tensor([1.0, -1, 2, 0, 1, -3])
        adv = adv if shape == "[B]" else adv[:, None] * rollouts.mask
        optimizer = torch.optim.AdamW(policy.parameters())
        cfg = GRPOConfig(micro_batch=micro_batch)
        grpo.update(policy, optimizer, rollouts, adv, cfg, generator=draw)
        return [round(p.double().sum().item(), 5) for p in policy.parameters()]

    return run


# -- presets -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", objectives.PRESETS)
def test_a_preset_is_exactly_its_named_fields(name):
    fields, source = objectives.PRESETS[name]
    cfg = objectives.with_preset(GRPOConfig(algorithm=name))
    assert cfg == dataclasses.replace(GRPOConfig(), algorithm=name, **fields) and source
    docs = Path(grpo.__file__).parent / "docs" / "survey.md"
    assert name in objectives.HELP and f"| `{name}` |" in docs.read_text(encoding="utf-8")


BOUNDS = {
    "dapo": (0.8, 1.28),
    "gspo": (0.9997, 1.0004),
    "cispo": (-math.inf, 1.2),
    "gmpo": (0.67, 1.49),  # e^-0.4, e^0.4
}


@pytest.mark.parametrize("name", objectives.PRESETS)
def test_the_range_of_a_preset_is_that_of_its_paper(name):
    cfg = objectives.with_preset(GRPOConfig(algorithm=name))
    assert grpo.clip_bounds(cfg) == pytest.approx(BOUNDS.get(name, (0.8, 1.2)))


def test_a_weight_is_cut_whatever_the_sign_of_a():
    """CISPO cuts 1.5 and 0.5 to the bounds for A = -1 and A = 1 as well; PPO's min does not."""
    logp, one = torch.tensor([[1.5, 0.5]]).log(), torch.ones(1, 2)
    for clip, low, high in (("min", 0.0, 0.0), ("weight", 0.5, 0.5)):
        cfg = GRPOConfig(clip=clip)
        _, stats = grpo.policy_loss(logp, 0 * one, torch.tensor([[-1.0, 1.0]]), one, cfg)
        assert (stats["clip_ratio/low_mean"], stats["clip_ratio/high_mean"]) == (low, high)


def test_what_is_not_at_its_default_stays():
    cfg = objectives.with_preset(GRPOConfig(algorithm="dapo", clip_eps_high=0.5))
    assert (cfg.clip_eps_high, cfg.dynamic_sampling) == (0.5, 3)
    with pytest.raises(InputError, match="choose from grpo, grpo_sequence, dr_grpo"):
        objectives.with_preset(GRPOConfig(algorithm="grop"))


def test_plain_is_what_the_formula_of_grpo_does():
    plain = {"grpo", "grpo_sequence", "dr_grpo", "dapo", "gspo", "cispo", "gmpo"}
    for name in objectives.PRESETS:
        cfg = objectives.with_preset(GRPOConfig(algorithm=name))
        assert objectives.is_plain(cfg) == (name in plain), name


def test_overlong_by_hand():
    length = torch.tensor([10.0, 32, 33, 36, 40])
    assert overlong(length, limit=40, buffer=8).tolist() == [0, 0, -0.125, -0.5, -1]
