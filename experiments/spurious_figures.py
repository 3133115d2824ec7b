"""The figures of spurious.py; rows: those of spurious_logs.load_logs."""

from pathlib import Path
from statistics import fmean
from typing import NamedTuple

from experiments.spurious_logs import changes, count_seeds, distinct, first_values, select
from support.plots import finish, pyplot
from support.stats import mean_and_half_width

PRIOR_TITLES = {
    "qwen_math": "qwen_math\ncode common and accurate",
    "llama": "llama\ncode rare and inaccurate",
    "olmo_sft": "olmo_sft\ncode common and inaccurate",
}
# of the rows: label of each
METRICS = {
    "accuracy": "accuracy",
    "code": "share of code",
    "entropy": "entropy (nats)",
    "token_prob": "token probability",
}
# colour, line
LINES = {
    "standard": ("tab:blue", "-"),
    "no clip": ("tab:red", "-"),
    "one large minibatch": ("tab:purple", "--"),
    "small rollout batch": ("tab:orange", "--"),
    "lower bound only": ("tab:green", "-."),
    "upper bound only": ("tab:brown", "-."),
    "clip 0.05": ("tab:cyan", "-"),
}
# file: its lines
ALL_METRICS_FIGURES = {
    "clipping_all.png": ("standard", "no clip", "one large minibatch", "small rollout batch"),
    "bounds_all.png": ("standard", "no clip", "lower bound only", "upper bound only", "clip 0.05"),
}
MANY_UPDATES = "32 updates per step"
SETTINGS = "16 x 16 completions per step, rate 1e-4: make reproduce-spurious"


def known_priors(rows: list[dict]) -> list[str]:
    """Those that have a title, in its order."""
    return [prior for prior in PRIOR_TITLES if prior in distinct(rows, "prior")]


def draw_grid(rows: list[dict], output: Path) -> None:
    """Change of accuracy, one bar per reward, one panel per prior; interval, every seed a dot."""
    grid = select(rows, experiment="grid")
    priors, names = known_priors(grid), distinct(grid, "name")
    figure, axes = pyplot().subplots(
        1, len(priors), figsize=(4 * len(priors), 4.6), sharex=True, sharey=True, squeeze=False
    )
    for axis, prior in zip(axes[0], priors):
        for y, name in enumerate(names):
            values = changes(select(grid, prior=prior, name=name))
            mean, half = mean_and_half_width(values)
            colour = "tab:blue" if mean > 0 else "tab:red"
            axis.barh(y, mean, xerr=half, color=colour, alpha=0.55, height=0.7, capsize=3)
            axis.plot(values, [y] * len(values), ".", color="0.25", ms=4)
        start = first_values(select(grid, prior=prior, name=names[0]), "eval/accuracy")
        before = f"before RL: {fmean(start.values()):.2f}"
        axis.set(title=f"{PRIOR_TITLES[prior]}\n{before}", xlabel="change of accuracy")
        axis.set_yticks(range(len(names)), names)
        axis.axvline(0, color="0.3", lw=0.8)
    axes[0][0].invert_yaxis()
    axes[0][0].set(xlim=(-0.8, 0.9), xticks=(-0.5, 0, 0.5))
    note = (
        f"bars: mean and 95% interval, dots: seeds, {count_seeds(grid)}; 8 updates and {SETTINGS}"
    )
    finish(figure, axes.flat, output, note)


class Panel(NamedTuple):
    """Two runs that differ in clipping alone."""

    experiment: str
    clipped: str
    unclipped: str
    title: str


CLIPPING_PANELS = (
    Panel(
        "clipping",
        "standard",
        "no clip",
        "8 updates per step:\nsome seeds fall, with clipping or without",
    ),
    Panel(
        "stronger",
        MANY_UPDATES,
        f"{MANY_UPDATES}, no clip",
        f"{MANY_UPDATES}, from the same completions:\nwithout clipping all collapse",
    ),
)


