"""Nothing of the user's is lost: who may write where, and what a run that goes on insists on."""

import dataclasses
import functools
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import grpo
import reward_model
import tiny
from eval import EvalConfig
from eval import main as evaluate
from experiments.three_arms import DemoConfig
from experiments.three_arms import main as demo
from rewards import by_name, rule
from rollout import load_policy
from support import plots
from support.errors import InputError
from support.files import claim_results, fingerprint, save_model, settings_note, write
from support.identity import identity
from support.jsonl import read_jsonl
from support.run import Run
from support.tables import renew_file

ROOT = Path(__file__).parent.parent


@pytest.fixture
def cfg(untrained, tmp_path):
    return grpo.GRPOConfig(
        model=untrained, output=str(tmp_path / "run"), steps=2, prompts=2, group_size=2,
        minibatches=1, max_new_tokens=4, eval_every=0, eval_problems=2, save_every=1,
    )  # fmt: skip


def contents(folder) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


# -- who may write where -------------------------------------------------------------------------


def runs_of(untrained):
    """What each command that writes a folder is called with, but for its output."""
    small = {"data": "arithmetic", "model": untrained}
    return {
        "warm-up": (tiny.warm_up, tiny.WarmUpConfig, {"steps": 1}),
        "reward model": (reward_model.train, reward_model.RewardModelConfig, small),
        "grpo": (grpo.train, grpo.GRPOConfig, small),
        "demo": (demo, DemoConfig, {}),
    }


@pytest.mark.parametrize("command", ["warm-up", "reward model", "grpo", "demo"])
def test_a_folder_of_somebody_else_is_left_alone(command, untrained, tmp_path):
    work, config, settings = runs_of(untrained)[command]
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("ten years", encoding="utf-8")
    (tmp_path / "file").write_text("a file", encoding="utf-8")
    for output in (tmp_path / "mine", tmp_path / "file"):
        before = contents(tmp_path)
        with pytest.raises(InputError, match="choose another"):
            work(config(output=str(output), **settings))
        assert contents(tmp_path) == before


@pytest.mark.parametrize("command", ["reward model", "grpo"])
@pytest.mark.parametrize("where", [".", "..", "inside", "link"])
def test_no_output_is_holds_or_lies_in_a_model(command, where, untrained, tmp_path):
    work, config, settings = runs_of(untrained)[command]
    model = tmp_path / "models" / "mine"
    shutil.copytree(untrained, model)
    (tmp_path / "link").symlink_to(model)
    output = tmp_path / "link" if where == "link" else model / where
    before = contents(tmp_path)
    with pytest.raises(InputError, match="--output .* (is|holds|lies in) --model"):
        work(config(**settings | {"model": str(model), "output": str(output)}))
    assert contents(tmp_path) == before


def test_the_working_directory_is_no_output(cfg, tmp_path, monkeypatch):
    (tmp_path / "here" / "deeper").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here" / "deeper")
    for output in (".", "..", str(tmp_path)):
        with pytest.raises(InputError, match="holds the working directory"):
            grpo.train(dataclasses.replace(cfg, output=output))


def test_a_run_that_is_refused_leaves_nothing(cfg, tmp_path):
    with pytest.raises(InputError, match="no model at"):
        grpo.train(dataclasses.replace(cfg, model="nowhere"))
    assert not Path(cfg.output).exists()
    assert len(grpo.train(cfg)) == 3, "the right command may follow in the same folder"


def test_a_run_stopped_before_its_first_row_leaves_nothing(cfg, monkeypatch):
    def stopped(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(grpo, "eval_metrics", stopped)
        grpo.train(cfg)
    assert not Path(cfg.output).exists()


def test_a_reward_that_fails_at_once_leaves_room_for_a_right_one(cfg):
    with pytest.raises(InputError, match="returned NoneType"):
        grpo.train(cfg, lambda rollouts: None)
    assert not Path(cfg.output).exists()
    assert len(grpo.train(cfg, halves)) == 3


def test_votes_are_kept_by_a_run_that_fails(cfg, tmp_path):
    with pytest.raises(MemoryError), Run(cfg):
        Path(cfg.output, "labels.json").write_text("{}", encoding="utf-8")
        raise MemoryError
    assert set(contents(Path(cfg.output))) >= {"config.json", "inputs.json", "labels.json"}


def test_a_model_is_replaced_whole_and_what_else_lay_there_stays(policy, tokenizer, tmp_path):
    save_model(tmp_path / "m", policy, note={"a": 1})
    (tmp_path / "m" / "notes.txt").write_text("mine", encoding="utf-8")
    save_model(tmp_path / "m", policy, tokenizer, replace=True, note={"a": 2})
    assert json.loads((tmp_path / "m" / "note.json").read_text(encoding="utf-8")) == {"a": 2}
    assert (tmp_path / "m" / "notes.txt").read_text(encoding="utf-8") == "mine"
    assert [path.name for path in tmp_path.iterdir()] == ["m"], "nothing temporary is left"


def test_a_new_model_replaces_nothing_that_appeared_meanwhile(policy, tmp_path):
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "config.json").write_text("mine", encoding="utf-8")
    before = contents(tmp_path)
    with pytest.raises(InputError, match="cannot write"):
        save_model(tmp_path / "m", policy)
    assert contents(tmp_path) == before


