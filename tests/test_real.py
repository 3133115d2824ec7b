"""experiments/real.py: what its cold start shows, that it goes on where it stopped, its tables."""

import json
import re
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from statistics import fmean

import pytest
from test_results import says

from data import load_problems
from experiments import real, real_report
from rules import rule_of
from support.errors import InputError
from support.jsonl import read_jsonl
from support.tables import renew


def test_a_cold_start_shows_forms_and_no_answer():
    problems = load_problems("arithmetic", "train", 200)
    rows = real.cold_start(problems)
    answers = {problem.question: problem.answer for problem in problems}
    solved = [row for row in rows if "prompt" not in row]
    says = rule_of("verifier")
    by_question = {problem.question: problem for problem in problems}
    right = sum(says(row["solution"], by_question[row["question"]]) for row in solved)
    assert 2 * len(solved) == len(rows) and right < 0.5 * len(solved)
    # what is drawn depends on the question alone
    blind = [type(p)(p.question, "0") for p in problems]
    assert real.cold_start(blind) == rows and len(answers) == 200
    for row in rows:
        if row.get("prompt", "").endswith("Yes or No."):
            one, other = row["solution"].removesuffix(".").split(".")[0].split(" and ")
            assert row["solution"].endswith("Yes." if one == other else "No.")


@pytest.fixture
def tried(untrained, tmp_path):
    """A run of the rule's arm on a policy that knows nothing, twice; and the second's settings."""
    data = tmp_path / "problems.jsonl"
    rows = [
        {"question": p.question, "answer": p.answer} for p in load_problems("arithmetic", limit=40)
    ]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    cfg = real.RealConfig(
        model=untrained, data=str(data), output=str(tmp_path / "real"), arms=("rule",), seeds=(1,),
        start_steps=2, steps=2, prompts=2, group_size=4, eval_problems=10, eval_samples=2,
    )  # fmt: skip
    real.main(cfg)
    return cfg


def test_a_second_call_does_nothing_and_a_further_seed_is_added(tried, monkeypatch):
    output = Path(tried.output)
    stages = read_jsonl(output / "stages.jsonl")
    names = [row["stage"] for row in stages]
    assert names == ["measure before", "start", "measure start", "rule1", "measure rule1"]
    monkeypatch.setattr("grpo.update", None)  # nothing is trained, nor sampled
    monkeypatch.setattr(real, "evaluate", None)
    real.main(tried)
    assert read_jsonl(output / "stages.jsonl") == stages
    kept = output / "results"
    measured = read_jsonl(kept / "measured.jsonl")
    assert [row["policy"] for row in real_report.in_order(measured)] == ["before", "start", "rule1"]
    assert all(len(row["completions"]) == 10 for row in measured)
    logs = read_jsonl(kept / "logs.jsonl")
    assert [(row["run"], row["step"]) for row in logs] == [
        ("rule1", 1), ("rule1", 2), ("start", 1), ("start", 2)
    ]  # fmt: skip
    table = real_report.seconds(logs, stages)
    assert "| rule1 | 2 steps of " in table and "measure start" in table


def test_each_arm_is_what_its_name_says(tried, monkeypatch):
    asked = []
    monkeypatch.setattr("cooper.main", asked.append)
    monkeypatch.setattr("reward_model.main", lambda cfg: None)
    for name in ("measure", "show_pairs"):
        monkeypatch.setattr(real, name, lambda *args, **kw: None)
    real.main(replace(tried, arms=("static", "cooper", "rollouts"), rm_lr=3e-5))
    assert [Path(cfg.output).name for cfg in asked] == ["static1", "cooper1", "rollouts1"]
    assert [cfg.rm_lr for cfg in asked] == [0.0, 3e-5, 3e-5]
    assert [cfg.negatives for cfg in asked] == ["assistant", "assistant", "rollouts"]
    with pytest.raises(InputError, match="no arm called 'frozen'"):
        real.main(replace(tried, arms=("frozen",)))


ROOT = Path(real.__file__).parents[1]
LOGS = ROOT / "results" / "real"
README = (LOGS / "README.md").read_text(encoding="utf-8")


def calculated(completions: list[dict]) -> tuple[int, int]:
    """(how many subtract, how many results are what their calculation gives)"""
    found = [re.match(r"(\S+) (\S) (\S+) = (\S+)\.", row["completion"]) for row in completions]
    results = [
        real.OPERATIONS[m[2]](Fraction(m[1]), Fraction(m[3])) == Fraction(m[4]) for m in found
    ]
    return sum(m[2] == "-" for m in found), sum(results)


