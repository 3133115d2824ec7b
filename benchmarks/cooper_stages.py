"""Seconds per step of each stage of Cooper, and of an evaluation.

    python benchmarks/cooper_stages.py --model runs/demo/policy --rm_model runs/demo/rm

It trains for some steps as cooper.py does, with a clock around each stage, and prints medians over
the steps after the first two: `wall`, and `cpu`, the processor seconds, which other programs on the
machine change less. What a whole step takes besides is
the rule's verdicts of stage 5.
"""

import statistics
import sys
import time
from collections import Counter, defaultdict
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
    "group_advantages": "3 advantages",
    "update": "4 policy update",
    "select_positives": "5 positives",
    "find_negatives": "6 negatives",
    "update_reward_model": "7 reward-model update",
    "rollout_metrics": "8 metrics",
    "watch": "an evaluation of both, 500 problems",
}


@dataclass(frozen=True)
class StagesConfig:
    model: str = "runs/demo/policy"  # policy to start from
    rm_model: str = "runs/demo/rm"  # reward model to start from
    steps: int = 22  # the first two are not counted
    threads: int = 1  # of torch


class Clock:
    """Seconds by stage and step; a step begins where its problems are drawn."""

    def __init__(self):
        self.spent, self.step = defaultdict(Counter), 0

    def around(self, function, stage):
        def call(*args, **kwargs):
            wall, cpu = time.perf_counter(), time.process_time()
            try:
                return function(*args, **kwargs)
            finally:
                self.spent[stage, "wall"][self.step] += time.perf_counter() - wall
                self.spent[stage, "cpu"][self.step] += time.process_time() - cpu

        return call

    def next_step(self, function):
        def call(*args, **kwargs):
            self.step += 1
            return function(*args, **kwargs)

        return call

    def median(self, stage, kind) -> float:
        return statistics.median(v for step, v in self.spent[stage, kind].items() if step > 2)


def main(cfg: StagesConfig) -> None:
    torch.set_num_threads(cfg.threads)
    clock = Clock()
    for name, stage in STAGES.items():
        setattr(cooper, name, clock.around(getattr(cooper, name), stage))
    cooper.rewards.checked = clock.around(cooper.rewards.checked, "2 score")
    cooper.rewards.rule = clock.around(cooper.rewards.rule, "8 the rule's verdicts")
    cooper.draw_problems = clock.next_step(cooper.draw_problems)
    with TemporaryDirectory() as folder, redirect_stderr(StringIO()):
        history = cooper.train(
            CooperConfig(
                model=cfg.model, rm_model=cfg.rm_model, output=f"{folder}/run", steps=cfg.steps,
                eval_early=0, eval_every=4, eval_problems=500, eval_samples=2, save_every=1000,
            )
        )  # fmt: skip
    stages = sorted({stage for stage, _ in clock.spent})
    rows = [[s, *[f"{clock.median(s, kind):.3f}" for kind in ("wall", "cpu")]] for s in stages]
    step = statistics.median(row["step_time"] for row in history[3:])
    print(markdown(["stage", "wall, s", "cpu, s"], [*rows, ["a whole step", f"{step:.3f}", ""]]))


if __name__ == "__main__":
    command_line(StagesConfig, main)
