"""pass@k against enumeration, the interval against simulation, evaluate on a scripted policy."""

import itertools
import json
import math
from pathlib import Path

import pytest
import torch

import eval as evaluation
import run
from data import InputError, Problem
from eval import interval, pass_at_k


@pytest.mark.parametrize("n, c", [(1, 0), (1, 1), (4, 1), (5, 2), (6, 6), (6, 0)])
def test_pass_at_k_is_the_share_of_subsets_with_a_correct_one(n, c):
    for k in range(1, n + 1):
        subsets = list(itertools.combinations([True] * c + [False] * (n - c), k))
        assert pass_at_k(n, c, k) == pytest.approx(sum(map(any, subsets)) / len(subsets))


@pytest.mark.parametrize("n, c, k", [(4, 5, 1), (4, -1, 1), (4, 1, 5), (4, 1, 0)])
def test_pass_at_k_refuses_what_makes_no_sense(n, c, k):
    with pytest.raises(ValueError):
        pass_at_k(n, c, k)


def test_interval_of_single_samples_is_wilsons():
    # Wilson (1927), z = 1.96: 1 of 10 -> 0.0179 .. 0.4042; 0 of 10 -> 0 .. 0.2775
    assert interval([1.0] + [0.0] * 9) == pytest.approx((0.0179, 0.4042), abs=1e-4)
    assert interval([0.0] * 10) == pytest.approx((0.0, 0.2775), abs=1e-4)


def test_interval_covers_95_percent_where_samples_of_a_problem_hang_together():
    generator = torch.Generator().manual_seed(0)
    trials, problems, samples = 1000, 60, 8
    ability = torch.rand(trials, problems, generator=generator)  # uniform: true accuracy 1/2
    draws = torch.rand(trials, problems, samples, generator=generator) < ability[:, :, None]
    covered = 0
    for shares in draws.double().mean(2).tolist():
        low, high = interval(shares)
        covered += low <= 0.5 <= high
    assert 0.93 <= covered / trials <= 0.975


def test_evaluate_counts_by_the_rule(policy, tokenizer, make_rollouts, monkeypatch):
    problems = [Problem("1 + 1 = ?", "2"), Problem("2 + 2 = ?", "4")]
    texts = [
        "I guess \\boxed{2}",
        "I guess 2",
        "python x = 2 print \\boxed{4}",
        "I guess \\boxed{5}",
    ]
    monkeypatch.setattr(evaluation, "sample", lambda *a, **k: make_rollouts(texts, problems, 2))
    keep = []
    result = evaluation.evaluate(policy, tokenizer, problems, samples=2, keep=keep)
    assert result["accuracy"] == 0.5 and result["pass@1"] == 0.5 and result["pass@2"] == 1.0
    assert (result["boxed"], result["code"], result["truncated"]) == (0.75, 0.25, 0.0)
    assert [row["correct"] for row in keep] == [True, False, True, False], "no box is no answer"
    assert result["accuracy_low"] < 0.5 < result["accuracy_high"]


def test_evaluate_does_not_depend_on_who_else_draws(policy, tokenizer):
    problems = [Problem("1 + 1 = ?", "2")] * 3
    first = evaluation.evaluate(policy, tokenizer, problems, samples=4)
    torch.manual_seed(123)
    assert evaluation.evaluate(policy, tokenizer, problems, samples=4) == first


def test_command_writes_every_completion(untrained, tmp_path, capsys):
    output = tmp_path / "samples.jsonl"
    evaluation.main(evaluation.EvalConfig(untrained, limit=3, samples=2, output=str(output)))
    rows = [json.loads(line) for line in output.read_text().splitlines()]
    assert len(rows) == 6 and set(rows[0]) == {"question", "reference", "completion", "correct"}
    assert "3 problems x 2 samples" in capsys.readouterr().out


# --------------------------------------------------------------------------------------------------
# Strategy switches

# Spurious Rewards, figure 7, ground truth: n, correct before and after; C_d 9.7, 22.2, 25, 43 %
FIGURE_7 = {
    "code->code": (165, 105, 119),
    "code->lang": (160, 93, 125),
    "lang->code": (72, 20, 56),
    "lang->lang": (103, 29, 91),
}


def completions(which: int) -> list[dict]:
    rows = []
    for switch, (n, *correct) in FIGURE_7.items():
        text = {"code": "```Python\nprint(1)", "lang": "we add"}[switch.split("->")[which]]
        for i in range(n):
            right = i < correct[which]
            rows.append({"question": f"{switch} {i}", "completion": text, "correct": right})
    return rows


def test_strategy_switch_gives_the_papers_worked_example():
    switch = evaluation.strategy_switch(completions(0), completions(1))
    assert {d: row["n"] for d, row in switch.items()} == {d: n for d, (n, *_) in FIGURE_7.items()}
    assert switch["code->lang"]["before"] == pytest.approx(0.581, abs=5e-4)
    assert switch["code->lang"]["after"] == pytest.approx(0.781, abs=5e-4)
    parts = [row["C_d"] for row in switch.values()]
    assert parts == pytest.approx([0.097, 0.222, 0.250, 0.430], abs=6e-4)
    assert sum(parts) == pytest.approx(1)


def test_without_a_gain_there_is_nothing_to_share_out():
    switch = evaluation.strategy_switch(completions(0), completions(0))
    assert all(math.isnan(row["C_d"]) for row in switch.values())
    assert switch["code->lang"]["n"] == 0 and math.isnan(switch["code->lang"]["before"])


def test_strategy_switch_needs_the_same_problems():
    with pytest.raises(InputError, match="same problems"):
        evaluation.strategy_switch(completions(0), completions(1)[:-1])


def test_compare_reads_what_output_wrote(tmp_path, capsys):
    names = []
    for which, name in enumerate(("before", "after")):
        names.append(str(tmp_path / f"{name}.jsonl"))
        rows = completions(which)
        Path(names[-1]).write_text("".join(json.dumps(row) + "\n" for row in rows))
    evaluation.main(run.parse_flags(evaluation.EvalConfig, ["--compare", *names]))
    out = capsys.readouterr().out
    assert "code->lang      160    0.581    0.781    0.222" in out
    assert "all             500    0.494    0.782" in out


def test_compare_takes_models_as_well(untrained, capsys):
    flags = ["--compare", untrained, untrained, "--limit", "4", "--samples", "2"]
    switch = evaluation.main(run.parse_flags(evaluation.EvalConfig, flags))
    assert sum(row["n"] for row in switch.values()) == 8


@pytest.mark.parametrize(
    "flags, says",
    [
        ([], "say which model"),
        (["--compare", "a"], "BEFORE AFTER"),
        (["--compare", "a", "b", "--model", "c"], "BEFORE AFTER"),
        (["--compare", "nowhere.jsonl", "b.jsonl"], "no file 'nowhere.jsonl'"),
    ],
)
def test_compare_says_what_is_wrong(flags, says):
    with pytest.raises(InputError, match=says):
        evaluation.main(run.parse_flags(evaluation.EvalConfig, flags))


@pytest.mark.parametrize(
    "bad",
    [{"question": "q"}, {"completion": None}, {"correct": "yes"}, []],
    ids=str,
)
def test_compare_names_the_line_that_is_wrong(tmp_path, bad):
    good = {"question": "q", "completion": "c", "correct": True}
    bad = good | bad if "question" not in bad and bad != [] else bad
    (tmp_path / "a.jsonl").write_text(json.dumps(good) + "\n" + json.dumps(bad) + "\n")
    with pytest.raises(InputError, match=r"a\.jsonl:2"):
        evaluation.read_completions(str(tmp_path / "a.jsonl"))
