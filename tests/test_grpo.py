"""The mathematics of grpo.py against numbers worked out by hand, or exactly by enumeration."""

import copy
import dataclasses
import itertools
import math
import random

import pytest
import torch
from safetensors.torch import load_file

import grpo
import labels
import rewards
import rollout
from data import Problem
from eval import evaluation_due
from grpo import GRPOConfig, group_advantages, kl_estimate, policy_loss, token_logprobs
from metrics import rollout_metrics
from rollout import sample
from support import captured, run
from support.errors import InputError

CFG = GRPOConfig(clip_eps=0.2)


def leaf(values):
    return torch.tensor(values, dtype=torch.float64, requires_grad=True)


# -- advantages ----------------------------------------------------------------------------------


def test_advantages_of_one_success_in_four():
    reward = torch.tensor([[1.0, 0.0, 0.0, 0.0]], dtype=torch.float64)
    # mean 1/4; sample std = sqrt((9/16 + 3/16) / 3) = 1/2
    scaled = torch.tensor([[1.5, -0.5, -0.5, -0.5]], dtype=torch.float64)
    assert torch.allclose(group_advantages(reward), scaled, atol=1e-5)
    plain = torch.tensor([[0.75, -0.25, -0.25, -0.25]], dtype=torch.float64)
    assert torch.equal(group_advantages(reward, scale_by_std=False), plain)


@pytest.mark.parametrize("value", [0.0, 1.0, 0.1, 0.7310585975646973])
@pytest.mark.parametrize("scale", [True, False])
def test_equal_rewards_give_exactly_zero_advantage(value, scale):
    # The float mean of eight 0.1s is not 0.1: without care this row becomes +-1.
    assert torch.equal(group_advantages(torch.full((3, 8), value), scale), torch.zeros(3, 8))


def test_seven_equal_rewards_of_eight_get_equal_advantages_to_the_last_digit():
    # One of eight is e = 2^-24 higher: mean r + e / 8, sample std e / sqrt(8), plus 1e-6.
    reward = torch.full((1, 8), 0.9)
    reward[0, 3] += 2.0**-24
    others, one = -(2.0**-27), 7 * 2.0**-27
    expected = torch.full((1, 8), others / (2.0**-24 / 8**0.5 + 1e-6))
    expected[0, 3] = one / (2.0**-24 / 8**0.5 + 1e-6)
    assert torch.allclose(group_advantages(reward), expected, rtol=1e-6, atol=0)
    assert group_advantages(reward).dtype == torch.float32
    centred = group_advantages(reward, scale_by_std=False)
    assert set(centred[0].tolist()) == {others, one}


def test_one_success_in_eight_by_hand():
    # mean 1/8; sample std = sqrt((49 + 7) / 64 / 7) = sqrt(1/8)
    (adv,) = group_advantages(torch.tensor([[1.0] + [0.0] * 7])).tolist()
    assert adv == pytest.approx([7 / 8 * 8**0.5] + [-1 / 8 * 8**0.5] * 7, rel=1e-5)


def test_groups_do_not_mix():
    both = group_advantages(torch.tensor([[1.0, 0.0], [5.0, 9.0]]))
    assert torch.allclose(both, torch.tensor([[0.7071, -0.7071], [-0.7071, 0.7071]]), atol=1e-4)


def test_a_group_of_one_is_refused():
    with pytest.raises(InputError, match="at least 2"):
        group_advantages(torch.tensor([[1.0]]))


# -- clipped objective ---------------------------------------------------------------------------

SIX_POINTS = [  # advantage, ratio, objective, d objective / d ratio
    (1, 0.5, 0.5, 1.0),
    (1, 1.0, 1.0, 1.0),
    (1, 1.5, 1.2, 0.0),
    (-1, 0.5, -0.8, 0.0),
    (-1, 1.0, -1.0, -1.0),
    (-1, 1.5, -1.5, -1.0),
]


@pytest.mark.parametrize("advantage, ratio, objective, slope", SIX_POINTS)
def test_clip_at_six_points(advantage, ratio, objective, slope):
    logp, one = leaf([[math.log(ratio)]]), torch.ones(1, 1, dtype=torch.float64)
    loss, _ = policy_loss(logp, 0 * one, advantage * one[0], one, CFG)
    loss.backward()
    assert -loss.item() == pytest.approx(objective, abs=1e-12)
    # d ratio / d logp = ratio
    assert -logp.grad.item() == pytest.approx(slope * ratio, abs=1e-12), (
        "clip wrong for this sign of A"
    )


