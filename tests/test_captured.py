"""Decoding with fixed shapes: on a CPU without a graph, the same numbers as the plain loop."""

import pytest
import torch
from transformers.cache_utils import DynamicLayer

from data import load_problems
from rollout import draw_token, eos_ids, sample, token_logprobs
from support import captured
from support.selfcheck import rows_that_end

PROBLEMS = load_problems("arithmetic", "train", 4)


@pytest.fixture
def fixed(monkeypatch):
    """A switch: from then on, sampling goes the way of a GPU. Returns the sizes of its batches."""
    sizes, begin, rows = [], captured.Batch.begin, captured.Batch.rows

    def seen(batch):
        sizes.append(len(batch.mask))
        return batch

    def switch():
        monkeypatch.setattr(captured, "possible", lambda policy, cache: True)
        monkeypatch.setattr(captured.Batch, "begin", lambda *args: seen(begin(*args)))
        monkeypatch.setattr(captured.Batch, "rows", lambda *args: seen(rows(*args)))
        return sizes

    return switch


def test_the_same_greedy_completions_while_rows_end(policy, tokenizer, fixed):
    with rows_that_end(policy):
        plain = sample(policy, tokenizer, PROBLEMS, 2, 40, temperature=0.0)
        sizes = fixed()
        ours = sample(policy, tokenizer, PROBLEMS, 2, 40, temperature=0.0)
    assert torch.equal(ours.completion_ids, plain.completion_ids)
    assert torch.equal(ours.mask, plain.mask) and ours.texts == plain.texts
    assert torch.equal(ours.truncated, plain.truncated)
    assert sizes[0] == 8


def test_finished_rows_leave_when_they_are_half(policy, tokenizer, fixed, monkeypatch):
    monkeypatch.setattr(captured, "LOOK_EVERY", 2)
    sizes = fixed()
    with rows_that_end(policy):
        rollouts = sample(policy, tokenizer, PROBLEMS, 16, 40)
        stop = torch.isin(rollouts.completion_ids, torch.tensor(eos_ids(policy, tokenizer)))
    assert sizes[0] == 64 and len(sizes) > 2
    assert all(2 * after <= before for before, after in zip(sizes, sizes[1:]))
    scored, _ = token_logprobs(policy, rollouts)
    assert torch.allclose(scored, rollouts.logp, atol=1e-4)
    # a row ends with its first EOS, or at the limit
    ends = stop.gather(1, rollouts.mask.sum(1, keepdim=True).long() - 1)[:, 0]
    assert torch.equal(ends, ~rollouts.truncated)
    assert (stop & rollouts.mask.bool()).sum(1).le(1).all()
    assert (rollouts.logp[~rollouts.mask.bool()] == 0).all()


def test_the_limit_holds_and_cuts(policy, tokenizer, fixed):
    fixed()
    rollouts = sample(policy, tokenizer, PROBLEMS, 2, 1)
    assert rollouts.completion_ids.shape == (8, 1) and rollouts.mask.all()


def test_on_a_cpu_and_where_it_is_switched_off_the_plain_loop_is_taken(policy):
    class Cache:
        layers = [DynamicLayer()]

    class Model:
        device = torch.device("cuda")
        cuda_graphs = True

    assert captured.possible(Model, Cache)
    Model.cuda_graphs = False
    assert not captured.possible(Model, Cache)
    Model.cuda_graphs, Cache.layers = True, [object()]
    assert not captured.possible(Model, Cache)
    assert not captured.possible(policy, Cache)


def test_a_race_drawn_before_is_the_one_that_is_run():
    logits, race = torch.randn(5, 7), torch.empty(5, 7).exponential_()
    token, logp, _ = draw_token(logits, race=race)
    assert torch.equal(token, (torch.log_softmax(logits, -1) - race.log()).argmax(-1))
    assert torch.allclose(logp, torch.log_softmax(logits, -1).gather(1, token[:, None])[:, 0])
