"""Slim logs of spurious.py: written from its runs, read by its tables and figures.

Read, they are one flat list of rows; each has experiment, prior, name, seed, step, updates and the
metrics of that step. `select` takes those of one run out of it, all its seeds:

    rows = select(load_logs("results/spurious"), experiment="grid", prior="llama", name="rule")
    changes(rows, "eval/accuracy")   # by seed
"""

import json
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

from grpo import GRPOConfig
from support.errors import InputError
from support.files import claim_results, read_json, write
from support.jsonl import read_jsonl


class PlannedRun(NamedTuple):
    experiment: str
    prior: str
    name: str
    seed: int
    config: GRPOConfig


# --------------------------------------------------------------------------------------------------
# Writing

TRAINING_METRICS = (
    "reward accuracy code entropy token_prob clip_ratio/low_mean clip_ratio/high_mean "
    "frac_reward_zero_std grad_norm"
).split()
EVAL_METRICS = ("eval/accuracy", "eval/greedy", "eval/code", "eval/boxed", "training_problems")


def slim(rows: list[dict], updates_per_step: int, bins: int = 12) -> list[dict]:
    """Every evaluation, and means over a twelfth of the run each, at the step where it ends."""
    kept = []
    for row in rows:
        if found := {metric: row[metric] for metric in EVAL_METRICS if metric in row}:
            kept.append({"step": row["step"]} | found)
    steps = rows[-1]["step"]
    width = max(1, steps // bins)
    start = 0
    for end in (*range(width, steps, width), steps):
        part = [row for row in rows if start < row["step"] <= end]
        kept.append({"step": end} | means(part))
        start = end
    kept.sort(key=lambda row: row["step"])
    return [{"step": row["step"], "updates": row["step"] * updates_per_step} | row for row in kept]


def means(rows: list[dict]) -> dict[str, float]:
    """{metric: its mean over the rows that have it}."""
    found = {}
    for metric in TRAINING_METRICS:
        values = [row[metric] for row in rows if metric in row]
        if values:
            found[metric] = round(fmean(values), 5)
    return found


def keep_spurious_logs(folder: str, runs: list[PlannedRun]) -> None:
    """folder/EXPERIMENT/PRIOR.jsonl: slim rows of every run, in the grid the last with switches."""
    claim_results(Path(folder), "experiments.spurious")
    files = {}
    for run in runs:
        log = read_jsonl(Path(run.config.output, "metrics.jsonl"))
        rows = slim(log, run.config.inner_epochs * run.config.minibatches)
        if run.experiment == "grid":
            rows[-1]["switch"] = read_json(Path(run.config.output, "switch.json"))
        lines = files.setdefault(Path(folder, run.experiment, run.prior + ".jsonl"), [])
        lines += [json.dumps({"name": run.name, "seed": run.seed} | row) + "\n" for row in rows]
    for file, lines in files.items():
        file.parent.mkdir(parents=True, exist_ok=True)
        write(file, "".join(lines))


# --------------------------------------------------------------------------------------------------
# Reading


def load_logs(folder: str) -> list[dict]:
    """The rows of all files, in the order of their names."""
    rows = []
    for file in sorted(Path(folder).glob("*/*.jsonl")):
        labels = {"experiment": file.parent.name, "prior": file.stem}
        for row in read_jsonl(file):
            # the committed logs say "32 updates a step"
            name = row["name"].replace(" a step", " per step")
            rows.append(labels | row | {"name": name})
    if not rows:
        raise InputError(f"{folder} holds no logs: run experiments.spurious first")
    return rows


def select(rows: list[dict], **labels) -> list[dict]:
    """The rows that carry these labels: experiment, prior, name, seed.

    >>> select([{"name": "a", "seed": 1}, {"name": "b", "seed": 1}], name="b", seed=1)
    [{'name': 'b', 'seed': 1}]
    """
    return [row for row in rows if all(row[key] == value for key, value in labels.items())]


def distinct(rows: list[dict], label: str) -> list:
    """The values of a label in the order in which they occur."""
    return list(dict.fromkeys(row[label] for row in rows))


def count_seeds(rows: list[dict]) -> str:
    """ "n = 5 seeds"."""
    return f"n = {len(distinct(rows, 'seed'))} seeds"


# --------------------------------------------------------------------------------------------------
# Measures of one run: `rows` are those of all its seeds


def first_values(rows: list[dict], metric: str) -> dict[int, float]:
    """{seed: first value}, which of an evaluation is the one before RL."""
    found = {}
    for row in rows:
        if metric in row:
            found.setdefault(row["seed"], row[metric])
    return found


def last_values(rows: list[dict], metric: str, updates: int | None = None) -> dict[int, float]:
    """{seed: last value}; with `updates` the last one at or before so many updates."""
    found = {}
    for row in rows:
        if metric in row and (updates is None or row["updates"] <= updates):
            found[row["seed"]] = row[metric]
    return found


def changes(rows: list[dict], metric="eval/accuracy", updates: int | None = None) -> list[float]:
    """By seed: last value minus first value.

    >>> changes([{"seed": 1, "updates": n, "eval/code": n / 4} for n in (0, 1, 2)], "eval/code")
    [0.5]
    """
    first, last = first_values(rows, metric), last_values(rows, metric, updates)
    return [last[seed] - first[seed] for seed in first]


def differences(rows: list[dict], others: list[dict], metric: str) -> list[float]:
    """By seed, for those that both runs have: last value of `rows` minus that of `others`."""
    ours, theirs = last_values(rows, metric), last_values(others, metric)
    return [ours[seed] - theirs[seed] for seed in ours if seed in theirs]


def clip_share(rows: list[dict]) -> float:
    """Largest logged share of clipped tokens: 0 where clipping cannot act."""
    return max(row.get(f"clip_ratio/{side}_mean", 0) for row in rows for side in ("low", "high"))
