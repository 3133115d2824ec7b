r"""Figure, table and sample completions of the three arms, from their logs alone.

    python -m experiments.three_arms_report --folder runs/demo --output runs/demo/cooper.png

The folder holds one experiment (rule/, frozen/, cooper/) or several seeds of it (seed0/rule/, ...).
Every seed is a line and a column of its own: outcomes are all or nothing, and a mean of healthy and
collapsed runs would describe none. Verifier grey, frozen reward model green, Cooper blue.
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path

from support.errors import InputError
from support.files import claim_results, write
from support.flags import command_line
from support.jsonl import read_jsonl
from support.plots import check_figure, finish, pyplot, smooth
from support.tables import check_readme, markdown, renew_file

# folder: (label, colour, line)
STYLES = {
    "rule": ("rule verifier", "0.45", "-"),
    "frozen": ("frozen reward model", "tab:green", "-"),
    "cooper": ("Cooper", "tab:blue", "-"),
    "assistant": ("Cooper, assistant's negatives, rate 1e-3", "tab:cyan", "--"),
}


def seed_folders(folder: str) -> list[Path]:
    """folder/seed4, folder/seed10, ... by number."""
    return sorted(Path(folder).glob("seed[0-9]*"), key=lambda path: int(path.name[4:]))


def load_arms(folder: str) -> dict[str, dict[str, list[dict]]]:
    """{arm: {seed: its history}}. Raises InputError where the folder holds no arm."""
    arms = {}
    runs = {"this run": Path(folder)} | {path.name: path for path in seed_folders(folder)}
    for arm in STYLES:
        for name, path in runs.items():
            if rows := read_jsonl(path / arm / "metrics.jsonl"):
                arms.setdefault(arm, {})[name] = rows
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
    for arm, seeds in arms.items():
        label, colour, line = STYLES[arm]
        for i, rows in enumerate(seeds.values()):
            style = {"color": colour, "ls": line, "lw": 1.4, "alpha": 0.85}
            left.plot(*values(rows, "eval/accuracy"), label=label if i == 0 else None, **style)
            # the rule's score is the truth itself
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
    rows = [
        [STYLES[arm][0], *(outcome(seeds[name]) if name in seeds else "-" for name in names)]
        for arm, seeds in arms.items()
    ]
    return markdown([head, *(name.replace("seed", "seed ") for name in names)], rows)


def courses(arms: dict) -> str:
    """Markdown: true accuracy every 20 steps, and the reward beside it, a row per arm and seed."""
    rows, steps = [], range(0, 121, 20)
    for arm, seeds in arms.items():
        for name, history in seeds.items():
            accuracy, reward = (dict(zip(*values(history, k))) for k in ("eval/accuracy", "reward"))
            cells = [f"{accuracy[step]:.2f}" if step in accuracy else "-" for step in steps]
            # nothing is rewarded before the first step
            paid = [f" ({reward[step]:.2f})" if step in reward else "" for step in steps]
            row = [STYLES[arm][0], name.replace("seed", "seed "), *map("".join, zip(cells, paid))]
            rows.append(row)
    return markdown(["true accuracy (reward)", "", *(f"step {s}" for s in steps)], rows)


def starts(folder: str) -> str:
    """Markdown: what was measured of each seed's initial reward model, from rm.json."""
    head = [
        "start",
        "rule and judge agree",
        "held-out accuracy",
        "wrong references told",
        "updates",
    ]
    keys = ("annotation_kept", "held_out/accuracy", "held_out/swap_accuracy")
    rows = []
    for seed in seed_folders(folder):
        if (seed / "rm.json").exists():
            measured = json.loads((seed / "rm.json").read_text(encoding="utf-8"))
            numbers = [f"{measured[key]:.2f}" for key in keys]
            rows.append([seed.name.replace("seed", "seed "), *numbers, measured["steps"]])
    return markdown(head, rows)


# --------------------------------------------------------------------------------------------------
# Sample completions


def three_samples(folder: str) -> list[tuple[str, dict]]:
    """(what it shows, row of samples.jsonl): a right completion, a wrong one, one that hacks.

    Right: of Cooper's last evaluation. Wrong: the one that the reward model scores lowest. Hack:
    the wrong one that the frozen reward model scores highest. What the logs lack is left out.
    """
    rows = {"frozen": [], "cooper": []}
    for arm, found in rows.items():
        for file in sorted(Path(folder).glob(f"**/{arm}/samples.jsonl")):
            found += read_jsonl(file)
    right = [row for row in rows["cooper"] if row["correct"]]
    # well-formed ones: garbled texts please the reward model as well, but show less
    wrong = [
        row
        for row in rows["frozen"]
        if not row["correct"] and re.fullmatch(r"[^{}]*\\boxed\{\d+\}", row["completion"])
    ]
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
        write(copy, file.read_text(encoding="utf-8"))


# --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ReportConfig:
    folder: str = "runs/demo"  # holds rule/, frozen/, cooper/, or seed*/ with them inside
    output: str = "runs/demo/cooper.png"  # the figure
    caption: str = ""  # small print below it: config, seeds, command
    keep: str | None = None  # folder that receives slim copies of the logs; None copies nothing
    readmes: tuple[str, ...] = ()  # files whose tables and samples, between marks, are renewed


def made_texts(folder: str) -> dict[str, str]:
    """{mark in the README: what the logs in `folder` put there}."""
    return {
        "three arms: table": table(load_arms(folder)),
        "three arms: courses": courses(load_arms(folder)),
        "three arms: starts": starts(folder),
        "three arms: samples": f"```text\n{samples_text(three_samples(folder))}\n```",
    }


def report(cfg: ReportConfig) -> None:
    with_assistant = Path(cfg.output).with_stem(Path(cfg.output).stem + "_assistant")
    check_figure(cfg.output)
    check_figure(with_assistant)
    for readme in cfg.readmes:
        check_readme(readme)
    if cfg.keep:
        claim_results(Path(cfg.keep), "experiments.three_arms_report")
    arms = load_arms(cfg.folder)
    draw_arms({arm: arms[arm] for arm in arms if arm != "assistant"}, cfg.output, cfg.caption)
    if "assistant" in arms:
        draw_arms(arms, str(with_assistant), cfg.caption)
    print(table(arms), end="\n\n")
    print(samples_text(three_samples(cfg.folder)), end="\n\n")
    print(f"figure: {cfg.output}")
    if cfg.keep:
        keep_logs(cfg.folder, cfg.keep)
    for readme in cfg.readmes:
        renew_file(readme, made_texts(cfg.keep or cfg.folder))


if __name__ == "__main__":
    command_line(ReportConfig, report)
