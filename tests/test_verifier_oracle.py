r"""The verifier against an independent judge: sympy.

Random expressions are rewritten by sympy itself (expanded, factored, over one denominator, into
partial fractions ...), written in TeX by `sympy.latex`, and must be judged equal. Then one number
or one sign is changed, and the verifier must say what sympy says.

Nothing in verifier.py or support/formula uses sympy: it may take a minute over a hostile string,
and its readers of text call eval. As a judge of expressions that this file has made it is ideal.
"""

import random
import sys
from pathlib import Path

import pytest
import sympy
from sympy import I, Rational, cos, exp, log, pi, sin, sqrt, tan
from sympy.abc import x, y

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from support.formula.parse import read  # noqa: E402
from verifier import equivalent  # noqa: E402

EXPRESSIONS = 25  # of each family, and two to four pairs of each


def coefficient(rng: random.Random):
    return rng.choice([-5, -3, -2, -1, 1, 2, 3, 4, 7, Rational(1, 2), Rational(-2, 3)])


def linear(rng: random.Random, name=x):
    return coefficient(rng) * name + coefficient(rng)


def polynomial(rng: random.Random):
    """(2x - 3)(x + y)^2 - 5y"""
    factors = [linear(rng, rng.choice([x, y])) ** rng.randint(1, 2) for _ in range(2)]
    return factors[0] * factors[1] + coefficient(rng) * rng.choice([x, y, x * y, x**3])


def rational_function(rng: random.Random):
    """1 / (x + 2) - (3x + 1) / (2x - 5)"""
    return coefficient(rng) / linear(rng) + linear(rng) / linear(rng)


def root(rng: random.Random):
    """(sqrt(x + 3) - 2)(sqrt(x + 3) + x)

    NOTE: the roots are of x^2 + n or x + n with n > 0. Roots of an even and an odd index are not
    mixed: the cube root of -8 is -2 for us, as at school, and 1 + sqrt(3) i for sympy.
    """
    inside = rng.choice([x + rng.randint(1, 9), x**2 + rng.randint(1, 9), 2 * x + y])
    return (sqrt(inside) + coefficient(rng)) * (coefficient(rng) * sqrt(inside) + linear(rng))


def trigonometric(rng: random.Random):
    """(sin(2x + 1) - 3 cos y)^2"""
    functions = [rng.choice([sin, cos, tan])(rng.choice([x, y, 2 * x, x / 2 + 1])) for _ in "ab"]
    return (functions[0] + coefficient(rng) * functions[1]) ** 2 + coefficient(rng)


def exponential(rng: random.Random):
    """(e^x - 2)(e^(-x) + x) + ln(x + 3)"""
    power = exp(rng.choice([x, -x, x / 2, -(x**2)]))
    return (power + coefficient(rng)) * (exp(x) + linear(rng)) + log(x + rng.randint(1, 9))


def number(rng: random.Random):
    """(1 + 2 sqrt 3) / (sqrt 5 - 1) + 2 pi / 3, (2 + 3i)(1 - i)"""
    if rng.random() < 0.3:
        return (coefficient(rng) + coefficient(rng) * I) * (coefficient(rng) + 3 * I)
    surds = [coefficient(rng) + coefficient(rng) * sqrt(rng.choice([2, 3, 5, 6])) for _ in "ab"]
    return rng.choice([surds[0] * surds[1], surds[0] / surds[1], surds[0] + pi * coefficient(rng)])


FAMILIES = [polynomial, rational_function, root, trigonometric, exponential, number]


def forms(expression) -> list:
    """Other ways to write an expression, by sympy."""
    found = [sympy.expand(expression), sympy.factor(expression), sympy.together(expression)]
    if expression.is_rational_function(x) and expression.free_symbols == {x}:
        found.append(sympy.apart(expression, x))
    if expression.has(sin, cos, tan):
        found.append(sympy.expand_trig(expression))
    if not expression.free_symbols:
        found.append(sympy.radsimp(expression))
    return [form for form in dict.fromkeys(found) if form != expression]


def perturbed(expression, rng: random.Random):
    """One number, the sign of one term or of a whole sum is changed; None where it divides by 0.

    (x - y)^2 with the sum's sign changed is still the same, which is why sympy has to judge.
    """
    nodes = [n for n in sympy.preorder_traversal(expression) if n.is_Rational or n.is_Add]
    node = rng.choice(nodes)
    if node.is_Add:
        new = rng.choice([-node, node - 2 * rng.choice(node.args)])
    else:
        new = node + rng.choice([-1, 1])
    result = expression.xreplace({node: new})
    return None if result.has(sympy.zoo, sympy.nan) else result


def sympy_says(a, b) -> bool:
    """Whether two expressions are equal: no, if they differ at a point; yes, if sympy proves it."""
    difference = a - b
    if abs(sympy.N(difference.subs({x: Rational(37, 29), y: Rational(23, 31)}), 30)) > 1e-15:
        return False
    assert sympy.simplify(difference) == 0, ("sympy cannot tell", a, b)
    return True


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.__name__)
def test_the_verifier_says_what_sympy_says(family):
    rng = random.Random(family.__name__)
    expressions = [family(rng) for _ in range(EXPRESSIONS)]
    readable = sum(read(sympy.latex(expression)) is not None for expression in expressions)
    assert readable >= 0.95 * EXPRESSIONS

    pairs = []
    for expression in expressions:
        for form in forms(expression):
            pairs.append((expression, form, True))
            other = perturbed(form, rng)
            if other is not None:
                pairs.append((expression, other, sympy_says(expression, other)))
    truths = [truth for _, _, truth in pairs]
    # a verifier that always says yes, or always no, would disagree often
    assert truths.count(True) >= 45 and truths.count(False) >= 45

    texts = [
        (sympy.latex(form), sympy.latex(expression), truth) for expression, form, truth in pairs
    ]
    assert not [text for text in texts if equivalent(*text[:2]) is not text[2]]
