r"""Rule verifier: extract the final answer of a response, decide whether it equals the reference.

    response -> extract -> normalise -> parse -> compare -> True or False

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
 8. Base subscripts count, and letter case too, except in words.
 9. Several values, an alternative or a hedge never equal a single reference.
10. An equation stands for its right side if the left is a bare name (x, f(x), AB) or equals it.
11. What cannot be parsed is right only if it is the same string after normalisation.
12. Total: any string, any thread; no signals, no subprocess, no eval, never more than a second.

Different from Math-Verify (huggingface/Math-Verify), and why: one grammar of our own in place of
latex2sympy and parse_expr, so that no fragment of an answer can match (there \boxed{exec('x=1')}
is 1) and no text reaches eval; limits in place of alarms, which only work in the main thread; no
rounding to six places (there 1/2004! = 1/2006!); the last box replaces the ones before; bases,
case and the order of a tuple count. Formulas are equal if they agree to 180 digits wherever they
are tried (as in Schwartz-Zippel). That decides both ways and is bounded, so nothing is left for
`simplify`, and sympy itself is not needed: only mpmath, the arithmetic below it. Not evaluated, so
right as strings only: sums, integrals, limits, products of matrices, numbers of over 180 digits.
"""

import re

from formula import (
    _HEDGES,
    INFINITY,
    WORK,
    Unreadable,
    arithmetic,
    is_name,
    normalise,
    read,
    symbols,
    tokenize,
)

LENGTH = 1_500  # characters of an answer that is parsed; a longer one can only match as a string
TAIL = 100_000  # characters at the end of a response that are searched for an answer
ITEMS = 64  # members of a list or set that are paired off in any order
POINTS = 8  # places where formulas are compared


# ---- 1. extract ------------------------------------------------------------------------------

_THINK = re.compile(r"<think>(?:[^<]++|<(?!/think>))*+(?:</think>)?")
_BOX = r"\\{1,4}(?:boxed|fbox)(?![a-zA-Z])\s*(?P<bare>[^\s{$\\]+)?|[{}]"
_BOXES = re.compile(_BOX + r"|\\.", re.DOTALL), re.compile(_BOX)  # \} is no brace; 2nd try: it is
_BOX_GAP = re.compile(r"[\s$]*(?:[,;]|(?:[^.\n=\d]{0,40}\W)?(?:and|or)\b)(?:[\s${}]|\\quad|\\ )*")
_LABEL = re.compile(r"####|\banswer(?:\s+is\b|\W{0,3}[:=\n])[\s:*=]*", re.IGNORECASE)
_SENTENCE_END = re.compile(r"\.(?=\s|\*|$)|\n")
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
    seen = False
    for pattern in _BOXES if "box" in text else ():
        boxes, open_braces, opening = [], [], None
        for token in pattern.finditer(text):
            if token[0] == "{":
                open_braces.append((opening, token.end()))
            elif token[0] == "}" and open_braces:
                start, inside = open_braces.pop()
                if start is not None:
                    boxes.append((start, token.end(), text[inside : token.start()].strip()))
            elif token["bare"]:
                boxes.append((token.start(), token.end(), token["bare"].rstrip(".,;")))
            opening = token.start() if "box" in token[0] else None
            seen = seen or opening is not None
        parts, edge = [], 0
        for start, end, content in reversed([box for box in boxes if box[2]]):
            gap = text[end:edge]
            if parts and (len(gap) > 60 or not _BOX_GAP.fullmatch(gap)):
                break
            parts, edge = [content, *parts], start
        if parts:
            return ", ".join(dict.fromkeys(parts))
    return "" if seen else None


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
        rest = text[labels[-1].end() :].strip()
        formula = _FORMULA.match(rest)  # a full stop inside a formula does not end the sentence
        end = _SENTENCE_END.search(rest, formula.end() if formula else 0)
        text = rest[: end.start() if end else None].strip(" *")
    if len(text) < 200 and ";" not in text and "\n" not in text:
        if (tree := read(text)) and "'word'" not in repr(tree):
            return text  # all of it is one formula
    formulas = [match[0] for match in _FORMULA.finditer(text)]
    formulas = [f for f in formulas if not re.fullmatch(r"\W*[A-Za-z]+\W*", f)] or formulas
    if labels and (len(formulas) != 1 or _HEDGES & set(text.lower().split())):  # "5 or maybe 6"
        return text or None
    return formulas[-1] if formulas else text if re.fullmatch(r"[A-Za-z]+", text) else None


# ---- 2. compare ------------------------------------------------------------------------------


def defines(tree) -> bool:
    """x = 5, f(x) = 2x = x + x, x in (0, 1), Maximum: 5."""
    return tree[0] == "rel" and set(tree[1]) == {"="} and is_name(tree[2])


def rewrite(tree, change):
    """The tree with `change` applied to every node, leaves first."""
    parts = (rewrite(part, change) if isinstance(part, tuple) else part for part in tree)
    return change(tuple(parts))


