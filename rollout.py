r"""Sample a group of completions per prompt from any Hugging Face causal LM, and score them again.

    prompt_ids [N, P] --read once--> KV cache --expand to groups--> B = N*G rows --> [B, T]

What matters for policy gradients, and is easy to get wrong:
  - the log-probabilities kept are those of exactly the distribution sampled from: temperature and
    top-p, and nothing else (of the checkpoint's generation_config only the EOS ids are used);
  - the first EOS belongs to the completion (the policy must learn to stop), what follows does not,
    even where the pad token *is* the EOS token: masks come from positions, never from token ids;
  - random numbers come from the caller's generator.

N prompts, G completions each, B = N*G rows (row n*G+g), P prompt length, T completion length.
"""

from dataclasses import dataclass, replace

import torch
from torch.utils.checkpoint import checkpoint
from transformers import AutoModelForCausalLM, DynamicCache

from data import Problem
from decoding import decode_loop, draw_token, positions
from prompts import solve_prompt
from support import captured
from support.chat import chat_ids, decode, set_template, within_context
from support.errors import InputError
from support.models import (
    check_prompts,
    context_length,
    device,
    eos_ids,
    load_policy_weights,
    load_tokenizer,
    pad_id,
)
from support.progress import say
from support.selfcheck import autocast, check_policy


@dataclass
class Rollouts:
    """What the policy wrote, as tensors for the trainer and as texts for the rewards."""

    prompt_ids: torch.Tensor  # [B, P] int64, padded on the left
    prompt_mask: torch.Tensor  # [B, P] int64, 1 on real tokens
    completion_ids: torch.Tensor  # [B, T] int64, padded on the right
    mask: torch.Tensor  # [B, T] float, 1 up to and including the first EOS
    logp: torch.Tensor  # [B, T] float, log-probability when it was sampled; 0 off the mask
    truncated: torch.Tensor  # [B] bool, ran into the length limit without an EOS
    texts: list[str]  # B completions without special tokens, thinking as <think>...</think>
    problems: list[Problem]  # B, each repeated group_size times
    group_size: int
    entropy: torch.Tensor | None = None  # [B, T] float, of what each was drawn from; 0 off the mask
    generator: torch.Generator | None = None  # the sampler's; the reward "random" goes on with it
    policy: torch.nn.Module | None = None  # who wrote them; rewards of confidence ask it

    def rows(self, index: torch.Tensor) -> "Rollouts":
        """The rows `index` [b], without the padding columns that none of them needs."""
        prompt_mask, mask = self.prompt_mask[index], self.mask[index]
        left = int(self.prompt_mask.shape[1] - prompt_mask.sum(1).max())
        right = int(mask.sum(1).max())
        return replace(
            self,
            prompt_ids=self.prompt_ids[index, left:],
            prompt_mask=prompt_mask[:, left:],
            completion_ids=self.completion_ids[index, :right],
            mask=mask[:, :right],
            logp=self.logp[index, :right],
            entropy=None if self.entropy is None else self.entropy[index, :right],
            truncated=self.truncated[index],
            texts=[self.texts[i] for i in index.tolist()],
            problems=[self.problems[i] for i in index.tolist()],
        )


# --------------------------------------------------------------------------------------------------
# Models and tokenizers


def load_policy(
    name: str,
    dtype=torch.float32,
    system: str | None = None,
    chat: str | None = None,
    cuda_graphs: bool = True,
):
    """(policy, tokenizer) of a folder or hub name, in eval mode on the GPU if there is one.

    dtype: float32 for training (bfloat16 loses a step of lr 1e-6); "auto" is the folder's own.
    system, chat: a system prompt, and how to prompt: see support.chat.set_template.
    cuda_graphs: whether to decode with a captured step where that is possible.
    Raises InputError for whatever cannot be loaded, prompted, or sampled and scored alike.
    """
    policy = load_policy_weights(AutoModelForCausalLM, name, dtype)
    tokenizer = load_tokenizer(name)
    set_template(tokenizer, system, chat)
    # Eval mode throughout: with dropout the trainer's probabilities would not be the sampler's.
    policy.to(device()).eval()
    eos_ids(policy, tokenizer)  # raises without one
    policy.checked = check_policy(name, policy, tokenizer, sample, token_logprobs, chat_ids)
    policy.cuda_graphs = policy.cuda_graphs and cuda_graphs
    return policy, tokenizer


