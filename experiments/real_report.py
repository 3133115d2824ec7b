"""Tables and figure of experiments/real.py, from the slim logs that it keeps.

python -m experiments.real_report --logs results/real --readme results/real/README.md
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from support import plots
from support.errors import InputError
from support.files import claim_results, read_json, write
from support.flags import command_line
from support.jsonl import read_jsonl
from support.tables import check_readme, markdown, renew_file

LOGGED = (
    "step", "reward", "accuracy", "entropy", "completions/mean_length", "frac_reward_zero_std",
    "rm/agreement", "rm/order", "rm/valid_rate", "rm/pair_accuracy", "rm/answered_rate",
    "sampling/sampling_logp_difference/max", "step_time",
)  # fmt: skip
COLORS = {"rule": "0.4", "static": "tab:green", "cooper": "tab:blue", "rollouts": "tab:purple"}


def keep(runs: str, kept: str) -> None:
    """Write to `kept` what the tables and the figure need of a folder of experiments.real."""
    folder, kept = Path(runs), Path(kept)
    claim_results(kept, "experiments.real")
    logs = []
    for path in sorted(folder.glob("*/metrics.jsonl")):
        for row in read_jsonl(path):
            if row["step"]:
                logged = {name: row[name] for name in LOGGED if row.get(name) is not None}
                logs.append({"run": path.parent.name} | logged)
    files = [
        p for p in sorted(folder.glob("*.json")) if p.name not in ("pairs.json", "made_by.json")
    ]
    measured = [{"policy": path.stem} | read_json(path) for path in files]
    for name, rows in (("logs", logs), ("measured", measured)):
        lines = [json.dumps(row, ensure_ascii=False) for row in rows]
        write(kept / f"{name}.jsonl", "\n".join(lines) + "\n")
    for name in ("stages.jsonl", "pairs.json", "rm/metrics.json"):
        if (folder / name).exists():
            text = (folder / name).read_text(encoding="utf-8")
            write(kept / name.replace("rm/metrics", "reward_model"), text)


def in_order(rows: list[dict]) -> list[dict]:
    """Before, start, and the arms."""
    first = ["before", "start"]
    return sorted(rows, key=lambda r: (first + [r["policy"]]).index(r["policy"]))


def accuracy(rows: list[dict]) -> str:
    lines = []
    for row in in_order(rows):
        low, high = row["accuracy_low"], row["accuracy_high"]
        cells = [f"{row['accuracy']:.3f}", f"{low:.3f} to {high:.3f}"]
        cells += [f"{row[n]:.3f}" if n in row else "" for n in ("pass@8", "boxed")]
        lines.append([row["policy"], *cells, f"{row['length']:.0f}"])
    return markdown(["", "accuracy", "interval", "pass@8", "boxed", "tokens"], lines)


def seconds(logs: list[dict], stages: list[dict]) -> str:
    """Median seconds of a step, and of the other stages as a whole."""
    lines = []
    for run in sorted({row["run"] for row in logs}, key=lambda run: (run != "start", run)):
        times = [row["step_time"] for row in logs if row["run"] == run]
        step = median(times)  # of a run that was paused the sum says nothing
        lines.append([run, f"{len(times)} steps of {step:.0f} s", f"{len(times) * step / 60:.0f}"])
    steps = {row["run"] for row in logs}
    for row in stages:
        if row["stage"] not in steps:
            lines.append([row["stage"], "", f"{row['seconds'] / 60:.0f}"])
    return markdown(["stage", "", "minutes"], lines)


def visible(text: str) -> str:
    """White space as one blank, other control characters as their escapes.

    >>> print(visible("so\\n2.\\v\\v2"))
    so 2.\\x0b\\x0b2
    """
    text = re.sub(r"[ \t\r\n]+", " ", text).strip()
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)


def completions(rows: list[dict]) -> str:
    """Ten of each policy that has them, as the rule saw them."""
    parts = []
    for row in in_order(rows):
        lines = [f"{row['policy']}:"]
        for one in row["completions"]:
            text = visible(one["completion"])
            text = text if len(text) <= 110 else text[:110] + " ..."
            verdict = "right" if one["correct"] else "wrong"
            lines.append(f"  {verdict}, reference {one['reference']}: {text}")
        parts.append("\n".join(lines))
    return "```text\n" + "\n\n".join(parts) + "\n```"


def pairs(rows: list[dict]) -> str:
    """As they are read, but for characters that cannot be seen."""
    names = "step", "question", "reference", "right", "wrong"
    parts = ["\n".join(f"{name + ':':10} {visible(row[name])}" for name in names) for row in rows]
    return "```text\n" + "\n\n".join(parts) + "\n```"


def figure(logs: list[dict], measured: list[dict], path: Path) -> None:
    """Left: training accuracy by step. Right: held-out accuracy before and after."""
    fig, axes = plots.pyplot().subplots(1, 2, figsize=(10, 3.8))
    first = {}  # the first seed of each arm
    for run in dict.fromkeys(row["run"] for row in logs):
        rows = [row for row in logs if row["run"] == run]
        if (arm := run.rstrip("0123456789")) in COLORS:
            values = plots.smooth([row["accuracy"] for row in rows], 15)
            style = "-" if run == first.setdefault(arm, run) else "--"
            steps = [row["step"] for row in rows]
            axes[0].plot(steps, values, style, color=COLORS[arm], label=run)
    axes[0].set(xlabel="step", ylabel="accuracy in training, mean of 15 steps", ylim=(0, None))
    axes[0].legend()
    rows = in_order(measured)
    for at, row in enumerate(rows):
        color = COLORS.get(row["policy"].rstrip("0123456789"), "0.7")
        axes[1].bar(at, row["accuracy"], color=color)
        ends = [[row["accuracy"] - row["accuracy_low"]], [row["accuracy_high"] - row["accuracy"]]]
        axes[1].errorbar(at, row["accuracy"], ends, color="black", capsize=3)
    axes[1].set_xticks(range(len(rows)), [row["policy"] for row in rows], rotation=20)
    axes[1].set_ylabel("accuracy, held-out problems")
    plots.finish(fig, axes, path, "python -m experiments.real")


@dataclass(frozen=True)
class ReportConfig:
    logs: str = "results/real"  # folder of slim logs that real.py keeps
    readme: str | None = None  # file whose tables, between marks, are renewed


def main(cfg: ReportConfig) -> None:
    check_readme(cfg.readme)
    folder = Path(cfg.logs)
    if not (folder / "measured.jsonl").exists():
        raise InputError(f"{folder} holds no logs of experiments.real")
    logs, measured = read_jsonl(folder / "logs.jsonl"), read_jsonl(folder / "measured.jsonl")
    stages = folder / "stages.jsonl"
    made = {
        "real: accuracy": accuracy(measured),
        "real: seconds": seconds(logs, read_jsonl(stages) if stages.exists() else []),
        "real: completions": completions(measured),
    }
    if (folder / "pairs.json").exists():
        rows = json.loads((folder / "pairs.json").read_text(encoding="utf-8"))
        made["real: pairs"] = pairs(rows)
    renew_file(cfg.readme, made)
    figure(logs, measured, folder / "real.png")
    print(made["real: accuracy"], made["real: seconds"], sep="\n\n")


if __name__ == "__main__":
    command_line(ReportConfig, main)
