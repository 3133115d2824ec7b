"""Slim logs, tables and figures of experiments.survey.

    python -m experiments.survey_report --logs runs/survey/results

A run's result is the mean of its last three evaluations, as in experiments.reproduce. "Up to step
20" is the mean of the evaluations of steps 2 to 20: how fast it learns. "Steps to 0.9" is the first
evaluation of 0.9 or more, of the middle seed, of two the later. p is that of an exact sign-flip
test over the seeds, not corrected for the number of rows: five seeds cannot go below 0.06.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median_high

from experiments.reproduce_logs import (
    DIGITS,
    START_METRICS,
    Runs,
    around,
    file_name,
    last,
    load,
    seed_folders,
    slim,
    values,
    write_lines,
)
from experiments.reproduce_report import gaps
from experiments.survey_figures import (
    draw_algorithms,
    draw_discovery,
    draw_labels,
    draw_process,
    draw_tricks,
    soon,
)
from support.errors import InputError
from support.files import claim_results, read_json
from support.flags import command_line
from support.jsonl import read_jsonl
from support.plots import check_figure
from support.stats import sign_flip
from support.tables import check_readme, markdown, renew_file

LOGGED = (
    "entropy clip_ratio/region_mean ratio kl reward_std frac_reward_zero_std "
    "right_with_wrong_step code critic/explained_variance completions/mean_length"
).split()


def keep(runs: str, kept: str, question: str, arms: list[str]) -> None:
    """Write kept/QUESTION.jsonl of the runs that have all of their steps, see reproduce_logs; and
    kept/reward_models.jsonl of the static ones, where the question has any."""
    claim_results(Path(kept), "experiments.survey")
    lines = []
    for folder in seed_folders(runs):
        for arm in arms:
            run = folder / file_name(question, arm)
            rows = read_jsonl(run / "metrics.jsonl")
            if not rows or rows[-1]["step"] < read_json(run / "config.json")["steps"]:
                continue
            # no question asks for the accuracy by length of chain, nor how good the rule is
            columns = {
                name: found
                for name, found in slim(rows).items()
                if not name.endswith("_numbers") and not name.startswith("rule/")
            }
            evaluated = [row for row in rows if "eval/accuracy" in row]
            for name in ("eval/pass@2", "eval/code"):
                columns[name] = [round(row[name], DIGITS) for row in evaluated]
            for name in LOGGED:
                if any(name in row for row in rows):
                    columns[name] = [around(rows, name, step) for step in columns["step"]]
            columns["completions"] = [
                sum(row.get("completions", 0) for row in rows if row["step"] <= step)
                for step in columns["step"]
            ]
            lines.append({"arm": arm, "seed": int(folder.name[4:])} | columns)
    if not lines:
        raise InputError(f"{runs} holds no finished run of {question}: make survey")
    write_lines(Path(kept, f"{question}.jsonl"), lines)
    models = [
        {"seed": int(folder.name[4:])}
        | {k: round(v, DIGITS) for k, v in read_json(path).items() if k in START_METRICS}
        for folder in seed_folders(runs)
        if (path := folder / "rm" / "metrics.json").exists()
    ]
    if models and any(arm.startswith("static") for arm in arms):
        write_lines(Path(kept, "reward_models.jsonl"), models)


# --------------------------------------------------------------------------------------------------
# Tables


def cost(run: dict, of: str = "step", accuracy: float = 0.9) -> int | None:
    """What a run had of `of` when it first was at an accuracy of 0.9; None: it never was."""
    return next((n for n, a in zip(run[of], run["eval/accuracy"]) if a >= accuracy), None)


def middle(found: list) -> str:
    """The middle one, None being later than all, and how many are None.

    >>> middle([8, 2, 4]), middle([8, None, 4]), middle([None, None, 4])
    ('4', '8 (never on 1 of 3)', 'never on 2 of 3')
    """
    never = f"never on {found.count(None)} of {len(found)}"
    value = median_high(math.inf if x is None else x for x in found)
    if value == math.inf:
        return never
    return str(value) + (f" ({never})" if None in found else "")


def costs(of: str):
    """The cost to 0.9 of the middle seed."""
    return lambda runs, base: middle([cost(run, of) for run in runs.values()])


def early(runs: Runs, base: Runs) -> str:
    """The mean accuracy up to step 20, and the p of its difference to the base's."""
    found = [soon(run) - soon(base[seed]) for seed, run in runs.items() if seed in base]
    p = f" (p {sign_flip(found):.2f})" if any(found) else ""
    return f"{fmean(map(soon, runs.values())):.3f}{p}"


def falls(runs: Runs, base: Runs) -> str:
    """The first evaluation that is 0.15 below the best one before, of the middle seed."""
    return middle([fall(run) for run in runs.values()])


def fall(run: dict) -> int | None:
    best = 0.0
    for step, accuracy in zip(run["step"], run["eval/accuracy"]):
        if accuracy <= best - 0.15:
            return step
        best = max(best, accuracy)
    return None


def mean_of(name: str, form: str = ".3f"):
    """The mean of the seeds' results, in the format `form`."""

    def column(runs: Runs, base: Runs) -> str:
        found = [last(run, name) for run in runs.values() if values(run, name)[1]]
        return format(fmean(found), form) if found else ""

    return column


def best(runs: Runs, base: Runs) -> str:
    return f"{fmean(max(run['eval/accuracy']) for run in runs.values()):.3f}"


