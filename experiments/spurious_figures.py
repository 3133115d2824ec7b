"""The figures of spurious.py."""

from pathlib import Path
from statistics import fmean

from experiments.spurious_logs import PRIOR_TITLES
from support.plots import finish, pyplot
from support.stats import mean_and_half_width

METRICS = {  # of the rows: label of each
    "accuracy": "accuracy",
    "code": "share of code",
    "entropy": "entropy (nats)",
    "token_prob": "token probability",
}
LINES = {  # colour, line
    "standard": ("tab:blue", "-"),
    "no clip": ("tab:red", "-"),
    "one large minibatch": ("tab:purple", "--"),
    "small rollout batch": ("tab:orange", "--"),
    "lower bound only": ("tab:green", "-."),
    "upper bound only": ("tab:brown", "-."),
    "clip 0.05": ("tab:cyan", "-"),
}
FIGURES = {  # file: its lines
    "clipping.png": ("standard", "no clip", "one large minibatch", "small rollout batch"),
    "bounds.png": ("standard", "no clip", "lower bound only", "upper bound only", "clip 0.05"),
}
COMMAND = "16 x 16 completions and 8 updates a step, rate 1e-4: make reproduce-spurious"


def draw_grid(logs, output: Path) -> None:
    """A bar a reward, a panel a prior: change of accuracy, interval, and every seed a dot.

    logs: spurious_logs.Logs.
    """
    priors = logs.priors("grid")
    names = list(logs.runs["grid", priors[0]])
    figure, axes = pyplot().subplots(
        1, len(priors), figsize=(4 * len(priors), 4.6), sharex=True, sharey=True, squeeze=False
    )
    for axis, prior in zip(axes[0], priors):
        for y, name in enumerate(names):
            values = logs.change(("grid", prior), name)
            mean, half = mean_and_half_width(values)
            colour = "tab:blue" if mean > 0 else "tab:red"
            axis.barh(y, mean, xerr=half, color=colour, alpha=0.55, height=0.7, capsize=3)
            axis.plot(values, [y] * len(values), ".", color="0.25", ms=4)
        start = fmean(logs.at(("grid", prior), names[0], "eval/accuracy", first=True).values())
        axis.set(
            title=f"{PRIOR_TITLES[prior]}\nbefore RL: {start:.2f}", xlabel="change of accuracy"
        )
        axis.set_yticks(range(len(names)), names)
        axis.axvline(0, color="0.3", lw=0.8)
    axes[0][0].invert_yaxis()
    axes[0][0].set(xlim=(-0.8, 0.9), xticks=(-0.5, 0, 0.5))
    note = f"bars: mean and 95 % interval, dots: seeds, {logs.seeds('grid')}; {COMMAND}"
    finish(figure, axes.flat, output, note)


def draw_clipping(logs, output: Path, names: tuple[str, ...]) -> None:
    """Rows: metrics, columns: priors, against updates; mean and 95 % interval over seeds.

    A last column has the runs with the most updates a step.
    """
    columns = [
        (("clipping", p), PRIOR_TITLES[p], {n: n for n in names}) for p in logs.priors("clipping")
    ]
    where, more = ("stronger", "qwen_math"), "32 updates a step"
    if where in logs.runs:
        alike = {more: "standard"} | {f"{more}, {n}": n for n in names}
        runs = {name: like for name, like in alike.items() if name in logs.runs[where]}
        columns.append((where, f"qwen_math\n{more}", runs))
    size = (3.6 * len(columns), 9.5)
    figure, axes = pyplot().subplots(
        len(METRICS), len(columns), figsize=size, sharex="col", sharey="row", squeeze=False
    )
    for column, (where, title, runs) in enumerate(columns):
        for row, (metric, label) in enumerate(METRICS.items()):
            axis = axes[row][column]
            for name, like in runs.items():
                x, mean, half = mean_curve(logs, where, name, metric)
                colour, line = LINES[like]
                axis.plot(x, mean, color=colour, ls=line, lw=2, label=name)
                low, high = ([m + s * h for m, h in zip(mean, half)] for s in (-1, 1))
                axis.fill_between(x, low, high, color=colour, alpha=0.12, lw=0)
            if column == 0:
                axis.set_ylabel(label)
            if row == 0:
                axis.set_title(title)
            if metric in ("accuracy", "code"):
                axis.set_ylim(0, 1)
        axes[-1][column].set_xlabel("gradient updates")
    axes[0][0].legend(frameon=False, fontsize=8, loc="upper left")
    note = f"mean and 95 % interval, {logs.seeds('clipping')}; {COMMAND}"
    finish(figure, axes.flat, output, note)


def mean_curve(logs, where, name: str, metric: str):
    """Updates, mean over seeds and half of its interval, where the metric is logged."""
    seeds = [[row for row in rows if metric in row] for rows in logs.runs[where][name].values()]
    columns = [[row[metric] for row in rows] for rows in zip(*seeds)]
    pairs = [mean_and_half_width(column) for column in columns]
    return [row["updates"] for row in seeds[0]], *map(list, zip(*pairs))
