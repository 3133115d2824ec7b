"""Slim logs of spurious.py: written from its runs, read by its tables and figures."""

import json
from pathlib import Path

from support.errors import InputError
from support.run import read_jsonl, write

KEPT = (
    "reward accuracy code entropy token_prob clip_ratio/low_mean clip_ratio/high_mean "
    "frac_reward_zero_std grad_norm"
).split()
EVALUATED = ("eval/accuracy", "eval/greedy", "eval/code", "eval/boxed", "training_problems")


def slim(rows: list[dict], updates_a_step: int, bins: int = 12) -> list[dict]:
    """Means over a twelfth of the run each, at the step where it ends, and every evaluation."""
    steps = rows[-1]["step"]
    every, kept, start = max(1, steps // bins), [], 0
    for row in rows:
        if found := {key: row[key] for key in EVALUATED if key in row}:
            kept.append({"step": row["step"]} | found)
    for end in (*range(every, steps, every), steps):
        part = [row for row in rows if start < row["step"] <= end]
        means = {
            key: round(sum(values) / len(values), 5)
            for key in KEPT
            if (values := [row[key] for row in part if key in row])
        }
        kept.append({"step": end} | means)
        start = end
    return [
        {"step": row["step"], "updates": row["step"] * updates_a_step} | row
        for row in sorted(kept, key=lambda row: row["step"])
    ]


def keep_logs(folder: str, runs: list[tuple]) -> None:
    """folder/EXPERIMENT/PRIOR.jsonl: slim rows of every run, the last with its switches."""
    files = {}
    for experiment, prior, name, seed, run in runs:
        log = read_jsonl(Path(run.output, "metrics.jsonl"))
        rows = slim(log, run.inner_epochs * run.minibatches)
        if experiment == "grid":
            rows[-1]["switch"] = json.loads(Path(run.output, "switch.json").read_text())
        file = Path(folder, experiment, prior + ".jsonl")
        files.setdefault(file, []).extend({"name": name, "seed": seed} | row for row in rows)
    for file, rows in files.items():
        file.parent.mkdir(parents=True, exist_ok=True)
        write(file, "".join(json.dumps(row) + "\n" for row in rows))


PRIOR_TITLES = {  # title of each
    "qwen_math": "qwen_math\ncode common and accurate",
    "qwen_confident": "qwen_confident\ncode almost always",
    "qwen_young": "qwen_young\nhalf trained",
    "llama": "llama\ncode rare and inaccurate",
    "olmo_sft": "olmo_sft\ncode common and inaccurate",
}


class Logs:
    """logs/EXPERIMENT/PRIOR.jsonl as runs[experiment, prior][name][seed] -> rows by step."""

    def __init__(self, folder: str):
        self.runs = {}
        for file in sorted(Path(folder).glob("*/*.jsonl")):
            names = self.runs.setdefault((file.parts[-2], file.stem), {})
            for row in read_jsonl(file):
                names.setdefault(row["name"], {}).setdefault(row["seed"], []).append(row)
        if not self.runs:
            raise InputError(f"{folder} holds no logs: run experiments.spurious first")

    def priors(self, experiment: str) -> list[str]:
        return [prior for prior in PRIOR_TITLES if (experiment, prior) in self.runs]

    def at(self, where, name, metric, updates=None, first=False) -> dict[int, float]:
        """{seed: last value of the metric at or before so many updates, or its first one}."""
        found = {}
        for seed, rows in self.runs[where][name].items():
            values = [
                row[metric]
                for row in rows
                if metric in row and (updates is None or row["updates"] <= updates)
            ]
            found[seed] = values[0 if first else -1]
        return found

    def change(self, where, name, metric="eval/accuracy", updates=None) -> list[float]:
        """By seed: last value minus first value."""
        first, last = (
            self.at(where, name, metric, first=True),
            self.at(where, name, metric, updates),
        )
        return [last[seed] - first[seed] for seed in first]

    def seeds(self, experiment: str) -> str:
        """ "n = 5 seeds", or what differs between runs."""
        counts = {
            len(s) for (e, _), names in self.runs.items() if e == experiment for s in names.values()
        }
        return f"n = {', '.join(map(str, sorted(counts)))} seeds"

    def clip_shares(self, where, name) -> float:
        """Largest share of clipped tokens that any seed has logged: 0 where clipping cannot act."""
        rows = [row for rows in self.runs[where][name].values() for row in rows]
        return max(
            row.get(f"clip_ratio/{side}_mean", 0) for row in rows for side in ("low", "high")
        )

    def difference(self, where, name, other, metric) -> list[float]:
        """By seed, for those that both runs have: last value of `name` minus that of `other`."""
        a, b = self.at(where, name, metric), self.at(where, other, metric)
        return [a[seed] - b[seed] for seed in a if seed in b]
