"""What makes a step of a real model bearable on a CPU: prompts that are shared, and bf16.

    python benchmarks/cpu.py --model HuggingFaceTB/SmolLM2-135M-Instruct --data svamp

Seconds to sample and to update on 8 x 8 completions, with and without, and how far the trainer's
log-probabilities are from the sampler's: of those completions, and of random weights of Qwen2.5's
shapes in bf16. The learning rate is 0 and every advantage differs from 0.
"""

import sys
import time
from dataclasses import dataclass
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import gpu

import grpo
from data import load_problems
from rollout import load_policy, sample, token_logprobs
from support.flags import command_line
from support.selfcheck import set_bf16
from support.tables import markdown


@dataclass(frozen=True)
class CPUConfig:
    model: str = "HuggingFaceTB/SmolLM2-135M-Instruct"  # folder or hub name
    data: str = "svamp"  # a benchmark or a .jsonl file
    max_new_tokens: int = 40
    shapes: tuple[str, ...] = ("0.5B",)  # random weights whose log-probabilities are compared


def step(policy, tokenizer, problems, cfg: CPUConfig, share_prompts: bool) -> list[float]:
    """Seconds to sample and to update, mean and largest difference of a log-probability."""
    draw = torch.Generator().manual_seed(0)
    settings = grpo.GRPOConfig(micro_batch=8, share_prompts=share_prompts)
    optimizer = torch.optim.AdamW(policy.parameters(), lr=0.0, weight_decay=0.0)
    began = time.time()
    rollouts = sample(policy, tokenizer, problems, 8, cfg.max_new_tokens, generator=draw)
    sampled = time.time()
    adv = torch.randn(len(rollouts.mask), generator=draw)
    grpo.update(policy, optimizer, rollouts, adv, settings, generator=draw)
    updated = time.time()
    with torch.no_grad():
        logp, _ = token_logprobs(policy, rollouts, share_prompts=share_prompts)
    apart = (logp - rollouts.logp).abs()[rollouts.mask.bool()]
    return [sampled - began, updated - sampled, apart.mean().item(), apart.max().item()]


def main(cfg: CPUConfig) -> None:
    policy, tokenizer = load_policy(cfg.model)
    problems, rows = load_problems(cfg.data, limit=8), []
    step(policy, tokenizer, problems, cfg, share_prompts=False)  # warm-up, not measured
    for bf16 in (False, True):
        for share in (False, True):
            set_bf16(bf16)
            found = step(policy, tokenizer, problems, cfg, share)
            name = ("bf16" if bf16 else "fp32") + (", shared prompts" if share else "")
            rows.append([name, *(f"{x:.2g}" if x < 1 else f"{x:.0f}" for x in found)])
    print(markdown(["", "sample, s", "update, s", "mean difference", "max"], rows))
    del policy
    for shape in cfg.shapes:
        found = gpu.difference(gpu.model(shape), 16, 64)
        print(f"Qwen2.5-{shape}, random, bf16:", {k: round(v, 4) for k, v in found.items()})


if __name__ == "__main__":
    command_line(CPUConfig, main)
