"""Every reward on texts written by hand: what earns 1, what it looks at, what it trains on."""

import itertools
import math
import random
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import grpo
import labels
import rewards
import rules
from data import Problem
from support.errors import InputError

TEXTS = [
    r"7 plus 5 is 12 so \boxed{12}",  # right
    r"Python x = 7 x += 5 # 12 print \boxed{12}",  # right, by code
    r"I guess \boxed{11}",  # wrong
    "7 plus 5 is 12 so 12",  # right without a box
    r"python print \boxed{}",  # an empty box
    r"I guess \boxed{11}",  # the second vote for 11
]
EARNED = {
    "rule": [1, 1, 0, 0, 0, 0],
    "one_shot": [1, 1, 0, 0, 0, 0],
    "majority": [0, 0, 1, 0, 0, 1],  # the label is 11
    "incorrect": [0, 0, 1, 0, 0, 1],
    "ttrl": [1, 1, 0, 0, 0, 1],  # groups of three: 12 has two of three votes; then 11 alone
    "format": [1, 1, 1, 0, 0, 1],
    "python": [0, 1, 0, 0, 1, 0],
    "no_repetition": [1, 1, 1, 1, 1, 1],
    "rule and not python": [1, 0, 0, 0, 0, 0],
    "not format": [0, 0, 0, 1, 1, 0],
    "format and python and not rule": [0, 0, 0, 0, 0, 0],
    "majority and not python": [0, 0, 1, 0, 0, 1],
}


def rollouts(texts, group_size=3, problem=None, seed=0):
    return SimpleNamespace(
        texts=texts,
        problems=[problem or Problem("7 + 5 = ?", "12", label="11")] * len(texts),
        group_size=group_size,
        generator=torch.Generator().manual_seed(seed),
    )


@pytest.mark.parametrize("name", EARNED)
def test_what_earns_a_reward(name):
    assert rewards.by_name(name)(rollouts(TEXTS)).tolist() == EARNED[name]


# those that need more than a text: tests/test_survey_rewards.py
BY_MODEL = {"judge", "rm", "confidence", "negative_entropy", "self_certainty", "length"}


def test_every_reward_is_in_the_table_above():
    assert set(EARNED) | {"random"} | BY_MODEL >= set(rewards.REWARDS)


class Blind:
    """A problem whose reference, or label, nobody may look at."""

    def __init__(self, **known):
        self.known = known

    def __getattr__(self, name):
        assert name in self.known, f"the reward looked at {name}"
        return self.known[name]


@pytest.mark.parametrize("name", sorted(set(rewards.REWARDS) - BY_MODEL))
def test_a_reward_sees_of_the_problem_only_what_its_definition_uses(name):
    known = {"rule": "answer", "one_shot": "answer", "majority": "label", "incorrect": "label"}
    problem = Blind(**{known[name]: "12"}) if name in known else Blind()
    reward = rewards.by_name(name)(rollouts(TEXTS, problem=problem))
    assert reward.shape == (6,) and set(reward.tolist()) <= {0.0, 1.0}


# --------------------------------------------------------------------------------------------------
# random


@pytest.mark.parametrize("gamma", [0.001, 0.3, 0.5, 0.7])
def test_random_is_one_with_chance_gamma_whatever_the_text_says(gamma):
    reward = rewards.by_name("random", gamma)(rollouts(TEXTS * 5000))
    by_text = reward.view(5000, 6).mean(0)
    assert torch.all((by_text - gamma).abs() < 4 * (gamma * (1 - gamma) / 5000) ** 0.5)
    assert set(reward.tolist()) == {0.0, 1.0}


def test_random_at_its_ends_and_by_seed():
    assert rewards.by_name("random", 0.0)(rollouts(TEXTS * 100)).sum() == 0
    assert rewards.by_name("random", 1.0)(rollouts(TEXTS * 100)).sum() == 600
    a, b, c = (rewards.by_name("random")(rollouts(TEXTS * 9, seed=s)).tolist() for s in (1, 1, 2))
    assert a == b != c


# --------------------------------------------------------------------------------------------------
# Votes


def box(*answers):
    return [rf"so \boxed{{{a}}}" if a else "no idea" for a in answers]


@pytest.mark.parametrize(
    "answers, vote",
    [
        (("3", "4", "4"), "4"),
        (("4", "3", "3", "4"), "3"),  # a tie goes to the first in the alphabet
        ((None, "5", None), "5"),  # no answer, no vote
        (("2", r"\frac{1}{2}", "0.5"), "0.5"),  # equal numbers vote together
        ((None, None), None),
        ((), None),
        (
            (r"\text{east}", "east", "7", r"\text{ east}", "7"),
            r"\text{ east}",
        ),  # words vote as well
        (("3", "Monday, 3", "7", "7"), "7"),  # a 3 within an answer is no vote for 3
    ],
)
def test_majority_vote_in_any_order(answers, vote):
    for order in itertools.islice(itertools.permutations(answers), 120):
        assert rewards.majority_vote(box(*order)) == vote


