"""Means over seeds and their intervals."""

import math
from statistics import fmean

# Student's t, two-sided 95%, by number of seeds: three seeds need 2.2 times the normal width.
T95 = {2: 12.71, 3: 4.30, 4: 3.18, 5: 2.78, 6: 2.57, 7: 2.45, 8: 2.36, 9: 2.31, 10: 2.26, 12: 2.20}


def t95(n: int) -> float:
    """The same for n values, be they many: Fisher's expansion in 1 / (n - 1), right to 0.01.

    >>> t95(3), round(t95(20), 2), round(t95(10_000), 2)  # of a table: 4.30, 2.09, 1.96
    (4.3, 2.09, 1.96)
    """
    return T95.get(n) or 1.96 + 2.372 / (n - 1) + 2.823 / (n - 1) ** 2


def mean_and_half_width(values: list[float]) -> tuple[float, float]:
    """Mean and half of its 95% interval over seeds; 0 for a single one.

    >>> mean_and_half_width([0.0, 1.0])  # sample std sqrt(1/2): 12.71 * sqrt(1/2) / sqrt(2)
    (0.5, 6.355)
    """
    n = len(values)
    mean = fmean(values)  # exact, so that every Python rounds a table alike
    if n == 1:
        return mean, 0.0
    std = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1))
    # of a number that is not in the table the next smaller one, which is a little too wide
    t = T95[max(known for known in T95 if known <= n)]
    return mean, t * std / math.sqrt(n)


def sign_flip(differences: list[float]) -> float:
    """p of paired differences, two-sided, exact: how often a mean as far from 0 comes up when each
    sign is a coin. With n of one sign it is 2 / 2^n: five pairs cannot go below 0.06.

    >>> sign_flip([1.0, 2.0, 3.0]), sign_flip([1.0, -1.0])
    (0.25, 1.0)
    """
    sums = [0.0]
    for value in differences:
        sums = [total + sign * value for total in sums for sign in (1, -1)]
    # a rounding must not make two equal sums differ
    observed = abs(sum(differences)) - 1e-9
    return sum(abs(total) >= observed for total in sums) / len(sums)
