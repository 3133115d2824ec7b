"""The runs behind results/cooper: what differs between two arms, what is made once and shared."""

import dataclasses
import math
import random
from pathlib import Path

import pytest

import cooper
import tiny
from experiments import forms, reproduce
from experiments import reproduce_logs as logs
from experiments import reproduce_report as report
from experiments.reproduce import EXPERIMENTS, STARTS, Arm, Policy, ReproduceConfig
from experiments.reproduce_figures import draw_long, draw_verifier
from reward_model import RewardModel
from support.errors import InputError
from support.jsonl import read_jsonl
from verifier import extract_answer, verify

CFG = ReproduceConfig(output="somewhere")


def settings(experiment, name, seed=3):
    arm = EXPERIMENTS[experiment][1][name]
    return dataclasses.asdict(reproduce.run_config(CFG, experiment, name, arm, seed))


def changed(experiment, name, since=("table", "cooper")):
    ours, theirs = settings(experiment, name), settings(*since)
    return {k: v for k, v in ours.items() if v != theirs[k] and k != "output"}


def test_an_arm_differs_from_cooper_in_what_it_names_alone():
    assert changed("table", "static") == {"rm_lr": 0.0}
    assert changed("table", "rule") == {"reward": "rule"}
    assert changed("ablations", "rollouts") == {"negatives": "rollouts"}
    assert changed("ablations", "every 5") == {"rm_every": 5}
    blind = changed("ablations", "blind")
    assert blind == {"rm_model": "somewhere/seed3/rm/blind"}
    assert changed("verifier", "misses 0.3 by answer", ("table", "rule")) == {
        "rule": "verifier, misses 0.3 by answer"
    }
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
    for name in ("keep", "keep_starts", "report"):
        monkeypatch.setattr(reproduce, name, lambda *a: None)
    monkeypatch.setattr(
        reproduce, "run_all", lambda jobs, workers, what: calls.append((what, jobs))
    )
    monkeypatch.setattr(reproduce, "can_begin", lambda run: True)
    experiments = ("table", "assistant", "ablations")
    reproduce.main(ReproduceConfig(str(tmp_path / "r"), experiments, seeds=2))
    (_, policies), (_, judges), (_, runs) = calls
    assert [what for what, _ in calls] == ["policies", "reward models", "runs"]
    wide, neat = Policy(hidden=128), Policy(odd_rewrites=False)
    made = {(seed, policy) for _, _, policy, seed in policies}
    assert made == {(seed, policy) for seed in (1, 2) for policy in (Policy(), wide, neat)}
    assert len(policies) == 6
    assert len(judges) == 2 * sum(start.policy.data == "arithmetic" for start in STARTS.values())
    arms = [arm for name in experiments for arm in EXPERIMENTS[name][1]]
    assert len(runs) == 2 * len(arms)
    outputs = [config.output for _, config in runs]
    assert len(set(outputs)) == len(outputs)
    read = {config.rm_model for _, config in runs if hasattr(config, "rm_model")}
    assert read == {reproduce.folder(job[1], job[3], "rm", job[2]) for job in judges}


def test_every_arm_has_settings_that_are_allowed():
    from support.checks import check_settings

    for experiment, (_, arms) in EXPERIMENTS.items():
        for name, arm in arms.items():
            config = reproduce.run_config(CFG, experiment, name, arm, 1)
            check_settings(config)
            reproduce.rules.rule_of(config.rule)


def test_what_the_starts_are_made_with(monkeypatch):
    policies, judges = [], []
    monkeypatch.setattr(reproduce.tiny, "warm_up", policies.append)
    monkeypatch.setattr(reproduce.reward_model, "train", judges.append)
    for name, start in STARTS.items():
        for policy in {start.policy, start.backbone} - {None}:
            reproduce.make_policy(CFG, policy, 1)
        reproduce.make_reward_model(CFG, name, 1)
    wide = "somewhere/seed1/policy/arithmetic_128"
    assert [cfg.output for cfg in judges if cfg.backbone == wide] == ["somewhere/seed1/rm/larger"]
    assert {(cfg.output, cfg.hidden) for cfg in policies if cfg.hidden != 64} == {(wide, 128)}
    neat = "somewhere/seed1/policy/arithmetic_neat"
    assert {cfg.output for cfg in policies if not cfg.odd_rewrites} == {neat}
    assert [cfg.output for cfg in judges if cfg.model == neat] == ["somewhere/seed1/rm/neat"]


def test_the_neat_world_with_another_assistant():
    other = settings("assistant", "odd assistant")
    assert other["assistant"] == "somewhere/seed3/policy/arithmetic"
    assert other["model"] == "somewhere/seed3/policy/arithmetic_neat"
    assert changed("assistant", "odd assistant", ("assistant", "four updates")) == {
        "assistant": "somewhere/seed3/policy/arithmetic"
    }
    assert changed("assistant", "paper", ("assistant", "four updates")) == {"rm_updates": 1}


