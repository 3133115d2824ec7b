"""The demo in miniature: its stages in their order, what it prints, what it refuses."""

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
import torch

from experiments import three_arms
from experiments.three_arms import DemoConfig
from support.errors import InputError


@pytest.fixture
def cfg(tmp_path, untrained, monkeypatch):
    """A demo of two steps whose start is an untrained policy that is always right."""

    def start(config):
        shutil.copytree(untrained, config.output, dirs_exist_ok=True)
        marks = {"updates": 800, "assistant": 0.7, "judge says No": 0.98}
        Path(config.output, "marks.json").write_text(json.dumps(marks), encoding="utf-8")
        return measured

    measured = {"validation/accuracy": 0.9, "held_out/accuracy": 0.876}
    measured |= {"steps": 60, "annotation_kept": 0.97}
    monkeypatch.setattr(three_arms.tiny, "warm_up", start)
    monkeypatch.setattr(three_arms.reward_model, "train", start)
    monkeypatch.setattr("rewards.rule", lambda r: torch.ones(len(r.texts)))
    monkeypatch.setattr("rules.rule_of", lambda spec: lambda text, problem: True)
    for place in ("cooper.make_negatives", "pairs.make_negatives"):
        monkeypatch.setattr(place, lambda a, t, texts, *x, **y: ["\\boxed{0}"] * len(texts))
    cfg = DemoConfig(
        output=str(tmp_path / "demo"), steps=2, prompts=4, group_size=4, max_new_tokens=8,
        eval_problems=4, eval_samples=2, threads=None,
    )  # fmt: skip
    return cfg, measured


def test_the_demo_tells_what_it_does_and_what_came_out(cfg, capsys):
    cfg, _ = cfg
    three_arms.main(cfg)
    out = capsys.readouterr().out
    stages = ["[1/5] warm-up", "[2/5] reward model", "[3/5] rule", "[4/5] frozen", "[5/5] cooper"]
    places = [out.index(stage) for stage in stages]
    assert places == sorted(places)
    assert "(about a minute)" in out and "policy 1.00 right on held-out problems" in out
    assert "reward model: 0.876 right on held-out samples after 60 updates" in out
    assert "true accuracy 1.00 -> 1.00 at best -> 1.00; reward " in out
    assert "| frozen reward model | 1.00 |" in out and "right:" in out
    assert out.rstrip().endswith(f"figure: {cfg.output}/cooper.png")


def test_the_arms_differ_in_what_they_name_alone(cfg, monkeypatch):
    cfg, _ = cfg
    given = {}

    def train(config):
        given[config.output.rpartition("/")[2]] = dataclasses.asdict(config)
        return [{"step": config.steps, "reward": 0.0}]

    for arm, entry in three_arms.ARMS.items():
        monkeypatch.setitem(three_arms.ARMS, arm, (entry[0], train, *entry[2:]))
    monkeypatch.setattr(three_arms, "report", lambda config: None)
    three_arms.main(dataclasses.replace(cfg, arms=tuple(three_arms.ARMS)))

    def changed(arm):
        return {k: v for k, v in given[arm].items() if v != given["cooper"][k] and k != "output"}

    assert changed("rule") == {"reward": "rule"} and set(given["rule"]) < set(given["cooper"])
    assert changed("frozen") == {"rm_lr": 0.0}


def test_an_unknown_arm_is_refused_before_anything_is_trained(cfg):
    cfg, _ = cfg
    with pytest.raises(InputError, match="no arm called coper: choose from rule, frozen"):
        three_arms.main(dataclasses.replace(cfg, arms=("rule", "coper")))


@pytest.mark.parametrize(
    "seconds, speed, says",
    [(30, 1.0, "a minute"), (250, 1.0, "4 minutes"), (250, 2.0, "8 minutes")],
)
def test_the_expected_time_follows_the_speed_seen_so_far(capsys, seconds, speed, says):
    stages = three_arms.Stages(1)
    stages.speed = speed
    stages.begin("warm-up", "what", seconds)
    assert capsys.readouterr().out == f"[1/1] warm-up: what (about {says})\n"
