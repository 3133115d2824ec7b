r"""Whether two answers are the same: their trees are compared part by part, numbers by agree.py."""

import re

from support.formula.agree import TURN, proportional, same_number
from support.formula.parse import read
from support.formula.rewrite import UNIT
from support.formula.tokens import HEDGES, TRIG, tokenize
from support.formula.tree import INFINITY, Unreadable, contains, is_name, symbols
from support.formula.value import arithmetic

# 5m is five metres, 9.8 m/s^2 an acceleration, where the reference holds no symbol; but 5K is 5000
POWER = r"(?:\^\{?-?\d\}?|[²³])?"
BARE_UNIT = re.compile(
    rf"(?<=\d)(?![ACFKT])(?!\s*T)(?:\s|~|\\[,;: ])*"
    rf"({UNIT}{POWER}(?:\s*(?:[/*·]|\\cdot)?\s*{UNIT}{POWER})*)\s*$"
)
# "we get" is no product, though its letters might be factors
WORDS = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{2,}\s+[A-Za-z]{2,}")
# 2e-1 is 0.2 in a program and 2e - 1 in algebra
FLOAT = re.compile(r"(-?\d+)e([+-]\d+)")
# (A) 17, A. 17, \textbf{(A)}\ 17, but not "A. B"
CHOICE = re.compile(
    r"(?:\\\w+\{)?\(?([A-Ja-e])[).:]\}?(?:\s|\\ )+(?=\S)"
    r"(?!(?s:.*)(?<![A-Za-z\\])[A-J](?![A-Za-z]))"
)


def is_formula(text: str) -> bool:
    """Whether all of a text is one formula (or a list of them), without words.

    >>> is_formula("x^2 + 1"), is_formula("x is 5")
    (True, False)
    """
    tree = None if WORDS.search(text) else read(text)
    return tree is not None and not contains(tree, "word")


def readings(text: str) -> list[str]:
    """A text, and if it is a number in a program's spelling, that number.

    >>> readings("2e-1"), readings("2e - 1")
    (['2e-1', '2E-1'], ['2e - 1'])
    """
    number = FLOAT.fullmatch(text.strip())
    return [text, f"{number[1]}E{number[2]}"] if number else [text]


def answer_readings(answer: str, wanted) -> list[str]:
    """The ways to read an answer: as it stands, with its letters as units, as one choice of many.

    >>> answer_readings("5m", read("5")), answer_readings("(A) 17", read("17"))
    (['5m', '5\\\\text{m}'], ['(A) 17', 'A', '17'])
    """
    ways = readings(answer)
    if not symbols(wanted) and BARE_UNIT.search(answer):
        ways.append(BARE_UNIT.sub(unit_words, answer))
    label = CHOICE.match(answer)
    # "(A) is wrong" does not choose A
    if label and not (HEDGES | {"is", "was"}) & set(re.findall("[a-z]+", answer.lower())):
        ways += [label[1], answer[label.end() :]]
    return ways


def unit_words(unit: re.Match) -> str:
    text = unit[1].replace("μ", "u").replace("Ω", "ohm")
    return rf"\text{{{re.sub(r'[{}]', '', text)}}}"


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
    arithmetic().begin()
    try:
        for tree in map(read, readings(reference)):
            trees = map(read, answer_readings(answer, tree)) if tree else ()
            if any(same(other, tree) for other in trees if other):
                return True
    except (Unreadable, RecursionError):
        pass
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
        if a[0] == b[0] and a[2] != b[2] and all(defines(r) or measures(r[2]) for r in (a, b)):
            # x_1 = 5 is not x_2 = 5, and \sin A = 1/2 not \cos A = 1/2
            return False
        x, y = solution(a), solution(b)
        return x is not None and y is not None and same(x, y)
    if (a[0] == "∪") != (b[0] == "∪"):
        return False
    if {a[0], b[0]} == {"list", "()"}:
        a, b = as_point(a), as_point(b)
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
    if a[0] == b[0] == ":" and (len(a) > 3 or is_time(a) and is_time(b)):
        return len(a) == len(b) and same_ratio(a, b)
    return same_number(a, b)


def is_time(ratio) -> bool:
    """2:30 and 12:00:00, where nothing tells a time of the day from a ratio."""
    hours, *rest = (part[1] if part[0] == "num" else "" for part in ratio[1:])
    return bool(re.fullmatch(r"\d\d?", hours)) and all(re.fullmatch(r"[0-5]\d", n) for n in rest)


def same_ratio(a, b) -> bool:
    """1:2:3 is 2:4:6; but 1:15 is not 2:30, both are times."""
    if is_time(a) and is_time(b):
        return [int(part[1]) for part in a[1:]] == [int(part[1]) for part in b[1:]]
    return all(same_number(("/", x, a[1]), ("/", y, b[1])) for x, y in zip(a[2:], b[2:]))


