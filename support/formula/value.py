r"""The number that a tree stands for, by mpmath (the arithmetic below sympy), at 200 digits.

Unlike `sympy.simplify` this takes a time that can be bounded, and it tells formulas apart as well
as together. Every operation asks first whether its result would be too large: 9^9^9^9 ends in
Unreadable, not in a full memory.
"""

import threading
import zlib
from functools import cache

from support.formula.tokens import ARC, TRIG
from support.formula.tree import require

# decimal digits of all arithmetic; the last 20 are left to rounding
DIGITS = 200
# the largest binary logarithm: numbers end at about 10^30000
LOG2 = 100_000
# the largest argument of a factorial, an exponential or a sine
ARGUMENT = 3_000
# steps of one comparison, at about ten microseconds each
WORK = 10_000
# where only rounding may be left instead of 0: a - b, ln 1, sin pi
CANCELLING = {"+", "ln", *TRIG, *ARC.values()}


class Arithmetic(threading.local):
    """mpmath for one thread (its global precision is shared by all), and the work left."""

    def __init__(self):
        # loaded only when exact numbers and equal strings do not decide
        import mpmath

        self.mp = mp = mpmath.MPContext()
        mp.dps, self.work, self.noise = DIGITS, 0, mp.mpf(10) ** (20 - DIGITS)
        self.constants = {"pi": +mp.pi, "e": +mp.e, "i": mp.mpc(0, 1)}
        self.limited = {
            "!": mp.factorial,
            "binom": mp.binomial,
            "exp": mp.exp,
            **{name: getattr(mp, name) for name in {*TRIG, *ARC.values()}},
        }
        self.operations = {
            **self.limited,
            "+": self.sum,
            "neg": lambda x: -x,
            "*": lambda *xs: mp.fprod(xs),
            "/": lambda x, y: x / y,
            ":": lambda x, y: x / y,
            "^": self.power,
            "root": self.root,
            "ln": mp.log,
            "abs": abs,
            "%": lambda x: x / 100,
            "°": lambda x: x,
            "max": lambda *xs: max(xs),
            "min": lambda *xs: min(xs),
            "floor": lambda x: mp.floor(x + self.noise),
            "ceil": lambda x: mp.ceil(x - self.noise),
        }

    def spend(self, steps: int) -> None:
        self.work -= steps
        require(self.work >= 0, "too much work")

    def sum(self, *xs):
        """A sum in which no term gets lost: 10^400 + 1 would be 10^400."""
        sizes = [abs(x) for x in xs if x] or [0]
        require(min(sizes) >= self.noise * max(sizes), "10^400 + 1 needs more digits")
        return self.mp.fsum(xs)

    def power(self, x, y):
        require(not x or abs(y) * (abs(self.mp.mag(x)) + 1) <= LOG2, "power too large")
        return x**y

    def root(self, x, n):
        """The real cube root of -8 is -2; every other root is the principal one."""
        odd = n in range(3, 1000, 2) and self.is_real(x) and x < 0
        return -self.power(-x, 1 / n) if odd else self.power(x, 1 / n)

    def symbol(self, name: str, point: int):
        """A constant, or a number that depends on nothing but the name and the point."""
        if name in self.constants:
            return self.constants[name]
        noise = zlib.crc32(f"{name}/{point}".encode())
        part = self.mp.mpf(noise % 1009 + 1) / 1013
        # in turn from 1 to 3, negative, an integer (for n! and floors), and from 0 to 1
        return (1 + 2 * part, -2 * part, self.mp.mpf(noise % 23 + 2), part)[point % 4]

    def value(self, tree, point: int = 0):
        """The number a tree stands for at a point, or None if it stands for none."""
        try:
            return self.evaluate(tree, point)
        except (ArithmeticError, ValueError, TypeError, KeyError, RecursionError):
            return None

    def evaluate(self, tree, point: int):
        head, *parts = tree
        self.spend(1 if head in ("num", "+", "*", "neg", "/") else 20)
        if head == "num":
            require(len(parts[0].strip("0.")) <= DIGITS - 20, "too many digits")
            # mpf cannot read ".0"
            return self.mp.mpf("0" + parts[0])
        if head == "sym":
            return self.symbol(parts[0], point)
        # 90° is 90, but its sine is that of pi/2
        if head in TRIG and parts[0][0] == "°":
            parts = [("*", parts[0], ("/", ("sym", "pi"), ("num", "180")))]
        args = [self.evaluate(part, point) for part in parts]
        largest = max(map(abs, args))
        require(largest <= ARGUMENT or head not in self.limited, "argument too large")
        x = self.operations[head](*args)
        require(self.mp.isfinite(x) and (not x or abs(self.mp.mag(x)) <= LOG2), "number too large")
        only_rounding = head in CANCELLING and abs(x) <= self.noise * largest
        return self.mp.zero if only_rounding else x

    def is_real(self, x) -> bool:
        return isinstance(x, self.mp.mpf)

    def equal(self, x, y) -> bool:
        return abs(x - y) <= self.noise * max(abs(x), abs(y))


@cache
def arithmetic() -> Arithmetic:
    return Arithmetic()
