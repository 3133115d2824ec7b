r"""Spurious Rewards (arXiv:2506.10947): which reward lifts which prior, and what clipping does.

Six experiments, each a table of config changes to one STANDARD run:

    grid       every reward on every prior (figure 1 of the paper)
    clipping   a random reward with clipping, and without it in three ways (figures 11-13)
    gamma      the chance of a random reward
    stronger   where clipping should do most: more updates per step, a larger rate or batch
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
from typing import NamedTuple

import eval as evaluation
import grpo
import labels
import tiny
import world
from data import load_problems
from experiments import spurious_tables
from experiments.spurious_logs import PlannedRun, keep_spurious_logs
from experiments.strategy_switch import strategy_switch
from experiments.workers import quietly, run_all
from rollout import load_policy
from support.errors import InputError
from support.files import claim_results, write
from support.flags import command_line
from support.run import torch_rng
from support.tables import check_readme
from verifier import extract_answer

GRID_PRIORS = ("qwen_math", "llama", "olmo_sft")
# qwen_math after 300 of its 800 warm-up updates: it miscalculates some sums, besides its habit
YOUNG = "qwen_young"
WORLD = "arithmetic:3-4"

# 16 x 16 completions per step and 8 updates from them, clip_eps 0.2 (the paper: 64 x 16 and 8).
# Rates and numbers of steps were chosen on the warm-up of seed 0, which the results leave out.
STANDARD = {
    "reward": "random",
    "gamma": 0.5,
    "prompts": 16,
    "group_size": 16,
    "minibatches": 8,
    "lr": 1e-4,
    "steps": 60,
    "train_problems": 512,
    "votes": 32,
    "max_new_tokens": 32,
    "eval_samples": 4,
    "eval_temperature": 1.0,
    "eval_top_p": 1.0,
}
NO_CLIP = {"clip_eps": None}

GRID = {
    "rule": {},
    "majority": {},
    "ttrl": {},
    "one_shot": {},
    "format": {},
    # all 2000 problems: few have a wrong majority where most is right
    "incorrect": {"train_problems": None},
    "python": {},
    "random": {},
    "format and not python": {},
    "incorrect and not python": {"train_problems": None},
}
GRID = {name: {"reward": name, "steps": 40} | changes for name, changes in GRID.items()}

# one bound alone; a narrower region
BOUNDS = {
    "lower bound only": {"clip_eps_high": inf},
    "upper bound only": {"clip_eps_low": inf},
    "clip 0.05": {"clip_eps": 0.05},
}
CLIPPING = {
    "standard": {},
    # the first of the paper's three ways to do without: none in the loss
    "no clip": NO_CLIP,
    **BOUNDS,
    # the other two: one update per step, where the ratio is 1
    "one large minibatch": {"minibatches": 1, "steps": 120},
    "small rollout batch": {"prompts": 2, "minibatches": 1, "steps": 480},
}
GAMMA = {f"gamma {gamma}": {"gamma": gamma} for gamma in (0.0, 0.001, 0.3, 0.7)}

MANY_UPDATES = {"inner_epochs": 4, "steps": 20}
LARGE_RATE = {"lr": 4e-4}
LARGE_BATCH = {"prompts": 64, "inner_epochs": 2, "steps": 12}
STRONGER = {
    "32 updates per step": MANY_UPDATES,
    "rate x 4": LARGE_RATE,
    "64 prompts and 16 updates": LARGE_BATCH,
    "32 updates per step, no clip": MANY_UPDATES | NO_CLIP,
    "rate x 4, no clip": LARGE_RATE | NO_CLIP,
    "64 prompts and 16 updates, no clip": LARGE_BATCH | NO_CLIP,
}
STRONGER |= {f"32 updates per step, {name}": MANY_UPDATES | BOUNDS[name] for name in BOUNDS}
CONFIDENT = {"standard": {}, "no clip": NO_CLIP}

WRONG_LABELS = {
    "reward": "incorrect",
    "steps": 40,
    "train_problems": None,
}
# files that sort_wrong_labels writes
LABELS = {
    "habit": WRONG_LABELS | {"data": "habit.jsonl"},
    "other": WRONG_LABELS | {"data": "other.jsonl"},
}


class Experiment(NamedTuple):
    # name of a run: what it changes of STANDARD
    changes: dict[str, dict]
    priors: tuple[str, ...]


EXPERIMENTS = {
    "grid": Experiment(GRID, GRID_PRIORS),
    "clipping": Experiment(CLIPPING, GRID_PRIORS),
    "gamma": Experiment(GAMMA, ("qwen_math",)),
    "stronger": Experiment(STRONGER, ("qwen_math",)),
    "confident": Experiment(CONFIDENT, ("qwen_confident", YOUNG)),
    "labels": Experiment(LABELS, (YOUNG,)),
}


# --------------------------------------------------------------------------------------------------
# Planning


@dataclass(frozen=True)
class SpuriousConfig:
    output: str = "runs/spurious"  # folder of all runs
    only: str | None = None  # one experiment: grid, clipping, gamma, ...; None runs all
    priors: str | None = None  # one prior: qwen_math, llama, ...; None takes all
    seeds: int = 5  # of warm-up and training: 1, 2, ...; 0 served to choose the settings
    shorten: int = 1  # divide the number of steps by this, for a first look
    workers: int = 2  # runs at a time, one thread each
    keep: str | None = None  # folder of slim logs, figures and tables; None is output/results
    readme: str | None = None  # file whose tables between spurious:NAME marks are renewed


def start_folder(cfg: SpuriousConfig, prior: str, seed: int) -> str:
    return str(Path(cfg.output, prior, f"seed{seed}", "start"))


def run_folder(cfg: SpuriousConfig, prior: str, seed: int, name: str) -> str:
    # a first look must not stand in the way of the whole run
    short = "" if cfg.shorten == 1 else f"short{cfg.shorten}"
    return str(Path(cfg.output, prior, f"seed{seed}", short, name.replace(" ", "_")))


def run_config(cfg: SpuriousConfig, prior: str, name: str, changes: dict, seed: int):
    """The run called `name`, a grpo.GRPOConfig: the standard one with its changes."""
    settings = STANDARD | changes
    start = start_folder(cfg, prior, seed)
    data = settings.get("data")
    settings["data"] = str(Path(start).with_name(data) if data else Path(cfg.output, "train.jsonl"))
    settings["eval_data"] = str(Path(cfg.output, "test.jsonl"))
    steps = max(1, settings["steps"] // cfg.shorten)
    settings |= {"steps": steps, "eval_every": max(1, steps // 4), "save_every": max(1, steps // 4)}
    settings |= {"model": start, "seed": seed, "output": run_folder(cfg, prior, seed, name)}
    return grpo.GRPOConfig(**settings)


def check(cfg: SpuriousConfig) -> None:
    known_priors = dict.fromkeys(
        prior for experiment in EXPERIMENTS.values() for prior in experiment.priors
    )
    for given, known in ((cfg.only, EXPERIMENTS), (cfg.priors, known_priors)):
        if given is not None and given not in known:
            raise InputError(f"{given!r} is none of {', '.join(known)}")
    for field in ("seeds", "shorten", "workers"):
        if getattr(cfg, field) < 1:
            raise InputError(f"{field} must be at least 1")
    check_readme(cfg.readme)


def plan(cfg: SpuriousConfig) -> list[PlannedRun]:
    """Every run, seed by seed."""
    check(cfg)
    runs = [
        PlannedRun(experiment, prior, name, seed, run_config(cfg, prior, name, changes, seed))
        for seed in range(1, cfg.seeds + 1)
        for experiment, (table, priors) in EXPERIMENTS.items()
        for prior in priors
        for name, changes in table.items()
        if cfg.only in (None, experiment) and cfg.priors in (None, prior)
    ]
    if not runs:
        raise InputError(f"{cfg.only} does not run on {cfg.priors}: {EXPERIMENTS[cfg.only].priors}")
    return runs


# --------------------------------------------------------------------------------------------------
# Running


def make_start(prior: str, folder: str, seed: int) -> None:
    """The start of a seed's runs; for YOUNG also its wrong labels, sorted."""
    texts, steps = ("qwen_math", 300) if prior == YOUNG else (prior, 800)
    quietly(tiny.warm_up, tiny.WarmUpConfig(texts, WORLD, folder, False, steps, seed=seed))
    if prior == YOUNG and not Path(folder).with_name("other.jsonl").exists():
        quietly(sort_wrong_labels, folder, seed)


