r"""What a tree is, and the questions one asks of it.

A tree is a tuple (head, *parts): 2x is ("*", ("num", "2"), ("sym", "x")). The heads are

    of numbers    num sym + * / neg ^ ± % ° ! \mod binom abs floor ceil root ln exp sin ... max det
                  run (ABC)  call (f(x))
    of answers    word (Tuesday)  based (52_8)  unit (5 cm^2)  rel (a < x <= b)  : (2:3)
                  list (1, 2)  or (1 or 2)  set ({1, 2})  () (] [) [] (tuples, intervals)  ∪

A relation keeps its signs in one string: a < x ≤ b is ("rel", "<≤", a, x, b). A matrix is a tuple
of tuples. Letters of a run, and the f of a call, do not commute: BAC, f(g(x)).
"""

from functools import lru_cache

INFINITY = ("sym", "infty")


class Unreadable(ValueError):
    """The text is outside the grammar, or a number outside the limits."""


def require(condition, otherwise: str) -> None:
    if not condition:
        raise Unreadable(otherwise)


def subtrees(tree) -> list:
    """The parts that are trees themselves; the others are strings: a number, a name, signs."""
    return [part for part in tree[1:] if isinstance(part, tuple)]


def contains(tree, head: str) -> bool:
    """Whether a head occurs anywhere in a tree."""
    return tree[0] == head or any(contains(part, head) for part in subtrees(tree))


@lru_cache(maxsize=4096)
def symbols(tree) -> frozenset[str]:
    """The names in a tree, constants left out."""
    if tree[0] == "sym":
        return frozenset({tree[1]} - {"pi", "e", "i"})
    return frozenset().union(*map(symbols, subtrees(tree)))


def is_name(tree) -> bool:
    r"""x, x_1, AB, f(2), (p, q), V_1:V_2, \text{Maximum}: what an equation can define."""
    if tree[0] in ("*", "run", "()", ":"):
        return all(map(is_name, tree[1:]))
    # f^{-1}(x) is the inverse of f
    return tree[0] in ("sym", "word", "call") or tree[:2] == ("^", ("sym", "f"))
