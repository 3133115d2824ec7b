r"""Whether two formulas are equal: they are tried at a few places (Schwartz-Zippel).

Two different polynomials agree almost nowhere, so formulas that agree to 180 digits at places
nobody could foresee are the same. For numbers, one place is enough, and a decimal may be rounded.
"""

from collections.abc import Iterator

from support.formula.tree import subtrees, symbols
from support.formula.value import arithmetic

# places where formulas are tried, and how many must be inside both domains
POINTS, NEEDED = 6, 3
# heads of formulas that change their course somewhere, like |x - 50|, and points tried around each
# number in such a formula
BENDS, AROUND = {"abs", "max", "min", "floor", "ceil", "root", r"\mod"}, 4
# 2 > x is x < 2
TURN = str.maketrans("><≥≤", "<>≤≥")


def places(a, b) -> Iterator:
    """Where two formulas are tried: numbers of points; where they bend, also (number, size).

    min(n, 100) is n up to 100, and |x + 50| is x + 50 down to -50. So names are also given values
    around every number in the formulas, and far beyond all of them, of both signs.
    """
    names = symbols(a) | symbols(b)
    yield from range(POINTS if names else 1)
    if names and (bends(a) or bends(b)):
        sizes = sorted({*constants(a), *constants(b)})
        far = (1 + sum(sizes)) ** 2
        yield from ((n, size) for size in (far, *sizes[:4]) for n in range(AROUND))


def bends(tree) -> bool:
    """Whether a formula may change its course somewhere: |x|, sqrt(x), x^{2/3}."""
    power = tree[2] if tree[0] == "^" else ("num", "1")
    fractional = power[0] == "/" or power[0] == "num" and "." in power[1]
    return tree[0] in BENDS or fractional or any(map(bends, subtrees(tree)))


def constants(tree) -> list:
    """The sizes of the numbers in a formula, 100 and 2^10 in min(2^10 x, 100)."""
    if symbols(tree):
        return [size for part in subtrees(tree) for size in constants(part)]
    x = arithmetic().value(tree)
    return [abs(x)] if x else []


def same_number(a, b) -> bool:
    """Whether two formulas agree wherever both are real: exactly, or as decimals of one another."""
    if "%" in (a[0], b[0]):
        # 10% is 10, as well as 0.1
        bare = [tree[1] if tree[0] == "%" else tree for tree in (a, b)]
        if same_number(*bare):
            return True
    numbers, names, agreed = arithmetic(), symbols(a) | symbols(b), 0
    for point in places(a, b):
        x, y = numbers.value(a, point), numbers.value(b, point)
        if x is None or y is None:
            continue
        if numbers.equal(x, y):
            agreed += 1
        elif numbers.is_real(x) and numbers.is_real(y):
            m, n = shown_digits(a), shown_digits(b)
            return not names and (shows(x, m, y, n) or shows(y, n, x, m))
    return agreed >= (NEEDED if names else 1)


def shown_digits(tree) -> int:
    """Significant digits of a decimal, also one with a unit or a power of ten; 0 if it is exact."""
    if tree[0] == "num":
        # 0.0625e3 shows 625, and 625 or 6e3 are exact
        digits = tree[1].partition("e")[0]
        return len(digits.replace(".", "").lstrip("0")) if "." in tree[1] else 0
    parts = tree[1:] if tree[0] in ("neg", "*", "°", "%") else ()
    return min((shown for part in parts if (shown := shown_digits(part))), default=0)


def shows(x, digits: int, y, others: int) -> bool:
    """Whether x, a decimal with so many digits, is y (exact or longer) to 1e-6, rounded or cut."""
    mp = arithmetic().mp
    if digits < 6 or 0 < others <= digits or mp.isint(x) or mp.isint(y) or x * y < 0:
        return False
    x, y = abs(x), abs(y)
    # what the last digit is worth; floating-point output is wrong after the fifteenth
    unit = mp.mpf(10) ** (mp.floor(mp.log10(x)) + 1 - min(digits, 15))
    return abs(x - y) * 999_999 <= y and (abs(x - y) <= unit / 2 or x < y < x + unit)


def proportional(a, b) -> bool:
    """Whether one relation is the other times a constant: x = 2y is y - x/2 = 0."""
    if not len(a) == len(b) == 4:
        return False
    a, b = (("rel", r[1].translate(TURN), r[3], r[2]) if r[1] in ">≥" else r for r in (a, b))
    if a[1] != b[1] or not symbols(a) or not symbols(b):
        return False
    # left - right of both, and their ratio at every place
    left, right = (("+", r[2], ("neg", r[3])) for r in (a, b))
    numbers = arithmetic()
    ratios = [numbers.value(("/", left, right), point) for point in places(left, right)]
    ratios = [ratio for ratio in ratios if ratio]
    if len(ratios) <= NEEDED or not all(numbers.equal(ratio, ratios[0]) for ratio in ratios):
        return False
    # times -1 turns an inequality
    return a[1] in "=≠" or numbers.is_real(ratios[0]) and ratios[0] > 0