def those_that_fit(policy, tokenizer, max_new_tokens: int, *lists: list[Problem]) -> list[list]:
    """Each list without the problems that exceed the context; says how many, refuses if all do."""
    kept, limit = [], f"the model's context of {context_length(policy.config)} tokens"
    for problems in lists:
        prompts = [solve_prompt(problem.question) for problem in problems]
        fit = within_context(policy, tokenizer, prompts, max_new_tokens)
        kept.append([problem for problem, fits in zip(problems, fit) if fits])
        if not kept[-1]:
            raise InputError(f"all problems exceed {limit}: lower max_new_tokens={max_new_tokens}")
        if len(kept[-1]) < len(problems):
            say(f"{fit.count(False)} of {len(fit)} problems left out: they exceed {limit}")
    return kept


# --------------------------------------------------------------------------------------------------
# Sampling


def left_pad(rows: list[list[int]], pad: int, to) -> tuple[torch.Tensor, torch.Tensor]:
    """Token id lists -> (ids, mask) [N, P], real tokens flush right."""
    width = max(map(len, rows))
    ids = [[pad] * (width - len(row)) + row for row in rows]
    mask = [[0] * (width - len(row)) + [1] * len(row) for row in rows]
    return torch.tensor(ids, device=to), torch.tensor(mask, device=to)


@torch.no_grad()
def sample(
    policy,
    tokenizer,
    problems: list[Problem],
    group_size: int,
    max_new_tokens: int,
    temperature: float = 1.0,
    top_p: float = 1.0,
    generator: torch.Generator | None = None,
    prompts: list[str] | None = None,
    prefixes: list[list[int]] | None = None,
) -> Rollouts:
    """`group_size` completions of each problem -> Rollouts of len(problems) * group_size rows.

    prompts: messages in place of "solve this", one per problem, for the assistant and the judge.
    prefixes: token ids that each completion begins with. They count as part of the prompt, but
    the texts have them.
    Raises InputError: settings or prompts that cannot be sampled, logits that are not finite.
    """
    if not (temperature >= 0 and 0 < top_p <= 1 and max_new_tokens >= 1 and group_size >= 1):
        raise InputError(
            "sampling needs temperature >= 0, 0 < top_p <= 1, max_new_tokens and group_size >= 1, "
            f"not {temperature}, {top_p}, {max_new_tokens} and {group_size}"
        )
    messages = prompts or [solve_prompt(problem.question) for problem in problems]
    begun, pad = prefixes or [[] for _ in problems], pad_id(policy, tokenizer)
    rows = [chat_ids(tokenizer, m) + prefix for m, prefix in zip(messages, begun)]
    check_prompts(policy, rows, max_new_tokens)
    ids, mask = left_pad(rows, pad, policy.device)
    with autocast():
        completion, logp, entropy, count, ended = decode_loop(
            policy,
            ids,
            mask,
            group_size,
            max_new_tokens,
            eos=torch.tensor(eos_ids(policy, tokenizer), device=ids.device),
            pad=pad,
            choose=lambda logits, race=None: draw_token(
                logits, temperature, top_p, generator, race
            ),
            generator=generator,
        )
    if not logp.isfinite().all():  # looked at once: each look waits for the GPU
        raise InputError(
            f"the logits of {tokenizer.name_or_path!r} are not finite: its weights are broken, or "
            "training has diverged (a lower lr?)"
        )
    inside = torch.arange(completion.shape[1], device=ids.device) < count[:, None]  # [B, T]
    begun = [prefix for prefix in begun for _ in range(group_size)]
    tokens = [p + row[:n] for p, row, n in zip(begun, completion.tolist(), count.tolist())]
    return Rollouts(
        prompt_ids=ids.repeat_interleave(group_size, 0),
        prompt_mask=mask.repeat_interleave(group_size, 0),
        completion_ids=completion,
        mask=inside.float(),
        logp=logp,
        entropy=entropy,
        truncated=~ended,
        texts=decode(tokenizer, tokens),
        problems=[problem for problem in problems for _ in range(group_size)],
        group_size=group_size,
        generator=generator,
        policy=policy,
    )


# --------------------------------------------------------------------------------------------------
# Scoring: the trainer's view of the same tokens


CHUNK_ELEMENTS = 2**24  # logits that exist at a time: 64 MB in fp32, and 16 times that on a GPU