def sort_wrong_labels(folder: str, seed: int) -> None:
    """Beside the policy: habit.jsonl, problems whose majority leaves the last operation out, and
    other.jsonl, those where it is wrong in another way."""
    policy, tokenizer = load_policy(folder)
    problems = load_problems(WORLD, "train")
    generator = torch_rng(policy.device, seed, "votes")
    voted = labels.vote_labels(policy, tokenizer, problems, STANDARD["votes"], generator=generator)
    lines = {"habit": "", "other": ""}
    for problem in labels.training_problems("incorrect", voted, None):
        short = world.write_solution(problem.question, "guess", random.Random(0), short=True)
        kind = "habit" if extract_answer(short) == problem.label else "other"
        lines[kind] += json.dumps(asdict(problem)) + "\n"
    for kind, text in lines.items():
        write(Path(folder).with_name(f"{kind}.jsonl"), text)


def run_one(cfg: grpo.GRPOConfig, switches: bool) -> None:
    """Train; with `switches`, hold the policy's samples before and after side by side, too."""
    quietly(grpo.train, cfg)
    file = Path(cfg.output, "switch.json")
    if switches and not file.exists():
        before, after = sampled(cfg, cfg.model), sampled(cfg, str(Path(cfg.output, "policy")))
        write(file, json.dumps(strategy_switch(before, after)) + "\n")


