"""One token after another: what is drawn from the logits, and the loop with its cache of the past.

The loop is the plain one; on a GPU support/captured.py does the same in a fraction of the time.
"""

import torch
from transformers import DynamicCache

from support import captured


def positions(mask: torch.Tensor) -> torch.Tensor:
    """[B, L] attention mask -> position ids: 0 at the first real token, wherever that is."""
    return (mask.cumsum(-1) - 1).clamp(min=0)


def draw_token(
    logits, temperature=1.0, top_p=1.0, generator=None, race=None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """One token per row, its log-probability under the distribution that it was drawn from, and
    that distribution's entropy.

    logits: [B, V]. temperature: 0 takes the most likely token, with log-probability 0.
    top_p: smallest set of most likely tokens whose mass reaches top_p, renormalised; 1 keeps all.
    race: [B, V] of the exponential distribution, drawn before; None draws them of the generator.
    Returns (token [B] int64, logp [B] float, entropy [B] float, in nats).
    """
    if temperature == 0:
        token = logits.argmax(-1)
        top = logits.gather(-1, token[:, None])[:, 0].float()
        return token, top - top, top - top  # NaN where the logits are
    logp = torch.log_softmax(logits.float() / temperature, dim=-1)
    if top_p < 1:
        ranked, order = logp.sort(dim=-1, descending=True)
        before = ranked.exp().cumsum(-1) - ranked.exp()  # mass of the tokens ranked above each
        out = torch.zeros_like(logp, dtype=torch.bool).scatter(-1, order, before >= top_p)
        logp = torch.log_softmax(logp.masked_fill(out, -torch.inf), dim=-1)
    # An exponential race: token v finishes at time E_v / p_v, and is first with probability p_v.
    if race is None:
        race = torch.empty_like(logp).exponential_(generator=generator)
    token = (logp - race.log()).argmax(-1)
    return token, logp.gather(-1, token[:, None])[:, 0], torch.special.entr(logp.exp()).sum(-1)


def decode_loop(policy, ids, mask, group_size, max_new_tokens, eos, pad, choose, generator=None):
    """The decoding loop -> completion, logp, entropy [B, T], count [B] of tokens, ended [B] by EOS.

    choose: (logits [b, V], race) -> (token, logp, entropy), [b] each.
    """
    cache = DynamicCache(config=policy.config)
    logits = policy(
        input_ids=ids,
        attention_mask=mask,
        position_ids=positions(mask),
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=1,
    ).logits[:, -1]
    # Each unique prompt was read once; the group shares the result.
    # NOTE: reorder_cache is what every kind of cache has, the states of hybrid models included.
    group = torch.arange(len(mask), device=ids.device).repeat_interleave(group_size)  # [B]
    cache.reorder_cache(group)
    logits, mask = logits[group], mask[group]
    if captured.possible(policy, cache):
        return captured.decode(
            policy, cache, logits, mask, max_new_tokens, eos, pad, choose, generator
        )
    rows = len(mask)
    completion = torch.full((rows, max_new_tokens), pad, device=ids.device)
    logp, entropy = torch.zeros((2, rows, max_new_tokens), device=ids.device)
    count = torch.zeros(rows, dtype=torch.long, device=ids.device)
    ended = torch.zeros(rows, dtype=torch.bool, device=ids.device)
    alive = torch.arange(rows, device=ids.device)  # the rows still in the batch
    for t in range(max_new_tokens):
        token, logp[alive, t], entropy[alive, t] = choose(logits)
        completion[alive, t] = token
        count[alive] = t + 1
        stop = torch.isin(token, eos)
        ended[alive] = stop
        if stop.any():  # finished rows leave the batch and its cache
            go = (~stop).nonzero()[:, 0]
            token, alive, mask = token[go], alive[go], mask[go]
            cache.reorder_cache(go)
        if len(alive) == 0 or t + 1 == max_new_tokens:
            break
        mask = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1)
        logits = policy(
            input_ids=token[:, None],
            attention_mask=mask,
            position_ids=positions(mask)[:, -1:],
            past_key_values=cache,
            use_cache=True,
        ).logits[:, -1]
    width = int(count.max())
    return completion[:, :width], logp[:, :width], entropy[:, :width], count, ended