# ---- equations and inequalities ----------------------------------------------------------------


def defines(tree) -> bool:
    """x = 5, f(x) = 2x = x + x, x in (0, 1), Maximum: 5."""
    return tree[0] == "rel" and set(tree[1]) == {"="} and is_name(tree[2])


def measures(tree) -> bool:
    r"""|AB|, \frac{NO}{BO}, AB^2 + CD^2, \sin A, 2f(3): what has a value, and no unknown."""
    parts = tree[1:]
    if tree[0] in TRIG or tree[0] == "abs":
        # \cos\theta and |A|, but not \sin x and |x|, where x is asked for
        named = parts[0][0] == "sym" and not re.fullmatch("[a-z]", parts[0][1])
        return named or measures(parts[0])
    if tree[0] in ("/", "*", "+", "neg", "^", ":"):
        return bool(symbols(tree)) and all(p[0] == "num" or measures(p) for p in parts)
    return tree[0] in ("run", "call", "word")


def solution(tree):
    """What an equation comes to: 5 in x = 5 and in 2 + 3 = 5; nothing in 2 = 3 and x + 2 = 5."""
    if tree[0] != "rel":
        return tree
    holds = set(tree[1]) == {"="} and all(same(side, tree[-1]) for side in tree[2:-1])
    return tree[-1] if defines(tree) or holds or measures(tree[2]) else None


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
        if is_name(sides[0]) or sides[0][0] == "abs":
            signs, sides = "<" + signs, (("neg", INFINITY), *sides)
        else:
            signs, sides = signs + "<", (*sides, INFINITY)
    low, name, high = sides
    inner = name[1] if name[0] == "abs" else name
    if "≠" in signs or not is_name(inner) or symbols(name) & (symbols(low) | symbols(high)):
        return tree
    opening, closing = ("[" if signs[0] == "≤" else "("), ("]" if signs[1] == "≤" else ")")
    if inner is name:
        return (opening + closing, low, high)
    # |x| < 3 is -3 < x < 3, and 1 < |x| < 3 the same on both sides of 0
    mirror = str.maketrans("([])", ")][(")
    if low == ("neg", INFINITY):
        return (closing.translate(mirror) + closing, ("neg", high), high)
    left = (closing.translate(mirror) + opening.translate(mirror), ("neg", high), ("neg", low))
    return ("∪", left, (opening + closing, low, high))


# ---- lists and sets ----------------------------------------------------------------------------


def as_point(tree):
    """x = 1, y = 2 as the point (1, 2): values in the order of their names."""
    values = {item[2]: item[-1] for item in tree[1:] if defines(item)}
    if len(values) < len(tree) - 1:
        # not all define something, or two the same: x = 1, x = 2
        return tree
    return ("()", *(values[name] for name in sorted(values, key=str)))


def members(tree) -> list:
    """What an answer lists; of a formula with ± both values (all its signs go together)."""
    if tree[0] in ("list", "or", "set", "∪"):
        # {{1, 2}, {3}} has two members
        inner = [[i] if i[0] == "set" and tree[0] != "∪" else members(i) for i in tree[1:]]
        return [member for items in inner for member in items]
    return [choose(tree, sign) for sign in "+-"] if contains(tree, "±") else [tree]


def choose(tree, sign: str):
    """The tree with one sign for every ±."""
    if tree[0] == "±":
        return tree[1] if sign == "+" else ("neg", tree[1])
    return tuple(choose(part, sign) if isinstance(part, tuple) else part for part in tree)


def pair_off(xs: list, ys: list) -> bool:
    """Whether the members are the same in some order."""
    if len(xs) != len(ys):
        return False
    left = list(ys)
    # first those that are written alike, so that no other takes their partner away
    others = []
    for x in xs:
        if x in left:
            left.remove(x)
        else:
            others.append(x)
    left = sized(left)
    for x in others:
        partner = find(x, left)
        if partner is None:
            return False
        left.remove(partner)
    return True


def covers(xs: list, ys: list) -> bool:
    """Whether every y is among the xs, as in sets: {1, 2, 1} is {1, 2}."""
    alike, left = set(xs), sized(xs)
    return all(y in alike or find(y, left) for y in ys)


def sized(trees: list) -> list[tuple]:
    """The trees with their sizes, by which equals are found soon."""
    return [(arithmetic().size(tree), tree) for tree in trees]


def find(x, ys: list[tuple]):
    """The first of ys that is the same as x, or None; the nearest in size are tried first."""
    size = arithmetic().size(x)
    near = sorted(ys, key=lambda y: abs(y[0] - size))
    return next((y for y in near if same(x, y[1])), None)
