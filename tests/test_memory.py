"""LoRA and gradient checkpointing: the same mathematics in less memory."""

import copy
import dataclasses

import pytest
import torch
from transformers import OPTConfig, OPTForCausalLM

import grpo
from data import load_problems
from grpo import GRPOConfig
from rollout import load_policy, sample, token_logprobs
from support import memory
from support.errors import InputError

PROBLEMS = load_problems("arithmetic", "train", 4)


def gradient(policy, rollouts, context):
    policy.zero_grad()
    with context:
        logp, _ = token_logprobs(policy, rollouts, entropy_grad=False)
        logp.sum().backward()
    return {n: p.grad.clone() for n, p in policy.named_parameters() if p.grad is not None}


def saved_bytes(policy, rollouts, context) -> int:
    """What a forward pass keeps for the backward pass, weights left out."""
    kept, own = {}, {p.data_ptr() for p in policy.parameters()}

    def pack(x):
        if x.data_ptr() not in own:
            kept[x.data_ptr()] = x.numel() * x.element_size()
        return x

    with context, torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        logp, _ = token_logprobs(policy, rollouts, entropy_grad=False)
    return sum(kept.values())


def test_checkpointing_gives_the_same_gradient_from_less(untrained, tokenizer):
    policy, _ = load_policy(untrained)
    rollouts = sample(policy, tokenizer, PROBLEMS, 2, 12)
    whole = gradient(policy, rollouts, memory.recomputing(policy))
    much = saved_bytes(policy, rollouts, memory.recomputing(policy))
    memory.set_checkpointing(policy)
    assert saved_bytes(policy, rollouts, memory.recomputing(policy)) < much / 3
    found = gradient(policy, rollouts, memory.recomputing(policy))
    assert found.keys() == whole.keys()
    assert all(torch.equal(found[name], whole[name]) for name in whole)
    assert not any(module.training for module in policy.modules())
    again = sample(policy, tokenizer, PROBLEMS, 2, 12, generator=torch.Generator().manual_seed(0))
    assert again.mask.any(), "sampling reads no cache in training mode"


def test_layers_with_dropout_of_their_own_do_not_draw(tokenizer):
    """OPT's own layers ask for it, in training mode."""
    torch.manual_seed(0)
    policy = OPTForCausalLM(
        OPTConfig(
            vocab_size=len(tokenizer),
            hidden_size=32,
            ffn_dim=48,
            num_hidden_layers=2,
            num_attention_heads=4,
            word_embed_proj_dim=32,
            dropout=0.5,
            layerdrop=0.5,
            max_position_embeddings=256,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )  # fmt: skip
    ).eval()
    rollouts = sample(policy, tokenizer, PROBLEMS, 2, 12)
    whole = gradient(policy, rollouts, memory.recomputing(policy))
    memory.set_checkpointing(policy)
    found = gradient(policy, rollouts, memory.recomputing(policy))
    assert all(torch.allclose(found[name], whole[name], atol=1e-6) for name in whole)


@pytest.fixture
def lora(untrained):
    pytest.importorskip("peft")
    policy, _ = load_policy(untrained)
    memory.add_lora(policy, 4)
    return policy


def test_lora_begins_as_the_model_and_trains_a_few_weights(lora, untrained, tokenizer):
    plain, _ = load_policy(untrained)
    rollouts = sample(plain, tokenizer, PROBLEMS, 2, 12)
    assert torch.equal(token_logprobs(lora, rollouts)[0], token_logprobs(plain, rollouts)[0])
    sizes = [sum(p.numel() for p in ps) for ps in (memory.trainable(lora), lora.parameters())]
    assert 0 < sizes[0] < sizes[1] / 4
    assert set(memory.trained(lora).state_dict()) == {
        name for name, _ in lora.named_parameters() if "lora_" in name
    }


def test_the_reference_is_the_policy_without_lora(lora, untrained, tokenizer):
    plain, _ = load_policy(untrained)
    rollouts = sample(plain, tokenizer, PROBLEMS, 2, 12)
    with torch.no_grad():
        for p in memory.trainable(lora):
            p.add_(0.1)
    moved = token_logprobs(lora, rollouts)[0]
    with memory.as_reference(lora, lora):
        start = token_logprobs(lora, rollouts)[0]
    assert torch.equal(start, token_logprobs(plain, rollouts)[0])
    assert not torch.allclose(moved, start, atol=1e-3)
    assert torch.equal(token_logprobs(lora, rollouts)[0], moved)
    assert len(memory.trainable(lora)) > 0


def test_a_merged_model_is_an_ordinary_one_with_the_same_numbers(lora, tokenizer, tmp_path):
    rollouts = sample(lora, tokenizer, PROBLEMS, 2, 12)
    with torch.no_grad():
        for p in memory.trainable(lora):
            p.add_(0.1)
    memory.merged(lora).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    loaded, _ = load_policy(str(tmp_path))
    mine, theirs = (token_logprobs(p, rollouts)[0] for p in (lora, loaded))
    assert torch.allclose(mine, theirs, atol=1e-4)
    assert memory.has_lora(lora), "the policy itself stays as it is"


@pytest.mark.parametrize("kl_coef", [0.0, 0.01])
def test_a_run_with_lora_resumes_bit_for_bit_and_leaves_an_ordinary_policy(
    untrained, tmp_path, monkeypatch, kl_coef
):
    pytest.importorskip("peft")
    cfg = GRPOConfig(
        model=untrained, output=str(tmp_path / "whole"), steps=3, prompts=4, group_size=4,
        max_new_tokens=8, lora_rank=4, gradient_checkpointing=True, kl_coef=kl_coef, lr=1e-2,
        eval_every=1, eval_problems=4, eval_samples=1, save_every=1, reward="random",
    )  # fmt: skip
    whole = grpo.train(cfg)
    assert any(row.get("grad_norm") for row in whole)
    parted = dataclasses.replace(cfg, output=str(tmp_path / "parted"), steps=1)
    grpo.train(parted)
    again = grpo.train(dataclasses.replace(parted, steps=3))
    strip = [{k: v for k, v in row.items() if k != "step_time"} for row in whole]
    assert strip == [{k: v for k, v in row.items() if k != "step_time"} for row in again]
    a, b = (load_policy(str(tmp_path / name / "policy"))[0] for name in ("whole", "parted"))
    assert all(torch.equal(x, y) for x, y in zip(a.parameters(), b.parameters()))
    start, _ = load_policy(untrained)
    assert not all(torch.equal(x, y) for x, y in zip(a.parameters(), start.parameters()))


def test_without_peft_one_line_says_what_to_install(untrained, monkeypatch):
    policy, _ = load_policy(untrained)
    monkeypatch.setitem(__import__("sys").modules, "peft", None)
    with pytest.raises(InputError, match="pip install peft"):
        memory.add_lora(copy.deepcopy(policy), 4)
