r"""Exercises that check themselves: check.NAME(answer) is "right", or "not yet" and a hint.

A check never raises, whatever it is given. tests/test_notebooks.py holds each against the blank,
against mistakes that people make, and against solutions.py.
"""

import random
from collections import Counter
from pathlib import Path

import torch

import grpo
import rewards
from data import Problem
from eval import pass_at_k as exact_pass_at_k
from experiments.clipping_bias import positive_advantage
from notebooks.exercise import NotYet, choose, compare, exercise, result
from pairs import is_negative
from reward_model import bce_loss, pairwise_loss
from rollout import Rollouts
from support.jsonl import read_jsonl
from support.stats import sign_flip as exact_sign_flip
from verifier import verify

ROOT = Path(__file__).parents[1]

# ---- 01 ----------------------------------------------------------------------------------------

# as many groups as completions, so that a lost keepdim raises nothing
REWARD = torch.tensor([[1.0, 0, 0, 0], [1, 1, 0, 0], [3, 1, 1, 3], [0, 2, 4, 6]])


@exercise
def advantages(function):
    """function(reward [N, G]) -> advantages [N, G]"""
    mine, r = result(function, REWARD.clone()), REWARD
    centred = r - r.mean(1, keepdim=True)
    mistakes = {
        "Did you divide by G, and not by G - 1, in the std?": centred
        / r.std(1, correction=0)[:, None],
        "Is your mean over all groups? It belongs to each row.": (r - r.mean()) / r.std(),
        "Without keepdim=True a row gets the mean of another row.": (r - r.mean(1)) / r.std(1),
        "The std is missing.": centred,
    }
    compare("A of four groups", mine, grpo.group_advantages(r), mistakes)
    equal = result(function, torch.full((1, 4), 0.7))
    if not torch.isfinite(equal).all():
        raise NotYet("four equal rewards: 0 / 0 is nan. Add 1e-6 to the std.")
    compare("four equal rewards", equal, torch.zeros(1, 4))


@exercise
def leave_one_out(function):
    """function(reward [N, G]) -> reward minus the mean of the others in its group"""
    r, G = REWARD, REWARD.shape[1]
    centred, others = r - r.mean(1, keepdim=True), r.sum(1, keepdim=True) - r
    mistakes = {
        "The reward itself is in your mean; it should be of the others alone.": centred,
        "Divide the sum of the others by G - 1, not by G.": r - others / G,
        "That is the sum of the others, not their mean.": r - others,
    }
    compare("four groups", result(function, r.clone()), centred * G / (G - 1), mistakes)


GROUPS = {
    "A": [1.0, 1.0, 1.0, 1.0],
    "B": [0.0, 0.0, 0.0, 0.0],
    "C": [1.0, 0.0, 0.0, 0.0],
    "D": [0.5, 0.5, 0.5, 0.5],
    "E": [0.51, 0.50, 0.50, 0.50],
    "F": [0.0, -1.0, -1.0, -1.0],
}


@exercise
def silent_groups(names):
    """Which of GROUPS have no gradient?"""
    missing = {
        "A": "four right answers are as silent as four wrong ones: nothing to compare",
        "B": "four wrong answers: nobody knows what would have been better",
        "D": "whatever the common value is, its mean takes it away",
    }
    wrong = {
        "C": "one of its answers is better than the others, the best case there is",
        "E": "0.01 apart is enough, for the std is as small: look at its advantages",
        "F": "its rewards are those of C minus 1, and the mean takes a constant away",
    }
    choose(names, {"A", "B", "D"}, missing, wrong)


# ---- 02 ----------------------------------------------------------------------------------------


