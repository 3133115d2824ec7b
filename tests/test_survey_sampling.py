"""Which completions a step learns from: by hand, and the limits of each switch."""

import dataclasses
import random
from types import SimpleNamespace

import pytest
import torch

import grpo
from data import Problem, draw_problems
from grpo import GRPOConfig
from rollout import sample, token_logprobs
from support.errors import InputError
from survey import process, sampling
from survey.sampling import Stale, Success, equal_groups, join, replace_equal_groups

PROBLEMS = [Problem(f"{n} + 1 = ?", str(n + 1)) for n in range(1, 9)]


def short_run(model, tmp_path, name="run", **changes):
    return GRPOConfig(
        model=model, output=str(tmp_path / name), prompts=4, group_size=4, max_new_tokens=8,
        eval_every=0, eval_problems=4, steps=4, save_every=1, **changes,
    )  # fmt: skip


# --------------------------------------------------------------------------------------------------
# Groups of equal rewards


def test_equal_groups_by_hand():
    score = torch.tensor([1.0, 1.0, 0.0, 1.0, 0.0, 0.0])
    assert equal_groups(score, 2).tolist() == [True, False, True]


def test_joined_rollouts_are_scored_as_each_alone(policy, tokenizer):
    long = [Problem("1 + 2 + 3 + 4 - 5 = ?", "5")]
    parts = [sample(policy, tokenizer, PROBLEMS[:2], 2, 9), sample(policy, tokenizer, long, 2, 4)]
    for first, second in (parts, parts[::-1]):
        both = join(first, second)
        logp, _ = token_logprobs(policy, both)
        assert both.texts == first.texts + second.texts
        torch.testing.assert_close(logp * both.mask, both.logp, atol=2e-5, rtol=0)
        assert both.mask.sum() == first.mask.sum() + second.mask.sum()


def scored(make_rollouts, rewards_of_groups, start=0):
    """Rollouts of groups of two whose texts say what they earn."""
    flat = [r for group in rewards_of_groups for r in group]
    problems = PROBLEMS[start : start + len(rewards_of_groups)]
    return make_rollouts([f"I guess {r}" for r in flat], problems, 2), torch.tensor(flat).float()


def test_equal_groups_are_replaced_by_others_that_are_not(make_rollouts):
    rollouts, score = scored(make_rollouts, [(1, 1), (0, 1), (0, 0)])
    asked = []

    def more(count):
        asked.append(count)
        return scored(make_rollouts, [(1, 0), (1, 1)][:count] if len(asked) == 1 else [(0, 1)], 4)

    new, found = replace_equal_groups(rollouts, score, more, rounds=5)
    assert asked == [2, 1], "as many as are missing, and no round more than it takes"
    assert found.view(-1, 2).tolist() == [[1, 0], [0, 1], [0, 1]]
    assert new.texts == [f"I guess {int(r)}" for r in found]
    assert [p.question for p in new.problems[::2]] == ["5 + 1 = ?", "2 + 1 = ?", "5 + 1 = ?"]


def test_only_the_limit_leaves_an_equal_group(make_rollouts):
    rollouts, score = scored(make_rollouts, [(1, 1), (0, 1)])
    _, found = replace_equal_groups(
        rollouts, score, lambda count: scored(make_rollouts, [(0, 0)] * count), rounds=3
    )
    assert found.view(-1, 2).tolist() == [[1, 1], [0, 1]], "the old one, and not another equal one"


@pytest.mark.parametrize("rounds", [0, 1, 3])
def test_dynamic_sampling_counts_what_it_costs(untrained, tmp_path, rounds):
    cfg = short_run(untrained, tmp_path, dynamic_sampling=rounds)
    row = grpo.train(cfg, reward=lambda rollouts: torch.zeros(len(rollouts.texts)))[-1]
    assert row["completions"] == 16 * (1 + rounds) and row["frac_reward_zero_std"] == 1
    coin = grpo.train(dataclasses.replace(cfg, output=str(tmp_path / "coin"), reward="random"))[-1]
    assert coin["frac_reward_zero_std"] == 0 or rounds == 0


# --------------------------------------------------------------------------------------------------
# Curriculum


def test_success_by_hand():
    success = Success(PROBLEMS[:3])
    assert success.chances() == [0.5] * 3
    success.add([PROBLEMS[0]] * 4 + [PROBLEMS[1]] * 4, torch.tensor([1.0, 1, 1, 1, 1, 0, 0, 0]))
    assert success.chances() == [1 - 5 / 6, 1 - 2 / 6, 0.5]
    success.add([PROBLEMS[0]] * 4, torch.zeros(4))  # of the four before, half count: 2 of 6 right
    assert success.chances() == pytest.approx([1 - 3 / 8, 1 - 2 / 6, 0.5])