def test_a_model_behind_a_link_is_written_where_it_leads(policy, tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "disk")
    for _ in range(2):
        save_model(tmp_path / "link", policy, replace=True)
    assert (tmp_path / "link").is_symlink() and (tmp_path / "disk" / "config.json").exists()


def test_weights_that_are_not_finite_are_not_saved(policy, tmp_path):
    with torch.no_grad():
        policy.model.norm.weight[0] = float("nan")
    with pytest.raises(InputError, match="not finite"):
        save_model(tmp_path / "m", policy)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "output, says",
    [("~/run", "write the path out"), ("file/run", "file is a file"), ("a" * 300, "too long"),
     ("loop/run", "cannot be written"), ("bad\udcff", "cannot be written")],
)  # fmt: skip
def test_where_nothing_can_be_written_is_said_before_any_work(cfg, tmp_path, output, says):
    (tmp_path / "file").write_text("mine", encoding="utf-8")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    output = output if output[0] == "~" else str(tmp_path / output)
    with pytest.raises(InputError) as error:
        grpo.train(dataclasses.replace(cfg, output=output))
    assert says in str(error.value) and "\n" not in str(error.value)


def test_a_model_that_cannot_be_written_leaves_the_old_one(policy, tmp_path):
    save_model(tmp_path / "m", policy)
    before = contents(tmp_path)

    class Broken:
        def save_pretrained(self, folder):
            raise OSError("disk full")

    with pytest.raises(InputError, match="cannot write .*disk full"):
        save_model(tmp_path / "m", policy, Broken(), replace=True)
    assert contents(tmp_path) == before


def test_completions_are_not_written_over_a_file(untrained, tmp_path):
    (tmp_path / "mine.jsonl").write_text("mine", encoding="utf-8")
    with pytest.raises(InputError, match="not there already"):
        evaluate(EvalConfig(model=untrained, output=str(tmp_path / "mine.jsonl")))
    assert (tmp_path / "mine.jsonl").read_text(encoding="utf-8") == "mine"


def test_a_figure_replaces_a_figure_of_ours_and_nothing_else(tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    (run / "metrics.jsonl").write_text('{"step": 1, "reward": 0.5}\n', encoding="utf-8")
    for _ in range(2):
        plots.compare([str(run)], "reward", output=tmp_path / "a.png")
    for name, says in (("photo.png", "is there already"), ("notes.txt", "should end in .png")):
        (tmp_path / name).write_bytes(b"mine")
        with pytest.raises(InputError, match=says):
            plots.compare([str(run)], "reward", output=tmp_path / name)
        assert (tmp_path / name).read_bytes() == b"mine"


def test_a_results_folder_belongs_to_who_made_it(tmp_path):
    claim_results(tmp_path / "r", "a")
    claim_results(tmp_path / "r", "a")
    with pytest.raises(InputError, match="not made by b"):
        claim_results(tmp_path / "r", "b")


def test_text_beside_a_file_of_ours_stays(tmp_path):
    (tmp_path / "a.json.tmp").write_text("mine", encoding="utf-8")
    write(tmp_path / "a.json", "{}")
    assert contents(tmp_path) == {"a.json.tmp": b"mine", "a.json": b"{}"}
    with pytest.raises(InputError, match="is there already"):
        write(tmp_path / "a.json", "[]", new=True)
    assert (tmp_path / "a.json").read_bytes() == b"{}"


def test_a_readme_keeps_its_line_ends_and_what_is_outside_its_marks(tmp_path):
    readme = tmp_path / "README.md"
    readme.write_bytes(b"mine\r\n<!-- a -->old<!-- /a -->\r\n")
    renew_file(str(readme), {"b": "unknown"})
    assert readme.read_bytes() == b"mine\r\n<!-- a -->old<!-- /a -->\r\n"
    renew_file(str(readme), {"a": "new"})
    assert readme.read_bytes() == b"mine\r\n<!-- a -->\nnew\n<!-- /a -->\r\n"


# -- one run per folder --------------------------------------------------------------------------


def test_two_runs_do_not_share_a_folder(cfg):
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r}); import grpo, rewards, rules\n"
        f"from support.run import Run; cfg = grpo.{cfg!r}\n"
        "rule = rules.by_rule(rules.rule_of(cfg.rule))\n"
        "run = Run(cfg, rewards.by_name(cfg.reward, cfg.gamma, rule)).__enter__()\n"
        "print('in', flush=True); input()"
    )
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", code], **pipes) as other:
        assert other.stdout.readline() == "in\n"
        with pytest.raises(InputError, match="another run writes to"):
            grpo.train(cfg)
        other.kill()
    assert len(grpo.train(cfg)) == 3, "a killed run holds no lock"