@exercise
def loss_means(function):
    """function(objective [B, T], mask [B, T]) -> (token mean, sequence mean)"""
    objective = torch.tensor([[1.0, 2, 3], [6, 9, 9]])
    mask = torch.tensor([[1.0, 1, 1], [1, 0, 0]])
    mine = [float(x) for x in result(function, objective, mask)]
    compare("token and sequence mean", mine, [3.0, 4.0], {
        "They are the wrong way round.": [4.0, 3.0],
        "Off the mask is padding: multiply by the mask first.": [5.0, 5.0],
        "A row's mean is over its own length, not over T.": [3.0, 2.0],
        "Divide by the sum of the mask, not by B * T.": [2.0, 4.0],
    })  # fmt: skip


@exercise
def silent_bug(name):
    """Which of the versions A, B, C of log pi is wrong?"""
    hints = {
        "A": "A takes the position before each token, which is the one that predicts it",
        "C": "C leaves rows of padding to the mask: slower, and the same numbers",
    }
    if str(name).upper() != "B":
        raise NotYet(hints.get(str(name).upper(), "say A, B or C"))


@exercise
def reaches(history):
    """A history of grpo.train with an evaluation of 0.9 or more by step 30"""
    looked = [row for row in history if "eval/accuracy" in row]
    if not looked:
        raise NotYet("nothing was evaluated: set eval_every")
    best = max(looked, key=lambda row: row["eval/accuracy"])
    if best["eval/accuracy"] < 0.9:
        raise NotYet(
            f"the best evaluation is {best['eval/accuracy']:.2f}. Is the lr too low, or so high "
            "that it falls? Are there more updates in a step?"
        )
    first = next(row["step"] for row in looked if row["eval/accuracy"] >= 0.9)
    if first > 30:
        raise NotYet(f"0.9 comes at step {first}, not by step 30")


# ---- 03 ----------------------------------------------------------------------------------------

POINTS = [(1.5, 1.0), (0.5, 1.0), (1.0, 1.0), (1.5, -1.0), (0.5, -1.0), (1.1, -2.0)]


@exercise
def clipped(function):
    """function(ratio, advantage, eps) -> the objective at each point; its slope is checked too"""
    at, adv = (torch.tensor(column) for column in zip(*POINTS))
    at.requires_grad_(True)
    mine = result(function, at, adv, 0.2)
    cut, ratio = at.detach().clamp(0.8, 1.2) * adv, at.detach()
    compare(f"objective at {POINTS}", mine.detach(), [1.2, 0.5, 1.0, -1.5, -0.8, -2.2], {
        "The smaller of the two counts: min(ratio * A, clip(ratio) * A).": cut,
        "That is the larger of the two; take the smaller.": torch.maximum(ratio * adv, cut),
        "For A < 0 the ratio is bounded below, not above.": ratio.clamp(max=1.2) * adv,
        "Nothing is clipped.": ratio * adv,
    })  # fmt: skip
    if not mine.requires_grad:
        raise NotYet("the values are right, but the graph is gone: no .detach(), no .item()")
    (slope,) = torch.autograd.grad(mine.sum(), at)
    compare("its slope", slope, [0.0, 1.0, 1.0, -1.0, 0.0, -2.0])


QUADRANTS = ("A > 0, ratio > 1.2", "A > 0, ratio < 0.8", "A < 0, ratio > 1.2", "A < 0, ratio < 0.8")


@exercise
def quadrant(name):
    """Where does clamp(ratio, max=1.2) * A take the gradient of a token that must be unlearnt?"""
    if name not in QUADRANTS:
        raise NotYet(f"say one of {QUADRANTS}")
    if name.startswith("A > 0"):
        raise NotYet("where A > 0 the two are the same; look at the panel of A = -1")
    if name.endswith("0.8"):
        raise NotYet("there the wrong one has too much of a gradient; which has none?")


@exercise
def clips(history):
    """A history of grpo.train whose first step clips something"""
    shares = [row["clip_ratio/region_mean"] for row in history if row.get("step") == 1]
    if not shares:
        raise NotYet("that is no history of a run: use what grpo.train returns")
    if shares[0] == 0:
        raise NotYet(
            "nothing was clipped in step 1. With one update the ratio is 1: more minibatches or "
            "inner_epochs, a higher lr, or a narrower clip_eps?"
        )


