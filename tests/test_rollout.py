"""Sampling: masks, dropped rows, log-probabilities of exactly the distribution sampled from."""

import pytest
import torch

import rollout
from data import InputError, Problem, load_problems
from grpo import token_logprobs
from rollout import draw_token, eos_ids, left_pad, positions, sample

PROBLEMS = load_problems("arithmetic", "train", 6)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


# -- draw_token ----------------------------------------------------------------------------------


@pytest.mark.parametrize("temperature, top_p", [(1.0, 1.0), (0.5, 1.0), (1.0, 0.6)])
def test_frequencies_of_20000_draws_match_the_distribution(temperature, top_p):
    p = torch.tensor([0.5, 0.3, 0.15, 0.05])
    if temperature == 0.5:  # squares, renormalised: .25 .09 .0225 .0025 over .365
        expected = torch.tensor([0.684932, 0.246575, 0.061644, 0.006849])
    elif top_p == 0.6:  # .5 is not enough, .5 + .3 is: 5/8 and 3/8
        expected = torch.tensor([0.625, 0.375, 0.0, 0.0])
    else:
        expected = p
    token, logp = draw_token(p.log().expand(20_000, 4), temperature, top_p, generator())
    count = torch.bincount(token, minlength=4).double()
    kept = expected > 0
    assert count[~kept].sum() == 0
    chi_square = ((count - 20_000 * expected)[kept] ** 2 / (20_000 * expected)[kept]).sum()
    assert chi_square < 16.3, "99.9 % point of chi-square with 3 degrees of freedom"
    assert torch.allclose(logp, expected.log()[token], atol=1e-4), "not the distribution drawn from"


def test_temperature_zero_takes_the_mode_with_certainty():
    token, logp = draw_token(torch.tensor([[0.1, 3.0, 2.0]]), temperature=0)
    assert (token.tolist(), logp.tolist()) == ([1], [0.0])


def test_top_p_always_keeps_the_most_likely_token():
    token, logp = draw_token(
        torch.tensor([[0.0, 1.0, 0.5]]).expand(50, 3), top_p=1e-9, generator=generator()
    )
    assert set(token.tolist()) == {1} and logp.abs().max() < 1e-6


# -- padding and positions -----------------------------------------------------------------------


def test_left_padding_and_positions():
    ids, mask = left_pad([[7, 8, 9], [5]], pad=0, to="cpu")
    assert ids.tolist() == [[7, 8, 9], [0, 0, 5]]
    assert mask.tolist() == [[1, 1, 1], [0, 0, 1]]
    assert positions(mask).tolist() == [[0, 1, 2], [0, 0, 0]]


# -- masks ---------------------------------------------------------------------------------------


def scripted(policy, monkeypatch, script):
    """Make `draw_token` follow `script` [B][T], also after finished rows have left."""
    state = {"alive": list(range(len(script))), "t": 0}

    def choose(logits, *ignored):
        token = torch.tensor([script[row][state["t"]] for row in state["alive"]])
        stops = eos_ids(policy, state["tokenizer"])
        state["alive"] = [r for r, t in zip(state["alive"], token.tolist()) if t not in stops]
        state["t"] += 1
        return token, torch.full((len(token),), -0.5)

    monkeypatch.setattr(rollout, "draw_token", choose)
    return state


@pytest.mark.parametrize("pad_is_eos", [False, True])
def test_first_eos_is_in_everything_after_is_out(policy, tokenizer, monkeypatch, pad_is_eos):
    eos, other = tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids("7")
    script = [
        [other, eos, other, other],
        [other] * 4,
        [eos, other, other, other],
        [other, other, other, eos],
    ]
    state = scripted(policy, monkeypatch, script)
    state["tokenizer"] = tokenizer
    before = tokenizer.pad_token
    tokenizer.pad_token = tokenizer.eos_token if pad_is_eos else before
    try:
        r = sample(policy, tokenizer, PROBLEMS[:2], 2, max_new_tokens=4)
    finally:
        tokenizer.pad_token = before
    assert r.mask.tolist() == [[1, 1, 0, 0], [1, 1, 1, 1], [1, 0, 0, 0], [1, 1, 1, 1]]
    assert r.truncated.tolist() == [False, True, False, False]
    assert r.completion_ids[0, :2].tolist() == [other, eos]
    assert (r.logp[r.mask == 1] == -0.5).all() and (r.logp[r.mask == 0] == 0).all()


def test_several_eos_ids_all_stop(policy, tokenizer, monkeypatch):
    second = tokenizer.convert_tokens_to_ids("<|unk|>")
    policy.generation_config.eos_token_id = [tokenizer.eos_token_id, second]
    other = tokenizer.convert_tokens_to_ids("7")
    state = scripted(
        policy, monkeypatch, [[other, second, other], [tokenizer.eos_token_id, other, other]]
    )
    state["tokenizer"] = tokenizer
    r = sample(policy, tokenizer, PROBLEMS[:2], 1, max_new_tokens=3)
    assert r.mask.tolist() == [[1, 1], [1, 0]]
    assert not r.truncated.any()