# -- what a run that goes on insists on ----------------------------------------------------------


def test_other_settings_are_refused_before_the_first_checkpoint_too(cfg):
    with Run(cfg, by_name(cfg.reward)) as run:
        run.log({"step": 0})
    with pytest.raises(InputError, match="was made with lr="):
        grpo.train(dataclasses.replace(cfg, lr=0.5))


def test_a_checkpoint_carries_its_settings(cfg):
    grpo.train(cfg)
    config = Path(cfg.output, "config.json")
    text = config.read_text(encoding="utf-8")
    config.write_text(text.replace('"lr": 0.0002', '"lr": 0.5'), encoding="utf-8")
    with pytest.raises(InputError, match="was made with lr="):
        grpo.train(dataclasses.replace(cfg, lr=0.5))


def test_a_finished_run_keeps_its_policy_and_insists_on_its_checkpoint(cfg):
    grpo.train(cfg)
    weights = Path(cfg.output, "policy", "model.safetensors")
    weights.write_bytes(b"mine")
    grpo.train(cfg)
    assert weights.read_bytes() == b"mine", "nothing was trained, nothing is saved"
    config = Path(cfg.output, "config.json").read_bytes()
    with pytest.raises(InputError, match="has 2 steps already"):
        grpo.train(dataclasses.replace(cfg, steps=1))
    assert Path(cfg.output, "config.json").read_bytes() == config
    Path(cfg.output, "checkpoint.pt").unlink()
    with pytest.raises(InputError, match="is finished, but .*checkpoint.pt is gone"):
        grpo.train(cfg)


def test_a_checkpoint_carries_its_inputs(cfg):
    grpo.train(cfg)
    inputs = Path(cfg.output, "inputs.json")
    text = inputs.read_text(encoding="utf-8").replace('"model": "', '"model": "0')
    inputs.write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match="made from another model"):
        grpo.train(cfg)
    inputs.unlink()
    with pytest.raises(InputError, match="inputs.json is broken"):
        grpo.train(cfg)


def test_another_start_model_or_data_under_the_same_name_is_refused(cfg, untrained, tmp_path):
    shutil.copytree(untrained, tmp_path / "model")
    data = tmp_path / "data.jsonl"
    data.write_text(
        "".join(f'{{"question": "{n}?", "answer": {n}}}\n' for n in range(8)), encoding="utf-8"
    )
    cfg = dataclasses.replace(cfg, model=str(tmp_path / "model"), data=str(data))
    grpo.train(cfg)
    text = data.read_text(encoding="utf-8")
    data.write_text(text.replace('"7?"', '"8?"'), encoding="utf-8")
    with pytest.raises(InputError, match="made from another data"):
        grpo.train(cfg)
    data.write_text(text, encoding="utf-8")
    torch.manual_seed(1)
    tiny.build_policy(tiny.build_tokenizer()).save_pretrained(tmp_path / "model")
    with pytest.raises(InputError, match="made from another model"):
        grpo.train(cfg)


def test_a_reward_model_made_from_another_policy_is_not_taken_for_finished(untrained, tmp_path):
    shutil.copytree(untrained, tmp_path / "model")
    cfg = reward_model.RewardModelConfig(model=str(tmp_path / "model"), output=str(tmp_path / "rm"))
    policy, tokenizer = load_policy(cfg.model)
    save_model(cfg.output, policy, tokenizer, settings=settings_note(cfg), metrics={"steps": 1})
    assert reward_model.train(cfg) == {"steps": 1}
    torch.manual_seed(1)
    tiny.build_policy(tiny.build_tokenizer()).save_pretrained(tmp_path / "model")
    with pytest.raises(InputError, match="made from another model"):
        reward_model.train(cfg)


def test_a_setting_younger_than_the_folder_had_its_default(untrained, tmp_path):
    cfg = reward_model.RewardModelConfig(model=untrained, output=str(tmp_path / "rm"))
    old = settings_note(cfg)
    del old["labels"]
    save_model(cfg.output, *load_policy(cfg.model), settings=old, metrics={"steps": 1})
    assert reward_model.train(cfg) == {"steps": 1}
    with pytest.raises(InputError, match="was made with labels='both', now 'rule'"):
        reward_model.train(dataclasses.replace(cfg, labels="rule"))