def test_a_start_that_misses_its_marks_stops_only_what_begins_there(tmp_path, monkeypatch):
    """Seed 1 has no reward model for its static arm; the rest is run, kept and reported."""

    def warm_up(config):
        Path(config.output).mkdir(parents=True)
        Path(config.output, "config.json").write_text("{}", encoding="utf-8")

    def fit(config):
        if config.seed == 1:
            raise InputError("stopped at 0.70")
        warm_up(config)

    ran, kept = [], []
    monkeypatch.setattr(reproduce.tiny, "warm_up", warm_up)
    monkeypatch.setattr(reproduce.reward_model, "train", fit)
    monkeypatch.setattr(reproduce, "run_one", lambda cfg: ran.append((cfg.seed, cfg.output[-6:])))
    monkeypatch.setattr(
        reproduce, "run_all", lambda jobs, *a: [function(*job) for function, *job in jobs]
    )
    monkeypatch.setattr(reproduce, "keep", lambda runs, folder, *a: kept.append((runs, folder)))
    for name in ("keep_starts", "report"):
        monkeypatch.setattr(reproduce, name, lambda *a: None)
    output = str(tmp_path / "r")
    reproduce.main(ReproduceConfig(output, ("table",), seeds=2, shorten=10))
    assert ran == [(1, "e/rule"), (2, "e/rule"), (2, "static"), (2, "cooper")]
    # a shortened run does not touch what whole runs have left
    assert kept == [(f"{output}/short10", f"{output}/short10/results")]


def test_a_run_takes_the_loop_of_its_arm(monkeypatch):
    seen = []
    monkeypatch.setattr(reproduce.cooper, "train", lambda cfg: seen.append("cooper"))
    monkeypatch.setattr(reproduce.grpo, "train", lambda cfg: seen.append("grpo"))
    for loop in ("rule", "static", "cooper"):
        reproduce.run_one(reproduce.run_config(CFG, "table", loop, Arm(loop=loop), 1))
    assert seen == ["grpo", "cooper", "cooper"]


def test_an_unknown_experiment_is_one_clear_line(tmp_path):
    with pytest.raises(
        InputError, match="no tables: choose from table, assistant, ablations, forms"
    ):
        reproduce.main(ReproduceConfig(str(tmp_path / "r"), ("tables",)))


# -- slim logs and the report --------------------------------------------------------------------


def history(accuracy, reward, **logged):
    rows = [{"step": 0, "eval/accuracy": accuracy[0], "eval/3_numbers": accuracy[0]}]
    for step, (a, r) in enumerate(zip(accuracy[1:], reward), 1):
        rows.append({"step": step, "reward": r, "eval/accuracy": a, "eval/3_numbers": a} | logged)
    return rows


UP = [0.5] * 10 + [0.9] * 10
FALLS = [0.4] + [0.9] * 10 + [0.2] * 10


def test_a_training_metric_is_the_mean_of_nine_steps_around_an_evaluation():
    rows = [{"step": 0, "eval/accuracy": 0.5}]
    rows += [{"step": step, "reward": float(step), "rm/order": math.nan} for step in range(1, 21)]
    rows[7]["rm/order"], rows[10]["eval/accuracy"], rows[20]["eval/accuracy"] = 0.75, 0.6, 0.7
    slim = logs.slim(rows)
    assert slim["step"] == [0, 10, 20] and slim["eval/accuracy"] == [0.5, 0.6, 0.7]
    assert slim["reward"] == [None, 10.0, 18.0], "6..14, and 16..20 at the end"
    assert slim["rm/order"] == [None, 0.75, None]
    assert logs.values(slim, "rm/order") == ([10], [0.75])
    assert logs.last(slim) == pytest.approx(0.6)


def test_hacked_is_a_score_that_rises_while_accuracy_falls():
    assert report.ended(logs.slim(history(FALLS, UP))) == "hacked"
    assert report.ended(logs.slim(history(FALLS, UP[::-1]))) == "failed"
    assert report.ended(logs.slim(history(FALLS, [0.5] * 20))) == "fell"
    assert report.ended(logs.slim(history([0.4] + [0.9] * 20, UP))) == ""
    assert report.ended(logs.slim(history([0.4] + [0.9] * 10 + [0.8] * 10, UP))) == ""


