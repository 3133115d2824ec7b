r"""Spurious Rewards (arXiv:2506.10947): which reward lifts which prior, and what clipping does.

Six experiments, each a table of config changes to one STANDARD run:

    grid       every reward on every prior (figure 1 of the paper)
    clipping   a random reward with clipping, and without it in three ways (figures 11-13)
    gamma      the chance of a random reward
    stronger   where clipping should do most: more updates a rollout, a larger rate or batch
    confident  two more priors: a confident one, whose first word the upper bound cannot reach, and
               one that is half trained
    labels     wrong majority labels of two kinds: a habit of the policy, and mistakes of no system

    python -m experiments.spurious --only clipping --priors qwen_math --seeds 2

Each seed warms up a prior of its own. Runs are kept under `output`; a second call does only what
is missing. Accuracy is that of samples at temperature 1, from the policy itself: the toy's greedy
answer is the mode of its prior, all right or all wrong.
"""

import json
import random
from dataclasses import asdict, dataclass
from math import inf
from pathlib import Path

import eval as evaluation
import grpo
import labels
import tiny
from data import InputError, load_problems
from experiments import spurious_tables
from experiments.spurious_logs import keep_logs
from experiments.strategy_switch import strategy_switch
from experiments.workers import quietly, run_all
from rollout import load_policy
from support.flags import command_line
from support.run import torch_rng, write
from verifier import extract_answer

PRIORS = ("qwen_math", "llama", "olmo_sft")

# 16 x 16 completions a step and 8 updates from them, clip_eps 0.2 (the paper: 64 x 16 and 8). Rates
# and numbers of steps were chosen on the warm-up of seed 0, which the results leave out.
STANDARD = {
    "prompts": 16, "group_size": 16, "minibatches": 8, "lr": 1e-4, "gamma": 0.5, "steps": 60,
    "train_problems": 512, "votes": 32,
    "eval_samples": 4, "eval_temperature": 1.0, "eval_top_p": 1.0,
}  # fmt: skip

GRID = {
    reward: {"reward": reward, "steps": 40}
    for reward in (
        "rule", "majority", "ttrl", "one_shot", "format", "incorrect", "python", "random",
        "format and not python", "incorrect and not python",
    )
}  # fmt: skip
for reward in ("incorrect", "incorrect and not python"):
    GRID[reward]["train_problems"] = None  # all 2000: few have a wrong majority where most is right
SIDES = {
    "no clip": {"clip_eps": None},
    "lower bound only": {"clip_eps_high": inf},
    "upper bound only": {"clip_eps_low": inf},
    "clip 0.05": {"clip_eps": 0.05},
}
CLIPPING = {
    "standard": {},
    # without clipping in the loss, the first of the paper's three ways; one bound alone; narrower
    **SIDES,
    # the other two: one update a step, where the ratio is 1
    "one large minibatch": {"minibatches": 1, "steps": 120},
    "small rollout batch": {"prompts": 2, "minibatches": 1, "steps": 480},
}
GAMMA = {f"gamma {gamma}": {"gamma": gamma} for gamma in (0.0, 0.001, 0.3, 0.7)}
STRONGER = {
    "32 updates a step": {"inner_epochs": 4, "steps": 20},
    "rate x 4": {"lr": 4e-4},
    "64 prompts and 16 updates": {"prompts": 64, "inner_epochs": 2, "steps": 12},
}
STRONGER |= {f"{name}, no clip": {**c, **SIDES["no clip"]} for name, c in STRONGER.items()}
STRONGER |= {f"32 updates a step, {s}": STRONGER["32 updates a step"] | c for s, c in SIDES.items()}
CONFIDENT = {name: CLIPPING[name] for name in ("standard", "no clip")}

# qwen_math after 300 of its 800 warm-up updates: it miscalculates some sums, besides its habit.
YOUNG = "qwen_young"
LABELS = {
    name: {
        "reward": "incorrect", "data": f"{name}.jsonl", "eval_data": "arithmetic", "steps": 40,
        "train_problems": None,
    }
    for name in ("habit", "other")
}  # fmt: skip

EXPERIMENTS = {  # name: (changes, priors)
    "grid": (GRID, PRIORS),
    "clipping": (CLIPPING, PRIORS),
    "gamma": (GAMMA, PRIORS[:1]),
    "stronger": (STRONGER, PRIORS[:1]),
    "confident": (CONFIDENT, ("qwen_confident", YOUNG)),
    "labels": (LABELS, (YOUNG,)),
}


# --------------------------------------------------------------------------------------------------
# Running


@dataclass(frozen=True)
class SpuriousConfig:
    output: str = "runs/spurious"  # folder of all runs
    only: str | None = None  # one experiment: grid, clipping, gamma, ...; none runs all
    priors: str | None = None  # one prior: qwen_math, llama, ...; none takes all
    seeds: int = 5  # of warm-up and training: 1, 2, ...; 0 served to choose the settings
    shorten: int = 1  # divide the number of steps by this, for a first look
    workers: int = 2  # runs at a time, one thread each
    keep: str | None = None  # folder of slim logs, figures and tables; none is output/results
    readme: str | None = None  # file whose tables between spurious:NAME marks are renewed


def start_folder(cfg, prior: str, seed: int) -> str:
    return str(Path(cfg.output, prior, f"seed{seed}", "start"))