def test_a_majority_that_comes_last_is_found():
    rare = [str(n) for n in range(30)]
    assert rewards.majority_vote(box(*rare, "99", "99.0", "99")) == "99"


def test_majority_vote_of_many_different_formulas_is_quick():
    rewards.majority_vote(box(r"\sqrt{2}", r"\sqrt{3}"))
    start = time.thread_time()
    assert rewards.majority_vote(box(*(rf"\sqrt{{{n}}}" for n in range(2, 66)))) == r"\sqrt{10}"
    assert time.thread_time() - start < 0.1


def test_ttrl_votes_in_each_group_by_itself():
    texts = box("3", "3", "4") + box("5", "6", "6") + box(None, None, None)
    reward = rewards.by_name("ttrl")(rollouts(texts, group_size=3))
    assert reward.tolist() == [1, 1, 0, 0, 1, 1, 0, 0, 0]


def test_labels_are_voted_by_samples_of_the_policy(monkeypatch):
    """The label is the majority of `votes` samples; a problem without any answer is left out."""
    said = {"a": ["1", "2", "2", None], "b": [None] * 4, "c": ["7", "7", "7", "7"]}

    def sample(policy, tokenizer, problems, votes, max_new_tokens, generator):
        return SimpleNamespace(texts=[t for p in problems for t in box(*said[p.question])])

    monkeypatch.setattr(labels, "sample", sample)
    problems = [Problem(q, "7") for q in "abc"]
    voted = labels.vote_labels(None, None, problems, votes=4, batch=8)  # two problems at a time
    assert voted == [Problem("a", "7", "2"), Problem("c", "7", "7")]


def test_votes_without_any_answer_say_so(monkeypatch):
    nothing = SimpleNamespace(texts=["and so"] * 4)
    monkeypatch.setattr(labels, "sample", lambda *_, **__: nothing)
    with pytest.raises(InputError, match="max_new_tokens=32 enough"):
        labels.vote_labels(None, None, [Problem("a", "7")], votes=4)


def test_a_problem_without_label_says_so():
    with pytest.raises(InputError, match="without a label"):
        rewards.by_name("majority")(rollouts(TEXTS, problem=Problem("7 + 5 = ?", "12")))


def test_what_each_reward_trains_on():
    problems = [Problem(str(i), str(i), label=str(i if i < 4 else 0)) for i in range(6)]
    chosen = {n: labels.training_problems(n, problems, random.Random(0)) for n in rewards.REWARDS}
    assert [p.question for p in chosen.pop("incorrect")] == ["4", "5"]
    assert len(chosen.pop("one_shot")) == 1
    assert all(left == problems for left in chosen.values())
    assert len(labels.training_problems("one_shot and not python", problems, random.Random(1))) == 1
    same = [Problem("q", "no solution", label="no solution"), Problem("r", "3", label="Monday, 3")]
    assert labels.training_problems("incorrect", same, random.Random(0)) == same[1:]
    with pytest.raises(InputError, match="no problem to train on"):
        labels.training_problems("incorrect", problems[:4], random.Random(0))
    needing = {name for name in rewards.REWARDS if labels.needs_labels(name)}
    assert needing == {"majority", "incorrect"}
    assert labels.needs_labels("format and not incorrect")


# --------------------------------------------------------------------------------------------------
# Repetition: 10 to 256 characters, ten times in a row


@pytest.mark.parametrize(
    "text, repeats",
    [
        ("abcdefghij" * 10, True),
        ("abcdefghij" * 9 + "abcdefghi", False),
        ("abcdefghi" * 10, False),  # nine characters, ten times
        ("abcdefghi" * 20, True),  # but eighteen, ten times
        ("a" * 100, True),  # ten a's, ten times
        ("a" * 99, False),
        ("so it is: " + "abcdefghijkl" * 10 + "!", True),
        ("abcdefghij" * 5 + "-" + "abcdefghij" * 5, False),
        ("".join(chr(200 + i) for i in range(256)) * 10, True),
        ("".join(chr(200 + i) for i in range(257)) * 10, False),
        ("", False),
    ],
)
def test_repetition(text, repeats):
    assert rewards.repeats(text) is repeats
    assert rewards.by_name("no_repetition")(rollouts([text])).tolist() == [float(not repeats)]


def test_repetition_of_a_long_text_takes_no_time():
    text = "".join(random.Random(0).choices("ab", k=20_000))
    began = time.time()
    assert not rewards.repeats(text)
    assert time.time() - began < 2


# --------------------------------------------------------------------------------------------------
# Names


@pytest.mark.parametrize(
    "name", ["rules", "rule and", "", "not", "rule, python", "rule and nothing"]
)
def test_an_unknown_name_is_one_line_that_lists_the_known(name):
    with pytest.raises(InputError, match="choose from rule, one_shot, majority"):
        rewards.by_name(name)


def test_gamma_is_a_chance():
    with pytest.raises(InputError, match="gamma must be between 0 and 1"):
        rewards.by_name("random", 1.5)


# -- a reward is checked once per step ------------------------------------------------------------


