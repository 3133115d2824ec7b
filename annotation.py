"""Hybrid annotation: what the reward model is first trained on (Cooper, arXiv:2508.05613).

1 sample completions of the policy
2 label each by the rule and by a judge LLM: the rule is precise but misses equivalent forms,
  a judge the other way round
3 drop those on which the two disagree
"""

import re
from dataclasses import dataclass

import rewards
from data import InputError, judge_prompt, training_and_held_out
from rollout import Rollouts, load_policy, sample
from support.progress import progress
from support.run import torch_rng
from verifier import equivalent


@dataclass(frozen=True)
class Example:
    question: str
    reference: str
    completion: str
    label: int  # 1 where the completion's answer agrees with the reference


def judge(policy, tokenizer, rollouts: Rollouts) -> list[int | None]:
    """Ask an LLM for Yes (1) or No (0) on each rollout, greedily; None where it says neither."""
    rows, verdicts = zip(rollouts.problems, rollouts.texts), []
    prompts = [judge_prompt(p.question, p.answer, text) for p, text in rows]
    said = sample(policy, tokenizer, rollouts.problems, 1, 8, temperature=0.0, prompts=prompts)
    for text in said.texts:
        words = re.findall(r"\b(yes|no)\b", text.lower())
        # the last one counts
        verdicts.append(int(words[-1] == "yes") if words else None)
    return verdicts


def annotate(rollouts: Rollouts, judge_policy, tokenizer) -> tuple[list[Example], list[bool]]:
    """Label B rollouts by the rule, and ask the judge -> (examples, whether the two agree)."""
    by_rule = rewards.rule(rollouts).int().tolist()
    by_judge = judge(judge_policy, tokenizer, rollouts)
    rows = zip(rollouts.problems, rollouts.texts, by_rule)
    examples = [Example(p.question, p.answer, text, label) for p, text, label in rows]
    return examples, [rule == said for rule, said in zip(by_rule, by_judge)]


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
    if len(problems) < 10:
        raise InputError(f"{cfg.data}: {len(problems)} problems to sample, at least 10 are needed")
    policy, tokenizer = load_policy(cfg.model)
    judge_model, judge_tokenizer = load_policy(cfg.judge) if cfg.judge else (policy, tokenizer)
    generator = torch_rng(policy.device, cfg.seed, "annotate")
    train, validation, held_out, agreed = [], [], [], []
    # problems sampled at a time: at most a tenth of them, since the parts are split here too
    size = max(1, min(cfg.batch // cfg.group_size, len(problems) // 10))
    for i in progress(range(0, len(problems), size), "annotate"):
        part, G, T = problems[i : i + size], cfg.group_size, cfg.max_new_tokens
        rollouts = sample(policy, tokenizer, part, G, T, generator=generator)
        examples, agree = annotate(rollouts, judge_model, judge_tokenizer)
        agreed += agree
        if i < len(problems) / 10:
            held_out += examples
        elif i < len(problems) / 5:
            validation += examples
        else:
            train += [example for example, keep in zip(examples, agree) if keep]
    return train, validation, held_out, sum(agreed) / len(agreed)
