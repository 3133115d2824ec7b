r"""A mathematical answer in TeX, plain text or Unicode: read to a tree, and the tree evaluated.

    text -> tokenize -> read -> a tree (head, *parts) -> its value at a point

The grammar is small and our own, so no text reaches eval, sympify or parse_expr. Trees are valued
with mpmath, the arithmetic below sympy, at 200 digits: unlike `simplify` that takes a time that
can be bounded, and tells formulas apart as well as together. Nothing is built before its size is
known, and a formula nested too deeply ends in Python's own RecursionError, on the way down.

Heads of numbers: num sym + * / neg ^ ± % ° ! abs root sin ...; of the rest: word, based (52_8),
unit (5 cm^2), rel (a < x <= b), ":", ∪, list, or, set, () (] [) []; a matrix is a tuple of tuples.
"""

import re
import threading
import unicodedata
import zlib
from functools import cache, lru_cache

DIGITS = 200  # decimal digits of all arithmetic; the last 20 are left to rounding
LOG2 = 100_000  # the largest binary logarithm: numbers end at about 10^30000
ARGUMENT = 3_000  # the largest argument of a factorial, an exponential or a sine
WORK = 10_000  # steps of one comparison, at about ten microseconds each


class Unreadable(ValueError):
    """The text is outside the grammar, or a number outside the limits."""


def require(condition, otherwise: str) -> None:
    if not condition:
        raise Unreadable(otherwise)


# ---- 1. normalise and tokenize -----------------------------------------------------------------

_TRIG = set("sin cos tan cot sec csc sinh cosh tanh coth".split())
_ARC = {arc + name: "a" + name for name in _TRIG for arc in ("a", "ar", "arc")}
_FUNCTIONS = {*_TRIG, *_ARC, *"ln exp sqrt floor ceil max min".split()}
_NAMES = set(  # commands that stand for a symbol
    "alpha beta gamma delta epsilon varepsilon theta kappa lambda mu nu xi pi rho sigma tau phi "
    "varphi chi psi omega Gamma Delta Theta Lambda Sigma Phi Psi Omega infty emptyset".split()
)
_WORDS = set(  # other runs of two or three letters are products, as in TeX; longer ones are words
    "cm mm km ft in yd mi kg mg lb lbs oz ml min sec hr hrs mph rad deg sq cu th st nd rd am pm no "
    "yes not odd any all for per the is of to by if be are day men man".split()
)
_SYNONYMS = {  # of each group the spelling that the parser knows comes first
    other: group.split()[0]
    for group in r"""
    - − ‐ – — @ * \cdot \times \ast × · ⋅ ∗ @ / \div ÷ ⁄ ∕ @ ^ ** @ ± \pm @ ∓ \mp @ : \colon
    @ < \lt @ > \gt @ ≤ <= \le \leq \leqslant ⩽ @ ≥ >= \ge \geq \geqslant ⩾ @ ≠ != \ne \neq
    @ = \in ∈ @ ≈ \approx \simeq @ ∪ \cup @ | \lvert \rvert \vert \mid @ ° \circ \degree @ ' \prime
    @ % \% percent pct @ \{ \lbrace @ \} \rbrace @ [ \lbrack @ ] \rbrack @ , & 、 and @ ; \\ @ ∨ or
    @ \lfloor ⌊ @ \rfloor ⌋ @ \lceil ⌈ @ \rceil ⌉ @ \frac \dfrac \tfrac \cfrac @ \sqrt √
    @ \binom \dbinom \tbinom @ \ln \log log @ infty ∞ oo inf infinity @ emptyset ∅ \varnothing
    @ pi π @ theta θ @ alpha α @ beta β""".split("@")
    for other in group.split()[1:]
}
_REWRITES = {  # pattern: replacement, applied in this order
    "[⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻]+": r"^{\g<0>}",
    "[₀-₉]+": r"_{\g<0>}",
    "[¼-¾⅐-⅞]": r" \g<0>",
    "[^\x00-\x7f]+": lambda run: unicodedata.normalize("NFKC", run[0]),  # ½ becomes 1⁄2
    r"(\d+)⁄(\d+)": r"\\frac{\1}{\2}",
    r"(?<!\\)\\\\(?=[A-Za-z]{2})": r"\\",  # over-escaped: \\frac
    r",\\!\s*": "{,}",
    # what changes the looks of a formula, not what it says
    r"(?<!\\)\\(?:[,;:! \n()[\]$]|q?quad|(?:m?left|m?right|[bB]igg?[lr]?|displaystyle|boxed|vec"
    r"|overline|hat|bar|angle|triangle)(?![A-Za-z]))|[$€£¥~]": " ",
    r"\\(?:operatorname|math[a-z]+)\s*\{([^{}]*)\}": r" \1 ",
    r"\\(?:text(?:bf|it|rm|normal)?|mbox)\s*\{([^{}]*)\}":  # in 10 \text{ m} the m is no symbol
        lambda text: re.sub(r"\b(?![ei]\b)([A-Za-z]+)\.?", r'"\1', f" {text[1]} "),
    r'^\W*+(?i:["a-z\s]*\banswer\s*("?is\b|:))[\s:]*': "",
    r"\\(begin|end)\{[a-z]*(?:matrix|array)\}(?:\{[clr|]*\})?": lambda m: "()"[m[1] == "end"],
    r"\^\s*\{?\s*(?:\\circ|\\degree|°)\s*\}?": "°",
    # digits in groups of three, with a bare comma only if no bracket follows: (1,234) is a pair
    r"(?<![\d.,])\d{1,3}(?:(?:\{,\}| |,(?!(?s:.*)(?:[)\]]|\\\})))\d{3})+(?!\d)":
        lambda number: re.sub(r"\D", "", number[0]),
    r"(\d)\s+(\d+)\s*/\s*(\d+)": r"\1\\frac{\2}{\3}",  # 1 1/2, and this is a sum:
    r"(?<![\w.^}])(\d+)\s*\\[dtc]?frac\s*(\d|\{\d+\})\s*(\d|\{\d+\})": r"{\1+\\frac\2\3}",
}  # fmt: skip
_TOKEN = re.compile(  # numbers, words, commands (\vertx has been seen), other operators
    r'(?:\d+(?:\.\d+)?|\.\d+)(?:[eE][+-]?\d+)?|"?[A-Za-z]+|\\(?:[lr]?vert|[A-Za-z]+|.)|[<>!]=|\*\*|\S',
    re.DOTALL | re.ASCII,
)


