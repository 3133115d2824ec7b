"""What one GPU gives: sampling by several ways, and the training step, on models of real shape.

    python benchmarks/gpu.py --output runs/gpu.jsonl

Weights are random: nothing is loaded, and no row ends before its limit. A line a measurement, and
the tables of docs/gpu.md at the end. About three minutes on an H200.
"""

import contextlib
import itertools
import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import decoding
import rollout
from support import memory
from support.errors import InputError
from support.flags import command_line
from support.jsonl import read_jsonl
from support.models import device
from support.selfcheck import autocast
from support.tables import markdown

# Qwen2.5-0.5B and -1.5B
SHAPES = {
    "0.5B": dict(
        hidden_size=896, intermediate_size=4864, num_hidden_layers=24, num_attention_heads=14
    ),
    "1.5B": dict(
        hidden_size=1536, intermediate_size=8960, num_hidden_layers=28, num_attention_heads=12
    ),
}
PROMPT, LENGTH, GROUP = 128, 256, 16
PEAK = 989e12  # dense bf16 FLOP/s of an H100 or H200, by their datasheet


@dataclass(frozen=True)
class GPUConfig:
    output: str = "runs/gpu.jsonl"
    sizes: tuple[str, ...] = tuple(SHAPES)
    rows: tuple[int, ...] = (64, 256, 512)  # sampled at a time
    models: tuple[str, ...] = ()  # folders whose sampler and trainer are compared as well


def model(size: str, dtype=torch.float32):
    shape = Qwen2Config(
        vocab_size=151936, num_key_value_heads=2, tie_word_embeddings=True, rope_theta=1e6,
        max_position_embeddings=32768, **SHAPES[size],
    )  # fmt: skip
    torch.manual_seed(0)
    with torch.device(device()):
        return Qwen2ForCausalLM(shape).to(dtype).eval()


def timed(run) -> tuple[float, float]:
    """Seconds, and GiB at most."""
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    began = time.time()
    run()
    torch.cuda.synchronize()
    return time.time() - began, torch.cuda.max_memory_allocated() / 2**30


