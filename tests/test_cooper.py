"""The two stages: who becomes a pair, who changes whose weights, and the frozen arm."""

import dataclasses
import random
from types import SimpleNamespace

import pytest
import torch

import cooper
import grpo
import pairs
import rewards
import rules
from cooper import CooperConfig, make_negatives, select_positives
from data import Problem
from metrics import measure_pairs
from pairs import is_negative
from reward_model import RewardModel
from support.errors import InputError

PROBLEMS = [Problem("1 + 1 = ?", "2"), Problem("2 + 2 = ?", "4"), Problem("3 + 3 = ?", "6")]
TEXTS = [
    *["I guess \\boxed{2}", "I guess \\boxed{3}", "I guess \\boxed{2}"],  # rows 0 and 2 correct
    *["I guess \\boxed{5}", "I guess 4", "I guess \\boxed{6}"],  # none correct
    *["I guess \\boxed{1}", "I guess \\boxed{6}", "I guess \\boxed{2}"],  # row 7 correct
]


@pytest.fixture
def rollouts(make_rollouts):
    return make_rollouts(TEXTS, PROBLEMS, 3)


@pytest.fixture
def cfg(untrained, tmp_path):
    return CooperConfig(
        model=untrained, rm_model=untrained, output=str(tmp_path / "run"), steps=2,
        prompts=4, group_size=4, max_new_tokens=8, assistant_max_new_tokens=8,
        negatives="assistant", eval_every=2, eval_problems=4, eval_samples=2,
    )  # fmt: skip


# -- pairs ---------------------------------------------------------------------------------------


def test_positives_come_only_from_rows_the_rule_proves_correct(rollouts):
    correct = rewards.rule(rollouts)
    seen = [tuple(select_positives(rollouts, correct, random.Random(s))) for s in range(50)]
    assert set(seen) == {(0, 7), (2, 7)}, (
        "one correct row per prompt, at random, none for the second prompt"
    )


def test_positives_of_a_batch_without_any_correct_row(rollouts):
    assert select_positives(rollouts, [False] * 9, random.Random(0)) == []


@pytest.mark.parametrize(
    "text, reference, negative",
    [
        ("so \\boxed{3}", "2", True),
        ("so \\boxed{2}", "2", False),  # still right
        ("so \\boxed{4/2}", "2", False),  # right in another form
        ("so 2", "2", True),  # no box, no reward
        ("so \\boxed{", "2", True),  # cut off
        ("", "2", True),
    ],
)
def test_a_negative_is_what_the_rule_does_not_call_right(text, reference, negative):
    assert is_negative(text, Problem("", reference)) is negative


def scripted_assistant(monkeypatch, make_rollouts, replies):
    """The n-th call of the assistant answers with replies[n]; returns the prompts it was given."""
    calls = []

    def sample(model, tokenizer, problems, group_size, *args, prompts, **kwargs):
        calls.append(prompts)
        return make_rollouts(replies[len(calls) - 1], problems, group_size)

    monkeypatch.setattr(pairs, "sample", sample)
    monkeypatch.setattr(pairs, "within_context", lambda m, t, prompts, n: [True] * len(prompts))
    return calls


def test_negatives_are_retried_until_wrong_and_dropped_after_the_last_try(
    rollouts, make_rollouts, monkeypatch
):
    right, wrong = "I guess \\boxed{6}", "I guess \\boxed{9}"
    replies = [["I guess \\boxed{3}", right], [right], [right], [right]]
    calls = scripted_assistant(monkeypatch, make_rollouts, replies)
    solved = [TEXTS[0], TEXTS[7]], [PROBLEMS[0], PROBLEMS[2]]
    negatives = make_negatives(None, None, *solved, 8, max_retries=3)
    assert negatives == ["I guess \\boxed{3}", None]
    assert [len(prompts) for prompts in calls] == [2, 1, 1, 1], (
        "only what is missing is asked again"
    )
    assert "Problem: 3 + 3 = ?\nCorrect solution: I guess \\boxed{6}" in calls[1][0]
    calls = scripted_assistant(monkeypatch, make_rollouts, [[right, right], [wrong, wrong]])
    assert make_negatives(None, None, *solved, 8)[1] == wrong
    assert len(calls) == 2


