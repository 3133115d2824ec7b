r"""Rule verifier: extract the final answer of a response, decide whether it equals the reference.

    response -> extract -> read both sides (support/formula.py) -> compare -> True or False

In RL a false positive is what the policy will find, and a hang stops the run. So nothing is right
by default, and nothing is built before its size is known.

Policy (each line has its test in tests/test_verifier.py)
 1. The reference is used as it is, never searched; a box or "answer is" around it is notation.
    An empty one is an error of the data and never pays.
 2. The answer is the last balanced \boxed{} or \fbox{}; where there is a box nothing else counts,
    and a truncated box is no answer. Boxes joined by "," or "and" are one answer in parts.
 3. Without a box: the last <answer>, else what follows the last "answer is" or "####", else the
    last formula or number. `require_box=True` turns these fall-backs off.
 4. What is inside <think>...</think> never counts.
 5. 2/4, 1/2 and 0.5 are equal. A decimal equals an exact value if it shows six digits or more, is
    off by 1e-6 or less, and is the value rounded or cut off; an integer only if it is that integer.
 6. 10% equals 10 and 0.1. Thousands separators, units and other words after a value, currency and
    degree signs, TeX spacing, text wrappers and Unicode spellings do not matter. 1 1/2 is 3/2.
 7. Lists compare as multisets, {...} as sets; tuples, intervals and matrices in order. A solved
    inequality equals its interval; other relations are equal if one is a multiple of the other.
 8. Base subscripts count, letter case (except in words) and names too: x = 5 is not y = 5.
 9. Several values, an alternative or a hedge never equal a single reference.
10. An equation stands for its right side if the left is a bare name (x, f(x), AB) or equals it.
11. What cannot be parsed is right only if it is the same string after normalisation.
12. Total: any string, any thread; no signals, no subprocess, no eval, never more than a second.

Different from Math-Verify (huggingface/Math-Verify): one grammar of our own, so no fragment of an
answer can match (there \boxed{exec('x=1')} is 1); limits in place of alarms, which only work in
the main thread; no rounding to six places (there 1/2004! = 1/2006!); the last box replaces those
before; bases, case and the order of a tuple count. Formulas are equal if they agree to 180 digits
wherever tried (Schwartz-Zippel); sums, integrals, limits and huge numbers only as strings.
"""

import re

from support.formula import (
    HEDGES,
    INFINITY,
    WORK,
    Unreadable,
    arithmetic,
    is_name,
    read,
    symbols,
    tokenize,
)

TAIL = 100_000  # characters at the end of a response that are searched for an answer
LENGTH = 1_500  # characters of an answer that is parsed; a longer one can only match as a string
POINTS = 8  # places where formulas are compared


# ---- 1. extract ------------------------------------------------------------------------------


def _box(inside: str) -> re.Pattern:
    r"""\boxed{...}, with braces nested up to twenty deep, or \boxed 7."""
    group = inside
    for _ in range(20):
        group = rf"(?:{inside}|\{{{group}\}})*+"
    return re.compile(rf"\\(?:boxed|fbox)(?![a-zA-Z])\s*(?:\{{({group})\}}|([^\s{{$\\]+))", re.S)


_BOXES = _box(r"[^{}\\]++|\\."), _box(r"[^{}]++")  # \} is no brace; if that finds no box, it is one
_BOX_GAP = re.compile(r"[\s$]*(?:[,;]|(?:[^.\n=\d]{0,40}\W)?(?:and|or)\b)(?:[\s${}]|\\quad|\\ )*")
_THINK = re.compile(r"<think>(?:[^<]++|<(?!/think>))*+(?:</think>)?")
_LABEL = re.compile(r"####|\banswer(?:\s+is\b|\W{0,3}[:=\n])[\s:*=]*", re.IGNORECASE)
_FORMULA = re.compile(
    r"\$\$.+?\$\$|(?<!\\)\$(?=\S)[^$]+?(?<=\S)\$(?!\d)|\\\(.+?\\\)|\\\[.+?\\\]"  # in TeX
    r"|(?<![\w.^{\\])(?:(?<![\w)\]])-)?\\?\$?(?:\d+\s+(?=\d+/\d))?"  # or a number: sign, $, whole
    r"(?:\d+(?:,\d+)*(?:\.\d+)?|\.\d+)(?:\s?/\s?\d+)?(?:\s?\\?%)?",
    re.DOTALL | re.ASCII,
)