def test_problems_are_drawn_by_their_chances():
    draw, counts = random.Random(0), [0, 0, 0]
    for _ in range(4000):
        counts[draw_problems([0, 1, 2], 1, draw, [0.1, 0.3, 0.6])[0]] += 1
    for count, chance in zip(counts, (0.1, 0.3, 0.6)):
        assert abs(count / 4000 - chance) < 4 * (chance * (1 - chance) / 4000) ** 0.5
    assert sorted(draw_problems([0, 1, 2], 3, draw, [0.1, 0.3, 0.6])) == [0, 1, 2], "each once"


# --------------------------------------------------------------------------------------------------
# Stale completions, the reference, the entropy bonus


def test_stale_is_the_policy_of_lag_steps_ago():
    policy = torch.nn.Linear(1, 1)
    stale, wrote = Stale(policy, lag=2), []
    for step in range(6):
        with torch.no_grad():
            policy.weight.fill_(step)
        if step:
            stale.add(policy)
        else:
            stale = Stale(policy, lag=2)
        wrote.append(stale.writer.weight.item())
    assert wrote == [0, 0, 0, 1, 2, 3]


def test_ratio_of_stale_completions_is_not_1_before_the_first_update(untrained, tmp_path):
    fresh = grpo.train(short_run(untrained, tmp_path, reward="random", lr=1e-2))
    stale = grpo.train(short_run(untrained, tmp_path, "s", reward="random", lr=1e-2, staleness=2))
    gap = "sampling/sampling_logp_difference/max"
    assert all(row[gap] < 1e-4 for row in fresh[1:])
    assert stale[1][gap] < 1e-4 < stale[3][gap]


def test_the_reference_is_reset_and_the_optimizer_with_it(untrained, tmp_path):
    cfg = short_run(untrained, tmp_path, reward="random", kl_coef=0.1, reference_reset=2, lr=1e-2)
    kl = [row["kl"] for row in grpo.train(dataclasses.replace(cfg, minibatches=1))[1:]]
    assert kl[0] == 0 and kl[2] < 1e-6 < kl[1], "step 3 begins at its reference again"
    for every, updates in ((3, 1), (0, 4)):
        run = dataclasses.replace(cfg, minibatches=1, reference_reset=every)
        grpo.train(dataclasses.replace(run, output=str(tmp_path / str(every))))
        adam = torch.load(tmp_path / str(every) / "checkpoint.pt")["optimizer"]["state"]
        assert {int(state["step"]) for state in adam.values()} == {updates}


def test_an_adaptive_bonus_acts_below_its_target_only(untrained, tmp_path):
    cfg = short_run(untrained, tmp_path, entropy_target=0.0, entropy_coef=0.0)
    learner = SimpleNamespace(to_log={})
    assert sampling.adapted(cfg, learner, [{"step": 0}, {"entropy": 0.5}]).entropy_coef == 0
    low, sure = dataclasses.replace(cfg, entropy_target=1.0), [{"entropy": 0.5}] * 3
    assert sampling.adapted(low, learner, sure).entropy_coef == pytest.approx(0.015)
    assert learner.to_log == {"entropy_coef": pytest.approx(0.015)}
    assert sampling.adapted(low, learner, [*sure, {"entropy": 2.0}]).entropy_coef == 0


# --------------------------------------------------------------------------------------------------
# Values by sampling on


def test_segment_advantages_by_hand(make_rollouts, monkeypatch):
    """One segment of two tokens, then the rest: A = V(middle) - V(prompt), and r - V(middle)."""
    rollouts = make_rollouts(["I guess 9", "I"], PROBLEMS[:1], 2)  # 4 and 2 tokens
    ends = make_rollouts(["9", "9", "9", "8"], PROBLEMS[:1], 4)
    asked = {}

    def sampled(policy, tokenizer, problems, count, left, *args, **kwargs):
        asked.update(kwargs, problems=problems, count=count, left=left)
        return ends

    monkeypatch.setattr(sampling, "sample", sampled)
    learner = SimpleNamespace(policy=None, tokenizer=None, extra_completions=0)
    cfg = SimpleNamespace(segment=2, segment_samples=4, temperature=1.0, max_new_tokens=9)
    adv = sampling.segment_advantages(
        learner, rollouts, torch.tensor([1.0, 0.0]),
        lambda r: torch.tensor([float(text == "9") for text in r.texts]), cfg, None,
    )  # fmt: skip
    assert adv.tolist() == [[0.75, 0.75, 0.25, 0.25], [-1, -1, 0, 0]]
    assert asked["prefixes"] == [rollouts.completion_ids[0, :2].tolist()], "the shorter one is over"
    assert (asked["count"], asked["left"], learner.extra_completions) == (4, 7, 4)


