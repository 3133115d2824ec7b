"""Flags, the run folder, and that a resumed run ends with the same numbers, bit for bit."""

import dataclasses
import importlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Literal

import pytest
import torch

import cooper
import grpo
from support import flags, run
from support.errors import InputError
from support.jsonl import read_jsonl

ROOT = Path(__file__).parent.parent


@dataclasses.dataclass(frozen=True)
class Example:
    """Not used outside this test."""

    rate: float | None = 0.2  # a share, 50 % say; None is off
    count: int = 3  # how many
    kind: Literal["a", "b"] = "a"  # which
    loud: bool = False  # whether


# -- flags ---------------------------------------------------------------------------------------


def test_flags_become_the_config():
    assert flags.parse_flags(Example, []) == Example()
    given = flags.parse_flags(Example, ["--rate", "0.5", "--count", "7", "--kind", "b", "--loud"])
    assert given == Example(0.5, 7, "b", True)
    assert flags.parse_flags(Example, ["--rate", "None"]).rate is None


def test_None_reaches_inherited_fields():
    for name in ("CooperConfig", "DemoConfig", "GRPOConfig"):
        assert flags.parse_flags(CONFIGS[name], ["--clip_eps", "None"]).clip_eps is None


@pytest.mark.parametrize(
    "argv", [["--ratee", "1"], ["--rat", "1"], ["--count", "x"], ["--kind", "c"], ["stray"]]
)
def test_wrong_flags_are_refused(argv, capsys):
    with pytest.raises(SystemExit) as stop:
        flags.parse_flags(Example, argv)
    message = capsys.readouterr().err
    assert stop.value.code == 2 and argv[0] in message and "--help" in message


def help_text(config, capsys) -> str:
    """What --help prints, on one line and without its frame."""
    with pytest.raises(SystemExit):
        flags.parse_flags(config, ["--help"])
    return " ".join(capsys.readouterr().out.replace("│", " ").split())


def test_help_is_the_comment_beside_the_field(capsys):
    assert "a share, 50 % say; None is off (default: 0.2)" in help_text(Example, capsys)


CONFIGS = {
    name: getattr(importlib.import_module(module), name)
    for module, name in (
        ("grpo", "GRPOConfig"), ("cooper", "CooperConfig"), ("reward_model", "RewardModelConfig"),
        ("eval", "EvalConfig"), ("tiny", "WarmUpConfig"),
        ("experiments.three_arms", "DemoConfig"), ("experiments.three_arms_report", "ReportConfig"),
        ("experiments.spurious", "SpuriousConfig"),
        ("experiments.spurious_tables", "TablesConfig"),
        ("experiments.strategy_switch", "SwitchConfig"), ("support.plots", "CompareConfig"),
    )
}  # fmt: skip


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_every_field_has_a_help_text_and_is_read_somewhere(config, capsys):
    printed = help_text(config, capsys)
    code = "".join(
        p.read_text(encoding="utf-8") for p in [*ROOT.glob("*.py"), *ROOT.glob("[es]*/*.py")]
    )
    for field in dataclasses.fields(config):
        # --name TYPE text (default: ...), and of a switch: --name, --no_name text (default: ...)
        found = re.search(rf"--{field.name}(?:, --no_\w+| \S+) (.*?)\(default: ", printed)
        assert found and found[1].strip(), f"{field.name} has no comment: --help says nothing"
        assert f"cfg.{field.name}" in code, f"{field.name} is a dead knob"


