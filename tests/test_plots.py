"""The table and the figure from logs written by hand."""

import json
from pathlib import Path

import pytest

from data import InputError
from experiments import three_arms_report as report
from support import plots


def write_log(folder, rows):
    folder.mkdir(parents=True)
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture
def experiment(tmp_path):
    for seed, final in ((0, 0.9), (1, 0.7)):
        for arm, fall in (("rule", 0.0), ("frozen", 0.5), ("cooper", 0.0)):
            rows = [{"step": 0, "eval/accuracy": 0.3, "eval/greedy": 0.2}]
            rows += [
                {"step": t, "reward": 0.5, "rm/agreement": 0.9, "step_time": 2.0, "x": 1}
                for t in (1, 2)
            ]
            rows[-1] |= {"eval/accuracy": final - fall, "eval/greedy": 1.0}
            write_log(tmp_path / f"seed{seed}" / arm, rows)
    return tmp_path


def test_table_is_mean_and_students_interval_over_seeds(experiment):
    lines = report.table(report.load_arms(str(experiment))).splitlines()
    assert [line.split(" | ")[0] for line in lines[2:]] == [
        "| rule verifier",
        "| frozen reward model",
        "| Cooper",
    ]
    # 0.9 and 0.7: mean 0.8, std 0.1414, 12.71 * 0.1414 / sqrt(2) = 1.27
    assert "| rule verifier | 2 | 0.80 ± 1.27 | 1.00 | 0.80 ± 1.27 | - | - | 4 |" == lines[2]
    assert "0.30 ± 1.27" in lines[3] and "| 0.50 | 0.90 | 4 |" in lines[4]


def test_figure_and_slim_logs(experiment, tmp_path):
    figure, kept = tmp_path / "out" / "figure.png", tmp_path / "kept"
    report.report(report.PlotConfig(str(experiment), str(figure), "caption", str(kept)))
    assert figure.read_bytes().startswith(b"\x89PNG") and len(list(figure.parent.iterdir())) == 1
    row = json.loads((kept / "seed0" / "rule" / "metrics.jsonl").read_text().splitlines()[-1])
    assert row["eval/accuracy"] == 0.9 and "x" not in row
    assert report.table(report.load_arms(str(kept))) == report.table(
        report.load_arms(str(experiment))
    )


def test_a_folder_without_runs_is_one_clear_line(tmp_path):
    with pytest.raises(InputError, match="make demo"):
        report.load_arms(str(tmp_path))


def test_series_keeps_the_steps_that_all_seeds_have():
    a, b = [{"step": 1, "r": 0.0}, {"step": 2, "r": 1.0}], [{"step": 1, "r": 1.0}, {"step": 3}]
    assert report.series([a, b], "r") == ([1], [[0.0], [1.0]])


def test_smooth_by_hand():
    assert plots.smooth([0.0, 3.0, 6.0], window=3) == [1.5, 3.0, 4.5]


def test_committed_figures_are_small():
    for file in (Path(plots.__file__).parent.parent / "results").glob("**/*"):
        assert not file.is_file() or file.stat().st_size < 300_000
