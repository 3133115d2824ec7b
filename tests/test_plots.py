"""Table, figure and samples of the demo from logs written by hand; any runs side by side."""

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
def demo(tmp_path):
    for arm, fall in (("rule", 0.0), ("frozen", 0.5), ("cooper", 0.0)):
        folder = tmp_path / arm
        rows = [{"step": 0, "eval/accuracy": 0.3}]
        rows += [{"step": t, "reward": 0.1 * t, "x": 1} for t in (1, 2, 3)]
        rows[2]["eval/accuracy"] = 0.9
        rows[3]["eval/accuracy"] = 0.9 - fall
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
    return tmp_path


def test_the_table_says_where_a_run_fell(demo):
    assert report.table(report.load_arms(str(demo))).splitlines() == [
        "|  | true accuracy at step 3 |",
        "| --- | --- |",
        "| rule verifier | 0.90 |",
        "| frozen reward model | 0.40 (best 0.90) |",
        "| Cooper | 0.90 |",
    ]


def test_score_against_truth_pairs_the_reward_with_the_evaluation_of_its_step(demo):
    rows = report.load_arms(str(demo))["frozen"]
    # rewards 0.1, 0.2, 0.3 smoothed over all three: 0.2 at step 2 and, again, at step 3
    x, y = report.score_against_truth(rows)
    assert x == pytest.approx([0.2, 0.2]) and y == [0.9, 0.4]


def test_figure_and_three_samples_one_right_one_wrong_and_the_best_paid_wrong_one(demo, capsys):
    figure = demo / "out" / "figure.png"
    report.report(report.ReportConfig(str(demo), str(figure), "caption"))
    assert figure.read_bytes().startswith(b"\x89PNG") and len(list(figure.parent.iterdir())) == 1
    out = capsys.readouterr().out
    shown = [line for line in out.splitlines() if "reference" in line or "rule:" in line]
    assert shown == [
        "right:   7 + 5 = ?  reference 12", "         rule: right, reward model: 0.80",
        "wrong:   7 + 5 = ?  reference 12", "         rule: wrong, reward model: 0.20",
        "hacked:  7 + 5 = ?  reference 12", "         rule: wrong, reward model: 0.90",
    ]  # fmt: skip


def test_a_folder_without_runs_is_one_clear_line(tmp_path):
    with pytest.raises(InputError, match="make demo"):
        report.load_arms(str(tmp_path))


def test_any_runs_are_drawn_side_by_side(demo, tmp_path):
    runs = [str(demo / arm) for arm in ("rule", "frozen")]
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
