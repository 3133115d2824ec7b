"""The survey's runs are what their names say; its tables and figures come from the logs."""

import dataclasses

import pytest
import torch

import rules
import tiny
from data import Problem
from experiments import survey, survey_measures, survey_report
from experiments.reproduce_logs import file_name, load, write_lines
from experiments.survey import QUESTIONS, SETTINGS, SurveyConfig, run_config
from support.errors import InputError
from support.files import claim_results


@pytest.mark.parametrize("question", QUESTIONS)
def test_an_arm_differs_by_what_it_names(question):
    cfg = SurveyConfig("out")
    for name, arm in QUESTIONS[question][1].items():
        config = run_config(cfg, question, name, arm, seed=3)
        plain = type(config)()
        for field in dataclasses.fields(config):
            wanted = (SETTINGS | arm.changes).get(field.name, getattr(plain, field.name))
            if field.name == "rm_lr":
                wanted = 0.0
            if field.name == "kl_coef":
                wanted = arm.changes.get("kl_coef", 0.0)
            if str(wanted).endswith(".jsonl"):
                wanted = f"out/seed3/{wanted}"
            if field.name not in ("model", "output", "rm_model", "seed"):
                assert getattr(config, field.name) == wanted, (name, field.name)
        assert config.seed == 3 and config.output.startswith("out/seed3/")


@pytest.mark.parametrize(
    "question, name, model",
    [
        ("algorithms", "rloo", "policy/mixed"),
        ("process", "steps alone", "policy/careless"),
        ("labels", "llama, ttrl", "policy/llama"),
        ("prior", "200 updates", "policy/mixed_200"),
        ("sft", "rl, then given", "sft/rl/policy"),
        ("sft", "given, then rl", "sft/given/policy"),
    ],
)
def test_an_arm_begins_where_its_name_says(question, name, model):
    arm = QUESTIONS[question][1][name]
    config = run_config(SurveyConfig("out"), question, name, arm, seed=3)
    assert config.model == f"out/seed3/{model}"


def test_all_that_a_run_begins_with_is_made_before(monkeypatch, tmp_path):
    calls = []
    monkeypatch.setattr(survey, "run_all", lambda jobs, workers, what: calls.append((what, jobs)))
    monkeypatch.setattr(survey, "keep", lambda *args: None)
    monkeypatch.setattr(survey, "report", lambda cfg: None)
    monkeypatch.setattr(survey_measures, "keep", lambda *args: None)
    survey.main(SurveyConfig(str(tmp_path / "out"), seeds=2))
    names = [what for what, _ in calls]
    assert names[:4] == ["policies", "reward models", "runs", "second tasks"]
    (_, policies), (_, models), (_, runs), (_, second) = calls[:4]
    made = {survey.folder(job[1], job[3], "policy", job[2]) for job in policies}
    first = [config for _, config in runs]
    assert {config.model for config in first} <= made
    assert {c.rm_model for c in first if hasattr(c, "rm_model")} == {
        survey.folder(job[1], job[2], "rm") for job in models
    }
    outputs = [config.output for config in first]
    assert len(set(outputs)) == len(outputs)
    assert {config.model for _, config in second} <= {f"{output}/policy" for output in outputs}
    measured = {f"{job[1]}/seed{job[4]}/{survey_measures.MEASURES[job[2]][1][job[3]]}"
                for what, jobs in calls[4:] for job in jobs}  # fmt: skip
    after = {f"{config.output}/policy" for _, config in second}
    assert measured <= made | {f"{output}/policy" for output in outputs} | after


def test_an_unknown_question_is_one_line(tmp_path):
    with pytest.raises(InputError, match="no algorithm: choose from algorithms, tricks"):
        survey.main(SurveyConfig(str(tmp_path / "out"), ("algorithm",)))


# -- tables ----------------------------------------------------------------------------------------