@lru_cache(maxsize=4096)
def tokenize(text: str) -> tuple[str, ...]:
    r"""The tokens that matter, in one spelling; words begin with a quotation mark.

    >>> tokenize(r"\$1,234\,\text{m}."), tokenize(r"\left(1,\\dfrac12\right)")
    (('1234', '"m'), ('(', '1', ',', '\\frac', '12', ')'))
    """
    for pattern, new in _REWRITES.items():
        text = re.sub(pattern, new, text)
    tokens = []
    for token in _TOKEN.findall(text.strip(" \n").rstrip("\\.,;: \n")):
        token = _SYNONYMS.get(token.lstrip('"'), token)
        word = token.lstrip('"\\')
        if word in _NAMES:
            tokens.append(word)
        elif word in _FUNCTIONS and (token[0] == "\\" or word not in _WORDS):
            tokens.append("\\" + word)
        elif not (token.isascii() and token.lstrip('"').isalpha()):
            tokens.append(token)
        elif token[0] == '"' or len(word) > 3 or word.lower() in _WORDS:
            tokens.append('"' + (word.lower() if word[1:] else word))
        else:
            tokens += word
    return tuple(tokens)


def kind(token: str) -> str:
    """num, word, sym, or else op."""
    match = re.match(r'(?P<num>\.?[0-9])|(?P<word>"[A-Za-z])|(?P<sym>[A-Za-z])', token)
    return match.lastgroup if match else "op"


# ---- 2. read: tokens to a tree -----------------------------------------------------------------

_LEVELS = enumerate(("=<>≤≥≠≈", "∪", ":", "+-±∓", "*/"), 1)  # later ones bind tighter
LEVELS = {sign: level for level, signs in _LEVELS for sign in signs}
_FENCES = {"|": ("abs", "|"), r"\lfloor": ("floor", r"\rfloor"), r"\lceil": ("ceil", r"\rceil")}
_CLOSING = {"(": (")", "]"), "[": (")", "]"), "{": ("}",), r"\{": (r"\}",)}
_CANCELLING = {"+", "ln", *_TRIG, *_ARC.values()}  # where only rounding may be left instead of 0
_COMMANDS = {r"\frac": "/", r"\binom": "binom"}
_STARTS = {"(", "{", *_COMMANDS, r"\lfloor", r"\lceil", *("\\" + name for name in _FUNCTIONS)}
HEDGES = set(  # and other words after a value that change it
    "not wrong incorrect maybe perhaps possibly either neither unless except plus minus times "
    "squared cubed factorial hundred thousand million billion trillion dozen".split()
)
INFINITY = ("sym", "infty")


