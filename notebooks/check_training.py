"""The exercises of notebooks 1 to 4: the gradient, the loop, clipping, the verifier."""

import torch

import grpo
from notebooks.exercise import NotYet, choose, compare, exercise, result
from verifier import verify

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
