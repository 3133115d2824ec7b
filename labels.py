r"""Labels by vote: what the rewards "majority" and "incorrect" pay for, in place of the reference.

Before training the initial policy answers each problem `votes` times; its most common answer
becomes the label (Spurious Rewards, arXiv:2506.10947, section 2). A run keeps them in its folder.
"""

import json
from dataclasses import asdict, replace
from pathlib import Path

from data import Problem
from rewards import REWARDS, label, majority_vote, names_in
from rollout import sample
from support.errors import InputError
from support.files import fingerprints, read_json, write
from support.progress import progress
from support.run import rng, torch_rng
from verifier import equivalent


def vote_labels(
    policy, tokenizer, problems, votes=64, max_new_tokens=32, generator=None, batch=256
) -> list[Problem]:
    r"""The problems with the majority of `votes` samples (temperature 1) as their label.

    Those where no sample has an answer are left out. batch: completions sampled at a time.
    Raises InputError where none has.
    """
    labelled, prompts = [], max(1, batch // votes)
    for start in progress(range(0, len(problems), prompts), "votes", leave=False):
        part = problems[start : start + prompts]
        texts = sample(policy, tokenizer, part, votes, max_new_tokens, generator=generator).texts
        for i, problem in enumerate(part):
            if (vote := majority_vote(texts[i * votes : (i + 1) * votes])) is not None:
                labelled.append(replace(problem, label=vote))
    if not labelled:
        raise InputError(
            "no sample of the initial policy holds a \\boxed{} answer to vote with: "
            f"is max_new_tokens={max_new_tokens} enough?"
        )
    return labelled


def labelled(cfg, policy, tokenizer, problems: list[Problem]) -> list[Problem]:
    """The problems with the initial policy's votes; kept in cfg.output for when the run resumes."""
    path, settings = Path(cfg.output, "labels.json"), asdict(cfg) | fingerprints(cfg)
    # what may differ
    for field in ("output", "steps"):
        settings.pop(field)
    kept = read_json(path) if path.exists() else {}
    if kept.get("settings") != settings:
        voted = vote_labels(
            policy, tokenizer, problems, cfg.votes, cfg.max_new_tokens,
            torch_rng(policy.device, cfg.seed, "votes"), batch=cfg.prompts * cfg.group_size,
        )  # fmt: skip
        kept = {"settings": settings, "labels": {p.question: p.label for p in voted}}
        path.parent.mkdir(parents=True, exist_ok=True)
        write(path, json.dumps(kept) + "\n")
    labels = kept["labels"]
    return [replace(p, label=labels[p.question]) for p in problems if p.question in labels]


def needs_labels(name: str) -> bool:
    return any(REWARDS[base] is label for base in names_in(name))


def training_problems(name: str, problems: list[Problem], random) -> list[Problem]:
    """What the reward of that name trains on; with labels, if needs_labels. Raises InputError."""
    names = names_in(name)
    if "incorrect" in names:
        problems = [p for p in problems if not equivalent(p.label, p.answer)]
    if "one_shot" in names:
        problems = [random.choice(problems)] if problems else []
    if not problems:
        raise InputError(f"reward {name!r} finds no problem to train on: give it more of them")
    return problems


def problems_for(cfg, policy, tokenizer, problems: list[Problem]) -> list[Problem]:
    """What the reward cfg.reward trains on, with labels where it needs them and none are given."""
    if needs_labels(cfg.reward) and any(problem.label is None for problem in problems):
        problems = labelled(cfg, policy, tokenizer, problems)
    return training_problems(cfg.reward, problems, rng(cfg.seed, "one shot"))