def write_runs(root, question, arms):
    for seed in (1, 2):
        for arm, accuracy in arms.items():
            folder = root / f"seed{seed}" / question / arm
            folder.mkdir(parents=True)
            rows = [{"step": 0, "eval/accuracy": 0.4, "eval/pass@2": 0.5, "eval/code": 0.5}]
            rows += [
                {"step": i, "eval/accuracy": a + seed / 100, "reward": a, "entropy": 0.5,
                 "right_with_wrong_step": 0.3, "eval/pass@2": 0.95, "eval/code": 0.6,
                 "completions": 256}
                for i, a in enumerate(accuracy, 1)
            ]  # fmt: skip
            write_lines(folder / "metrics.jsonl", rows)
            (folder / "config.json").write_text(f'{{"steps": {len(accuracy)}}}', encoding="utf-8")


def test_the_table_of_a_question(tmp_path, capsys):
    kept = str(tmp_path / "kept")
    write_runs(tmp_path, "algorithms", {"grpo": [0.5, 0.9, 0.9, 0.9], "rloo": [0.5, 0.6, 0.6, 0.6]})
    survey_report.keep(str(tmp_path), kept, "algorithms", ["grpo", "rloo", "never run"])
    assert not (tmp_path / "kept" / "reward_models.jsonl").exists()
    assert load(kept, "algorithms")["grpo"][2]["completions"] == [0, 256, 512, 768, 1024]
    survey_report.report(survey_report.SurveyReportConfig(kept))
    out = capsys.readouterr().out
    assert (
        "| grpo | 0.91 | 0.92 | 0.915 |  |  | 0.815 | 2 | 0.500 |  | 0.950 | 0.600 | 512 |" in out
    )
    assert (
        "| rloo | 0.61 | 0.62 | 0.615 | -0.300 | 0.50 | 0.590 (p 0.50) | never on 2 of 2 | 0.500 |"
        in out
    )
    assert (tmp_path / "kept" / "algorithms.png").exists()


def test_where_a_run_falls_by_hand():
    rows = {"step": [0, 2, 4, 6, 8], "eval/accuracy": [0.4, 0.9, 0.76, 0.75, 0.9]}
    assert survey_report.fall(rows) == 6
    assert survey_report.fall(rows | {"eval/accuracy": [0.4, 0.3, 0.5, 0.6, 0.7]}) is None


@pytest.mark.parametrize("question", QUESTIONS)
def test_an_arm_is_held_against_the_first_of_its_kind(question):
    arms = QUESTIONS[question][1]
    if question in survey_report.COLUMNS:
        kinds = {"labels": [f"{prior}, rule" for prior in survey.PRIORS]}
        bases = {survey_report.base_of(arms, arm) for arm in arms}
        assert bases == set(
            {"tricks": ["plain", "static, plain"]}.get(question)
            or kinds.get(question)
            or [next(iter(arms))]
        )


def test_a_table_of_measures_shows_mean_and_range():
    rows = [
        {"policy": "rl", "seed": seed, "on": "chains", "pass@1": value}
        for seed, value in ((1, 0.5), (2, 1.0))
    ]
    table = survey_report.measure_table([*rows, rows[0] | {"policy": "before"}])
    assert "| policy | on | pass@1 |" in table
    assert "| rl | chains | 0.75 (0.50-1.00) |" in table and "| before | chains | 0.50 |" in table


@pytest.mark.parametrize("name", ["process", "tricks", "labels", "discovery_measures"])
def test_figures_are_drawn_of_what_was_kept(tmp_path, name, capsys):
    kept = tmp_path / "kept"
    if name == "discovery_measures":
        claim_results(kept, "experiments.survey")
        rows = [
            {"policy": policy, "seed": 1, "on": on, "pass@1": 0.5, "pass@2": 0.6}
            for policy in ("before", "rl")
            for on in ("chains", "nines")
        ]
        write_lines(kept / f"{name}.jsonl", rows)
    else:
        arms = list(QUESTIONS[name][1])
        folders = {file_name(arm): [0.5, 0.9, 0.9] for arm in arms}
        write_runs(tmp_path, name, folders)
        survey_report.keep(str(tmp_path), str(kept), name, arms)
    survey_report.report(survey_report.SurveyReportConfig(str(kept)))
    assert (kept / f"{name.removesuffix('_measures')}.png").stat().st_size > 10_000
    assert capsys.readouterr().out.startswith("| ")


