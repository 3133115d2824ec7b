r"""Rule verifier: extract the final answer of a response, decide whether it equals the reference.

First version: integers, decimals, fractions and simple LaTeX; anything else must be the same string.
"""

import re
from fractions import Fraction

_BOX = re.compile(r"\\(?:boxed|fbox)\s*(?=\{)|\\.|[{}]", re.DOTALL)


def extract_answer(text: str, require_box: bool = False) -> str | None:
    r"""Contents of the last balanced `\boxed{}`; without a box, the last number.

    >>> extract_answer(r"7 + 5 = 12 ; 12 - 3 = 9 ; so \boxed{ 9 }")
    '9'
    """
    text = text.rpartition("</think>")[2].partition("<think>")[0]
    stack, box, seen, pending = [], None, False, False
    for token in _BOX.finditer(text):
        if token[0].startswith(("\\boxed", "\\fbox")):
            seen = pending = True
        elif token[0] == "{":
            stack.append(token.end() if pending else None)
            pending = False
        elif token[0] == "}" and stack:
            start = stack.pop()
            box = text[start : token.start()].strip() if start is not None else box
    if seen or require_box:
        return box or None
    numbers = re.findall(r"(?<![\w.])-?\d+(?:,\d{3})*(?:\.\d+)?(?:/\d+)?", text[-2000:])
    return numbers[-1] if numbers else None


def _number(text: str) -> Fraction | None:
    text = re.sub(r"\s|\\[,!;]|\\?\$|\{,\}", "", text).replace(r"\dfrac", r"\frac")
    text = re.sub(r"(?<=\d),(?=\d{3}(?!\d))", "", text)
    text = re.sub(r"^(-?)\\frac\{(\d+)\}\{(\d+)\}$", r"\1\2/\3", text)
    if len(text) > 1000 or not re.fullmatch(r"-?\d*\.?\d+(/0*[1-9]\d*)?", text, re.ASCII):
        return None
    top, _, bottom = text.partition("/")
    return Fraction(top) / int(bottom or 1)


def equivalent(answer: str, reference: str) -> bool:
    """Whether `answer` equals `reference`: the same string or the same rational number."""
    answer, reference = answer.strip(), reference.strip()
    if not answer or not reference:
        return False
    a, b = _number(answer), _number(reference)
    return answer == reference or (a is not None and a == b)


def verify(response: str, reference: str, require_box: bool = False) -> bool:
    """Whether the final answer of `response` equals `reference`."""
    answer = extract_answer(response, require_box)
    return answer is not None and equivalent(answer, reference)


def accuracy_reward(completions, answer, **columns) -> list[float]:
    """TRL `reward_funcs`: completions are strings, or lists of messages."""
    texts = [c if isinstance(c, str) else c[-1]["content"] for c in completions]
    return [float(verify(text, ref)) for text, ref in zip(texts, answer, strict=True)]


def compute_score(data_source, solution_str, ground_truth, extra_info=None, **kw) -> float:
    """veRL `custom_reward_function`."""
    return float(verify(solution_str, ground_truth))
