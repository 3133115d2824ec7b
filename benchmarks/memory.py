"""What a run needs in memory, by arithmetic; and whether a step on a CPU keeps to it.

    python benchmarks/memory.py                  # the table of docs/gpu.md
    python benchmarks/memory.py --check Qwen2.5-0.5B    # two updates of random weights on a CPU

Bytes a weight: trained by AdamW in fp32 16 (weight, gradient, two moments, 4 each), frozen 4. With
LoRA on a GPU the frozen linear layers are in bf16, 2. Activations come on top: docs/gpu.md.
"""

import json
import resource
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import Qwen2Config, Qwen2ForCausalLM, Qwen3Config, Qwen3ForCausalLM

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import grpo
from rollout import Rollouts
from support import memory
from support.flags import command_line
from support.tables import markdown

COMMON = {"vocab_size": 151936, "tie_word_embeddings": True}
SHAPES = {
    "Qwen2.5-0.5B": Qwen2Config(
        hidden_size=896, intermediate_size=4864, num_hidden_layers=24, num_attention_heads=14,
        num_key_value_heads=2, **COMMON,
    ),
    "Qwen3-0.6B": Qwen3Config(
        hidden_size=1024, intermediate_size=3072, num_hidden_layers=28, num_attention_heads=16,
        num_key_value_heads=8, head_dim=128, **COMMON,
    ),
    "Qwen2.5-1.5B": Qwen2Config(
        hidden_size=1536, intermediate_size=8960, num_hidden_layers=28, num_attention_heads=12,
        num_key_value_heads=2, **COMMON,
    ),
}  # fmt: skip


@dataclass(frozen=True)
class MemoryConfig:
    check: str | None = None  # a shape to train on this CPU: 16 bytes a weight have to be free
    tokens: int | None = None  # of a completion: measure this one and print it
    rank: int = 16  # of LoRA


def empty(name: str):
    with torch.device("meta"):
        config = SHAPES[name]
        return (Qwen3ForCausalLM if config.model_type == "qwen3" else Qwen2ForCausalLM)(config)


def gigabytes(name: str, rank: int) -> dict[str, float]:
    """{setting: GB of weights, gradients and moments}"""
    model = empty(name)
    weights = sum(p.numel() for p in model.parameters())
    linear = [m for n, m in model.named_modules() if isinstance(m, torch.nn.Linear)]
    linear = [m for m in linear if m is not model.lm_head]
    frozen = sum(m.weight.numel() for m in linear)
    lora = sum(rank * (m.in_features + m.out_features) for m in linear)
    with_lora = 2 * frozen + 4 * (weights - frozen) + 16 * lora
    return {
        "weights": weights / 1e9,
        "GRPO": 16 * weights / 1e9,
        "and KL": 20 * weights / 1e9,
        "Cooper": 36 * weights / 1e9,
        f"GRPO and KL, LoRA {rank}": with_lora / 1e9,
    }


def table(rank: int = 16) -> str:
    rows = {name: gigabytes(name, rank) for name in SHAPES}
    columns = list(next(iter(rows.values())))
    cells = [[name, *(f"{row[c]:.1f}" for c in columns)] for name, row in rows.items()]
    return markdown(["", "10^9 weights", *(f"{c}, GB" for c in columns[1:])], cells)


def measure(cfg: MemoryConfig) -> dict:
    """The most that a process needs for two updates of 4 rows, their weights included."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    policy = empty(cfg.check).to_empty(device="cpu").eval()
    policy.tie_weights()
    for p in policy.parameters():
        p.data.normal_(0, 0.02)
    ids = torch.randint(0, 1000, (4, 16 + cfg.tokens))
    ones = torch.ones_like(ids)
    rollouts = Rollouts(
        prompt_ids=ids[:, :16], prompt_mask=ones[:, :16], completion_ids=ids[:, 16:],
        mask=ones[:, 16:].float(), logp=torch.full((4, cfg.tokens), -12.0),
        truncated=torch.zeros(4, dtype=torch.bool),
        texts=[""] * 4, problems=[None] * 4, group_size=4,
    )  # fmt: skip
    optimizer = torch.optim.AdamW(memory.trainable(policy), lr=1e-9)
    for _ in range(2):
        grpo.update(policy, optimizer, rollouts, torch.ones(4), grpo.GRPOConfig(minibatches=1))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    weights = sum(p.numel() for p in policy.parameters())
    return {"weights": weights, "tokens": ids.numel(), "GB": (peak - before) * 1024 / 1e9}


def main(cfg: MemoryConfig) -> None:
    if cfg.tokens:
        print(json.dumps(measure(cfg)))
        return
    print(table(cfg.rank))
    if cfg.check:
        found = []
        for tokens in (16, 272):
            command = [sys.executable, __file__, "--check", cfg.check, "--tokens", str(tokens)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            found.append(json.loads(done.stdout.splitlines()[-1]))
        short, long = found
        grown = (long["GB"] - short["GB"]) / (long["tokens"] - short["tokens"])
        print(
            f"{short['GB'] / short['weights'] * 1e9:.1f} bytes a weight at {short['tokens']} tokens"
        )
        more = f"{grown * 1e6:.0f} kB more for each further token"
        print(f"{more}; its logits alone are {151936 * 4 / 1e3:.0f} kB")


if __name__ == "__main__":
    command_line(MemoryConfig, main)