@pytest.mark.parametrize(
    "fields, bounds",
    [
        ({"clip_eps": 0.2}, (0.8, 1.2)),
        ({"clip_eps": None}, (-math.inf, math.inf)),
        ({"clip_eps_high": 0.28}, (0.8, 1.28)),
        ({"clip_eps": None, "clip_eps_low": 0.1}, (0.9, math.inf)),
        ({"clip_eps_low": math.inf}, (-math.inf, 1.2)),
    ],
)
def test_clip_bounds(fields, bounds):
    assert grpo.clip_bounds(dataclasses.replace(CFG, **fields)) == pytest.approx(bounds)


def test_no_clip_is_the_importance_weighted_objective():
    logp, old = leaf([[0.9, -1.0], [0.0, 2.0]]), torch.zeros(2, 2, dtype=torch.float64)
    adv, mask = torch.tensor([2.0, -1.0]).double(), torch.tensor([[1.0, 1.0], [1.0, 0.0]]).double()
    loss, _ = policy_loss(logp, old, adv, mask, dataclasses.replace(CFG, clip_eps=None))
    by_hand = -(2 * 2.45960311 + 2 * 0.36787944 - 1 * 1.0) / 3  # e^0.9, e^-1, e^0 over three tokens
    assert loss.item() == pytest.approx(by_hand, abs=1e-7)


def test_clip_shares_by_sign_of_the_advantage():
    ratio = torch.tensor([[1.5, 0.5, 1.0], [1.5, 0.5, 1.0]])
    _, stats = policy_loss(
        ratio.log(), torch.zeros(2, 3), torch.tensor([1.0, -1.0]), torch.ones(2, 3), CFG
    )
    # Only (A > 0, 1.5) and (A < 0, 0.5) are clipped; the other two far ratios keep their gradient.
    assert stats["clip_ratio/high_mean"] == pytest.approx(1 / 6)
    assert stats["clip_ratio/low_mean"] == pytest.approx(1 / 6)
    assert stats["clip_ratio/region_mean"] == pytest.approx(2 / 6)


def test_first_update_clip_does_nothing_and_later_ones_differ():
    generator = torch.Generator().manual_seed(1)
    old = torch.randn(4, 5, generator=generator, dtype=torch.float64)
    adv, mask = torch.tensor([1.0, -1.0, 2.0, -0.5]).double(), torch.ones(4, 5).double()

    def gradient(shift, eps):
        logp = (old + shift).requires_grad_(True)
        loss, _ = policy_loss(logp, old, adv, mask, dataclasses.replace(CFG, clip_eps=eps))
        loss.backward()
        return logp.grad

    assert torch.equal(gradient(0.0, 0.2), gradient(0.0, None)), "ratio is 1: clipping cannot act"
    assert not torch.equal(gradient(0.5, 0.2), gradient(0.5, None))


def test_first_update_is_reinforce_with_baseline_and_its_loss_is_zero():
    logp = leaf([[-1.0, -2.0], [-0.5, -3.0]])
    adv, mask = torch.tensor([0.75, -0.75]).double(), torch.ones(2, 2).double()
    loss, _ = policy_loss(logp, logp.detach(), adv, mask, CFG)
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-12)
    reinforce = -torch.tensor([[0.75, 0.75], [-0.75, -0.75]]).double() / 4  # -A d logp / (4 tokens)
    assert torch.allclose(logp.grad, reinforce) and logp.grad.norm() > 0


# -- KL ------------------------------------------------------------------------------------------


def test_kl_estimators_have_the_right_mean_and_orientation():
    pi, ref = torch.tensor([[0.5, 0.3, 0.2], [0.2, 0.2, 0.6]], dtype=torch.float64)
    kl = 0.5 * math.log(2.5) + 0.3 * math.log(1.5) + 0.2 * math.log(1 / 3)  # KL(pi || ref) = 0.3601
    for name in ("k1", "k3"):
        mean = (pi * kl_estimate(pi.log(), ref.log(), name)).sum().item()
        assert mean == pytest.approx(kl, abs=1e-12), f"{name} estimates another divergence"
    assert kl_estimate(pi.log(), ref.log(), "k1").min() < 0  # a single k1 can be negative
    assert kl_estimate(pi.log(), ref.log(), "k3").min() >= 0  # a single k3 cannot