# -- the sampler and the trainer agree -----------------------------------------------------------


@pytest.mark.parametrize("temperature", [1.0, 0.6, 1.5])
def test_sampler_and_trainer_score_the_same(policy, tokenizer, temperature):
    """KV cache, left padding, expansion and dropped rows against one plain forward pass."""
    r = sample(policy, tokenizer, PROBLEMS, 8, 24, temperature, generator=generator())
    assert len(set(r.mask.sum(1).tolist())) > 3, "rows should end at different times for this test"
    logp, _ = token_logprobs(policy, r, temperature)
    assert torch.allclose(logp, r.logp, atol=1e-5)
    wrong, _ = token_logprobs(policy, r, temperature * 1.1)
    assert (wrong - r.logp).abs().max() > 1e-3


def test_a_group_is_diverse_reproducible_and_follows_its_generator(policy, tokenizer):
    first = sample(policy, tokenizer, PROBLEMS[:2], 8, 8, generator=generator(5))
    again = sample(policy, tokenizer, PROBLEMS[:2], 8, 8, generator=generator(5))
    other = sample(policy, tokenizer, PROBLEMS[:2], 8, 8, generator=generator(6))
    assert len(set(first.completion_ids[:8, 0].tolist())) > 1, "a group of one text teaches nothing"
    assert torch.equal(first.completion_ids, again.completion_ids)
    assert first.texts != other.texts
    torch.manual_seed(1)
    ignoring_global = sample(policy, tokenizer, PROBLEMS[:2], 8, 8, generator=generator(5))
    assert torch.equal(first.completion_ids, ignoring_global.completion_ids)


def test_temperature_zero_is_deterministic(policy, tokenizer):
    a = sample(policy, tokenizer, PROBLEMS[:3], 2, 8, temperature=0.0)
    assert a.texts[0] == a.texts[1]
    assert a.texts == sample(policy, tokenizer, PROBLEMS[:3], 2, 8, temperature=0.0).texts


def test_row_order_and_texts(policy, tokenizer):
    r = sample(policy, tokenizer, PROBLEMS[:3], 2, 8, generator=generator())
    assert [p.question for p in r.problems] == [PROBLEMS[i].question for i in (0, 0, 1, 1, 2, 2)]
    for row, text in enumerate(r.texts):
        kept = r.completion_ids[row][r.mask[row].bool()].tolist()
        assert text == tokenizer.decode(kept, skip_special_tokens=True)


def test_rows_trims_only_padding(policy, tokenizer):
    r = sample(policy, tokenizer, PROBLEMS, 2, 24, generator=generator())
    index = torch.tensor([3, 0])
    part = r.rows(index)
    assert part.texts == [r.texts[3], r.texts[0]]
    assert part.mask.sum(1).tolist() == r.mask[index].sum(1).tolist()
    assert part.prompt_mask.sum(1).tolist() == r.prompt_mask[index].sum(1).tolist()
    assert part.mask.shape[1] == part.mask.sum(1).max() and part.prompt_mask[:, 0].any()


def test_matches_generate_of_transformers_when_greedy(policy, tokenizer):
    ours = sample(policy, tokenizer, PROBLEMS[:1], 1, 12, temperature=0.0)
    theirs = policy.generate(
        input_ids=ours.prompt_ids,
        attention_mask=ours.prompt_mask,
        do_sample=False,
        max_new_tokens=12,
    )
    width = ours.completion_ids.shape[1]
    assert theirs[0, ours.prompt_ids.shape[1] :][:width].tolist() == ours.completion_ids[0].tolist()


# -- errors --------------------------------------------------------------------------------------


def test_a_tokenizer_without_chat_template_is_one_clear_line(policy, tokenizer, monkeypatch):
    monkeypatch.setattr(tokenizer, "chat_template", None)
    with pytest.raises(InputError, match="no chat template"):
        sample(policy, tokenizer, PROBLEMS[:1], 2, 4)


def test_a_prompt_beyond_the_context_is_one_clear_line(policy, tokenizer):
    long = Problem("7 + 5 " * 200 + "= ?", "12")
    with pytest.raises(InputError, match="context of 256"):
        sample(policy, tokenizer, [long], 2, 4)


@pytest.mark.parametrize("name", ["no/such/folder", "nowhere", "."])
def test_a_missing_model_is_one_clear_line(name):
    with pytest.raises(InputError, match="no model at"):
        rollout.load_policy(name)


def test_a_saved_policy_loads_with_its_own_tokenizer(untrained, policy, tokenizer):
    """AutoTokenizer would put Qwen2's byte-level decoder on it and glue the words together."""
    loaded, loaded_tokenizer = rollout.load_policy(untrained)
    text = "7 plus 5 is 12 so \\boxed{12}"
    assert loaded_tokenizer.decode(loaded_tokenizer(text).input_ids) == text
    ids = torch.tensor([tokenizer(text).input_ids])
    assert torch.equal(loaded(input_ids=ids).logits, policy(input_ids=ids).logits)
    assert not loaded.training and loaded(input_ids=ids).logits.isfinite().all()