def at_start(runs: Runs, base: Runs) -> str:
    return f"{fmean(values(run, 'eval/accuracy')[1][0] for run in runs.values()):.3f}"


clipped = mean_of("clip_ratio/region_mean", ".2%")
COLUMNS = {
    "algorithms": {
        "up to step 20": early,
        "steps to 0.9": costs("step"),
        "entropy": mean_of("entropy"),
        "clipped": clipped,
        "pass@2": mean_of("eval/pass@2"),
        "code": mean_of("eval/code"),
        "completions to 0.9": costs("completions"),
    },
    "tricks": {
        "up to step 20": early,
        "falls at": falls,
        "clipped": clipped,
        "steps to 0.9": costs("step"),
        "entropy": mean_of("entropy"),
    },
    "process": {
        "up to step 20": early,
        "steps to 0.9": costs("step"),
        "boxed": mean_of("eval/boxed"),
        "right with a wrong step": mean_of("right_with_wrong_step"),
    },
    "labels": {
        "before": at_start,
        "best": best,
        "entropy": mean_of("entropy"),
        "code": mean_of("code"),
        "tokens": mean_of("completions/mean_length"),
    },
    "prior": {"before": at_start, "up to step 20": early, "steps to 0.9": costs("step")},
}


def base_of(arms: dict, arm: str) -> str:
    """What an arm is held against: the first, or the first of those that share its first word."""
    group = arm.partition(", ")[0] if ", " in arm else ""
    return next(name for name in arms if name.startswith(group) and (", " in name) == bool(group))


def arm_table(arms: dict[str, Runs], columns: dict) -> str:
    """Markdown: one row per arm: its seeds singly, mean, difference to its base, p, `columns`."""
    seeds, rows = sorted(set().union(*arms.values())), []
    for arm, runs in arms.items():
        found = gaps(runs, arms[base_of(arms, arm)])
        changed = base_of(arms, arm) != arm and any(found)
        rows.append(
            [
                arm,
                *[f"{last(runs[seed]):.2f}" if seed in runs else "-" for seed in seeds],
                f"{fmean(map(last, runs.values())):.3f}",
                f"{fmean(found):+.3f}" if changed else "",
                f"{sign_flip(found):.2f}" if changed else "",
                *[column(runs, arms[base_of(arms, arm)]) for column in columns.values()],
            ]
        )
    head = ["", *(f"seed {seed}" for seed in seeds), "mean", "difference", "p", *columns]
    return markdown(head, rows)


def spread(found: list[float]) -> str:
    """
    >>> spread([0.5, 1.0]), spread([0.5, 0.5])
    ('0.75 (0.50-1.00)', '0.50')
    """
    low, high = (f"{value:.2f}" for value in (min(found), max(found)))
    return f"{fmean(found):.2f}" + (f" ({low}-{high})" if low != high else "")


def measure_table(rows: list[dict]) -> str:
    """Markdown: means over seeds of every number, the lowest and the highest in brackets; a row
    for each policy (and set of problems)."""
    keys = list(dict.fromkeys((row["policy"], row.get("on") or row.get("prefix")) for row in rows))
    numbers = [name for name, value in rows[0].items() if isinstance(value, float)]
    lines = []
    for policy, on in keys:
        same = [
            row
            for row in rows
            if row["policy"] == policy and (row.get("on") or row.get("prefix")) == on
        ]
        cells = [spread([row[name] for row in same]) for name in numbers]
        lines.append([policy, *([on] if on else []), *cells])
    head = ["policy", *(["on"] if keys[0][1] else []), *numbers]
    return markdown(head, lines)


# --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SurveyReportConfig:
    logs: str = "runs/survey/results"  # what experiments.survey kept; figures go there too
    readmes: tuple[str, ...] = ()  # files whose tables, between marks, are renewed


def report(cfg: SurveyReportConfig) -> None:
    for readme in cfg.readmes:
        check_readme(readme)
    claim_results(Path(cfg.logs), "experiments.survey")
    made = {}
    for path in sorted(Path(cfg.logs).glob("*.jsonl")):
        name = path.stem
        if name.endswith("_measures"):
            made[f"survey: {name.replace('_', ' ')}"] = measure_table(read_jsonl(path))
        elif name in COLUMNS:
            made[f"survey: {name}"] = arm_table(load(cfg.logs, name), COLUMNS[name])
    print("\n\n".join(made.values()), end="\n\n")
    figures = {
        "algorithms": lambda output: draw_algorithms(load(cfg.logs, "algorithms"), output),
        "discovery_measures": lambda output: draw_discovery(
            read_jsonl(Path(cfg.logs, "discovery_measures.jsonl")), output
        ),
        "tricks": lambda output: draw_tricks(load(cfg.logs, "tricks"), output),
        "process": lambda output: draw_process(load(cfg.logs, "process"), output),
        "labels": lambda output: draw_labels(load(cfg.logs, "labels"), output),
    }
    for name, draw in figures.items():
        output = str(Path(cfg.logs, f"{name.removesuffix('_measures')}.png"))
        if Path(cfg.logs, f"{name}.jsonl").exists():
            check_figure(output)
            draw(output)
    for readme in cfg.readmes:
        renew_file(readme, made)


if __name__ == "__main__":
    command_line(SurveyReportConfig, report)