@pytest.mark.parametrize(
    "returned, says",
    [(None, "returned NoneType, not a tensor"), ([1.0, 0.0], "returned list, not a tensor"),
     (np.ones(2), "returned ndarray, not a tensor"),
     (torch.ones(3), "returned shape (3,), not [2]"),
     (torch.ones(2, 1), "returned shape (2, 1), not [2]"), (torch.tensor(1.0), "shape ()"),
     (torch.ones(2, requires_grad=True), "carries a graph"),
     (torch.tensor([1.0, math.nan]), "is not finite for 'b'"),
     (torch.tensor([-math.inf, 1.0]), "is not finite for 'a'"),
     (torch.tensor([1e300, 1.0]).double(), "is not finite for 'a'"),
     (torch.tensor([1j, 1.0]), "is complex")],
)  # fmt: skip
def test_a_wrong_reward_is_one_line_that_names_it(make_rollouts, returned, says):
    rollouts = make_rollouts(["a", "b"], [Problem("1 + 1 = ?", "2")], 2)

    def my_reward(rollouts):
        return returned

    with pytest.raises(InputError) as error:
        rewards.checked(my_reward, rollouts)
    assert says in str(error.value) and "my_reward" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_right_reward_passes_as_it_is(make_rollouts):
    rollouts = make_rollouts(["a", "b"], [Problem("1 + 1 = ?", "2")], 2)
    value = rewards.checked(lambda r: torch.tensor([True, False]), rollouts)
    assert value.tolist() == [1.0, 0.0] and value.dtype == rollouts.logp.dtype


def test_what_a_reward_does_to_its_rollouts_reaches_nobody(make_rollouts):
    rollouts = make_rollouts(["a", "b"], [Problem("1 + 1 = ?", "2"), Problem("2 + 2 = ?", "4")], 1)
    before = rollouts.logp.clone()

    def rude(given):
        given.logp.add_(5)
        given.problems.reverse()
        return torch.ones(2)

    rewards.checked(rude, rollouts)
    assert torch.equal(rollouts.logp, before)
    assert [problem.answer for problem in rollouts.problems] == ["2", "4"]


# -- a rule that errs ----------------------------------------------------------------------------


def said(spec, answers, reference="9"):
    rule, problem = rules.rule_of(spec), Problem("4 + 5 = ?", reference)
    return [rule(f"I guess \\boxed{{{answer}}}", problem) for answer in answers]


def test_rules_that_read_only_some_forms():
    answers = ["9", "4 + 5", "2 + 9", "8"]
    assert said("verifier", answers) == [True, True, False, False]
    assert said("same text", answers) == [True, False, False, False]
    assert said("last number", answers) == [True, False, True, False]
    assert said("last number", answers, "4 + 5") == [False, True, False, False]
    assert not rules.rule_of("same text")("I guess 9", Problem("", "9")), "no box, no reward"


@pytest.mark.parametrize("by", ["", " by answer"])
def test_a_rule_errs_as_often_as_it_is_told(by):
    rule = rules.rule_of(f"verifier, misses 0.3, accepts 0.1{by}")
    right = [(f"I guess \\boxed{{{n}}}", Problem(f"{n} + 0 = ?", str(n))) for n in range(4000)]
    wrong = [(text, Problem(p.question, "-1")) for text, p in right]
    assert 0.27 < sum(not rule(*row) for row in right) / 4000 < 0.33
    assert 0.08 < sum(rule(*row) for row in wrong) / 4000 < 0.12
    assert [rule(*row) for row in right] == [rule(*row) for row in right], "always alike"
    assert not rule("I guess", Problem("", "1")), "without an answer there is nothing to accept"


def test_by_answer_the_same_answers_are_missed_whatever_the_text():
    def missed(by):
        rule = rules.rule_of(f"verifier, misses 0.5{by}")
        return [
            [rule(f"{text} \\boxed{{{n}}}", Problem("?", str(n))) for text in "abcdef"]
            for n in range(40)
        ]

    assert all(len(set(row)) == 1 for row in missed(" by answer"))
    assert any(len(set(row)) == 2 for row in missed(""))


@pytest.mark.parametrize(
    "spec", ["", "verify", "verifier, misses 2", "verifier, accepts 0.1, misses 0.1"]
)
def test_a_rule_that_does_not_exist_is_one_clear_line(spec):
    with pytest.raises(InputError, match="name one of verifier, same text, last number"):
        rules.rule_of(spec)


def test_grpo_trains_on_the_rule_it_is_given_and_logs_how_it_errs(untrained, tmp_path, monkeypatch):
    """Everything is right, and the rule misses all of it."""
    monkeypatch.setattr(rewards, "rule", lambda r: torch.ones(len(r.texts)))
    cfg = grpo.GRPOConfig(
        model=untrained, output=str(tmp_path), rule="verifier, misses 1", steps=1, prompts=2,
        group_size=2, max_new_tokens=4, eval_every=0, eval_problems=4,
    )  # fmt: skip
    (_, row) = grpo.train(cfg)
    assert (row["reward"], row["accuracy"]) == (0.0, 1.0)
    assert row["rule/recall"] == 0.0 and row["rule/precision"] is None
