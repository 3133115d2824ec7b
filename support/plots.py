"""What every figure of the project has in common."""

from pathlib import Path


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
