"""Families of models, two random layers of each: right, repaired or refused; and broken folders.

Right means: sampler = trainer = one unpadded pass = `generate` of transformers, the same gradient,
and a reward model whose score does not depend on the rest of its batch.
"""

import contextlib
import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import CONFIG_MAPPING, AutoModelForCausalLM

from data import Problem
from reward_model import RewardModel
from rollout import load_policy, load_tokenizer, sample, token_logprobs
from support import selfcheck
from support.errors import InputError

PROBLEMS = [Problem("1 + 2 = ?", "3"), Problem("4 + 5 - 3 + 8 - 2 + 1 = ?", "13")]

# settings that several families share; windows are shorter than the prompts
MIX = {"layer_types": ["sliding_attention", "full_attention"], "sliding_window": 8}
LINEAR = {
    "linear_num_key_heads": 4, "linear_num_value_heads": 4, "linear_key_head_dim": 8,
    "linear_value_head_dim": 8, "layer_types": ["linear_attention", "full_attention"],
}  # fmt: skip
MAMBA = {
    "mamba_n_heads": 8, "mamba_d_head": 8, "mamba_d_state": 8, "mamba_chunk_size": 16,
    "mamba_expand": 2,
}  # fmt: skip
MOE = {
    "moe_intermediate_size": 32, "num_experts": 4, "num_experts_per_tok": 2,
    "shared_expert_intermediate_size": 32,
}  # fmt: skip
LATENT = {
    "kv_lora_rank": 16, "q_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8,
    "v_head_dim": 8, "n_routed_experts": 4, "n_group": 1, "topk_group": 1, "num_experts_per_tok": 2,
    "moe_intermediate_size": 32, "first_k_dense_replace": 1, "num_key_value_heads": 4,
}  # fmt: skip
SSM = {"time_step_rank": 4, "state_size": 8, "chunk_size": 16, "num_heads": 8, "n_groups": 2}
GEMMA4 = MIX | {
    "final_logit_softcapping": 2.0, "hidden_size_per_layer_input": 8,
    "vocab_size_per_layer_input": 64,
}  # fmt: skip

PLAIN = {
    "qwen2": {}, "qwen2_moe": MOE, "qwen3": {}, "qwen3_moe": MOE, "llama": {},
    "mistral": {"sliding_window": 8}, "mixtral": {"num_local_experts": 4},
    "gemma": {}, "gemma3_text": MIX, "phi": {"num_key_value_heads": 4}, "phi3": {},
    "olmo2": {}, "olmoe": {"num_experts": 4, "num_experts_per_tok": 2}, "stablelm": {},
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 256}, "gpt_neox": {},
    "opt": {"ffn_dim": 48, "word_embed_proj_dim": 32}, "bloom": {"n_layer": 2, "n_head": 4},
    "falcon": {"num_kv_heads": 2, "new_decoder_architecture": True, "head_dim": None},
    "starcoder2": {"sliding_window": 8}, "smollm3": {}, "glm4": {}, "ernie4_5": {},
    "seed_oss": {}, "exaone4": MIX, "deepseek_v3": LATENT,
    "gpt_oss": MIX | {"num_local_experts": 4, "num_experts_per_tok": 2,
                      "rope_parameters": {"rope_type": "default", "rope_theta": 1e4}},
}  # fmt: skip
HYBRID = {
    "qwen3_5_text": LINEAR, "qwen3_next": LINEAR | MOE,
    "olmo_hybrid": LINEAR | {"num_key_value_heads": 4},
    "lfm2": {"layer_types": ["conv", "full_attention"], "block_auto_adjust_ff_dim": False},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1, "num_experts": 2,
              "mamba_d_state": 8, "mamba_dt_rank": 4, "use_mamba_kernels": False},
    "bamba": MAMBA | {"attn_layer_indices": [1]},
    "nemotron_h": {"layers_block_type": ["linear_attention", "full_attention", "mlp"],
                   "num_hidden_layers": None, "mamba_num_heads": 8, "mamba_head_dim": 8,
                   "ssm_state_size": 8, "n_groups": 2, "chunk_size": 16},
    "zamba2": {"layers_block_type": ["linear_attention", "hybrid"], "mamba_d_state": 8,
               "mamba_headdim": 8, "n_mamba_heads": 8, "chunk_size": 16, "head_dim": None,
               "num_key_value_heads": 4, "num_mem_blocks": 1, "adapter_rank": 4},
}  # fmt: skip
# a cap or a scale after the head
OWN_LOGITS = {
    "gemma2": MIX | {"final_logit_softcapping": 2.0}, "gemma4_text": GEMMA4,
    "gemma4": {"text_config": GEMMA4, "vision_config": None, "audio_config": None},
    "granite": {"logits_scaling": 4.0}, "cohere": {"logit_scale": 0.25, "num_key_value_heads": 4},
    "granitemoehybrid": MAMBA | {"layer_types": LINEAR["layer_types"], "num_local_experts": 2,
                                 "shared_intermediate_size": 32, "logits_scaling": 4.0},
    "cohere2": MIX | {"logit_scale": 0.25}, "nanochat": {"num_key_value_heads": 4},
    "falcon_h1": MAMBA | {"mamba_d_ssm": 64, "lm_head_multiplier": 0.25},
}  # fmt: skip
# a state outside the cache that is passed, padding that is read, a cache of its own
REFUSED = {
    "mamba": SSM, "mamba2": SSM, "falcon_mamba": SSM, "rwkv": {"attention_hidden_size": 32},
    "recurrent_gemma": {"lru_width": 32, "attention_window_size": 8, "num_key_value_heads": 1,
                        "block_types": ["recurrent", "attention"]},
    "deepseek_v32": LATENT | {"index_topk": 4, "index_head_dim": 8, "index_n_heads": 4,
                              "mlp_layer_types": ["dense", "sparse"]},
    "minimax": {"num_local_experts": 4, "layer_types": LINEAR["layer_types"], "block_size": 8},
}  # fmt: skip
FAMILIES = PLAIN | HYBRID | OWN_LOGITS | REFUSED


