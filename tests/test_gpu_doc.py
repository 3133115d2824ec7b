"""docs/gpu.md holds the tables of the committed measurements, and its numbers are theirs."""

import importlib.util
from pathlib import Path

from test_results import says

from support.jsonl import read_jsonl
from support.tables import renew

ROOT = Path(__file__).parents[1]
DOC = (ROOT / "docs" / "gpu.md").read_text(encoding="utf-8")
ROWS = read_jsonl(ROOT / "benchmarks" / "gpu_h200.jsonl")


def benchmark(name: str):
    spec = importlib.util.spec_from_file_location(name, ROOT / "benchmarks" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_tables_are_those_of_the_measurements():
    tables = benchmark("gpu").tables(ROWS) | {"gpu: memory": benchmark("memory").table()}
    assert renew(DOC, tables) == DOC and all(f"<!-- {name} -->" in DOC for name in tables)


def test_a_captured_step_is_short_and_far_from_the_limit():
    def of(what):
        return {(r["size"], r["rows"]): r for r in ROWS if r.get("what") == what}

    steps = [1000 * r["rows"] / r["tokens_per_second"] for r in of("captured").values()]
    assert says(DOC, f"Captured a step takes {min(steps):.0f} to {max(steps):.0f} ms")
    plain = [1000 * r["rows"] / r["tokens_per_second"] for r in of("plain").values()]
    assert 60 < min(plain) and max(plain) < 105
    limit = of("limit")
    over = [
        limit[k]["tokens_per_second"] / r["tokens_per_second"] for k, r in of("captured").items()
    ]
    assert says(DOC, f"a {min(over):.0f}th to a {max(over):.0f}th of the limit")
    theirs = [1000 * r["rows"] / r["tokens_per_second"] for r in of("generate").values()]
    assert says(DOC, f"takes {min(theirs):.0f} to {max(theirs):.0f} ms")


def test_greedy_completions_are_the_same():
    found = [row for row in ROWS if row.get("what") == "greedy tokens equal"]
    assert len(found) == 3 and all(row["captured"] == 1 for row in found)


def test_the_differences_are_those_measured():
    small, large = (r for r in ROWS if r.get("what") == "difference")
    assert says(DOC, f"{small['mean']:.3f} on average and {small['max']:.3f} at most")
    assert says(DOC, f"{large['mean']:.3f} and {large['max']:.3f} for 1.5B")
    assert says(DOC, f"up to {small['row_mean_max']} and {large['row_mean_max']}, which is more")


def test_what_checkpointing_costs():
    steps = {(r["size"], r["what"]): r for r in ROWS if r.get("rows") == 32 and "MFU" in r}
    for size in ("0.5B", "1.5B"):
        plain, again = steps[size, "all weights"], steps[size, "all weights, checkpointed"]
        assert round(again["seconds"] / plain["seconds"], 1) == 1.2
        assert again["GiB"] / plain["GiB"] < 0.34
        plain, again = steps[size, "LoRA"], steps[size, "LoRA, checkpointed"]
        assert 1.3 <= round(again["seconds"] / plain["seconds"], 1) <= 1.4
        assert 0.15 < again["GiB"] / plain["GiB"] < 0.25


def test_parameters_and_bytes_by_hand():
    memory = benchmark("memory")
    found = memory.gigabytes("Qwen2.5-0.5B", rank=16)
    # 151936 x 896 tied embeddings; 24 layers: q, o 896 x 896, k, v 896 x 128 with biases, mlp
    layer = 2 * 896 * 896 + 896 + 2 * (896 * 128 + 128) + 3 * 896 * 4864 + 2 * 896
    weights = 151936 * 896 + 24 * layer + 896
    assert found["weights"] == weights / 1e9 and found["Cooper"] == 36 * weights / 1e9
    # rank x (in + out) of q, o; k, v; gate, up, down
    lora = 16 * 24 * (2 * 2 * 896 + 2 * (896 + 128) + 3 * (896 + 4864))
    linear = 24 * (2 * 896 * 896 + 2 * 896 * 128 + 3 * 896 * 4864)
    wanted = 2 * linear + 4 * (weights - linear) + 16 * lora
    assert found["GRPO and KL, LoRA 16"] == wanted / 1e9


def test_a_real_model_in_bf16_is_as_far_off_as_measured():
    lines = (ROOT / "benchmarks" / "cpu.txt").read_text(encoding="utf-8").splitlines()
    mean, most = next(line for line in lines if line.startswith("| bf16 |")).split("|")[4:6]
    assert says(DOC, f"{float(mean):.3f} on average and {most.strip()} at most of 1,500 tokens")
    logs = read_jsonl(ROOT / "results" / "real" / "logs.jsonl")
    name = "sampling/sampling_logp_difference/max"
    worst = max(row[name] for row in logs if row["run"].startswith("rule"))
    assert says(DOC, f"{worst:.2f} at most in the runs of")
