r"""Text to tokens: numbers, words, symbols and operators, each in one spelling.

A token is "2.5", "x", '"metres' (words begin with a quotation mark), "\frac", "≤" or a bracket.
"""

import re
from functools import lru_cache

from support.formula.rewrite import rewrite, without_stop

TRIG = set("sin cos tan cot sec csc sinh cosh tanh coth".split())
# asin, arsin and arcsin are all "asin"
ARC = {arc + name: "a" + name for name in TRIG for arc in ("a", "ar", "arc")}
FUNCTIONS = {*TRIG, *ARC, *"ln log lg exp sqrt floor ceil max min gcd lcm det".split()}
# commands that stand for a symbol
NAMES = set(
    "alpha beta gamma delta epsilon varepsilon theta kappa lambda mu nu xi pi rho sigma tau phi "
    "varphi chi psi omega Gamma Delta Theta Lambda Sigma Phi Psi Omega infty emptyset".split()
)
# Two or three letters are a product, as in TeX (abc is a times b times c), but for these words;
# four letters or more are always a word.
SHORT_WORDS = set(
    "cm mm km ft in yd mi kg mg lb lbs oz ml min sec hr hrs mph rad deg sq cu th st nd rd am pm no "
    "yes not odd any all for per the is of to by if be are day men man one two six ten".split()
)
# number words after a value make another value: 5 million, 5 thirds (a second is a unit of time)
STEMS = "thir four fif six seven eigh nine".split()
NUMBERS = (
    "zero one two three four five six seven eight nine ten eleven twelve hundred thousand million "
    "billion trillion lakh lac crore arab dozen gross score grand mil mille permille bn point"
).split() + [stem + end for stem in [*STEMS, "twen", "for"] for end in ("teen", "ty")]
PARTS = "third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth quarter".split() + [
    stem + end
    for stem in [*STEMS, "twen", "for", "hundred", "thousand", "million", "billion"]
    for end in ("teenth", "tieth", "th")
]
NUMBER_WORDS = set(
    "half halves double doubled twice triple tripled thrice times squared cubed factorial plus "
    "minus root binary octal hexadecimal base".split()
).union(*({word, word + "s"} for word in NUMBERS + PARTS))
# words that take an answer back, or leave it open: 5 maybe, 5 is wrong, 5 at most, 5 below zero
HEDGES = NUMBER_WORDS | set(
    "not no wrong incorrect false untrue invalid rejected excluded eliminated ruled cannot never "
    "maybe perhaps possibly probably either neither nor unless except but than least most below "
    "under beneath negative".split()
)
# words that come in opposites: 5 am is not 5 pm, 5 north is not 5 south, but both may be left out
OPPOSITES = set(
    "am pm bc ad north south east west left right up down gain loss profit early late ahead behind "
    "clockwise counterclockwise anticlockwise noon midnight".split()
)
# the spelling that the parser knows, and the others
SYNONYMS = {
    "-": "− ‐ – —".split(),
    "*": r"\cdot \times \ast × · ⋅ ∗".split(),
    "/": r"\div ÷ ⁄ ∕".split(),
    "^": ["**"],
    "±": [r"\pm"],
    "∓": [r"\mp"],
    ":": [r"\colon"],
    "<": [r"\lt"],
    ">": [r"\gt"],
    "≤": r"<= \le \leq \leqslant ⩽".split(),
    "≥": r">= \ge \geq \geqslant ⩾".split(),
    "≠": r"!= \ne \neq".split(),
    "=": r"\in ∈".split(),
    "≈": r"\approx \simeq".split(),
    r"\mod": r"\bmod mod".split(),
    "∪": [r"\cup"],
    "|": r"\lvert \rvert \vert \mid".split(),
    "°": [r"\degree"],
    "'": [r"\prime"],
    "%": r"\% percent pct".split(),
    r"\{": [r"\lbrace"],
    r"\}": [r"\rbrace"],
    "(": [r"\langle"],
    ")": [r"\rangle"],
    "[": [r"\lbrack"],
    "]": [r"\rbrack"],
    ",": "& 、 and".split(),
    ";": [r"\\"],
    "∨": ["or"],
    r"\lfloor": ["⌊", r"\llcorner"],
    r"\rfloor": ["⌋", r"\lrcorner"],
    r"\lceil": ["⌈", r"\ulcorner"],
    r"\rceil": ["⌉", r"\urcorner"],
    r"\frac": r"\dfrac \tfrac \cfrac".split(),
    r"\sqrt": ["√"],
    r"\binom": r"\dbinom \tbinom".split(),
    "infty": "∞ oo inf infinity".split(),
    "emptyset": r"∅ \varnothing".split(),
    "pi": ["π"],
    "theta": ["θ"],
    "alpha": ["α"],
    "beta": ["β"],
}
_KNOWN = {other: known for known, others in SYNONYMS.items() for other in others}

_TOKEN = re.compile(
    r"""  \d* \.\d+ (?: [eE] [+-]? \d+ )?                     # 0.5, .5, 6.02e23, 1.5e-3
        | \d+ (?: E [+-]? \d+ | e \d+ )?                      # 12, 3E-8, 3e8; but 2e-1 is 2 e - 1
        | "? [A-Za-z]+                                         # abc, and "metres from a \text
        | \\ (?: [lr]?vert | [A-Za-z]+ | . )                   # \frac, \{; \vertx is \vert x
        | [<>!]= | \*\* | \S                                   # operators
    """,
    re.DOTALL | re.ASCII | re.VERBOSE,
)


@lru_cache(maxsize=4096)
def tokenize(text: str) -> tuple[str, ...]:
    r"""The tokens that matter.

    >>> tokenize(r"\$1,234\,\text{m}."), tokenize(r"\left(1,\\dfrac12\right)")
    (('1234', '"m'), ('(', '1', ',', '\\frac', '12', ')'))
    """
    tokens = []
    for token in _TOKEN.findall(without_stop(rewrite(text))):
        token = _KNOWN.get(token.lstrip('"'), token)
        word = token.lstrip('"\\')
        if word in NAMES and token[0] != '"':
            # \pi and pi
            tokens.append(word)
        elif word in FUNCTIONS and (token[0] == "\\" or word not in SHORT_WORDS):
            # \sin and sin; min without a backslash is a unit
            tokens.append("\\" + word)
        elif not (token.isascii() and token.lstrip('"').isalpha()):
            # numbers, operators, other commands
            tokens.append(token)
        elif token[0] == '"' or len(word) > 3 or word.lower() in SHORT_WORDS:
            # a word, and its case does not count unless it is one letter
            tokens.append('"' + (word.lower() if word[1:] else word))
        else:
            # a product: one symbol a letter
            tokens += word
    return tuple(tokens)


def kind(token: str) -> str:
    """num, word, sym, or else op."""
    match = re.match(r'(?P<num>\.?[0-9])|(?P<word>"[A-Za-z])|(?P<sym>[A-Za-z])', token)
    return match.lastgroup if match else "op"
