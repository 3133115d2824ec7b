r"""Pairs for Cooper's reward model: two texts for one question, the first right, the second wrong.

No human is asked: the rule proves the first right (stage 5), and calls the second wrong (stage 6),
which comes from

    assistant   a frozen LLM that rewrites the first into a wrong solution (the paper's way)
    rollouts    the policy: a completion of the same prompt that the rule rejects
    perturb     the first with one number changed: no LLM at all

The paper's reason for the assistant: a rule's "correct" can be trusted, its "wrong" cannot, since
rules miss equivalent forms; a rejected completion may be right. A rewrite that was asked to be
wrong, and that the rule calls wrong, seldom is.
"""

import math
import re

from prompts import rewrite_prompt
from rewards import proved
from rollout import Rollouts, sample
from support.chat import within_context
from support.run import torch_rng
from verifier import extract_answer


def select_positives(rollouts: Rollouts, correct, random, count: int = 1) -> list[int]:
    """`count` correct rows of each prompt, or all if they are fewer, drawn with `random`.

    correct: [B] bool or 0/1, by the rule verifier. random: a random.Random. Returns row indices:
    the first of every prompt, then the second of every prompt, ...
    """
    flags, size = [bool(c) for c in correct], rollouts.group_size
    groups = [[i for i in range(n, n + size) if flags[i]] for n in range(0, len(flags), size)]
    drawn = [random.sample(rows, min(count, len(rows))) for rows in groups]
    return [rows[i] for i in range(count) for rows in drawn if i < len(rows)]


def is_negative(text: str, problem, rule=proved) -> bool:
    """The rule does not call it right; without an answer in a box it never does."""
    return not rule(text, problem)


def make_negatives(
    assistant, tokenizer, solutions, problems, max_new_tokens, max_retries=3, temperature=0.7,
    generator=None, rule=proved,
) -> list[str | None]:  # fmt: skip
    """A wrong rewrite of each right solution, by an LLM; None where every try failed.

    solutions, problems: texts and what they solve. Tries again, up to `max_retries` times, where
    the rule calls the text right. What the LLM cannot read, since its context is too short, gets
    None.
    """
    prompts = [rewrite_prompt(p.question, text) for p, text in zip(problems, solutions)]
    readable = within_context(assistant, tokenizer, prompts, max_new_tokens)
    negatives: list[str | None] = [None] * len(solutions)
    for _ in range(1 + max_retries):
        missing = [i for i, text in enumerate(negatives) if text is None and readable[i]]
        if not missing:
            break
        rewrites = sample(
            assistant, tokenizer, [problems[i] for i in missing], 1, max_new_tokens, temperature,
            generator=generator, prompts=[prompts[i] for i in missing],
        ).texts  # fmt: skip
        for i, text in zip(missing, rewrites):
            if is_negative(text, problems[i], rule):
                negatives[i] = text
    return negatives


def rejected_rollouts(rollouts: Rollouts, correct, positives, random) -> list[str | None]:
    """A rollout of the same prompt that the rule rejects, for each positive; None where none is."""
    size, texts = rollouts.group_size, []
    for row in positives:
        group = range(row - row % size, row - row % size + size)
        wrong = [rollouts.texts[i] for i in group if not correct[i]]
        texts.append(random.choice(wrong) if wrong else None)
    return texts


def perturbed(text: str, problem, random, rule=proved, tries: int = 50) -> str | None:
    """The text with one of its numbers moved by 1 to 3, drawn until the rule calls it wrong.

    So the answer changes, and what leads to it does not. None where no try is wrong.
    """
    numbers = list(re.finditer(r"\d+", text))
    for _ in range(tries if numbers else 0):
        number = random.choice(numbers)
        moved = abs(int(number[0]) + random.choice((-3, -2, -1, 1, 2, 3)))
        changed = f"{text[: number.start()]}{moved}{text[number.end() :]}"
        if is_negative(changed, problem, rule):
            return changed
    return None


def find_negatives(
    rollouts, correct, positives, random, assistant, cfg, step: int, rule=proved
) -> list[str | None]:
    """A wrong text for each positive, from where cfg.negatives says; None where there is none.

    correct: [B] by the rule. assistant: (model, tokenizer). cfg: a cooper.CooperConfig.
    """
    if cfg.negatives == "rollouts":
        return rejected_rollouts(rollouts, correct, positives, random)
    solutions = [rollouts.texts[row] for row in positives]
    problems = [rollouts.problems[row] for row in positives]
    if cfg.negatives == "perturb":
        return [perturbed(text, p, random, rule) for text, p in zip(solutions, problems)]
    model, tokenizer = assistant
    return make_negatives(
        model, tokenizer, solutions, problems, cfg.assistant_max_new_tokens, cfg.max_retries,
        cfg.assistant_temperature, torch_rng(model.device, cfg.seed, "negatives", step), rule,
    )  # fmt: skip


def answered_rate(pairs) -> float:
    """Share of the negatives with an answer in a box; nan without pairs. A refusal has none."""
    answers = [bool(extract_answer(wrong, require_box=True)) for *_, wrong in pairs]
    return sum(answers) / len(answers) if answers else math.nan


def pair_up(rollouts: Rollouts, positives, negatives) -> list[tuple[str, str, str, str]]:
    """(question, reference, positive, negative) of each positive row that got a negative."""
    return [
        (rollouts.problems[row].question, rollouts.problems[row].answer, rollouts.texts[row], wrong)
        for row, wrong in zip(positives, negatives)
        if wrong is not None
    ]