def test_kl_gradients_are_what_the_docstring_says():
    """As loss terms at tokens of pi: k1 has zero expected gradient, k2 that of KL(pi || ref)."""
    theta, ref = leaf([0.3, -0.2, 0.5]), torch.tensor([0.2, 0.2, 0.6]).double().log()
    pi = theta.detach().softmax(0)
    exact = torch.autograd.grad((theta.softmax(0) * (theta.log_softmax(0) - ref)).sum(), theta)[0]
    expected = {}
    for name in ("k1", "k2", "k3"):
        mean = (pi * kl_estimate(theta.log_softmax(0), ref, name)).sum()
        expected[name] = torch.autograd.grad(mean, theta)[0]
    assert torch.allclose(expected["k1"], torch.zeros(3).double(), atol=1e-12)
    assert torch.allclose(expected["k2"], exact, atol=1e-12)
    reverse = torch.autograd.grad((ref.exp() * (ref - theta.log_softmax(0))).sum(), theta)[0]
    assert torch.allclose(expected["k3"], reverse, atol=1e-12)  # that of KL(ref || pi)


def test_kl_raises_the_loss():
    logp, ref, mask = torch.zeros(1, 1), torch.full((1, 1), -1.0), torch.ones(1, 1)
    cfg = dataclasses.replace(CFG, kl_coef=0.1)
    loss, stats = policy_loss(logp, logp, torch.zeros(1), mask, cfg, logp_ref=ref)
    assert stats["kl"] == pytest.approx(math.exp(-1), abs=1e-6)  # x = 1: e^-1 - 1 + 1
    assert loss.item() == pytest.approx(0.1 * math.exp(-1), abs=1e-6)


# -- normalisation -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "norm, expected", [("token", -13 / 4), ("sequence", -2.5), ("constant", -13 / 20)]
)
def test_loss_norms_on_two_rows_of_different_length(norm, expected):
    # Row 1: one token, A = 1. Row 2: three tokens, A = 4. Sum 13, mean of row means (1 + 4) / 2,
    # B * T_max = 20.
    mask = torch.tensor([[1.0, 0, 0], [1, 1, 1]])
    cfg = dataclasses.replace(CFG, loss_norm=norm, max_new_tokens=10)
    loss, _ = policy_loss(torch.zeros(2, 3), torch.zeros(2, 3), torch.tensor([1.0, 4.0]), mask, cfg)
    assert loss.item() == pytest.approx(expected)


def random_rollouts(token_rollouts, rows=6, width=5, vocabulary=4):
    generator = torch.Generator().manual_seed(3)
    ids = torch.randint(vocabulary, (rows, width + 2), generator=generator)
    lengths = torch.tensor([5, 1, 3, 2, 4, 5])
    mask = (torch.arange(width) < lengths[:, None]).float()
    old = torch.randn(rows, width, generator=generator).double() - 1.5
    return token_rollouts(ids[:, :2], ids[:, 2:], mask, old * mask)


@pytest.mark.parametrize("norm", ["token", "sequence", "constant"])
@pytest.mark.parametrize("micro", [1, 4])
def test_gradient_does_not_depend_on_the_micro_batch(bigram, token_rollouts, norm, micro):
    rollouts = random_rollouts(token_rollouts)
    adv = torch.tensor([1.0, -1.0, 0.5, 2.0, -0.3, 0.0]).double()
    table = torch.randn(4, 4, generator=torch.Generator().manual_seed(0)).double()

    def after(micro_batch):
        policy = bigram(table)
        optimizer = torch.optim.SGD(policy.parameters(), lr=1.0)
        cfg = dataclasses.replace(CFG, loss_norm=norm, minibatches=1, micro_batch=micro_batch)
        stats = grpo.update(
            policy, optimizer, rollouts, adv, cfg, generator=torch.Generator().manual_seed(0)
        )
        return policy.embed.weight.detach(), stats

    (whole, stats), (parts, part_stats) = after(None), after(micro)
    assert not torch.equal(whole, table), "nothing was learned: the test would pass for any code"
    assert torch.allclose(whole, parts, atol=1e-10, rtol=0)
    assert part_stats == pytest.approx(stats, abs=1e-6)