def test_the_readme_of_the_real_run_says_what_its_logs_say():
    found = {row["policy"]: row for row in read_jsonl(LOGS / "measured.jsonl")}
    logs, start = read_jsonl(LOGS / "logs.jsonl"), found["start"]
    rules = [found["rule3"], found["rule4"]]
    for row in rules:
        assert row["accuracy"] > 1.9 * start["accuracy"]
        assert row["accuracy_low"] > start["accuracy_high"]
    assert says(README, "from {:.2f} to {:.2f} and {:.2f}".format(
        start["pass@8"], *(row["pass@8"] for row in rules)
    ))  # fmt: skip
    (few, right), (most, wrong), (nearly, wrong_too) = (
        calculated(row["completions"]) for row in (start, *rules)
    )
    assert (few, most, nearly) == (2, 10, 9) and says(README, "of the start two subtract")
    assert says(README, f"{10 - wrong} and {10 - wrong_too} of those ten results are wrong")
    assert 10 - right < min(10 - wrong, 10 - wrong_too)
    silent = [
        fmean(row["frac_reward_zero_std"] for row in logs if row["run"] == run)
        for run in ("rule3", "rule4")
    ]
    shares = f"in {100 * silent[0]:.0f} and {100 * silent[1]:.0f} % of the groups"
    assert says(README, shares)
    judge = json.loads((LOGS / "reward_model.json").read_text(encoding="utf-8"))
    agreed = 100 * judge["annotation_kept"]
    assert says(README, f"they agree on {agreed:.0f} % of 1600 completions")
    first = (ROOT / "README.md").read_text(encoding="utf-8")
    before, *after = (f"{row['accuracy']:.2f}" for row in (start, *rules))
    assert says(first, f"({before} right)") and says(first, f"bring {after[0]} and {after[1]}")
    assert judge["held_out/swap_accuracy"] == 1.0
    assert round(judge["held_out/accuracy"], 3) == 0.988 and says(README, "right on 0.988")
    made = {
        "real: accuracy": real_report.accuracy(list(found.values())),
        "real: seconds": real_report.seconds(logs, read_jsonl(LOGS / "stages.jsonl")),
        "real: completions": real_report.completions(list(found.values())),
    }
    assert renew(README, made) == README


def steps(run: str) -> list[dict]:
    return [row for row in read_jsonl(LOGS / "logs.jsonl") if row["run"] == run]


def mean(rows: list[dict], name: str) -> float:
    return fmean(row.get(name, 0.0) for row in rows)


def test_what_is_said_of_the_reward_models_on_a_real_llm_is_in_the_logs():
    found = {row["policy"]: row for row in read_jsonl(LOGS / "measured.jsonl")}
    static, both = steps("static3"), steps("cooper3")
    assert (len(static), len(both), len(steps("rollouts3"))) == (40, 60, 40)
    assert min(row["rm/agreement"] for row in static if row["step"] <= 34) >= 0.965
    paid = {run: [r["step"] for r in rows if r["reward"] > r["accuracy"] + 0.2]
            for run, rows in (("static3", static), ("cooper3", both))}  # fmt: skip
    assert paid["static3"] == [38, 39, 40] and paid["cooper3"][0] == 32
    assert says(README, "from step 38 of 40 on") and says(README, "from step 32 of 60 on")
    end = found["static3"]
    assert says(
        README, f"{end['boxed']:.2f} have a box at the end, {end['accuracy']:.2f} are right"
    )
    last = both[-10:]
    assert says(
        README, f"{mean(last, 'reward'):.2f} is paid and {mean(last, 'accuracy'):.2f} is right"
    )
    none = sum(row["rm/valid_rate"] == 0 for row in both)
    assert says(README, f"{mean(both[-30:], 'rm/valid_rate'):.2f} of the pairs can be made")
    assert says(README, f"in {none} of the 60 steps none")
    assert {row["rm/pair_accuracy"] for row in both if "rm/pair_accuracy" in row} == {1.0}
    agreed = {row["step"]: row["rm/agreement"] for row in steps("rollouts3")}
    assert says(README, f"on as few as {min(agreed[step] for step in range(20, 26)):.2f}")
    assert min(agreed[step] for step in range(28, 40)) >= 0.98
    other = found["rollouts3"]
    assert says(README, f"At step 40 it is {agreed[40]:.2f}, the policy")
    assert says(README, f"{other['accuracy']:.2f} are right and {other['boxed']:.2f} boxed")
    pairs = json.loads((LOGS / "pairs.json").read_text(encoding="utf-8"))
    assert [pair["step"] for pair in pairs].count("first") == 3
    late = [pair for pair in pairs if pair["step"] == "last"]
    assert all("\v" in pair["right"] and "\v" not in pair["wrong"] for pair in late) and late
    assert renew(README, {"real: pairs": real_report.pairs(pairs)}) == README
