r"""Which completions a step learns from (survey, section 3.3, 2509.08827); off by default.

dynamic_sampling   groups of equal rewards teach nothing: up to so many times problems are drawn
                   anew in their place (DAPO, arXiv:2503.14476, section 3.2)
prioritised        a problem is drawn with a chance that is proportional to 1 - its running
                   success rate (Kimi k1.5, arXiv:2501.12599, section 2.3.4)
segment            a value every so many tokens, the mean reward of `segment_samples`
                   completions from there: VinePPO (arXiv:2410.01679, section 4)
overlong           what nears the length limit costs (DAPO, section 3.4)
staleness          the completions are those of the policy so many steps ago
entropy_target     the entropy bonus is on only below it, and adapts (Skywork-OR1, 2505.22312)
reference_reset    every so many steps the KL's reference becomes the policy, and the optimizer
                   starts anew (ProRL, arXiv:2505.24864)
"""

import copy
from dataclasses import replace

import torch
from torch.nn.functional import pad

import rewards
from data import draw_problems
from rollout import Rollouts, sample

# --------------------------------------------------------------------------------------------------
# Groups of equal rewards


def equal_groups(score: torch.Tensor, group_size: int) -> torch.Tensor:
    """Whether each group's rewards are all the same; score [B] -> [N] bool."""
    groups = score.view(-1, group_size)
    return (groups == groups[:, :1]).all(1)


def join(first: Rollouts, second: Rollouts) -> Rollouts:
    """The rows of both, padded to the same widths."""
    P = max(first.prompt_ids.shape[1], second.prompt_ids.shape[1])
    T = max(first.mask.shape[1], second.mask.shape[1])

    def both(name: str, width: int, left: bool) -> torch.Tensor:
        parts = [getattr(rollouts, name) for rollouts in (first, second)]
        gaps = [width - part.shape[1] for part in parts]
        return torch.cat([pad(x, (n, 0) if left else (0, n)) for x, n in zip(parts, gaps)])

    return replace(
        first,
        prompt_ids=both("prompt_ids", P, True),
        prompt_mask=both("prompt_mask", P, True),
        completion_ids=both("completion_ids", T, False),
        mask=both("mask", T, False),
        logp=both("logp", T, False),
        entropy=None if first.entropy is None else both("entropy", T, False),
        truncated=torch.cat([first.truncated, second.truncated]),
        texts=first.texts + second.texts,
        problems=first.problems + second.problems,
    )


def replace_equal_groups(rollouts, score, more, rounds: int) -> tuple[Rollouts, torch.Tensor]:
    """Up to `rounds` times, other groups in place of those whose rewards are all equal.

    more: (number of groups) -> (rollouts, score) of other problems; of these, too, the equal ones
    are left. Returns (rollouts, score [B]): as many groups as before, those still equal at the
    end among them.
    """
    G = rollouts.group_size
    for _ in range(rounds):
        equal = equal_groups(score, G).nonzero()[:, 0]
        if len(equal) == 0:
            break
        others, their_score = more(len(equal))
        new = (~equal_groups(their_score, G)).nonzero()[:, 0]
        rows = torch.arange(len(score), device=score.device).view(-1, G)
        rows[equal[: len(new)]] = len(score) + new[:, None] * G + torch.arange(G).to(rows)
        rollouts = join(rollouts, others).rows(rows.flatten())
        score = torch.cat([score, their_score])[rows.flatten()]
    return rollouts, score


def overlong(length: torch.Tensor, limit: int, buffer: int) -> torch.Tensor:
    """DAPO's soft punishment (arXiv:2503.14476, equation 13) for a length limit, both in tokens:

    0 up to limit - buffer, from there falling to -1 at the limit. length: [B] -> [B].

    >>> overlong(torch.tensor([30.0, 34.0, 40.0]), limit=40, buffer=8)
    tensor([ 0.0000, -0.2500, -1.0000])
    """
    return ((limit - buffer - length) / buffer).clamp(-1.0, 0.0)


def replace_and_punish(
    rollouts, score, learner, reward, cfg, draw, generator
) -> tuple[Rollouts, torch.Tensor]:
    """Stage 2 of DAPO: replace_equal_groups, then the punishment for length."""

    def more(count: int):
        problems = draw_problems(learner.problems, count, draw, learner.chances)
        others = sample(
            learner.writer, learner.tokenizer, problems, cfg.group_size, cfg.max_new_tokens,
            cfg.temperature, generator=generator,
        )  # fmt: skip
        learner.extra_completions += len(others.texts)
        return others, rewards.checked(reward, others)

    rollouts, score = replace_equal_groups(rollouts, score, more, cfg.dynamic_sampling)
    if cfg.overlong:
        score = score + overlong(rollouts.mask.sum(1), cfg.max_new_tokens, cfg.overlong)
    return rollouts, score


# --------------------------------------------------------------------------------------------------
# Values by sampling on from the middle


