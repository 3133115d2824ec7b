"""Means over seeds and their intervals."""

import math

# Student's t, two-sided 95 %, by number of seeds: three seeds need 2.2 times the normal width.
T95 = {2: 12.71, 3: 4.30, 4: 3.18, 5: 2.78, 6: 2.57, 7: 2.45, 8: 2.36, 9: 2.31, 10: 2.26}


def mean_and_half_width(values: list[float]) -> tuple[float, float]:
    """Mean and half of its 95 % interval over seeds; 0 for a single one.

    >>> mean_and_half_width([0.0, 1.0])  # sample std sqrt(1/2): 12.71 * sqrt(1/2) / sqrt(2)
    (0.5, 6.355)
    """
    n = len(values)
    mean = sum(values) / n
    if n == 1:
        return mean, 0.0
    std = math.sqrt(sum((v - mean) ** 2 for v in values) / (n - 1))
    return mean, T95.get(n, 1.96) * std / math.sqrt(n)