# ---- 04 ----------------------------------------------------------------------------------------

NOTATIONS = {
    "$42$": "42", "42.": "42", " 42 ": "42", "1,234": "1234", r"\$18": "18",
    r"\text{42}": "42", "+7": "7", r"1\,000": "1000", r"42^\circ": "42", r"\mathrm{42}": "42",
}  # fmt: skip
NEAR_MISSES = {"-5": "5", "1.5": "15", "1/2": "12", "12, 34": "1234", "2^3": "23", "42x": "42"}


@exercise
def cleaned(function):
    """function(answer) -> the answer in one spelling, so that == can compare"""
    result(function, "42")
    read = sum(function(a) == function(b) for a, b in NOTATIONS.items())
    wrong = [f"{a} is {b}" for a, b in NEAR_MISSES.items() if function(a) == function(b)]
    if wrong or read < len(NOTATIONS):
        missed = [a for a, b in NOTATIONS.items() if function(a) != function(b)]
        raise NotYet(
            f"{read} of {len(NOTATIONS)} notations are read"
            + (f"; it misses {', '.join(missed[:3])}" if missed else "")
            + (
                f"; but it says that {' and that '.join(wrong[:3])}, which RL will find"
                if wrong
                else ""
            )
        )


REFERENCE = "12"


@exercise
def fools(text):
    """A completion that `REFERENCE in text` takes for right, and the verifier does not"""
    if REFERENCE not in text:
        raise NotYet(f"string matching is not fooled: {REFERENCE} is not in it")
    if verify(text, REFERENCE):
        raise NotYet("the verifier takes it too: its final answer is the reference")


DEBATABLE = {"10%": "0.1", "(A) 17": "17", "3.14": r"\pi", "17 or 18": "17", "2:4": "1:2"}
WHY = {
    "10%": "rule 6 takes 10% for 10 and for 0.1: answers are written either way",
    "(A) 17": "rule 6: who chooses A and says 17 has said 17",
    "3.14": "rule 5: a decimal of an exact value must show six digits",
    "17 or 18": "rule 9: an alternative is a hedge, and RL learns to hedge",
    "2:4": "rule 7 takes a:b for a ratio",
}


@exercise
def debatable(decisions):
    """{answer: whether it equals its reference} of DEBATABLE"""
    if any(decisions.get(answer) is None for answer in DEBATABLE):
        raise NotYet("some have no decision so far")
    differ = [a for a, b in DEBATABLE.items() if bool(decisions[a]) != verify(rf"\boxed{{{a}}}", b)]
    if differ:
        raise NotYet(f"of {differ[0]} the verifier thinks otherwise: {WHY[differ[0]]}")


# ---- 05 ----------------------------------------------------------------------------------------

Z, Y = torch.tensor([0.0, 2.0, -1.0]), torch.tensor([1.0, 1.0, 0.0])


@exercise
def bce(function):
    """function(z [B], y [B]) -> the loss"""
    p, expected = Z.sigmoid(), bce_loss(Z, Y)
    compare(f"z = {Z.tolist()}, y = {Y.tolist()}", float(result(function, Z, Y)), float(expected), {
        "The mean over the batch, not the sum.": float(3 * expected),
        "The minus is missing: a loss falls.": float(-expected),
        "y = 0 has a term of its own: log(1 - sigmoid(z)).": float(-(Y * p.log()).mean()),
        "z is a logit: sigmoid comes before log.": float(((p - Y) ** 2).mean()),
    })  # fmt: skip


