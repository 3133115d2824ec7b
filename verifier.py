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

import math
import re
import threading
import unicodedata
import zlib
from functools import cache, lru_cache, partial

TAIL = 100_000  # characters at the end of a response that are searched for an answer
LENGTH = 1_500  # characters of an answer that is parsed; a longer one can only match as a string
DEPTH = 60  # nesting of brackets, fractions, roots and powers (a bracket counts twice)
DIGITS = 200  # decimal digits of all arithmetic; the last 20 are left to rounding
LOG2 = 100_000  # the largest binary logarithm: numbers end at about 10^30000
ARGUMENT = 3_000  # the largest argument of a factorial, an exponential or a sine
WORK = 20_000  # steps of one comparison, at about ten microseconds each
ITEMS = 64  # members of a list or set that are paired off in any order
POINTS = 8  # places where formulas are compared


class Unreadable(ValueError):
    """The text is outside the grammar, or a number outside the limits."""


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


# ---- 2. normalise: text to tokens --------------------------------------------------------------

_TRIG = set("sin cos tan cot sec csc sinh cosh tanh coth".split())
_ARC = {arc + name: "a" + name for name in _TRIG for arc in ("a", "ar", "arc")}
_FUNCTIONS = {*_TRIG, *_ARC, *"ln exp sqrt floor ceil max min gcd lcm".split()}
_NAMES = set(  # commands that stand for a symbol
    "alpha beta gamma delta epsilon varepsilon zeta eta theta vartheta iota kappa lambda mu nu xi "
    "pi rho sigma tau upsilon phi varphi chi psi omega Gamma Delta Theta Lambda Xi Pi Sigma Phi "
    "Psi Omega ell infty emptyset".split()
)
_LOOKS = {"\\ ", "\\\n"} | set(  # commands that change how a formula looks, not what it says
    r"\left \right \mleft \mright \middle \big \Big \bigg \Bigg \bigl \bigr \Bigl \Bigr \biggl "
    r"\biggr \quad \qquad \displaystyle \textstyle \limits \boxed \fbox \overline \vec \hat \bar "
    r"\widehat \bm \overrightarrow \angle \triangle \mathbf \boldsymbol \, \; \: \! \( \) \[ \] "
    r"\$ \-".split()
)
_SYNONYMS = {  # of each group the spelling that the parser knows comes first
    other: group.split()[0]
    for group in r"""
    - − ‐ ‑ ‒ – — ﹣ @ * \cdot \times \ast × · ⋅ ∗ ✕ @ / \div ÷ ⁄ ∕ @ ^ ** @ ± \pm @ ∓ \mp
    @ : \colon @ < \lt @ > \gt @ ≤ <= \le \leq \leqslant ⩽ @ ≥ >= \ge \geq \geqslant ⩾
    @ ≠ != \ne \neq @ = \in ∈ @ ≈ \approx \simeq @ ∪ \cup \cupdot @ | \lvert \rvert \vert \mid
    @ ° \circ \degree º @ ' \prime @ % \% percent pct @ \{ \lbrace @ \} \rbrace @ [ \lbrack
    @ ] \rbrack @ \lfloor ⌊ @ \rfloor ⌋ @ \lceil ⌈ @ \rceil ⌉ @ , & 、 @ ; \\
    @ \frac \dfrac \tfrac \cfrac @ \binom \dbinom \tbinom @ \sqrt √ sqrt @ \ln \log log
    @ \infty ∞ oo inf infinity @ \emptyset ∅ \varnothing @ \pi π @ \theta θ @ \alpha α @ \beta β
    @ \lambda λ
    """.split("@")
    for other in group.split()[1:]
}
_WORDS = set(  # other runs of two or three letters are products, as in TeX; longer ones are words
    "cm mm km nm ft in yd mi kg mg lb lbs oz ml min sec hr hrs mph kmh kph rad deg sq cu th st "
    "nd rd kw hz pa ev am pm usd eur no yes not odd any all for per the is of to by if be are cup "
    "day box men man boy old new one two six ten few".split()
)
_WRAPPER = re.compile(
    r"\\(?:text(?:bf|it|rm|normal)?|mbox|math(?:rm|it|sf)|operatorname)\s*\{([^{}]*)\}"
)
_ANSWER_IS = re.compile(r'\W*("?the\s+)?("?final\s+)?"?answer(\s+"?is\b|\s*:)[\s:]*', re.IGNORECASE)
_TEX = {*_FUNCTIONS, *_NAMES, *_LOOKS, *_SYNONYMS, *_SYNONYMS.values(), "text", "begin"}
_TEX = "|".join(word for name in _TEX if (word := name.strip("\\")).isalpha())
_DOUBLED = re.compile(rf"(?<!\\)\\\\(?=(?:{_TEX})(?![A-Za-z]))")  # \\frac for \frac
_TOKEN = r"""
  (?P<num>(?:(?:\d{1,3}(?:(?:COMMA)\d{3})+(?!\d)|\d+)(?:\.\d+)?|\.\d+)(?:[eE][+-]?\d+)?)
 |(?P<space>[\s$€£¥₹¢~]+)
 |(?P<word>"?[A-Za-z]+)
 |(?P<open>\\begin\{[a-z]*(?:matrix|array)\}(?:\{[clr|]*\})?)
 |(?P<close>\\end\{[a-z]*(?:matrix|array)\})
 |(?P<op>\\(?:quad|[lr]?vert|[A-Za-z]+|.)|<=|>=|!=|\*\*|[-+*/^_=<>(){}[\]|,;:!%&']|[^\x00-\x7f])
"""
_COMMAS = r",\\!\s*|\{,\}|\\[,;:! ]\s?|[ ]"  # what may separate groups of three digits
_OUTSIDE, _INSIDE = (  # inside brackets a bare comma separates members: (1,234) is a pair
    re.compile(_TOKEN.replace("COMMA", commas), re.VERBOSE | re.DOTALL | re.ASCII)
    for commas in (_COMMAS + "|,", _COMMAS)
)