def write_runs(root, experiment, arms, seeds=(1, 2), **logged):
    for seed in seeds:
        for arm, accuracy in arms.items():
            folder = root / f"seed{seed}" / experiment / arm
            folder.mkdir(parents=True)
            rows = history(accuracy, UP, **{"rm/held_out_order": 0.7, "rm/order": 0.6} | logged)
            logs.write_lines(folder / "metrics.jsonl", rows)
            (folder / "config.json").write_text('{"steps": 20}', encoding="utf-8")
            sample = {"step": 20, "question": "1 + 2 - 1 = ?", "reference": "2", "reward": 0.9}
            sample |= {"completion": "I guess \\boxed{3}", "correct": False}
            logs.write_lines(folder / "samples.jsonl", [sample | {"step": 10}, sample])


def test_tables_of_runs_written_by_hand(tmp_path, capsys):
    kept = str(tmp_path / "kept")
    rises = [0.4] + [0.9] * 20
    write_runs(tmp_path, "table", {"rule": rises, "static": FALLS, "cooper": rises})
    write_runs(tmp_path, "ablations", {"one_update": FALLS})
    logs.keep(str(tmp_path), kept, "table", ["rule", "static", "cooper"])
    logs.keep(str(tmp_path), kept, "ablations", ["one update", "blind"])
    logs.keep_starts(str(tmp_path), kept)
    readme = tmp_path / "README.md"
    readme.write_text("<!-- cooper: table -->\n<!-- /cooper: table -->\n", encoding="utf-8")
    report.report(report.ReportConfig(kept, (str(readme),)))
    out = capsys.readouterr().out
    assert "| no RL | 0.400 | 0.400 |" in out and "| Cooper | 0.900 | 0.900 |" in out
    assert "| no RL | 0.400 | 0.400 |" in readme.read_text(encoding="utf-8")
    assert "| static reward model | 0.20 (hacked, best 0.90) | 0.20 (hacked, best 0.90) |" in out
    assert "| static reward model | +0.70 +0.70 | +0.700 | 0.500 |" in out
    row = (
        "| one update | 0.20 (hacked, best 0.90) | 0.20 (hacked, best 0.90) | 0.20 | 0.60 | 0.50 |"
    )
    assert row in out
    assert "| a guess | 2 | 1, 2 |" in out
    assert (tmp_path / "kept" / "cooper.png").exists()
    with pytest.raises(InputError, match="holds no forms.jsonl"):
        logs.load(kept, "forms")


def test_an_ablation_that_lacks_a_seed_keeps_the_others():
    """A start that missed its marks has no runs; the row goes by the seeds that it has."""
    run = {
        "step": [0, 10],
        "eval/accuracy": [0.4, 0.5],
        "reward": [None, 0.5],
        "rm/order": [None, 0.6],
    }
    better = run | {"eval/accuracy": [0.4, 0.7]}
    base = {"cooper": {1: better, 2: better, 3: better}, "static": {1: run, 2: run, 3: run}}
    found = report.ablations({"blind": {2: run}, "stale": {1: run, 2: better}}, base)
    assert "seed 3" not in found
    assert "| reward model without the reference | - | 0.45 | 0.45 | 0.60 | 1.00 |" in found
    assert "| stale | 0.45 | 0.55 | 0.50 | 0.60 | 1.00 |" in found


def test_an_unfinished_run_is_not_kept(tmp_path):
    write_runs(tmp_path, "table", {"rule": [0.4] + [0.9] * 20, "cooper": [0.4] + [0.9] * 19})
    logs.keep(str(tmp_path), str(tmp_path / "kept"), "table", ["rule", "cooper"])
    assert logs.load(str(tmp_path / "kept"), "table").keys() == {"rule"}
    with pytest.raises(InputError, match="no finished run of forms"):
        logs.keep(str(tmp_path), str(tmp_path / "kept"), "forms", ["gold"])


@pytest.mark.parametrize(
    "completion, expected",
    [
        (r"python x = 1 x += 7 # 8 x -= 3 # 5 print \boxed{\boxed{5}", "no box, or several"),
        ("1 plus 7 is 8 minus 3 is 5 so 5", "no box, or several"),
        (r"python x = 2 x += 7 # 8 x -= 3 # 5 print \boxed{5}", "steps of another problem"),
        (r"python x = 1 x += 7 # 8 x += 3 # 5 print \boxed{5}", "steps of another problem"),
        (r"1 plus 7 is 8 minus 3 is 5 minus 3 is 2 so \boxed{2}", "steps of another problem"),
        (r"1 plus 7 is 9 minus 3 is 6 so \boxed{6}", "a step miscalculated"),
        (r"I guess \boxed{4}", "a guess"),
    ],
)
def test_kinds_of_wrong_completions(completion, expected):
    assert report.kind("1 + 7 - 3 = ?", completion) == expected