def draw_clipping(rows: list[dict], output: Path) -> None:
    """First prior, with clipping and without, every seed a line; one panel per pair of runs."""
    prior = known_priors(select(rows, experiment="clipping"))[0]
    rows = select(rows, prior=prior)
    panels = [
        panel for panel in CLIPPING_PANELS if panel.experiment in distinct(rows, "experiment")
    ]
    size = (4.5 * len(panels), 4)
    figure, axes = pyplot().subplots(1, len(panels), figsize=size, sharey=True, squeeze=False)
    for axis, panel in zip(axes[0], panels):
        runs = select(rows, experiment=panel.experiment)
        draw_seeds(axis, select(runs, name=panel.clipped), "tab:blue", "with clipping")
        draw_seeds(axis, select(runs, name=panel.unclipped), "tab:red", "without")
        axis.set(xlabel="gradient updates", ylim=(0, 0.8))
        axis.set_title(panel.title, fontsize=11)
    axes[0][0].set(ylabel="accuracy (held out, temperature 1)")
    axes[0][0].legend(loc="upper right", frameon=False, fontsize=9)
    note = f"{prior}, random reward, one line per seed, {count_seeds(rows)}; {SETTINGS}"
    finish(figure, axes.flat, output, note, dpi=120)


def draw_seeds(axis, rows: list[dict], colour: str, label: str) -> None:
    for seed in distinct(rows, "seed"):
        evaluated = [row for row in select(rows, seed=seed) if "eval/accuracy" in row]
        updates = [row["updates"] for row in evaluated]
        accuracy = [row["eval/accuracy"] for row in evaluated]
        axis.plot(updates, accuracy, ".-", color=colour, lw=1.2, alpha=0.8, label=label)
        # one entry in the legend stands for all seeds
        label = None


def draw_all_metrics(rows: list[dict], output: Path, names: tuple[str, ...]) -> None:
    """Rows: metrics, columns: priors, against updates; mean and 95% interval over seeds.

    A last column has the runs with the most updates per step.
    """
    clipping = select(rows, experiment="clipping")
    # title: {line of LINES: rows of its run}
    columns = {
        PRIOR_TITLES[prior]: {name: select(clipping, prior=prior, name=name) for name in names}
        for prior in known_priors(clipping)
    }
    many = select(rows, experiment="stronger", prior="qwen_math")
    if many:
        columns[f"qwen_math\n{MANY_UPDATES}"] = {
            name: select(
                many, name=MANY_UPDATES if name == "standard" else f"{MANY_UPDATES}, {name}"
            )
            for name in names
        }
    size = (3.4 * len(columns) + 1.5, 9.5)
    figure, axes = pyplot().subplots(
        len(METRICS), len(columns), figsize=size, sharex="col", sharey="row", squeeze=False
    )
    for column, (title, runs) in enumerate(columns.items()):
        for axis, metric in zip(axes[:, column], METRICS):
            for name, run in runs.items():
                if run:
                    draw_mean(axis, run, metric, name)
        axes[0][column].set_title(title)
        axes[-1][column].set_xlabel("gradient updates")
    for axis, label in zip(axes[:, 0], METRICS.values()):
        axis.set_ylabel(label)
    for axis in axes[:2].flat:
        axis.set_ylim(0, 1)
    handles, labels = axes[0][0].get_legend_handles_labels()
    axes[0][-1].legend(handles, labels, frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    note = f"mean and 95% interval, {count_seeds(clipping)}; 8 updates and {SETTINGS}"
    finish(figure, axes.flat, output, note, dpi=85)


def draw_mean(axis, rows: list[dict], metric: str, name: str) -> None:
    """Mean over seeds and its interval, where the metric is logged."""
    values = {}
    for row in rows:
        if metric in row:
            values.setdefault(row["updates"], []).append(row[metric])
    means, halves = zip(*map(mean_and_half_width, values.values()))
    colour, line = LINES[name]
    axis.plot(list(values), means, color=colour, ls=line, lw=2, label=name)
    low = [mean - half for mean, half in zip(means, halves)]
    high = [mean + half for mean, half in zip(means, halves)]
    axis.fill_between(list(values), low, high, color=colour, alpha=0.12, lw=0)