def save(family, tokenizer, folder) -> str:
    """A folder with a random model of the family and the tokenizer of the embedded world."""
    ids = {"bos_token_id": None, "eos_token_id": tokenizer.eos_token_id}
    ids["pad_token_id"] = tokenizer.pad_token_id
    text = ids | {
        "vocab_size": len(tokenizer), "hidden_size": 32, "intermediate_size": 48, "head_dim": 8,
        "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
        "max_position_embeddings": 256, "initializer_range": 0.15, "init_std": 0.15,
    }  # fmt: skip
    own = FAMILIES[family]
    if "text_config" in own:
        settings = ids | own | {"text_config": text | own["text_config"]}
    else:
        settings = text | own
    settings = {name: value for name, value in settings.items() if value is not None or name in ids}
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(CONFIG_MAPPING[family](**settings))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def one_by_one(policy, rollouts) -> torch.Tensor:
    """[B, T] log-probabilities of the completions, each row by itself and without padding."""
    logp = torch.zeros_like(rollouts.logp)
    for i, mask in enumerate(rollouts.mask.bool()):
        prompt = rollouts.prompt_ids[i][rollouts.prompt_mask[i].bool()]
        completion = rollouts.completion_ids[i][mask]
        logits = policy(input_ids=torch.cat([prompt, completion])[None], use_cache=False).logits
        scores = logits[0, len(prompt) - 1 : -1].log_softmax(-1)
        logp[i, : len(completion)] = scores.gather(-1, completion[:, None])[:, 0]
    return logp


def embedding_gradient(policy, logp) -> torch.Tensor:
    return torch.autograd.grad(logp.sum(), policy.get_input_embeddings().weight)[0]


@pytest.mark.parametrize("family", PLAIN | HYBRID | OWN_LOGITS)
def test_sampled_scored_trained_and_judged_alike(family, tokenizer, tmp_path):
    folder = save(family, tokenizer, tmp_path / "policy")
    policy, _ = load_policy(folder)
    assert policy.own_logits == (family in OWN_LOGITS)
    draws = torch.Generator(policy.device).manual_seed(0)
    with selfcheck.exact(policy):  # no bf16 on a GPU
        rollouts = sample(policy, tokenizer, PROBLEMS, 3, 12, generator=draws)
        scored, truth = token_logprobs(policy, rollouts)[0], one_by_one(policy, rollouts)
    assert torch.allclose(scored, rollouts.logp, atol=1e-4)
    assert torch.allclose(scored, truth, atol=1e-4)
    gradient = embedding_gradient(policy, scored)
    assert gradient.abs().max() > 0.01
    assert torch.allclose(gradient, embedding_gradient(policy, truth), rtol=1e-3, atol=1e-2)

    ours = sample(policy, tokenizer, PROBLEMS[:1], 1, 6, temperature=0.0)
    prompt = {"input_ids": ours.prompt_ids, "attention_mask": ours.prompt_mask}
    theirs = policy.generate(**prompt, do_sample=False, max_new_tokens=6)
    width = ours.completion_ids.shape[1]
    assert theirs[0, ours.prompt_ids.shape[1] :][:width].tolist() == ours.completion_ids[0].tolist()

    columns = [p.question for p in PROBLEMS], ["3", "13"], ["3", "4 plus 5 is \\boxed{9}"]
    rm = RewardModel.load(folder)
    score = rm.score(*columns)
    alone = [rm.score(*[[column[i]] for column in columns]) for i in range(2)]
    assert torch.allclose(score, torch.cat(alone), atol=1e-5)
    # a reward model is an ordinary folder, whose head is not drawn anew
    rm.model.save_pretrained(tmp_path / "rm")
    tokenizer.save_pretrained(tmp_path / "rm")
    again = RewardModel.load(str(tmp_path / "rm")).score(*columns)
    assert torch.allclose(again, score, atol=1e-5)


