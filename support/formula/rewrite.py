r"""Notation that does not matter: what is rewritten before a text is cut into tokens.

One rule an entry: (pattern, replacement, example, what the example becomes). The examples are
tests. A rule sees what the ones above it have left, so their order counts.
"""

import re
import unicodedata


def plain(run: re.Match) -> str:
    """Unicode's own plain form (½ is 1⁄2, ² is 2), and decimal digits of any script as 0-9."""
    text = unicodedata.normalize("NFKC", run[0])
    return "".join(str(int(c)) if c.isdecimal() else c for c in text)


def recurring(decimal: re.Match) -> str:
    r"""0.4\overline{6} is (46 - 4) / 90."""
    fixed, period = decimal[1] + decimal[2], decimal[3]
    nines = "9" * len(period) + "0" * len(decimal[2])
    return rf"\frac{{{int(fixed + period) - int(fixed or 0)}}}{{{nines}}}"


def accented(name: re.Match) -> str:
    r"""\hat{p} is not p, so what bears an accent is another name."""
    accent = ACCENTS.get(name[1], name[1])
    return f" Z_{{{accent} {name[2] or name[3]}}}"


def as_words(text: re.Match) -> str:
    r"""In 10 \text{ m} the m is a unit, no symbol: a quotation mark makes it a word."""
    return re.sub(r"\\?\b(?![ei]\b)([A-Za-z]+)\.?", r'"\1', f" {text[1]} ")


def base_in_digits(word: re.Match) -> str:
    return f"_{{{BASES.index(word[1]) + 2}}}"


def joined(digits: re.Match) -> str:
    return re.sub(r"\D", "", digits[0])


# Groups of three digits, joined by {,} or a space. A bare comma joins them only if no bracket
# follows: 1,234 is a number, but (1,234) is a pair.
THOUSANDS = r"""(?x) (?<! [\d.,] ) \d{1,3}
                (?: (?: \{,\} | \  | , (?! (?s:.*) (?: [)\]] | \\\} ) ) ) \d{3} )+ (?!\d)"""
NEXT = r"\s*(\d|\{\d+\})"  # what \frac takes: a digit or a group
GROUP = r"\{((?:[^{}]|\{[^{}]*\})*)\}"  # braces, with one more pair inside at most
# accents by their short names; those of one letter, x̂, and of several, are the same
ACCENTS = {"overline": "bar", "widehat": "hat", "widetilde": "tilde", "overrightarrow": "vec"}
ACCENT = (
    r"\\(overline|bar|widehat|hat|overrightarrow|vec|widetilde|tilde|d?dot|mathring|underline)"
    r"(?![a-z])"
)
BASES = "two three four five six seven eight nine ten eleven twelve".split()
# a unit as it is written in physics, with its prefix, and several: m, kHz, kg m/s^2
UNIT = (
    r"(?:(?:[kKcmMGdnp]|μ|\\mu\s*)?"
    r"(?:m|g|s|L|l|N|J|Wh?|V|A|T|C|K|F|Hz|Pa|eV|mol|cal|Ω|\\Omega)|h|min|dB|rpm)(?![A-Za-z])"
)
CURRENCY = "USD|EUR|GBP|INR|JPY|CNY|RMB"
COUNTERS = "(?:平方|立方)?[千厘毫]?米|千?克|[元円圆个個人度岁天年次원]"

