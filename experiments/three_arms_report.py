r"""Figure, table and sample completions of the three arms, from their logs alone.

    python -m experiments.three_arms_report --folder runs/demo --output runs/demo/cooper.png

Verifier grey, frozen reward model green, Cooper blue.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from support.errors import InputError
from support.flags import command_line
from support.jsonl import read_jsonl
from support.plots import check_figure, finish, pyplot, smooth
from support.tables import markdown

# folder: (label, colour)
STYLES = {
    "rule": ("rule verifier", "0.45"),
    "frozen": ("frozen reward model", "tab:green"),
    "cooper": ("Cooper", "tab:blue"),
}


def load_arms(folder: str) -> dict[str, list[dict]]:
    """{arm: its history}. Raises InputError where the folder holds no arm."""
    found = {arm: read_jsonl(Path(folder, arm, "metrics.jsonl")) for arm in STYLES}
    arms = {arm: rows for arm, rows in found.items() if rows}
    if not arms:
        raise InputError(
            f"{folder} holds no {' / '.join(STYLES)} with a metrics.jsonl: run `make demo` first"
        )
    return arms


def values(rows: list[dict], key: str) -> tuple[list[int], list[float]]:
    """(steps, values) of a metric where it is logged."""
    logged = [(row["step"], row[key]) for row in rows if key in row]
    return [step for step, _ in logged], [value for _, value in logged]


def score_against_truth(rows: list[dict]) -> tuple[list[float], list[float]]:
    """(smoothed reward, true accuracy) at every evaluation after the start."""
    steps, reward = values(rows, "reward")
    smoothed = dict(zip(steps, smooth(reward)))
    steps, accuracy = values(rows, "eval/accuracy")
    pairs = [(smoothed[s], a) for s, a in zip(steps, accuracy) if s in smoothed]
    return [x for x, _ in pairs], [y for _, y in pairs]


# --------------------------------------------------------------------------------------------------
# Figure


def draw_arms(arms: dict, output: str, caption: str = "") -> None:
    """Left: true accuracy over steps. Right: the path of reward and true accuracy, to its dot.

    The right panel has the frozen and the Cooper arm.
    """
    figure, (left, right) = pyplot().subplots(1, 2, figsize=(10, 4.4), sharey=True)
    for arm, rows in arms.items():
        label, colour = STYLES[arm]
        left.plot(*values(rows, "eval/accuracy"), label=label, color=colour, lw=2)
        # the rule's score is the truth itself
        if arm != "rule":
            x, y = score_against_truth(rows)
            right.plot(x, y, color=colour, lw=2)
            right.plot(x[-1:], y[-1:], "o", color=colour, ms=6)
    right.plot([0, 1], [0, 1], color="0.7", lw=0.8, ls=":")
    right.text(0.03, 0.09, "score = truth", color="0.5", fontsize=8, rotation=35)
    left.set(xlabel="step", ylabel="true accuracy (rule, held-out problems)", ylim=(0, 1.02))
    right.set(xlabel="reward model's score of the step's completions", xlim=(0, 1.02))
    right.tick_params(labelleft=True)
    left.set_title("The policy learns; on a frozen reward model it unlearns", fontsize=10)
    right.set_title("Hacked: the score rises on, the truth does not (dot: end)", fontsize=10)
    left.legend(loc="lower left", frameon=False, fontsize=8)
    finish(figure, (left, right), output, caption, dpi=120)


# --------------------------------------------------------------------------------------------------
# Table


def outcome(rows: list[dict]) -> str:
    """ "0.99", or "0.07 (best 0.93)" where the end is 0.05 or more below the best evaluation."""
    _, accuracy = values(rows, "eval/accuracy")
    best, end = max(accuracy), accuracy[-1]
    return f"{end:.2f} (best {best:.2f})" if best - end >= 0.05 else f"{end:.2f}"


def table(arms: dict) -> str:
    """Markdown: true accuracy at the last evaluation, a row per arm."""
    steps = max(rows[-1]["step"] for rows in arms.values())
    rows = [[STYLES[arm][0], outcome(rows)] for arm, rows in arms.items()]
    return markdown(["", f"true accuracy at step {steps}"], rows)


# --------------------------------------------------------------------------------------------------
# Sample completions


def three_samples(frozen: list[dict], cooper: list[dict]) -> list[tuple[str, dict]]:
    """(what it shows, row of samples.jsonl): a right completion, a wrong one, one that hacks.

    Right: of Cooper's last evaluation, the best scored. Wrong: the one that the frozen reward model
    scores lowest. Hack: the wrong one that it scores highest. What the logs lack is left out.
    """
    right = [row for row in cooper if row["correct"]]
    # well-formed ones: garbled texts please the reward model as well, but show less
    wrong = [
        row
        for row in frozen
        if not row["correct"] and re.fullmatch(r"[^{}]*\\boxed\{\d+\}", row["completion"])
    ]
    shown = []
    if right:
        shown.append(("right", max(right, key=lambda row: (row["step"], row["reward"]))))
    if wrong:
        shown.append(("wrong", min(wrong, key=lambda row: row["reward"])))
        shown.append(("hacked", max(wrong, key=lambda row: row["reward"])))
    return shown


def samples_text(shown: list[tuple[str, dict]]) -> str:
    """The samples as they are printed at the end of the demo and in the README."""
    lines = []
    for what, row in shown:
        rule = "right" if row["correct"] else "wrong"
        lines += [
            f"{what + ':':8} {row['question']}  reference {row['reference']}",
            f"         {row['completion']}",
            f"         rule: {rule}, reward model: {row['reward']:.2f}",
        ]
    return "\n".join(lines)


# --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ReportConfig:
    folder: str = "runs/demo"  # holds rule/, frozen/, cooper/, or some of them
    output: str = "runs/demo/cooper.png"  # the figure
    caption: str = ""  # small print below it: config, seed, command


def report(cfg: ReportConfig) -> None:
    check_figure(cfg.output)
    arms = load_arms(cfg.folder)
    draw_arms(arms, cfg.output, cfg.caption)
    print(table(arms), end="\n\n")
    samples = [read_jsonl(Path(cfg.folder, arm, "samples.jsonl")) for arm in ("frozen", "cooper")]
    print(samples_text(three_samples(*samples)), end="\n\n")
    print(f"figure: {cfg.output}")


if __name__ == "__main__":
    command_line(ReportConfig, report)