@pytest.mark.parametrize("norm", ["token", "sequence", "constant"])
@pytest.mark.parametrize("zero", [[3], [0, 1, 3, 4], [0, 1, 2, 3, 4, 5]])
def test_completions_without_an_advantage_are_not_read_and_move_nothing(
    bigram, token_rollouts, monkeypatch, norm, zero
):
    rollouts, rows = random_rollouts(token_rollouts), []
    adv = torch.tensor([1.0, -1.0, 0.5, 2.0, -0.3, 0.7]).double()
    adv[zero] = 0.0

    def counting(policy, part, *args, **settings):
        rows.append(len(part.mask))
        return token_logprobs(policy, part, *args, **settings)

    monkeypatch.setattr(grpo, "token_logprobs", counting)

    def after(entropy_coef):
        policy = bigram(torch.randn(4, 4, generator=torch.Generator().manual_seed(0)).double())
        optimizer = torch.optim.AdamW(policy.parameters(), lr=0.1)  # moves without a gradient, too
        cfg = dataclasses.replace(
            CFG, loss_norm=norm, minibatches=2, inner_epochs=2, entropy_coef=entropy_coef
        )
        rows.clear()
        draws = torch.Generator().manual_seed(0)
        grpo.update(policy, optimizer, rollouts, adv, cfg, generator=draws)
        return policy.embed.weight.detach(), sum(rows)

    (less, some), (more, every) = after(0.0), after(1e-300)  # a bonus of nothing reads them all
    assert torch.allclose(less, more, atol=1e-12, rtol=0)
    # of a minibatch without any, one row is read
    assert every == 12 and 2 * (6 - len(zero)) <= some <= min(11, 2 * (6 - len(zero)) + 4)


@pytest.mark.parametrize("kl_coef", [0.0, 0.1])
def test_a_prompt_read_once_for_its_completions_gives_the_same_gradient(policy, tokenizer, kl_coef):
    policy, read = copy.deepcopy(policy).double(), []
    problems = [Problem("7 + 5 = ?", "12"), Problem("7 + 5 - 3 + 4 = ?", "13")]
    rollouts = sample(
        policy, tokenizer, problems, 4, 12, generator=torch.Generator().manual_seed(0)
    )
    reference = copy.deepcopy(policy)
    with torch.no_grad():
        reference.get_output_embeddings().weight.mul_(1.1)
    adv = torch.tensor([1.0, -1.0, 0.5, 2.0, -0.3, 0.7, 1.0, -0.4]).double()

    def after(share_prompts):
        one = copy.deepcopy(policy)
        shapes = lambda module, args, inputs: read.append(inputs["input_ids"].numel())  # noqa: E731
        one.get_decoder().register_forward_pre_hook(shapes, with_kwargs=True)
        optimizer = torch.optim.SGD(one.parameters(), lr=0.1)
        cfg = dataclasses.replace(
            CFG, share_prompts=share_prompts, kl_coef=kl_coef, minibatches=2, micro_batch=3
        )
        read.clear()
        draws = torch.Generator().manual_seed(0)
        stats = grpo.update(one, optimizer, rollouts, adv, cfg, reference, draws)
        return torch.cat([p.detach().flatten() for p in one.parameters()]), stats, sum(read)

    (plain, stats, all_tokens), (shared, shared_stats, some) = after(False), after(True)
    assert not torch.equal(plain, torch.cat([p.detach().flatten() for p in policy.parameters()]))
    assert (plain - shared).abs().max() < 1e-7  # the layers' norms calculate in float32
    assert shared_stats == pytest.approx(stats, abs=1e-6)
    assert some < all_tokens


def test_prompts_are_not_shared_where_a_layer_keeps_something_else(
    untrained, tmp_path, monkeypatch
):
    monkeypatch.setattr(captured, "only_keys_and_values", lambda cache: False)
    cfg = GRPOConfig(model=untrained, output=str(tmp_path / "run"), share_prompts=True, steps=1)
    with pytest.raises(InputError, match="share_prompts: not with Qwen2ForCausalLM"):
        grpo.train(cfg)


def test_padding_and_batch_mates_do_not_matter(policy, make_rollouts):
    problems = [Problem("7 + 5 = ?", "12"), Problem("7 + 5 - 3 + 4 = ?", "13")]
    rollouts = make_rollouts(["I guess \\boxed{12}", "7 plus 5 is 12 so \\boxed{13}"], problems, 1)
    before = rollouts.completion_ids.clone()
    both, _ = token_logprobs(policy, rollouts)
    alone, _ = token_logprobs(policy, rollouts.rows(torch.tensor([0])))
    width = alone.shape[1]
    assert width < both.shape[1], "row 0 should be the shorter one"
    assert torch.allclose(both[0, :width], alone[0], atol=1e-5)
    assert (both[0, width:] == 0).all()
    rollouts.completion_ids[rollouts.mask == 0] = 5  # another pad id
    assert torch.allclose(token_logprobs(policy, rollouts)[0], both, atol=1e-5)
    rollouts.completion_ids[rollouts.mask == 0] = before[rollouts.mask == 0]
    assert torch.equal(rollouts.completion_ids, before), "the inputs were changed"


