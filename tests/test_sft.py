"""Supervised training: the gradient, whose texts, and that they are learnt."""

import json
from types import SimpleNamespace

import pytest
import torch

import grpo
import sft
from data import Problem
from grpo import GRPOConfig
from prompts import rewrite_prompt, solve_prompt
from rollout import token_logprobs
from sft import SFTConfig, written
from support.chat import chat_ids
from support.errors import InputError

PROBLEMS = [Problem("7 + 5 - 3 = ?", "9"), Problem("1 + 1 = ?", "2")]


def short_run(model, tmp_path, **changes):
    return SFTConfig(
        model=model, output=str(tmp_path / "run"), prompts=4, group_size=4, max_new_tokens=8,
        eval_every=0, eval_problems=4, **changes,
    )  # fmt: skip


def test_written_texts_are_tokens_that_end(policy, tokenizer):
    rollouts = written(policy, tokenizer, PROBLEMS, [r"I guess \boxed{9}", "2"])
    assert rollouts.mask.sum(1).tolist() == [6, 2] and rollouts.group_size == 1
    for row, text in zip(range(2), rollouts.texts):
        ids = rollouts.completion_ids[row][rollouts.mask[row].bool()]
        assert tokenizer.decode(ids, skip_special_tokens=True) == text
        assert ids[-1] == tokenizer.eos_token_id


def test_a_text_may_answer_another_message_than_solve_this(policy, tokenizer):
    prompts = [None, rewrite_prompt("1 + 1 = ?", "2")]
    rollouts = written(policy, tokenizer, PROBLEMS, ["9", "3"], prompts)
    asked = [ids[mask.bool()] for ids, mask in zip(rollouts.prompt_ids, rollouts.prompt_mask)]
    assert asked[0].tolist() == chat_ids(tokenizer, solve_prompt("7 + 5 - 3 = ?"))
    assert asked[1].tolist() == chat_ids(tokenizer, prompts[1])


def test_the_gradient_is_that_of_the_mean_log_likelihood(policy, tokenizer):
    rollouts = written(policy, tokenizer, PROBLEMS, [r"I guess \boxed{9}", "2"])
    logp, _ = token_logprobs(policy, rollouts)
    (-(logp * rollouts.mask).sum() / rollouts.mask.sum()).backward()
    wanted = [p.grad.clone() for p in policy.parameters()]
    policy.zero_grad()
    logp, _ = token_logprobs(policy, rollouts)
    cfg = SFTConfig()
    loss, _ = grpo.policy_loss(logp, rollouts.logp, torch.ones(2), rollouts.mask, cfg)
    loss.backward()
    for p, grad in zip(policy.parameters(), wanted):
        torch.testing.assert_close(p.grad, grad)


def test_given_texts_are_learnt(untrained, tmp_path):
    cfg = short_run(untrained, tmp_path, solutions="given", steps=40, lr=3e-3)
    history = sft.train(cfg)
    assert history[1]["accuracy"] == 1, "they are right"
    assert history[1]["token_prob"] < 0.05 and history[-1]["token_prob"] > 0.3


def test_samples_are_those_that_the_rule_proves_right(untrained, tmp_path, monkeypatch):
    cfg = short_run(untrained, tmp_path, steps=1, pool_steps=2)
    with pytest.raises(InputError, match="none of the policy's samples is right"):
        sft.train(cfg)
    monkeypatch.setattr("rules.rule_of", lambda spec: lambda text, problem: len(text) > 20)
    pool = sft.right_samples(sft.learning.start(cfg), cfg)
    assert 0 < len(pool) < 32 and all(len(text) > 20 for _, text, _ in pool)


@pytest.mark.parametrize("solutions", ["given", "samples"])
def test_killed_and_resumed_it_ends_bit_for_bit_alike(
    untrained, tmp_path, monkeypatch, resumes_alike, solutions
):
    monkeypatch.setattr("rules.rule_of", lambda spec: lambda text, problem: len(text) > 20)
    cfg = short_run(untrained, tmp_path, solutions=solutions, steps=4, save_every=1, lr=1e-2)
    resumes_alike(sft, cfg)


def test_texts_of_a_file(untrained, tmp_path):
    file = tmp_path / "solutions.jsonl"
    row = {"question": "How many?", "solution": r"so \boxed{9}"}
    other = row | {"prompt": "Is it 9?", "solution": "Yes."}
    file.write_text(f"{json.dumps(row)}\n{json.dumps(other)}\n", encoding="utf-8")
    learner = SimpleNamespace(held_out=[])
    pool = sft.solutions_of(learner, short_run(untrained, tmp_path, solutions=str(file)))
    assert pool[0] == (Problem("How many?", "9"), r"so \boxed{9}", None)
    assert pool[1][1:] == ("Yes.", "Is it 9?")
    learner.held_out = [Problem("How many?", "9")]
    with pytest.raises(InputError, match="no question that is not held out"):
        sft.solutions_of(learner, short_run(untrained, tmp_path, solutions=str(file)))
    file.write_text('{"question": "How many?"}\n', encoding="utf-8")
    with pytest.raises(InputError, match="solutions.jsonl:1"):
        sft.solutions_of(learner, short_run(untrained, tmp_path, solutions=str(file)))
    with pytest.raises(InputError, match="samples, given, or"):
        sft.solutions_of(None, short_run(untrained, tmp_path, solutions="none.jsonl"))


def test_a_switch_that_does_nothing_here_is_refused(untrained, tmp_path):
    with pytest.raises(InputError, match="leave out staleness, reward, clip_eps"):
        sft.train(short_run(untrained, tmp_path, staleness=2, reward="format", clip_eps=0.1))
    with pytest.raises(InputError, match="weight must be one of none"):
        sft.train(short_run(untrained, tmp_path, weight="token"))
    assert isinstance(SFTConfig(), GRPOConfig)