@pytest.mark.parametrize("family", REFUSED)
def test_what_cannot_be_right_is_refused_in_one_line(family, tokenizer, tmp_path):
    with pytest.raises(InputError, match="trained here|sampled here") as error:
        load_policy(save(family, tokenizer, tmp_path))
    assert "\n" not in str(error.value)


# -- broken folders ------------------------------------------------------------------------------


@pytest.fixture
def folder(untrained, tmp_path):
    """A sound policy to break."""
    return shutil.copytree(untrained, tmp_path / "policy")


def change_weights(folder, change) -> None:
    weights = change(load_file(folder / "model.safetensors"))
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def change_json(path, **settings) -> None:
    path.write_text(
        json.dumps(json.loads(path.read_text(encoding="utf-8")) | settings), encoding="utf-8"
    )


def rename(prefix):
    return lambda weights: {prefix + key: value for key, value in weights.items()}


@pytest.mark.parametrize(
    "change, says",
    [
        (rename("_fsdp_wrapped_module."), "inside its FSDP"),
        (rename("module."), "inside its DDP"),
        (rename("_orig_mod."), "inside its torch.compile"),
        (rename("base_model.model."), "inside its PEFT"),
        (rename("backbone."), "were they renamed"),
        (lambda w: {k: v for k, v in w.items() if "layers.1.mlp.up" not in k}, "up_proj"),
        (lambda w: w | {"model.layers.0.mlp.up_proj.lora_A.weight": torch.ones(2, 64)}, "LoRA"),
        (lambda w: w | {"model.layers.9.mlp.up_proj.weight": torch.ones(2, 64)}, "more layers"),
        (lambda w: w | {"model.norm.weight": torch.ones(32)}, r"\[32\] in the file, \[64\]"),
        (lambda w: w | {"model.norm.weight": torch.full((64,), torch.nan)}, "not finite"),
    ],
)
def test_weights_that_are_not_all_there_are_one_clear_line(folder, change, says):
    change_weights(folder, change)
    for load in (load_policy, RewardModel.load):
        with pytest.raises(InputError, match=says) as error:
            load(str(folder))
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "file, keep",
    [
        (file, keep)
        for file in ("model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json")
        for keep in (0, 0.5, None)
        if (file, keep) != ("tokenizer_config.json", None)  # transformers does without
    ] + [("generation_config.json", 0.5)],
)  # fmt: skip
def test_files_that_are_cut_or_missing_are_one_clear_line(folder, file, keep):
    data = (folder / file).read_bytes()
    (folder / file).unlink()
    if keep is not None:
        (folder / file).write_bytes(data[: int(len(data) * keep)])
    with pytest.raises(InputError) as error:
        load_policy(str(folder))
    assert "\n" not in str(error.value) and str(folder) in str(error.value)


@pytest.mark.parametrize(
    "settings",
    [
        {"model_type": "nonesuch"}, {"model_type": "t5"}, {"num_attention_heads": "x"},
        {"num_hidden_layers": 5}, {"vocab_size": 20}, {"rope_parameters": {"rope_type": "zzz"}},
        {"quantization_config": {"quant_method": "gptq", "bits": 4}}, {"dtype": "float99"},
        {"model_type": "mine", "auto_map": {"AutoConfig": "a.B", "AutoModelForCausalLM": "a.C"}},
    ],
)  # fmt: skip
def test_configs_that_make_no_sense_are_one_clear_line(folder, settings):
    change_json(folder / "config.json", **settings)
    with pytest.raises(InputError) as error:
        load_policy(str(folder))
    assert "\n" not in str(error.value)


