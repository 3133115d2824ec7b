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


def as_words(text: re.Match) -> str:
    r"""In 10 \text{ m} the m is a unit, no symbol: a quotation mark makes it a word."""
    return re.sub(r"\b(?![ei]\b)([A-Za-z]+)\.?", r'"\1', f" {text[1]} ")


def joined(digits: re.Match) -> str:
    return re.sub(r"\D", "", digits[0])


# Groups of three digits, joined by {,} or a space. A bare comma joins them only if no bracket
# follows: 1,234 is a number, but (1,234) is a pair.
THOUSANDS = r"""(?x) (?<! [\d.,] ) \d{1,3}
                (?: (?: \{,\} | \  | , (?! (?s:.*) (?: [)\]] | \\\} ) ) ) \d{3} )+ (?!\d)"""
NEXT = r"\s*(\d|\{\d+\})"  # what \frac takes: a digit or a group

RULES = [
    # Unicode: exponents and indices get their TeX sign before they become plain digits
    (r"[⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻]+", r"^{\g<0>}", "x²⁰", "x^{²⁰}"),
    (r"[₀-₉]+", r"_{\g<0>}", "x₁₂", "x_{₁₂}"),
    (r"[¼-¾⅐-⅞]", r" \g<0>", "2½", "2 ½"),
    (r"[^\x00-\x7f]+", plain, "½ of １२", "1⁄2 of 12"),
    (r"(\d+)⁄(\d+)", r"\\frac{\1}{\2}", "2 1⁄2", r"2 \frac{1}{2}"),
    # escaped once too often; a line break before a single letter stays one
    (r"(?<!\\)\\\\(?=[A-Za-z]{2})", r"\\", r"\\frac{1}{2}", r"\frac{1}{2}"),
    # a bar over digits repeats them, over a letter it makes another name (mean, complement)
    (r"(\d*)\.(\d*)\\overline\{(\d+)\}", recurring, r"0.4\overline{6}", r"\frac{42}{90}"),
    (
        r"\\(?:overline|bar)(?:\s*\{\s*([A-Za-z])\s*\}|\s+([A-Za-z])(?![A-Za-z]))",
        r" \1\2_{bar}",
        r"A+\overline{B}",
        r"A+ B_{bar}",
    ),
    # 10,\!080 is how MATH writes 10080
    (r",\\!\s*", "{,}", r"10,\!080", "10{,}080"),
    # what changes the looks of a formula, not what it says: spaces, dollars, sizes, accents
    (r"(?<!\\)\\(?:[,;:! \n]|q?quad)", " ", r"a\,b\quad c", "a b  c"),
    (r"(?<!\\)\\[()[\]$]", " ", r"\(x\) \$5", " x   5"),
    (
        r"(?<!\\)\\(?:m?left|m?right|[bB]igg?[lr]?|displaystyle|boxed)(?![A-Za-z])",
        " ",
        r"\left(x\bigr)",
        " (x )",
    ),
    (
        r"(?<!\\)\\(?:vec|overline(?!\s*\{?\s*\d)|hat|bar|angle|triangle)(?![A-Za-z])",
        " ",
        r"\overline{AB}",
        " {AB}",
    ),
    (r"[$€£¥~]", " ", "$x$ 5€", " x  5 "),
    # upright letters are still letters, but text is words
    (r"\\(?:operatorname|math[a-z]+)\s*\{([^{}]*)\}", r" \1 ", r"\mathbf{42}", " 42 "),
    (
        r"\\(?:text(?:bf|it|rm|normal)?|mbox)\s*\{([^{}]*)\}",
        as_words,
        r"15\mbox{ sq. m}",
        r'15  "sq "m ',
    ),
    (r'^\W*+(?i:["a-z\s]*\banswer\s*("?is\b|:))[\s:]*', "", "The answer is: 5", "5"),
    # a matrix is a tuple of rows
    (r"\\begin\{[a-z]*(?:matrix|array)\}(?:\{[clr|]*\})?", "(", r"\begin{array}{cc}1", "(1"),
    (r"\\end\{[a-z]*(?:matrix|array)\}", ")", r"1\end{pmatrix}", "1)"),
    # numbers: degrees, thousands, and the mixed ones, which are sums
    (r"\^\s*\{?\s*(?:\\circ|\\degree|°)\s*\}?", "°", r"90^{\circ}", "90°"),
    (THOUSANDS, joined, r"1,234{,}567", "1234567"),
    (r"(\d)\s+(\d+)\s*/\s*(\d+)", r"\1\\frac{\2}{\3}", "1 1/2", r"1\frac{1}{2}"),
    (
        rf"(?<![\w.^}}])(\d+)\s*\\[dtc]?frac{NEXT}{NEXT}",
        r"{\1+\\frac\2\3}",
        r"1\frac12",
        r"{1+\frac12}",
    ),
]


def rewrite(text: str) -> str:
    """The text after all rules, in their order."""
    for pattern, replacement, _, _ in RULES:
        text = re.sub(pattern, replacement, text)
    return text
