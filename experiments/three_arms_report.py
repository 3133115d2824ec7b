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

from support.errors import InputError
from support.flags import command_line
from support.plots import finish, pyplot, smooth
from support.run import read_jsonl, write
from support.stats import mean_and_half_width

ARMS = {  # folder: (label, colour, line)
    "rule": ("rule verifier", "0.45", "-"),
    "frozen": ("frozen reward model", "tab:green", "-"),
    "cooper": ("Cooper", "tab:blue", "-"),
    "assistant": ("Cooper, assistant's negatives", "tab:cyan", "--"),
}


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


@dataclass(frozen=True)
class PlotConfig:
    folder: str = "runs/demo"  # holds rule/, frozen/, cooper/, or seed*/ with them inside
    output: str = "runs/demo/cooper.png"  # the figure
    caption: str = ""  # small print below it: config, seeds, command
    keep: str | None = None  # folder that receives slim copies of the logs; none copies nothing


def report(cfg: PlotConfig) -> None:
    arms = load_arms(cfg.folder)
    draw(arms, cfg.output, cfg.caption)
    print(table(arms))
    print(f"figure: {cfg.output}")
    if cfg.keep:
        keep_logs(cfg.folder, cfg.keep)


if __name__ == "__main__":
    command_line(PlotConfig, report)