def sampled(cfg: grpo.GRPOConfig, model: str) -> list[dict]:
    """Completions of the evaluation problems as rows.

    In one batch all policies draw the same random numbers for every first token: a strategy
    switches only where its probability has moved, not by a new throw of the dice.
    """
    problems = load_problems(cfg.eval_data, "test", limit=cfg.eval_problems)
    rows = []
    evaluation.evaluate(
        *load_policy(model),
        problems,
        cfg.eval_samples,
        cfg.eval_temperature,
        cfg.eval_top_p,
        cfg.max_new_tokens,
        batch=len(problems) * cfg.eval_samples,
        seed=cfg.seed,
        keep=rows,
    )
    return rows


def main(cfg: SpuriousConfig) -> None:
    runs = plan(cfg)
    claim_results(Path(cfg.output), "experiments.spurious")
    # every seed has the same problems
    for split, count in (("train", 2000), ("test", 200)):
        problems = load_problems(WORLD, split, count)
        rows = [json.dumps({"question": p.question, "answer": p.answer}) + "\n" for p in problems]
        write(Path(cfg.output, f"{split}.jsonl"), "".join(rows))
    starts = dict.fromkeys(
        (run.prior, start_folder(cfg, run.prior, run.seed), run.seed) for run in runs
    )
    run_all([(make_start, *start) for start in starts], cfg.workers, "warm-ups")
    jobs = [(run_one, run.config, run.experiment == "grid") for run in runs]
    run_all(jobs, cfg.workers, "runs")
    keep = cfg.keep or str(Path(cfg.output, "results"))
    keep_spurious_logs(keep, runs)
    spurious_tables.main(spurious_tables.TablesConfig(keep, readme=cfg.readme))


if __name__ == "__main__":
    command_line(SpuriousConfig, main)