# -- log-probabilities ---------------------------------------------------------------------------


def test_token_logprobs_of_a_bigram_by_hand(bigram, token_rollouts):
    # After token 0: logits (0, log 3) -> 1/4, 3/4. After token 1: (log 4, 0) -> 4/5, 1/5.
    policy = bigram([[0.0, math.log(3)], [math.log(4), 0.0]])
    rollouts = token_rollouts(torch.tensor([[0]]), torch.tensor([[1, 0]]))
    logp, entropy = token_logprobs(policy, rollouts)
    assert logp.tolist()[0] == pytest.approx([math.log(3 / 4), math.log(4 / 5)], abs=1e-12)
    by_hand = [
        0.5623351446,
        0.5004024235,
    ]  # -(1/4 log 1/4 + 3/4 log 3/4), -(4/5 log 4/5 + 1/5 log 1/5)
    assert entropy.tolist()[0] == pytest.approx(by_hand, abs=1e-9)
    hot, _ = token_logprobs(
        policy, rollouts, temperature=0.5
    )  # logits doubled: 1/10, 9/10 and 16/17
    assert hot.tolist()[0] == pytest.approx([math.log(9 / 10), math.log(16 / 17)], abs=1e-12)


def test_chunked_logprobs_equal_those_in_one_piece(policy, make_rollouts, monkeypatch):
    rollouts = make_rollouts(["7 plus 5 is 12 so \\boxed{12}"] * 2, [Problem("7 + 5 = ?", "12")], 2)
    logp, entropy = token_logprobs(policy, rollouts)
    (logp.sum() + entropy.sum()).backward()
    gradient = policy.get_output_embeddings().weight.grad.clone()
    policy.zero_grad()
    monkeypatch.setattr(rollout, "CHUNK_ELEMENTS", 3 * len(gradient))  # three tokens a chunk
    chunked, chunked_entropy = token_logprobs(policy, rollouts)
    (chunked.sum() + chunked_entropy.sum()).backward()
    assert torch.allclose(chunked, logp, atol=1e-6) and torch.allclose(
        chunked_entropy, entropy, atol=1e-6
    )
    assert torch.allclose(policy.get_output_embeddings().weight.grad, gradient, atol=1e-4)


def test_the_eos_token_receives_gradient(policy, make_rollouts, tokenizer):
    rollouts = make_rollouts(["I guess \\boxed{12}"], [Problem("7 + 5 = ?", "12")], 1)
    logp, _ = token_logprobs(policy, rollouts)
    last = int(rollouts.mask.sum()) - 1
    assert rollouts.completion_ids[0, last] == tokenizer.eos_token_id
    assert logp[0, last] != 0, "the EOS is masked out: the policy would never learn to stop"


# -- gradients -----------------------------------------------------------------------------------


@pytest.mark.parametrize("norm", ["token", "sequence", "constant"])
@pytest.mark.parametrize("kl", ["k1", "k2", "k3"])
def test_policy_loss_gradcheck(norm, kl):
    generator = torch.Generator().manual_seed(0)
    logp, old, ref, entropy = torch.randn(
        4, 3, 4, generator=generator, dtype=torch.float64
    ).unbind()
    mask = torch.tensor([[1.0, 1, 1, 1], [1, 1, 0, 0], [1, 0, 0, 0]]).double()
    adv = torch.tensor([1.0, -2.0, 0.5]).double()
    cfg = dataclasses.replace(CFG, loss_norm=norm, kl_coef=0.3, kl_estimator=kl, entropy_coef=0.1)

    def loss(logp, entropy):
        return policy_loss(logp, old, adv, mask, cfg, logp_ref=ref, entropy=entropy)[0]

    assert torch.autograd.gradcheck(loss, (logp.requires_grad_(), entropy.requires_grad_()))


