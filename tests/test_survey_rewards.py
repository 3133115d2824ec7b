"""Rewards of steps, of confidence, of length, and of a judge; sums of rewards."""

import math
from types import SimpleNamespace

import pytest
import torch

import rewards
from data import Problem
from judge import Judge
from metrics import rollout_metrics
from rollout import sample, token_logprobs
from support.errors import InputError
from survey import confidence
from survey.process import (
    check_steps,
    returns_to_go,
    sound,
    step_advantages,
    step_rewards,
    steps_taken,
)

CHAIN = Problem("7 + 5 - 3 = ?", "9")

# --------------------------------------------------------------------------------------------------
# Steps


@pytest.mark.parametrize(
    "text, right",
    [
        (r"python x = 7 x += 5 # 12 x -= 3 # 9 print \boxed{9}", [True, True]),
        (r"7 plus 5 is 12 minus 3 is 9 so \boxed{9}", [True, True]),
        (r"7 plus 5 is 11 minus 3 is 9 so \boxed{9}", [False, True]),
        # built on a mistake: it follows, but is not the running total
        (r"python x = 7 x += 5 # 11 x -= 3 # 8 print \boxed{8}", [False, False]),
        (r"python x = 7 x += 4 # 12 x -= 3 # 9 print \boxed{9}", [False, True]),  # another number
        (r"python x = 7 x -= 5 # 12", [False]),  # another sign
        (r"python x = 7 x += 5 # 12 x += 5 # 12 x -= 3 # 9", [True, False, False]),  # one too many
        (r"I guess \boxed{9}", []),
        ("", []),
    ],
)
def test_steps_by_hand(text, right):
    assert [ok for _, ok in check_steps(CHAIN.question, text)] == right


SLIPPED, GUESSED = r"7 plus 5 is 11 minus 3 is 9 so \boxed{9}", r"I guess \boxed{9}"
RIGHT = r"7 plus 5 is 12 minus 3 is 9 so \boxed{9}"


def test_a_right_answer_with_a_wrong_step(make_rollouts):
    taken, wrong = steps_taken(make_rollouts([SLIPPED, GUESSED, RIGHT], [CHAIN], 3))
    assert taken.tolist() == [1, 0, 1] and wrong.tolist() == [1, 0, 0]
    rollouts = make_rollouts([SLIPPED], [Problem("How many?", "9")], 1)
    assert [x.tolist() for x in steps_taken(rollouts)] == [[0], [0]]
    rollouts = make_rollouts([SLIPPED, GUESSED, RIGHT, RIGHT], [CHAIN], 4)
    row = rollout_metrics(rollouts, torch.ones(4), rewards.rule(rollouts), rewards.rule)
    assert row["right_with_wrong_step"] == pytest.approx(1 / 3), "a guess takes no steps"


@pytest.mark.parametrize(
    "text, whole",
    [(RIGHT, True), (SLIPPED, False), (GUESSED, False), (r"7 plus 5 is 12 so \boxed{9}", False)],
)
def test_a_chain_is_sound_with_all_steps_right(text, whole):
    assert sound(CHAIN.question, text) is whole


def test_a_step_is_paid_at_its_last_token(make_rollouts, tokenizer):
    text = r"python x = 7 x += 5 # 12 x -= 3 # 8 print \boxed{8}"
    for before in ("", "<|user|> "):  # special tokens are in no text
        rollouts = make_rollouts([before + text, r"I guess \boxed{9}"], [CHAIN], 2)
        rollouts.texts[0] = text
        right, paid = step_rewards(rollouts, tokenizer)
        assert right.shape == paid.shape == rollouts.mask.shape
        begun = [
            tokenizer.decode(rollouts.completion_ids[row, : token + 1], skip_special_tokens=True)
            for row, token in paid[:1].nonzero().tolist()
        ]
        assert [b[-4:] for b in begun] == ["# 12", " # 8"]
        assert right[paid > 0].tolist() == [1, 0, 0]
        last = int(rollouts.mask[1].sum()) - 1
        assert paid[1, last] == 2 == paid[1].sum(), "the guess leaves two out"


def test_steps_of_other_problems_are_refused(make_rollouts, tokenizer):
    with pytest.raises(InputError, match="chains of sums"):
        step_rewards(make_rollouts(["9"], [Problem("How many?", "9")], 1), tokenizer)


def test_returns_by_hand():
    reward = torch.tensor([[0.0, 0.5, 0.0, 0.5], [0.0, 0.0, 0.5, 0.0]])
    assert returns_to_go(reward).tolist() == [[1, 1, 0.5, 0.5], [0.5, 0.5, 0.5, 0]]
    assert returns_to_go(reward, gamma=0.0).tolist() == reward.tolist()
    assert returns_to_go(reward, gamma=0.5)[0].tolist() == [0.3125, 0.625, 0.25, 0.5]