def last_boxed(text: str) -> str | None:
    r"""The content of the last box ('' if none is balanced), or None without any box.

    >>> last_boxed(r"\boxed{2}, so finally \boxed{3}"), last_boxed(r"\boxed{2} and \fbox 3")
    ('3', '2, 3')
    """
    if not re.search(r"\\(?:boxed|fbox)", text):
        return None
    for pattern in _BOXES:
        parts, edge = [], None
        for box in reversed(list(pattern.finditer(text))):
            gap = text[box.end() : edge]
            if parts and (len(gap) > 60 or not _BOX_GAP.fullmatch(gap)):
                break
            if content := box[1].strip() if box[2] is None else box[2].rstrip(".,;"):
                parts, edge = [content, *parts], box.start()
        if parts:
            return ", ".join(dict.fromkeys(parts))
    return ""


def extract_answer(text: str, require_box: bool = False) -> str | None:
    r"""The final answer: in a box, else in <answer>, else after a label, else the last formula.

    >>> extract_answer(r"7 + 5 = 12 ; 12 - 3 = 9 ; so \boxed{ 9 }")
    '9'
    >>> extract_answer("The answer is $1,234."), extract_answer("so 3 + 4 makes 7 in all")
    ('$1,234', '7')
    >>> extract_answer(r"<think>It is 5.</think> so \boxed{5"), extract_answer("It is 5.", True)
    (None, None)
    """
    text = _THINK.sub(" ", text) if "<think>" in text else text
    text = text.rpartition("</think>")[2][-TAIL:]  # the chat template may have opened the tag
    boxed = last_boxed(text)
    if boxed is not None or require_box:
        return boxed or None
    _, opened, tagged = text.rpartition("</answer>")[0].rpartition("<answer>")
    if opened:
        return tagged.strip() or None
    text = text[-LENGTH:].strip()
    labels = list(_LABEL.finditer(text))
    if labels:
        text = re.split(r"\.(?=\s|\*|$)|\n", text[labels[-1].end() :].strip())[0].strip(" *")
    if len(text) < 200 and (tree := read(text)) and "'word'" not in repr(tree):
        return text  # all of it is one formula
    formulas = [match[0] for match in _FORMULA.finditer(text)]
    formulas = [f for f in formulas if not re.fullmatch(r"\W*[A-Za-z]+\W*", f)] or formulas
    if labels and (len(formulas) != 1 or HEDGES & set(text.lower().split())):  # "5 or maybe 6"
        return text or None
    return formulas[-1] if formulas else None


# ---- 2. compare ------------------------------------------------------------------------------


def defines(tree) -> bool:
    """x = 5, f(x) = 2x = x + x, x in (0, 1), Maximum: 5."""
    return tree[0] == "rel" and set(tree[1]) == {"="} and is_name(tree[2])


def solution(tree):
    """What an equation comes to: 5 in x = 5 and in 2 + 3 = 5; nothing in 2 = 3 and x + 2 = 5."""
    if tree[0] != "rel":
        return tree
    holds = set(tree[1]) == {"="} and all(same(side, tree[-1]) for side in tree[2:-1])
    return tree[-1] if defines(tree) or holds else None


def choose(tree, sign: str):
    """The tree with one sign for every ±."""
    if tree[0] == "±":
        return tree[1] if sign == "+" else ("neg", tree[1])
    return tuple(choose(part, sign) if isinstance(part, tuple) else part for part in tree)


def members(tree) -> list:
    """What an answer lists; of a formula with ± both values (all its signs go together)."""
    if tree[0] in ("list", "or", "set", "∪"):
        return [member for item in tree[1:] for member in members(item)]
    return [choose(tree, sign) for sign in "+-"] if "'±'" in repr(tree) else [tree]


