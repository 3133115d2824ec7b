r"""Measure the rule verifier, and math-verify beside it, on files of labelled cases.

    python benchmarks/verifier.py ../shared/data/verifier_*.jsonl [--show] [--no-math-verify]

Every line of a JSONL file is recognised by its keys:

    suite, gold, pred, expected         a case of a public test suite (`core`, `not_core`, `kind`)
    cat, gold, pred, expected           a hostile input; `either`: only survival counts; `policy`:
                                        debatable; long ones are `pred_parts`, `gold_parts`
    rm_score, gold, pred, expected      a labelled response of a model
    question, answer                    a benchmark: its reference must equal itself in a box

Ours is called as `verify(pred, gold)`, from the main thread and again from a worker thread.
math-verify (if it can be imported) gets its best conditions: a bare reference is wrapped in a box,
its own alarms are on, and it runs in the main thread, where alarms work. In suites that consist of
bare pairs of answers the prediction is wrapped in a box for both.
"""

import argparse
import json
import os
import statistics
import sys
import threading
import time
from collections import defaultdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import verifier

BARE_PAIRS = {
    "HardVerify-Math",
    "NeMo-Skills",
    "OlympiadBench",
    "hendrycks/math",
    "latex2sympy2_extended",
}
OWN_SUITES = {"Math-Verify", "lighteval"}  # math-verify's own regression tests
INDEPENDENT = {
    "NeMo-Skills",
    "OlympiadBench",
    "hendrycks/math",
    "rasbt",
    "tinker-cookbook",
    "slime",
    "slime-dapo",
}


def text_of(row: dict, key: str) -> str:
    if key + "_parts" in row:
        return "".join(part * count for part, count in row[key + "_parts"])
    return row[key] if isinstance(row[key], str) else ""


def load(path: Path) -> list[dict]:
    """Cases as dicts: file, group(s), pred, gold, expected, strict."""
    cases = []
    for line in path.open(encoding="utf-8"):
        row = json.loads(line)
        if "gold" not in row and "gold_parts" not in row:
            gold = str(row["answer"])
            case = {
                "groups": [path.stem],
                "gold": gold,
                "pred": f"So it is \\boxed{{{gold}}}.",
                "expected": True,
            }
        else:
            case = {
                "gold": text_of(row, "gold"),
                "pred": text_of(row, "pred"),
                "expected": bool(row["expected"]),
            }
            if "suite" in row:
                if row["suite"] in BARE_PAIRS and "boxed" not in case["pred"]:
                    case["pred"] = f"\\boxed{{{case['pred']}}}"
                groups = ["core" if row["core"] else "not core: " + str(row.get("not_core"))]
                groups += (
                    ["core, independent"] if row["core"] and row["suite"] in INDEPENDENT else []
                )
                groups += ["core, " + kind for kind in row["kind"]] if row["core"] else []
                case["groups"] = groups + ["suite " + row["suite"]]
            elif "cat" in row:
                kind = (
                    "either" if row.get("either") else "policy" if row.get("policy") else "strict"
                )
                case["groups"] = [f"{row['cat']}, {kind}"] + [f"all {kind}"]
                case["either"] = bool(row.get("either"))
            else:
                case["groups"] = ["labelled responses"]
        cases.append({"either": False, **case})
    return cases


def unique(cases: list[dict]) -> list[dict]:
    return list({(c["pred"], c["gold"], c["expected"]): c for c in cases}.values())


def run(check, cases: list[dict]) -> list[tuple[bool, float]]:
    results = []
    for case in cases:
        start = time.perf_counter()
        verdict = check(case["pred"], case["gold"])
        results.append((verdict, time.perf_counter() - start))
    return results


def in_thread(check, cases):
    box = []
    thread = threading.Thread(target=lambda: box.append(run(check, cases)))
    thread.start()
    thread.join()
    return box[0]


def math_verify_check():
    try:
        import logging

        import math_verify
    except ImportError:
        return None
    logging.disable(logging.CRITICAL)

    def check(pred: str, gold: str) -> bool:
        if not any(mark in gold for mark in ("boxed", "$", r"\(", r"\[")):
            gold = f"\\boxed{{{gold}}}"
        try:
            return bool(math_verify.verify(math_verify.parse(gold), math_verify.parse(pred)))
        except Exception:
            return False

    return check


def summary(cases, results) -> str:
    strict = [(c, v) for c, (v, _) in zip(cases, results, strict=True) if not c["either"]]
    false_positive = sum(v and not c["expected"] for c, v in strict)
    false_negative = sum(c["expected"] and not v for c, v in strict)
    right = len(strict) - false_positive - false_negative
    times = sorted(1000 * t for _, t in results)
    rate = f"{100 * right / len(strict):6.1f}%" if strict else "     - "
    p95 = times[int(0.95 * (len(times) - 1))]
    return (
        f"{rate} {false_positive:4d} {false_negative:4d} "
        f"{statistics.median(times):8.3f} {p95:8.2f} {times[-1]:8.1f}"
    )


def report(name: str, cases: list[dict], systems: dict, show: bool) -> None:
    groups = defaultdict(list)
    for index, case in enumerate(cases):
        for group in ["all", *case["groups"]]:
            groups[group].append(index)
    print(f"\n{name}: {len(cases)} unique cases")
    columns = "  agree   FP   FN   median      p95      max"
    print(
        f"{'(times in ms)':36s} {'n':>5s}"
        + "".join(f" |{s:>8s}{columns}"[: len(columns) + 10] for s in systems)
    )
    for group in sorted(groups, key=lambda g: (g != "all", g)):
        rows = groups[group]
        picked = [cases[i] for i in rows]
        print(f"{group[:36]:36s} {len(rows):5d}", end="")
        for results in systems.values():
            print(f" |         {summary(picked, [results[i] for i in rows])}", end="")
        print()
    if show:
        for system, results in systems.items():
            for case, (verdict, seconds) in zip(cases, results, strict=True):
                if verdict != case["expected"] and not case["either"] or seconds > 0.5:
                    kind = "FP" if verdict else "FN"
                    pred = case["pred"] if len(case["pred"]) < 160 else "..." + case["pred"][-160:]
                    gold, group = ascii(case["gold"])[:120], case["groups"][0][:30]
                    print(f"  {system} {kind} {group} | {gold} | {ascii(pred)} | {seconds:.3f} s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--show", action="store_true", help="list every disagreement")
    parser.add_argument("--no-math-verify", action="store_true", help="measure ours only")
    args = parser.parse_args()
    other = None if args.no_math_verify else math_verify_check()
    for path in args.files:
        cases = unique(load(path))
        verifier.verify(r"\boxed{\sqrt{2}}", "1")  # imports are not part of the first case
        systems = {"ours": run(verifier.verify, cases), "thread": in_thread(verifier.verify, cases)}
        differing = [c for c, a, b in zip(cases, *systems.values(), strict=True) if a[0] != b[0]]
        print(f"{len(differing)} verdicts differ between main and worker thread", *differing[:3])
        worst = max(seconds for _, seconds in systems.pop("thread"))
        if other:
            systems["m-verify"] = run(other, cases)
        report(path.name, cases, systems, args.show)
        print(f"worst case in a worker thread: {1000 * worst:.1f} ms")


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