def test_rejected_rollouts_come_from_the_same_prompt(rollouts):
    correct = rewards.rule(rollouts).bool().tolist()
    drawn = {
        tuple(pairs.rejected_rollouts(rollouts, correct, [0, 7], random.Random(s)))
        for s in range(50)
    }
    assert {a for a, _ in drawn} == {TEXTS[1]} and {b for _, b in drawn} == {TEXTS[6], TEXTS[8]}
    assert pairs.rejected_rollouts(rollouts, [True] * 9, [0], random.Random(0)) == [None]


# -- the reward-model update ---------------------------------------------------------------------


def some_pairs():
    return [
        (p.question, p.answer, f"I guess \\boxed{{{p.answer}}}", "I guess \\boxed{9}")
        for p in PROBLEMS
    ]


def test_update_teaches_the_pairs_and_does_not_depend_on_the_micro_batch(untrained, cfg):
    def after(micro):
        torch.manual_seed(0)
        rm = RewardModel.load(untrained)
        optimizer = torch.optim.SGD(rm.model.parameters(), lr=0.05)
        config = dataclasses.replace(cfg, rm_micro_batch=micro)
        stats = [cooper.update_reward_model(rm, optimizer, some_pairs(), config) for _ in range(30)]
        return stats, rm

    stats, rm = after(None)
    assert stats[-1]["rm/loss"] < stats[0]["rm/loss"] and stats[-1]["rm/pair_accuracy"] == 1.0
    assert not rm.model.training
    part, _ = after(1)
    assert part[0] == pytest.approx(stats[0], abs=1e-5)
    assert part[-1]["rm/loss"] == pytest.approx(stats[-1]["rm/loss"], abs=1e-3)


def test_no_pairs_is_no_update(untrained, cfg):
    rm = RewardModel.load(untrained)
    before = fingerprint(rm.model)
    optimizer = torch.optim.AdamW(rm.model.parameters(), lr=1.0)
    cooper.update_reward_model(rm, optimizer, [], cfg)
    assert fingerprint(rm.model) == before


def fingerprint(model):
    return hash(b"".join(p.detach().cpu().numpy().tobytes() for p in model.parameters()))


def test_each_stage_changes_only_its_own_weights(untrained, cfg, make_rollouts, tokenizer):
    learner = grpo.start(cfg)
    torch.manual_seed(0)
    rm = RewardModel.load(untrained)
    policy, optimizer = learner.policy, learner.optimizer
    policy_before, rm_before = fingerprint(policy), fingerprint(rm.model)
    rollouts = cooper.sample(policy, tokenizer, learner.problems[:4], 4, 8)
    adv = grpo.group_advantages(rm.reward(rollouts).view(4, 4)).flatten()
    stats = grpo.update(policy, optimizer, rollouts, adv, cfg, learner.reference)
    policy_after = fingerprint(policy)
    assert stats["grad_norm"] > 0 and policy_after != policy_before
    assert fingerprint(rm.model) == rm_before, "the policy stage touched the reward model"
    assert all(p.grad is None for p in rm.model.parameters())

    rollouts = make_rollouts(TEXTS, PROBLEMS, 3)
    positives = select_positives(rollouts, rewards.rule(rollouts), random.Random(0))
    made = cooper.pair_up(rollouts, positives, ["I guess \\boxed{0}"] * 2)
    assert [pair[:2] for pair in made] == [("1 + 1 = ?", "2"), ("3 + 3 = ?", "6")]
    optimizer = torch.optim.AdamW(rm.model.parameters(), lr=1e-3)
    cooper.update_reward_model(rm, optimizer, made, cfg)
    assert fingerprint(rm.model) != rm_before
    assert fingerprint(policy) == policy_after, "the reward-model stage touched the policy"


def test_a_positive_without_a_negative_makes_no_pair(rollouts):
    assert cooper.pair_up(rollouts, [0, 7], [None, "no"]) == [
        ("3 + 3 = ?", "6", "I guess \\boxed{6}", "no")
    ]


def numbers(history):
    return [
        {k: v for k, v in row.items() if k != "step_time" and not k.startswith("rm/")}
        for row in history
    ]


