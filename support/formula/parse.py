r"""Tokens to a tree, by precedence climbing.

    answer        items joined by commas, "and", "or", semicolons       1, 2 or 3
    item          an expression, with its unit                          5 cm^2
    expression    operands joined by operators, tighter ones first      2x + 1 < y
    operand       an atom with signs before, powers or ! after it       -x^2
    atom          a number, a name, or what a bracket or command opens  \frac{1}{2}

Each is a method that steps over what it has read. Something nested too deeply ends in Python's own
RecursionError, on the way down, before anything is built.
"""

from functools import lru_cache

from support.formula.tokens import ARC, FUNCTIONS, HEDGES, OPPOSITES, kind, tokenize
from support.formula.tree import Unreadable, is_name, require

# A higher level binds tighter: 2 + 3 * 4 is 2 + (3 * 4), and a < b + c is a < (b + c).
RELATION, UNION, RATIO, SUM, PRODUCT = 1, 2, 3, 4, 5
LEVELS = {
    **dict.fromkeys(["=", "<", ">", "≤", "≥", "≠", "≈"], RELATION),
    "∪": UNION,
    **dict.fromkeys([":", r"\mod"], RATIO),
    **dict.fromkeys(["+", "-", "±", "∓"], SUM),
    **dict.fromkeys(["*", "/"], PRODUCT),
}
FENCES = {"|": ("abs", "|"), r"\lfloor": ("floor", r"\rfloor"), r"\lceil": ("ceil", r"\rceil")}
# [0, 1) is an interval, so ( and [ may close as one another
CLOSING = {"(": (")", "]"), "[": (")", "]"), "{": ("}",), r"\{": (r"\}",)}
COMMANDS = {r"\frac": "/", r"\binom": "binom"}
# names of functions, where one is applied to itself
CALLED = set("fghFGH")
# what multiplies the operand before it: 2(3), 2\sqrt{3}; but not 2 3
STARTS = {"(", "{", *COMMANDS, r"\lfloor", r"\lceil", *("\\" + name for name in FUNCTIONS)}


