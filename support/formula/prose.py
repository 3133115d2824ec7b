r"""The answer that a text without a box ends with: after a label, or its last formula or number.

Nothing may come out of the middle of a formula: from "the point (3, 5)" not 5, from "3 + 4i" not 4.
"""

import re

from support.formula.rewrite import without_stop
from support.formula.same import CHOICE, is_formula
from support.formula.tokens import HEDGES, NUMBER_WORDS

LABEL = re.compile(r"####|\banswer(?:\s+is\b|\W{0,3}[:=\n])[\s:*=]*", re.IGNORECASE)
# where an answer in a sentence ends, but not in "A. B"
SENTENCE_END = re.compile(
    r"[.?](?=[\s*\"]|$)(?!\s*\(?[A-J]\)?\W*$)|\n|,?\s(?:because|since|as|so|where|which)\b"
)
# ** makes bold, but for 2**5
BOLD = re.compile(r"(?<!\w)\*\*|\*\*(?!\w)")
NAME = re.compile(r"\W*[A-Za-z]+(?:\([A-Za-z]\))?\W*")
# without dollars: pieces with a digit in them, what joins them, and letters beside an operator
SIGN = r'[^\s$"“”`\u3000-\u9fff\uff00-\uff0f]'
PIECE = rf"(?:\\?\$)?{SIGN}*\d{SIGN}*(?:[十百千万萬亿億兆半分][^\s$]*)?"
JOIN = r"(?<![.;:?!])[ ]+(?:(?:[-+*/=<>^×·÷±≤≥:]|and|or)[ ]+)?"
FORMULA = re.compile(
    rf"""  \$\$.+?\$\$ | \\\(.+?\\\) | \\\[.+?\\\]
        | (?<!\\)\$ (?!\d[\d,.]*\s+[A-Za-z]{{2}}) [^$]+ \$ (?!\s?\d)    # $ x + 1 $, not "$5 and $6"
        | (?:\\left\s*[(\[|.]\s*)?                                     # a matrix
          \\begin\{{([a-z]*matrix|array|cases)\}} .+? \\end\{{\1\}} (?:\s*\\right\s*[)\]|.])?
        | [(\[{{] (?:[^()\[\]{{}},\s]+,\s*)+ [^()\[\]{{}},\s]+ [)\]}}]  # (1, 2)
        | (?: (?<!\w)[A-Za-z][ ][-+*/=^][ ])* {PIECE}                   # x = 5, 3 + 4i
          (?: {JOIN}{PIECE} | [ ][-+*/=^][ ][A-Za-z](?!\w) )*
          (?: [ ](?:{"|".join(sorted(NUMBER_WORDS))})\b )?              # 5 million
    """,
    re.DOTALL | re.ASCII | re.VERBOSE,
)


def last_answer(text: str, limit: int) -> str | None:
    """What follows the last "answer is" or "####", else the last formula or number, or None.

    >>> last_answer("The answer is $1,234.", 99), last_answer("so 3 + 4 makes 7 in all", 99)
    ('$1,234', '7')
    >>> last_answer("The answer is 5 or maybe 6", 99), last_answer("in cm it is 2x", 99)
    ('5 or maybe 6', '2x')
    """
    labels = list(LABEL.finditer(text))
    if labels:
        text = SENTENCE_END.split(text[labels[-1].end() :].strip(), 1)[0].strip(' *"')[:limit]
    text = BOLD.sub(" ", text[-limit:]).strip()
    if len(text) < 200 and (is_formula(text) or labels and CHOICE.match(text)):
        return text
    found = [without_bracket(match[0]) for match in FORMULA.finditer(text)]
    # "the largest $n$ is 34"
    found = [part for part in found if not NAME.fullmatch(part)] or found
    if labels and (len(found) != 1 or taken_back(text, found[0])):
        return text or None
    return found[-1] if found else None


def without_bracket(part: str) -> str:
    """Without one that is closed, or opened, somewhere else, and without a full stop: 5). is 5."""
    part = without_stop(part)
    if part.count("(") < part.count(")"):
        return part.removesuffix(")")
    return part.removeprefix("(") if part.count("(") > part.count(")") else part


def taken_back(sentence: str, answer: str) -> bool:
    """Whether words around an answer deny it, or the next two change it: "not 5", "5 below zero".

    >>> taken_back("it is not 5", "5"), taken_back("the least of them is 5", "5")
    (True, False)
    """
    before, _, after = sentence.lower().rpartition(answer.lower())
    denied = {"not", "neither"} & set(before.split())
    return bool(denied or HEDGES & set(re.findall(r"[a-z]+", after)[:2]))
