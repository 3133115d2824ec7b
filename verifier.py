r"""Rule verifier: extract the final answer of a response, decide whether it equals the reference.

    response -> extract -> clean -> compare exactly -> or ask the formula reader -> True or False

Numbers and lists of them are decided here; support/formula reads what is left: 2x, (1, 2], 5 cm.
In RL a false positive is what the policy will find, and a hang stops the run. So nothing is right
by default, and nothing is built before its size is known.

Rules (each has its test in tests/test_verifier.py)
 1. The reference is used as it is, never searched; a box or "answer is" around it is notation.
    An empty one is an error of the data and never pays.
 2. The answer is the last balanced \boxed{} or \fbox{}; where there is a box nothing else counts,
    and a truncated box is no answer. Boxes joined by "," or "and" are one answer in parts.
 3. Without a box: the last <answer>, else what follows the last "answer is" or "####", else the
    last formula or number (all of it). `require_box=True` turns these fall-backs off.
 4. What is inside <think>...</think> never counts, nor does the next turn of a chat.
 5. 2/4, 1/2 and 0.5 are equal. A decimal equals an exact value if it shows six digits or more, is
    off by 1e-6 or less, and is the value rounded or cut off; an integer only if it is that integer.
 6. 10% equals 10 and 0.1. Thousands separators, units and other words after a value, currency and
    degree signs, TeX spacing, text wrappers and Unicode spellings do not matter. 1 1/2 is 3/2.
    But number words and opposites count: 5 million, 5 thirds and 5 below zero are not 5, nor is
    5 am 5 pm. "(A) 17" chooses A and is 17; "A. B" and "(A) is wrong" choose nothing.
 7. Lists compare as multisets, {...} as sets; tuples, intervals and matrices in order. A solved
    inequality equals its interval; other relations are equal if one is a multiple of the other.
    x = 1, y = 2 is (1, 2). 2:4 is 1:2, but h:mm may be a time of the day: 1:15 is not 2:30.
 8. Base subscripts count, letter case (except in words), accents and names: x = 5 is not y = 5.
    f(g(x)) is not g(f(x)), and capital letters keep their order: BAC is not ABC, P^{-1}AP not A.
 9. Several values, an alternative or a hedge never equal a single reference.
10. An equation stands for its right side if the left is a bare name (x, f(x), AB), a quantity
    with no unknown in it (|AB|, \sin A, P(B), a limit), or equals it.
11. What cannot be parsed is right only if it is the same string after normalisation.
12. Total: any string, any thread; no signals, no subprocess, no eval, never more than a second.

Different from Math-Verify (huggingface/Math-Verify): no fragment of an answer can match (there
\boxed{exec('x=1')} is 1); limits in place of alarms, which only work in the main thread; no
rounding to six places (there 1/2004! = 1/2006!); bases, case, the order of a tuple and only the
last box count. Sums, integrals, limits and huge numbers can match only as strings.
As there (and in latex2sympy), the base of \log and \lg is 10 where none is given; \ln has base e.
"""

import re
from fractions import Fraction
from functools import lru_cache

from support import formula

TAIL = 100_000  # characters at the end of a response that are searched for an answer
LENGTH = 1_500  # characters of an answer that is read; a longer one can only match as a string

# ---- 1. extract --------------------------------------------------------------------------------

_BOX = r"\\(?:boxed|fbox)"
_MARK = rf"(?P<box>{_BOX}(?![a-zA-Z])\s*(?:\{{|(?P<bare>[^\s{{}}$\\]+)))|[{{}}]"  # or \boxed 7
# \} inside a box is no brace: \boxed{\{1, 2\}}; if that finds no box, it is one: \boxed{185\}
_MARKS = re.compile(rf"(?<!\\)\\[{{}}]|{_MARK}"), re.compile(_MARK)
# what joins two boxes: "\boxed{1}, \boxed{2}", "\boxed{1} and finally \boxed{2}"
_BOX_GAP = re.compile(
    r"[\s$]*(?:[,;]|(?:[^.\n=\d]{0,40}\W)?(?:and|or)\b)?(?:[\s${}]|\\q?quad|\\[ ,;])*"
)
_THINK = re.compile(r"<think>(?:[^<]++|<(?!/think>))*+(?:</think>)?")
# where a turn of a chat ends, after something has been said
_TURN_END = re.compile(
    r"(?<=\S)\s*(?:<\|(?:im_|end|eo|start)[a-z_]*\|>|</s>|<(?:end|start)_of_turn>)"
)


def boxes(text: str, marks: re.Pattern, first: int) -> list[tuple[int, int, str]]:
    """Start, end and content of all balanced boxes that are inside no other."""
    found, opened = [], []
    for mark in marks.finditer(text, first):
        if mark["bare"]:
            found.append((mark.start(), mark.end(), mark["bare"].rstrip(".,;")))
        elif mark["box"] or mark[0] == "{":
            opened.append(mark)
        elif mark[0] == "}" and opened:
            opening = opened.pop()
            if opening["box"]:
                while found and found[-1][0] > opening.start():
                    found.pop()
                content = text[opening.end() : mark.start()].strip()
                found.append((opening.start(), mark.end(), content))
    return found


