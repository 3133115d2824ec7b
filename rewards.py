r"""Every reward is a function `reward(rollouts) -> [B]`: one number per completion.

The rule verifier gives one, a reward model gives another (`reward_model.RewardModel.reward`), and
so does any function of yours: GRPO with rules, GRPO on a frozen reward model and Cooper are the
same loop. Here are those of Spurious Rewards (arXiv:2506.10947, section 2 and appendix A), 0 or 1:

    name            1 where                                          trains on
    rule            the last \boxed{} equals the reference           every problem
    one_shot        the same                                         one problem
    majority        it equals the initial policy's majority vote     every problem that got a vote
    incorrect       the same                                         those whose vote is wrong
    ttrl            it equals the majority of its own group          every problem
    format          there is a non-empty \boxed{}                    every problem
    python          the text mentions python                         every problem
    no_repetition   no phrase comes ten times in a row               every problem
    random          a coin of chance gamma says so                   every problem

and others that the survey names (arXiv:2509.08827, section 3.1):

    judge           a frozen LLM, the initial policy, says Yes       judge.py
    confidence      how sure the policy was of its tokens            confidence.py
    negative_entropy, self_certainty: the same, measured otherwise
    length          the shorter of its group, if right               here
    rm              the reward model's score                         cooper.py

Votes are taken before training (labels.py) unless a data file brings a "label" with each. Names
combine: "rule and not python" is rule * (1 - python), "0.8 rule + 0.2 format" a weighted sum. What
differs from the paper: an answer counts only in a box, since that is what the prompt asks for (its
grader also takes the last number of a text); the one problem is drawn by seed; ttrl trains on
training problems, not on the test's.
"""

import re
from collections import Counter
from functools import partial

import numpy as np
import torch

from rollout import Rollouts
from rules import by_rule, proved
from support.errors import InputError
from survey.confidence import confidence, negative_entropy, self_certainty
from verifier import equivalent, extract_answer, verify


def rule(rollouts: Rollouts) -> torch.Tensor:
    r"""1 where the last \boxed{} equals the reference. The prompt asks for a box: without, 0."""
    return by_rule(proved)(rollouts)


def label(rollouts: Rollouts) -> torch.Tensor:
    r"""1 where the last \boxed{} equals the problem's label, whatever the reference says."""
    if any(problem.label is None for problem in rollouts.problems):
        raise InputError(
            "a problem without a label: cfg.reward must name the reward, or labels.vote_labels"
        )
    pairs = zip(rollouts.texts, rollouts.problems)
    return torch.tensor([float(verify(text, p.label, require_box=True)) for text, p in pairs])


def ttrl(rollouts: Rollouts) -> torch.Tensor:
    """1 where the answer is the majority of its group (TTRL, arXiv:2504.16084)."""
    g, reward = rollouts.group_size, []
    for start in range(0, len(rollouts.texts), g):
        group = rollouts.texts[start : start + g]
        vote = majority_vote(group)
        reward += [float(vote is not None and verify(t, vote, require_box=True)) for t in group]
    return torch.tensor(reward)


def boxed(rollouts: Rollouts) -> torch.Tensor:
    r"""1 where there is a non-empty \boxed{}, right or wrong."""
    return torch.tensor([float(bool(extract_answer(t, require_box=True))) for t in rollouts.texts])


def python(rollouts: Rollouts) -> torch.Tensor:
    """1 where the text mentions python."""
    return torch.tensor([float(mentions_python(text)) for text in rollouts.texts])


def mentions_python(text: str) -> bool:
    """The paper's sign of reasoning in code: the word, in any case; nothing is run."""
    return "python" in text.lower()


def no_repetition(rollouts: Rollouts) -> torch.Tensor:
    """0 where 10 to 256 characters come ten times or more in a row."""
    return torch.tensor([float(not repeats(text)) for text in rollouts.texts])


def coin(rollouts: Rollouts, gamma: float = 0.5) -> torch.Tensor:
    """1 with chance gamma, each completion by itself, whatever it says."""
    # the generator goes on from the sampling: seeded by the step, so a resumed run flips the same
    generator = rollouts.generator
    to = generator.device if generator else "cpu"
    coins = torch.rand(len(rollouts.texts), generator=generator, device=to)
    # where the other rewards are
    return (coins < gamma).float().cpu()


def length(rollouts: Rollouts, rule=rule) -> torch.Tensor:
    """Kimi k1.5's length reward (arXiv:2501.12599, section 2.3.3): within a group

        l = 1/2 - (length - shortest) / (longest - shortest),   right: l,   wrong: min(0, l)

    and 0 where all are of one length. Meant to be added, as in "rule + 0.5 length".
    """
    lengths = rollouts.mask.sum(1).cpu().view(-1, rollouts.group_size)
    shortest, longest = lengths.amin(1, keepdim=True), lengths.amax(1, keepdim=True)
    rank = 0.5 - (lengths - shortest) / (longest - shortest).clamp(min=1)
    rank = rank.masked_fill(longest == shortest, 0.0).flatten()
    return torch.where(rule(rollouts) > 0, rank, rank.clamp(max=0.0))


REWARDS = {
    "rule": rule,
    "one_shot": rule,
    "majority": label,
    "incorrect": label,
    "ttrl": ttrl,
    "format": boxed,
    "python": python,
    "no_repetition": no_repetition,
    "random": coin,
    "judge": None,  # needs a model: see by_name
    "confidence": confidence,
    "negative_entropy": negative_entropy,
    "self_certainty": self_certainty,
    "length": length,
    "rm": None,  # likewise
}


