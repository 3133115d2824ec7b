r"""What a tree is, and the questions one asks of it.

A tree is a tuple (head, *parts): 2x is ("*", ("num", "2"), ("sym", "x")). The heads are

    of numbers    num sym + * / neg ^ ± % ° ! binom abs floor ceil root ln exp sin ... max min
    of answers    word (Tuesday)  based (52_8)  unit (5 cm^2)  rel (a < x <= b)  : (2:3)
                  list (1, 2)  or (1 or 2)  set ({1, 2})  () (] [) [] (tuples, intervals)  ∪

A relation keeps its signs in one string: a < x ≤ b is ("rel", "<≤", a, x, b). A matrix is a tuple
of tuples.
"""

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


def symbols(tree) -> set[str]:
    """The names in a tree, constants left out."""
    if tree[0] == "sym":
        return {tree[1]} - {"pi", "e", "i"}
    return set().union(*map(symbols, subtrees(tree)))


def is_name(tree) -> bool:
    r"""x, x_1, AB, f(x), (p, q), V_1:V_2, \text{Maximum}: what an equation can define."""
    return tree[0] in ("sym", "word") or tree[0] in ("*", "()", ":") and all(map(is_name, tree[1:]))