_TURN = str.maketrans("><≥≤", "<>≤≥")


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
        signs, sides = signs[::-1].translate(_TURN), sides[::-1]
    if len(sides) == 2:
        first = is_name(sides[0])
        signs = "<" + signs if first else signs + "<"
        sides = (("neg", INFINITY), *sides) if first else (*sides, INFINITY)
    low, name, high = sides
    if "≠" in signs or not is_name(name) or symbols(name) & (symbols(low) | symbols(high)):
        return tree
    return ("(["[signs[0] == "≤"] + ")]"[signs[1] == "≤"], low, high)


def pair_off(xs: list, ys: list) -> bool:
    """Whether the members are the same in some order."""
    left = list(ys)
    for x in xs:
        partner = next((y for y in left if same(x, y)), None)
        if partner is None:
            return False
        left.remove(partner)
    return not left


def covers(xs: list, ys: list) -> bool:
    """Whether every y is among the xs, as in sets: {1, 2, 1} is {1, 2}."""
    return all(any(same(x, y) for x in xs) for y in ys)


def same(a, b) -> bool:
    """Whether two trees are the same answer."""
    arithmetic().spend(2)
    if "unit" in (a[0], b[0]):  # cm^2 is not cm^3, but may be left out
        agree = a[0] != b[0] or a[2:] == b[2:]
        return agree and same(*(tree[1] if tree[0] == "unit" else tree for tree in (a, b)))
    if a[0] == b[0] == "rel" and proportional(a, b):
        return True
    a, b = region(a), region(b)
    if "rel" in (a[0], b[0]):
        if defines(a) and defines(b) and a[2] != b[2]:
            return False  # x_1 = 5 is not x_2 = 5
        x, y = solution(a), solution(b)
        return x is not None and y is not None and same(x, y)
    xs, ys = members(a), members(b)
    if (a[0] == "∪") != (b[0] == "∪"):
        return False
    if {a[0], b[0]} & {"set", "or"}:  # "1/2 or 2/4" is one value
        return covers(xs, ys) and covers(ys, xs)
    if not len(xs) == len(ys) == 1:
        return pair_off(xs, ys)
    a, b = xs[0], ys[0]
    if a[0][0] in "([" and b[0][0] in "([":
        pair = len(a) == 3 and a[1][0][0] not in "(["  # it may be an interval, and no matrix
        return (a[0] == b[0] or not pair) and len(a) == len(b) and all(map(same, a[1:], b[1:]))
    if a[0] in ("word", "based") or INFINITY in (a, b):
        return a == b
    return same_number(a, b)


def proportional(a, b) -> bool:
    """Whether one relation is the other times a constant: x = 2y is y - x/2 = 0."""
    if not len(a) == len(b) == 4:
        return False
    a, b = (("rel", r[1].translate(_TURN), r[3], r[2]) if r[1] in ">≥" else r for r in (a, b))
    if a[1] != b[1] or not symbols(a) or not symbols(b):
        return False
    left, right = (("+", r[2], ("neg", r[3])) for r in (a, b))
    numbers = arithmetic()
    ratios = [numbers.value(("/", left, right), point) for point in range(POINTS)]
    ratios = [ratio for ratio in ratios if ratio]
    if len(ratios) < 4 or not all(numbers.equal(ratio, ratios[0]) for ratio in ratios):
        return False
    return a[1] in "=≠" or numbers.is_real(ratios[0]) and ratios[0] > 0


def same_number(a, b) -> bool:
    """Whether two formulas agree wherever both are real: exactly, or as decimals of one another."""
    if "%" in (a[0], b[0]) and same_number(*(t[1] if t[0] == "%" else t for t in (a, b))):
        return True  # 10% is 10, as well as 0.1
    numbers, names, agreed = arithmetic(), symbols(a) | symbols(b), 0
    for point in range(POINTS if names else 1):
        x, y = numbers.value(a, point), numbers.value(b, point)
        if x is None or y is None:
            continue
        if numbers.equal(x, y):
            agreed += 1
        elif numbers.is_real(x) and numbers.is_real(y):
            m, n = shown_digits(a), shown_digits(b)
            return not names and (shows(x, m, y, n) or shows(y, n, x, m))
    return agreed >= (3 if names else 1)


