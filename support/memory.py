"""Two ways to train a model that would not fit: LoRA, and gradient checkpointing.

LoRA (arXiv:2106.09685), through the `peft` library: each linear layer gets y = W x + 2 B A x with
W frozen, A [rank, in] and B [out, rank], B = 0 at the start. Gradient and AdamW's moments are
those of A and B alone, and the KL's reference is the same model with B A left out.

Gradient checkpointing keeps the input of each layer and computes the rest again in the backward
pass: a third more arithmetic for a fraction of the activations.
"""

import contextlib
import copy
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from transformers.modeling_layers import GradientCheckpointingLayer

from support.errors import InputError


@dataclass(frozen=True)
class Resources:
    """The fields of grpo.GRPOConfig that save memory or time."""

    bf16: bool | None = None  # arithmetic in bfloat16 over fp32 weights; None: on a GPU
    share_prompts: bool = False  # train: read a prompt once per micro-batch, not once per row
    lora_rank: int | None = None  # train low-rank weights beside frozen ones (needs peft)
    gradient_checkpointing: bool = False  # less memory, a third more arithmetic
    cuda_graphs: bool = True  # on a GPU: decode with a captured step, see support/captured.py


def add_lora(policy, rank: int, seed: int = 0, bf16: bool | None = None) -> None:
    """In place: from here on only A, drawn with `seed`, and B are trained. Raises InputError
    without peft. bf16: the run's, see Resources."""
    try:
        from peft import LoraConfig
    except ImportError:
        raise InputError("lora_rank needs the peft library: pip install peft") from None
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        policy.add_adapter(LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear"))
    if (
        policy.device.type == "cuda" and bf16 is not False
    ):  # what autocast would round them to in every step
        for layer in lora_layers(policy).values():
            layer.get_base_layer().to(torch.bfloat16)


@contextlib.contextmanager
def without_lora(policy) -> Iterator[None]:
    """The model as it was loaded."""
    policy.disable_adapters()
    try:
        yield
    finally:
        policy.enable_adapters()


def has_lora(policy) -> bool:
    return getattr(policy, "_hf_peft_config_loaded", False)


def lora_layers(policy) -> dict:
    """{name: linear layer with A and B}"""
    from peft.tuners.tuners_utils import BaseTunerLayer

    return {n: layer for n, layer in policy.named_modules() if isinstance(layer, BaseTunerLayer)}


def as_reference(reference, policy) -> contextlib.AbstractContextManager:
    """Where the reference is the policy itself, it is the one without LoRA."""
    return without_lora(policy) if reference is policy else contextlib.nullcontext()


class Trained:
    """The weights that are trained, as a part of a checkpoint; the others are in the folder that
    the policy was loaded from."""

    def __init__(self, policy):
        self.policy = policy
        self.names = {name for name, p in policy.named_parameters() if p.requires_grad}

    def state_dict(self) -> dict:
        return {n: w for n, w in self.policy.state_dict().items() if n in self.names}

    def load_state_dict(self, state: dict) -> None:
        self.policy.load_state_dict(state, strict=False)


def trained(policy):
    """What a checkpoint holds of the policy."""
    return Trained(policy) if has_lora(policy) else policy


def merged(policy):
    """An ordinary model, for saving: with LoRA a copy with W + 2 B A in place of W."""
    if not has_lora(policy):
        return policy
    whole = copy.deepcopy(policy)
    for name, layer in lora_layers(whole).items():
        layer.get_base_layer().float()
        layer.merge()
        parent, _, child = name.rpartition(".")
        setattr(whole.get_submodule(parent), child, layer.get_base_layer())
    whole._hf_peft_config_loaded = False  # or an adapter alone would be saved
    return whole


# --------------------------------------------------------------------------------------------------
# Gradient checkpointing


def set_checkpointing(policy) -> None:
    """Raises InputError for families that cannot. Dropout, which is off here anyhow, is set to 0
    for good: the library recomputes in training mode only."""
    try:
        policy.activation_checkpointing_enable({"use_reentrant": False})
    except ValueError as error:
        raise InputError(f"gradient_checkpointing: {error}") from None
    for module in policy.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        for name, value in vars(module).items():
            if ("dropout" in name or name == "layerdrop") and isinstance(value, float):
                setattr(module, name, 0.0)


@contextlib.contextmanager
def recomputing(policy) -> Iterator[None]:
    """Forward passes keep the inputs of the layers alone, if set_checkpointing was called."""
    layers = [m for m in policy.modules() if isinstance(m, GradientCheckpointingLayer)]
    layers = [layer for layer in layers if layer.gradient_checkpointing]
    owners = [m for m in policy.modules() if getattr(m, "gradient_checkpointing", False) is True]
    for module in (*layers, *owners):
        module.training = True
    try:
        yield
    finally:
        for module in (*layers, *owners):
            module.training = False


def trainable(policy) -> list[torch.nn.Parameter]:
    return [p for p in policy.parameters() if p.requires_grad]
