"""The sampler's decoding step on a GPU: fixed shapes, captured once as a CUDA graph, and replayed.

A step of a small model is a thousand short kernels, and launching them one by one takes longer
than running them (docs/gpu.md). A captured step is launched as one. It reads and writes the same
addresses each time, so keys and values have room for the whole completion from the start, and a
finished row stays in the batch until half of the rows are finished. Then the others go on in a
smaller batch, with a graph of its own.

It draws for finished rows too, so its random numbers are not those of the plain loop; its
log-probabilities are. On a CPU the same code runs without a graph, in the tests only.
"""

from functools import partial

import torch
from transformers.cache_utils import Cache, DynamicLayer, StaticLayer

from support.progress import say

LOOK_EVERY = 16  # steps between two looks at how many rows are finished: each waits for the GPU


def possible(policy, cache) -> bool:
    """Whether decoding can go this way: on a GPU, unless policy.cuda_graphs is False, and for
    models whose layers keep all keys and values, and nothing else."""
    return (
        policy.device.type == "cuda"
        and getattr(policy, "cuda_graphs", False)
        and only_keys_and_values(cache)
    )


def only_keys_and_values(cache) -> bool:
    """Whether that is all that its layers keep, and they keep it of every position."""
    return all(type(layer) is DynamicLayer for layer in cache.layers)


class FixedLayer(StaticLayer):
    """Keys and values [R, heads, W, D] that stay where they are, in the type attention reads."""

    def __init__(self, keys: torch.Tensor, values: torch.Tensor, at: torch.Tensor):
        super().__init__(max_cache_len=keys.shape[2])
        self.keys, self.values, self.at = keys, values, at
        self.is_initialized = True

    def update(self, key_states, value_states, *args, **kwargs):
        self.keys.index_copy_(2, self.at, key_states.to(self.keys.dtype))
        self.values.index_copy_(2, self.at, value_states.to(self.values.dtype))
        return self.keys, self.values

    def get_seq_length(self) -> torch.Tensor:
        return self.at