def test_frozen_arm_is_bit_identical_to_grpo_on_that_reward_model(untrained, cfg, tmp_path):
    frozen = dataclasses.replace(cfg, rm_lr=0.0)
    torch.manual_seed(0)
    ours = cooper.train(frozen)
    fields = {f.name: getattr(frozen, f.name) for f in dataclasses.fields(grpo.GRPOConfig)}
    torch.manual_seed(0)
    rm = RewardModel.load(untrained)
    plain = grpo.train(
        grpo.GRPOConfig(**fields | {"output": str(tmp_path / "plain")}), reward=rm.reward
    )
    assert numbers(ours) == numbers(plain) and len(ours) == 3
    a, b = (torch.load(tmp_path / d / "checkpoint.pt")["policy"] for d in ("run", "plain"))
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_the_reward_model_moves_when_it_may(untrained, cfg, monkeypatch):
    monkeypatch.setattr(rules, "rule_of", lambda spec: lambda text, problem: True)
    monkeypatch.setattr(
        pairs, "make_negatives", lambda a, t, texts, *x: ["I guess \\boxed{0}"] * len(texts)
    )
    history = cooper.train(cfg)
    assert [row["rm/valid_rate"] for row in history[1:]] == [1.0, 1.0]
    for name in (
        "rm/loss",
        "rm/margin",
        "rm/pair_accuracy",
        "rm/grad_norm",
        "rm/agreement",
        "reward",
        "accuracy",
    ):
        assert name in history[-1]
    assert "rm/held_out_accuracy" in history[0] and "eval/greedy" in history[-1]


def test_agreement_by_hand(rollouts):
    # The rule accepts rows 0, 2 and 7 (row 4 has no box); these scores accept 0, 1 and 7.
    score = torch.tensor([0.9, 0.6, 0.5, 0.1, 0.2, 0.0, 0.4, 0.8, 0.3])
    assert cooper.agreement(score, rewards.rule(rollouts)) == pytest.approx(7 / 9)


def test_what_the_assistant_cannot_read_gets_no_negative(policy, tokenizer, monkeypatch):
    """It would stop the run at the step where it is drawn, each time anew."""
    monkeypatch.setattr(pairs, "is_negative", lambda text, problem, rule: True)
    texts = [TEXTS[0], "I guess " * 200]
    negatives = make_negatives(policy, tokenizer, texts, PROBLEMS[:2], 4)
    assert negatives[0] is not None and negatives[1] is None


def test_inputs_that_were_cut_are_logged_and_the_switch_reaches_the_reward_model(cfg, monkeypatch):
    given, load = [], RewardModel.load

    def spy(name, neutralise):
        given.append(neutralise)
        rm = load(name, neutralise)
        rm.max_length = 16
        return rm

    monkeypatch.setattr(RewardModel, "load", spy)
    history = cooper.train(dataclasses.replace(cfg, neutralise=False, rm_lr=0.0))
    assert given == [False] and history[1]["rm/truncated"] > 0


# -- switches ------------------------------------------------------------------------------------


def test_several_positives_of_a_prompt_come_one_of_each_prompt_after_the_other(rollouts):
    correct = rewards.rule(rollouts)
    seen = {tuple(select_positives(rollouts, correct, random.Random(s), 3)) for s in range(50)}
    assert seen == {(0, 7, 2), (2, 7, 0)}


def test_a_perturbed_text_differs_in_one_number_and_is_wrong():
    text, problem = "1 plus 1 is 2 so \\boxed{2}", Problem("1 + 1 = ?", "2")
    for seed in range(30):
        changed = pairs.perturbed(text, problem, random.Random(seed))
        differs = [(a, b) for a, b in zip(text.split(), changed.split()) if a != b]
        assert len(differs) == 1 and differs[0][0] == "\\boxed{2}" and is_negative(changed, problem)
    assert pairs.perturbed("no number", problem, random.Random(0)) is None
    assert pairs.perturbed(text, problem, random.Random(0), lambda text, problem: True) is None


