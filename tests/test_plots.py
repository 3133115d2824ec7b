"""Table, figure, samples and slim logs from logs written by hand; any runs side by side."""

import json
from pathlib import Path

import pytest

from experiments import three_arms_report as report
from support import plots
from support.errors import InputError


def write_log(folder, rows, name="metrics.jsonl"):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def sample(step, correct, reward, completion="so \\boxed{11}"):
    row = {"step": step, "question": "7 + 5 = ?", "reference": "12", "completion": completion}
    return row | {"reward": reward, "correct": correct}


@pytest.fixture
def experiment(tmp_path):
    for seed, final in ((0, 0.9), (10, 0.7)):
        for arm, fall in (("rule", 0.0), ("frozen", 0.5), ("cooper", 0.0)):
            folder = tmp_path / f"seed{seed}" / arm
            rows = [{"step": 0, "eval/accuracy": 0.3}]
            rows += [{"step": t, "reward": 0.1 * t, "x": 1} for t in (1, 2, 3)]
            rows[2]["eval/accuracy"] = final
            rows[3]["eval/accuracy"] = final - fall
            write_log(folder, rows)
            write_log(
                folder,
                [
                    sample(20, False, 0.2),
                    sample(20, False, 0.9),
                    sample(30, True, 0.8),
                    sample(30, False, 0.95, "so 11"),
                    sample(30, False, 0.1, "\\boxed{\\boxed{1}"),
                ],  # fmt: skip
                "samples.jsonl",
            )
        write_log(tmp_path / f"seed{seed}" / "rm", [{"steps": 60}], "metrics.json")
    return tmp_path


def test_the_table_has_a_column_per_seed_and_says_where_a_run_fell(experiment):
    lines = report.table(report.load_arms(str(experiment))).splitlines()
    assert lines == [
        "| true accuracy at step 3 | seed 0 | seed 10 |",
        "| --- | --- | --- |",
        "| rule verifier | 0.90 | 0.70 |",
        "| frozen reward model | 0.40 (best 0.90) | 0.20 (best 0.70) |",
        "| Cooper | 0.90 | 0.70 |",
    ]


def test_one_run_by_itself_has_one_column(experiment):
    arms = report.load_arms(str(experiment / "seed10"))
    assert "| Cooper | 0.70 |" in report.table(arms)
    assert list(arms["rule"]) == ["this run"]


def test_score_against_truth_pairs_the_reward_with_the_evaluation_of_its_step(experiment):
    rows = report.load_arms(str(experiment))["frozen"]["seed0"]
    # rewards 0.1, 0.2, 0.3 smoothed over all three: 0.2 at step 2 and, again, at step 3
    x, y = report.score_against_truth(rows)
    assert x == pytest.approx([0.2, 0.2]) and y == [0.9, 0.4]


def test_three_samples_are_one_right_one_wrong_and_the_best_paid_wrong_one(experiment):
    shown = report.three_samples(str(experiment))
    assert [(what, row["correct"], row["reward"]) for what, row in shown] == [
        ("right", True, 0.8),
        ("wrong", False, 0.2),
        ("hacked", False, 0.9),
    ]
    text = report.samples_text(shown)
    assert "rule: wrong, reward model: 0.90" in text and "7 + 5 = ?  reference 12" in text


def test_figure_and_slim_logs(experiment, tmp_path, capsys):
    figure, kept = tmp_path / "out" / "figure.png", tmp_path / "kept"
    report.report(report.ReportConfig(str(experiment), str(figure), "caption", str(kept)))
    assert figure.read_bytes().startswith(b"\x89PNG") and len(list(figure.parent.iterdir())) == 1
    row = json.loads(
        (kept / "seed0" / "rule" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()[-1]
    )
    assert row["eval/accuracy"] == 0.9 and "x" not in row
    arms = report.load_arms(str(kept))
    assert report.table(arms) == report.table(report.load_arms(str(experiment)))
    samples = (kept / "seed0" / "frozen" / "samples.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["step"] for line in samples] == [20, 20]
    assert not (kept / "seed0" / "rule" / "samples.jsonl").exists()
    assert json.loads((kept / "seed0" / "rm.json").read_text(encoding="utf-8")) == {"steps": 60}
    assert "hacked:" in capsys.readouterr().out


def test_a_folder_without_runs_is_one_clear_line(tmp_path):
    with pytest.raises(InputError, match="make demo"):
        report.load_arms(str(tmp_path))


def test_any_runs_are_drawn_side_by_side(experiment, tmp_path):
    runs = [str(experiment / "seed0" / arm) for arm in ("rule", "frozen")]
    output = plots.compare(runs, "reward", "eval/accuracy", output=tmp_path / "a" / "b.png")
    assert output.read_bytes().startswith(b"\x89PNG")
    with pytest.raises(InputError, match="no run has logged 'entropi'; they have eval/accuracy"):
        plots.compare(runs, "entropi")
    with pytest.raises(InputError, match="no metrics.jsonl in .*nowhere"):
        plots.compare([*runs, str(tmp_path / "nowhere")], "reward")


def test_smooth_by_hand():
    assert plots.smooth([0.0, 3.0, 6.0], window=3) == [1.5, 3.0, 4.5]


def test_committed_figures_are_small():
    for file in (Path(__file__).parent.parent / "results").glob("**/*"):
        assert not file.is_file() or file.stat().st_size < 300_000
