r"""A reward for each step of a chain, beside the one for the answer (survey, section 3.1.3).

The steps of the embedded world can be checked exactly: the i-th one must apply the problem's i-th
operation and state its running total.

    python x = 7 x += 5 # 12 x -= 3 # 8 print \boxed{9}      7 + 5 - 3 = ?
           right ^^^^^^^^^^^ ^^^^^^^^^^ wrong, and yet the answer is right

A right step earns 1, a wrong one 0, paid at its last token; one that is missing 0, at the end.
"""

import re

import torch

from rollout import Rollouts
from support.chat import decode
from support.errors import InputError

STEP = re.compile(r"(?:x ([+-])= (\d+) #|(plus|minus) (\d+) is) (\d+)")
SIGN = {"plus": "+", "minus": "-"}


def check_steps(question: str, text: str) -> list[tuple[int, bool]]:
    """Of each step that `text` writes: the index behind it, and whether it is right. (The first
    number, which is only copied, is not looked at.)

    >>> check_steps("7 + 5 - 3 = ?", "7 plus 5 is 12 minus 3 is 8 so ...")
    [(14, True), (27, False)]
    """
    first, *rest = question.removesuffix(" = ?").split()
    found, total, steps = [], int(first), list(zip(rest[::2], map(int, rest[1::2])))
    for i, match in enumerate(STEP.finditer(text)):
        sign, number = match[1] or SIGN[match[3]], int(match[2] or match[4])
        right = False
        if i < len(steps):
            total += steps[i][1] if steps[i][0] == "+" else -steps[i][1]
            right = (sign, number, int(match[5])) == (*steps[i], total)
        found.append((match.end(), right))
    return found


def operations(question: str) -> int:
    """How many steps a chain of sums takes; 0 for other problems.

    >>> operations("7 + 5 - 3 = ?"), operations("How many?")
    (2, 0)
    """
    found = re.fullmatch(r"\d+(( [+-] \d+)+) = \?", question)
    return len(found[1].split()) // 2 if found else 0


def sound(question: str, text: str) -> bool:
    """Whether a chain is solved by all of its steps, each of them right."""
    steps = check_steps(question, text)
    return len(steps) == operations(question) and all(right for _, right in steps)


def steps_taken(rollouts: Rollouts) -> tuple[torch.Tensor, torch.Tensor]:
    """(1 where there is a step, 1 where one is wrong), whatever the answer; [B] each. Of problems
    that are no chains both are 0."""
    found = [
        [right for _, right in check_steps(p.question, text)] if operations(p.question) else []
        for p, text in zip(rollouts.problems, rollouts.texts)
    ]
    some, wrong = [bool(steps) for steps in found], [not all(steps) for steps in found]
    return torch.tensor(some).float(), torch.tensor(wrong).float()


def step_rewards(rollouts: Rollouts, tokenizer) -> tuple[torch.Tensor, torch.Tensor]:
    """(right, paid), [B, T]: how many steps end at a token, and how many of them are right. Those
    that a text leaves out end, wrong, at its last token.

    Raises InputError off the chains.
    """
    right, paid = torch.zeros(2, *rollouts.mask.shape)
    lengths = rollouts.mask.sum(1).long().tolist()
    for row, (problem, text) in enumerate(zip(rollouts.problems, rollouts.texts)):
        if not operations(problem.question):
            raise InputError(f"process_coef needs chains of sums, not {problem.question[:60]!r}")
        ids = rollouts.completion_ids[row, : lengths[row]].tolist()
        steps = check_steps(problem.question, text)
        begun = decode(tokenizer, [ids[: i + 1] for i in range(len(ids))]) if steps else []
        for end, ok in steps:
            token = next(t for t, part in enumerate(begun) if len(part) >= end)
            paid[row, token] += 1
            right[row, token] += ok
        paid[row, lengths[row] - 1] += max(0, operations(problem.question) - len(steps))
    return right.to(rollouts.logp), paid.to(rollouts.logp)


def returns_to_go(reward: torch.Tensor, gamma: float = 1.0) -> torch.Tensor:
    """R_t = r_t + gamma R_{t+1}; reward [..., T] -> [..., T].

    >>> returns_to_go(torch.tensor([1.0, 0.0, 2.0]), gamma=0.5)
    tensor([1.5000, 1.0000, 2.0000])
    """
    found, following = torch.zeros_like(reward), torch.zeros_like(reward[..., 0])
    for t in reversed(range(reward.shape[-1])):
        following = reward[..., t] + gamma * following
        found[..., t] = following
    return found


def step_advantages(right, paid, group_size: int, scale_by_std: bool = True) -> torch.Tensor:
    """DeepSeekMath's advantage of process supervision (arXiv:2402.03300, section 4.1.3), [B, T]:

        A_t = sum of (r - mean) / (std + 1e-6) over the row's steps that end at t or later

    r is 1 for a right step, else 0; mean and std (n - 1) are those of all n steps of the group,
    n mean (1 - mean) being the sum of the squares. Groups whose steps are all right, or all wrong,
    get 0. right, paid: of step_rewards.
    """
    shape = (-1, group_size * paid.shape[-1])
    r, p = right.view(shape).double(), paid.view(shape).double()
    count = p.sum(1, keepdim=True)
    mean = r.sum(1, keepdim=True) / count.clamp(min=1)
    centred = r - mean * p
    if scale_by_std:
        variance = count * mean * (1 - mean) / (count - 1).clamp(min=1)
        centred = centred / (variance.sqrt() + 1e-6)
    centred = centred.masked_fill((mean == 0) | (mean == 1), 0.0)
    return returns_to_go(centred.view_as(paid)).to(paid.dtype)