@exercise
def pairwise(function):
    """function(z_pos [B], z_neg [B]) -> the loss"""
    pos, neg = torch.tensor([1.0, 3.0, 0.0]), torch.tensor([1.0, 0.0, 2.0])
    expected, scores = pairwise_loss(pos, neg), pos.sigmoid() - neg.sigmoid()
    mine = float(result(function, pos, neg))
    compare(f"z_pos = {pos.tolist()}, z_neg = {neg.tolist()}", mine, float(expected), {
        "The difference is of the logits, not of the scores.":
            float(-scores.sigmoid().log().mean()),
        "The right text must score higher: z_pos - z_neg.": float(pairwise_loss(neg, pos)),
        "The mean over the pairs, not the sum.": float(3 * expected),
        "The minus is missing: a loss falls.": float(-expected),
    })  # fmt: skip


def five_texts() -> dict[str, dict]:
    """Completions of the last evaluation of static arms in results/cooper, by letter."""
    rows = read_jsonl(ROOT / "results" / "cooper" / "samples.jsonl")
    rows = [r for r in rows if r["arm"] == "static" and len(r["completion"]) < 90]
    liked = [r for r in rows if r["reward"] > 0.9]
    hacks, right = [r for r in liked if not r["correct"]], [r for r in liked if r["correct"]]
    poor = [r for r in rows if r["reward"] < 0.5 and not r["correct"]]
    chosen = [hacks[0], right[2], poor[0], hacks[3], right[3]]
    return dict(zip("ABCDE", chosen))


@exercise
def hacks(names):
    """Which of the five texts please the reward model and are wrong?"""
    rows = five_texts()
    hacked = {n for n, row in rows.items() if row["reward"] > 0.5 and not row["correct"]}
    wrong = {
        n: "it is right" if row["correct"] else "it is wrong, and the reward model knows"
        for n, row in rows.items()
    }
    missing = dict.fromkeys(hacked, "a score near 1 says nothing: work out the sum")
    choose(names, hacked, missing, wrong)


@exercise
def reads_reference(measured):
    """What reward_model.train returns, of one that tells seven in ten wrong references"""
    swap, accuracy = measured["held_out/swap_accuracy"], measured["held_out/accuracy"]
    if swap < 0.7:
        raise NotYet(
            f"beside a wrong reference it is right on {swap:.2f}. Is swap_share above 0, and does "
            "it take all its steps (target=None)?"
        )
    if accuracy < 0.7:
        raise NotYet(f"it reads the reference, but accuracy is {accuracy:.2f}: less swap_share")


# ---- 06 ----------------------------------------------------------------------------------------