class Parser:
    """Precedence climbing: `expression` over LEVELS, `operand` with signs and postfixes, `atom`."""

    def __init__(self, text: str):
        self.rest = ["", *reversed(tokenize(text))]  # the next token is the last one

    def take(self, *wanted: str) -> str:
        """The next token, stepped over, if it is one of these; else ''."""
        return self.rest.pop() if self.rest[-1] in wanted else ""

    def answer(self):
        """Items separated by commas and words; a semicolon begins a new row: (1, 2; 3, 4)."""
        rows, joins, sign = [[]], "", ","
        while sign and self.rest[-1] not in ("", ")", "]", "}", r"\}"):
            rows[-1].append(self.item())
            sign = ""
            while more := self.take(",", ";", "∨"):
                sign += more
            joins += sign
            rows += [[]] if ";" in sign else []
        if max(map(len, rows)) > 1 and len(rows) > 1:
            return ("list", *(("()", *row) for row in rows if row))
        items = [item for row in rows for item in row]
        require(items, "empty")
        return items[0] if len(items) == 1 else ("or" if "∨" in joins else "list", *items)

    def item(self):
        """An expression; words after it are its unit: cm^2, square feet, km/h."""
        tree, powers = self.expression(), []
        while kind(self.rest[-1]) in ("word", "sym"):
            require(self.rest.pop()[1:] not in HEDGES, "a hedge")
            powers += [self.argument()] if self.take("^") else []
            self.take("/", "*")
        return ("unit", tree, *powers) if powers else tree

    def expression(self, level: int = 0):
        """Everything that binds tighter than `level`."""
        tree = self.operand()
        while True:
            sign = self.rest[-1]
            if kind(sign) == "sym" or sign in _STARTS:
                sign = "*"  # juxtaposition
                self.rest.append(sign)
            if LEVELS.get(sign, 0) <= level:
                return tree
            self.rest.pop()
            part = self.expression(LEVELS[sign])
            if sign == "≈" and not is_name(tree):
                continue  # what follows says less than what stands before
            if LEVELS[sign] == 1:
                signs, *sides = tree[1:] if tree[0] == "rel" else ("", tree)
                tree = ("rel", signs + sign.replace("≈", "="), *sides, part)
            else:
                head = "+" if LEVELS[sign] == 4 else sign
                first = tree[1:] if tree[0] == head != "/" else (tree,)
                tree = (head, *first, signed(sign, part))

    def operand(self):
        """An atom with the signs before it, or with the powers, !, % and ° after it."""
        if sign := self.take(*"+-±∓"):
            return signed(sign, self.expression(LEVELS["+"]))
        tree = self.atom()
        while sign := self.take("!", "%", "°", "^"):
            require(sign != tree[0] and tree[0] not in "%°", "5!!, 2^3^4 and 5%! are unclear")
            tree = (sign, tree, self.argument()) if sign == "^" else (sign, tree)
        return tree

    def argument(self, digit: bool = False):
        r"""What a command or ^ applies to: a group or one token, or digit: \frac12 is 1/2."""
        token = self.rest[-1]
        if digit and kind(token) == "num" and len(token) > 1:
            self.rest[-1:] = [token[1:], token[0]]
        return self.operand() if token == "-" else self.atom()

    def atom(self):
        """What has no parts of its own, and what begins with a command or a bracket."""
        token = self.rest.pop()
        if kind(token) == "num":
            return ("based", token, self.argument()[1]) if self.take("_") else ("num", token)
        if kind(token) == "word":
            while kind(self.rest[-1]) == "word":
                token += " " + self.rest.pop()[1:]
            return ("word" if token[2:] else "sym", token[1:])
        if kind(token) == "sym":
            opened = 0  # a subscript may be anything: a_{n+1}, R_{\odot}
            while opened or token[-1] == "_" or self.rest[-1] in ("_", "'"):
                require(self.rest[-1], "not closed")
                opened += (self.rest[-1] == "{") - (self.rest[-1] == "}")
                token += self.rest.pop().strip("{}")
            return ("sym", token)
        if token in _CLOSING:
            return self.bracket(token)
        if token in _FENCES:
            head, closing = _FENCES[token]
            tree = (head, self.expression(1))
            require(self.take(closing), "not closed")
            return tree
        if token in _COMMANDS:
            return (_COMMANDS[token], self.argument(digit=True), self.argument(digit=True))
        if token == r"\sqrt":
            index = self.bracket("[") if self.take("[") else ("num", "2")
            return ("root", self.argument(), index)
        if token[1:] in _FUNCTIONS:
            return self.function(token[1:])
        raise Unreadable(token)

    def function(self, name: str):
        r"""A call: \sin x, \sin^2(x), \sin^{-1} x, \log_2 8, \ln 2x; \sin x \cos x is two."""
        base = [self.argument()] if self.take("_") else []
        power = self.argument() if self.take("^") else None
        bracketed = self.rest[-1] in ("(", "[", "{")
        inner = self.atom() if bracketed else self.operand()
        while not bracketed and (kind(self.rest[-1]) == "sym" or self.rest[-1] == r"\frac"):
            inner = ("*", inner, self.operand())
        if power == ("neg", ("num", "1")):
            name, power = "arc" + name, None
        arguments = inner[1:] if inner[0] in ("()", "set") else (inner,)  # max(a, b)
        tree = (_ARC.get(name, name), *arguments, *base)
        return ("^", tree, power) if power else tree

    def bracket(self, opening: str):
        """What is inside: one value, a tuple or an interval, a set; the opening is taken."""
        tree, closing = self.answer(), self.take(*_CLOSING[opening])
        pair = tree[0] == "list" and len(tree) == 3
        require(closing and (pair or opening + closing not in ("(]", "[)")), "no such bracket")
        if tree[0] not in ("list", "or"):
            return ("set", tree) if opening == r"\{" else tree
        return (opening + closing if opening in "([" else "set", *tree[1:])