def test_input_errors_end_in_one_line(tmp_path):
    command = [sys.executable, "grpo.py", "--model", "nowhere", "--output", str(tmp_path / "run")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("error: no model at 'nowhere'")
    assert "Traceback" not in done.stderr


# -- the folder ----------------------------------------------------------------------------------


@pytest.fixture
def cfg(untrained, tmp_path):
    return cooper.CooperConfig(
        model=untrained, rm_model=untrained, output=str(tmp_path / "run"), steps=5,
        prompts=4, group_size=4, max_new_tokens=8, assistant_max_new_tokens=8,
        negatives="assistant", eval_every=2, eval_problems=4, eval_samples=2, save_every=2,
        kl_coef=0.01,
    )  # fmt: skip


@pytest.fixture(autouse=True)
def everything_is_correct(monkeypatch):
    """So that the untrained policy's texts make pairs and the reward model moves."""
    monkeypatch.setattr("rewards.rule", lambda r: torch.ones(len(r.texts)))
    monkeypatch.setattr("rules.rule_of", lambda spec: lambda text, problem: True)
    for place in ("cooper.make_negatives", "pairs.make_negatives"):
        monkeypatch.setattr(place, lambda a, t, texts, *x, **y: ["I guess \\boxed{0}"] * len(texts))


def without_times(history):
    return [{k: v for k, v in row.items() if k != "step_time"} for row in history]


def start(cfg):
    torch.manual_seed(0)  # the reward head of the untrained folder
    return cooper.train(cfg)


def after_updates(count, action):
    """cooper.update, with an action after it in the step of that number."""
    calls = []

    def update(*arguments):
        stats = grpo.update(*arguments)
        calls.append(stats)
        if len(calls) == count:
            action()
        return stats

    return update


@pytest.mark.parametrize("killed_in_step", [1, 3, 4])
def test_a_killed_run_resumes_to_the_same_numbers(cfg, tmp_path, monkeypatch, killed_in_step):
    whole = start(dataclasses.replace(cfg, output=str(tmp_path / "whole")))

    def killed():
        raise MemoryError  # the policy has moved, nothing of this step was saved

    with monkeypatch.context() as patch, pytest.raises(MemoryError):
        patch.setattr(cooper, "update", after_updates(killed_in_step, killed))
        start(cfg)
    resumed = start(cfg)
    assert without_times(resumed) == without_times(whole)
    lines = (tmp_path / "run" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["step"] for line in lines] == [0, 1, 2, 3, 4, 5]
    a, b = (torch.load(tmp_path / d / "checkpoint.pt") for d in ("whole", "run"))
    for part in ("policy", "rm"):
        assert all(torch.equal(a[part][name], b[part][name]) for name in a[part])
    for part in ("optimizer", "rm_optimizer"):
        for i, moments in a[part]["state"].items():
            assert all(
                torch.equal(value, b[part]["state"][i][name]) for name, value in moments.items()
            )


def test_a_finished_run_is_not_run_again_and_more_steps_go_on(cfg, monkeypatch):
    first = start(dataclasses.replace(cfg, steps=2))
    assert without_times(start(dataclasses.replace(cfg, steps=2))) == without_times(first)
    assert [row["step"] for row in start(dataclasses.replace(cfg, steps=3))] == [0, 1, 2, 3]


def test_a_dashboard_gets_each_row_once(cfg):
    rows = []
    cooper.train(dataclasses.replace(cfg, steps=1), on_row=rows.append)
    history = cooper.train(dataclasses.replace(cfg, steps=2), on_row=rows.append)
    assert rows == history and [row["step"] for row in rows] == [0, 1, 2]


def test_other_settings_in_the_same_folder_are_refused(cfg):
    start(dataclasses.replace(cfg, steps=1))
    with pytest.raises(InputError, match="was made with lr=.*choose another --output"):
        start(dataclasses.replace(cfg, steps=1, lr=0.5))


def test_another_kind_of_run_in_the_same_folder_is_refused(cfg):
    start(dataclasses.replace(cfg, steps=1))
    names = {field.name for field in dataclasses.fields(grpo.GRPOConfig)}
    same = {name: getattr(cfg, name) for name in names} | {"reward": "rule"}
    with pytest.raises(InputError, match="another kind of run"):
        grpo.train(grpo.GRPOConfig(**same))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_saves_says_so_and_goes_on(cfg, tmp_path, monkeypatch, number):
    whole = start(dataclasses.replace(cfg, output=str(tmp_path / "whole")))
    before = signal.signal(number, signal.default_int_handler)
    try:
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt) as stop:
            patch.setattr(cooper, "update", after_updates(3, lambda: os.kill(os.getpid(), number)))
            start(cfg)
        assert signal.getsignal(number) is signal.default_int_handler
    finally:
        signal.signal(number, before)
    assert "after step 3 of 5" in str(stop.value) and "the same command goes on" in str(stop.value)
    assert torch.load(Path(cfg.output) / "checkpoint.pt")["step"] == 3
    assert not (Path(cfg.output) / "policy").exists(), "an unfinished run leaves no final model"
    assert without_times(start(cfg)) == without_times(whole)


