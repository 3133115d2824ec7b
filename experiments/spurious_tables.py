r"""The tables of spurious.py, from its slim logs alone; the figures are in spurious_figures.py.

    python -m experiments.spurious_tables --logs results/spurious --readme README.md

Means over seeds with 95 % intervals (Student's t). A difference between two runs is paired: the
same seed has the same start and, up to the first update that differs, the same samples.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from experiments.spurious_figures import FIGURES, METRICS, draw_clipping, draw_grid
from experiments.spurious_logs import Logs
from experiments.strategy_switch import SWITCHES
from support.flags import command_line
from support.run import write
from support.stats import mean_and_half_width

DIFFERENCES = {"eval/accuracy": 2, "eval/code": 2, "entropy": 3, "token_prob": 3}  # and digits


def number(values: list[float], digits: int = 2) -> str:
    """ "+0.31 ± 0.04": mean and half of its 95 % interval, of one seed the mean alone."""
    mean, half = mean_and_half_width(values)
    mean = round(mean, digits) + 0.0  # no -0.00
    return f"{mean:+.{digits}f}" + (f" ± {half:.{digits}f}" if len(values) > 1 else "")


def markdown(header: list[str], rows: list[list]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


# --------------------------------------------------------------------------------------------------
# Tables


def grid_table(logs: Logs) -> str:
    """Change of accuracy under each reward; in brackets that of the share of code."""
    priors = logs.priors("grid")
    before, rows = ["*before RL*"], []
    for prior in priors:
        start = [
            fmean(logs.at(("grid", prior), "rule", m, first=True).values())
            for m in ("eval/accuracy", "eval/code")
        ]
        before.append("*{:.2f} ({:.2f})*".format(*start))
    for name in logs.runs["grid", priors[0]]:
        cells = []
        for prior in priors:
            code = fmean(logs.change(("grid", prior), name, "eval/code"))
            cells.append(f"{number(logs.change(('grid', prior), name))} ({code:+.2f})")
        rows.append([name, *cells])
    return markdown([f"accuracy (share of code), {logs.seeds('grid')}", *priors], [before, *rows])


def clipping_table(logs: Logs) -> str:
    """Change of accuracy under a random reward, after a quarter and all of the standard run's
    updates, where another run was evaluated after as many."""
    priors, rows = logs.priors("clipping"), []
    runs = logs.runs["clipping", priors[0]]
    total = next(iter(runs["standard"].values()))[-1]["updates"]
    for name, seeds in runs.items():
        log = next(iter(seeds.values()))
        evaluated = {row["updates"]: row["step"] for row in log if "eval/accuracy" in row}
        for updates in (u for u in (total // 4, total) if u in evaluated):
            cells = [
                number(logs.change(("clipping", prior), name, updates=updates)) for prior in priors
            ]
            rows.append([name, evaluated[updates], updates, *cells])
    return markdown([f"random reward, {logs.seeds('clipping')}", "steps", "updates", *priors], rows)


def effect_table(logs: Logs) -> str:
    """Accuracy gained under a random reward with clipping, and what clipping changes, paired."""
    rows = []
    for (experiment, prior), names in logs.runs.items():
        where = experiment, prior
        for name in names:
            base = name.partition(", ")[0]
            other = "no clip" if "no clip" in names else f"{base}, no clip"
            if other in names and name != other and logs.clip_shares(where, name) > 0:
                cells = [
                    number(logs.difference(where, name, other, metric), digits)
                    for metric, digits in DIFFERENCES.items()
                ]
                rows.append([f"{prior}: {name}", number(logs.change(where, name)), *cells])
    header = ["random reward", "accuracy: gain"]
    return markdown([*header, *(f"{label}: minus no clip" for label in METRICS.values())], rows)


def gamma_table(logs: Logs) -> str:
    """Change of accuracy and of the share of code on qwen_math, by the chance of a reward."""
    runs = [(name, ("gamma", "qwen_math"), name) for name in logs.runs["gamma", "qwen_math"]]
    if ("clipping", "qwen_math") in logs.runs:  # the standard run
        runs.append(("gamma 0.5", ("clipping", "qwen_math"), "standard"))
    rows = [
        [label, number(logs.change(where, name)), number(logs.change(where, name, "eval/code"))]
        for label, where, name in sorted(runs)
    ]
    return markdown([f"random reward, {logs.seeds('gamma')}", "accuracy", "share of code"], rows)


def switch_table(logs: Logs) -> str:
    """n: accuracy before > after (C_d) of the four subsets, on the first prior, seeds together.

    C_d is left out where the gain is below 0.05.
    """
    rows = []
    for name, seeds in logs.runs["grid", logs.priors("grid")[0]].items():
        parts = [rows[-1]["switch"] for rows in seeds.values()]
        sums = {}  # d: pairs, correct before, correct after
        for d in SWITCHES:
            held = [part[d] for part in parts if part[d]["n"]]
            right = [round(sum(p["n"] * p[k] for p in held)) for k in ("before", "after")]
            sums[d] = sum(p["n"] for p in held), *right
        gain = sum(after - before for _, before, after in sums.values())
        total = sum(n for n, *_ in sums.values())
        shared = abs(gain) > 0.05 * total  # of less, C_d is a share of noise
        cells = [
            (f"{n}: {b / n:.2f} > {a / n:.2f}" if n else "0")
            + (f" ({(a - b) / gain:+.2f})" if shared and n else "")
            for n, b, a in sums.values()
        ]
        rows.append([name, f"{gain / total:+.2f}", *cells])
    return markdown([f"reward, {logs.seeds('grid')}", "gain", *SWITCHES], rows)


def labels_table(logs: Logs) -> str:
    """Change of accuracy and of the share of code on labels wrong by habit, or in other ways."""
    where, rows = ("labels", "qwen_young"), []
    for name in logs.runs[where]:
        count = logs.at(where, name, "training_problems").values()
        changes = [number(logs.change(where, name, m)) for m in ("eval/accuracy", "eval/code")]
        rows.append([name, f"{min(count)}-{max(count)}", *changes])
    return markdown(
        [f"wrong labels, {logs.seeds('labels')}", "problems", "accuracy", "share of code"], rows
    )


TABLES = {  # mark in the README: (function, the experiments it can show)
    "grid": (grid_table, {"grid"}),
    "clipping": (clipping_table, {"clipping"}),
    "effect": (effect_table, {"clipping", "stronger", "confident"}),
    "gamma": (gamma_table, {"gamma"}),
    "labels": (labels_table, {"labels"}),
    "switch": (switch_table, {"grid"}),
}


def tables(logs: Logs) -> dict[str, str]:
    """{mark: table} of what the logs hold."""
    held = {experiment for experiment, _ in logs.runs}
    return {mark: make(logs) for mark, (make, shows) in TABLES.items() if held & shows}


def renew(text: str, made: dict[str, str]) -> str:
    """Put each table between its marks, <!-- spurious:NAME --> and <!-- /spurious:NAME -->."""
    for mark, table in made.items():
        pattern = rf"(<!-- spurious:{mark} -->\n).*?(<!-- /spurious:{mark} -->)"
        # A table's backslashes are not escapes: hence no replacement string.
        text = re.sub(pattern, lambda m, table=table: f"{m[1]}{table}\n{m[2]}", text, flags=re.S)
    return text


@dataclass(frozen=True)
class ReportConfig:
    logs: str = "results/spurious"  # folder of slim logs that spurious.py keeps
    output: str = "runs/spurious/results"  # folder for figures and tables.md
    readme: str | None = None  # file whose tables between spurious:NAME marks are renewed


def main(cfg: ReportConfig) -> None:
    logs, folder = Logs(cfg.logs), Path(cfg.output)
    made = tables(logs)
    folder.mkdir(parents=True, exist_ok=True)
    write(folder / "tables.md", "\n\n".join(made.values()) + "\n")
    print("\n\n".join(made.values()))
    if "grid" in made:
        draw_grid(logs, folder / "grid.png")
    if "clipping" in made:
        for file, names in FIGURES.items():
            draw_clipping(logs, folder / file, names)
    if cfg.readme:
        write(Path(cfg.readme), renew(Path(cfg.readme).read_text(), made))
    print(f"figures and tables: {folder}")


if __name__ == "__main__":
    command_line(ReportConfig, main)
