r"""The gradient that clipping adds to a random reward (arXiv:2506.10947, appendix B).

Why should clipping matter where the reward is a coin? Take tokens y ~ pi_old, R = pi(y) / pi_old(y)
and an advantage A that knows nothing of y. Without clipping E[A grad R] = E[A] E[grad R] = 0. With
it the gradient of A > 0 is lost where R > 1 + eps, of A < 0 where R < 1 - eps, so that (appendix B)

    E[grad J] = mu E_{y ~ pi_old} [ grad R (1{R < 1 - eps} - 1{R > 1 + eps}) ]
    mu = P(A > 0) E[A | A > 0]

which pulls a token that has left the clip region back into it; `clipping_bias`, held by tests
against enumeration and against `policy_loss`. The paper goes on: where pi_old > 1 / (1 + eps), R
cannot pass 1 + eps, so confident tokens are only ever pushed up and the prior gets sharper. That is
half of it. What a confident token gains its rivals lose, and where they fall below 1 - eps the
lower bound pushes it down again. Which half wins has to be measured.
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
    g = group_size
    chance = [comb(g, k) * gamma**k * (1 - gamma) ** (g - k) for k in range(g + 1)]
    return sum(c * sqrt(k / g * (1 - k / g) * (g - 1) / g) for k, c in enumerate(chance))


def clipping_bias(logits, logits_old, gamma: float, group_size: int, low: float, high: float):
    """E[grad J] of the formula above for one categorical token, with respect to its logits.

    logits, logits_old: [V] of pi and of pi_old. low, high: the clip region, 1 -+ eps; infinite
    where a side is off. Returns [V]; J is to be maximised, a positive entry pushes that logit up.
    """
    pi, old = logits.softmax(-1), logits_old.softmax(-1)
    ratio = pi / old
    side = (ratio < low).to(pi) - (ratio > high).to(pi)  # [V]
    # E_{y ~ old}[side_y grad R_y] = sum_y side_y grad pi_y, and grad pi_y = pi_y (onehot_y - pi)
    return positive_advantage(gamma, group_size) * (pi * side - (pi * side).sum() * pi)