def run_folder(cfg, prior: str, seed: int, name: str) -> str:
    short = "" if cfg.shorten == 1 else f"short{cfg.shorten}"  # does not stand in the way later
    return str(Path(cfg.output, prior, f"seed{seed}", short, name.replace(" ", "_")))


def config(cfg, prior: str, name: str, changes: dict, seed: int) -> grpo.GRPOConfig:
    """The run called `name`: the standard one with its changes."""
    settings = {"reward": "random"} | STANDARD | changes
    steps = max(1, settings["steps"] // cfg.shorten)
    if "data" in settings:  # sort_wrong_labels writes it
        settings["data"] = str(Path(start_folder(cfg, prior, seed)).with_name(settings["data"]))
    return grpo.GRPOConfig(
        **settings
        | {"model": start_folder(cfg, prior, seed), "seed": seed, "steps": steps}
        | {"output": run_folder(cfg, prior, seed, name)}
        | {"eval_every": max(1, steps // 4), "save_every": max(1, steps // 4)}
    )


def plan(cfg) -> list[tuple]:
    """(experiment, prior, name, seed, config) of every run, seed by seed."""
    every_prior = dict.fromkeys(p for _, priors in EXPERIMENTS.values() for p in priors)
    for given, known in ((cfg.only, EXPERIMENTS), (cfg.priors, every_prior)):
        if given is not None and given not in known:
            raise InputError(f"{given!r} is none of {', '.join(known)}")
    for field in ("seeds", "shorten", "workers"):
        if getattr(cfg, field) < 1:
            raise InputError(f"{field} must be at least 1")
    if cfg.readme is not None and not Path(cfg.readme).is_file():
        raise InputError(f"no file {cfg.readme!r}")
    runs = [
        (experiment, prior, name, seed, config(cfg, prior, name, changes, seed))
        for seed in range(1, cfg.seeds + 1)
        for experiment, (table, priors) in EXPERIMENTS.items()
        for prior in priors
        for name, changes in table.items()
        if cfg.only in (None, experiment) and cfg.priors in (None, prior)
    ]
    if not runs:
        raise InputError(f"{cfg.only} does not run on {cfg.priors}: {EXPERIMENTS[cfg.only][1]}")
    return runs


def warm_up(prior: str, folder: str, seed: int) -> None:
    """The start of a seed's runs; for YOUNG also its wrong labels, sorted."""
    texts, steps = ("qwen_math", 300) if prior == YOUNG else (prior, 800)
    quietly(tiny.warm_up, tiny.WarmUpConfig(texts, folder, helpers=False, steps=steps, seed=seed))
    if prior == YOUNG and not Path(folder).with_name("other.jsonl").exists():
        quietly(sort_wrong_labels, folder, seed)


def sort_wrong_labels(folder: str, seed: int) -> None:
    """Beside the policy: habit.jsonl, problems whose majority leaves the last operation out, and
    other.jsonl, those where it is wrong in another way."""
    policy, tokenizer = load_policy(folder)
    voted = labels.vote_labels(
        policy, tokenizer, load_problems("arithmetic", "train"), STANDARD["votes"],
        generator=torch_rng(policy.device, seed, "votes"),
    )  # fmt: skip
    kinds = {"habit": "", "other": ""}
    for problem in labels.training_problems("incorrect", voted, None):
        short = tiny.write_solution(problem.question, "guess", random.Random(0), short=True)
        kind = "habit" if extract_answer(short) == problem.label else "other"
        kinds[kind] += json.dumps(asdict(problem)) + "\n"
    for kind, lines in kinds.items():
        write(Path(folder).with_name(f"{kind}.jsonl"), lines)


def run_one(cfg: grpo.GRPOConfig, compare: bool) -> None:
    """Train; with `compare`, hold the policy's samples before and after side by side, too."""
    if quietly(grpo.train, cfg)[-1]["step"] < cfg.steps:
        raise KeyboardInterrupt
    file = Path(cfg.output, "switch.json")
    if not compare or file.exists():
        return
    problems, rows = load_problems(cfg.data, "test", limit=cfg.eval_problems), []
    for model in (cfg.model, str(Path(cfg.output, "policy"))):
        keep = []
        # In one batch both policies draw the same random numbers for every first token: a strategy
        # switches only where its probability has moved, not by a new throw of the dice.
        evaluation.evaluate(
            *load_policy(model), problems, cfg.eval_samples, cfg.eval_temperature, cfg.eval_top_p,
            cfg.max_new_tokens, batch=len(problems) * cfg.eval_samples, seed=cfg.seed, keep=keep,
        )  # fmt: skip
        rows.append(keep)
    write(file, json.dumps(strategy_switch(*rows)) + "\n")


def main(cfg: SpuriousConfig) -> None:
    runs = plan(cfg)
    starts = dict.fromkeys((p, start_folder(cfg, p, seed), seed) for _, p, _, seed, _ in runs)
    run_all([(warm_up, *start) for start in starts], cfg.workers, "warm-ups")
    run_all([(run_one, run, e == "grid") for e, *_, run in runs], cfg.workers, "runs")
    keep = cfg.keep or str(Path(cfg.output, "results"))
    keep_logs(keep, runs)
    spurious_tables.main(spurious_tables.ReportConfig(keep, keep, cfg.readme))


if __name__ == "__main__":
    command_line(SpuriousConfig, main)