def test_policy_gradient_is_unbiased_on_an_enumerable_task(bigram, token_rollouts):
    """Mean of 4,000 group gradients against the gradient of E[reward] over all 9 completions."""
    vocabulary, steps, group, groups = 3, 2, 4, 4000
    generator = torch.Generator().manual_seed(0)
    table = torch.randn(vocabulary, vocabulary, generator=generator).double()
    worth = torch.rand(
        vocabulary, vocabulary, generator=generator
    ).double()  # reward of completion (a, b)
    policy = bigram(table)

    every = torch.tensor(list(itertools.product(range(vocabulary), repeat=steps)))  # [9, 2]
    logp, _ = token_logprobs(policy, token_rollouts(torch.zeros(9, 1).long(), every))
    expected_reward = (logp.sum(1).exp() * worth[every[:, 0], every[:, 1]]).sum()
    exact = torch.autograd.grad(expected_reward, policy.embed.weight)[0]

    pick = torch.multinomial(logp.detach().sum(1).exp(), group * groups, True, generator=generator)
    rollouts = token_rollouts(torch.zeros(group * groups, 1).long(), every[pick])
    reward = worth[every[pick][:, 0], every[pick][:, 1]].view(groups, group)
    adv = group_advantages(reward, scale_by_std=False).flatten()
    now, _ = token_logprobs(policy, rollouts)
    cfg = dataclasses.replace(
        CFG, loss_norm="sequence"
    )  # mean over rows of mean over `steps` tokens
    loss, _ = policy_loss(now, now.detach(), adv, rollouts.mask, cfg)
    estimate = -torch.autograd.grad(loss, policy.embed.weight)[0]
    # The group mean contains the sample itself: the expectation is (G - 1) / G of the gradient.
    target = exact * (group - 1) / group / steps
    assert exact.norm() > 0.03
    assert (estimate - target).norm() < 0.05 * target.norm()


def test_entropy_bonus_and_kl_are_off_by_default():
    cfg = GRPOConfig()
    assert cfg.kl_coef == 0 and cfg.entropy_coef == 0
    mask, entropy = torch.ones(1, 2), torch.ones(1, 2)
    zero = torch.zeros(1, 2)
    without, _ = policy_loss(zero, zero, torch.ones(1), mask, cfg, entropy=entropy)
    with_bonus, _ = policy_loss(
        zero, zero, torch.ones(1), mask, dataclasses.replace(cfg, entropy_coef=0.5), entropy=entropy
    )
    assert (without.item(), with_bonus.item()) == (-1.0, -1.5)


def test_a_non_finite_update_is_skipped_and_counted(bigram, token_rollouts):
    policy = bigram(torch.zeros(4, 4))
    rollouts = random_rollouts(token_rollouts)
    before = policy.embed.weight.detach().clone()
    optimizer = torch.optim.SGD(policy.parameters(), lr=1.0)
    adv = torch.tensor([math.nan, 1, -1, 1, -1, 1]).double()
    stats = grpo.update(policy, optimizer, rollouts, adv, dataclasses.replace(CFG, minibatches=2))
    assert stats["skipped_updates"] == 1 and stats["grad_norm"] > 0
    assert policy.embed.weight.isfinite().all()
    assert not torch.equal(policy.embed.weight, before)


def test_a_step_of_skipped_updates_stops_the_run(bigram, token_rollouts):
    policy = bigram(torch.zeros(4, 4))
    before = policy.embed.weight.detach().clone()
    optimizer = torch.optim.SGD(policy.parameters(), lr=1.0)
    adv = torch.full((6,), math.nan).double()
    with pytest.raises(InputError, match="no update of this step could be applied"):
        grpo.update(policy, optimizer, random_rollouts(token_rollouts), adv, CFG)
    assert torch.equal(policy.embed.weight, before)


def test_a_policy_of_nan_does_not_agree_with_its_sampler(bigram, token_rollouts):
    policy = bigram(torch.full((4, 4), math.nan))
    optimizer = torch.optim.SGD(policy.parameters(), lr=0.0)
    rollouts, shown = random_rollouts(token_rollouts), []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(grpo, "norm_stats", lambda norms: shown.append(norms) or {})
        stats = grpo.update(policy, optimizer, rollouts, torch.ones(6).double(), CFG)
    assert math.isnan(stats["sampling/sampling_logp_difference/max"])
    assert all(math.isnan(norm) for norm in shown[0])