def _quote(wrapper: re.Match) -> str:
    r"""Mark the words of \text{...}, so that 'm' in '10 \text{ m}' is a unit and not a symbol."""
    plain = wrapper[0].startswith(r"\operatorname") or wrapper[1].strip() in ("e", "i")
    mark = r"\1" if plain else r'"\1'
    text = re.sub(r"~|\.(?!\d)", " ", wrapper[1])  # "sq. units"
    return " " + re.sub("([A-Za-z]+)", mark, text) + " "


def normalise(text: str) -> str:
    r"""One spelling for Unicode, escapes, text wrappers and labels; the tokens do the rest.

    >>> normalise("4½²"), normalise(r"\text{Answer: }10 \text{cm}^2."), normalise(r"\\frac12")
    ('4\\frac{1}{2}^{2}', '10  "cm ^2', '\\frac12')
    """
    if not text.isascii():
        plain = partial(unicodedata.normalize, "NFKC")
        text = re.sub("[⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻]+", lambda run: f"^{{{plain(run[0])}}}", text)
        text = re.sub("[₀-₉]+", lambda run: f"_{{{plain(run[0])}}}", text)
        text = re.sub("[¼-¾⅐-⅞]", lambda c: rf"\frac{{{plain(c[0]).replace('⁄', '}{')}}}", text)
        text = "".join(c if c in _SYNONYMS else plain(c) for c in text)
        text = "".join(str(unicodedata.decimal(c, c)) for c in text)  # digits of any script
    text = _DOUBLED.sub(r"\\", text.replace("\f", r"\f").replace("\b", r"\b"))  # over-escaped TeX
    while (inner := _WRAPPER.sub(_quote, text)) != text:  # from the inside out
        text = inner
    text = text.strip(" \n$")
    label = _ANSWER_IS.match(text)
    return text[label.end() if label else 0 :].strip(" ").rstrip("\\.,;: \n$")


