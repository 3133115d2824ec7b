r"""Answers to the exercises of check.py, by the same names. Try first: the checks give hints."""

import math
import re
from fractions import Fraction
from itertools import product

import torch
import torch.nn.functional as F

from verifier import verify

# ---- 01 ----------------------------------------------------------------------------------------


def advantages(reward):
    centred = reward - reward.mean(1, keepdim=True)
    return centred / (reward.std(1, keepdim=True) + 1e-6)


def leave_one_out(reward):
    others = (reward.sum(1, keepdim=True) - reward) / (reward.shape[1] - 1)
    return reward - others


silent_groups = {"A", "B", "D"}

# ---- 02 ----------------------------------------------------------------------------------------


def loss_means(objective, mask):
    rows = (objective * mask).sum(1)
    return rows.sum() / mask.sum(), (rows / mask.sum(1)).mean()


silent_bug = "B"
# of replace(mine, output="...", **reaches): one of many
reaches = {"lr": 4e-4, "steps": 30}

# ---- 03 ----------------------------------------------------------------------------------------


def clipped(ratio, advantage, eps):
    return torch.minimum(ratio * advantage, ratio.clamp(1 - eps, 1 + eps) * advantage)


quadrant = "A < 0, ratio > 1.2"
# of replace(one, output="...", **clips): eight times four updates
clips = {"minibatches": 8, "inner_epochs": 4}

# ---- 04 ----------------------------------------------------------------------------------------


def cleaned(answer):
    for noise in (r"\$", r"\,", r"^\circ", r"\text{", r"\mathrm{", "$"):
        answer = answer.replace(noise, "")
    answer = answer.strip().removesuffix("}").removesuffix(".").removeprefix("+")
    # 1,234 is one number; 12, 34 are two
    return re.sub(r"(?<=\d),(?=\d{3}\b)", "", answer)


fools = r"It is 12 or 13, so \boxed{13}"
debatable = {"10%": True, "(A) 17": True, "3.14": False, "17 or 18": False, "2:4": True}

# ---- 05 ----------------------------------------------------------------------------------------


def bce(z, y):
    return -(y * F.logsigmoid(z) + (1 - y) * F.logsigmoid(-z)).mean()


def pairwise(z_pos, z_neg):
    return -F.logsigmoid(z_pos - z_neg).mean()


hacks = {"A", "D"}
# of replace(settings, output="...", **reads_reference)
reads_reference = {"swap_share": 0.4, "target": None}

# ---- 06 ----------------------------------------------------------------------------------------


def positives(correct, group_size, random):
    groups = range(0, len(correct), group_size)
    right = [[i for i in range(n, n + group_size) if correct[i]] for n in groups]
    return [random.choice(rows) for rows in right if rows]


def negative(text, reference):
    return not verify(text, reference, require_box=True)


lost = {"A", "C"}

# ---- 07 ----------------------------------------------------------------------------------------


def mu(gamma):
    return gamma * (1 - gamma) / math.sqrt(2)


helped_by_python = {"qwen_math"}


def reward(rollouts):
    return torch.tensor([float("plus" in text) for text in rollouts.texts])


hack = r"plus plus plus \boxed{3}"

# ---- 08 ----------------------------------------------------------------------------------------


def pass_at_k(n, c, k):
    none_right = Fraction(math.comb(n - c, k), math.comb(n, k))
    return float(1 - none_right)


kinds = {"left": "sharpens", "middle": "rare common", "right": "nothing"}


def sign_flip(differences):
    seen = abs(sum(differences)) - 1e-9
    flips = [
        sum(s * d for s, d in zip(signs, differences))
        for signs in product((1, -1), repeat=len(differences))
    ]
    return sum(abs(total) >= seen for total in flips) / len(flips)


# ---- 09 ----------------------------------------------------------------------------------------


def memory(parameters):
    return 4 * parameters * (1 + 1 + 2)


calculated = 3