def test_an_ignored_ctrl_c_stays_ignored(cfg, monkeypatch):
    """A shell starts background jobs so."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        pressed = after_updates(1, lambda: os.kill(os.getpid(), signal.SIGINT))
        monkeypatch.setattr(cooper, "update", pressed)
        assert start(dataclasses.replace(cfg, steps=2))[-1]["step"] == 2
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_stopped_command_says_so_in_one_line_and_exits_with_130(untrained, tmp_path):
    settings = {
        "model": untrained, "output": tmp_path / "run", "steps": 10**6, "prompts": 2,
        "group_size": 2, "minibatches": 1, "max_new_tokens": 4, "eval_every": 0,
    }  # fmt: skip
    words = [word for name, value in settings.items() for word in (f"--{name}", str(value))]
    command = [sys.executable, "grpo.py", *words]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as running:
        deadline = time.time() + 60
        while time.time() < deadline and len(read_jsonl(tmp_path / "run" / "metrics.jsonl")) < 3:
            time.sleep(0.1)
        running.send_signal(signal.SIGTERM)
        said = running.communicate(timeout=60)[1]
    assert running.returncode == 130
    assert re.search(r"^stopped after step \d+ of 1000000, which is saved in", said, re.M)
    assert "Traceback" not in said and not (tmp_path / "run" / "policy").exists()


def test_what_is_not_finite_is_logged_as_nothing(cfg):
    with run.Run(cfg) as opened:
        opened.log({"step": 0, "reward": float("nan"), "entropy": float("inf"), "accuracy": 0.5})
    line = (Path(cfg.output) / "metrics.jsonl").read_text(encoding="utf-8")
    assert line == '{"step": 0, "reward": null, "entropy": null, "accuracy": 0.5}\n'
    assert opened.history == [json.loads(line)]


def test_a_run_leaves_a_policy_that_loads_and_nothing_temporary(cfg):
    from rollout import load_policy

    start(dataclasses.replace(cfg, steps=1))
    load_policy(str(Path(cfg.output) / "policy"))
    assert not [p for p in Path(cfg.output).iterdir() if "tmp" in p.name]
    samples = read_jsonl(Path(cfg.output) / "samples.jsonl")
    assert set(samples[0]) == {
        "step", "question", "reference", "completion", "reward", "correct",
    }  # fmt: skip
    questions = [row["question"] for row in samples]
    assert len(questions) == len(set(questions)) == 4, "one completion of each prompt"


@pytest.mark.parametrize(
    "field, value, says",
    [("group_size", 1, "at least 2"), ("temperature", 0.0, "above 0"),
     ("minibatches", 99, "between 1 and"),
     ("data", "none.jsonl", "no problems called"), ("model", "nowhere", "no model at"),
     ("rm_model", "nowhere", "no model at"), ("max_new_tokens", 400, "context of 256")],
)  # fmt: skip
def test_bad_settings_are_one_clear_line(cfg, field, value, says):
    with pytest.raises(InputError) as error:
        start(dataclasses.replace(cfg, **{field: value}))
    assert says in str(error.value) and "\n" not in str(error.value)


def test_rng_streams_are_independent_and_repeatable():
    assert run.rng(0, "a", 1).random() == run.rng(0, "a", 1).random()
    draws = {run.rng(s, n, t).random() for s in (0, 1) for n in ("a", "b") for t in (1, 2)}
    assert len(draws) == 8
    a, b = (torch.rand(3, generator=run.torch_rng("cpu", 0, "x", t)) for t in (1, 2))
    assert not torch.equal(a, b)
