r"""The number that a tree stands for, by mpmath (the arithmetic below sympy), at 200 digits.

Unlike `sympy.simplify` this takes a time that can be bounded, and it tells formulas apart as well
as together. Every operation asks first whether its result would be too large: 9^9^9^9 ends in
Unreadable, not in a full memory.
"""

import math
import threading
import zlib
from functools import cache
from itertools import groupby

from support.formula.tokens import ARC, TRIG
from support.formula.tree import require

# decimal digits of all arithmetic; the last 20 are left to rounding
DIGITS = 200
# the largest binary logarithm: numbers end at about 10^30000
LOG2 = 100_000
# the largest argument of a factorial, an exponential or a sine
ARGUMENT = 3_000
# steps of one comparison, at about five microseconds each; what takes more or fewer than ten
WORK = 6_000
STEPS = {"num": 1, "+": 1, "*": 1, "neg": 1, "/": 1, "sym": 3, "!": 100, "binom": 60}
# numbers that are kept for the next comparisons
CACHE = 3_000
# where only rounding may be left instead of 0: a - b, ln 1, sin pi
CANCELLING = {"+", r"\mod", "ln", *TRIG, *ARC.values()}


class Arithmetic(threading.local):
    """mpmath for one thread (its global precision is shared by all), and the work left."""

    def __init__(self):
        # loaded only when exact numbers and equal strings do not decide
        import mpmath

        self.mp = mp = mpmath.MPContext()
        mp.dps, self.noise = DIGITS, mp.mpf(10) ** (20 - DIGITS)
        # what was evaluated before, and in this comparison
        self.known, self.paid, self.work = {}, set(), 0
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
            r"\mod": lambda x, y: x - y * mp.floor(x / y + self.noise),
            "gcd": lambda *xs: mp.mpf(math.gcd(*map(self.integer, xs))),
            "lcm": lambda *xs: mp.mpf(math.lcm(*map(self.integer, xs))),
            "run": lambda *xs: mp.fprod(xs),
            # a function that nobody knows: some number that depends on what it is applied to
            "call": lambda *xs: self.symbol(" ".join(mp.nstr(x, 80) for x in xs), 0),
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

    def begin(self) -> None:
        """A new comparison."""
        self.work = WORK
        self.paid.clear()
        if len(self.known) > CACHE:
            self.known.clear()

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
        odd = self.mp.isint(n) and n % 2 == 1 < n and self.is_real(x) and x < 0
        return -self.power(-x, 1 / n) if odd else self.power(x, 1 / n)

    def integer(self, x) -> int:
        require(self.mp.isint(x), "not an integer")
        return int(x)

    def determinant(self, rows: list):
        """By the first row; entries are numbers."""
        if len(rows) == 1:
            return rows[0][0]
        minors = [[row[:j] + row[j + 1 :] for row in rows[1:]] for j in range(len(rows))]
        return self.sum(
            *((-1) ** j * x * self.determinant(m) for j, (x, m) in enumerate(zip(rows[0], minors)))
        )

    def symbol(self, name: str, point):
        """A constant, or a number that depends on nothing but the name and the point."""
        if name in self.constants:
            return self.constants[name]
        noise = zlib.crc32(f"{name}/{point}".encode())
        part = self.mp.mpf(noise % 1009 + 1) / 1013
        if isinstance(point, tuple):
            # from half a size to three halves: first all positive, then all negative, then mixed
            number, size = point
            sign = (1, -1, *[(-1) ** (noise // 1009)] * 2)[number]
            return sign * size * (part + 0.5)
        # in turn from 1 to 3, negative, an integer (for n! and floors), and from 0 to 1
        return (1 + 2 * part, -2 * part, self.mp.mpf(noise % 23 + 2), part)[point % 4]

    def value(self, tree, point=0):
        """The number a tree stands for at a point, or None if it stands for none.

        Each number is made once; but every comparison pays for it, so that none depends on others.
        """
        if (tree, point) in self.paid:
            return self.known[tree, point][0]
        if (tree, point) in self.known:
            self.spend(self.known[tree, point][1])
        else:
            before = self.work
            try:
                x = self.evaluate(tree, point)
            except (ArithmeticError, ValueError, TypeError, KeyError, RecursionError):
                x = None
            # no work left is an answer of this comparison, not of the tree
            self.spend(0)
            self.known[tree, point] = x, before - self.work
        self.paid.add((tree, point))
        return self.known[tree, point][0]

    def size(self, tree) -> float:
        """About how large a number is, or those in a tuple together; 0 of what is no number."""
        if tree[0][0] in "([":
            return sum(n * self.size(part) for n, part in enumerate(tree[1:], 1))
        x = self.value(tree, 0)
        return 0.0 if x is None or self.mp.mag(x) > 1000 else float(abs(x))

    def evaluate(self, tree, point):
        head, *parts = tree
        self.spend(STEPS.get(head, 10))
        if head == "num":
            require(len(parts[0].strip("0.")) <= DIGITS - 20, "too many digits")
            # mpf cannot read ".0"
            return self.mp.mpf("0" + parts[0])
        if head == "sym":
            return self.symbol(parts[0], point)
        # 90° is 90, but its sine is that of pi/2
        if head in TRIG and parts[0][0] == "°":
            parts = [("*", parts[0], ("/", ("sym", "pi"), ("num", "180")))]
        if head == "det":
            shape = {(row[0], len(row)) for row in parts}
            require(shape == {("()", len(parts) + 1)} and len(parts) < 5, "no square of numbers")
            return self.determinant([[self.evaluate(x, point) for x in row[1:]] for row in parts])
        args = [self.evaluate(part, point) for part in parts]
        largest = max(map(abs, args))
        require(largest <= ARGUMENT or head not in self.limited, "argument too large")
        x = self.operations[head](*args)
        require(self.mp.isfinite(x) and (not x or abs(self.mp.mag(x)) <= LOG2), "number too large")
        only_rounding = head in CANCELLING and abs(x) <= self.noise * largest
        if order := fixed_order(head, parts):
            # a number of its own for every order
            x *= self.symbol(f"order of {order}", point)
        return self.mp.zero if only_rounding else x

    def is_real(self, x) -> bool:
        return isinstance(x, self.mp.mpf)

    def equal(self, x, y) -> bool:
        return abs(x - y) <= self.noise * max(abs(x), abs(y))


def fixed_order(head: str, factors) -> list[str]:
    """The factors of a product if they may not change places, as in BAC and P^{-1}AP; else [].

    Letters of a run commute only into the order of the alphabet: CB is not BC, which is B times C.
    """
    if head == "^" and factors[0][0] == "run":
        # (AB)^T and (AB)^2
        return [head, *map(str, factors[0])]
    if head not in ("run", "*"):
        return []
    letters = [tree[1] if tree[0] == "^" else tree for tree in factors]
    letters = [tree[1] if tree[0] == "sym" else "" for tree in letters]
    order = [letter for letter, _ in groupby(letters)]
    if head == "run":
        return order if order != sorted(set(order)) else []
    # P before something, and its inverse after it
    inverse = {n for n, t in zip(letters, factors) if n and t[0] == "^" and t[2][0] == "neg"}
    return order if any(order.count(letter) > 1 for letter in inverse) else []


@cache
def arithmetic() -> Arithmetic:
    return Arithmetic()