def prompts(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(ids, mask) [count, PROMPT], every other one padded on the left."""
    ids = torch.randint(0, 40_000, (count, PROMPT), device=device())
    mask = torch.ones_like(ids)
    mask[::2, : PROMPT // 3] = 0
    return ids, mask


@torch.no_grad()
def sampled(policy, asked, length: int) -> tuple:
    """What decoding.decode_loop returns for prompts (ids, mask); no row ends."""
    generator = torch.Generator(device()).manual_seed(0)
    never = torch.tensor([], dtype=torch.long, device=device())

    def choose(logits, race=None):
        return decoding.draw_token(logits, 1.0, 1.0, generator, race)

    with autocast():
        return decoding.decode_loop(
            policy, *asked, GROUP, length, never, 0, choose, generator
        )  # fmt: skip


def ours(policy, rows: int, length: int, captured: bool) -> dict:
    policy.cuda_graphs = captured
    sampled(policy, prompts(rows // GROUP), 4)
    seconds, peak = timed(lambda: sampled(policy, prompts(rows // GROUP), length))
    return {"seconds": seconds, "tokens_per_second": rows * length / seconds, "GiB": peak}


def rollouts(ids, mask, completion, logp=None) -> rollout.Rollouts:
    return rollout.Rollouts(
        prompt_ids=ids, prompt_mask=mask, completion_ids=completion,
        mask=torch.ones_like(completion, dtype=torch.float), logp=logp, truncated=None, texts=[],
        problems=[], group_size=GROUP,
    )  # fmt: skip


@torch.no_grad()
def difference(policy, rows: int = 256, length: int = LENGTH) -> dict:
    """How far the trainer's log-probabilities are from the sampler's, under bf16; of a row's mean,
    which GSPO's weight is the exponential of, too."""
    policy.cuda_graphs = True
    ids, mask = prompts(rows // GROUP)
    completion, logp, *_ = sampled(policy, (ids, mask), length)
    ids, mask = (x.repeat_interleave(GROUP, 0) for x in (ids, mask))
    part, gaps = rollouts(ids, mask, completion, logp), []
    for at in torch.arange(rows, device=device()).split(32):
        one = rollouts(*(x[at] for x in (ids, mask, completion, logp)))
        gaps.append(rollout.token_logprobs(policy, one, entropy_grad=False)[0] - one.logp)
    gap = torch.cat(gaps)
    return {
        "tokens": gap.numel(), "mean": gap.abs().mean().item(), "max": gap.abs().max().item(),
        "row_mean_max": gap.mean(1).abs().max().item(),
        "logp_mean": part.logp.mean().item(),
    }  # fmt: skip


@torch.no_grad()
def equal_greedy(policy, rows: int = 64, length: int = 64) -> float:
    """Share of the tokens that are the same with and without a captured step, at temperature 0."""
    asked, never = prompts(rows // GROUP), torch.tensor([], dtype=torch.long, device=device())

    def written(captured: bool) -> torch.Tensor:
        policy.cuda_graphs = captured
        with autocast():
            return decoding.decode_loop(
                policy, *asked, GROUP, length, never, 0,
                lambda logits, race=None: decoding.draw_token(logits, temperature=0),
            )[0]  # fmt: skip

    return (written(True) == written(False)).float().mean().item()


def theirs(policy, rows: int, length: int, **how) -> dict:
    """Hugging Face's generate, on weights in bf16."""
    ids, mask = prompts(rows)

    def run():
        policy.generate(
            input_ids=ids, attention_mask=mask, do_sample=True, top_k=0, max_new_tokens=length,
            min_new_tokens=length, pad_token_id=0, **how,
        )  # fmt: skip

    run()
    seconds, memory = timed(run)
    return {"seconds": seconds, "tokens_per_second": rows * length / seconds, "GiB": memory}


def limit(policy, rows: int) -> float:
    """Tokens a second if reading weights and cache, once a step, were all there is to do."""
    shape = policy.config
    heads = shape.num_key_value_heads * (shape.hidden_size // shape.num_attention_heads)
    cache = rows * (PROMPT + LENGTH / 2) * 2 * shape.num_hidden_layers * heads * 2
    weights = 2 * sum(p.numel() for p in policy.parameters())
    return rows * bandwidth() / (weights + cache)


def bandwidth() -> float:
    """Bytes a second that a copy reads and writes."""
    x = torch.empty(2**30, dtype=torch.uint8, device="cuda")
    y = torch.empty_like(x)
    y.copy_(x)
    return 20 * 2 * x.numel() / timed(lambda: [y.copy_(x) for _ in range(20)])[0]


def training_step(policy, rows: int, length: int, checkpointed: bool) -> dict:
    weights = memory.trainable(policy)
    optimizer = torch.optim.AdamW(weights, lr=1e-6)
    ids = torch.randint(0, 150_000, (rows, PROMPT + length), device="cuda")
    mask = torch.ones_like(ids)
    part = rollouts(ids[:, :PROMPT], mask[:, :PROMPT], ids[:, PROMPT:])

    def run():
        with memory.recomputing(policy) if checkpointed else contextlib.nullcontext():
            logp, _ = rollout.token_logprobs(policy, part, entropy_grad=False)
        (-logp.mean()).backward()
        optimizer.step()
        optimizer.zero_grad()

    run()
    seconds, peak = timed(lambda: [run() for _ in range(3)])
    trained = sum(p.numel() for p in weights)
    flops = (4 * sum(p.numel() for p in policy.parameters()) + 2 * trained) * ids.numel()
    return {
        "seconds": seconds / 3, "tokens_per_second": ids.numel() * 3 / seconds,
        "MFU": flops * 3 / seconds / PEAK, "GiB": peak,
    }  # fmt: skip


WAYS = ("plain", "captured", "generate", "generate, static cache", "limit")


def tables(rows: list[dict]) -> dict[str, str]:
    """{name: Markdown} of the rows that `main` has written."""
    speed, steps = {}, []
    for row in rows:
        if row.get("what") in WAYS:
            speed.setdefault((row["size"], row["rows"]), {})[row["what"]] = row
        elif "MFU" in row:
            numbers = "{seconds:.2f}", "{MFU:.0%}", "{GiB:.0f}"
            steps.append(
                [row["size"], row["rows"], row["what"], *(n.format(**row) for n in numbers)]
            )
    speeds = [
        [*key, *(f"{of[w]['tokens_per_second']:,.0f}" if w in of else "" for w in WAYS)]
        for key, of in speed.items()
    ]
    return {
        "gpu: sampling": markdown(["", "rows", *WAYS], speeds),
        "gpu: training": markdown(["", "rows", "", "seconds", "MFU", "GiB"], steps),
    }


def main(cfg: GPUConfig) -> None:
    if not torch.cuda.is_available():
        raise InputError("no GPU: there is nothing to measure")
    Path(cfg.output).parent.mkdir(parents=True, exist_ok=True)
    with open(cfg.output, "a", encoding="utf-8") as file:

        def log(**row):
            row = {k: round(v, 4) if isinstance(v, float) else v for k, v in row.items()}
            print(json.dumps(row), flush=True)
            file.write(json.dumps(row) + "\n")
            file.flush()

        log(gpu=torch.cuda.get_device_name(), torch=torch.__version__, bandwidth=bandwidth())
        for size in cfg.sizes:
            policy = model(size)
            for rows in cfg.rows:
                log(what="limit", size=size, rows=rows, tokens_per_second=limit(policy, rows))
                for captured, length in ((False, 48), (True, LENGTH)):
                    found = ours(policy, rows, length, captured)
                    log(what="captured" if captured else "plain", size=size, rows=rows, **found)
            log(what="difference", size=size, **difference(policy))
            log(what="greedy tokens equal", size=size, captured=equal_greedy(policy))
            memory.set_checkpointing(policy)
            for trained in ("all weights", "LoRA"):
                if trained == "LoRA":
                    memory.add_lora(policy, 16)
                for again, rows in itertools.product((False, True), (8, 32)):
                    what = trained + (", checkpointed" if again else "")
                    log(what=what, size=size, rows=rows, **training_step(policy, rows, 512, again))
            del policy
            half = model(size, torch.bfloat16)
            for rows in cfg.rows:
                log(what="generate", size=size, rows=rows, **theirs(half, rows, 48))
            found = theirs(half, cfg.rows[0], LENGTH, cache_implementation="static")
            log(what="generate, static cache", size=size, rows=cfg.rows[0], **found)
            del half
            torch.cuda.empty_cache()
        for name in cfg.models:
            log(what="difference", size=Path(name).name, **difference(rollout.load_policy(name)[0]))
    for name, table in tables(read_jsonl(Path(cfg.output))).items():
        print(f"\n{name}\n{table}")


if __name__ == "__main__":
    command_line(GPUConfig, main)
