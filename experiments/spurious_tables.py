r"""The tables of spurious.py, from its slim logs alone; the figures are in spurious_figures.py.

    python -m experiments.spurious_tables
    python -m experiments.spurious_tables --logs runs/spurious/results

Means over seeds with 95% intervals (Student's t). A difference between two runs is paired: the
same seed has the same start and, up to the first update that differs, the same samples.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

from experiments.spurious_figures import (
    ALL_METRICS_FIGURES,
    draw_all_metrics,
    draw_clipping,
    draw_grid,
    known_priors,
)
from experiments.spurious_logs import (
    changes,
    clip_share,
    count_seeds,
    differences,
    distinct,
    first_values,
    last_values,
    load_logs,
    select,
)
from experiments.strategy_switch import SWITCHES
from support.files import claim_results, write
from support.flags import command_line
from support.stats import mean_and_half_width
from support.tables import check_readme, markdown, renew_file


def number(values: list[float], digits: int = 2) -> str:
    """Mean and half of its 95% interval, of one seed the mean alone.

    >>> number([0.0, 1.0])
    '+0.50 ± 6.36'
    """
    mean, half = mean_and_half_width(values)
    # + 0.0: no -0.00
    mean = round(mean, digits) + 0.0
    return f"{mean:+.{digits}f}" + (f" ± {half:.{digits}f}" if len(values) > 1 else "")


# --------------------------------------------------------------------------------------------------
# Tables; rows: those of spurious_logs.load_logs


def grid_table(rows: list[dict]) -> str:
    """Change of accuracy under each reward; in brackets that of the share of code."""
    grid = select(rows, experiment="grid")
    priors = known_priors(grid)
    lines = [["*before RL*", *(before_cell(select(grid, prior=prior)) for prior in priors)]]
    for name in distinct(grid, "name"):
        runs = [select(grid, prior=prior, name=name) for prior in priors]
        lines.append([name, *map(grid_cell, runs)])
    return markdown([f"accuracy (share of code), {count_seeds(grid)}", *priors], lines)


def before_cell(rows: list[dict]) -> str:
    accuracy = fmean(first_values(rows, "eval/accuracy").values())
    code = fmean(first_values(rows, "eval/code").values())
    return f"*{accuracy:.2f} ({code:.2f})*"


def grid_cell(rows: list[dict]) -> str:
    return f"{number(changes(rows))} ({fmean(changes(rows, 'eval/code')):+.2f})"


def clipping_table(rows: list[dict]) -> str:
    """Change of accuracy under a random reward, after a quarter and all of the standard run's
    updates, where another run was evaluated after as many."""
    clipping = select(rows, experiment="clipping")
    priors = known_priors(clipping)
    total = max(row["updates"] for row in select(clipping, name="standard"))
    lines = []
    for name in distinct(clipping, "name"):
        run = select(clipping, name=name)
        steps = {row["updates"]: row["step"] for row in run if "eval/accuracy" in row}
        for updates in (total // 4, total):
            if updates in steps:
                found = [changes(select(run, prior=prior), updates=updates) for prior in priors]
                lines.append([name, steps[updates], updates, *map(number, found)])
    header = [f"random reward, {count_seeds(clipping)}", "steps", "updates", *priors]
    return markdown(header, lines)


class Measure(NamedTuple):
    metric: str
    label: str
    digits: int


MEASURES = (
    Measure("eval/accuracy", "accuracy", 2),
    Measure("eval/code", "share of code", 2),
    Measure("entropy", "entropy (nats)", 3),
    Measure("token_prob", "token probability", 3),
)


def unclipped(name: str, names: list[str]) -> str:
    """The run that differs from `name` in that it never clips.

    >>> unclipped("rate x 4", ["rate x 4", "rate x 4, no clip"])
    'rate x 4, no clip'
    """
    setting = name.partition(", ")[0]
    return "no clip" if "no clip" in names else f"{setting}, no clip"


def effect_table(rows: list[dict]) -> str:
    """Accuracy gained under a random reward with clipping, and what clipping changes, paired."""
    lines = []
    for experiment in distinct(rows, "experiment"):
        for prior in distinct(select(rows, experiment=experiment), "prior"):
            lines += effect_lines(select(rows, experiment=experiment, prior=prior))
    labels = [f"{measure.label}: minus no clip" for measure in MEASURES]
    return markdown(["random reward", "accuracy: gain", *labels], lines)


def effect_lines(rows: list[dict]) -> list[list[str]]:
    """Those of one experiment on one prior: a line for each run that clips and has a partner."""
    names, lines = distinct(rows, "name"), []
    for name in names:
        run, other = select(rows, name=name), select(rows, name=unclipped(name, names))
        if other and clip_share(run) > 0:
            cells = [
                number(differences(run, other, measure.metric), measure.digits)
                for measure in MEASURES
            ]
            lines.append([f"{run[0]['prior']}: {name}", number(changes(run)), *cells])
    return lines


def gamma_table(rows: list[dict]) -> str:
    """Change of accuracy and of the share of code on qwen_math, by the chance of a reward."""
    gamma = select(rows, experiment="gamma", prior="qwen_math")
    runs = {name: select(gamma, name=name) for name in distinct(gamma, "name")}
    standard = select(rows, experiment="clipping", prior="qwen_math", name="standard")
    if standard:
        runs["gamma 0.5"] = standard
    lines = [
        [name, number(changes(run)), number(changes(run, "eval/code"))]
        for name, run in sorted(runs.items())
    ]
    return markdown([f"random reward, {count_seeds(gamma)}", "accuracy", "share of code"], lines)


def labels_table(rows: list[dict]) -> str:
    """Change of accuracy and of the share of code on labels wrong by habit, or in other ways."""
    labels, lines = select(rows, experiment="labels", prior="qwen_young"), []
    for name in distinct(labels, "name"):
        run = select(labels, name=name)
        counts = last_values(run, "training_problems").values()
        problems = f"{min(counts)}-{max(counts)}"
        lines.append([name, problems, number(changes(run)), number(changes(run, "eval/code"))])
    header = [f"wrong labels, {count_seeds(labels)}", "problems", "accuracy", "share of code"]
    return markdown(header, lines)


class Subset(NamedTuple):
    """Pairs of samples of one kind of switch, and how many of them are correct."""

    pairs: int
    before: int
    after: int


def switch_table(rows: list[dict]) -> str:
    """pairs: accuracy before > after (C_d) of the four subsets, on the first prior, all seeds.

    C_d is left out where the gain is below 0.05: there it is a share of noise.
    """
    grid = select(rows, experiment="grid")
    grid = select(grid, prior=known_priors(grid)[0])
    lines = []
    for name in distinct(grid, "name"):
        switches = [row["switch"] for row in select(grid, name=name) if "switch" in row]
        subsets = [pool([switch[kind] for switch in switches]) for kind in SWITCHES]
        pairs = sum(subset.pairs for subset in subsets)
        gain = sum(subset.after - subset.before for subset in subsets)
        divisor = gain if abs(gain) > 0.05 * pairs else None
        cells = [switch_cell(subset, divisor) for subset in subsets]
        lines.append([name, f"{gain / pairs:+.2f}", *cells])
    return markdown([f"reward, {count_seeds(grid)}", "gain", *SWITCHES], lines)


def pool(parts: list[dict]) -> Subset:
    """One kind of switch, seeds together; where it has no pairs its accuracies are nan."""
    parts = [part for part in parts if part["n"]]
    before, after = (
        round(sum(part["n"] * part[when] for part in parts)) for when in ("before", "after")
    )
    return Subset(sum(part["n"] for part in parts), before, after)


def switch_cell(subset: Subset, gain: int | None) -> str:
    """
    >>> switch_cell(Subset(pairs=10, before=2, after=5), gain=4)
    '10: 0.20 > 0.50 (+0.75)'
    """
    if not subset.pairs:
        return "0"
    accuracies = f"{subset.before / subset.pairs:.2f} > {subset.after / subset.pairs:.2f}"
    share = "" if gain is None else f" ({(subset.after - subset.before) / gain:+.2f})"
    return f"{subset.pairs}: {accuracies}{share}"


# --------------------------------------------------------------------------------------------------


class Table(NamedTuple):
    make: Callable[[list[dict]], str]
    shows: set[str]


# NAME of the mark <!-- spurious:NAME -->: how it is made, of which experiments
TABLES = {
    "grid": Table(grid_table, {"grid"}),
    "clipping": Table(clipping_table, {"clipping"}),
    "effect": Table(effect_table, {"clipping", "stronger", "confident"}),
    "gamma": Table(gamma_table, {"gamma"}),
    "labels": Table(labels_table, {"labels"}),
    "switch": Table(switch_table, {"grid"}),
}


def tables(rows: list[dict]) -> dict[str, str]:
    """{mark: table} of what the logs hold."""
    held = set(distinct(rows, "experiment"))
    return {
        f"spurious:{name}": table.make(rows) for name, table in TABLES.items() if held & table.shows
    }


def draw_figures(rows: list[dict], folder: Path) -> None:
    held = distinct(rows, "experiment")
    if "grid" in held:
        draw_grid(rows, folder / "grid.png")
    if "clipping" in held:
        draw_clipping(rows, folder / "clipping.png")
        for file, names in ALL_METRICS_FIGURES.items():
            draw_all_metrics(rows, folder / file, names)


@dataclass(frozen=True)
class TablesConfig:
    logs: str = "results/spurious"  # folder of slim logs that spurious.py keeps
    output: str | None = None  # folder for figures and tables.md; None is that of the logs
    readme: str | None = None  # file whose tables between spurious:NAME marks are renewed


def main(cfg: TablesConfig) -> None:
    check_readme(cfg.readme)
    rows, folder = load_logs(cfg.logs), Path(cfg.output or cfg.logs)
    made = tables(rows)
    claim_results(folder, "experiments.spurious")
    write(folder / "tables.md", "\n\n".join(made.values()) + "\n")
    print("\n\n".join(made.values()))
    draw_figures(rows, folder)
    renew_file(cfg.readme, made)
    print(f"figures and tables: {folder}")


if __name__ == "__main__":
    command_line(TablesConfig, main)
