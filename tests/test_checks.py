"""Settings: every number has a range, nonsense is refused before anything is done or written."""

import ast
import dataclasses
import io
import math
import sys
import typing

import numpy as np
import pytest
from test_layout import FILES, ROOT

import cooper
import eval as evaluation
import grpo
import reward_model
import sft
import tiny
from experiments import strategy_switch, three_arms
from support import checks
from support.errors import InputError
from support.flags import command_line, parse_flags
from survey import ppo

RUNS = {
    grpo.GRPOConfig: grpo.train,
    cooper.CooperConfig: cooper.train,
    ppo.PPOConfig: ppo.train,
    sft.SFTConfig: sft.train,
    reward_model.RewardModelConfig: reward_model.train,
    evaluation.EvalConfig: evaluation.main,
    tiny.WarmUpConfig: tiny.warm_up,
    three_arms.DemoConfig: three_arms.main,
    strategy_switch.SwitchConfig: strategy_switch.main,
}


def numbers(config_class):
    """Its fields that hold an int or a float."""
    for field in dataclasses.fields(config_class):
        if {int, float} & {field.type, *typing.get_args(field.type)}:
            yield field


def make(config_class, folder, **changes):
    names = {field.name for field in dataclasses.fields(config_class)}
    needed = {"before": "a.jsonl", "after": "b.jsonl", "output": str(folder / "run")}
    return config_class(**{k: v for k, v in needed.items() if k in names} | changes)


@pytest.mark.parametrize("config_class", RUNS, ids=lambda c: c.__name__)
def test_every_number_has_a_range_and_its_default_is_inside(config_class, tmp_path):
    assert {field.name for field in numbers(config_class)} <= set(checks.RANGES)
    checks.check_settings(make(config_class, tmp_path))


@pytest.mark.parametrize("value", [math.nan, -math.inf, "3", True], ids=str)
@pytest.mark.parametrize("config_class", RUNS, ids=lambda c: c.__name__)
def test_what_is_no_number_is_refused_by_every_command(config_class, value, tmp_path):
    for field in numbers(config_class):
        with pytest.raises(InputError, match=f"^{field.name} must be "):
            RUNS[config_class](make(config_class, tmp_path, **{field.name: value}))
    assert not list(tmp_path.iterdir()), "something was written"


NONSENSE = {
    grpo.GRPOConfig: [
        {"prompts": 0}, {"group_size": 1}, {"max_new_tokens": 0}, {"temperature": 0.0},
        {"temperature": -1.0}, {"clip_eps": -0.2}, {"clip_eps_low": -1.0}, {"kl_coef": -0.1},
        {"inner_epochs": 0}, {"minibatches": 0}, {"minibatches": 257}, {"micro_batch": 0},
        {"micro_batch": -1}, {"lr": -1e-4}, {"lr": math.inf}, {"lr_warmup": -1},
        {"max_grad_norm": 0.0}, {"eval_every": -1}, {"eval_early": -2}, {"eval_problems": 0},
        {"eval_samples": 0}, {"eval_temperature": -1.0}, {"eval_top_p": 0.0}, {"eval_top_p": 2.0},
        {"save_every": -1}, {"steps": -1}, {"votes": 0}, {"train_problems": 0}, {"gamma": 1.5},
        {"steps": 2.5}, {"loss_norm": "tokens"}, {"kl_estimator": "k4"}, {"scale_by_std": 2},
    ],
    cooper.CooperConfig: [
        {"rm_lr": -1.0}, {"rm_updates": 0}, {"rm_every": 0}, {"rm_micro_batch": 0},
        {"max_retries": -1},
        {"assistant_temperature": -0.1}, {"assistant_max_new_tokens": 0}, {"prompts": 0},
        {"negatives": "rollout"},
    ],
    ppo.PPOConfig: [
        {"discount": 1.5}, {"gae_lambda": -0.1}, {"critic_lr": -1.0}, {"critic_warmup": -1},
        {"value_clip": -0.2}, {"prompts": 0},
    ],
    sft.SFTConfig: [{"pool_steps": 0}, {"micro_batch": 0}, {"weight": "token"}],
    reward_model.RewardModelConfig: [
        {"problems": 9}, {"group_size": 0}, {"steps": 2}, {"target": 2.0}, {"batch": 1},
        {"micro_batch": 0}, {"swap_share": 0.9}, {"swap_share": -0.1}, {"eval_problems": 0},
    ],
    evaluation.EvalConfig: [
        {"samples": 0}, {"limit": 0}, {"top_p": 0.0}, {"top_p": 2.0}, {"temperature": -1.0},
        {"max_new_tokens": 0}, {"batch": 0}, {"split": "tset"},
    ],
    tiny.WarmUpConfig: [{"steps": 0}, {"lr": -1.0}, {"muon_lr": -1.0}, {"helpers": 300}],
    three_arms.DemoConfig: [{"warm_up_steps": 0}, {"rm_target": 2.0}, {"threads": 0}, {"steps": 0}],
    strategy_switch.SwitchConfig: [{"samples": 0}, {"limit": 0}, {"temperature": -1.0}],
}  # fmt: skip


@pytest.mark.parametrize("config_class", RUNS, ids=lambda c: c.__name__)
def test_nonsense_is_refused_before_anything_is_written(config_class, tmp_path):
    for changes in NONSENSE[config_class]:
        ((name, value),) = changes.items()
        with pytest.raises(InputError, match=f"^{name} must be [^\n]*$"):
            RUNS[config_class](make(config_class, tmp_path, **changes))
    assert not list(tmp_path.iterdir()), "something was written"


def test_the_ends_of_a_range_and_none_are_allowed():
    ends = {"steps": 0, "clip_eps": 0, "clip_eps_high": math.inf, "micro_batch": None, "lr": 0}
    ends |= {"eval_every": 0, "save_every": 0, "eval_top_p": 1, "eval_temperature": 0, "gamma": 1}
    grpo.check(grpo.GRPOConfig(**ends, max_grad_norm=math.inf, prompts=np.int64(32)))
    checks.check_settings(evaluation.EvalConfig(limit=None, samples=1, temperature=0.0))


def test_a_wrong_split_is_refused_by_its_flag(capsys):
    with pytest.raises(SystemExit):
        parse_flags(evaluation.EvalConfig, ["--split", "tset"])


def test_a_character_that_the_terminal_does_not_know_ends_no_command(monkeypatch):
    terminal = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setattr(sys, "argv", ["eval.py", "--data", "é.jsonl"])
    command_line(evaluation.EvalConfig, lambda cfg: print(cfg.data, flush=True))
    assert terminal.buffer.getvalue() == b"\\xe9.jsonl\n"


@pytest.mark.parametrize("file", [*FILES, *sorted(ROOT.glob("tests/*.py"))], ids=lambda f: f.name)
def test_text_files_are_utf8_whatever_the_machine_says(file):
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            name = getattr(node.func, "id", getattr(node.func, "attr", None))
            if name in ("open", "read_text", "write_text"):
                modes = [argument.value for argument in node.args if hasattr(argument, "value")]
                given = {keyword.arg for keyword in node.keywords}
                if any(isinstance(mode, str) and "b" in mode and len(mode) < 4 for mode in modes):
                    continue
                assert "encoding" in given, f"{file.name}:{node.lineno}"


def test_a_class_shows_its_own_flags_before_those_that_it_extends(capsys):
    with pytest.raises(SystemExit):
        parse_flags(grpo.GRPOConfig, ["--help"])
    shown = capsys.readouterr().out
    assert shown.index("--model STR") < shown.index("--save_every") < shown.index("--algorithm STR")