def signed(sign: str, tree):
    tree = ("±", tree) if sign in "±∓" else tree
    return ("neg", tree) if sign in "-∓" else tree


def read(text: str):
    """The tree of an answer, or None if it is outside the grammar or the limits.

    >>> read("2x"), read("2 x x")
    (('*', ('num', '2'), ('sym', 'x')), ('*', ('num', '2'), ('sym', 'x'), ('sym', 'x')))
    """
    parser = Parser(text)
    try:
        tree = parser.answer()
        return None if parser.rest[-1] else tree
    except (Unreadable, RecursionError):
        return None


def symbols(tree) -> set[str]:
    """The names in a tree, constants left out."""
    if tree[0] == "sym":
        return {tree[1]} - {"pi", "e", "i"}
    return set().union(*(symbols(part) for part in tree[1:] if isinstance(part, tuple)))


def is_name(tree) -> bool:
    r"""x, x_1, AB, f(x), (p, q), V_1:V_2, \text{Maximum}: what an equation can define."""
    return tree[0] in ("sym", "word") or tree[0] in ("*", "()", ":") and all(map(is_name, tree[1:]))


# ---- 3. evaluate, with mpmath ------------------------------------------------------------------


class Arithmetic(threading.local):
    """mpmath for one thread (its global precision is shared by all), and the work left."""

    def __init__(self):
        import mpmath  # loaded only when strings and integers do not decide

        self.mp = mp = mpmath.MPContext()
        mp.dps, self.work, self.noise = DIGITS, 0, mp.mpf(10) ** (20 - DIGITS)
        self.constants = {"pi": +mp.pi, "e": +mp.e, "i": mp.mpc(0, 1)}
        trigonometric = {name: getattr(mp, name) for name in {*_TRIG, *_ARC.values()}}
        self.limited = {"!": mp.factorial, "binom": mp.binomial, "exp": mp.exp, **trigonometric}
        self.operations = {
            **self.limited, "+": self.sum, "*": lambda *xs: mp.fprod(xs), "^": self.power,
            "neg": lambda x: -x, "/": lambda x, y: x / y, ":": lambda x, y: x / y, "abs": abs,
            "%": lambda x: x / 100, "°": lambda x: x, "ln": mp.log, "root": self.root,
            "max": lambda *xs: max(xs), "min": lambda *xs: min(xs),
            "floor": lambda x: mp.floor(x + self.noise), "ceil": lambda x: mp.ceil(x - self.noise),
        }  # fmt: skip

    def spend(self, steps: int) -> None:
        self.work -= steps
        require(self.work >= 0, "too much work")

    def sum(self, *xs):
        """A sum in which no term gets lost: 10^400 + 1 would be 10^400."""
        sizes = [abs(x) for x in xs if x] or [0]
        require(min(sizes) >= self.noise * max(sizes), "10^400 + 1 needs more digits")
        return self.mp.fsum(xs)

    def power(self, x, y):
        require(not x or abs(y) * (abs(self.mp.mag(x)) + 1) <= LOG2, "power too large")
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
        self.spend(1 if head in ("num", "+", "*", "neg", "/") else 20)
        if head == "num":
            require(len(parts[0].strip("0.")) <= DIGITS - 20, "too many digits")
            return self.mp.mpf(parts[0])
        if head == "sym":
            return self.symbol(parts[0], point)
        if head in _TRIG and parts[0][0] == "°":
            parts = [("*", parts[0], ("/", ("sym", "pi"), ("num", "180")))]
        args = [self.evaluate(part, point) for part in parts]
        largest = max(map(abs, args))
        require(largest <= ARGUMENT or head not in self.limited, "argument too large")
        x = self.operations[head](*args)
        require(self.mp.isfinite(x) and (not x or abs(self.mp.mag(x)) <= LOG2), "number too large")
        only_rounding = head in _CANCELLING and abs(x) <= self.noise * largest
        return self.mp.zero if only_rounding else x

    def is_real(self, x) -> bool:
        return isinstance(x, self.mp.mpf)

    def equal(self, x, y) -> bool:
        return abs(x - y) <= self.noise * max(abs(x), abs(y))


@cache
def arithmetic() -> Arithmetic:
    return Arithmetic()