def test_the_rate_warms_up_by_steps(untrained, tmp_path, monkeypatch):
    rates = []

    def update(policy, optimizer, *rest):
        rates.append(optimizer.param_groups[0]["lr"])
        return {}

    monkeypatch.setattr(grpo, "update", update)
    cfg = short_run(untrained, tmp_path, lr=0.4, lr_warmup=4)
    grpo.train(dataclasses.replace(cfg, steps=6))
    assert rates == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.4, 0.4])


# --------------------------------------------------------------------------------------------------
# The rewards that need more than a text


def short_run(model, tmp_path, **changes):
    return GRPOConfig(
        model=model, output=str(tmp_path / "run"), prompts=4, group_size=4, max_new_tokens=8,
        eval_every=0, eval_problems=4, steps=2, **changes,
    )  # fmt: skip


def test_bf16_is_a_setting_of_one_run(untrained, tmp_path):
    def apart(bf16, folder="run"):
        cfg = GRPOConfig(
            model=untrained, output=str(tmp_path / folder), bf16=bf16, steps=1, prompts=2,
            reward="random", eval_every=0,
        )  # fmt: skip
        return grpo.train(cfg)[-1]["sampling/sampling_logp_difference/max"]

    assert apart(False) < 1e-4 and 1e-4 < apart(True, "bf16") < 1 and apart(False, "again") < 1e-4
    weights = load_file(tmp_path / "bf16" / "policy" / "model.safetensors")
    assert {weight.dtype for weight in weights.values()} == {torch.float32}


@pytest.mark.parametrize("gamma, changes", [(0.0, False), (1.0, False), (0.5, True)])
def test_gamma_0_and_1_change_no_parameter_at_all(untrained, tmp_path, gamma, changes):
    cfg = short_run(untrained, tmp_path, reward="random", gamma=gamma)
    before = grpo.start(cfg).policy.state_dict()
    history = grpo.train(cfg)
    after = torch.load(tmp_path / "run" / "checkpoint.pt")["policy"]
    assert all(torch.equal(before[name], after[name]) for name in before) is not changes
    assert {row["frac_reward_zero_std"] for row in history[1:]} != {1.0} or not changes
    assert changes or {row["grad_norm"] for row in history[1:]} == {0.0}


def test_random_rewards_are_the_same_after_a_resume(untrained, tmp_path, monkeypatch):
    whole = grpo.train(short_run(untrained, tmp_path / "a", reward="random"))
    cfg = short_run(untrained, tmp_path / "b", reward="random", save_every=1)
    log = run.Run.log

    def killed_in_step_2(self, row):
        if row["step"] == 2:
            raise KeyboardInterrupt
        log(self, row)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(run.Run, "log", killed_in_step_2)
        grpo.train(cfg)
    resumed = grpo.train(cfg)
    assert len(whole) == len(resumed) == 3
    for row, other in zip(whole, resumed):
        assert row | {"step_time": 0} == other | {"step_time": 0}


def test_majority_votes_once_and_reads_its_labels_when_it_resumes(untrained, tmp_path, monkeypatch):
    def vote(policy, tokenizer, problems, votes, *rest, **more):
        calls.append((len(problems), votes))
        return [dataclasses.replace(p, label=problems[1].answer) for p in problems[1:]]

    calls = []
    monkeypatch.setattr(labels, "vote_labels", vote)
    cfg = short_run(untrained, tmp_path, reward="majority", votes=5, train_problems=9)
    first, again = grpo.start(cfg), grpo.start(cfg)
    assert calls == [(9, 5)]
    assert len(first.problems) == 8 and len({p.label for p in first.problems}) == 1
    assert first.problems == again.problems
    wrong = grpo.start(dataclasses.replace(cfg, reward="incorrect")).problems
    assert calls == [(9, 5), (9, 5)], "labels that other settings made were taken"
    assert wrong == [p for p in first.problems if p.answer != p.label]
    assert 0 < len(wrong) < 8


def test_what_is_held_out_later_is_not_trained_on_because_of_old_labels(
    untrained, tmp_path, monkeypatch
):
    file = tmp_path / "problems.jsonl"
    file.write_text(
        "".join(f'{{"question": "{i} + 1 = ?", "answer": "1"}}\n' for i in range(9)),
        encoding="utf-8",
    )

    def vote(policy, tokenizer, problems, *_, **__):
        return [dataclasses.replace(p, label="2") for p in problems]

    monkeypatch.setattr(labels, "vote_labels", vote)
    cfg = short_run(untrained, tmp_path, reward="majority", data=str(file))
    grpo.start(cfg)
    learner = grpo.start(dataclasses.replace(cfg, eval_problems=6))
    held_out = {p.question for p in learner.held_out}
    assert len(held_out) == 6 and not held_out & {p.question for p in learner.problems}


