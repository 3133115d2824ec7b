r"""Rewards without any label: how sure the policy is of what it writes (survey, section 3.1.4).

They read nothing but the probabilities of the policy that wrote the completion, at temperature 1:

    confidence         1/T sum_t log pi(y_t)                      mean log-probability of its tokens
    negative_entropy   -1/T sum_t H(pi(. | y_<t))                 RENT, arXiv:2505.22660
    self_certainty     1/T sum_t KL(uniform || pi(. | y_<t))      Intuitor, arXiv:2505.19590

Each is a mean over the completion's T tokens, so that length alone earns nothing. None is 0 or 1:
`scale_by_std` brings them to one scale.
"""

import math

import torch

from rollout import CHUNK_ELEMENTS, Rollouts, positions
from support.selfcheck import autocast


def confidence(rollouts: Rollouts) -> torch.Tensor:
    ids = rollouts.completion_ids[..., None]
    return by_token(rollouts, lambda logp, at: logp.gather(-1, ids[at])[..., 0])


def negative_entropy(rollouts: Rollouts) -> torch.Tensor:
    return by_token(rollouts, lambda logp, at: (logp.exp() * logp).sum(-1))


def self_certainty(rollouts: Rollouts) -> torch.Tensor:
    """KL(uniform || pi) = -log V - 1/V sum_v log pi(v), of V tokens in the vocabulary."""
    return by_token(rollouts, lambda logp, at: -math.log(logp.shape[-1]) - logp.mean(-1))


@torch.no_grad()
def by_token(rollouts: Rollouts, measure) -> torch.Tensor:
    """Mean over each completion's tokens of measure(log pi [b, T, V], rows) -> [b, T]; [B]."""
    ids = torch.cat([rollouts.prompt_ids, rollouts.completion_ids], dim=1)
    seen = torch.cat([rollouts.prompt_mask, rollouts.mask.long()], dim=1)
    T, V = rollouts.mask.shape[1], rollouts.policy.config.get_text_config().vocab_size
    found, rows = [], max(1, CHUNK_ELEMENTS // (T * V))
    for start in range(0, len(ids), rows):
        at = slice(start, start + rows)
        with autocast():
            logits = rollouts.policy(
                input_ids=ids[at],
                attention_mask=seen[at],
                position_ids=positions(seen[at]),
                use_cache=False,
                logits_to_keep=T + 1,
            ).logits[:, :-1]
        logp = torch.log_softmax(logits.float(), dim=-1)
        mask = rollouts.mask[at]
        found.append((measure(logp, at) * mask).sum(1) / mask.sum(1))
    return torch.cat(found).cpu()
