"""Before a run begins: is what the sampler draws from what the trainer scores?

For most families of models it is, to 1e-5 in float32. Some do more to their logits than their head
does, which is repaired here; some keep a state that is not in the cache, or read padding, and would
train wrongly without a word. Those are refused.
"""

import contextlib
from collections.abc import Iterator

import torch

from support.errors import InputError
from support.models import check_prompts, one_line

TOLERANCE = 1e-3  # of log-probabilities; right families are within 1e-5, wrong ones 5e-3 off
MESSAGES = ("1 + 2 = ?", "12 - 3 + 4 - 5 + 16 - 7 + 8 - 9 + 2 = ?")  # no two tokens alike, in a row

_exact = False  # whether a check is running
_bf16: bool | None = None  # None: on a GPU


# NOTE: for padded batches cuDNN's attention has gradients that are NaN (torch 2.11 on an H200: 32
# rows of 192 tokens, all of them; one row at a time, or with another attention, none).
torch.backends.cuda.enable_cudnn_sdp(False)


def set_bf16(wanted: bool | None) -> None:
    """What autocast does from here on, in this process: a setting of a run, as its seed is."""
    global _bf16
    _bf16 = wanted


def autocast():
    """bfloat16 arithmetic over fp32 weights, as set_bf16 says; never while a check runs."""
    on_gpu = torch.cuda.is_available()
    if not _exact and (on_gpu if _bf16 is None else _bf16):
        return torch.autocast("cuda" if on_gpu else "cpu", dtype=torch.bfloat16)
    return contextlib.nullcontext()


@contextlib.contextmanager
def exact(model, dtype=torch.float32) -> Iterator[None]:
    """Arithmetic in `dtype` over weights in `dtype`; afterwards the same tensors as before."""
    global _exact
    tensors = [t for t in (*model.parameters(), *model.buffers()) if t.is_floating_point()]
    kept = [(t, t.data) for t in tensors if t.dtype != dtype]
    experts = getattr(model.config, "_experts_implementation", None)
    _exact = True
    try:
        for tensor, data in kept:
            tensor.data = data.to(dtype)
        if dtype == torch.float64 and experts:  # the fast one knows no float64
            model.set_experts_implementation("eager")
        with torch.backends.cudnn.flags(enabled=False):  # its convolutions round to TF32
            yield
    finally:
        _exact = False
        for tensor, data in kept:
            tensor.data = data
        if dtype == torch.float64 and experts:
            model.set_experts_implementation(experts)


def check_policy(name: str, policy, tokenizer, sample, token_logprobs, chat_ids) -> str:
    """One line: how far sampler and trainer are apart on two short prompts of unequal length.

    sample, token_logprobs, chat_ids: those of rollout.py. Sets policy.own_logits where the model
    does more to its logits than its head. Raises InputError beyond TOLERANCE.
    """
    policy.cuda_graphs = False  # until it is known to give the same
    family, size = type(policy).__name__, sum(p.numel() for p in policy.parameters())
    if policy.dtype in (torch.float16, torch.bfloat16) and size > 3e9:
        policy.own_logits = True  # never wrong
        return f"{name}: sampler and trainer not compared: float32 weights may not fit in memory"
    with one_line(f"{name} ({family}) cannot be sampled here"):
        prompt = [chat_ids(tokenizer, MESSAGES[0])]
        check_prompts(policy, prompt, 1)
        with exact(policy), torch.no_grad():
            ids = torch.tensor(prompt, device=policy.device)
            policy.own_logits = not head_is_all(policy, ids)
        parts = policy, tokenizer, sample, token_logprobs, torch.float32
        policy.cuda_graphs = policy.device.type == "cuda" and captured_agrees(*parts)
        apart = distance(*parts)
        # A router of experts may choose otherwise after a rounding: then float64 tells.
        if apart > TOLERANCE:
            with contextlib.suppress(RuntimeError, TypeError):  # not every family can do that
                apart = distance(policy, tokenizer, sample, token_logprobs, torch.float64)
    if not apart <= TOLERANCE:
        raise InputError(
            f"{name}: sampler and trainer are {apart:.1e} apart on {family}, which cannot be "
            "trained here: take another family of models"
        )
    own = ", scored through the whole model" if policy.own_logits else ""
    return f"{name}: sampler and trainer agree to {apart:.0e}{own}"


@torch.no_grad()
def distance(policy, tokenizer, sample, token_logprobs, dtype) -> float:
    """The largest difference of a log-probability, sampled and scored again."""
    generator = torch.Generator(policy.device).manual_seed(0)  # the run's own do not move
    with exact(policy, dtype):
        with rows_that_end(policy):
            rollouts = sample(
                policy, tokenizer, [None] * 2, 4, 16, generator=generator, prompts=list(MESSAGES)
            )
        # all rows, and those of the shorter prompt alone, which then are without padding
        parts = [rollouts, rollouts.rows(torch.arange(4, device=policy.device))]
        gaps = [(token_logprobs(policy, part)[0] - part.logp).abs().max() for part in parts]
    return torch.stack(gaps).max().item()


def captured_agrees(policy, *parts) -> bool:
    """Whether decoding with fixed shapes gives the trainer's numbers; families that make their own
    masks raise whatever they like."""
    policy.cuda_graphs = True
    try:
        return distance(policy, *parts) <= TOLERANCE and policy.cuda_graphs  # capture may refuse
    except torch.OutOfMemoryError:
        raise
    except Exception:
        return False


def head_is_all(policy, ids: torch.Tensor) -> bool:
    """Whether the logits are head(decoder(ids)), with nothing done to them afterwards."""
    logits = policy(input_ids=ids, use_cache=False).logits
    try:
        hidden = policy.get_decoder()(input_ids=ids, use_cache=False).last_hidden_state
        gap = (policy.get_output_embeddings()(hidden) - logits).abs().max().item()
    except (AttributeError, TypeError, RuntimeError):
        return False
    return gap <= 1e-4 * max(1.0, logits.abs().max().item())


@contextlib.contextmanager
def rows_that_end(policy) -> Iterator[None]:
    """Every eleventh id is an EOS meanwhile, so that rows leave the batch at different times."""
    config = policy.generation_config
    before, rows = config.eos_token_id, policy.get_input_embeddings().weight.shape[0]
    config.eos_token_id = list(range(0, rows, 11))
    try:
        yield
    finally:
        config.eos_token_id = before


@torch.no_grad()
def check_classifier(rm, rows: list[tuple[str, str, str]]) -> None:
    """Raise InputError where a score depends on what else is in the batch.

    rm: a reward_model.RewardModel. rows: (question, reference, completion) of unequal length.
    """
    with one_line(f"{type(rm.model).__name__} cannot score here"), exact(rm.model):
        together = rm.logits(*zip(*rows))
        alone = torch.cat([rm.logits(*zip(row)) for row in rows])
    if not together.isfinite().all():
        raise InputError(f"the scores of {type(rm.model).__name__} are not finite: broken weights?")
    apart = ((together - alone) / together.abs().clamp(min=1)).abs().max().item()
    if apart > TOLERANCE / 10:
        raise InputError(
            f"the scores of {type(rm.model).__name__} change by {apart:.1e} with the rest of the "
            "batch: it cannot be a reward model here"
        )
