"""How a step grows: seconds and memory as prompts, group, length and model double.

    python benchmarks/growth.py --output benchmarks/growth.jsonl

One step is sampling and one update of random weights (Qwen2 of 1.2 M parameters) whose rows never
end, so that each size is what it says. Each measurement is a process of its own, one thread, since
the peak of its memory is measured; what the process has before the step is taken off. A line a
measurement, the best of `repeats` steps, and a figure beside the file.
"""

import json
import resource
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import decoding
import grpo
from rollout import Rollouts
from support import plots
from support.errors import InputError
from support.flags import command_line
from support.jsonl import read_jsonl

FACTORS = (1, 2, 4, 8)
LINES = (
    ("sample", "seconds to sample", "tab:blue"),
    ("update", "seconds to update", "tab:red"),
    ("MB", "memory", "0.5"),
)
PROMPT = 32


@dataclass(frozen=True)
class Size:
    prompts: int = 8
    group_size: int = 4
    tokens: int = 32
    layers: int = 4


@dataclass(frozen=True)
class GrowthConfig:
    output: str = "benchmarks/growth.jsonl"
    repeats: int = 3
    one: str | None = None  # a Size as JSON: measure it and print the result
    micro_batch: int | None = None  # of this one, rows a forward pass; None takes all


def step(policy, optimizer, size: Size, cfg: GrowthConfig) -> dict[str, float]:
    """Seconds of sampling and update."""
    N, G = size.prompts, size.group_size
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, 200, (N, PROMPT), generator=generator)
    ones, never = torch.ones_like(ids), torch.tensor([], dtype=torch.long)

    def choose(logits, race=None):
        return decoding.draw_token(logits, 1.0, 1.0, generator, race)

    began = time.perf_counter()
    with torch.no_grad():
        completion, logp, entropy, *_ = decoding.decode_loop(
            policy, ids, ones, G, size.tokens, never, 0, choose, generator
        )
    sampled = time.perf_counter()
    rollouts = Rollouts(
        prompt_ids=ids.repeat_interleave(G, 0), prompt_mask=ones.repeat_interleave(G, 0),
        completion_ids=completion, mask=torch.ones_like(logp), logp=logp, entropy=entropy,
        truncated=torch.ones(N * G, dtype=torch.bool), texts=[""] * (N * G),
        problems=[None] * (N * G), group_size=G,
    )  # fmt: skip
    adv = torch.randn(N * G, generator=generator)
    settings = grpo.GRPOConfig(minibatches=1, micro_batch=cfg.micro_batch)
    grpo.update(policy, optimizer, rollouts, adv, settings, generator=generator)
    return {"sample": sampled - began, "update": time.perf_counter() - sampled}


def megabytes() -> float:
    """The most memory that this process ever had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(size: Size, cfg: GrowthConfig) -> dict:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    policy = Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=2048, hidden_size=128, intermediate_size=512, num_attention_heads=4,
            num_hidden_layers=size.layers, num_key_value_heads=2, tie_word_embeddings=True,
        )
    ).eval()  # fmt: skip
    optimizer = torch.optim.AdamW(policy.parameters(), lr=1e-6)
    step(policy, optimizer, Size(prompts=1, group_size=2, tokens=2, layers=size.layers), cfg)
    before = megabytes()
    steps = [step(policy, optimizer, size, cfg) for _ in range(cfg.repeats)]
    best = {name: round(min(s[name] for s in steps), 4) for name in ("sample", "update")}
    parameters = sum(p.numel() for p in policy.parameters())
    best |= {"micro_batch": cfg.micro_batch}
    return asdict(size) | best | {"MB": round(megabytes() - before, 1), "parameters": parameters}


def figure(rows: list[dict], path: Path) -> None:
    """One panel a quantity; a straight line of slope 1 is linear."""
    base, plt = asdict(Size()), plots.pyplot()
    rows = [row for row in rows if row["micro_batch"] is None]
    fig, axes = plt.subplots(1, 4, figsize=(13, 3.6), sharey=True)
    for axis, name in zip(axes, base):
        line = sorted(
            (r for r in rows if all(r[k] == v for k, v in base.items() if k != name)),
            key=lambda r: r[name],
        )
        x = [r[name] for r in line]
        for what, label, color in LINES:
            axis.plot(x, [r[what] / line[0][what] for r in line], "o-", color=color, label=label)
        axis.plot(x, FACTORS, ":", color="black", label="linear")
        axis.set_xscale("log", base=2)
        axis.set_yscale("log", base=2)
        axis.set_xticks(x, [str(value) for value in x])
        axis.set_yticks(FACTORS, [str(factor) for factor in FACTORS])
        axis.set_xlabel(name.replace("_", " "))
    axes[0].set_ylabel("times the first")
    axes[0].legend()
    plots.finish(fig, axes, path, "python benchmarks/growth.py: one step, its parts and its memory")


def main(cfg: GrowthConfig) -> None:
    if cfg.one:
        print(json.dumps(measure(Size(**json.loads(cfg.one)), cfg)))
        return
    if not all("micro_batch" in row for row in read_jsonl(Path(cfg.output))):
        raise InputError(f"{cfg.output} is no measurement of this file: name another --output")
    sizes = [Size()]
    for name, value in asdict(Size()).items():
        sizes += [replace(Size(), **{name: value * factor}) for factor in FACTORS[1:]]
    work = [(size, None) for size in sizes]
    work += [(replace(Size(), prompts=n), 32) for n in (8, 64)]  # the most rows, 32 at a time
    rows = []
    for size, micro_batch in work:
        command = [sys.executable, __file__, "--one", json.dumps(asdict(size))]
        command += ["--repeats", str(cfg.repeats), "--micro_batch", str(micro_batch)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        rows.append(json.loads(done.stdout.splitlines()[-1]))
        print(done.stdout, end="", flush=True)
    path = Path(cfg.output)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    figure(read_jsonl(path), path.with_suffix(".png"))


if __name__ == "__main__":
    command_line(GrowthConfig, main)
