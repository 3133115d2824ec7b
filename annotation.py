"""Hybrid annotation: what the reward model is first trained on (Cooper, arXiv:2508.05613).

1 sample completions of the policy
2 label each by the rule and by a judge LLM: the rule is precise but misses equivalent forms,
  a judge the other way round
3 drop those on which the two disagree
"""

import re
from dataclasses import dataclass

import rewards
from data import judge_prompt, training_and_held_out
from rollout import Rollouts, load_policy, sample, those_that_fit
from support.chat import within_context
from support.errors import InputError
from support.progress import progress, say
from support.run import torch_rng
from verifier import equivalent


@dataclass(frozen=True)
class Example:
    question: str
    reference: str
    completion: str
    label: int  # 1 where the completion's answer agrees with the reference


def judge(policy, tokenizer, rollouts: Rollouts, max_new_tokens: int = 8) -> list[int | None]:
    """Ask an LLM for Yes (1) or No (0) on each rollout, greedily; None where it says neither."""
    rows = zip(rollouts.problems, rollouts.texts)
    prompts = [judge_prompt(p.question, p.answer, text) for p, text in rows]
    # of what is too long to be read the judge says nothing
    fits = within_context(policy, tokenizer, prompts, max_new_tokens)
    rows = [i for i, fit in enumerate(fits) if fit]
    if not rows:
        return [None] * len(prompts)
    said = sample(
        policy, tokenizer, [rollouts.problems[i] for i in rows], 1, max_new_tokens,
        temperature=0.0, prompts=[prompts[i] for i in rows],
    )  # fmt: skip
    verdicts = dict(zip(rows, map(verdict, said.texts)))
    return [verdicts.get(i) for i in range(len(prompts))]


def verdict(text: str) -> int | None:
    """The last Yes (1) or No (0) of a judge's reply, whatever it thought before.

    >>> verdict("<think>Yes? No.</think> Yes."), verdict("<think>Yes, the answer"), verdict("Maybe")
    (1, None, None)
    """
    said = re.sub(r"<think>.*?(</think>|$)", " ", text, flags=re.DOTALL).rpartition("</think>")[2]
    words = re.findall(r"\b(yes|no)\b", said.lower())
    return int(words[-1] == "yes") if words else None


def annotate(
    rollouts: Rollouts, judge_policy, tokenizer, max_new_tokens: int = 8, said: list | None = None
) -> tuple[list[Example], list[bool]]:
    """Label B rollouts by the rule, and ask the judge -> (examples, whether the two agree).

    max_new_tokens: of the judge. said: a list that receives its verdicts.
    """
    by_rule = rewards.rule(rollouts).int().tolist()
    by_judge = judge(judge_policy, tokenizer, rollouts, max_new_tokens)
    if said is not None:
        said += by_judge
    rows = zip(rollouts.problems, rollouts.texts, by_rule)
    examples = [Example(p.question, p.answer, text, label) for p, text, label in rows]
    return examples, [rule == judged for rule, judged in zip(by_rule, by_judge)]


def swap_references(examples: list[Example], random) -> list[Example]:
    """Correct completions beside another example's reference: the same text must now score low."""
    references = [e.reference for e in examples]
    swapped = []
    for e in (e for e in examples if e.label == 1):
        other = random.choice(references)
        if not equivalent(other, e.reference):
            swapped.append(Example(e.question, other, e.completion, 0))
    return swapped


def make_examples(cfg):
    """(training, validation, held-out examples, share that the annotation keeps); by problem.

    cfg: a reward_model.RewardModelConfig. Only the training examples are filtered: dropping those
    that a judge finds hard from the other two would flatter the reward model. The problems on which
    a policy is evaluated (eval_data, eval_problems) are in none of the three.
    """
    problems, _ = training_and_held_out(
        cfg.data, cfg.eval_data, cfg.eval_problems, cfg.problems, cfg.seed
    )
    policy, tokenizer = load_policy(cfg.model, system=cfg.system, chat=cfg.chat)
    (problems,) = those_that_fit(policy, tokenizer, cfg.max_new_tokens, problems)
    if len(problems) < 10:
        raise InputError(f"{cfg.data}: {len(problems)} problems to sample, at least 10 are needed")
    judge_model, judge_tokenizer = load_policy(cfg.judge) if cfg.judge else (policy, tokenizer)
    generator = torch_rng(policy.device, cfg.seed, "annotate")
    train, validation, held_out, agreed, said = [], [], [], [], []
    # problems sampled at a time: at most a tenth of them, since the parts are split here too
    size = max(1, min(cfg.batch // cfg.group_size, len(problems) // 10))
    for i in progress(range(0, len(problems), size), "annotate"):
        part, G, T = problems[i : i + size], cfg.group_size, cfg.max_new_tokens
        rollouts = sample(policy, tokenizer, part, G, T, generator=generator)
        examples, agree = annotate(
            rollouts, judge_model, judge_tokenizer, cfg.judge_max_new_tokens, said
        )
        agreed += agree
        if i == 0 and said.count(None) > len(said) / 2:
            say(
                f"the judge says neither Yes nor No on {said.count(None)} of the first {len(said)} "
                f"samples: more judge_max_new_tokens (now {cfg.judge_max_new_tokens}) for one that "
                "thinks, or another judge"
            )
        if i < len(problems) / 10:
            held_out += examples
        elif i < len(problems) / 5:
            validation += examples
        else:
            train += [example for example, keep in zip(examples, agree) if keep]
    return train, validation, held_out, sum(agreed) / len(agreed)
