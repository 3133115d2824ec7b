"""Cooper's Table 3, Figures 3 and 4 in miniature, its ablations, and how good a verifier must be.

    python -m experiments.reproduce --only table

Every seed has a start of its own: a policy, its reward model, and problems, those of the evaluation
too. A second call does only what is missing. What the runs share was chosen on seeds 100 and above
(LOG.md) and then frozen; seeds 1, 2, ... are reported.

    table       no RL, rule, static reward model, Cooper: ten seeds
    assistant   the paper's recipe with helpers that were taught neat rewrites; what cures it
    ablations   one change of Cooper, or of the reward model that it starts from
    long        Cooper, and a better static reward model, for 480 steps
    forms       a rule that misses a third of the right answers, by the form they are written in
    verifier    GRPO on a rule that errs: how often, by chance or always on the same answers
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import torch

import cooper
import grpo
import reward_model
import rules
import tiny
from experiments.forms import keep_pairs
from experiments.reproduce_logs import file_name, keep, keep_starts
from experiments.reproduce_report import ReportConfig, report
from experiments.workers import quietly, run_all
from support.checks import check_settings
from support.errors import InputError
from support.files import claim_results
from support.flags import command_line
from support.progress import say

# What all runs share beside the defaults of cooper.py: the paper's KL, evaluations close together
# at the start, where most is learnt.
SETTINGS = {
    "lr": 1e-4,
    "steps": 120,
    "kl_coef": 0.001,
    "eval_every": 10,
    "eval_early": 10,
    "eval_problems": 500,
    "eval_samples": 2,
}


class Policy(NamedTuple):
    """What is warmed up."""

    data: str = "arithmetic"
    hidden: int = 64
    odd_rewrites: bool = True

    @property
    def name(self) -> str:
        wide = "" if self.hidden == 64 else f" {self.hidden}"
        return self.data.replace(":", " ") + wide + ("" if self.odd_rewrites else " neat")


class Start(NamedTuple):
    """What an arm begins with: a policy, and how its reward model is trained."""

    policy: Policy = Policy()
    changes: dict = {}  # of reward_model.RewardModelConfig
    backbone: Policy | None = None  # None takes the policy's


NEAT, FORMS = Policy(odd_rewrites=False), Policy("arithmetic:sums")
LONG = {"steps": 480, "eval_every": 20}
LAST_NUMBER = {"rule": "last number"}
LONGER = {"target": None}
# most of its reward models missed the target of the other starts: all 400 updates
POOR_RULE = LAST_NUMBER | LONGER
STARTS = {
    "plain": Start(),
    # better ones: all 400 updates, where the target takes 20 to 280; with right texts beside a
    # wrong reference, a quarter of each batch; with 3.9 times the parameters
    "longer": Start(changes=LONGER),
    "swapped": Start(changes=LONGER | {"swap_share": 0.25}),
    "larger": Start(changes=LONGER, backbone=Policy(hidden=128)),
    "blind": Start(changes={"reference": False}),
    "neat": Start(NEAT),
    "forms": Start(FORMS, POOR_RULE),
    "forms, rule labels": Start(FORMS, POOR_RULE | {"labels": "rule"}),
    "forms, judge labels": Start(FORMS, POOR_RULE | {"labels": "judge"}),
}


class Arm(NamedTuple):
    changes: dict = {}  # of SETTINGS
    start: str = "plain"
    loop: str = "cooper"  # or "rule", "static"
    assistant: Policy | None = None  # None takes the policy


def errs(kind: str) -> dict[str, Arm]:
    """The rule arm with a rule that errs at three rates; kind: "misses" or "accepts"."""
    return {
        f"{kind} {share}{by}": Arm({"rule": f"verifier, {kind} {share}{by}"}, loop="rule")
        for by in ("", " by answer")
        for share in ((0.3, 0.6, 0.9) if kind == "misses" else (0.1, 0.3, 0.6))
    }


# name: (seeds, arms)
EXPERIMENTS = {
    "table": (10, {"rule": Arm(loop="rule"), "static": Arm(loop="static"), "cooper": Arm()}),
    # policy, reward model and assistant of a world without oddities; "odd assistant": all but that
    "assistant": (
        10,
        {
            "paper": Arm({"rm_updates": 1}, start="neat"),
            "four updates": Arm(start="neat"),
            "odd assistant": Arm(start="neat", assistant=Policy()),
        },
    ),
    "ablations": (
        5,
        {
            "one pair, one update": Arm({"rm_updates": 1}),
            "rollouts": Arm({"negatives": "rollouts"}),
            "perturb": Arm({"negatives": "perturb"}),
            "stale pairs": Arm({"stale_pairs": True}),
            "every 2": Arm({"rm_every": 2}),
            "every 5": Arm({"rm_every": 5}),
            "every 10": Arm({"rm_every": 10}),
            "blind static": Arm(start="blind", loop="static"),
            "blind": Arm(start="blind"),
            "longer static": Arm(start="longer", loop="static"),
            "swapped static": Arm(start="swapped", loop="static"),
            "larger static": Arm(start="larger", loop="static"),
        },
    ),
    "forms": (
        5,
        {
            "gold": Arm(start="forms", loop="rule"),
            "rule": Arm(LAST_NUMBER, "forms", "rule"),
            "static": Arm(LAST_NUMBER, "forms", "static"),
            "static, rule labels": Arm(LAST_NUMBER, "forms, rule labels", "static"),
            "static, judge labels": Arm(LAST_NUMBER, "forms, judge labels", "static"),
            "assistant": Arm(LAST_NUMBER, "forms"),
            "rollouts": Arm(LAST_NUMBER | {"negatives": "rollouts"}, "forms"),
        },
    ),
    # four times as long: does the better static model hold?
    "long": (
        5,
        {"cooper": Arm(LONG), "swapped static": Arm(LONG, start="swapped", loop="static")},
    ),
    "verifier": (5, errs("misses") | errs("accepts")),  # beside the rule of "table"
}


@dataclass(frozen=True)
class ReproduceConfig:
    output: str = "runs/reproduce"  # starts and runs; what is there already is not repeated
    only: tuple[str, ...] = tuple(EXPERIMENTS)  # which experiments
    seeds: int | None = None  # at most so many of each experiment; None takes all
    shorten: int = 1  # divide the number of steps by this, for a first look
    workers: int = 2  # runs at a time, one thread each
    keep: str | None = None  # folder of slim logs, tables and figures; None is output/results
    readmes: tuple[str, ...] = ()  # files whose tables, between marks, are renewed


def folder(cfg: ReproduceConfig, seed: int, *names: str) -> str:
    return str(Path(cfg.output, f"seed{seed}", file_name(*names)))


def runs_of(cfg: ReproduceConfig) -> str:
    """Where the runs are; starts are the same whatever `shorten`."""
    return cfg.output if cfg.shorten == 1 else str(Path(cfg.output, f"short{cfg.shorten}"))


def run_config(cfg: ReproduceConfig, experiment: str, name: str, arm: Arm, seed: int):
    """A grpo.GRPOConfig for the loop "rule", else a cooper.CooperConfig."""
    policy = STARTS[arm.start].policy
    settings = SETTINGS | arm.changes | {"seed": seed, "data": policy.data}
    settings["steps"] = max(1, settings["steps"] // cfg.shorten)
    settings["model"] = folder(cfg, seed, "policy", policy.name)
    settings["output"] = folder(replace(cfg, output=runs_of(cfg)), seed, experiment, name)
    if arm.loop == "rule":
        return grpo.GRPOConfig(**settings)
    settings["rm_model"] = folder(cfg, seed, "rm", arm.start)
    if arm.assistant:
        settings["assistant"] = folder(cfg, seed, "policy", arm.assistant.name)
    if arm.loop == "static":
        settings["rm_lr"] = 0.0
    return cooper.CooperConfig(**settings)


def make_policy(cfg: ReproduceConfig, policy: Policy, seed: int) -> None:
    output = folder(cfg, seed, "policy", policy.name)
    or_say_why(tiny.warm_up, tiny.WarmUpConfig(output=output, seed=seed, **policy._asdict()))


def make_reward_model(cfg: ReproduceConfig, name: str, seed: int) -> None:
    policy, changes, backbone = STARTS[name]
    settings = {"data": policy.data, "eval_problems": SETTINGS["eval_problems"]} | changes
    settings["model"] = folder(cfg, seed, "policy", policy.name)
    if backbone:
        settings["backbone"] = folder(cfg, seed, "policy", backbone.name)
    output = folder(cfg, seed, "rm", name)
    or_say_why(
        reward_model.train, reward_model.RewardModelConfig(output=output, seed=seed, **settings)
    )


def or_say_why(train, config) -> None:
    """A start that misses its marks stops nothing but the runs that would begin there."""
    try:
        quietly(train, config)
    except InputError as error:
        say(f"{config.output} is left out: {error}")


def can_begin(run) -> bool:
    needed = [run.model, getattr(run, "rm_model", None), getattr(run, "assistant", None)]
    return all(Path(path, "config.json").exists() for path in needed if path)


def run_one(cfg) -> None:
    torch.manual_seed(cfg.seed)
    quietly((cooper if isinstance(cfg, cooper.CooperConfig) else grpo).train, cfg)


def main(cfg: ReproduceConfig) -> None:
    check_settings(cfg, seeds=(1, None), shorten=(1, None))
    if unknown := set(cfg.only) - set(EXPERIMENTS):
        raise InputError(f"no {', '.join(unknown)}: choose from {', '.join(EXPERIMENTS)}")
    claim_results(Path(cfg.output), "experiments.reproduce")
    runs = {}  # config: its arm
    for experiment in cfg.only:
        seeds, arms = EXPERIMENTS[experiment]
        for seed in range(1, min(seeds, cfg.seeds or seeds) + 1):
            for name, arm in arms.items():
                run = run_config(cfg, experiment, name, arm, seed)
                rules.rule_of(run.rule)
                runs[run] = arm
    judges = {(run.seed, arm.start) for run, arm in runs.items() if arm.loop != "rule"}
    policies = {(run.seed, STARTS[arm.start].policy) for run, arm in runs.items()}
    policies |= {(run.seed, arm.assistant) for run, arm in runs.items() if arm.assistant}
    policies |= {(seed, STARTS[name].backbone) for seed, name in judges if STARTS[name].backbone}
    jobs = [(make_policy, cfg, policy, seed) for seed, policy in sorted(policies)]
    run_all(jobs, cfg.workers, "policies")
    jobs = [(make_reward_model, cfg, name, seed) for seed, name in sorted(judges)]
    run_all(jobs, cfg.workers, "reward models")
    ready = [run for run in sorted(runs, key=lambda run: run.seed) if can_begin(run)]
    run_all([(run_one, run) for run in ready], cfg.workers, "runs")
    kept = cfg.keep or str(Path(runs_of(cfg), "results"))
    for experiment in cfg.only:
        keep(runs_of(cfg), kept, experiment, list(EXPERIMENTS[experiment][1]))
    keep_starts(cfg.output, kept)
    if "forms" in cfg.only:
        keep_pairs(cfg.output, runs_of(cfg), kept)
    report(ReportConfig(kept, cfg.readmes))


if __name__ == "__main__":
    command_line(ReproduceConfig, main)
