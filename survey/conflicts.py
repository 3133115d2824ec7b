"""Which switches do not go together, and why; said before anything is loaded."""

import rewards
from support.errors import InputError
from survey.objectives import changed


def check(cfg) -> None:
    """Raise InputError for switches that do not go together."""
    asked, names = changed(cfg), rewards.names_in(cfg.reward)
    by_token = [x for x in ("segment", "process_coef", "clip_cov", "tis_cap") if x in asked]
    graded = [x for x in ("rm", "length", *rewards.UNSUPERVISED) if x in names]
    relative = [x for x in ("length", "ttrl", *rewards.UNSUPERVISED) if x in names]
    unfinished = ["overlong"] * bool(cfg.overlong) + relative
    not_0_or_1 = ["overlong"] * bool(cfg.overlong) + graded + ["sums"] * (" + " in cfg.reward)
    for holds, text in (
        (
            cfg.advantage == "pass@k" and cfg.pass_k > cfg.group_size,
            f"pass_k={cfg.pass_k}, but a group has {cfg.group_size} completions",
        ),
        (
            cfg.advantage == "pass@k" and not_0_or_1,
            f"pass@k needs rewards of 0 and 1: leave out {', '.join(not_0_or_1)}",
        ),
        (
            cfg.weight in ("sequence", "geometric") and by_token,
            f"weight {cfg.weight} is one for the whole completion: leave out {', '.join(by_token)}",
        ),
        (
            cfg.weight == "geometric" and cfg.clip == "weight",
            "weight geometric clips each ratio itself: leave out clip weight",
        ),
        (
            cfg.segment and cfg.advantage != "group",
            "segment has its own advantage: leave out advantage",
        ),
        (
            cfg.segment and unfinished,
            f"segment asks what unfinished texts will earn: leave out {', '.join(unfinished)}",
        ),
        (
            not cfg.scale_by_std and (cfg.segment or cfg.advantage != "group"),
            "scale_by_std is for the advantage of a group: leave it out",
        ),
        (
            cfg.overlong > cfg.max_new_tokens,
            f"overlong={cfg.overlong} is more than max_new_tokens={cfg.max_new_tokens}",
        ),
        (
            cfg.dynamic_sampling and graded,
            f"dynamic_sampling needs rewards that can be equal, not {', '.join(graded)}",
        ),
        (
            cfg.dynamic_sampling and cfg.prioritised,
            "prioritised counts what dynamic_sampling throws away: leave out one of them",
        ),
        (
            cfg.share_prompts and cfg.gradient_checkpointing,
            "share_prompts keeps what gradient_checkpointing throws away: leave out one of them",
        ),
        (
            cfg.reference_reset and cfg.lora_rank,
            "with lora_rank the reference is the policy's own start: leave out reference_reset",
        ),
        (
            cfg.reference_reset and not cfg.kl_coef,
            "reference_reset resets the reference of the KL: it needs kl_coef",
        ),
    ):
        if holds:
            raise InputError(text)
