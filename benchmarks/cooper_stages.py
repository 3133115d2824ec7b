"""Seconds per step of each stage of Cooper, and of an evaluation.

    python benchmarks/cooper_stages.py --model runs/demo/policy --rm_model runs/demo/rm

It trains for some steps as cooper.py does, with a clock around each stage, and prints medians over
the steps after the first two: `wall`, and `cpu`, the processor seconds, which other programs on the
machine change less.
"""

import statistics
import sys
import time
from collections import defaultdict
from contextlib import redirect_stderr
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import cooper
from cooper import CooperConfig
from support.flags import command_line
from support.tables import markdown

# function of cooper.py: the stage that it is
STAGES = {
    "sample": "1 sample",
    "update": "4 policy update",
    "select_positives": "5 positives",
    "find_negatives": "6 negatives",
    "update_reward_model": "7 reward-model update",
    "rollout_metrics": "8 log",
    "watch": "evaluation of both, 500 problems",
}


@dataclass(frozen=True)
class StagesConfig:
    model: str = "runs/demo/policy"  # policy to start from
    rm_model: str = "runs/demo/rm"  # reward model to start from
    steps: int = 12  # the first two are not counted
    threads: int = 1  # of torch


def clocked(function, spent: list):
    def call(*args, **kwargs):
        wall, cpu = time.perf_counter(), time.process_time()
        try:
            return function(*args, **kwargs)
        finally:
            spent.append((time.perf_counter() - wall, time.process_time() - cpu))

    return call


def main(cfg: StagesConfig) -> None:
    torch.set_num_threads(cfg.threads)
    spent = defaultdict(list)
    for name, stage in STAGES.items():
        setattr(cooper, name, clocked(getattr(cooper, name), spent[stage]))
    cooper.rewards.checked = clocked(cooper.rewards.checked, spent["2 score"])
    with TemporaryDirectory() as folder, redirect_stderr(StringIO()):
        cooper.train(
            CooperConfig(
                model=cfg.model, rm_model=cfg.rm_model, output=f"{folder}/run", steps=cfg.steps,
                eval_early=0, eval_every=2, eval_problems=500, eval_samples=2, save_every=1000,
            )
        )  # fmt: skip
    rows = []
    for stage in sorted(spent):
        wall, cpu = (statistics.median(x) for x in zip(*spent[stage][2:]))
        rows.append([stage, f"{wall:.3f}", f"{cpu:.3f}"])
    print(markdown(["stage", "wall, s", "cpu, s"], rows))


if __name__ == "__main__":
    command_line(StagesConfig, main)