def test_step_advantages_by_hand():
    """Four steps, three of them right: mean 3/4, std 1/2 with n - 1."""
    paid = torch.tensor([[0.0, 1, 0, 1], [1, 0, 1, 0]])
    reward = torch.tensor([[0.0, 1, 0, 1], [1, 0, 0, 0]])
    adv = step_advantages(reward, paid, group_size=2, scale_by_std=False)
    assert adv.tolist() == [[0.5, 0.5, 0.25, 0.25], [-0.5, -0.75, -0.75, 0]]
    scaled = step_advantages(reward, paid, group_size=2)
    torch.testing.assert_close(scaled, adv / (0.5 + 1e-6))
    for equal in (paid, 0 * paid):
        for scale in (True, False):
            assert not step_advantages(equal, paid, 2, scale).any(), "all alike: nothing"
    # a guess that leaves two steps out, beside two right ones: mean 1/2
    missing = step_advantages(
        torch.tensor([[0.0, 1, 0, 1], [0, 0, 0, 0]]), torch.tensor([[0.0, 1, 0, 1], [0, 0, 0, 2]]),
        group_size=2, scale_by_std=False,
    )  # fmt: skip
    assert missing.tolist() == [[1, 1, 0.5, 0.5], [-1, -1, -1, -1]]
    # groups do not mix
    both = [torch.cat([x, paid]) for x in (reward, paid)]
    torch.testing.assert_close(step_advantages(*both, 2)[:2], scaled)


# --------------------------------------------------------------------------------------------------
# Confidence


def test_confidence_by_hand(policy, tokenizer):
    rollouts = sample(policy, tokenizer, [CHAIN, Problem("1 + 1 = ?", "2")], 3, 7)
    logp, spread = (x.detach() for x in token_logprobs(policy, rollouts))
    length = rollouts.mask.sum(1)
    torch.testing.assert_close(confidence.confidence(rollouts), logp.sum(1) / length)
    torch.testing.assert_close(confidence.negative_entropy(rollouts), -spread.sum(1) / length)
    # one row by the definition
    ids = torch.cat([rollouts.prompt_ids[:1], rollouts.completion_ids[:1]], 1)
    logits = policy(input_ids=ids).logits[0, rollouts.prompt_ids.shape[1] - 1 : -1]
    dense, V = torch.log_softmax(logits.double(), -1)[: int(length[0])], logits.shape[-1]
    kl = (1 / V * (math.log(1 / V) - dense)).sum(-1).mean()
    assert confidence.self_certainty(rollouts)[0].item() == pytest.approx(kl.item(), abs=1e-4)


def test_chunks_change_nothing(policy, tokenizer, monkeypatch):
    rollouts = sample(policy, tokenizer, [CHAIN], 5, 7)
    whole = confidence.self_certainty(rollouts)
    monkeypatch.setattr(confidence, "CHUNK_ELEMENTS", 1)
    torch.testing.assert_close(confidence.self_certainty(rollouts), whole)


# --------------------------------------------------------------------------------------------------
# Length, judge, sums


def test_length_by_hand(make_rollouts):
    texts = [r"\boxed{9}", r"so so \boxed{9}", r"so \boxed{8}", r"so so so so \boxed{8}"]
    rollouts = make_rollouts(texts, [CHAIN], 4)
    lengths = rollouts.mask.sum(1)  # 4, 6, 5, 8
    assert (lengths - lengths[0]).tolist() == [0, 2, 1, 4]
    assert rewards.length(rollouts).tolist() == [0.5, 0.0, 0.0, -0.5]
    assert rewards.length(make_rollouts(texts[:1] * 2, [CHAIN], 2)).tolist() == [0, 0]


def test_the_judge_is_asked_beside_the_reference(monkeypatch, make_rollouts):
    loads, said = [], iter([[1, 0, None]])
    monkeypatch.setattr("judge.load_policy", lambda *args: loads.append(args) or ("llm", "its"))
    monkeypatch.setattr("judge.judge", lambda *args: next(said))
    found = Judge("folder")(make_rollouts(["a", "b", "c"], [CHAIN], 3))
    assert found.tolist() == [1, 0, 0] and loads == [("folder", "auto", None, None, True)]


def test_sums_by_hand():
    rollouts = SimpleNamespace(
        texts=[r"python \boxed{9}", r"\boxed{9}", r"python \boxed{8}"], problems=[CHAIN] * 3
    )
    value = rewards.by_name("0.8 rule and not python + 0.2 format + -0.5 python")(rollouts)
    assert value.tolist() == pytest.approx([0.2 - 0.5, 1.0, 0.2 - 0.5])
    assert rewards.by_name("rule + rule")(rollouts).tolist() == [2, 2, 0]
    assert rewards.names_in("0.8 rule and not python + 0.2 format") == {"rule", "python", "format"}


@pytest.mark.parametrize("name", ["0.8", "0.8 + rule", "rule + ", "1e3 rule", "two rule", "rule 2"])
def test_sums_that_are_none_are_one_line(name):
    with pytest.raises(InputError, match="no reward called"):
        rewards.by_name(name)


@pytest.mark.parametrize("name", ["judge", "rm", "rule + 0.2 rm"])
def test_a_reward_that_needs_a_model_says_so(name):
    with pytest.raises(InputError, match="needs a model"):
        rewards.by_name(name)
    assert rewards.by_name("rm", rm=lambda rollouts: torch.ones(1))(SimpleNamespace(texts=["a"]))
