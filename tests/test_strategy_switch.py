"""The four switches: the paper's worked example, files and models, errors."""

import json
import math
from pathlib import Path

import pytest

from experiments import strategy_switch
from experiments.strategy_switch import SwitchConfig
from support import flags
from support.errors import InputError

# Spurious Rewards, figure 7, ground truth: n, correct before and after; C_d 9.7, 22.2, 25, 43%
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
    switch = strategy_switch.strategy_switch(completions(0), completions(1))
    assert {d: row["n"] for d, row in switch.items()} == {d: n for d, (n, *_) in FIGURE_7.items()}
    assert switch["code->lang"]["before"] == pytest.approx(0.581, abs=5e-4)
    assert switch["code->lang"]["after"] == pytest.approx(0.781, abs=5e-4)
    parts = [row["C_d"] for row in switch.values()]
    assert parts == pytest.approx([0.097, 0.222, 0.250, 0.430], abs=6e-4)
    assert sum(parts) == pytest.approx(1)


def test_without_a_gain_there_is_nothing_to_share_out():
    switch = strategy_switch.strategy_switch(completions(0), completions(0))
    assert all(math.isnan(row["C_d"]) for row in switch.values())
    assert switch["code->lang"]["n"] == 0 and math.isnan(switch["code->lang"]["before"])


def test_strategy_switch_needs_the_same_problems():
    with pytest.raises(InputError, match="same problems"):
        strategy_switch.strategy_switch(completions(0), completions(1)[:-1])


def test_it_reads_what_output_wrote(tmp_path, capsys):
    names = []
    for which, name in enumerate(("before", "after")):
        names.append(str(tmp_path / f"{name}.jsonl"))
        rows = completions(which)
        Path(names[-1]).write_text(
            "".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8"
        )
    strategy_switch.main(
        flags.parse_flags(SwitchConfig, ["--before", *names[:1], "--after", *names[1:]])
    )
    out = capsys.readouterr().out
    assert "code->lang      160    0.581    0.781    0.222" in out
    assert "all             500    0.494    0.782" in out


def test_it_takes_models_as_well(untrained, capsys):
    argv = ["--before", untrained, "--after", untrained, "--limit", "4", "--samples", "2"]
    switch = strategy_switch.main(flags.parse_flags(SwitchConfig, argv))
    assert sum(row["n"] for row in switch.values()) == 8


@pytest.mark.parametrize(
    "argv, says",
    [
        ([], "--before"),
        (["--before", "a"], "--after"),
        (["--before", "a", "--after", "b", "--model", "c"], "--model"),
    ],
)
def test_it_needs_two_models_or_files_and_nothing_else(argv, says, capsys):
    with pytest.raises(SystemExit):
        flags.parse_flags(SwitchConfig, argv)
    assert says in capsys.readouterr().err


def test_a_file_that_is_not_there_is_named():
    argv = ["--before", "nowhere.jsonl", "--after", "b.jsonl"]
    with pytest.raises(InputError, match="no file 'nowhere.jsonl'"):
        strategy_switch.main(flags.parse_flags(SwitchConfig, argv))


@pytest.mark.parametrize(
    "bad",
    [{"question": "q"}, {"completion": None}, {"correct": "yes"}, []],
    ids=str,
)
def test_it_names_the_line_that_is_wrong(tmp_path, bad):
    good = {"question": "q", "completion": "c", "correct": True}
    bad = good | bad if "question" not in bad and bad != [] else bad
    (tmp_path / "a.jsonl").write_text(
        json.dumps(good) + "\n" + json.dumps(bad) + "\n", encoding="utf-8"
    )
    with pytest.raises(InputError, match=r"a\.jsonl:2"):
        strategy_switch.read_completions(str(tmp_path / "a.jsonl"))
