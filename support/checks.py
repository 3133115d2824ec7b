"""Settings are checked before any work: one table of ranges for all config dataclasses.

A field of that name has the same meaning in every config, so it has one range: lowest and highest
value, both allowed; None where there is no bound. Where a config needs another one, its call of
`check_settings` says so.
"""

import dataclasses
import math
import numbers
import typing

from support.errors import InputError

ABOVE_0 = math.ulp(0.0)  # the least float there is: a bound that leaves out 0 alone
COUNT, FROM_0, SHARE = (1, None), (0, None), (0, 1)

RANGES = {
    # problems and sampling
    "limit": COUNT,
    "problems": COUNT,
    "train_problems": COUNT,
    "eval_problems": COUNT,
    "prompts": COUNT,
    "samples": COUNT,
    "eval_samples": COUNT,
    "votes": COUNT,
    "group_size": (2, None),
    "max_new_tokens": COUNT,
    "assistant_max_new_tokens": COUNT,
    "judge_max_new_tokens": COUNT,
    "max_retries": FROM_0,
    "batch": COUNT,
    # greedy at 0; while training it must be above
    "temperature": FROM_0,
    "eval_temperature": FROM_0,
    "assistant_temperature": FROM_0,
    "top_p": (ABOVE_0, 1),
    "eval_top_p": (ABOVE_0, 1),
    # updates
    "steps": FROM_0,
    "warm_up_steps": COUNT,
    "pool_steps": COUNT,
    "lora_rank": COUNT,
    "inner_epochs": COUNT,
    "minibatches": COUNT,
    "rm_updates": COUNT,
    "rm_every": COUNT,
    "extra_rounds": FROM_0,
    "micro_batch": COUNT,
    "rm_micro_batch": COUNT,
    "lr": FROM_0,
    "rm_lr": FROM_0,
    "muon_lr": FROM_0,
    "hidden": (8, None),
    "lr_warmup": FROM_0,
    "weight_decay": FROM_0,
    "max_grad_norm": (ABOVE_0, math.inf),
    # the objective; inf is no bound
    "clip_eps": (0, math.inf),
    "clip_eps_low": (0, math.inf),
    "clip_eps_high": (0, math.inf),
    "kl_coef": FROM_0,
    "entropy_coef": (None, None),
    "pass_k": COUNT,
    "clip_cov": SHARE,
    "tis_cap": (ABOVE_0, math.inf),
    "process_coef": FROM_0,
    "overlong": FROM_0,
    "dynamic_sampling": FROM_0,
    "segment": FROM_0,
    "segment_samples": COUNT,
    "staleness": FROM_0,
    "entropy_target": FROM_0,
    "entropy_delta": FROM_0,
    "reference_reset": FROM_0,
    "discount": SHARE,
    "gae_lambda": SHARE,
    "critic_lr": FROM_0,
    "critic_warmup": FROM_0,
    "value_clip": FROM_0,
    # rewards and reward model
    "gamma": SHARE,
    "target": SHARE,
    "rm_target": SHARE,
    "swap_share": (0, 0.5),
    # the rest
    "eval_every": FROM_0,
    "eval_early": FROM_0,
    "save_every": FROM_0,
    "threads": COUNT,
    "workers": COUNT,
    "seed": (0, 2**63 - 1),
}


def check_settings(cfg, **ranges: tuple) -> None:
    """Raise InputError where a number of `cfg` is out of its range, or a word none of its choices.

    ranges: those of this config alone, in place of the ones in RANGES. None is in the range of a
    field that may be None; nan is in none.
    """
    for field in dataclasses.fields(cfg):
        name, value = field.name, getattr(cfg, field.name)
        kinds = typing.get_args(field.type) or (field.type,)
        bounds = ranges.get(name, RANGES.get(name))
        if typing.get_origin(field.type) is typing.Literal:
            if value not in kinds:
                raise InputError(f"{name} must be one of {', '.join(kinds)}, not {value!r}")
        elif str in kinds and typing.get_origin(field.type) is not tuple:
            if not (isinstance(value, str) or (value is None and type(None) in kinds)):
                raise InputError(f"{name} must be text, not {value!r}")
        elif kinds == (bool,) and not isinstance(value, bool):
            raise InputError(f"{name} must be True or False, not {value!r}")
        elif bounds is None or (value is None and type(None) in kinds):
            continue
        elif int in kinds and isinstance(value, float):
            raise InputError(f"{name} must be a whole number, not {value!r}")
        elif not within(value, *bounds):
            raise InputError(f"{name} must be {in_words(*bounds)}, not {value!r}")


def within(value, low, high) -> bool:
    """Whether it is a number, and low <= value <= high; inf must be named as a bound."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        return False
    if abs(value) == math.inf and value not in (low, high):
        return False
    return (-math.inf if low is None else low) <= value <= (math.inf if high is None else high)


def in_words(low, high) -> str:
    """
    >>> in_words(1, None), in_words(ABOVE_0, 1), in_words(0, 0.5)
    ('at least 1', 'above 0 and at most 1', 'between 0 and 0.5')
    """
    least = "above 0" if low == ABOVE_0 else f"at least {low}"
    if high in (None, math.inf):
        return "a finite number" if low is None else least
    return f"{least} and at most {high}" if low == ABOVE_0 else f"between {low} and {high}"