def members(tree) -> list:
    """What an answer lists; of a formula with ± both values (all its signs go together)."""
    if tree[0] in ("list", "or", "set"):
        return [member for item in tree[1:] for member in members(item)]
    if "'±'" not in repr(tree):
        return [tree]
    plus = rewrite(tree, lambda node: node[1] if node[0] == "±" else node)
    return [plus, rewrite(tree, lambda node: ("neg", node[1]) if node[0] == "±" else node)]


_TURN = str.maketrans("><≥≤", "<>≤≥")


def region(tree):
    """The interval of a solved inequality, the union of several joined by 'or'; else the tree.

    >>> region(read("x <= 2 or x > 3")) == region(read("2 >= x or 3 < x"))
    True
    """
    if tree[0] == "or" and any(part[0] == "rel" and not defines(part) for part in tree[1:]):
        return ("∪", *(("set", part[-1]) if defines(part) else region(part) for part in tree[1:]))
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
    inside = name[1] if name[0] == "abs" else name
    if not is_name(inside) or symbols(inside) & (symbols(low) | symbols(high)):
        return tree
    if "≠" in signs:
        value = low if high == INFINITY else high
        return ("∪", ("()", ("neg", INFINITY), value), ("()", value, INFINITY))
    left, right = "(["[signs[0] == "≤"], ")]"[signs[1] == "≤"]
    if name[0] != "abs":
        return (left + right, low, high)
    if low == ("neg", INFINITY):
        return ("(["[right == "]"] + right, ("neg", high), high)
    mirror = ("(["[right == "]"] + ")]"[left == "["], ("neg", high), ("neg", low))
    return ("∪", mirror, (left + right, low, high))


def pieces(union) -> list:
    """The intervals and the single points of a union, in any order."""
    return [x for part in union[1:] for x in (pieces(part) if part[0] == "∪" else members(part))]


def pair_off(xs: list, ys: list) -> bool:
    """Whether the members are the same in some order; names that both have must agree."""
    left = list(ys) if len(xs) == len(ys) <= ITEMS else []
    for x in xs:
        for y in left:
            if not (defines(x) and defines(y) and x[2] != y[2]) and same(x, y):
                left.remove(y)
                break
        else:
            return False
    return bool(xs)


def distinct(items: list) -> list:
    """Each member once: {1, 2, 1} is {1, 2}."""
    kept: list = []
    for item in items[:ITEMS]:
        kept += [] if any(same(item, other) for other in kept) else [item]
    return kept


def same(a, b) -> bool:
    """Whether two trees are the same answer."""
    arithmetic().spend(2)
    if a[0] == "unit" or b[0] == "unit":
        agree = a[0] != b[0] or a[2:] == b[2:]  # cm^2 is not cm^3, but may be left out
        return agree and same(*(tree[1] if tree[0] == "unit" else tree for tree in (a, b)))
    if a[0] == b[0] == "rel" and proportional(a, b):
        return True
    a, b = region(a), region(b)
    xs, ys = members(a), members(b)
    if len(xs) != len(ys) and {a[0], b[0]} & {"set", "or"}:  # "1/2 or 2/4" is one value
        xs, ys = distinct(xs), distinct(ys)
    if not len(xs) == len(ys) == 1:
        return pair_off(xs, ys)
    a, b = xs[0], ys[0]
    if "rel" in (a[0], b[0]):
        if defines(a) and defines(b) and a[2] != b[2]:
            if re.sub(r"\d", "", repr(a[2])) == re.sub(r"\d", "", repr(b[2])):
                return False  # x_1 = 5 is not x_2 = 5, though y = 5 may be x = 5
            if a[2][0] == b[2][0] == "*" and len(a[2]) == len(b[2]) == 3:
                dummy, name = b[2][2], a[2][2]  # f(t) = 2t is f(x) = 2x
                b = rewrite(b, lambda node: name if node == dummy else node)
        x, y = solution(a), solution(b)
        return x is not None and y is not None and same(x, y)
    if a[0] == b[0] == "∪":
        return pair_off(pieces(a), pieces(b))
    if a[0] == b[0] == ":" and len(a) == len(b):  # 2:4 is 1:2
        crossed = [(("*", x, b[1]), ("*", a[1], y)) for x, y in zip(a[2:], b[2:], strict=True)]
        proper = all(map(arithmetic().value, a[1:] + b[1:]))  # 12:00 is a time
        return proper and all(same_number(x, y) for x, y in crossed)
    if a[0][0] in "([" and b[0][0] in "([":
        pair = len(a) == 3 and a[1][0][0] not in "(["  # it may be an interval, and no matrix
        alike = a[0] == b[0] or not pair
        return alike and len(a) == len(b) and all(map(same, a[1:], b[1:]))
    if a[0] in ("word", "based") or INFINITY in (a, b):
        return a == b
    return same_number(a, b)


