"""Run by tests/test_trl.py on one process or several: updates of the reward model on given pairs.

torchrun --nproc_per_node 2 tests/trl_worker.py RM_FOLDER OUTPUT
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import torch
from accelerate import PartialState

from cooper_trl import LearningReward, TRLConfig

PAIRS = [(f"{n} + 1 = ?", str(n + 1), f"\\boxed{{{n + 1}}}", f"\\boxed{{{n}}}") for n in range(9)]


def main(rm: str, output: str) -> None:
    rank = PartialState(cpu=True).process_index
    cfg = TRLConfig(rm_model=rm, rm_lr=1e-2, rm_updates=2, rm_micro_batch=3, negatives="rollouts")
    reward = LearningReward(cfg)
    reward.rm.model.double()  # AdamW makes a step of the rounding where a gradient is 0
    # all; one, so that a process has none; none at all
    stats = [reward.update(pairs) for pairs in (PAIRS, PAIRS[:1], [], PAIRS[4:])]
    torch.save({"rm": reward.rm.model.state_dict(), "stats": stats}, f"{output}.{rank}")


if __name__ == "__main__":
    main(*sys.argv[1:])
