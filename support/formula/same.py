r"""Whether two answers are the same: their trees are compared part by part, numbers by agree.py."""

import re

from support.formula.agree import TURN, proportional, same_number
from support.formula.parse import read
from support.formula.tokens import tokenize
from support.formula.tree import INFINITY, Unreadable, contains, is_name, symbols
from support.formula.value import WORK, arithmetic

# 5m is five metres, 5 s five seconds, where the reference holds no symbol
LETTER_UNIT = re.compile(r"(?<=\d)\s*([msghLNJWVK])(?![A-Za-z])")
# (A) 17, A. 17, \textbf{(A)}\ 17, but not "A. B" and "(A) is wrong"
CHOICE = re.compile(
    r"(?:\\\w+\{)?\(?([A-Ja-e])[).:]\}?(?:\s|\\ )+(?=\S)"
    r"(?!\(?[A-J]\W*$|(?i:is|was|not|or|and|maybe)\b)"
)


def is_formula(text: str) -> bool:
    """Whether all of a text is one formula (or a list of them), without words.

    >>> is_formula("x^2 + 1"), is_formula("x is 5")
    (True, False)
    """
    tree = read(text)
    return tree is not None and not contains(tree, "word")


def readings(answer: str, wanted) -> list[str]:
    """The ways to read an answer: as it stands, with its letters as units, as one choice of many.

    >>> readings("5m", read("5")), readings("(A) 17", read("17"))
    (['5m', '5\\\\text{m}'], ['(A) 17', '(A) 17', 'A', '17'])
    """
    ways = [answer]
    if not symbols(wanted):
        ways.append(LETTER_UNIT.sub(r"\\text{\1}", answer))
    if label := CHOICE.match(answer):
        ways += [label[1], answer[label.end() :]]
    return ways


def same_answer(answer: str, reference: str) -> bool:
    r"""Whether two texts are the same answer: the same tokens, or trees that are the same.

    >>> same_answer("x < 2", r"(-\infty, 2)"), same_answer("x < 2", "x > 2")
    (True, False)
    """
    given, wanted = tokenize(answer), tokenize(reference)
    if not "".join(wanted).strip("{}"):
        # an empty reference never pays
        return False
    if given == wanted:
        return True
    tree = read(reference)
    if tree is None:
        return False
    arithmetic().work = WORK
    try:
        trees = map(read, readings(answer, tree))
        return any(same(other, tree) for other in trees if other)
    except (Unreadable, RecursionError):
        return False


def same(a, b) -> bool:
    """Whether two trees are the same answer."""
    arithmetic().spend(2)
    if "unit" in (a[0], b[0]):
        # cm^2 is not cm^3, but may be left out
        agree = a[0] != b[0] or a[2:] == b[2:]
        return agree and same(*(tree[1] if tree[0] == "unit" else tree for tree in (a, b)))
    if a[0] == b[0] == "rel" and proportional(a, b):
        return True
    a, b = region(a), region(b)
    if "rel" in (a[0], b[0]):
        if defines(a) and defines(b) and a[2] != b[2]:
            # x_1 = 5 is not x_2 = 5
            return False
        x, y = solution(a), solution(b)
        return x is not None and y is not None and same(x, y)
    if (a[0] == "∪") != (b[0] == "∪"):
        return False
    xs, ys = members(a), members(b)
    if {a[0], b[0]} & {"set", "or"}:
        # {1, 2, 1} is {1, 2}, and "1/2 or 2/4" is one value
        return covers(xs, ys) and covers(ys, xs)
    if not len(xs) == len(ys) == 1:
        return pair_off(xs, ys)
    return same_single(xs[0], ys[0])


def same_single(a, b) -> bool:
    """Whether two trees that list nothing are the same: tuples, intervals, words, numbers."""
    if a[0][0] in "([" and b[0][0] in "([":
        # [1, 2] may be an interval, so its brackets count; those of a triple or a matrix do not
        pair = len(a) == 3 and a[1][0][0] not in "(["
        return (a[0] == b[0] or not pair) and len(a) == len(b) and all(map(same, a[1:], b[1:]))
    if a[0] in ("word", "based") or INFINITY in (a, b):
        return a == b
    return same_number(a, b)


# ---- equations and inequalities ----------------------------------------------------------------


def defines(tree) -> bool:
    """x = 5, f(x) = 2x = x + x, x in (0, 1), Maximum: 5."""
    return tree[0] == "rel" and set(tree[1]) == {"="} and is_name(tree[2])


def solution(tree):
    """What an equation comes to: 5 in x = 5 and in 2 + 3 = 5; nothing in 2 = 3 and x + 2 = 5."""
    if tree[0] != "rel":
        return tree
    holds = set(tree[1]) == {"="} and all(same(side, tree[-1]) for side in tree[2:-1])
    return tree[-1] if defines(tree) or holds else None


def region(tree):
    """The interval of a solved inequality, the union of several joined by 'or'; else the tree.

    >>> region(read("x <= 2 or x > 3")) == region(read("2 >= x or 3 < x"))
    True
    """
    if tree[0] == "or" and all(part[0] == "rel" and "=" not in part[1] for part in tree[1:]):
        return ("∪", *map(region, tree[1:]))
    if tree[0] != "rel" or "=" in tree[1] or len(tree) > 5:
        return tree
    signs, sides = tree[1], tree[2:]
    if signs[0] in ">≥":
        # 3 > x ≥ 1 is 1 ≤ x < 3
        signs, sides = signs[::-1].translate(TURN), sides[::-1]
    if len(sides) == 2:
        # x < 3 is -infinity < x < 3, and 3 < x is 3 < x < infinity
        if is_name(sides[0]):
            signs, sides = "<" + signs, (("neg", INFINITY), *sides)
        else:
            signs, sides = signs + "<", (*sides, INFINITY)
    low, name, high = sides
    if "≠" in signs or not is_name(name) or symbols(name) & (symbols(low) | symbols(high)):
        return tree
    opening = "[" if signs[0] == "≤" else "("
    closing = "]" if signs[1] == "≤" else ")"
    return (opening + closing, low, high)


# ---- lists and sets ----------------------------------------------------------------------------


def members(tree) -> list:
    """What an answer lists; of a formula with ± both values (all its signs go together)."""
    if tree[0] in ("list", "or", "set", "∪"):
        return [member for item in tree[1:] for member in members(item)]
    return [choose(tree, sign) for sign in "+-"] if contains(tree, "±") else [tree]


def choose(tree, sign: str):
    """The tree with one sign for every ±."""
    if tree[0] == "±":
        return tree[1] if sign == "+" else ("neg", tree[1])
    return tuple(choose(part, sign) if isinstance(part, tuple) else part for part in tree)


def pair_off(xs: list, ys: list) -> bool:
    """Whether the members are the same in some order."""
    left = list(ys)
    # first those that are written alike, so that no other takes their partner away
    others = []
    for x in xs:
        if x in left:
            left.remove(x)
        else:
            others.append(x)
    for x in others:
        partner = next((y for y in left if same(x, y)), None)
        if partner is None:
            return False
        left.remove(partner)
    return not left


def covers(xs: list, ys: list) -> bool:
    """Whether every y is among the xs, as in sets: {1, 2, 1} is {1, 2}."""
    return all(any(same(x, y) for x in xs) for y in ys)