@lru_cache(maxsize=4096)
def tokenize(text: str, letter_units: bool = False) -> tuple[tuple[str, str], ...]:
    r"""(kind, text) of every token that matters; kinds are num, sym, word, op and sep.

    >>> tokenize(r"\$1,234\,\text{m}")
    (('num', '1234'), ('word', 'm'))
    >>> [token for _, token in tokenize(r"\left(1,\dfrac12\right)")]
    ['(', '1', ',', '\\frac', '12', ')']
    """
    text, tokens, position, depth = normalise(text), [], 0, 0
    while position < len(text):
        match = (_INSIDE if depth > 0 else _OUTSIDE).match(text, position)
        if match is None:
            raise Unreadable(text[position])
        kind, token, position = match.lastgroup, match[0], match.end()
        word, after = token.lstrip('"'), text[position : position + 1]
        if kind == "word" and word in _FUNCTIONS | _NAMES and (word != "min" or after == "("):
            token = "\\" + word
        token = {"open": "(", "close": ")"}.get(kind) or _SYNONYMS.get(word, token)
        depth += (token in ("(", "[", r"\{")) - (token in (")", "]", r"\}"))
        if kind == "space" or token in _LOOKS:
            continue
        if kind == "num":
            tokens.append((kind, re.sub(r"[^\d.eE+-]", "", token).lower()))
        elif word in ("and", "or") or token in (",", ";"):
            tokens.append(("sep", word if kind == "word" else token))
        elif kind == "word" and token.lstrip('"') == word:
            unit = letter_units and word in "msghLNJWVK" and tokens and tokens[-1][0] == "num"
            whole = token != word or len(word) > 3 or word.lower() in _WORDS or unit
            tokens += [("word", word)] if whole else [("sym", letter) for letter in word]
        else:
            tokens.append(("op", token))
    return tuple(tokens)


# ---- 3. parse: tokens to a tree (head, *parts) -------------------------------------------------
#
# Numbers are ("num", "0.50"), ("based", "52", "8"), ("sym", "x"), ("+", ...), ("*", ...),
# ("neg", a), ("inv", a), ("^", a, b), ("±", a), ("%", a), ("°", a), ("sin", a), ...
# The rest: ("word", "even"), ("unit", a, "2"), ("rel", "<≤", a, b, c), (":", a, b), ("∪", ...),
# ("list", ...), ("or", ...), ("set", ...), ("()", ...), ("[)", ...); a matrix is a tuple of tuples.

LEVELS = {**dict.fromkeys("=<>≤≥≠≈", 1), "∪": 2, ":": 3, **dict.fromkeys("+-±∓", 4), "*": 5, "/": 5}
_FENCES = {"|": ("abs", "|"), r"\lfloor": ("floor", r"\rfloor"), r"\lceil": ("ceil", r"\rceil")}
_CLOSING = {"(": (")", "]"), "[": (")", "]"), "{": ("}",), r"\{": (r"\}",)}
_BASES = "zero one two three four five six seven eight nine ten eleven twelve".split()
_HEDGES = set(  # and other words after a value that change it
    "not wrong incorrect maybe perhaps possibly either neither unless except plus minus times "
    "squared cubed factorial hundred thousand million billion trillion dozen".split()
)
INFINITY = ("sym", r"\infty")


def _nested(method):
    """All recursion of the parser goes through such methods, so that no tree is deep."""

    def bounded(self):
        self.depth += 1
        if self.depth > DEPTH:
            raise Unreadable("nested too deeply")
        tree = method(self)
        self.depth -= 1
        return tree

    return bounded