def test_a_prefix_is_read_and_told_but_not_learnt(policy, tokenizer):
    prefix = tokenizer("I guess", add_special_tokens=False).input_ids
    plain = sample(
        policy, tokenizer, PROBLEMS[:1], 3, 6, generator=torch.Generator().manual_seed(1)
    )
    begun = sample(
        policy, tokenizer, PROBLEMS[:1], 3, 6, generator=torch.Generator().manual_seed(1),
        prefixes=[prefix],
    )  # fmt: skip
    assert all(text.startswith("I guess") for text in begun.texts)
    assert begun.prompt_ids.shape[1] == plain.prompt_ids.shape[1] + 2
    logp, _ = token_logprobs(policy, begun)
    torch.testing.assert_close(logp, begun.logp, atol=2e-5, rtol=0)


# --------------------------------------------------------------------------------------------------
# All of them


SWITCHES = [
    ({"dynamic_sampling": 2}, {}), ({"overlong": 4}, {}), ({"prioritised": True}, {}),
    ({"segment": 3}, {}), ({"staleness": 2}, {}), ({"tis_cap": 2.0}, {"staleness": 2}),
    ({"clip_cov": 0.1}, {}), ({"reference_reset": 2}, {"kl_coef": 0.1}),
    ({"entropy_target": 5.0}, {}), ({"algorithm": "dapo"}, {}), ({"process_coef": 1.0}, {}),
]  # fmt: skip


@pytest.mark.parametrize("switch, beside", SWITCHES, ids=str)
def test_killed_and_resumed_it_ends_bit_for_bit_alike(
    untrained, tmp_path, switch, beside, monkeypatch, resumes_alike
):
    # an untrained policy writes no steps: here each of its texts is one, right by its length
    monkeypatch.setattr(process, "check_steps", lambda q, text: [(len(text), len(text) % 2 == 0)])
    without = {"reward": "random", "lr": 1e-2} | beside
    resumes_alike(grpo, short_run(untrained, tmp_path, "whole", **without | switch))
    grpo.train(short_run(untrained, tmp_path, "plain", **without))
    plain, ends = (torch.load(tmp_path / n / "checkpoint.pt")["policy"] for n in ("plain", "whole"))
    assert any(not torch.equal(plain[name], ends[name]) for name in plain), "it acts"


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"reference_reset": 2}, "needs kl_coef"),
        ({"segment": 2, "advantage": "batch"}, "leave out advantage"),
        ({"segment": 2, "overlong": 4}, "leave out overlong"),
        ({"overlong": 9}, "overlong=9 is more than max_new_tokens=8"),
        ({"dynamic_sampling": 1, "prioritised": True}, "leave out one of them"),
        ({"advantage": "batch", "scale_by_std": False}, "scale_by_std is for"),
        ({"algorithm": "pass@k", "reward": "0.8 rule + 0.2 format"}, "leave out sums"),
        ({"algorithm": "pass@k", "overlong": 4}, "leave out overlong"),
        ({"segment": 2, "reward": "rule + 0.5 length"}, "will earn: leave out length"),
        ({"weight": "sequence", "segment": 2}, "for the whole completion: leave out segment"),
        ({"algorithm": "gmpo", "tis_cap": 2.0}, "for the whole completion: leave out tis_cap"),
        ({"algorithm": "gmpo", "clip": "weight"}, "leave out clip weight"),
        ({"dynamic_sampling": 1, "reward": "confidence"}, "can be equal, not confidence"),
        ({"algorithm": "pass@k", "pass_k": 9}, "a group has 4 completions"),
        ({"staleness": -1}, "staleness"),
        ({"algorithm": "ppo2"}, "no algorithm 'ppo2'"),
        ({"tis_cap": 0.0}, "tis_cap"),
        ({"clip_cov": 2.0}, "clip_cov"),
    ],
    ids=str,
)
def test_what_makes_no_sense_is_one_line(untrained, tmp_path, changes, said):
    with pytest.raises(InputError, match=said):
        grpo.train(short_run(untrained, tmp_path, **changes))
    assert not (tmp_path / "run").exists()