def token_logprobs(
    policy,
    rollouts: Rollouts,
    temperature: float = 1.0,
    entropy_grad: bool = True,
    share_prompts: bool = False,
):
    """log pi(y_t | x, y_<t) of the sampled tokens, and the entropy of the distribution of each.

    entropy_grad: whether the entropy has a gradient too, which takes as much memory again.
    share_prompts: read a prompt once for all the rows that have it; the same numbers, faster where
    prompts are long.

    Only completion positions go through the output head, a chunk at a time, so that logits of
    shape [B, T, V] never exist at once. Returns (logp, entropy), each [B, T], 0 off the mask.
    A policy with own_logits (a cap or a scale after its head, see support/selfcheck.py) is asked
    whole and does keep [B, T, V]: slower, and a smaller micro_batch may be needed.
    NOTE: temperature must be the sampler's, or the ratio is not 1 while the policy is unchanged.
    """
    ids = torch.cat([rollouts.prompt_ids, rollouts.completion_ids], dim=1)
    seen = torch.cat([rollouts.prompt_mask, rollouts.mask.long()], dim=1)  # [B, P+T]
    inputs = {"input_ids": ids, "attention_mask": seen, "position_ids": positions(seen)}
    inside = rollouts.mask.bool()
    target, T = rollouts.completion_ids[inside], rollouts.completion_ids.shape[1]
    # The position one before a token predicts it: P-1 .. P+T-2.
    at = slice(-T - 1, -1)
    with autocast():
        if getattr(policy, "own_logits", False):
            logits = policy(**inputs, use_cache=False, logits_to_keep=T + 1).logits[:, at]
            parts = [_score(None, logits[inside], target, temperature, entropy_grad)]
        else:
            if share_prompts:
                hidden = _after_shared_prompts(policy, rollouts, **inputs)
            else:
                hidden = policy.get_decoder()(**inputs, use_cache=False).last_hidden_state[:, at]
            head = policy.get_output_embeddings()
            parts = _score_in_chunks(head, hidden[inside], target, temperature, entropy_grad)
    logp, entropy = (torch.cat(part) for part in zip(*parts))
    empty = torch.zeros_like(rollouts.mask, dtype=logp.dtype)
    return empty.masked_scatter(inside, logp), empty.masked_scatter(inside, entropy)


def can_share_prompts(policy) -> bool:
    """Whether its layers keep keys and values and nothing else, and its logits are its head's."""
    return captured.only_keys_and_values(DynamicCache(config=policy.config)) and (
        not policy.own_logits
    )


def _after_shared_prompts(policy, rollouts, input_ids, attention_mask, position_ids):
    """The hidden states [B, T, H] that predict the completions, each prompt read once.

    As in sampling: prompts -> KV cache -> expand to rows -> completions, but with gradients, which
    add up where the rows share (the idea of Prefix Grouper, arXiv:2506.05433).
    """
    P, decoder = rollouts.prompt_ids.shape[1], policy.get_decoder()
    cache = DynamicCache(config=policy.config)
    prompts = rollouts.prompt_ids.masked_fill(rollouts.prompt_mask == 0, -1)
    different, row = prompts.unique(dim=0, return_inverse=True)  # [N, P], [B]
    first = torch.stack([(row == n).nonzero()[0, 0] for n in range(len(different))])  # [N]
    read = decoder(
        input_ids=input_ids[first, :P],
        attention_mask=attention_mask[first, :P],
        position_ids=position_ids[first, :P],
        past_key_values=cache,
        use_cache=True,
    ).last_hidden_state[row, -1:]
    if input_ids.shape[1] == P + 1:
        return read
    cache.reorder_cache(row)
    written = decoder(
        input_ids=input_ids[:, P:-1],
        attention_mask=attention_mask[:, :-1],
        position_ids=position_ids[:, P:-1],
        past_key_values=cache,
        use_cache=True,
    ).last_hidden_state
    return torch.cat([read, written], dim=1)


def _score_in_chunks(head, hidden, target, *settings):
    """_score of CHUNK_ELEMENTS logits at a time; hidden: [n, H]."""
    elements = CHUNK_ELEMENTS * (16 if hidden.is_cuda else 1)  # fewer do not keep it busy
    chunk, parts = max(1, elements // head.weight.shape[0]), []
    for h, y in zip(hidden.split(chunk), target.split(chunk)):
        # recompute logits in the backward pass, do not keep them
        if hidden.requires_grad and len(hidden) > chunk:
            parts.append(checkpoint(_score, head, h, y, *settings, use_reentrant=False))
        else:
            parts.append(_score(head, h, y, *settings))
    return parts


def _score(head, hidden, target, temperature, entropy_grad):
    """hidden [n, H], target [n] -> log-probability of the target and entropy, both [n].

    Without a head `hidden` are the logits [n, V] themselves.
    """
    logits = hidden if head is None else head(hidden)
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32)) / temperature
    logp = torch.log_softmax(logits, dim=-1)  # [n, V]
    with torch.set_grad_enabled(entropy_grad and torch.is_grad_enabled()):
        entropy = -(logp.exp() * logp).sum(-1)
    return logp.gather(-1, target[:, None])[:, 0], entropy
