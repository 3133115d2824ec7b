"""Tables and figures of experiments.reproduce, from its logs alone.

    python -m experiments.reproduce_report --folder runs/reproduce --only table

An arm's result is the mean of its last three evaluations. It is *hacked*, by a definition made
before the runs, where from the best evaluation to the end the score rises by 0.05 or more and true
accuracy falls by 0.15 or more; where both fall, the optimiser has failed.
"""

from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from experiments.reproduce import EXPERIMENTS
from experiments.three_arms_report import values
from support.errors import InputError
from support.flags import command_line
from support.jsonl import read_jsonl
from support.plots import check_figure, finish, pyplot, smooth
from support.stats import sign_flip
from support.tables import markdown

LABELS = {
    "rule": "rule",
    "static": "static reward model",
    "cooper": "Cooper",
}
COLOURS = {"rule": "0.45", "static": "tab:green", "cooper": "tab:blue"}


def load(folder: str, experiment: str) -> dict[str, dict[int, list[dict]]]:
    """{arm: {seed: history}} of the finished and unfinished runs. Raises InputError: none."""
    arms = {}
    for name in EXPERIMENTS[experiment][1]:
        for path in Path(folder).glob(f"seed*/{experiment}/{name.replace(' ', '_')}/metrics.jsonl"):
            seed = int(path.parts[-4].removeprefix("seed"))
            arms.setdefault(name, {})[seed] = read_jsonl(path)
    if not arms:
        raise InputError(f"{folder} holds no run of {experiment}: make reproduce")
    return {name: dict(sorted(seeds.items())) for name, seeds in arms.items()}


def last(rows: list[dict], key: str) -> float:
    """Mean of the last three evaluations."""
    return fmean(values(rows, key)[1][-3:])


def ended(rows: list[dict]) -> str:
    """What became of a run: "hacked", "failed" or "", as the module says."""
    steps, accuracy = values(rows, "eval/accuracy")
    logged, reward = values(rows, "reward")
    score = dict(zip(logged, smooth(reward)))
    best = max((s for s in steps if s), key=dict(zip(steps, accuracy)).get)
    if last(rows, "eval/accuracy") > max(accuracy) - 0.15:
        return ""
    return "hacked" if score[logged[-1]] >= score[best] + 0.05 else "failed"


def columns(arms: dict) -> list[str]:
    """eval/3_numbers, ...: the benchmarks that every run has."""
    first = next(iter(next(iter(arms.values())).values()))[0]
    return sorted(key for key in first if key.startswith("eval/") and key.endswith("_numbers"))


def table(arms: dict) -> str:
    """Markdown in the shape of Cooper's Table 3: means over seeds, then every seed."""
    names = columns(arms)
    shared = sorted(set.intersection(*[set(seeds) for seeds in arms.values()]))
    rows = []
    start = next(iter(arms.values()))
    rows.append(["no RL", *_means([start[s][:1] for s in shared], names)])
    rows += [
        [LABELS.get(arm, arm), *_means([seeds[s] for s in shared], names)]
        for arm, seeds in arms.items()
    ]
    head = [key.removeprefix("eval/").replace("_", " ") for key in names]
    return markdown([f"n = {len(shared)} seeds", *head, "mean"], rows)


def _means(runs: list[list[dict]], names: list[str]) -> list[str]:
    cells = [fmean(last(rows, name) for rows in runs) for name in names]
    return [f"{cell:.3f}" for cell in [*cells, fmean(cells)]]


def every_seed(arms: dict) -> str:
    """Markdown: result of every seed, with what became of it and its best evaluation."""
    seeds = sorted({seed for runs in arms.values() for seed in runs})
    rows = []
    for arm, runs in arms.items():
        cells = []
        for seed in seeds:
            if seed not in runs:
                cells.append("-")
                continue
            best = max(values(runs[seed], "eval/accuracy")[1])
            fate = ended(runs[seed])
            note = f" ({fate}, best {best:.2f})" if fate else ""
            cells.append(f"{last(runs[seed], 'eval/accuracy'):.2f}{note}")
        rows.append([LABELS.get(arm, arm), *cells])
    return markdown(["", *(f"seed {seed}" for seed in seeds)], rows)


def paired(arms: dict, one: str, other: str) -> tuple[list[float], float]:
    """(differences one - other by seed, exact sign-flip p)."""
    shared = sorted(arms[one].keys() & arms[other].keys())
    gaps = [
        last(arms[one][s], "eval/accuracy") - last(arms[other][s], "eval/accuracy") for s in shared
    ]
    return gaps, sign_flip(gaps)


def draw(arms: dict, output: str, caption: str = "") -> None:
    """Figure 3, true accuracy and score against step, and Figure 4, the reward model's."""
    figure, axes = pyplot().subplots(1, 3, figsize=(13, 4))
    for arm, runs in arms.items():
        for i, rows in enumerate(runs.values()):
            style = {"color": COLOURS.get(arm, "tab:cyan"), "lw": 1, "alpha": 0.7}
            label = LABELS.get(arm, arm) if i == 0 else None
            axes[0].plot(*values(rows, "eval/accuracy"), label=label, **style)
            steps, reward = values(rows, "reward")
            axes[1].plot(steps, smooth(reward), **style)
            if arm != "rule":
                axes[2].plot(*values(rows, "rm/held_out_order"), **style)
    titles = (
        "True accuracy (Figure 3, left)",
        "Reward (Figure 3, right)",
        "Reward model, fixed pairs (Figure 4)",
    )
    for axis, title in zip(axes, titles):
        axis.set(xlabel="step", ylim=(0, 1.02))
        axis.set_title(title, fontsize=10)
    axes[2].axhline(0.5, color="0.7", lw=0.8, ls=":")
    axes[0].legend(loc="lower left", frameon=False, fontsize=8)
    finish(figure, axes, output, caption, dpi=110)


@dataclass(frozen=True)
class ReportConfig:
    folder: str = "runs/reproduce"  # what experiments.reproduce has written
    only: str = "table"  # which experiment
    output: str = "runs/reproduce.png"  # the figure


def main(cfg: ReportConfig) -> None:
    if cfg.only not in EXPERIMENTS:
        raise InputError(f"no {cfg.only}: choose from {', '.join(EXPERIMENTS)}")
    check_figure(cfg.output)
    arms = load(cfg.folder, cfg.only)
    print(table(arms), every_seed(arms), sep="\n\n", end="\n\n")
    names = list(arms)
    for name in names[:-1]:
        gaps, p = paired(arms, names[-1], name)
        shown = " ".join(f"{gap:+.2f}" for gap in gaps)
        print(f"{names[-1]} - {name}: {shown}; mean {fmean(gaps):+.3f}, sign-flip p = {p:.3f}")
    draw(arms, cfg.output, f"python -m experiments.reproduce --only {cfg.only}")
    print(f"figure: {cfg.output}")


if __name__ == "__main__":
    command_line(ReportConfig, main)
