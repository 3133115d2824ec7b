r"""The gradient that clipping adds to a random reward (arXiv:2506.10947, appendix B).

Why should clipping matter where the reward is a coin? Take tokens y ~ pi_old, the ratio
R = pi(y) / pi_old(y), and an advantage A that knows nothing of y.

Without clipping the gradient is A grad R, and in expectation nothing is left of it:

    E[A grad R] = E[A] E[grad R] = 0,   since E[A] = 0

With clipping the gradient is lost where A > 0 and R > 1 + eps, and where A < 0 and R < 1 - eps.
With 1{...} for "1 where true, else 0", the lost part of A is on average E[A 1{A > 0}] = mu above
and E[A 1{A < 0}] = -mu below. Zero less what is lost:

    E[grad J] = mu E_{y ~ pi_old} [ grad R (1{R < 1 - eps} - 1{R > 1 + eps}) ]
    mu = P(A > 0) E[A | A > 0]

This pulls a token that has left the clip region back into it. `clipping_bias` computes it; tests
hold it against enumeration and against `policy_loss`.

The paper goes on: where pi_old > 1 / (1 + eps), R cannot pass 1 + eps, so confident tokens are only
ever pushed up and the prior gets sharper. That is half of it. What a confident token gains its
rivals lose, and where they fall below 1 - eps the lower bound pushes it down again. Which half wins
has to be measured.

NOTE: E[A grad R] = 0 asks that pi knows nothing of A either. From the second minibatch on it has
been moved by other advantages of the same groups, from the second pass on by these very ones.
"""

from math import comb, sqrt


def positive_advantage(gamma: float, group_size: int) -> float:
    """mu = P(A > 0) E[A | A > 0] = E[sqrt(p (1 - p) (G - 1) / G)], p = k/G, k ~ Bin(G, gamma).

    Of group_advantages (sample std, eps neglected) under a Bernoulli(gamma) reward.

    >>> round(positive_advantage(0.5, 2), 4)  # half of the groups are (1, 0), then A = +-1/sqrt(2)
    0.1768
    """
    mu = 0.0
    for k in range(group_size + 1):
        chance = comb(group_size, k) * gamma**k * (1 - gamma) ** (group_size - k)
        p = k / group_size
        mu += chance * sqrt(p * (1 - p) * (group_size - 1) / group_size)
    return mu


def clipping_bias(logits, logits_old, gamma: float, group_size: int, low: float, high: float):
    """E[grad J] of the formula above for one categorical token, with respect to its logits.

    logits, logits_old: [V] of pi and of pi_old. low, high: the clip region, 1 -+ eps; infinite
    where a side is off. Returns [V]; J is to be maximised, a positive entry pushes that logit up.

    From 0.5, 0.5 to 0.7, 0.3 the ratios are 1.4 and 0.6, both outside, so the sides are -1 and +1.
    grad pi_1 = (0.21, -0.21) and grad pi_2 = (-0.21, 0.21), together (-0.42, 0.42), times mu:

    >>> import torch
    >>> new, old = torch.tensor([0.7, 0.3]).log(), torch.tensor([0.5, 0.5]).log()
    >>> [round(x, 4) for x in clipping_bias(new, old, 0.5, 2, low=0.8, high=1.2).tolist()]
    [-0.0742, 0.0742]
    """
    pi, old = logits.softmax(-1), logits_old.softmax(-1)
    ratio = pi / old
    side = (ratio < low).to(pi) - (ratio > high).to(pi)  # [V]
    # E_{y ~ old}[side_y grad R_y] = sum_y side_y grad pi_y, and grad pi_y = pi_y (onehot_y - pi)
    mu = positive_advantage(gamma, group_size)
    return mu * (pi * side - (pi * side).sum() * pi)