def test_the_reward_model_moves_at_every_third_step_alone(cfg, monkeypatch):
    monkeypatch.setattr(rules, "rule_of", lambda spec: lambda text, problem: True)
    monkeypatch.setattr(pairs, "make_negatives", lambda a, t, texts, *x: ["no"] * len(texts))
    history = cooper.train(dataclasses.replace(cfg, rm_every=3, steps=6, eval_every=0))
    assert [row["step"] for row in history if "rm/valid_rate" in row] == [3, 6]


def test_the_order_of_fixed_pairs_counts_a_tie_as_half():
    """Of four pairs two are in order, one is not, one is a tie: 2.5 of 4."""
    scores = {"right": [0.9, 0.6, 0.2, 0.5], "wrong": [0.1, 0.5, 0.3, 0.5]}
    grader = SimpleNamespace(score=lambda q, r, texts: torch.tensor(scores[texts[0]]))
    pair = ("1 + 1 = ?", "2", "right", "wrong")
    assert measure_pairs(grader, [pair] * 4) == {"order": 0.625}


def test_stale_pairs_are_samples_of_the_initial_policy(cfg, monkeypatch):
    """It gives each pair's positive: the weights that wrote it do not move with the policy's."""
    monkeypatch.setattr(rules, "rule_of", lambda spec: lambda text, problem: True)
    monkeypatch.setattr(pairs, "make_negatives", lambda a, t, texts, *x: ["no"] * len(texts))
    wrote, sample = [], cooper.sample

    def spy(model, *args, **kwargs):
        wrote.append(fingerprint(model))
        return sample(model, *args, **kwargs)

    monkeypatch.setattr(cooper, "sample", spy)
    cooper.train(dataclasses.replace(cfg, stale_pairs=True, steps=3, eval_every=0, lr=1e-2))
    assert wrote[1] == wrote[3] == wrote[5] == wrote[0], "the initial policy"
    assert len({wrote[0], wrote[2], wrote[4]}) == 3, "the policy itself learns"


def test_where_the_rule_errs_pairs_go_by_it_and_evaluation_does_not(cfg, monkeypatch):
    given = []
    monkeypatch.setattr(rewards, "rule", lambda r: torch.ones(len(r.texts)))
    monkeypatch.setattr(
        cooper, "update_reward_model", lambda r, o, made, c: given.append(made) or {}
    )
    history = cooper.train(dataclasses.replace(cfg, rule="same text", eval_every=0))
    assert given == [[], []], "an untrained policy proves nothing right to that rule"
    assert [row["accuracy"] for row in history[1:]] == [1.0, 1.0]
    assert [row["rule/recall"] for row in history[1:]] == [0.0, 0.0]


def test_the_share_of_negatives_that_answer_by_hand():
    made = [("q", "2", "\\boxed{2}", wrong) for wrong in ("\\boxed{3}", "I cannot help", "so 3")]
    assert pairs.answered_rate(made) == pytest.approx(1 / 3)
    assert pairs.answered_rate([]) != pairs.answered_rate([])  # nan


# -- the survey's switches -------------------------------------------------------------------------

SWITCHED = {
    "kl_coef": 0.1, "reference_reset": 2, "staleness": 2, "reward": "0.8 rm + 0.2 format",
    "overlong": 4, "prioritised": True, "advantage": "leave_one_out",
}  # fmt: skip


def test_with_the_surveys_switches_a_killed_run_resumes_to_the_same_numbers(cfg, resumes_alike):
    resumes_alike(cooper, dataclasses.replace(cfg, steps=4, save_every=1, eval_every=0, **SWITCHED))


def test_what_is_logged_of_the_reward_model_is_its_own_score(cfg, monkeypatch):
    """In a mix the rule must not hide what the reward model thinks."""
    monkeypatch.setattr(RewardModel, "reward", lambda self, r: torch.full((len(r.texts),), 0.6))
    mixed = dataclasses.replace(cfg, reward="0.5 rm + 0.5 rule", steps=1, eval_every=0)
    row = cooper.train(mixed)[-1]
    assert row["reward"] == pytest.approx(0.3 + row["accuracy"] / 2)
    assert row["rm/precision"] == row["accuracy"], "0.6 is a yes to everything"


def test_a_mix_without_the_reward_model_is_refused(cfg):
    with pytest.raises(InputError, match="does without the reward model"):
        cooper.train(dataclasses.replace(cfg, reward="rule"))