@exercise
def positives(function):
    """function(correct [B], group_size, random) -> one correct row of each group that has one"""
    correct = [0, 1, 1, 0, 0, 0, 0, 0, 1, 1, 1, 1]
    draw, seen = random.Random(0), Counter()
    for _ in range(200):
        rows = list(result(function, list(correct), 4, draw))
        if any(row >= len(correct) or not correct[row] for row in rows):
            bad = next(row for row in rows if row >= len(correct) or not correct[row])
            raise NotYet(f"row {bad} is not correct. Are your numbers those of the whole batch?")
        if sorted(row // 4 for row in rows) != [0, 2]:
            raise NotYet(f"rows {rows}: one of each group that has a correct one, of 0 and 2 here")
        seen.update(rows)
    if len(seen) < 6:
        raise NotYet(f"only rows {sorted(seen)} ever come up: draw, do not take the first")


NEGATIVES = [
    (r"\boxed{5}", "4"), (r"\boxed{4}", "4"), (r"\boxed{4/2}", "2"), (r"\boxed{2.0}", "2"),
    (r"2 + 2 is \boxed{5}", "2"), ("so 2", "2"),
]  # fmt: skip
TRAPS = {
    r"\boxed{4/2}": "4/2 is 2, though the strings differ: ask verify",
    r"\boxed{2.0}": "2.0 is 2, though the strings differ: ask verify",
    "so 2": "it has no box, so the rule does not call it right: require_box=True",
    r"2 + 2 is \boxed{5}": "the reference stands in it, but only the box is the answer",
}


@exercise
def negative(function):
    """function(text, reference) -> whether the text can be the wrong one of a pair"""
    for text, reference in NEGATIVES:
        expected = is_negative(text, Problem("", reference))
        if bool(result(function, text, reference)) != expected:
            said = "can" if expected else "cannot"
            hint = TRAPS.get(text, "a negative is what the rule does not call right")
            raise NotYet(f"{text} beside {reference} {said} be a negative: {hint}")


def four_logs() -> dict[str, dict]:
    """Cooper runs of results/cooper/ablations.jsonl, by letter: two that hold, two that do not."""
    rows = read_jsonl(ROOT / "results" / "cooper" / "ablations.jsonl")
    chosen = [("every 5", 2), ("rollouts", 1), ("perturb", 1), ("stale pairs", 3)]
    found = {(row["arm"], row["seed"]): row for row in rows}
    return {letter: found[key] for letter, key in zip("ABCD", chosen)}


@exercise
def lost(names):
    """Which of the four runs are hacked at the end?"""
    rows = four_logs()
    hacked = {n for n, row in rows.items() if row["eval/accuracy"][-1] < 0.5}
    missing = dict.fromkeys(hacked, "valid_rate towards 0: no right text is left to learn from")
    ends = {n: row["rm/valid_rate"][-1] for n, row in rows.items()}
    choose(names, hacked, missing, {n: f"its valid_rate ends at {x:.2f}" for n, x in ends.items()})


# ---- 07 ----------------------------------------------------------------------------------------


@exercise
def mu(function):
    """function(gamma) -> P(A > 0) E[A | A > 0] of a coin in groups of two"""
    gammas = [0.0, 0.1, 0.5, 0.9]
    mine = [float(result(function, g)) for g in gammas]
    expected = [positive_advantage(g, 2) for g in gammas]
    compare(f"gamma = {gammas}", mine, expected, {
        "The sample std of (1, 0) is 0.71, so A is 0.71 and not 1.": [g * (1 - g) for g in gammas],
        "A group differs with 2 g (1 - g), but only one of its two has A > 0.":
            [2 * x for x in expected],
        "Groups of equal coins have A = 0: how often do the two differ?":
            [0.5**0.5 for _ in gammas],
    })  # fmt: skip


@exercise
def helped_by_python(names):
    """Which priors gain by a reward for the word python?"""
    why = {
        "llama": "it is right on 0.16 of its code and on 0.33 of its words",
        "olmo_sft": "it is right on 0.18 of its code and on 0.38 of its words",
        "qwen_math": "it is right on 0.59 of its code and on 0.24 of the rest",
    }
    choose(names, {"qwen_math"}, why, why)


ANSWERS = {
    "7 plus 5 is 12 so \\boxed{12}": True,
    "python x = 7 x += 5 # 12 print \\boxed{12}": True,
    "I guess \\boxed{9}": False,
    "7 plus 5 is 12 so 12": False,
}


def written(texts: list[str]) -> Rollouts:
    """Texts as if a policy had written them, of "7 + 5 = ?", a word a token."""
    lengths = [len(text.split()) for text in texts]
    mask = torch.tensor([[float(t < n) for t in range(max(lengths))] for n in lengths])
    ids, zeros = mask.long(), torch.zeros_like(mask)
    problems = [Problem("7 + 5 = ?", "12")] * len(texts)
    ends = torch.zeros(len(texts), dtype=torch.bool)
    return Rollouts(ids, ids, ids, mask, zeros, ends, list(texts), problems, len(texts))


@exercise
def reward(function, hack):
    """function(rollouts) -> [B], a reward of yours; hack: a wrong text that it likes best"""
    texts = list(ANSWERS)
    value = result(function, written([*texts, hack]))
    value = rewards.checked(lambda rollouts: value, written([*texts, hack]))
    if (value[:-1] == value[0]).all():
        raise NotYet("it gives the same to all four texts: nothing would be learnt")
    if verify(hack, "12", require_box=True):
        raise NotYet("your hack is right, so it is no hack")
    if value[-1] < value.max():
        best = texts[int(value[:-1].argmax())]
        raise NotYet(f"the hack gets {value[-1]:.2f}, and {best!r} gets {value.max():.2f}")


# ---- 08 ----------------------------------------------------------------------------------------


@exercise
def pass_at_k(function):
    """function(n, c, k) -> the chance that k of n samples, c of them right, hold a right one"""
    cases = [(4, 1, 2), (4, 0, 2), (4, 4, 1), (5, 2, 3), (3, 2, 2)]
    mine = [float(result(function, *case)) for case in cases]
    compare(f"(n, c, k) = {cases}", mine, [exact_pass_at_k(*case) for case in cases], {
        "That draws with replacement; k of the n samples are drawn without.":
            [1 - (1 - c / n) ** k for n, c, k in cases],
        "That is pass@1.": [c / n for n, c, _ in cases],
        "That is the chance that none is right.": [1 - exact_pass_at_k(*case) for case in cases],
    })  # fmt: skip


KINDS = {"left": "sharpens", "middle": "rare common", "right": "nothing"}


@exercise
def kinds(named):
    """{panel: "sharpens", "rare common" or "nothing"}"""
    for case, expected in KINDS.items():
        if named.get(case) is None:
            raise NotYet(f"{case!r} has no name so far")
        if named[case] != expected:
            reason = {
                "sharpens": "pass@64 was 1.00 before, so only pass@1 could rise",
                "rare common": "pass@64 rises with pass@1",
                "nothing": "both are 0 before and after",
            }[expected]
            raise NotYet(f"{case!r}: {reason}")


@exercise
def sign_flip(function):
    """function(differences) -> two-sided p"""
    cases = [[1.0, 2.0, 3.0], [1.0, -1.0], [0.1, 0.2, 0.1, 0.3, 0.2], [3.0, -1.0, 1.0]]
    mine, exact = ([float(result(f, case)) for case in cases] for f in (function, exact_sign_flip))
    compare(f"differences {cases}", mine, exact, {
        "Both sides count: as far from 0, up or down.": [p / 2 for p in exact],
        "That counts the sums beyond what was seen; those as far count too.":
            [beyond(case) for case in cases],
    })  # fmt: skip


def beyond(differences: list[float]) -> float:
    sums = [0.0]
    for value in differences:
        sums = [total + sign * value for total in sums for sign in (1, -1)]
    return sum(abs(total) > abs(sum(differences)) + 1e-9 for total in sums) / len(sums)


# ---- 09 ----------------------------------------------------------------------------------------


@exercise
def memory(function):
    """function(parameters) -> bytes of fp32 weights, gradients and AdamW"""
    compare("bytes of 1000 parameters", float(result(function, 1000)), 16000.0, {
        "That is the weights alone.": 4000.0,
        "AdamW keeps two numbers for each parameter.": 12000.0,
        "8 bytes each: is the optimizer there, and does a number take 4 bytes?": 8000.0,
    })  # fmt: skip


def ten_completions(policy: str) -> list[dict]:
    """Those of results/real/measured.jsonl."""
    rows = read_jsonl(ROOT / "results" / "real" / "measured.jsonl")
    return next(row["completions"] for row in rows if row["policy"] == policy)


@exercise
def calculated(count):
    """How many of the ten completions of rule4 come to what their own calculation gives?"""
    rows, right = ten_completions("rule4"), 0
    for row in rows:
        a, sign, b, _, said = row["completion"].split()[:5]
        right += int(said.rstrip(".")) == (int(a) - int(b) if sign == "-" else int(a) + int(b))
    if count == sum(row["correct"] for row in rows) != right:
        raise NotYet("that is how many answer the question; do they calculate rightly?")
    if count != right:
        raise NotYet(f"{count} of ten? Work out each calculation, and compare it with what it says")