class Parser:
    """Precedence climbing: `expression` over LEVELS, `operand` with signs and postfixes, `atom`."""

    def __init__(self, tokens):
        self.tokens, self.at, self.depth, self.bars = [*tokens, ("end", "")], 0, 0, 0

    def peek(self, *kinds: str) -> str:
        """The text of the next token if it is an operator, or of one of these kinds; else ''."""
        return self.tokens[self.at][1] if self.tokens[self.at][0] in (kinds or ("op",)) else ""

    def take(self, *operators: str) -> str:
        """Step over the next token if it is one of these operators (over any, without argument)."""
        token = self.peek() if operators else self.tokens[self.at][1]
        if operators and token not in operators:
            return ""
        self.at += 1
        return token

    def expect(self, *operators: str) -> str:
        if not self.peek() or self.peek() not in operators:
            raise Unreadable(f"{self.tokens[self.at]} where one of {operators} should be")
        return self.take()

    def answer(self):
        """Items separated by commas and words; a semicolon begins a new row: (1, 2; 3, 4)."""
        rows, joins, signs = [[]], set(), {""}
        while signs and self.tokens[self.at][0] != "end":
            rows[-1].append(self.item())
            signs = set()
            while self.peek("sep"):
                signs.add(self.take())
            joins |= signs
            if self.peek() in (")", "]", r"\}"):
                break
            rows += [[]] if ";" in signs else []
        if len(rows) > 1 and max(map(len, rows)) > 1:
            return ("list", *(("()", *row) for row in rows if row))
        items = [item for row in rows for item in row]
        if not items:
            raise Unreadable("empty")
        return items[0] if len(items) == 1 else ("or" if "or" in joins else "list", *items)

    def item(self):
        """An expression; words after it are its unit: cm^2, square feet, km/h."""
        self.take("≈")
        tree, power = self.expression(), ""
        if self.peek("word"):
            while self.peek("word", "sym", "num") or self.peek() in ("^", "/", "*", "{", "}", "-"):
                if self.peek("num") and self.tokens[self.at - 1][1] not in ("^", "{", "-"):
                    break
                power += self.peek("num")
                if self.take().lower() in _HEDGES:
                    raise Unreadable("a hedge")
        return ("unit", tree, power) if power else tree

    def expression(self, level: int = 0):
        """Everything that binds tighter than `level`."""
        tree = self.operand()
        while True:
            sign = self.peek()
            starts = self.peek("sym") or self.peek("num") and self.tokens[self.at - 1][1] == ")"
            starts = starts or sign and sign[1:] in _FUNCTIONS | _NAMES | {"frac", "binom"}
            starts = starts or sign in ("(", "{", *_FENCES) and not (sign == "|" and self.bars)
            sign = "*" if starts else sign  # juxtaposition
            if LEVELS.get(sign, 0) <= level:
                return tree
            self.take(*LEVELS)
            part = self.expression(LEVELS[sign])
            if sign == "≈" and not is_name(tree):
                continue  # what follows says less than what stands before
            part = ("±", part) if sign in "±∓" else ("inv", part) if sign == "/" else part
            part = ("neg", part) if sign in "-∓" else part
            if LEVELS[sign] == 1:
                signs, *sides = tree[1:] if tree[0] == "rel" else ("", tree)
                tree = ("rel", signs + sign.replace("≈", "="), *sides, part)
            else:
                head = "+" if LEVELS[sign] == 4 else sign.replace("/", "*")
                tree = (*tree, part) if tree[0] == head else (head, tree, part)
            if tree[0] == ":" and tree[1][0] == "word":  # "Minimum: 1"
                tree = ("rel", "=", *tree[1:])

    @_nested
    def operand(self):
        """An atom with the signs before it and the powers, !, % and ° after it."""
        signs = ""
        while sign := self.take(*"+-±∓"):
            signs += sign
        tree = self.expression(4) if signs else self.atom()
        while sign := self.take("!", "%", "°", "^"):
            ahead = self.tokens[self.at : self.at + 2]
            if sign == tree[0] or tree[0] in "%°":
                raise Unreadable("5!! is not (5!)!, and nothing follows 5%")
            if sign != "^":
                tree = (sign, tree)
            elif ahead[0][1] == "{" and (ahead[1][1] == "°" or ahead[1][0] == "word"):  # 12^{th}
                tree, self.at = ("°", tree) if ahead[1][1] == "°" else tree, self.at + 3
            else:
                tree = ("°", tree) if self.take("°") else ("^", tree, self.exponent())
        tree = ("±", tree) if "±" in signs or "∓" in signs else tree
        return ("neg", tree) if (signs.count("-") + signs.count("∓")) % 2 else tree

    def argument(self, peel: bool = True):
        r"""What a command or ^ applies to: a group or one token; \frac12 takes single digits."""
        if self.peek() == "-":
            return self.operand()
        digits = self.peek("num")
        if digits and peel:
            self.tokens[self.at : self.at + 1] = [("num", d) for d in (digits[0], digits[1:]) if d]
        if digits:
            return ("num", self.take())
        return self.atom()

    @_nested
    def exponent(self):
        """What is in a power, from the right: 2^3^2 is 2^9."""
        part = self.argument(peel=False)
        return ("^", part, self.exponent()) if self.take("^") else part

    @_nested
    def atom(self):
        """What has no parts of its own, and what begins with a command or a bracket."""
        kind, token = self.tokens[self.at]
        self.take()
        if kind == "num":
            return self.number(token)
        if kind == "word":
            while self.peek("word"):
                token += " " + self.take()
            return ("word", token.lower()) if len(token) > 1 else ("sym", token)
        if kind == "sym" or token[1:] in _NAMES:
            return self.symbol(token)
        if token in _CLOSING:
            return self.bracket(token)
        if token in _FENCES:
            head, closing = _FENCES[token]
            self.bars += token == "|"
            tree = (head, self.expression(1))
            self.expect(closing)
            self.bars -= token == "|"
            return tree
        if token == r"\frac":
            return ("*", self.argument(), ("inv", self.argument()))
        if token == r"\binom":
            return ("binom", self.argument(), self.argument())
        if token == r"\sqrt":
            index = self.bracket("[") if self.take("[") else ("num", "2")
            return ("root", self.argument(peel=False), index)
        if token[1:] in _FUNCTIONS:
            return self.function(token[1:])
        raise Unreadable(token)

    def number(self, text: str):
        """A literal, one with a base (52_8), or a mixed number (11 5/6 and 1\\frac{1}{2})."""
        if self.take("_"):
            base = self.argument(peel=False)[1]
            return ("based", text, str(_BASES.index(base)) if base in _BASES else base)
        ahead = self.tokens[self.at : self.at + 3]
        if [kind for kind, _ in ahead] == ["num", "op", "num"] and ahead[1][1] == "/":
            self.at += 3
            return ("+", ("num", text), ("*", ahead[0], ("inv", ahead[2])))
        if self.peek() == r"\frac" and text.isdecimal():
            part = self.operand()
            plain = part[0] == "*" and part[1][0] == part[2][1][0] == "num"
            return ("+" if plain else "*", ("num", text), part)
        return ("num", text)

    def symbol(self, name: str):
        """A symbol with its subscript, whatever that is, and its primes: a_{n+1}, m_{\\max}, f'."""
        if self.take("_"):
            name, token, depth = name + "_", "", 0
            while depth or not token:
                token = self.take() if self.tokens[self.at][0] != "end" else self.expect("}")
                depth += (token == "{") - (token == "}")
                name += token.strip("{}")
        while self.take("'"):
            name += "'"
        return ("sym", name)

    def function(self, name: str):
        r"""A call: \sin x, \sin^2(x), \sin^{-1} x, \log_2 8, \ln 2x; \sin x \cos x is two."""
        base = self.argument(peel=False) if self.take("_") else None
        power = self.argument(peel=False) if self.take("^") else None
        if self.peek() and self.peek() in "([{":
            inner = self.bracket(self.take())
        else:
            inner = self.operand()
            while self.peek("sym") or self.peek()[1:] in {*_NAMES, "frac"} and self.peek():
                inner = ("*", inner, self.operand())
        if power == ("neg", ("num", "1")):
            name, power = "arc" + name, None
        arguments = inner[1:] if inner[0] in ("()", "set") else (inner,)  # max(a, b)
        tree = (_ARC.get(name, name), *arguments, *([base] if base else []))
        return ("^", tree, power) if power else tree

    def bracket(self, opening: str):
        """What is inside: one value, a tuple or an interval, a set; the opening is taken."""
        bars, self.bars = self.bars, 0
        if opening == r"\{" and self.peek("sym") and self.tokens[self.at + 1][1] in ("|", ":"):
            self.at += 2  # {x | 2 < x < 3}
        tree = self.answer()
        closing, self.bars = self.expect(*_CLOSING[opening]), bars
        if opening + closing in ("(]", "[)") and (tree[0] != "list" or len(tree) != 3):
            raise Unreadable("these brackets are of intervals")
        if tree[0] not in ("list", "or"):
            return ("set", tree) if opening == r"\{" and tree[0] != "rel" else tree
        return (opening + closing if opening in "([" else "set", *tree[1:])


