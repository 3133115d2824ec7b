"""Hybrid annotation: what the reward model is first trained on (Cooper, arXiv:2508.05613).

1 sample completions of the policy
2 label each by the rule and by a judge LLM: the rule is precise but misses equivalent forms,
  a judge the other way round
3 drop those on which the two disagree
"""

from dataclasses import dataclass

import rewards
import rules
from data import training_and_held_out
from judge import judge
from rollout import Rollouts, load_policy, sample, those_that_fit
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


def texts_of(examples: list[Example]):
    """(questions, references, completions)"""
    return tuple(zip(*[(e.question, e.reference, e.completion) for e in examples]))


def label(rollouts: Rollouts, labels: list) -> list[Example]:
    """The B rollouts as examples; those whose label is None are left out."""
    rows = zip(rollouts.problems, rollouts.texts, labels)
    return [Example(p.question, p.answer, text, int(y)) for p, text, y in rows if y is not None]


def agreed(by_rule: list[int], by_judge: list[int | None], labels: str = "both") -> list:
    """Labels of what both label alike, None for the rest; or those of "rule" or "judge" alone.

    >>> agreed([1, 1, 0, 0], [1, 0, 0, None])
    [1, None, 0, None]
    """
    if labels != "both":
        return by_rule if labels == "rule" else by_judge
    return [rule if rule == judged else None for rule, judged in zip(by_rule, by_judge)]


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
    """(training, validation, held-out examples, what the annotation did); by problem.

    cfg: a reward_model.RewardModelConfig. Only the training examples are labelled by what training
    may know. The other two go by the verifier and are whole: dropping those that a judge finds hard
    would flatter the reward model. The problems on which a policy is evaluated (eval_data,
    eval_problems) are in none of the three.
    """
    rule = rules.by_rule(rules.rule_of(cfg.rule))
    problems, _ = training_and_held_out(
        cfg.data, cfg.eval_data, cfg.eval_problems, cfg.problems, cfg.seed
    )
    policy, tokenizer = load_policy(cfg.model, system=cfg.system, chat=cfg.chat)
    (problems,) = those_that_fit(policy, tokenizer, cfg.max_new_tokens, problems)
    if len(problems) < 10:
        raise InputError(f"{cfg.data}: {len(problems)} problems to sample, at least 10 are needed")
    judge_model, judge_tokenizer = load_policy(cfg.judge) if cfg.judge else (policy, tokenizer)
    generator = torch_rng(policy.device, cfg.seed, "annotate")
    train, validation, held_out, ruled, said = [], [], [], [], []
    # problems sampled at a time: at most a tenth of them, since the parts are split here too
    size = max(1, min(cfg.batch // cfg.group_size, len(problems) // 10))
    for i in progress(range(0, len(problems), size), "annotate"):
        asked, G, T = problems[i : i + size], cfg.group_size, cfg.max_new_tokens
        rollouts = sample(policy, tokenizer, asked, G, T, generator=generator)
        by_rule = rule(rollouts).int().tolist()
        by_judge = judge(judge_model, judge_tokenizer, rollouts, cfg.judge_max_new_tokens)
        ruled += by_rule
        said += by_judge
        if i == 0 and said.count(None) > len(said) / 2:
            say(
                f"the judge says neither Yes nor No on {said.count(None)} of the first {len(said)} "
                f"samples: more judge_max_new_tokens (now {cfg.judge_max_new_tokens}) for one that "
                "thinks, or another judge"
            )
        if i < len(problems) / 5:
            part = held_out if i < len(problems) / 10 else validation
            part += label(rollouts, rewards.rule(rollouts).tolist())
        else:
            train += label(rollouts, agreed(by_rule, by_judge, cfg.labels))
    verdicts = list(zip(ruled, said))
    counts = {
        "annotation_kept": verdicts.count((1, 1)) + verdicts.count((0, 0)),
        "right by the judge alone": verdicts.count((0, 1)),
        "right by the rule alone": verdicts.count((1, 0)),
        "no verdict": said.count(None),
    }
    return train, validation, held_out, {k: n / len(verdicts) for k, n in counts.items()}


def in_words(annotated: dict[str, float]) -> str:
    """What annotation kept, and by which disagreement it dropped the rest."""
    return (
        f"rule and judge agree on {annotated['annotation_kept']:.2f} of the samples; "
        f"right by the judge alone {annotated['right by the judge alone']:.2f}, by the rule alone "
        f"{annotated['right by the rule alone']:.2f}, no verdict {annotated['no verdict']:.2f}"
    )