def last_boxed(text: str) -> str | None:
    r"""The content of the last box ('' if none is balanced), or None without any box.

    >>> last_boxed(r"\boxed{2}, so finally \boxed{3}"), last_boxed(r"\boxed{2} and \fbox 3")
    ('3', '2, 3')
    """
    if not (first := re.search(_BOX, text)):
        return None
    for marks in _MARKS:
        # from the last box back, as long as "," or "and" joins it to the one before
        parts, edge = [], None
        for start, end, content in reversed(boxes(text, marks, first.start())):
            gap = text[end:edge]
            if parts and (len(gap) > 60 or not _BOX_GAP.fullmatch(gap)):
                break
            if content:
                parts, edge = [content, *parts], start
        if parts:
            return ", ".join(dict.fromkeys(parts))
    return ""


def extract_answer(text: str, require_box: bool = False) -> str | None:
    r"""The final answer: in a box, else in <answer>, else after a label, else the last formula.

    >>> extract_answer("The answer is $1,234."), extract_answer("so 3 + 4 makes 7 in all")
    ('$1,234', '7')
    >>> extract_answer(r"<think>It is 5.</think> so \boxed{5"), extract_answer("It is 5.", True)
    (None, None)
    """
    text = _THINK.sub(" ", text).rpartition("</think>")[2][-TAIL:]  # a template may have opened it
    text = _TURN_END.split(text, 1)[0]
    boxed = last_boxed(text)
    if boxed is not None or require_box:
        return boxed or None
    _, opened, tagged = text.rpartition("</answer>")[0].rpartition("<answer>")
    if opened:
        return tagged.strip() or None
    return formula.last_answer(text, LENGTH)


# ---- 2. clean ----------------------------------------------------------------------------------

_NOTATION = [
    (r",\\!\s*", "{,}"),  # 10,\!080
    (r"\\?\$|\\[,;! ]|\\(?:left|right)(?![A-Za-z])", " "),  # $5$, \$5, 3\,000
    ("[−–]", "-"),
    # 1/2, with spaces that keep 2\frac{1}{3} from becoming 21/3
    (r"\\[dt]?frac\{(\d+)\}\{(\d+)\}", r" \1/\2 "),
    # 1,234,567 is one number; 1, 234 and 12,34 are two
    (r"(?<![\d.,])\d{1,3}(?:(?:,|\{,\})\d{3})+(?!\d)", lambda m: re.sub(r"\D", "", m[0])),
]


@lru_cache(maxsize=4096)
def clean(answer: str) -> str:
    r"""The answer without notation that does not matter for numbers.

    >>> clean(r"$1,234$."), clean(r"\frac{1}{2}, \$3")
    ('1234', '1/2 ,  3')
    """
    for pattern, replacement in _NOTATION:
        answer = re.sub(pattern, replacement, answer)
    return formula.without_stop(answer).strip()


# ---- 3. compare, and the public functions ------------------------------------------------------

_NUMBER = re.compile(r"-?\s*(?:\d{1,60}(?:\.\d{1,60})?|\.\d{1,60}|\d{1,60}\s*/\s*0*[1-9]\d{0,59})")


def exact(answer: str, reference: str) -> bool | None:
    r"""Whether two numbers, or two lists of them, are equal; None: ask the formula reader.

    >>> exact("2/4", "0.5"), exact(r"\frac{1}{2}, 3", "3, 0.50"), exact("1/3", "1/2")
    (True, True, False)
    >>> exact("0.333333", "1/3"), exact("2x", "2")  # rounded? a unit?
    (None, None)
    """
    texts = clean(answer), clean(reference)
    lists = [[item.strip() for item in text.split(",")] for text in texts]
    if not all(_NUMBER.fullmatch(item) for items in lists for item in items):
        return None
    xs, ys = (sorted(Fraction("".join(item.split())) for item in items) for items in lists)
    if xs == ys:
        return True
    # decimals that differ may be one value, rounded (rule 5)
    return None if "." in texts[0] + texts[1] else False


def equivalent(answer: str, reference: str) -> bool:
    """Whether `answer` equals `reference`, by the rules above.

    >>> equivalent("2/4", r"\\frac{1}{2}"), equivalent("1, 2", "2"), equivalent("x = 5", "5")
    (True, False, True)
    """
    boxed = last_boxed(reference)  # a box in the reference is only notation
    answer, reference = answer.strip(), (reference if boxed is None else boxed).strip()
    if max(len(answer), len(reference)) > LENGTH:
        return answer == reference
    verdict = exact(answer, reference)
    return formula.same_answer(answer, reference) if verdict is None else verdict


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