def read(text: str, letter_units: bool = False):
    """The tree of an answer, or None if it is outside the grammar or the limits.

    >>> read("2x"), read("2 x x")
    (('*', ('num', '2'), ('sym', 'x')), ('*', ('num', '2'), ('sym', 'x'), ('sym', 'x')))
    """
    try:
        parser = Parser(tokenize(text, letter_units))
        tree = parser.answer()
        return tree if parser.tokens[parser.at][0] == "end" else None
    except (Unreadable, RecursionError):
        return None


# ---- 4. evaluate, with mpmath ------------------------------------------------------------------


class Arithmetic(threading.local):
    """mpmath for one thread (its global precision is shared by all), and the work left."""

    def __init__(self):
        import mpmath  # sympy's arithmetic, loaded only when strings and integers do not decide

        self.mp = mp = mpmath.MPContext()
        mp.dps = DIGITS
        self.work, self.noise = 0, mp.mpf(10) ** (20 - DIGITS)
        self.constants = {r"\pi": +mp.pi, "e": +mp.e, "i": mp.mpc(0, 1)}
        trigonometric = {name: getattr(mp, name) for name in {*_TRIG, *_ARC.values()}}
        self.cancelling = {"+": self.sum, "ln": mp.log, **trigonometric}  # may leave rounding for 0
        self.limited = {"!": mp.factorial, "binom": mp.binomial, "exp": mp.exp, **trigonometric}
        self.operations = {
            **self.cancelling, **self.limited, "*": lambda *xs: mp.fprod(xs), "^": self.power,
            "root": self.root, "neg": lambda x: -x, "inv": lambda x: 1 / x, ":": lambda x, y: x / y,
            "%": lambda x: x / 100, "°": lambda x: x, "abs": abs,
            "max": lambda *xs: max(xs), "min": lambda *xs: min(xs),
            "gcd": partial(self.integers, math.gcd), "lcm": partial(self.integers, math.lcm),
            "floor": lambda x: mp.floor(x + self.noise), "ceil": lambda x: mp.ceil(x - self.noise),
        }  # fmt: skip

    def spend(self, steps: int) -> None:
        self.work -= steps
        if self.work < 0:
            raise Unreadable("too much work")

    def sum(self, *xs):
        """A sum in which no term gets lost: 10^400 + 1 would be 10^400."""
        sizes = [abs(x) for x in xs if x]
        if sizes and min(sizes) < self.noise * max(sizes):
            raise Unreadable("10^400 + 1 needs more digits")
        return self.mp.fsum(xs)

    def integers(self, function, *xs):
        if any(not self.mp.isint(x) or abs(x) > 10**100 for x in xs):
            raise Unreadable("not an integer")
        return self.mp.mpf(function(*map(int, xs)))

    def power(self, x, y):
        if x and y and abs(y) * (abs(self.mp.mag(x)) + 1) > LOG2:
            raise Unreadable("power too large")
        return x**y

    def root(self, x, n):
        odd = n in range(3, 1000, 2) and self.is_real(x) and x < 0
        return -self.power(-x, 1 / n) if odd else self.power(x, 1 / n)

    def symbol(self, name: str, point: int):
        """A constant, or a number that depends on nothing but the name and the point."""
        if name in self.constants:
            return self.constants[name]
        noise = zlib.crc32(f"{name}/{point}".encode())
        part = self.mp.mpf(noise % 1009 + 1) / 1013
        return (1 + 2 * part, -2 * part, self.mp.mpf(noise % 23 + 2), part)[point % 4]

    def value(self, tree, point: int = 0):
        """The number a tree stands for at a point, or None if it stands for none."""
        try:
            return self.evaluate(tree, point)
        except (ArithmeticError, ValueError, TypeError, KeyError, RecursionError):
            return None

    def evaluate(self, tree, point: int):
        head, *parts = tree
        self.spend(1 if head in ("num", "+", "*", "neg", "inv") else 20)
        if head == "num":
            if len(parts[0].strip("0.")) > DIGITS - 20:
                raise Unreadable("too many digits")
            return self.mp.mpf(parts[0])
        if head == "sym":
            return self.symbol(parts[0], point)
        if head in _TRIG and parts[0][0] == "°":
            parts = [("*", parts[0], ("sym", r"\pi"), ("inv", ("num", "180")))]
        args = [self.evaluate(part, point) for part in parts]
        largest = max(map(abs, args))
        if head in self.limited and largest > ARGUMENT:
            raise Unreadable("argument too large")
        x = self.operations[head](*args)
        if not self.mp.isfinite(x) or x and abs(self.mp.mag(x)) > LOG2:
            raise Unreadable("number too large")
        if head in self.cancelling and abs(x) <= self.noise * largest:
            return self.mp.zero  # only rounding is left
        return x if self.is_real(x) or abs(x.imag) > self.noise * abs(x) else x.real

    def is_real(self, x) -> bool:
        return isinstance(x, self.mp.mpf)

    def equal(self, x, y) -> bool:
        return abs(x - y) <= self.noise * max(abs(x), abs(y))


