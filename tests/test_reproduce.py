"""The runs behind results/cooper: what differs between two arms, what is made once and shared."""

import dataclasses
import json

import pytest

import cooper
from experiments import reproduce
from experiments import reproduce_report as report
from experiments.reproduce import EXPERIMENTS, STARTS, Arm, ReproduceConfig
from support.errors import InputError

CFG = ReproduceConfig(output="somewhere")


def settings(experiment, name, seed=3):
    arm = EXPERIMENTS[experiment][1][name]
    return dataclasses.asdict(reproduce.run_config(CFG, experiment, name, arm, seed))


def changed(experiment, name, since=("table", "cooper")):
    ours, theirs = settings(experiment, name), settings(*since)
    return {k: v for k, v in ours.items() if v != theirs[k] and k != "output"}


def test_an_arm_differs_from_cooper_in_what_it_names_alone():
    assert changed("table", "static") == {"rm_lr": 0.0}
    assert changed("table", "rule") == {}
    assert changed("ablations", "rollouts") == {"negatives": "rollouts"}
    assert changed("ablations", "every 5") == {"rm_every": 5}
    blind = changed("ablations", "blind")
    assert blind == {"rm_model": "somewhere/seed3/rm/blind"}
    assert changed("verifier", "misses 0.3 by answer") == {"rule": "verifier, misses 0.3 by answer"}
    assert changed("forms", "assistant", ("forms", "static")) == {
        "rm_lr": cooper.CooperConfig.rm_lr
    }


def test_the_world_of_forms_has_a_policy_and_a_reward_model_of_its_own():
    world = settings("forms", "static")
    assert world["data"] == "arithmetic:sums" and world["rule"] == "last number"
    assert world["model"] == "somewhere/seed3/policy/arithmetic_sums"
    assert world["rm_model"] == "somewhere/seed3/rm/forms"
    assert settings("forms", "gold")["rule"] == "verifier"


def test_starts_are_made_once_and_before_the_runs(tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(
        reproduce, "run_all", lambda jobs, workers, what: calls.append((what, jobs))
    )
    reproduce.main(ReproduceConfig(str(tmp_path / "r"), ("table", "ablations"), seeds=2))
    (_, policies), (_, judges), (_, runs) = calls
    assert [what for what, _ in calls] == ["policies", "reward models", "runs"]
    policy = str(tmp_path / "r/seed{}/policy/arithmetic")
    assert [job[1:] for job in policies] == [
        ("arithmetic", policy.format(seed) + wide, seed, *hidden)
        for seed in (1, 2)
        for wide, hidden in (("", ()), ("_128", (128,)))
    ]
    assert len(judges) == 2 * sum(start.data == "arithmetic" for start in STARTS.values())
    arms = [*EXPERIMENTS["table"][1], *EXPERIMENTS["ablations"][1]]
    assert len(runs) == 2 * len(arms)
    outputs = [config.output for _, config in runs]
    assert len(set(outputs)) == len(outputs)
    read = {config.rm_model for _, config in runs if hasattr(config, "rm_model")}
    assert read == {job[3] for job in judges}


def test_every_arm_has_settings_that_are_allowed():
    from support.checks import check_settings

    for experiment, (_, arms) in EXPERIMENTS.items():
        for name, arm in arms.items():
            config = reproduce.run_config(CFG, experiment, name, arm, 1)
            check_settings(config)
            reproduce.rewards.rule_of(config.rule)


def test_only_the_larger_reward_model_has_a_backbone_of_its_own(monkeypatch):
    made = []
    monkeypatch.setattr(reproduce.reward_model, "train", made.append)
    for name, start in STARTS.items():
        reproduce.make_reward_model(start, "policy", f"rm/{name}", 1)
    assert {cfg.output: cfg.backbone for cfg in made if cfg.backbone} == {"rm/larger": "policy_128"}


def test_a_run_takes_the_loop_of_its_arm(monkeypatch):
    seen = []
    monkeypatch.setattr(reproduce.cooper, "train", lambda cfg: seen.append("cooper"))
    monkeypatch.setattr(reproduce.grpo, "train", lambda cfg: seen.append("grpo"))
    for loop in ("rule", "static", "cooper"):
        reproduce.run_one(reproduce.run_config(CFG, "table", loop, Arm(loop=loop), 1))
    assert seen == ["grpo", "cooper", "cooper"]


def test_an_unknown_experiment_is_one_clear_line(tmp_path):
    with pytest.raises(InputError, match="no tables: choose from table, ablations, forms"):
        reproduce.main(ReproduceConfig(str(tmp_path / "r"), ("tables",)))


# -- the report ----------------------------------------------------------------------------------


def history(accuracy, reward, **logged):
    rows = [{"step": 0, "eval/accuracy": accuracy[0], "eval/3_numbers": accuracy[0]}]
    for step, (a, r) in enumerate(zip(accuracy[1:], reward), 1):
        rows.append({"step": step, "reward": r, "eval/accuracy": a, "eval/3_numbers": a} | logged)
    return rows


UP = [0.5] * 10 + [0.9] * 10
FALLS = [0.4] + [0.9] * 10 + [0.2] * 10


def test_hacked_is_a_score_that_rises_while_accuracy_falls():
    assert report.ended(history(FALLS, UP)) == "hacked"
    assert report.ended(history(FALLS, UP[::-1])) == "failed"
    assert report.ended(history([0.4] + [0.9] * 20, UP)) == ""
    assert report.ended(history([0.4] + [0.9] * 10 + [0.8] * 10, UP)) == ""


def test_tables_of_runs_written_by_hand(tmp_path, capsys):
    for seed in (1, 2):
        for arm, accuracy in (("static", FALLS), ("cooper", [0.4] + [0.9] * 20)):
            folder = tmp_path / f"seed{seed}" / "table" / arm
            folder.mkdir(parents=True)
            rows = history(accuracy, UP, **{"rm/held_out_order": 0.7})
            text = "".join(json.dumps(row) + "\n" for row in rows)
            (folder / "metrics.jsonl").write_text(text, encoding="utf-8")
    report.main(report.ReportConfig(str(tmp_path), output=str(tmp_path / "f.png")))
    out = capsys.readouterr().out
    assert "| no RL | 0.400 | 0.400 |" in out and "| Cooper | 0.900 | 0.900 |" in out
    assert "| static reward model | 0.20 (hacked, best 0.90) | 0.20 (hacked, best 0.90) |" in out
    assert "cooper - static: +0.70 +0.70; mean +0.700, sign-flip p = 0.500" in out
    assert (tmp_path / "f.png").exists()
    with pytest.raises(InputError, match="no run of forms"):
        report.main(report.ReportConfig(str(tmp_path), "forms", str(tmp_path / "f.png")))
