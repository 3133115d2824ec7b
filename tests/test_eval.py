"""pass@k against enumeration, the interval against simulation, evaluate on a scripted policy."""

import itertools
import json

import pytest
import torch

import eval as evaluation
from data import Problem
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


def test_interval_by_hand():
    # 1 of 10: p = 0.1, unbiased variance 0.1, of the mean 0.01, n = 0.09 / 0.01 = 9; t = 2.26,
    # q = 0.5675: (0.1 + 0.2838 -+ sqrt(0.09 * 0.5675 + 0.0805)) / 1.5675
    assert interval([1.0] + [0.0] * 9) == pytest.approx((0.0133, 0.4763), abs=1e-4)
    # no spread: n = N = 10, q = 0.5108: 0 .. 0.5108 / 1.5108
    assert interval([0.0] * 10) == pytest.approx((0.0, 0.3381), abs=1e-4)
    # p = 1/2, variance of the mean (2 / 64) / 3 / 4 = 0.0026: n = 96, but no more than 4 * 8
    shares = [0.375, 0.5, 0.5, 0.625]
    assert interval(shares, samples=8) == pytest.approx((0.2550, 0.7450), abs=1e-4)
    assert interval([1.0]) == (0.0, 1.0), "one problem says nothing of others"


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


# per-problem chances of success, [trials, problems], and their mean
ABILITIES = {
    "equal": (lambda shape, _: torch.full(shape, 0.5), 0.5),
    "Beta(1/2, 1/2)": (
        lambda shape, g: torch.sin(torch.rand(shape, generator=g) * 1.5708) ** 2,
        0.5,
    ),
    "half 0, half 1": (lambda shape, g: (torch.rand(shape, generator=g) < 0.5).float(), 0.5),
    "near 0": (lambda shape, _: torch.full(shape, 0.02), 0.02),
    "near 1": (lambda shape, g: torch.rand(shape, generator=g) ** 0.05, 1 / 1.05),
}


@pytest.mark.parametrize("ability, truth", ABILITIES.values(), ids=ABILITIES)
@pytest.mark.parametrize("samples", [1, 4, 8])
@pytest.mark.parametrize("problems", [3, 5, 8, 20, 50])
def test_interval_covers_from_three_problems_up(ability, truth, problems, samples):
    trials, generator = 1000, torch.Generator().manual_seed(1)
    chance = ability((trials, problems), generator)[:, :, None].expand(-1, -1, samples)
    shares = torch.bernoulli(chance, generator=generator).double().mean(2).tolist()
    bounds = [interval(row, samples) for row in shares]
    covered = sum(low <= truth <= high for low, high in bounds) / trials
    assert covered >= 0.92


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
    rows = [json.loads(line) for line in output.read_text(encoding="utf-8").splitlines()]
    assert len(rows) == 6
    assert set(rows[0]) == {"benchmark", "question", "reference", "completion", "correct"}
    assert "3 problems x 2 samples" in capsys.readouterr().out


def test_the_vote_of_a_group_is_right_or_wrong_by_equivalence():
    problem = Problem("q", "0.5")
    assert evaluation.voted_right([r"\boxed{\frac12}", r"\boxed{0.5}", r"\boxed{3}"], problem)
    assert not evaluation.voted_right([r"\boxed{3}", r"\boxed{3}", r"\boxed{0.5}"], problem)
    assert not evaluation.voted_right(["no box"] * 3, problem)


def test_several_sources_are_a_row_each_and_multiple_choice_is_apart(untrained, tmp_path, capsys):
    for name, answers in (("sums", ["3", "5"]), ("mixed", ["7", "B", "A, C"])):
        rows = [{"question": f"{name} {i}?", "answer": a} for i, a in enumerate(answers)]
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (tmp_path / f"{name}.jsonl").write_text(text, encoding="utf-8")
    data = f"{tmp_path}/sums.jsonl, {tmp_path}/mixed.jsonl"
    cfg = evaluation.EvalConfig(untrained, data=data, samples=2, max_new_tokens=4)
    results = evaluation.main(cfg)
    assert [found["problems"] for found in results.values()] == [2, 1, 2]
    assert list(results)[2].endswith("mixed.jsonl, choice")
    assert all("maj@2" in found for found in results.values())
    printed = capsys.readouterr().out
    assert "| problems | accuracy | 95% | pass@1 | pass@2 | maj@2 | boxed | truncated |" in printed
    assert "| mean |" in printed


def test_the_mean_of_the_table_leaves_multiple_choice_out():
    one = {"problems": 4.0, "accuracy_low": 0.0, "accuracy_high": 1.0, "boxed": 1.0}
    one |= {"truncated": 0.0}
    rows = {"a": one | {"accuracy": 0.5}, "b": one | {"accuracy": 0.25}}
    rows |= {"b, choice": one | {"accuracy": 1.0}}
    assert "| mean |  | 0.375 |" in evaluation.table(rows)