def test_labels_of_a_file_are_taken_as_they_are(untrained, tmp_path, monkeypatch):
    file = tmp_path / "labelled.jsonl"
    rows = [f'{{"question": "{i} + 1 = ?", "answer": "{i + 1}", "label": 3}}\n' for i in range(4)]
    file.write_text("".join(rows), encoding="utf-8")
    monkeypatch.setattr(labels, "vote_labels", lambda *_, **__: pytest.fail("it voted"))
    cfg = short_run(untrained, tmp_path, reward="incorrect", data=str(file), eval_data="arithmetic")
    assert [(p.answer, p.label) for p in grpo.start(cfg).problems] == [
        ("1", "3"), ("2", "3"), ("4", "3"),
    ]  # fmt: skip


def test_what_is_evaluated_is_held_out_with_or_without_a_label(untrained, tmp_path):
    lines = [f'{{"question": "{i} + 1 = ?", "answer": "2"' for i in range(6)]
    (tmp_path / "train.jsonl").write_text(
        "".join(f'{line}, "label": "3"}}\n' for line in lines), encoding="utf-8"
    )
    (tmp_path / "test.jsonl").write_text(
        "".join(f"{line}}}\n" for line in lines[:2]), encoding="utf-8"
    )
    cfg = short_run(
        untrained, tmp_path, reward="majority", data=str(tmp_path / "train.jsonl"),
        eval_data=str(tmp_path / "test.jsonl"),
    )  # fmt: skip
    assert [p.question[0] for p in grpo.start(cfg).problems] == ["2", "3", "4", "5"]


def test_a_folder_with_another_run_is_refused_before_the_votes(untrained, tmp_path, monkeypatch):
    cfg = short_run(untrained, tmp_path)
    grpo.train(cfg)
    monkeypatch.setattr(labels, "vote_labels", lambda *_, **__: pytest.fail("it voted"))
    with pytest.raises(InputError, match="was made with"):
        grpo.train(dataclasses.replace(cfg, reward="majority"))


@pytest.mark.parametrize("field", ["votes", "train_problems"])
def test_numbers_below_one_are_refused(untrained, tmp_path, field):
    with pytest.raises(InputError, match="at least 1"):
        grpo.train(short_run(untrained, tmp_path, **{field: 0}))


def test_one_shot_trains_on_one_problem_that_depends_on_the_seed(untrained, tmp_path):
    learners = [
        grpo.start(short_run(untrained, tmp_path, reward="one_shot", seed=s)) for s in (0, 1, 2)
    ]
    assert [len(learner.problems) for learner in learners] == [1, 1, 1]
    assert len({learner.problems[0] for learner in learners}) == 3
    drawn = grpo.draw_problems(learners[0].problems, 4, random.Random(0))
    assert drawn == learners[0].problems * 4


def test_a_step_draws_each_problem_at_most_once_if_there_are_enough():
    for seed in range(20):
        assert sorted(grpo.draw_problems(list(range(5)), 5, random.Random(seed))) == [0, 1, 2, 3, 4]


def test_accuracy_is_held_against_the_reference_whatever_the_reward(make_rollouts):
    """With labels, too: the policy is paid for the label, and measured by the answer."""
    texts = [r"I guess \boxed{2}", r"I guess \boxed{3}", r"I guess \boxed{3}", r"\boxed{3}"]
    rollouts = make_rollouts(texts, [Problem("1 + 1 = ?", "2", label="3")], 4)
    metrics = rollout_metrics(
        rollouts, rewards.label(rollouts), rewards.rule(rollouts), rewards.rule
    )
    assert (metrics["reward"], metrics["accuracy"]) == (0.75, 0.25)


@pytest.mark.parametrize(
    "every, early, steps",
    [(20, 0, [20, 40, 50]), (20, 6, [2, 4, 6, 20, 40, 50]), (0, 4, []), (0, 0, [])],
)
def test_evaluations_are_close_together_at_first(every, early, steps):
    cfg = GRPOConfig(steps=50, eval_every=every, eval_early=early)
    assert [s for s in range(1, 51) if evaluation_due(cfg, s)] == steps