class Batch:
    """R rows in mid-completion: all that a step reads and writes; W columns for P + limit."""

    def __init__(self, layers, mask, at, t, token, completion, logp, entropy):
        self.at, self.t = at, t  # [1]: the column of the cache, and of the completion, that is next
        self.cache = Cache(layers=[FixedLayer(keys, values, at) for keys, values in layers])
        self.mask = mask  # [R, W] bool
        self.position = mask.sum(1, keepdim=True)  # [R, 1], of the token that is read next
        self.token = token  # [R, 1]
        self.completion, self.logp, self.entropy = completion, logp, entropy  # [R, limit]
        self.ended = torch.zeros(len(mask), dtype=torch.bool, device=mask.device)

    @classmethod
    def begin(cls, cache, mask: torch.Tensor, limit: int) -> "Batch":
        """From the DynamicCache of the prompts [R, heads, P, D] and their mask [R, P]."""
        (rows, P), to = mask.shape, mask.device
        width = -(-(P + limit) // 8) * 8  # attention wants a multiple of eight
        autocast = torch.is_autocast_enabled(to.type)

        def room(x: torch.Tensor) -> torch.Tensor:
            dtype = torch.get_autocast_dtype(to.type) if autocast else x.dtype
            wide = x.new_zeros(rows, x.shape[1], width, x.shape[3], dtype=dtype)
            wide[:, :, :P] = x
            return wide

        layers = []
        for layer in cache.layers:
            layers.append((room(layer.keys), room(layer.values)))
            layer.keys = layer.values = None  # one layer at a time is there twice

        columns = torch.zeros(rows, width, dtype=torch.bool, device=to)
        columns[:, :P] = mask.bool()
        return cls(
            layers=layers,
            mask=columns,
            at=torch.full((1,), P, device=to),
            t=torch.zeros(1, dtype=torch.long, device=to),
            token=torch.zeros(rows, 1, dtype=torch.long, device=to),
            completion=torch.zeros(rows, limit, dtype=torch.long, device=to),
            logp=torch.zeros(rows, limit, device=to),
            entropy=torch.zeros(rows, limit, device=to),
        )

    def rows(self, go: torch.Tensor) -> "Batch":
        """The rows `go`, none of them ended, in buffers of their own."""
        layers = [(layer.keys[go], layer.values[go]) for layer in self.cache.layers]
        parts = (x[go] for x in (self.token, self.completion, self.logp, self.entropy))
        return Batch(layers, self.mask[go], self.at, self.t, *parts)

    def write(self, token, logp, entropy, is_eos: torch.Tensor) -> None:
        """The next token of each row, and what goes with it, [R] each; is_eos: [V] bool."""
        self.token.copy_(token[:, None])
        self.completion.index_copy_(1, self.t, self.token)
        self.logp.index_copy_(1, self.t, logp[:, None])
        self.entropy.index_copy_(1, self.t, entropy[:, None])
        self.ended |= is_eos[token]
        self.t += 1

    def step(self, policy, choose, race, is_eos) -> None:
        """Read the last token, write the next one, whatever the numbers are."""
        self.mask.index_fill_(1, self.at, True)
        logits = policy(
            input_ids=self.token,
            attention_mask=self.mask[:, None, None, :],
            position_ids=self.position,
            past_key_values=self.cache,
            use_cache=True,
        ).logits[:, -1]
        self.at += 1
        self.position += 1
        self.write(*choose(logits, race), is_eos)


def capture(step, policy):
    """`step` as a function that replays it; `step` itself on a CPU, and where a step looks at its
    numbers, as some mixtures of experts do (the plain loop is taken from then on)."""
    if policy.device.type != "cuda" or not policy.cuda_graphs:
        return step
    graph, stream = torch.cuda.CUDAGraph(), torch.cuda.current_stream()
    try:
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            step()
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        torch.cuda.set_stream(stream)  # which a failed capture leaves
        policy.cuda_graphs = False
        say(f"no CUDA graph of {type(policy).__name__}: {str(error).partition(chr(10))[0]}")
        return step
    return graph.replay


def decode(policy, cache, logits, mask, limit: int, eos, pad: int, choose, generator=None):
    """As decoding.decode_loop, from the prompts' cache, logits [B, V] and mask [B, P] on."""
    completion = torch.full((len(mask), limit), pad, device=mask.device)
    logp, entropy = torch.zeros((2, len(mask), limit), device=mask.device)
    is_eos = torch.zeros(logits.shape[1], dtype=torch.bool, device=mask.device)
    is_eos[eos[eos < len(is_eos)]] = True
    # drawn before each step, for a graph does not reach the generator
    race = torch.empty_like(logits, dtype=torch.float32)
    batch, alive = Batch.begin(cache, mask, limit), torch.arange(len(mask), device=mask.device)
    batch.write(*choose(logits, race.exponential_(generator=generator)), is_eos)
    run = None  # the batch's captured step
    for t in range(1, limit):
        if t % LOOK_EVERY == 1 and 2 * (ended := int(batch.ended.sum())) >= len(alive):
            completion[alive], logp[alive] = batch.completion, batch.logp
            entropy[alive] = batch.entropy
            if ended == len(alive):
                break
            go = (~batch.ended).nonzero()[:, 0]
            batch, alive, race, run = batch.rows(go), alive[go], race[: len(go)], None
        race.exponential_(generator=generator)
        if run is None:  # the first step of a batch is not captured: it prepares what a graph needs
            step = partial(batch.step, policy, choose, race, is_eos)
            step()
            run = capture(step, policy)
        else:
            run()
    completion[alive], logp[alive] = batch.completion, batch.logp
    entropy[alive] = batch.entropy

    # what a row wrote after its first EOS does not count
    stop = is_eos[completion]
    ended = stop.any(1)
    count = torch.where(ended, stop.int().argmax(1) + 1, limit)
    outside = torch.arange(limit, device=mask.device) >= count[:, None]
    width = int(count.max())
    parts = (
        completion.masked_fill(outside, pad),
        *(x.masked_fill(outside, 0) for x in (logp, entropy)),
    )
    return *(part[:, :width] for part in parts), count, ended