# they read nothing but the policy's probabilities
UNSUPERVISED = ("confidence", "negative_entropy", "self_certainty")


def __getattr__(name: str):
    """rewards.format and rewards.random: the table's names, which would hide Python's own here."""
    if name in REWARDS:
        return REWARDS[name]
    raise AttributeError(name)


def checked(reward, rollouts: Rollouts) -> torch.Tensor:
    """reward(rollouts) as the loops use it: [B], of the type and on the device of rollouts.logp.

    Raises InputError, which names the reward: not a tensor of B finite numbers without a graph.
    """
    name, count = getattr(reward, "__qualname__", type(reward).__name__), len(rollouts.texts)
    # a copy: what a reward does to it reaches nobody
    value = reward(rollouts.rows(torch.arange(count, device=rollouts.mask.device)))
    if not isinstance(value, torch.Tensor):
        raise InputError(f"reward {name} returned {type(value).__name__}, not a tensor [{count}]")
    if value.shape != (count,):
        raise InputError(f"reward {name} returned shape {tuple(value.shape)}, not [{count}]")
    if value.requires_grad:
        raise InputError(f"reward {name} carries a graph: use torch.no_grad() or .detach()")
    if value.is_complex():
        raise InputError(f"reward {name} is complex: return real numbers")
    value = value.to(rollouts.logp)
    if not value.isfinite().all():
        bad = rollouts.texts[int((~value.isfinite()).nonzero()[0])]
        raise InputError(f"reward {name} is not finite for {bad[:60]!r}")
    return value


# --------------------------------------------------------------------------------------------------
# Names


def parse(spec: str) -> list[tuple[float, list[tuple[str, bool]]]]:
    """A sum of products: (weight, [(name, wanted), ...]) of each. Raises InputError.

    >>> parse("0.8 rule and not python + 0.2 format")
    [(0.8, [('rule', True), ('python', False)]), (0.2, [('format', True)])]
    """
    found = []
    for product in spec.split(" + "):
        weight, _, names = product.strip().partition(" ")
        if not re.fullmatch(r"-?\d*\.?\d+", weight):
            weight, names = "1", product
        terms = []
        for term in names.split(" and "):
            base = term.strip().removeprefix("not ").strip()
            if base not in REWARDS:
                raise InputError(
                    f"no reward called {base!r}: choose from {', '.join(REWARDS)}, or combine "
                    'them as in "rule and not python" or "0.8 rule + 0.2 format"'
                )
            terms.append((base, not term.strip().startswith("not ")))
        found.append((float(weight), terms))
    return found


def names_in(spec: str) -> set[str]:
    return {name for _, terms in parse(spec) for name, _ in terms}


def by_name(name: str, gamma: float = 0.5, rule=rule, **more):
    """The reward function of a name or combination of names.

    gamma: of "random". rule: what "rule" and "one_shot" go by, a reward function. more: further
    reward functions by name.
    """
    if not 0 <= gamma <= 1:
        raise InputError(f"gamma must be between 0 and 1, not {gamma}")
    functions = REWARDS | {"random": partial(coin, gamma=gamma)} | more
    functions |= {"rule": rule, "one_shot": rule, "length": partial(length, rule=rule)}
    if lacking := [base for base in names_in(name) if functions[base] is None]:
        raise InputError(
            f"reward {lacking[0]!r} needs a model: grpo.py has the judge, cooper.py rm"
        )
    products = [(w, [(functions[base], wanted) for base, wanted in ts]) for w, ts in parse(name)]

    def reward(rollouts: Rollouts) -> torch.Tensor:
        total = torch.zeros(len(rollouts.texts))
        for weight, terms in products:
            product = torch.full_like(total, weight)
            for function, wanted in terms:
                value = function(rollouts).cpu()
                product = product * (value if wanted else 1 - value)
            total = total + product
        return total

    return reward


# --------------------------------------------------------------------------------------------------
# What two of them look for


def majority_vote(texts: list[str]) -> str | None:
    r"""The most common answer in \boxed{}, whatever the order of the texts; None if none has one.

    A tie goes to the answer most often written in the same way, then to the first in the alphabet.

    >>> majority_vote([r"\boxed{2}", r"\boxed{0.5}", r"\boxed{\frac12}", "I do not know"])
    '0.5'
    """
    answers = [a for text in texts if (a := extract_answer(text, require_box=True))]
    votes = Counter()
    # equal in writing first, it is cheap
    written = sorted(Counter(answers).items(), key=lambda item: (-item[1], item[0]))
    for answer, count in written:
        # Sixteen are enough to compare with: a majority that comes up after as many is none.
        same = next((v for v in list(votes)[:16] if equivalent(answer, v)), answer)
        votes[same] += count
    return votes.most_common(1)[0][0] if votes else None


def repeats(text: str, shortest=10, longest=256, times=10) -> bool:
    """Whether a piece of `shortest` to `longest` characters comes `times` times in a row.

    That is: whether times * p characters in a row have period p, i.e. text[i] == text[i + p] holds
    (times - 1) * p times in a row.
    """
    codes = np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32)
    for p in range(shortest, min(longest, len(codes) // times) + 1):
        breaks = np.flatnonzero(codes[p:] != codes[:-p])
        edges = np.concatenate([[-1], breaks, [len(codes) - p]])
        if np.diff(edges).max() - 1 >= (times - 1) * p:
            return True
    return False