SPACES = (r"\s\s+", " ", "a \n b", "a b")
RULES = [
    SPACES,
    # quotation marks say nothing, and below they mark words
    (r'["“”]', " ", '“5"', " 5 "),
    # Unicode: exponents and indices get their TeX sign before they become plain digits
    (r"[⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻]+", r"^{\g<0>}", "x²⁰", "x^{²⁰}"),
    (r"[₀-₉]+", r"_{\g<0>}", "x₁₂", "x_{₁₂}"),
    (r"[¼-¾⅐-⅞]", r" \g<0>", "2½", "2 ½"),
    (r"[^\x00-\x7f]+", plain, "½ of １२", "1⁄2 of 12"),
    (r"(?<!\d)(\d+)⁄(\d+)", r"\\frac{\1}{\2}", "2 1⁄2", r"2 \frac{1}{2}"),
    # escaped once too often; a line break before a single letter stays one
    (r"(?<!\\)\\\\(?=[A-Za-z]{2})", r"\\", r"\\frac{1}{2}", r"\frac{1}{2}"),
    # recurring digits in brackets, or the first and last of them dotted: then all have a bar
    (r"\.\((\d+)\)", r".\\overline{\1}", "0.(3)", r"0.\overline{3}"),
    (
        r"\\dot\s*\{?(\d)\}?(\d*)\\dot\s*\{?(\d)\}?",
        r"\\overline{\1\2\3}",
        r"0.\dot{1}4285\dot{7}",
        r"0.\overline{142857}",
    ),
    (
        r"(?<!\d)(\d*)\.(\d*)\s*\\(?:overline|bar|dot)\s*(?:\{\s*(?=\d+\s*\})|(?=\d))(\d+)\s*\}?",
        recurring,
        r"0.4\overline{6}",
        r"\frac{42}{90}",
    ),
    # the product of vectors does not commute
    (
        r"\\times(?=\s*\\(?:vec|overrightarrow|mathbf|boldsymbol)(?![a-z]))",
        r"\\cross ",
        r"\vec a \times \vec b",
        r"\vec a \cross  \vec b",
    ),
    # a line below a number is for looks, a bar over two points is the segment between them, and
    # every other accent makes another name
    (r"\\underline\s*\{([^{}A-Za-z]*)\}", r"\1", r"\underline{5}", "5"),
    (r"\\overline\s*\{\s*([A-Z]\s*[A-Z])\s*\}", r" \1", r"\overline{AB}", " AB"),
    (
        rf"{ACCENT}\s*(?:{GROUP}|(\\[a-z]+|[A-Za-z]))",
        accented,
        r"A+\overline{B}",
        r"A+ Z_{bar B}",
    ),
    (r"\s*\{\s*,\s*\}\s*", "{,}", "14 {, }916", "14{,}916"),
    # 10,\!080 is how MATH writes 10080
    (r",\\!\s*", "{,}", r"10,\!080", "10{,}080"),
    # what changes the looks of a formula, not what it says: spaces, dollars, sizes, accents
    (r"(?<!\\)\\(?:[,;:! \n]|q?quad)", " ", r"a\,b\quad c", "a b  c"),
    (r"\b(?:US|HK|NT|NZ)(?=\\?\$)", "", "US$5", "$5"),
    (r"\\text\s*\{\s*\\[(\[](.*)\\[)\]]\s*\}", r"\1", r"\text{\[5x\]}", "5x"),
    (r"(?<!\\)\\[()[\]$]", " ", r"\(x\) \$5", " x   5"),
    (
        r"(?<!\\)\\(?:m?left|m?right|[bB]igg?[lr]?|displaystyle|[lL]arge|boxed)(?![A-Za-z])",
        " ",
        r"\left(x\bigr)",
        " (x )",
    ),
    (r"\\(?:text)?color\s*\{\w+\}", " ", r"\textcolor{red}{5}", " {5}"),
    (r"\{\s*\\(?:rm|bf)\s+([^{}]*)\}", r"\\mathrm{\1}", r"5{\rm cm}", r"5\mathrm{cm}"),
    (r"\\(?:rm|bf)(?=\s*\{)", r"\\mathrm", r"5\rm{cm}", r"5\mathrm{cm}"),
    (r"([_^])\s*\{([\w+-])\}", r"\1\2 ", "x^{2}y_{1}", "x^2 y_1 "),
    (r"\{([^{}]*)\\choose([^{}]*)\}", r"\\binom{\1}{\2}", r"{n\choose k}", r"\binom{n}{ k}"),
    (r"(?<!\\)\\(?:angle|triangle)(?![A-Za-z])", " ", r"\angle ABC", "  ABC"),
    SPACES,
    # currencies: signs, codes, and what one counts in Chinese
    (rf"(?<![A-Za-z\\])(?:{CURRENCY}|Rs\.?(?=\s*\d))(?![A-Za-z])", " ", "500 USD", "500  "),
    (r"[$€£¥₹₩₽₺₫₱₿₴¢~]", " ", "$x$ 5€", " x  5 "),
    (rf"(?<=\d)\s*(?:{COUNTERS})(?!\w)", ' "unit ', "120元", '120 "unit '),
    (r"\b([ap])\. ?m\b\.?", r"\1m", "5 p.m.", "5 pm"),
    # what stands around an answer
    (r"^\s*(\*\*|__|\*|[`'])([^*_`]+)\1\s*$", r"\2", "**5**", "5"),
    (r"^\s*(?:=|≈|\\approx(?![a-z]))", "", r"\approx 3.14", " 3.14"),
    # sums, limits and chances are not evaluated, but an equation may say what one is
    (
        rf"^\s*(\\(?:lim|sum|prod|int)(?![a-z])(?:[^={{}}]|{GROUP})*|P\([^()=]*\)\s*)=",
        r"Z_{\1}=",
        r"\sum_{n=1}^9 n = 45",
        r"Z_{\sum_{n=1}^9 n }= 45",
    ),
    # upright letters are still letters, but for units; text is words
    (r"\\mu\s*(?=\\mathrm)", " ", r"5\mu\mathrm{m}", r"5 \mathrm{m}"),
    (
        rf"\\mathrm\s*\{{\s*({UNIT}(?:[^{{}}]|\{{[^{{}}]*\}})*)\}}",
        as_words,
        r"9.8 \mathrm{m/s^2}",
        '9.8  "m/"s^2 ',
    ),
    (
        r"\\(?:operatorname|math[a-z]+|boldsymbol|bm)\s*\{([^{}]*)\}",
        r" \1 ",
        r"\mathbf{42}",
        " 42 ",
    ),
    (
        rf"_\s*\{{?\s*\\text\{{({'|'.join(BASES)})\}}\s*\}}?",
        base_in_digits,
        r"52_\text{eight}",
        "52_{8}",
    ),
    (
        r"\\(?:text(?:bf|it|rm|normal)?|mbox)\s*\{([^{}]*)\}",
        as_words,
        r"15\mbox{ sq. m}",
        r'15  "sq "m ',
    ),
    (r'^\W*+(?i:["a-z\s]*\banswer\s*("?is\b|:))[\s:]*', "", "The answer is: 5", "5"),
    # units in brackets: J/(mol K)
    (r'/\s*\(((?:\s*"[A-Za-z]+(?:\s*(?:\\cdot|\*))?)+)\s*\)', r"/\1", '"J/("mol "K)', '"J/"mol "K'),
    # a matrix is a tuple of rows, and one between bars its determinant
    (
        r"\|\s*\\begin\{(?:matrix|array)\}(?s:(.*?))\\end\{(?:matrix|array)\}\s*\|",
        r"\\begin{vmatrix}\1\\end{vmatrix}",
        r"|\begin{matrix}5\end{matrix}|",
        r"\begin{vmatrix}5\end{vmatrix}",
    ),
    (
        r"\\begin\{vmatrix\}(?:\{[clr|]*\})?",
        r"\\det(",
        r"\begin{vmatrix}1",
        r"\det(1",
    ),
    # a system of equations is a list of them; with conditions, x & y > 0, it is more than we read
    (
        r"\\begin\{cases\}([^&]*?)\\end\{cases\}",
        r" \1 ",
        r"\begin{cases}x = 1\end{cases}",
        " x = 1 ",
    ),
    (r"\\begin\{[a-z]*(?:matrix|array)\}(?:\{[clr|]*\})?", "(", r"\begin{array}{cc}1", "(1"),
    (r"\\end\{[a-z]*(?:matrix|array)\}", ")", r"1\end{pmatrix}", "1)"),
    # numbers: degrees, thousands, and the mixed ones, which are sums
    (r"\^\s*\{?\s*(?:\\circ|\\degree|°)\s*\}?", "°", r"90^{\circ}", "90°"),
    (r"(?<=\d)\s*\\circ(?![a-z])", "°", r"90\circ", "90°"),
    (r"°\s*\"?[CF](?![A-Za-z])", "°", "25° C", "25°"),
    (THOUSANDS, joined, r"1,234{,}567", "1234567"),
    (r"(\d)\s+(\d+)\s*/\s*(\d+)", r"\1\\frac{\2}{\3}", "1 1/2", r"1\frac{1}{2}"),
    (
        rf"(?<![\w.^}}])(\d+)\s*\\[dtc]?frac{NEXT}{NEXT}",
        r"{\1+\\frac\2\3}",
        r"1\frac12",
        r"{1+\frac12}",
    ),
]


def without_stop(text: str) -> str:
    """Without what may follow an answer; but "1, 2, ..." goes on."""
    text = text.rstrip("\\,;: \n")
    while text.endswith(".") and not text.endswith(".."):
        text = text[:-1].rstrip("\\,;: \n")
    return text


def rewrite(text: str) -> str:
    """The text after all rules, in their order."""
    for pattern, replacement, _, _ in RULES:
        text = re.sub(pattern, replacement, text)
    return text