def segment_advantages(learner, rollouts, score, reward, cfg, generator):
    """Each token's A: what its segment of `segment` tokens has changed in the value, [B, T].

        A_t = V(end of the segment) - V(its start),   V = mean reward of completions from there

    The prompt's V is the mean of the others of its group, that of the end the completion's own
    reward; between them `segment_samples` completions are sampled from each prefix, which is read
    once.
    """
    T, k = rollouts.mask.shape[1], cfg.segment
    length = rollouts.mask.sum(1).long()
    groups = score.view(-1, rollouts.group_size)
    value = ((groups.sum(1, keepdim=True) - groups) / (groups.shape[1] - 1)).flatten()
    adv = torch.zeros_like(rollouts.mask)
    for start in range(0, T, k):
        after, goes_on = score.clone(), (length > start + k).nonzero()[:, 0]
        if len(goes_on):
            prefixes = rollouts.completion_ids[goes_on, : start + k].tolist()
            asked = [rollouts.problems[i] for i in goes_on.tolist()]
            left = cfg.max_new_tokens - start - k
            ends = sample(
                learner.policy, learner.tokenizer, asked, cfg.segment_samples, left,
                cfg.temperature, generator=generator, prefixes=prefixes,
            )  # fmt: skip
            after[goes_on] = rewards.checked(reward, ends).view(len(goes_on), -1).mean(1)
            learner.extra_completions += len(ends.texts)
        adv[:, start : start + k] = (after - value)[:, None]
        value = after
    return adv * rollouts.mask


# --------------------------------------------------------------------------------------------------
# What a run keeps from step to step: parts that are saved with a checkpoint


class Success:
    """Running success rate of each problem: half of what was known counts as the new group does."""

    def __init__(self, problems):
        self.index = {problem.question: i for i, problem in enumerate(problems)}
        self.tried, self.solved = torch.zeros(2, len(problems), dtype=torch.float64)

    def add(self, problems, correct: torch.Tensor) -> None:
        """problems: B of them; correct: [B], 0/1."""
        rows = torch.tensor([self.index[problem.question] for problem in problems])
        seen = rows.unique()
        self.tried[seen] *= 0.5
        self.solved[seen] *= 0.5
        self.tried.index_add_(0, rows, torch.ones(len(rows), dtype=torch.float64))
        self.solved.index_add_(0, rows, correct.cpu().double())

    def chances(self) -> list[float]:
        """1 - success rate of each problem, one that was never tried counting as half solved."""
        return (1 - (self.solved + 1) / (self.tried + 2)).tolist()

    def state_dict(self) -> dict:
        return {"tried": self.tried, "solved": self.solved}

    def load_state_dict(self, state: dict) -> None:
        self.tried, self.solved = state["tried"], state["solved"]


class Stale:
    """The policy as it was `lag` steps ago, or at the start where that is longer ago."""

    def __init__(self, policy, lag: int):
        self.lag, self.writer = lag, copy.deepcopy(policy)
        self.weights = [self.now(policy)]

    @staticmethod
    def now(policy) -> dict:
        """A copy of the weights, in the computer's memory and not the GPU's."""
        return {name: w.detach().clone().cpu() for name, w in policy.state_dict().items()}

    def add(self, policy) -> None:
        self.weights = [*self.weights, self.now(policy)][-self.lag - 1 :]
        self.writer.load_state_dict(self.weights[0])

    def state_dict(self) -> dict:
        return dict(enumerate(self.weights))

    def load_state_dict(self, state: dict) -> None:
        self.weights = [state[i] for i in range(len(state))]
        self.writer.load_state_dict(self.weights[0])


def parts(cfg, policy, reference, problems) -> dict:
    """By name, for run.resume; empty where no switch asks for one."""
    found = {}
    if cfg.prioritised:
        found["success"] = Success(problems)
    if cfg.staleness:
        found["stale"] = Stale(policy, cfg.staleness)
    if cfg.reference_reset and reference is not None:
        found["reference"] = reference
    return found


def after_step(learner, rollouts, rule, cfg, step: int) -> dict:
    """Bring the parts up to date; rule: what training takes for right. How many completions the
    step has cost is returned for the log."""
    if cfg.prioritised:
        learner.extra["success"].add(rollouts.problems, rule(rollouts))
    if cfg.staleness:
        learner.extra["stale"].add(learner.policy)
    if "reference" in learner.extra and step % cfg.reference_reset == 0:
        learner.reference.load_state_dict(learner.policy.state_dict())
        learner.optimizer.state.clear()
    row = {"completions": cfg.prompts * cfg.group_size + learner.extra_completions} | learner.to_log
    learner.extra_completions, learner.to_log = 0, {}
    return row


def adapted(cfg, learner, history: list[dict]):
    """cfg with the entropy bonus of the next step."""
    if cfg.entropy_target is None:
        return cfg
    learner.to_log["entropy_coef"] = next_entropy_coef(cfg, history)
    return replace(cfg, entropy_coef=learner.to_log["entropy_coef"])


def next_entropy_coef(cfg, history: list[dict]) -> float:
    """What the entropy bonus weighs in the next step; history: the rows of the steps so far.

    c starts at cfg.entropy_coef and grows by entropy_delta after each step whose entropy was below
    entropy_target, else it shrinks by as much, to 0 at least. The bonus is c where the last
    entropy was at most the target, and else 0. Entropy is the writer's: with staleness that of the
    policy so many steps ago, which the bonus reaches so much later.

    >>> from types import SimpleNamespace as C
    >>> cfg = C(entropy_coef=0.01, entropy_target=1.0, entropy_delta=0.005)
    >>> [next_entropy_coef(cfg, [{"entropy": e} for e in es]) for es in ([], [0.9], [0.9, 1.5])]
    [0.01, 0.015, 0.0]
    """
    coef, bonus = cfg.entropy_coef, cfg.entropy_coef
    for row in history:
        if row.get("entropy") is not None:  # None where an update was left out
            below = row["entropy"] <= cfg.entropy_target
            coef = max(0.0, coef + (cfg.entropy_delta if below else -cfg.entropy_delta))
            bonus = coef if below else 0.0
    return bonus
