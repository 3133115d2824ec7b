"""Slim logs of experiments.reproduce: written from its runs, read by its tables and figures.

One line of EXPERIMENT.jsonl is a run: arm, seed, and a list for each metric, with one value for
each evaluation in "step". A training metric is the mean of the nine steps around the evaluation,
of those that there are; None where none of them has it. samples.jsonl holds completions of the
table's last evaluation, starts.jsonl what was measured of every start.

    runs = load("results/cooper", "table")   # {arm: {seed: {metric: values}}}
"""

import json
import math
import re
from pathlib import Path
from statistics import fmean

from support.errors import InputError
from support.files import claim_results, read_json, write
from support.jsonl import read_jsonl

EVALUATED = re.compile(r"eval/(accuracy|boxed|\d_numbers)|rm/held_out_(accuracy|order)")
TRAINED = (
    "reward frac_reward_zero_std rule/precision rule/recall rm/precision rm/recall rm/order "
    "rm/agreement rm/pair_accuracy rm/valid_rate rm/answered_rate"
).split()
DIGITS = 3

LABELS = {
    "static": "static reward model",
    "cooper": "Cooper",
    "paper": "the paper's recipe",
    "four updates": "four updates a step",
    "odd assistant": "four updates, an assistant that keeps oddities",
    "assistant": "negatives: the assistant's",
    "rollouts": "negatives: rejected completions",
    "perturb": "negatives: a number changed",
    "stale pairs": "pairs of the initial policy",
    "every 2": "updates at every 2nd step",
    "every 5": "updates at every 5th step",
    "every 10": "updates at every 10th step",
    "blind": "reward model without the reference",
    "blind static": "static, without the reference",
    "longer static": "static, 400 updates",
    "swapped static": "static, 400 updates, swapped references",
    "larger static": "static, 400 updates, 3.9 times the parameters",
}
Runs = dict[int, dict[str, list]]  # {seed: {metric: values}} of one arm
START_METRICS = (
    "annotation_kept steps validation/accuracy held_out/accuracy held_out/swap_accuracy"
).split()


def file_name(*names: str) -> str:
    """The folder of an arm: "static, rule labels" is static_rule_labels."""
    return str(Path(*[re.sub("[ ,]+", "_", name) for name in names]))


# --------------------------------------------------------------------------------------------------
# Writing


def slim(rows: list[dict]) -> dict[str, list]:
    """{metric: its values at the evaluations} of a run's metrics.jsonl."""
    evaluations = [row for row in rows if "eval/accuracy" in row]
    columns = {"step": [row["step"] for row in evaluations]}
    for name in evaluations[0] if evaluations else ():
        if EVALUATED.fullmatch(name):
            columns[name] = [round(row[name], DIGITS) for row in evaluations]
    for name in TRAINED:
        if any(name in row for row in rows):
            columns[name] = [around(rows, name, step) for step in columns["step"]]
    return columns


def around(rows: list[dict], name: str, step: int) -> float | None:
    """Mean of a metric over the nine steps around `step`; None where none has it."""
    near = [row[name] for row in rows if name in row and abs(row["step"] - step) <= 4]
    values = [value for value in near if value is not None and not math.isnan(value)]
    return round(fmean(values), DIGITS) if step and values else None


def keep(runs: str, kept: str, experiment: str, arms: list[str]) -> None:
    """Write kept/EXPERIMENT.jsonl of the runs below `runs` that have all of their steps; of the
    experiment "table" samples.jsonl too."""
    claim_results(Path(kept), "experiments.reproduce")
    lines, samples = [], []
    for folder in seed_folders(runs):
        for arm in arms:
            run = folder / file_name(experiment, arm)
            rows = read_jsonl(run / "metrics.jsonl")
            if not rows or rows[-1]["step"] < read_json(run / "config.json")["steps"]:
                continue
            seed = int(folder.name[4:])
            lines.append({"arm": arm, "seed": seed} | slim(rows))
            written = read_jsonl(run / "samples.jsonl")
            samples += [
                {"arm": arm, "seed": seed} | row
                for row in written
                if row["step"] == rows[-1]["step"]
            ]
    if not lines:
        raise InputError(f"{runs} holds no finished run of {experiment}: make reproduce")
    write_lines(Path(kept, f"{experiment}.jsonl"), lines)
    if experiment == "table":
        write_lines(Path(kept, "samples.jsonl"), samples)


def keep_starts(runs: str, kept: str) -> None:
    """Write kept/starts.jsonl: what was measured of every reward model at its start."""
    lines = []
    for folder in seed_folders(runs):
        for file in sorted(folder.glob("rm/*/metrics.json")):
            found = {k: round(v, DIGITS) for k, v in read_json(file).items() if k in START_METRICS}
            lines.append({"start": file.parent.name, "seed": int(folder.name[4:])} | found)
    write_lines(Path(kept, "starts.jsonl"), lines)


def seed_folders(runs: str) -> list[Path]:
    """runs/seed1, runs/seed2, ..., runs/seed10 by number."""
    return sorted(Path(runs).glob("seed[0-9]*"), key=lambda path: int(path.name[4:]))


def write_lines(path: Path, rows: list[dict]) -> None:
    write(path, "".join(json.dumps(row) + "\n" for row in rows))


# --------------------------------------------------------------------------------------------------
# Reading


def label(arm: str) -> str:
    return LABELS.get(arm, arm)


def load(kept: str, experiment: str) -> dict[str, Runs]:
    """{arm: {seed: {metric: values}}}. Raises InputError: there are none."""
    arms = {}
    for row in read_jsonl(Path(kept, f"{experiment}.jsonl")):
        arms.setdefault(row.pop("arm"), {})[row.pop("seed")] = row
    if not arms:
        raise InputError(f"{kept} holds no {experiment}.jsonl: make reproduce")
    return arms


def shared(arms: dict[str, Runs]) -> list[int]:
    """The seeds that every arm has. Raises InputError: none."""
    seeds = sorted(set.intersection(*[set(runs) for runs in arms.values()]))
    if not seeds:
        raise InputError(f"{', '.join(arms)} have no seed in common: make reproduce goes on")
    return seeds


def values(run: dict, name: str) -> tuple[list[int], list[float]]:
    """(steps, values) of a metric where it is known."""
    known = [(s, v) for s, v in zip(run["step"], run.get(name, ())) if v is not None]
    return [step for step, _ in known], [value for _, value in known]


def last(run: dict, name: str = "eval/accuracy") -> float:
    """A run's result: the mean of the last three evaluations."""
    found = values(run, name)[1][-3:]
    return fmean(found) if found else math.nan
