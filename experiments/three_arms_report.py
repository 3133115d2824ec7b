r"""Figure, table and sample completions of the three arms, from their logs alone.

    python -m experiments.three_arms_report --folder runs/demo --output runs/demo/cooper.png

The folder holds one experiment (rule/, frozen/, cooper/) or several seeds of it (seed0/rule/, ...).
Every seed is a line and a column of its own: outcomes are all or nothing, and a mean of healthy and
collapsed runs would describe none. Verifier grey, frozen reward model green, Cooper blue.
"""

import json
from dataclasses import dataclass
from pathlib import Path

from support.errors import InputError
from support.flags import command_line
from support.plots import finish, pyplot, smooth
from support.run import read_jsonl, write

# folder: (label, colour, line)
ARMS = {
    "rule": ("rule verifier", "0.45", "-"),
    "frozen": ("frozen reward model", "tab:green", "-"),
    "cooper": ("Cooper", "tab:blue", "-"),
    "rollouts": ("Cooper, rejected rollouts as negatives", "tab:cyan", "--"),
}


def load_arms(folder: str) -> dict[str, dict[str, list[dict]]]:
    """{arm: {seed: its history}}. Raises InputError where the folder holds no arm."""
    arms = {}
    seeds = sorted(Path(folder).glob("seed[0-9]*"), key=lambda path: int(path.name[4:]))
    runs = {"this run": Path(folder)} | {path.name: path for path in seeds}
    for arm in ARMS:
        for name, path in runs.items():
            if rows := read_jsonl(path / arm / "metrics.jsonl"):
                arms.setdefault(arm, {})[name] = rows
    if not arms:
        raise InputError(
            f"{folder} holds no {' / '.join(ARMS)} with a metrics.jsonl: run `make demo` first"
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
    """Left: true accuracy over steps. Right: the path of reward and true accuracy, to its dot."""
    figure, (left, right) = pyplot().subplots(1, 2, figsize=(10, 4.4), sharey=True)
    for arm, seeds in arms.items():
        label, colour, line = ARMS[arm]
        for i, rows in enumerate(seeds.values()):
            style = {"color": colour, "ls": line, "lw": 1.4, "alpha": 0.85}
            left.plot(*values(rows, "eval/accuracy"), label=label if i == 0 else None, **style)
            # the rule's reward is the truth, so its path would be the diagonal
            if arm in ("frozen", "cooper"):
                x, y = score_against_truth(rows)
                right.plot(x, y, **style)
                right.plot(x[-1:], y[-1:], "o", color=colour, ms=6)
    right.plot([0, 1], [0, 1], color="0.7", lw=0.8, ls=":")
    right.text(0.03, 0.09, "score = truth", color="0.5", fontsize=8, rotation=35)
    left.set(xlabel="step", ylabel="true accuracy (rule, held-out problems)", ylim=(0, 1.02))
    right.set(xlabel="reward model's score of the step's completions", xlim=(0, 1.02))
    right.tick_params(labelleft=True)
    left.set_title("The policy learns; on a frozen reward model it unlearns", fontsize=10)
    right.set_title("Hacked: the score rises on, the truth does not (dot: end)", fontsize=10)
    count = max(map(len, arms.values()))
    left.legend(
        loc="lower left", frameon=False, fontsize=8, title=f"one line per seed, n = {count}"
    )
    finish(figure, (left, right), output, caption, dpi=120)


# --------------------------------------------------------------------------------------------------
# Table


def outcome(rows: list[dict]) -> str:
    """ "0.99", or "0.07 (best 0.93)" where the end is 0.05 or more below the best evaluation."""
    _, accuracy = values(rows, "eval/accuracy")
    best, end = max(accuracy), accuracy[-1]
    return f"{end:.2f} (best {best:.2f})" if best - end >= 0.05 else f"{end:.2f}"


def table(arms: dict) -> str:
    """Markdown: true accuracy at the last evaluation, a row per arm, a column per seed."""
    names = list(dict.fromkeys(seed for seeds in arms.values() for seed in seeds))
    steps = max(rows[-1]["step"] for seeds in arms.values() for rows in seeds.values())
    head = f"true accuracy at step {steps}"
    lines = [[head, *(name.replace("seed", "seed ") for name in names)], ["---"] * (len(names) + 1)]
    for arm, seeds in arms.items():
        cells = [outcome(seeds[name]) if name in seeds else "-" for name in names]
        lines.append([ARMS[arm][0], *cells])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


# --------------------------------------------------------------------------------------------------
# Sample completions


def three_samples(folder: str) -> list[tuple[str, dict]]:
    """(what it shows, row of samples.jsonl): a right completion, a wrong one, one that hacks.

    Right: of Cooper's last evaluation. Wrong: the one that the reward model scores lowest. Hack:
    the wrong one that the frozen reward model scores highest. What the logs lack is left out.
    """
    rows = {
        arm: [row for file in sorted(Path(folder).glob(f"**/{arm}/samples.jsonl"))
              for row in read_jsonl(file)]
        for arm in ("frozen", "cooper")
    }  # fmt: skip
    right = [row for row in rows["cooper"] if row["correct"]]
    wrong = [row for row in rows["frozen"] if not row["correct"]]
    shown = []
    if right:
        shown.append(("right", max(right, key=lambda row: row["step"])))
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
# Slim logs

KEPT = (
    "step reward accuracy code entropy eval/accuracy eval/greedy rm/agreement rm/held_out_accuracy "
    "rm/pair_accuracy rm/valid_rate grad_norm step_time"
).split()


def keep_logs(folder: str, kept: str) -> None:
    """Copy the logs below `folder` to `kept`: metrics without those that nothing here needs, the
    samples of every twentieth step, what was measured of the reward model."""
    for file in sorted(Path(folder).glob("**/metrics.jsonl")):
        rows = [
            {k: round(row[k], 4) if isinstance(row[k], float) else row[k] for k in KEPT if k in row}
            for row in read_jsonl(file)
        ]
        samples = read_jsonl(file.with_name("samples.jsonl"))
        copy = Path(kept, file.relative_to(folder))
        copy.parent.mkdir(parents=True, exist_ok=True)
        write(copy, "".join(json.dumps(row) + "\n" for row in rows))
        if file.parent.name in ("frozen", "cooper"):
            chosen = [row for row in samples if row["step"] % 20 == 0]
            write(copy.with_name("samples.jsonl"), "".join(json.dumps(r) + "\n" for r in chosen))
    for file in sorted(Path(folder).glob("**/rm/metrics.json")):
        copy = Path(kept, file.parent.relative_to(folder)).with_suffix(".json")
        copy.parent.mkdir(parents=True, exist_ok=True)
        write(copy, file.read_text())


# --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ReportConfig:
    folder: str = "runs/demo"  # holds rule/, frozen/, cooper/, or seed*/ with them inside
    output: str = "runs/demo/cooper.png"  # the figure
    caption: str = ""  # small print below it: config, seeds, command
    keep: str | None = None  # folder that receives slim copies of the logs; None copies nothing


def report(cfg: ReportConfig) -> None:
    arms = load_arms(cfg.folder)
    draw_arms(arms, cfg.output, cfg.caption)
    print(table(arms), end="\n\n")
    print(samples_text(three_samples(cfg.folder)), end="\n\n")
    print(f"figure: {cfg.output}")
    if cfg.keep:
        keep_logs(cfg.folder, cfg.keep)


if __name__ == "__main__":
    command_line(ReportConfig, report)
