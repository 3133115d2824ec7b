"""The exercises of notebooks 5 to 9: reward model, Cooper, spurious rewards, survey, an LLM."""

import random
from collections import Counter
from pathlib import Path

import torch

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
