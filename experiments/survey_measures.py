"""What experiments.survey measures of finished policies beside their training logs.

discovery    pass@1 ... pass@64 at temperature 1, before and after. An answer is one of 21 numbers,
             so 64 guesses hit most of them: beside the answer, a chain is asked for whose steps
             are all there and right
sft          accuracy on chains of known and of unknown length, what became of the roles of judge
             and assistant, which nothing in the training touches, and the KL to the start
prefix       accuracy where an answer has to begin with "python", without any training
"""

import json
from dataclasses import replace
from pathlib import Path

import torch

import rules
import tiny
from data import PLAIN, load_problems
from eval import evaluate, pass_at_k
from experiments.reproduce_logs import DIGITS, file_name, seed_folders, write_lines
from experiments.workers import quietly
from rollout import load_policy, sample, token_logprobs
from support.files import claim_results, write
from support.jsonl import read_jsonl
from support.run import torch_rng
from survey.process import sound
from world import PRIORS

PROBLEMS, SAMPLES, LIMIT = 100, 64, 60
EVALUATED = 500  # problems where a few samples are enough
SETS = {"3 to 6 numbers": "arithmetic", "7 to 9 numbers": "arithmetic:7-9"}


def texts(model, problems, samples: int, batch: int = 256, prefix=()):
    """(problem, its completions at temperature 1) of each, begun with the tokens of `prefix`."""
    policy, tokenizer = model
    generator = torch_rng(policy.device, 0, "measure")
    for start in range(0, len(problems), size := max(1, batch // samples)):
        part = problems[start : start + size]
        rollouts = sample(
            policy, tokenizer, part, samples, LIMIT, generator=generator,
            prefixes=[list(prefix)] * len(part),
        )  # fmt: skip
        for i, problem in enumerate(part):
            yield problem, rollouts.texts[i * samples : (i + 1) * samples]


def passes(found: list[int], samples: int) -> dict[str, float]:
    """pass@1, 2, 4, ... of so many right samples of each problem."""
    ks = [2**i for i in range(samples.bit_length())]
    return {f"pass@{k}": sum(pass_at_k(samples, c, k) for c in found) / len(found) for k in ks}


def all_steps(text: str, problem) -> bool:
    return rules.proved(text, problem) and sound(problem.question, text)


def discovery(model, start: str, seed: int) -> list[dict]:
    """pass@k on chains of known and unknown length, by the answer and by all steps; and on answers
    above 9 where they are to be written "9 + n", word for word, which the verifier does not ask."""
    asked = [(name, load_problems(source, "test", PROBLEMS, seed)) for name, source in SETS.items()]
    graders = {"answer": rules.proved, "every step": all_steps}
    rows = []
    for name, problems in asked:
        written = list(texts(model, problems, SAMPLES))
        for grader, says in graders.items():
            found = [sum(says(text, problem) for text in group) for problem, group in written]
            rows.append({"on": f"{name}: {grader}"} | passes(found, SAMPLES))
    known = load_problems("arithmetic", "test", EVALUATED, seed)
    nines = [replace(p, answer=f"9 + {int(p.answer) - 9}") for p in known if int(p.answer) > 9]
    written = texts(model, nines[:PROBLEMS], SAMPLES)
    found = [sum(rules.same_text(text, problem) for text in group) for problem, group in written]
    return [*rows, {"on": "answers as 9 + n"} | passes(found, SAMPLES)]


def skills(model, start: str, seed: int) -> list[dict]:
    """Accuracy by length, the marks of the warm-up, and how far the policy is from its start."""
    row = {}
    for name, source in SETS.items():
        problems = load_problems(source, "test", EVALUATED, seed)
        row[name] = evaluate(*model, problems, samples=2, max_new_tokens=LIMIT)["accuracy"]
    marks = tiny.marks(*model, PRIORS["mixed"], PLAIN)
    row |= {"solver" if name == "policy" else name: mark for name, mark in marks.items()}
    return [row | {"KL to the start": kl_to(start, model, seed)}]


def kl_to(start: str, model, seed: int) -> float:
    """KL(policy || start) of a completion of a known length, in nats: the mean of
    log policy - log start over the policy's own samples."""
    problems = load_problems("arithmetic", "test", EVALUATED, seed)
    generator = torch_rng(model[0].device, 0, "KL")
    rollouts = sample(*model, problems, 1, LIMIT, generator=generator)
    with torch.no_grad():
        logp, _ = token_logprobs(quietly(load_policy, start)[0], rollouts)
    return ((rollouts.logp - logp) * rollouts.mask).sum(1).mean().item()


def prefix(model, start: str, seed: int) -> list[dict]:
    """Accuracy as it is, and where each answer begins with "python"."""
    problems = load_problems("arithmetic", "test", EVALUATED, seed)
    ids = model[1]("python", add_special_tokens=False).input_ids
    rows = []
    for name, begun in (("none", []), ("python", ids)):
        written = texts(model, problems, 4, prefix=begun)
        right = [rules.proved(text, problem) for problem, group in written for text in group]
        rows.append({"prefix": name, "accuracy": sum(right) / len(right)})
    return rows


SFT = ("rl", "own samples", "given", "rl, then rl", "rl, then given")
SFT += ("given, then rl", "given, then given", "given on long alone")

# question: (what measures a policy, the folders of the policies below a seed's, by name; the first
# is where the others began)
MEASURES = {
    "discovery": (
        discovery,
        {
            "before": "policy/mixed",
            "rl": "sft/rl/policy",
            "rl on long": "discovery/rl_on_long/policy",
            "rl on nines": "discovery/rl_on_nines/policy",
        },
    ),
    "sft": (
        skills,
        {"before": "policy/mixed"} | {name: f"sft/{file_name(name)}/policy" for name in SFT},
    ),
    "prefix": (prefix, {p: f"policy/{p}" for p in ("qwen_math", "llama", "olmo_sft")}),
}


def measure(root: str, question: str, name: str, seed: int) -> None:
    """Write ROOT/seedN/measures/QUESTION NAME.json, unless it is there."""
    function, policies = MEASURES[question]
    folder = Path(root, f"seed{seed}")
    path = folder / "measures" / f"{question} {name}.json"
    if not path.exists():
        torch.manual_seed(0)
        model = quietly(load_policy, str(folder / policies[name]))
        start = str(folder / next(iter(policies.values())))
        rows = [{"policy": name, "seed": seed} | row for row in function(model, start, seed)]
        path.parent.mkdir(exist_ok=True)
        write(path, json.dumps(rows) + "\n")


def jobs(root: str, question: str, seeds) -> list[tuple]:
    return [(measure, root, question, name, s) for s in seeds for name in MEASURES[question][1]]


def keep(root: str, kept: str, question: str) -> None:
    """Write kept/QUESTION_measures.jsonl: one line a policy and seed."""
    claim_results(Path(kept), "experiments.survey")
    rows = []
    for seed in seed_folders(root):
        for name in MEASURES[question][1]:
            path = seed / "measures" / f"{question} {name}.json"
            rows += json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
    tidy = [
        {k: round(v, DIGITS) if isinstance(v, float) else v for k, v in row.items()} for row in rows
    ]
    write_lines(Path(kept, f"{question}_measures.jsonl"), tidy)


def load(kept: str, question: str) -> list[dict]:
    return read_jsonl(Path(kept, f"{question}_measures.jsonl"))