def solution(tree):
    """What an equation comes to: 5 in x = 5 and in 2 + 3 = 5; nothing in 2 = 3 and x + 2 = 5."""
    if tree[0] != "rel":
        return tree
    holds = set(tree[1]) == {"="} and all(same(side, tree[-1]) for side in tree[2:-1])
    return tree[-1] if defines(tree) or holds else None


def proportional(a, b) -> bool:
    """Whether one relation is the other times a constant: x = 2y is y - x/2 = 0."""
    if len(a) != 4 or len(b) != 4:
        return False
    a, b = (("rel", r[1].translate(_TURN), r[3], r[2]) if r[1] in ">≥" else r for r in (a, b))
    left, right = (("+", r[2], ("neg", r[3])) for r in (a, b))
    if a[1] != b[1] or not symbols(left) or not symbols(right):
        return False
    numbers = arithmetic()
    ratios = [numbers.value(("*", left, ("inv", right)), point) for point in range(POINTS)]
    ratios = [ratio for ratio in ratios if ratio]
    positive = a[1] in "=≠" or ratios and numbers.is_real(ratios[0]) and ratios[0] > 0
    return bool(positive) and len(ratios) > 3 and all(numbers.equal(r, ratios[0]) for r in ratios)


def same_number(a, b) -> bool:
    """Whether two formulas agree wherever both are real: exactly, or as decimals of one another."""
    if a[0] == b[0] == "%":
        return same_number(a[1], b[1])
    if a[0] == "%" and same_number(a[1], b) or b[0] == "%" and same_number(a, b[1]):
        return True  # 10% is 10, as well as 0.1
    numbers, names, agreed = arithmetic(), symbols(a) | symbols(b), 0
    for point in range(POINTS if names else 1):
        x, y = numbers.value(a, point), numbers.value(b, point)
        if x is None or y is None:
            continue
        if numbers.equal(x, y):
            agreed += 1
        elif numbers.is_real(x) and numbers.is_real(y):
            m, n = shown_digits(a), shown_digits(b)  # of two decimals the shorter may be rounded
            first = m and (m < n or not n) or m > 15 > n + 2  # or the longer be a noisy float
            second = n and (n < m or not m) or n > 15 > m + 2
            return not names and bool(first and shows(x, m, y) or second and shows(y, n, x))
    return agreed >= (3 if names else 1)


def shown_digits(tree) -> int:
    """Significant digits of a decimal, also one with a unit or a power of ten; 0 if it is exact."""
    if tree[0] == "num":
        return len(tree[1].partition("e")[0].replace(".", "").lstrip("0")) if "." in tree[1] else 0
    digits = [shown_digits(part) for part in tree[1:]] if tree[0] in ("neg", "*", "°", "%") else []
    return min((d for d in digits if d), default=0)


def shows(x, digits: int, y) -> bool:
    """Whether x, a decimal with that many digits, is y to 1e-6, rounded or cut off."""
    mp = arithmetic().mp
    if digits < 6 or mp.isint(x) or mp.isint(y) or x * y < 0:
        return False
    x, y = abs(x), abs(y)
    unit = mp.mpf(10) ** (mp.floor(mp.log10(x)) + 1 - min(digits, 15))  # beyond is float noise
    return abs(x - y) * 999_999 <= y and (abs(x - y) <= unit / 2 or x < y < x + unit)


# ---- 3. the public functions -----------------------------------------------------------------

_LETTER_UNIT = re.compile(r"(?<=\d)(\s*)([msghLNJWVK])(?![A-Za-z])")
_CHOICE = re.compile(r'\(?"?([A-Ja-e])(?:\)|\.|:)(?:\s|\\ )+(?=\S)')


def _key(text: str):
    """Equal for answers that are the same string after normalisation."""
    return tokenize(text)


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
    try:
        key = _key(reference)
        if not answer or not "".join(key).strip("{}"):
            return False
        return _key(answer) == key or _equivalent(answer, reference)
    except (Unreadable, RecursionError):
        return False


def _equivalent(answer: str, reference: str) -> bool:
    """Whether one of the readings of the answer is the tree of the reference."""
    arithmetic().work = WORK
    wanted, readings = read(reference), [read(answer)]
    if wanted is None:
        return False
    if not symbols(wanted):
        readings.append(read(_LETTER_UNIT.sub(r"\1\\text{\2}", answer)))
    if label := _CHOICE.match(normalise(answer)):  # "(A) 17" for A and for 17
        readings += [("sym", label[1]), read(normalise(answer)[label.end() :])]
    return any(same(tree, wanted) for tree in readings if tree is not None)


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
    pairs = zip(texts, answer, strict=True)
    return [float(verify(_text(text), _text(reference))) for text, reference in pairs]


def compute_score(data_source, solution_str, ground_truth, extra_info=None, **kw) -> float:
    """veRL `custom_reward_function`: called once per sample, with keywords."""
    return float(verify(_text(solution_str), _text(ground_truth)))


def _text(column) -> str:
    """A column of a dataset may hold numbers, and None, which never pays."""
    return "" if column is None else str(column)
