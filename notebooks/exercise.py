"""What a check is made of: check.py has the checks.

A check raises NotYet with a hint; `exercise` makes of it a function that never raises.
"""

import functools

import torch


class NotYet(Exception):
    """What is wrong, in one sentence that helps."""


class Verdict(str):
    __repr__ = str.__str__


def exercise(check):
    """check(*answer), which raises NotYet, as a function that returns a Verdict."""

    @functools.wraps(check)
    def never_raises(*answer) -> Verdict:
        try:
            if any(part is None or part is ... for part in answer):
                raise NotYet("there is no answer so far")
            check(*answer)
        except NotYet as hint:
            return Verdict(f"not yet: {hint}")
        except Exception as error:
            return Verdict(f"not yet: {type(error).__name__}: {error}")
        return Verdict("right")

    return never_raises


def result(function, *inputs):
    """What the reader's function returns."""
    if (found := function(*inputs)) is None:
        raise NotYet("it returns nothing so far")
    return found


def short(value) -> str:
    if isinstance(value, torch.Tensor):
        value = value.tolist()
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(short, value)) + "]"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def same(one, other) -> bool:
    one, other = (torch.as_tensor(x, dtype=torch.float64) for x in (one, other))
    return one.shape == other.shape and torch.allclose(one, other, atol=1e-4, equal_nan=True)


def compare(what: str, mine, expected, mistakes: dict | None = None) -> None:
    """mistakes: {hint: what one gets by that mistake}."""
    if same(mine, expected):
        return
    hints = [hint for hint, wrong in (mistakes or {}).items() if same(mine, wrong)]
    said = f"{what}: yours {short(mine)}, expected {short(expected)}."
    raise NotYet(" ".join([said, *hints[:1]]))


def choose(mine, expected: set, missing: dict, wrong: dict) -> None:
    """A set of names; missing and wrong: {name: why it belongs there, why it does not}."""
    mine = set(mine)
    for name in sorted(mine - expected):
        raise NotYet(f"{name} does not belong there: {wrong.get(name, 'look at it again')}")
    for name in sorted(expected - mine):
        raise NotYet(f"one is missing: {missing.get(name, 'look at all of them again')}")
