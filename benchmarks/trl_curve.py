"""cooper.py beside cooper_trl.py: the same learning curve, within the spread of seeds?

    python benchmarks/trl_curve.py --model runs/demo/policy --rm_model runs/demo/rm

Each side and seed is a run of its own, which a second call leaves alone. A line of `logs` is a run:
the means of ten steps at a time of what both sides log.
"""

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from support.files import write
from support.flags import command_line
from support.jsonl import read_jsonl
from support.stats import sign_flip
from support.tables import markdown

SIDES = {"cooper.py": "ours", "cooper_trl.py": "TRL"}
LOGGED = "accuracy", "reward", "rm/valid_rate", "rm/pair_accuracy"


@dataclass(frozen=True)
class CurveConfig:
    model: str = "runs/demo/policy"  # policy that both start from
    rm_model: str = "runs/demo/rm"  # reward model that both start from
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4, 5, 6, 7)  # of problems and sampling
    steps: int = 60  # of each run
    output: str = "runs/trl_curve"  # folder of the runs
    logs: str = "benchmarks/trl_curve.jsonl"  # what is kept of them


def curve(folder: Path) -> dict[str, list[float]]:
    """{metric: its means over steps 1 to 10, 11 to 20, ...}"""
    rows = [row for row in read_jsonl(folder / "metrics.jsonl") if row["step"]]
    parts = [rows[i : i + 10] for i in range(0, len(rows), 10)]
    return {name: [round(fmean(row[name] for row in p), 3) for p in parts] for name in LOGGED}


def table(rows: list[dict]) -> str:
    """Accuracy of the last ten steps by seed, mean, and p of the paired difference."""
    ends = {side: [r["accuracy"][-1] for r in rows if r["side"] == side] for side in SIDES.values()}
    lines = [
        [side, *(f"{x:.2f}" for x in values), f"{fmean(values):.3f}"]
        for side, values in ends.items()
    ]
    differences = [b - a for a, b in zip(*ends.values())]
    seeds = [f"seed {row['seed']}" for row in rows if row["side"] == "ours"]
    return (
        markdown(["", *seeds, "mean"], lines)
        + f"\n\ndifference {fmean(differences):+.3f}, sign-flip p {sign_flip(differences):.2f}"
    )


def main(cfg: CurveConfig) -> None:
    rows = []
    for file, side in SIDES.items():
        for seed in cfg.seeds:
            folder = Path(cfg.output, f"{side.lower()}{seed}")
            flags = {
                "model": cfg.model, "rm_model": cfg.rm_model, "seed": seed, "steps": cfg.steps,
                "eval_every": 0, "save_every": 0, "output": folder,
            }  # fmt: skip
            words = [str(word) for name, value in flags.items() for word in (f"--{name}", value)]
            if not (folder / "rm").exists():  # it has not ended
                subprocess.run([sys.executable, file, *words], check=True)
            rows.append({"side": side, "seed": seed} | curve(folder))
    write(Path(cfg.logs), "".join(json.dumps(row) + "\n" for row in rows))
    print(table(rows))


if __name__ == "__main__":
    command_line(CurveConfig, main)