def shown_digits(tree) -> int:
    """Significant digits of a decimal, also one with a unit or a power of ten; 0 if it is exact."""
    if tree[0] == "num":
        return len(tree[1].partition("e")[0].replace(".", "").lstrip("0")) if "." in tree[1] else 0
    digits = [shown_digits(part) for part in tree[1:]] if tree[0] in ("neg", "*", "°", "%") else []
    return min((d for d in digits if d), default=0)


def shows(x, digits: int, y, others: int) -> bool:
    """Whether x, a decimal with so many digits, is y (exact or longer) to 1e-6, rounded or cut."""
    mp = arithmetic().mp
    if digits < 6 or 0 < others <= digits or mp.isint(x) or mp.isint(y) or x * y < 0:
        return False
    x, y = abs(x), abs(y)
    unit = mp.mpf(10) ** (mp.floor(mp.log10(x)) + 1 - min(digits, 15))
    return abs(x - y) * 999_999 <= y and (abs(x - y) <= unit / 2 or x < y < x + unit)


# ---- 3. the public functions -----------------------------------------------------------------

_LETTER_UNIT = re.compile(r"(?<=\d)\s*([msghLNJWVK])(?![A-Za-z])")
_CHOICE = re.compile(r"(?:\\\w+\{)?\(?([A-Ja-e])[).:]\}?(?:\s|\\ )+(?=\S)")


def equivalent(answer: str, reference: str) -> bool:
    """Whether `answer` equals `reference`, by the policy above.

    >>> equivalent("2/4", r"\\frac{1}{2}"), equivalent("1, 2", "2"), equivalent("x = 5", "5")
    (True, False, True)
    """
    answer, reference = answer.strip(), reference.strip()
    if answer.isdecimal() and reference.isdecimal() and len(answer + reference) < 4000:
        return int(answer) == int(reference)
    boxed = last_boxed(reference)  # a box in the reference is only notation
    reference = reference if boxed is None else boxed
    if max(len(answer), len(reference)) > LENGTH:
        return answer == reference
    if not answer or not "".join(tokenize(reference)).strip("{}"):
        return False
    if tokenize(answer) == tokenize(reference):
        return True
    wanted, readings = read(reference), [answer]
    if wanted is not None and not symbols(wanted):
        readings.append(_LETTER_UNIT.sub(r"\\text{\1}", answer))  # 5m is five metres
    if label := _CHOICE.match(answer):  # "(A) 17" for A and for 17
        readings += [label[1], answer[label.end() :]]
    arithmetic().work = WORK
    try:
        return any(same(tree, wanted) for tree in map(read, readings) if tree and wanted)
    except (Unreadable, RecursionError):
        return False


def verify(response: str, reference: str, require_box: bool = False) -> bool:
    r"""Whether the final answer of `response` equals `reference`.

    >>> verify(r"7 + 5 = 12 ; 12 - 3 = 9 ; so \boxed{ 9 }", "9")
    True
    """
    answer = extract_answer(response, require_box)
    return answer is not None and equivalent(answer, reference)


def accuracy_reward(completions, answer, **columns) -> list[float]:
    """TRL `reward_funcs`: called with keywords; completions are strings, or lists of messages."""
    texts = [c if isinstance(c, str) else c[-1]["content"] for c in completions]
    return [float(verify(_text(t), _text(a))) for t, a in zip(texts, answer, strict=True)]


def compute_score(data_source, solution_str, ground_truth, extra_info=None, **kw) -> float:
    """veRL `custom_reward_function`: called once per sample, with keywords."""
    return float(verify(_text(solution_str), _text(ground_truth)))


def _text(column) -> str:
    """A column of a dataset may hold numbers, and None, which never pays."""
    return "" if column is None else str(column)
