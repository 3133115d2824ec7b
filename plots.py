r"""Read runs' metrics.jsonl, draw the figure of the three arms, print the table.

    python plots.py --folder runs/demo --output runs/demo/cooper.png

The folder holds one experiment (rule/, frozen/, cooper/) or several seeds of it (seed0/rule/, ...).
With seeds, lines are means and bands reach from the lowest to the highest seed; the table has 95 %
intervals of the mean (Student's t). Verifier grey, frozen reward model green, Cooper blue.
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from data import InputError
from run import command_line, read_jsonl, write

ARMS = {  # folder: (label, colour, line)
    "rule": ("rule verifier", "0.45", "-"),
    "frozen": ("frozen reward model", "tab:green", "-"),
    "cooper": ("Cooper", "tab:blue", "-"),
    "assistant": ("Cooper, assistant's negatives", "tab:cyan", "--"),
}
# Student's t, two-sided 95 %, by number of seeds: three seeds need 2.2 times the normal width.
T95 = {2: 12.71, 3: 4.30, 4: 3.18, 5: 2.78, 6: 2.57, 7: 2.45, 8: 2.36, 9: 2.31, 10: 2.26}


def mean_and_half_width(values: list[float]) -> tuple[float, float]:
    """Mean and half of its 95 % interval over seeds; 0 for a single one.

    >>> mean_and_half_width([0.0, 1.0])  # sample std sqrt(1/2): 12.71 * sqrt(1/2) / sqrt(2)
    (0.5, 6.355)
    """
    n = len(values)
    mean = sum(values) / n
    if n == 1:
        return mean, 0.0
    std = math.sqrt(sum((v - mean) ** 2 for v in values) / (n - 1))
    return mean, T95.get(n, 1.96) * std / math.sqrt(n)


def load_arms(folder: str) -> dict[str, list[list[dict]]]:
    """{arm: [history of each seed]}. Raises InputError where the folder holds no arm."""
    arms = {}
    for arm in ARMS:
        files = [
            Path(folder, arm, "metrics.jsonl"),
            *sorted(Path(folder).glob(f"seed*/{arm}/metrics.jsonl")),
        ]
        if histories := [rows for file in files if (rows := read_jsonl(file))]:
            arms[arm] = histories
    if not arms:
        raise InputError(
            f"{folder} holds no {' / '.join(ARMS)} with a metrics.jsonl: run `make demo` first"
        )
    return arms


def series(histories, key: str) -> tuple[list[int], list[list[float]]]:
    """(steps, values of every seed at each of them), at the steps that all seeds have."""
    by_step = [{row["step"]: row[key] for row in rows if key in row} for rows in histories]
    steps = sorted(set.intersection(*map(set, by_step)))
    return steps, [[values[step] for step in steps] for values in by_step]


def smooth(values: list[float], window: int = 9) -> list[float]:
    """Centred running mean, narrower at the ends."""
    half = window // 2
    parts = [values[max(0, i - half) : i + half + 1] for i in range(len(values))]
    return [sum(part) / len(part) for part in parts]


def pyplot():
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    return plt


def finish(figure, axes, output: str | Path, caption: str, dpi: int = 95) -> None:
    """Grid, small print, save."""
    for axis in axes:
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
    figure.text(0.01, 0.005, caption, fontsize=7.5, color="0.35")
    figure.tight_layout(rect=(0, 0.03, 1, 1))
    temporary = Path(output).with_suffix(".tmp.png")
    temporary.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(temporary, dpi=dpi)
    pyplot().close(figure)
    temporary.replace(output)


def draw(arms: dict, output: str, caption: str = "") -> None:
    """True accuracy (left) and reward (right) against step, the same limits."""
    figure, (left, right) = pyplot().subplots(1, 2, figsize=(10, 4.2), sharey=True)
    for arm, histories in arms.items():
        label, colour, line = ARMS[arm]
        style = {"color": colour, "ls": line, "label": label}
        curve(left, *series(histories, "eval/accuracy"), marker="o", ms=3.5, **style)
        steps, seeds = series(histories, "reward")
        curve(right, steps, [smooth(values) for values in seeds], **style)
    count = max(map(len, arms.values()))
    left.set(
        title="true accuracy (rule verifier, held-out problems)",
        xlabel="step",
        ylabel="share correct",
    )
    right.set(
        title="reward that the policy is trained on",
        xlabel="step",
        ylabel="mean reward",
        ylim=(0, 1.02),
    )
    right.tick_params(labelleft=True)
    right.legend(loc="lower right", frameon=False, title=f"n = {count} seed{'s' * (count > 1)}")
    finish(figure, (left, right), output, caption, dpi=130)


def curve(axis, steps, seeds, color, **style) -> None:
    """Every seed faint, their mean strong, the range between them shaded."""
    columns = list(zip(*seeds))
    for values in seeds:
        axis.plot(steps, values, color=color, lw=0.7, alpha=0.5)
    axis.fill_between(
        steps, list(map(min, columns)), list(map(max, columns)), color=color, alpha=0.07
    )
    axis.plot(steps, [sum(c) / len(c) for c in columns], color=color, lw=2.4, **style)


# What the table shows of each history: the column's name and the number.
COLUMNS = {
    "steps": lambda rows: rows[-1]["step"],
    "accuracy": lambda rows: last(rows, "eval/accuracy", 1),
    "greedy": lambda rows: last(rows, "eval/greedy", 1),
    "peak accuracy": lambda rows: max(row.get("eval/accuracy", 0) for row in rows),
    "RM score": lambda rows: last(rows, "reward"),
    "RM-rule agreement": lambda rows: last(rows, "rm/agreement"),
    "seconds": lambda rows: sum(row.get("step_time", 0) for row in rows),
}


def last(rows, key: str, count: int = 20) -> float:
    """Mean of the last `count` values of a metric; nan where it is not logged."""
    values = [row[key] for row in rows if key in row][-count:]
    return sum(values) / len(values) if values else math.nan


def table(arms: dict) -> str:
    """Markdown: one row an arm, mean +- half of the 95 % interval over seeds."""
    lines = ["| arm | " + " | ".join(COLUMNS) + " |", "|---" * (len(COLUMNS) + 1) + "|"]
    for arm, histories in arms.items():
        cells = []
        for name, number in COLUMNS.items():
            mean, half = mean_and_half_width([number(rows) for rows in histories])
            digits = 0 if name in ("steps", "seconds") else 2
            if math.isnan(mean) or (arm == "rule" and name.startswith("RM")):
                cells.append("-")
            else:
                cells.append(f"{mean:.{digits}f}" + (f" ± {half:.{digits}f}" if half else ""))
        lines.append(f"| {ARMS[arm][0]} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


KEPT = (
    "step reward accuracy code entropy eval/accuracy eval/greedy rm/agreement rm/held_out_accuracy "
    "rm/pair_accuracy rm/valid_rate grad_norm step_time"
).split()


def keep_logs(folder: str, kept: str) -> None:
    """Copy the metrics of every run below `folder` to `kept`, without those no figure needs."""
    for file in sorted(Path(folder).glob("**/metrics.jsonl")):
        rows = [
            {k: round(row[k], 4) if isinstance(row[k], float) else row[k] for k in KEPT if k in row}
            for row in read_jsonl(file)
        ]
        copy = Path(kept, file.relative_to(folder))
        copy.parent.mkdir(parents=True, exist_ok=True)
        write(copy, "".join(json.dumps(row) + "\n" for row in rows))


# --------------------------------------------------------------------------------------------------
# The figures of spurious.py; its tables are in spurious_report.py

PRIORS = {  # title of each
    "qwen_math": "qwen_math\ncode common and accurate",
    "qwen_confident": "qwen_confident\ncode almost always",
    "qwen_young": "qwen_young\nhalf trained",
    "llama": "llama\ncode rare and inaccurate",
    "olmo_sft": "olmo_sft\ncode common and inaccurate",
}
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

    logs: spurious_report.Logs.
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
        axis.set(title=f"{PRIORS[prior]}\nbefore RL: {start:.2f}", xlabel="change of accuracy")
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
    columns = [(("clipping", p), PRIORS[p], {n: n for n in names}) for p in logs.priors("clipping")]
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


@dataclass(frozen=True)
class PlotConfig:
    folder: str = "runs/demo"  # holds rule/, frozen/, cooper/, or seed*/ with them inside
    output: str = "runs/demo/cooper.png"  # the figure
    caption: str = ""  # small print below it: config, seeds, command
    keep: str | None = None  # folder that receives slim copies of the logs; none copies nothing


def main(cfg: PlotConfig) -> None:
    arms = load_arms(cfg.folder)
    draw(arms, cfg.output, cfg.caption)
    print(table(arms))
    print(f"figure: {cfg.output}")
    if cfg.keep:
        keep_logs(cfg.folder, cfg.keep)


if __name__ == "__main__":
    command_line(PlotConfig, main)