class Parser:
    def __init__(self, text: str):
        # the next token is the last one, and "" the end
        self.rest = ["", *reversed(tokenize(text))]
        # how many | are open: the next after an operand closes one, if any
        self.bars = 0

    def take(self, *wanted: str) -> str:
        """The next token, stepped over, if it is one of these; else ''."""
        return self.rest.pop() if self.rest[-1] in wanted else ""

    def answer(self):
        """Items separated by commas and words; a semicolon begins a new row: (1, 2; 3, 4)."""
        rows, separators, separator = [[]], "", ","
        while separator and self.rest[-1] not in ("", ")", "]", "}", r"\}"):
            rows[-1].append(self.item())
            separator = ""
            # several may follow one another: "1, 2, and 3"
            while more := self.take(",", ";", "∨"):
                separator += more
            separators += separator
            rows += [[]] if ";" in separator else []
        if max(map(len, rows)) > 1 and len(rows) > 1:
            return ("list", *(("()", *row) for row in rows if row))
        # a column (1; 2; 3) is the tuple (1, 2, 3)
        items = [item for row in rows for item in row]
        require(items, "empty")
        return items[0] if len(items) == 1 else ("or" if "∨" in separators else "list", *items)

    def item(self):
        """An expression; words after it are its unit: cm^2, square feet, km/h."""
        tree, powers = self.expression(), []
        while kind(self.rest[-1]) in ("word", "sym"):
            word = self.rest.pop()[1:]
            require(word not in HEDGES, "a hedge")
            require(tree[0] != "sym" or word not in ("is", "was"), "A is out")
            powers += [("word", word)] if word in OPPOSITES else []
            powers += [self.argument()] if self.take("^") else []
            self.take("/", "*")
        # which unit does not matter, but cm^2 is not cm^3, and 5 am is not 5 pm
        return ("unit", tree, *powers) if powers else tree

    def expression(self, level: int = 0):
        """Everything that binds tighter than `level`."""
        tree = self.operand()
        while True:
            sign = self.rest[-1]
            if kind(sign) == "sym" or sign in STARTS or sign == "|" and not self.bars:
                # no sign between two operands is a product: 2x, (a)(b)
                sign = "*"
                self.rest.append(sign)
            if LEVELS.get(sign, 0) <= level:
                return tree
            self.rest.pop()
            part = self.expression(LEVELS[sign])
            if sign == "≈" and not is_name(tree):
                # sqrt(2) ≈ 1.41: what follows says less than what stands before
                continue
            if LEVELS[sign] == RELATION:
                signs, *sides = tree[1:] if tree[0] == "rel" else ("", tree)
                tree = ("rel", signs + sign.replace("≈", "="), *sides, part)
            else:
                # a - b + c is one sum of a, -b and c; a / b / c is (a / b) / c
                head = "+" if LEVELS[sign] == SUM else sign
                first = tree[1:] if tree[0] == head and head not in ("/", r"\mod") else (tree,)
                tree = (head, *first, signed(sign, part))

    def operand(self):
        """A factor with the signs before it; capital letters in a row are one, as in ABC."""
        if sign := self.take("+", "-", "±", "∓"):
            return signed(sign, self.expression(SUM))
        run = [self.factor()]
        while is_capital(run[-1]) and self.rest[-1].isupper() and kind(self.rest[-1]) == "sym":
            run.append(self.factor())
        return ("run", *run) if run[1:] else run[0]

    def factor(self):
        """An atom with the powers, !, % and ° after it."""
        tree, last = self.atom(), ""
        while sign := self.take("!", "%", "°", "^"):
            require(last not in (sign, "%", "°"), "5!!, 2^3^4 and 5%! are unclear")
            last = sign
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
            # words in a row are one: "no solution"; a single letter in \text is a symbol
            while kind(self.rest[-1]) == "word":
                token += " " + self.rest.pop()[1:]
            return ("word" if token[2:] else "sym", token[1:])
        if token == "emptyset":
            return ("set",)
        if kind(token) == "sym":
            return self.symbol(token)
        if token in CLOSING:
            return self.bracket(token)
        if token in FENCES:
            head, closing = FENCES[token]
            self.bars += token == "|"
            tree = (head, self.expression(RELATION))
            require(self.take(closing), "not closed")
            self.bars -= token == "|"
            return tree
        if token in COMMANDS:
            return (COMMANDS[token], self.argument(digit=True), self.argument(digit=True))
        if token == r"\sqrt":
            index = self.bracket("[") if self.take("[") else ("num", "2")
            return ("root", self.argument(), index)
        if token[1:] in FUNCTIONS:
            return self.function(token[1:])
        raise Unreadable(token)

    def symbol(self, name: str):
        r"""A name with its subscripts and primes, which may be anything: a_{n+1}, R_{\odot}, f'."""
        depth = 0
        while depth or name[-1] == "_" or self.rest[-1] in ("_", "'"):
            require(self.rest[-1], "not closed")
            depth += (self.rest[-1] == "{") - (self.rest[-1] == "}")
            name += self.rest.pop().strip('{}"\\')
        # f(x + 1) is no product, nor is g(h(x)); but g(x + 1) may be one, and x(x(x + 1) + 1) is
        ahead = self.rest[:-4:-1]
        nested = ahead[0] == ahead[-1] == "(" and kind(ahead[1]) == "sym"
        nested = nested and (ahead[1] != name or name in CALLED)
        if self.rest[-1] == "(" and (name[0] == "f" or nested):
            self.rest.pop()
            inner = self.bracket("(")
            return ("call", ("sym", name), *(inner[1:] if inner[0] == "()" else (inner,)))
        return ("sym", name)

    def function(self, name: str):
        r"""A call: \sin x, \sin^2(x), \sin^{-1} x, \log_2 8, \ln 2x; \sin x \cos x is two."""
        base = [self.argument()] if self.take("_") else []
        if name in ("log", "lg"):
            # 10 is the base of \log that has none
            name, base = "ln", base or [("num", "10")]
        power = self.argument() if self.take("^") else None
        bracketed = self.rest[-1] in ("(", "[", "{")
        inner = self.atom() if bracketed else self.operand()
        while not bracketed and (kind(self.rest[-1]) == "sym" or self.rest[-1] == r"\frac"):
            inner = ("*", inner, self.operand())
        if power == ("neg", ("num", "1")):
            name, power = "arc" + name, None
        # max(a, b) has read a tuple, max{a, b} a set
        arguments = inner[1:] if inner[0] in ("()", "set") else (inner,)
        tree = (ARC.get(name, name), *arguments, *base)
        return ("^", tree, power) if power else tree

    def bracket(self, opening: str):
        """What is inside: one value, a tuple or an interval, a set; the opening is taken."""
        if opening == r"\{" and self.take(r"\}"):
            return ("set",)
        tree, closing = self.answer(), self.take(*CLOSING[opening])
        pair = tree[0] == "list" and len(tree) == 3
        require(closing and (pair or opening + closing not in ("(]", "[)")), "no such bracket")
        if tree[0] not in ("list", "or"):
            return ("set", tree) if opening == r"\{" else tree
        return (opening + closing if opening in ("(", "[") else "set", *tree[1:])


def is_capital(tree) -> bool:
    """A, A_1 and A^2."""
    return tree[0] == "sym" and tree[1].isupper() or tree[0] == "^" and is_capital(tree[1])


def signed(sign: str, tree):
    """- negates, ± makes two values, and ∓ is minus ±."""
    tree = ("±", tree) if sign in ("±", "∓") else tree
    return ("neg", tree) if sign in ("-", "∓") else tree


@lru_cache(maxsize=1024)
def read(text: str):
    """The tree of an answer, or None if it is outside the grammar or the limits.

    >>> read("2x"), read("2 x x")
    (('*', ('num', '2'), ('sym', 'x')), ('*', ('num', '2'), ('sym', 'x'), ('sym', 'x')))
    >>> read("(1, y]"), read("1 +")
    (('(]', ('num', '1'), ('sym', 'y')), None)
    """
    parser = Parser(text)
    try:
        tree = parser.answer()
        return None if parser.rest[-1] else tree
    except (Unreadable, RecursionError):
        return None
