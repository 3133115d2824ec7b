"""Any runs side by side; and what every figure of the project has in common.

python -m support.plots --runs runs/grpo runs/noclip --metrics eval/accuracy entropy
"""

from dataclasses import dataclass
from pathlib import Path

from support.errors import InputError
from support.files import hidden, writable
from support.flags import command_line
from support.jsonl import read_jsonl
from support.progress import in_notebook


def smooth(values: list[float], window: int = 9) -> list[float]:
    """Centred running mean, narrower at the ends."""
    half = window // 2
    parts = [values[max(0, i - half) : i + half + 1] for i in range(len(values))]
    return [sum(part) / len(part) for part in parts]


def pyplot():
    import matplotlib

    # no window: figures go to files; a notebook goes on showing its own
    if not in_notebook():
        matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    return plt


MADE_BY = "minicooper"  # in the metadata of every figure: that one may be drawn again


def check_figure(output: str | Path) -> None:
    """Raise InputError where `output` is not a PNG, or a file that is not a figure of ours."""
    path = writable(str(output))
    if path.suffix != ".png":
        raise InputError(f"figures are PNG files: {output} should end in .png")
    if path.exists() and not (path.is_file() and is_ours(path)):
        raise InputError(f"{output} is there already, and no figure of {MADE_BY}: name another")


def is_ours(path: Path) -> bool:
    """Whether a file is a PNG with our mark in its metadata."""
    head = path.read_bytes()[:1000]
    return head.startswith(b"\x89PNG") and b"tEXtSoftware\0" + MADE_BY.encode() in head


def finish(figure, axes, output: str | Path, caption: str, dpi: int = 95) -> None:
    """Grid, small print, save."""
    check_figure(output)
    for axis in axes:
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
    figure.text(0.01, 0.005, caption, fontsize=7.5, color="0.35")
    figure.tight_layout(rect=(0, 0.03, 1, 1))
    temporary = hidden(Path(output), "tmp")
    temporary.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(temporary, dpi=dpi, format="png", metadata={"Software": MADE_BY})
    pyplot().close(figure)
    temporary.replace(output)


def compare(folders: list[str], *metrics: str, output: str | Path = "runs/compare.png") -> Path:
    """One panel per metric, one line per run: raw faint, smoothed strong. Returns the path.

    folders: of runs, each with a metrics.jsonl. Raises InputError: no log, or nowhere that metric.
    """
    check_figure(output)
    metrics = metrics or ("eval/accuracy",)
    logs = {folder: read_jsonl(Path(folder, "metrics.jsonl")) for folder in folders}
    if empty := [folder for folder, rows in logs.items() if not rows]:
        raise InputError(f"no metrics.jsonl in {', '.join(empty)}: give folders of runs")
    size = (5 * len(metrics), 3.8)
    figure, axes = pyplot().subplots(1, len(metrics), figsize=size, squeeze=False)
    for axis, metric in zip(axes[0], metrics):
        for number, (folder, rows) in enumerate(logs.items()):
            found = [(row.get("step"), row.get(metric)) for row in rows]
            logged = [pair for pair in found if None not in pair]
            if logged:
                steps, values = zip(*logged)
                axis.plot(steps, values, color=f"C{number}", lw=0.8, alpha=0.35)
                # a few evaluations are shown as they are
                smoothed = smooth(values) if len(values) >= 30 else values
                axis.plot(steps, smoothed, color=f"C{number}", lw=2, label=folder)
        if not axis.lines:
            names = sorted({name for rows in logs.values() for row in rows for name in row})
            raise InputError(f"no run has logged {metric!r}; they have {', '.join(names)}")
        axis.set(title=metric, xlabel="step")
        axis.legend(frameon=False, fontsize=8)
    finish(figure, axes[0], output, ", ".join(folders))
    return Path(output)


@dataclass(frozen=True)
class CompareConfig:
    runs: tuple[str, ...]  # folders of runs
    metrics: tuple[str, ...] = ("eval/accuracy", "reward")  # names as in metrics.jsonl
    output: str = "runs/compare.png"  # the figure


def main(cfg: CompareConfig) -> None:
    print(f"figure: {compare(list(cfg.runs), *cfg.metrics, output=cfg.output)}")


if __name__ == "__main__":
    command_line(CompareConfig, main)