def test_an_adapter_and_a_reward_model_are_no_policies(folder, untrained, tokenizer, tmp_path):
    (folder / "adapter_config.json").write_text("{}", encoding="utf-8")
    with pytest.raises(InputError, match="PEFT adapter"):
        load_policy(str(folder))
    RewardModel.load(untrained).model.save_pretrained(tmp_path / "rm")
    tokenizer.save_pretrained(tmp_path / "rm")
    with pytest.raises(InputError, match="scores texts"):
        load_policy(str(tmp_path / "rm"))


def test_no_eos_token_at_all_is_one_clear_line(folder):
    change_json(folder / "tokenizer_config.json", eos_token=None)
    change_json(folder / "config.json", eos_token_id=None)
    (folder / "generation_config.json").unlink()
    with pytest.raises(InputError, match="no EOS token"):
        load_policy(str(folder))


def test_a_pad_token_outside_the_embedding_is_not_used(folder):
    change_json(folder / "tokenizer_config.json", pad_token="<new pad>")
    policy, tokenizer = load_policy(str(folder))
    assert tokenizer.pad_token_id >= policy.config.vocab_size
    rollouts = sample(policy, tokenizer, PROBLEMS, 2, 4)
    assert rollouts.prompt_ids.max() < policy.config.vocab_size
    rm = RewardModel.load(str(folder))
    assert rm.score(["1 + 2 = ?"], ["3"], ["3"]).isfinite().all()


def test_a_tokenizer_of_another_model_is_one_clear_line(folder):
    tokenizer = load_tokenizer(str(folder))
    tokenizer.add_tokens(["<|extra|>"])
    tokenizer.chat_template += "<|extra|>"
    tokenizer.save_pretrained(folder)
    with pytest.raises(InputError, match="do not belong together"):
        load_policy(str(folder))


# -- the self-check ------------------------------------------------------------------------------


def test_the_check_moves_no_random_number_and_leaves_half_precision_as_it_was(folder):
    torch.manual_seed(3)
    policy, tokenizer = load_policy(str(folder))
    assert torch.rand(1) == torch.rand(1, generator=torch.Generator().manual_seed(3))
    assert "agree to" in policy.checked and policy.generation_config.eos_token_id == 1
    policy.to(torch.bfloat16).save_pretrained(folder)
    half, _ = load_policy(str(folder), dtype="auto")
    assert half.dtype == torch.bfloat16 and "agree to" in half.checked
    pairs = zip(half.parameters(), policy.parameters())
    assert all(torch.equal(a, b) for a, b in pairs)


def test_the_check_is_in_float32_on_a_gpu_too(policy, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch, "autocast", lambda *a, dtype: dtype)
    with selfcheck.exact(policy):
        assert isinstance(selfcheck.autocast(), contextlib.nullcontext)
    assert selfcheck.autocast() == torch.bfloat16


def test_experts_that_are_all_but_tied_are_no_reason_to_refuse(tokenizer, tmp_path):
    """A rounding decides which one is asked, in float32; a big model has some such tokens."""
    folder = save("qwen3_moe", tokenizer, tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    noise = torch.Generator().manual_seed(0)
    for name, gate in weights.items():
        if name.endswith("mlp.gate.weight"):
            tied = torch.randn(gate.shape, generator=noise) * 3e-8
            weights[name] = gate[:1].expand_as(gate) + tied
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    policy, _ = load_policy(folder)
    draws = torch.Generator(policy.device).manual_seed(0)
    rollouts = sample(policy, tokenizer, PROBLEMS, 8, 16, generator=draws)
    apart = (token_logprobs(policy, rollouts)[0] - rollouts.logp).abs().max()
    assert apart > 1e-3, "in float32 the check alone would refuse it"


def test_a_model_that_does_more_to_its_logits_is_noticed_and_scored_right(tokenizer, tmp_path):
    """Scored by head(decoder(x)) alone, as before, it would be far off."""
    policy, _ = load_policy(save("gemma2", tokenizer, tmp_path))
    rollouts = sample(policy, tokenizer, PROBLEMS, 3, 8)
    policy.own_logits = False
    assert (token_logprobs(policy, rollouts)[0] - rollouts.logp).abs().max() > 0.1


@pytest.mark.parametrize("kind", [torch.int8, torch.float8_e4m3fn])
def test_weights_that_are_stored_quantised_are_one_clear_line(untrained, tmp_path, kind):
    folder = tmp_path / "model"
    shutil.copytree(untrained, folder)
    weights = load_file(folder / "model.safetensors")
    name = "model.layers.0.mlp.up_proj.weight"
    weights[name] = weights[name].to(kind)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    for load in (load_policy, RewardModel.load):
        with pytest.raises(InputError, match="is stored as .*, quantised"):
            load(str(folder))