@cache
def arithmetic() -> Arithmetic:
    return Arithmetic()


# ---- 5. compare ------------------------------------------------------------------------------


def symbols(tree) -> set[str]:
    """The names in a tree.

    >>> symbols(read("x^2 + 2 x a_1 e")) == {"x", "a_1"}
    True
    """
    if tree[0] == "sym":
        return {tree[1]} - {r"\pi", "e", "i"}
    return set().union(*(symbols(part) for part in tree[1:] if isinstance(part, tuple)))


def is_name(tree) -> bool:
    r"""x, x_1, AB, f(x), (p, q), V_1:V_2, \text{Maximum}: what an equation can define."""
    return tree[0] in ("sym", "word") or tree[0] in ("*", "()", ":") and all(map(is_name, tree[1:]))


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
        agree = a[0] != b[0] or a[2] == b[2]  # cm^2 is not cm^3, but may be left out
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


# ---- 6. the public functions -----------------------------------------------------------------

_CHOICE = re.compile(r'\(?"?([A-Ja-e])(?:\)|\.|:)(?:\s|\\ )+(?=\S)')


def _key(text: str):
    """Equal for answers that are the same string after normalisation."""
    try:
        return tuple(token.lower() if kind == "word" else token for kind, token in tokenize(text))
    except Unreadable:
        return "".join(normalise(text).split())


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
        readings.append(read(answer, letter_units=True))
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