def test_a_repeated_step_is_not_one_of_the_question():
    """As a set its steps would be those asked for."""
    text = r"python x = 1 x += 7 # 8 x += 7 # 15 print \boxed{15}"
    assert report.kind("1 + 7 + 3 = ?", text) == "steps of another problem"


def test_what_became_of_a_run_at_one_length():
    run = logs.slim(history([0.4] + [0.9] * 20, UP))
    run["eval/3_numbers"] = FALLS
    assert report.ended(run) == "" and report.ended(run, "eval/3_numbers") == "hacked"
    assert report.by_length({5: run}).splitlines()[2] == "| 3 numbers | 0.20 (hacked, best 0.90) |"


def test_the_last_column_of_the_table_counts_problems_and_not_lengths():
    run = logs.slim(history([0.4] + [0.9] * 20, UP))
    run["eval/4_numbers"] = [0.1] * 21
    assert "| rule | 0.900 | 0.100 | 0.900 |" in report.table({"rule": {1: run}})


def test_arms_without_a_seed_in_common_are_one_clear_line():
    run = logs.slim(history(FALLS, UP))
    with pytest.raises(InputError, match="rule, cooper have no seed in common"):
        report.table({"rule": {1: run}, "cooper": {2: run}})


def test_the_figure_of_a_verifier_that_errs(tmp_path):
    arms = {
        name: [0.4] + [0.9] * 20 for name in reproduce.errs("misses") | reproduce.errs("accepts")
    }
    write_runs(
        tmp_path,
        "verifier",
        {logs.file_name(a): v for a, v in arms.items()},
        frac_reward_zero_std=0.2,
    )
    write_runs(tmp_path, "table", {"rule": [0.4] + [0.9] * 20}, frac_reward_zero_std=0.1)
    for experiment, names in (("verifier", list(arms)), ("table", ["rule"])):
        logs.keep(str(tmp_path), str(tmp_path / "kept"), experiment, names)
    found = [logs.load(str(tmp_path / "kept"), name) for name in ("verifier", "table")]
    draw_verifier(found[0], found[1]["rule"], str(tmp_path / "v.png"))
    assert (tmp_path / "v.png").stat().st_size > 10_000


def test_the_figure_of_the_long_runs(tmp_path):
    write_runs(tmp_path, "long", {"cooper": [0.4] + [0.9] * 20, "swapped_static": [0.4, 0.9, 0.7]})
    logs.keep(str(tmp_path), str(tmp_path / "kept"), "long", ["cooper", "swapped static"])
    draw_long(logs.load(str(tmp_path / "kept"), "long"), str(tmp_path / "long.png"))
    assert (tmp_path / "long.png").stat().st_size > 10_000


# -- forms ---------------------------------------------------------------------------------------


def test_a_right_and_a_wrong_solution_in_the_forms_asked_for():
    rng = random.Random(0)
    for reference in forms.FORMS:
        for answer in forms.FORMS:
            problem, right, wrong = forms.write_pair(rng, reference, answer)
            assert ("+" in problem.answer) == (reference == "sum")
            for text in (right, wrong):
                assert ("+" in extract_answer(text)) == (answer == "sum")
            assert verify(right, problem.answer) and not verify(wrong, problem.answer)


def test_order_by_hand_and_of_the_two_rules():
    scores = iter([[0.9, 0.5, 0.1, 0.7], [0.1, 0.5, 0.2, 0.6]])
    assert forms.order(lambda problems, texts: next(scores), [(None, "", "")] * 4) == 0.625
    rng = random.Random(1)
    missed = [forms.write_pair(rng, "sum", "number") for _ in range(100)]
    assert forms.order(forms.by_rule("verifier"), missed) == 1.0
    assert 0.4 < forms.order(forms.by_rule("last number"), missed) < 0.6


def test_pairs_of_forms_are_measured_for_rules_and_reward_models(tmp_path, untrained):
    for folder in ("rm/forms", "forms/rollouts/rm"):
        RewardModel.load(untrained).model.save_pretrained(tmp_path / "seed2" / folder)
        tiny.build_tokenizer().save_pretrained(tmp_path / "seed2" / folder)
    forms.keep_pairs(str(tmp_path), str(tmp_path), str(tmp_path / "kept"), count=4)
    rows = read_jsonl(tmp_path / "kept" / "form_pairs.jsonl")
    names = ["rule: last number", "rule: verifier", "static", "Cooper, rollouts"]
    assert [row["grader"] for row in rows] == [name for name in names for _ in range(4)]
    assert {row["seed"] for row in rows} == {2}
    assert "| rule: verifier | 1.00 | 1.00 | 1.00 | 1.00 |" in forms.pair_table(rows)
    with pytest.raises(InputError, match="no run of forms"):
        forms.keep_pairs(*[str(tmp_path / "kept")] * 3)