def halves(rollouts):
    return rule(rollouts) / 2


def test_another_reward_function_is_another_run(cfg):
    history = grpo.train(cfg, halves)
    assert grpo.train(cfg, halves) == history
    for other in (lambda rollouts: rule(rollouts) / 3, None):
        with pytest.raises(InputError, match="another reward function"):
            grpo.train(cfg, other)


def scaled(factor, shift=0):
    return lambda rollouts: factor * rule(rollouts) + shift


SCALE = 1


def helper(rollouts):
    return rule(rollouts) * SCALE


def uses_a_helper(rollouts):
    return helper(rollouts)


class WithMethod(torch.nn.Module):
    def __init__(self, k):
        super().__init__()
        self.k, self.layer = k, torch.nn.Identity()

    def inner(self, rollouts):
        return rule(rollouts)

    def forward(self, rollouts):
        return self.k * self.inner(rollouts)


def test_identity_of_a_reward_function(untrained):
    def reward_model_with_head(seed):
        torch.manual_seed(seed)
        return reward_model.RewardModel.load(untrained).reward

    assert identity(scaled(2)) == identity(scaled(2)) != identity(scaled(3))
    first = identity(uses_a_helper)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(globals(), "SCALE", -1)
        assert identity(uses_a_helper) != first
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(globals(), "helper", lambda rollouts: rule(rollouts) * SCALE * 2)
        assert identity(uses_a_helper) != first
    assert identity(uses_a_helper) == first
    assert identity(WithMethod(1)) == identity(WithMethod(1)) != identity(WithMethod(2))
    with pytest.MonkeyPatch.context() as patch:
        first = identity(WithMethod(1))
        patch.setattr(WithMethod, "inner", lambda self, rollouts: -rule(rollouts))
        assert identity(WithMethod(1)) != first
    assert identity(functools.partial(halves, 1)) != identity(functools.partial(halves, 2))
    one, same, other = (identity(reward_model_with_head(seed)) for seed in (0, 0, 1))
    assert one == same != other


def test_identity_is_the_same_in_another_process():
    code = "from tests.test_files import *; print(identity(scaled(2, (1, 'a'))), identity(halves))"
    environment = os.environ | {"PYTHONHASHSEED": "5"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    expected = f"{identity(scaled(2, (1, 'a')))} {identity(halves)}"
    assert done.stdout.strip().replace("tests.", "") == expected


@pytest.mark.parametrize(
    "name, text, says",
    [("checkpoint.pt", "", "checkpoint.pt cannot be read"),
     ("checkpoint.pt", "PK\\x03\\x04 half", "checkpoint.pt cannot be read"),
     ("config.json", '{"lr": ', "config.json is broken"),
     ("config.json", "[1]", "config.json is broken"),
     ("inputs.json", "", "inputs.json is broken"),
     ("metrics.jsonl", '{"step": 0}\n{"st\n{"step": 2}\n', "metrics.jsonl:2: not JSON"),
     ("metrics.jsonl", '{"step": 0}\n{"step": 2}\n', "does not hold the 3 rows"),
     ("metrics.jsonl", "", "does not hold the 3 rows"),
     ("samples.jsonl", "7\n", "samples.jsonl:1: not a JSON object")],
)  # fmt: skip
def test_a_broken_run_is_one_line(cfg, name, text, says):
    grpo.train(cfg)
    Path(cfg.output, name).write_text(text, encoding="utf-8")
    before = contents(Path(cfg.output))
    with pytest.raises(InputError) as error:
        grpo.train(cfg)
    assert says in str(error.value) and "\n" not in str(error.value)
    after = contents(Path(cfg.output))
    assert {k: before[k] for k in before if k != "inputs.json"} == {
        k: after[k] for k in before if k != "inputs.json"
    }


def test_a_last_line_cut_off_by_a_kill_is_left_out(tmp_path):
    (tmp_path / "m.jsonl").write_text('{"step": 1}\n{"step": 2', encoding="utf-8")
    assert read_jsonl(tmp_path / "m.jsonl") == [{"step": 1}]


def test_fingerprints(untrained, tmp_path):
    assert fingerprint("owner/name") == "owner/name"
    shutil.copytree(untrained, tmp_path / "copy")
    assert fingerprint(untrained) == fingerprint(str(tmp_path / "copy"))
    tokenizer = tmp_path / "copy" / "tokenizer_config.json"
    text = tokenizer.read_text(encoding="utf-8")
    tokenizer.write_text(text + " ", encoding="utf-8")
    assert fingerprint(untrained) != fingerprint(str(tmp_path / "copy"))


def test_a_name_is_no_reward_function(cfg):
    with pytest.raises(InputError, match="its name goes into cfg.reward"):
        grpo.train(cfg, "format")
    assert not Path(cfg.output).exists()
