"""Cooper on TRL: several processes do what one does, an interrupted run what an unbroken one does.

Left out without TRL (pip install -r requirements-trl.txt); `make test-trl` installs it.
"""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

pytest.importorskip("trl")
from datasets import Dataset
from test_layout import ROOT
from trl import GRPOConfig, GRPOTrainer

import cooper_trl
from cooper_trl import LearningReward, TRLConfig
from data import Problem, load_problems
from reward_model import RewardModel
from rollout import load_policy
from support.errors import InputError
from verifier import verify


@pytest.fixture(scope="module")
def rm(untrained, tmp_path_factory):
    folder = tmp_path_factory.mktemp("rm")
    torch.manual_seed(0)
    model = RewardModel.load(untrained)
    model.model.save_pretrained(folder)
    model.tokenizer.save_pretrained(folder)
    return str(folder)


def torchrun(processes: int, *command) -> str:
    """What it printed; on the CPU, one thread each."""
    launch = [sys.executable, "-m", "torch.distributed.run", f"--nproc_per_node={processes}"]
    env = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    port = ["--master_port", str(29500 + os.getpid() % 1000)]
    done = subprocess.run(
        [*launch, *port, *map(str, command)], capture_output=True, text=True, env=env, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_two_processes_update_the_reward_model_as_one_does(rm, tmp_path):
    worker = ROOT / "tests" / "trl_worker.py"
    torchrun(1, worker, rm, tmp_path / "one")
    torchrun(2, worker, rm, tmp_path / "two")
    one, left, right = (torch.load(tmp_path / name) for name in ("one.0", "two.0", "two.1"))
    start = RewardModel.load(rm).model.state_dict()
    assert any((one["rm"][name] - start[name]).abs().max() > 1e-3 for name in start)
    for name, weight in one["rm"].items():
        assert torch.equal(left["rm"][name], right["rm"][name]), "the copies have come apart"
        assert torch.allclose(left["rm"][name], weight, atol=1e-6), name
    assert one["stats"][2] == {} == left["stats"][2]
    for mine, theirs in zip(one["stats"], left["stats"]):
        assert mine == pytest.approx(theirs, abs=1e-5)


def config(untrained, rm, output, **changes):
    settings = {
        "model": untrained, "rm_model": rm, "output": str(output), "steps": 3, "prompts": 4,
        "group_size": 4, "max_new_tokens": 8, "kl_coef": 0.0, "save_every": 1, "micro_batch": 4,
        "negatives": "rollouts", "eval_problems": 4,
    }  # fmt: skip
    return TRLConfig(**settings | changes)


def rows_of(folder) -> list[dict]:
    lines = Path(folder, "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    return [{k: v for k, v in row.items() if k != "step_time"} for row in rows]


def test_an_interrupted_run_goes_on_as_an_unbroken_one(untrained, rm, tmp_path, monkeypatch):
    # a reward model that learns: this policy is never right
    monkeypatch.setattr(cooper_trl.rules, "rule_of", lambda name: lambda text, _: len(text) % 2)
    whole, parted = (config(untrained, rm, tmp_path / name) for name in ("whole", "parted"))
    seen = []
    first = cooper_trl.train(whole, on_row=seen.append)
    assert [row["step"] for row in seen] == [1, 2, 3] and seen[0]["rm/valid_rate"] > 0
    cooper_trl.train(config(untrained, rm, tmp_path / "parted", steps=2))
    second = cooper_trl.train(parted)
    for name in ("policy", "rm"):  # killed before they were written
        shutil.rmtree(tmp_path / "parted" / name)
    cooper_trl.train(parted)  # finished: nothing is trained
    kept = (load_policy(str(tmp_path / name / "policy"))[0] for name in ("whole", "parted"))
    assert all(torch.equal(x, y) for x, y in zip(*(model.parameters() for model in kept)))
    assert rows_of(tmp_path / "whole") == rows_of(tmp_path / "parted")
    for a, b in zip(first.rm.model.parameters(), second.rm.model.parameters()):
        assert torch.equal(a, b)
    a, b = (RewardModel.load(str(tmp_path / name / "rm")) for name in ("whole", "parted"))
    assert all(torch.equal(x, y) for x, y in zip(a.model.parameters(), b.model.parameters()))


def test_it_scores_first_learns_after_and_not_while_evaluating(untrained, rm, tokenizer, tmp_path):
    reward = LearningReward(config(untrained, rm, tmp_path, rm_lr=1e-2, prompts=1))
    texts = [r"\boxed{3}", r"\boxed{4}", "I guess", r"\boxed{5}"]
    ask = {
        "completion_ids": tokenizer(texts).input_ids, "completions": texts,
        "question": ["1 + 2 = ?"] * 4, "answer": ["3"] * 4, "prompts": [[]] * 4,
        "trainer_state": SimpleNamespace(global_step=0),
    }  # fmt: skip
    logged, reward.tokenizer = {}, tokenizer
    before = reward.rm.score(ask["question"], ask["answer"], texts)
    reward.policy = torch.nn.Linear(1, 1).eval()
    assert reward(log_metric=logged.__setitem__, **ask) == pytest.approx(before.tolist())
    assert torch.equal(reward.rm.score(ask["question"], ask["answer"], texts), before)
    reward.policy.train()
    assert reward(log_metric=logged.__setitem__, **ask) == pytest.approx(before.tolist())
    after = reward.rm.score(ask["question"], ask["answer"], texts)
    assert not torch.allclose(after, before)
    assert logged["accuracy"] == 0.25 and logged["rm/valid_rate"] == 0.25


def test_the_assistant_writes_the_negatives(policy, tokenizer, untrained, rm, tmp_path):
    reward = LearningReward(config(untrained, rm, tmp_path, negatives="assistant", prompts=1))
    reward.assistant = policy, tokenizer
    group = cooper_trl.Group([r"\boxed{3}"] * 4, [Problem("1 + 2 = ?", "3")] * 4, 4)
    for question, reference, right, wrong in reward.pairs(group, [True] * 4, step=0):
        assert (question, reference, right) == ("1 + 2 = ?", "3", r"\boxed{3}") and wrong


@pytest.mark.parametrize(
    "changes, says",
    [
        ({"clip_eps": None}, "leave out clip_eps"),
        ({"weight": "sequence"}, "leave out weight"),
        ({"reward": "0.5 rm + 0.5 rule"}, "leave out reward"),
        ({"prompts": 5, "minibatches": 2}, "do not split evenly"),
        ({"rm_updates": 0}, "rm_updates must be"),
        ({"train_problems": 3}, "3 problems are fewer than prompts=4"),
        ({"bf16": True}, "leave out bf16"),
    ],
)
def test_what_trl_does_not_do_is_one_line(untrained, rm, tmp_path, changes, says):
    with pytest.raises(InputError, match=says):
        cooper_trl.train(config(untrained, rm, tmp_path, **changes))


def test_the_rule_is_a_reward_of_a_plain_trainer_and_of_verl(untrained, tmp_path):
    def reward(completions, answer, **columns):
        texts = [messages[-1]["content"] for messages in completions]
        return [float(verify(text, reference)) for text, reference in zip(texts, answer)]

    def compute_score(data_source, solution_str, ground_truth, extra_info=None):
        return float(verify(solution_str, ground_truth))

    policy, tokenizer = load_policy(untrained)
    args = GRPOConfig(
        str(tmp_path), max_steps=1, per_device_train_batch_size=4, num_generations=4,
        max_completion_length=8, use_cpu=True, report_to="none", save_strategy="no",
    )  # fmt: skip
    problems = load_problems("arithmetic", "train", 4)
    rows = [
        {"prompt": [{"role": "user", "content": p.question}], "answer": p.answer} for p in problems
    ]
    GRPOTrainer(policy, reward, args, Dataset.from_list(rows), processing_class=tokenizer).train()
    said = [{"role": "assistant", "content": r"\boxed{\frac12}"}]
    assert reward([said, said], ["0.5", "2"]) == [1.0, 0.0]
    assert compute_score("gsm8k", r"\boxed{1,080}", "1080") == 1.0


def test_another_run_is_not_overwritten(untrained, rm, tmp_path):
    (tmp_path / "metrics.jsonl").write_text("mine", encoding="utf-8")
    with pytest.raises(InputError, match="holds something else"):
        cooper_trl.train(config(untrained, rm, tmp_path))
    assert (tmp_path / "metrics.jsonl").read_text(encoding="utf-8") == "mine"


def test_a_run_that_ended_without_checkpoints_is_not_trained_anew(untrained, rm, tmp_path):
    cfg = config(untrained, rm, tmp_path / "ended", steps=1, save_every=0)
    cooper_trl.train(cfg)
    weights = (tmp_path / "ended" / "policy" / "model.safetensors").read_bytes()
    rows = rows_of(tmp_path / "ended")
    for again in (cfg, replace(cfg, steps=2)):
        with pytest.raises(InputError, match="choose another --output"):
            cooper_trl.train(again)
    assert (tmp_path / "ended" / "policy" / "model.safetensors").read_bytes() == weights
    assert rows_of(tmp_path / "ended") == rows