# -- measures --------------------------------------------------------------------------------------


def test_passes_by_hand():
    assert survey_measures.passes([1, 0], 2) == {"pass@1": 0.25, "pass@2": 0.5}


def test_texts_are_whole_and_in_order(policy, tokenizer):
    problems = [Problem("1 + 1 = ?", "2"), Problem("2 + 1 = ?", "3")]
    ids = tokenizer("python", add_special_tokens=False).input_ids
    found = list(survey_measures.texts((policy, tokenizer), problems, 3, batch=4, prefix=ids))
    assert [problem for problem, _ in found] == problems
    assert all(len(group) == 3 for _, group in found)
    assert all(text.startswith("python") for _, group in found for text in group)


def test_a_lucky_guess_has_not_solved_it():
    problem = Problem("7 + 5 - 3 = ?", "9")
    for text, whole in (
        (r"I guess \boxed{9}", False),
        (r"7 plus 5 is 12 minus 3 is 9 \boxed{9}", True),
    ):
        assert rules.proved(text, problem) and survey_measures.all_steps(text, problem) is whole


@pytest.fixture
def small(monkeypatch):
    for name, value in {"PROBLEMS": 3, "SAMPLES": 4, "LIMIT": 6, "EVALUATED": 8}.items():
        monkeypatch.setattr(survey_measures, name, value)


def test_each_measure_measures(policy, tokenizer, untrained, small, monkeypatch):
    model = (policy, tokenizer)
    monkeypatch.setattr(rules, "proved", lambda text, problem: True)
    rows = survey_measures.discovery(model, untrained, 1)
    assert [row["on"].partition(": ")[2] for row in rows] == ["answer", "every step"] * 2 + [""]
    assert [row["pass@4"] for row in rows] == [1, 0, 1, 0, 0]
    assert survey_measures.prefix(model, untrained, 1) == [
        {"prefix": "none", "accuracy": 1}, {"prefix": "python", "accuracy": 1}
    ]  # fmt: skip
    monkeypatch.undo()
    (row,) = survey_measures.skills(model, untrained, 1)
    assert row["KL to the start"] == pytest.approx(0, abs=1e-5), "the start itself"
    assert set(tiny.MARKS) - {"policy"} < set(row) and row["3 to 6 numbers"] == 0
    assert 0 <= row["solver"] <= 1 and "policy" not in row, "that is the policy's name"
    with torch.no_grad():
        policy.lm_head.weight.mul_(3.0)
    assert survey_measures.kl_to(untrained, model, 1) > 0.1


def test_a_measure_is_made_once_and_kept(tmp_path, untrained, monkeypatch):
    folder = tmp_path / "seed1" / "policy"
    folder.mkdir(parents=True)
    (folder / "mixed").symlink_to(untrained)
    calls = []
    monkeypatch.setitem(
        survey_measures.MEASURES, "sft",
        (
            lambda model, start, seed: calls.append((start, seed)) or [{"share": 1 / 3}],
            {"before": "policy/mixed"},
        ),
    )  # fmt: skip
    for job in survey_measures.jobs(str(tmp_path), "sft", [1, 1]):
        job[0](*job[1:])
    survey_measures.keep(str(tmp_path), str(tmp_path / "kept"), "sft")
    rows = survey_measures.load(str(tmp_path / "kept"), "sft")
    assert calls == [(str(folder / "mixed"), 1)] and rows == [
        {"policy": "before", "seed": 1, "share": 0.333}
    ]
