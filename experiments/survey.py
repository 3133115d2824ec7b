"""The survey's open questions (arXiv:2509.08827, section 4), each answered in miniature.

    python -m experiments.survey --only algorithms

Five seeds or more; each has its own problems and its own starts. A second call does only what is
missing. What the runs share was chosen on seeds 100 and above and then frozen.

    algorithms   every preset of survey/objectives.py, and PPO
    tricks       one of them left out or added: on the rule, and on a frozen reward model
    process      a reward for steps beside, or in place of, the one for the answer
    labels       rewards without a label, on three priors
    prior        a short or a long warm-up, then the same RL
    sft          RL, or supervised training on own right samples, or on given solutions; a second
                 task after the first; what each forgets
    discovery    pass@k before and after RL, within the prior's reach and beyond
    prefix       code by an answer's first word, on three priors, without RL
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch

import cooper
import grpo
import reward_model
import sft
import tiny
from data import load_problems
from experiments import survey_measures
from experiments.reproduce_logs import file_name
from experiments.survey_report import SurveyReportConfig, keep, report
from experiments.workers import quietly, run_all
from support.checks import check_settings
from support.errors import InputError
from support.files import claim_results, write
from support.flags import command_line
from survey import objectives, ppo

SETTINGS = {
    "lr": 1e-4,
    "steps": 60,
    "eval_every": 10,
    "eval_early": 20,
    "eval_problems": 300,
    "eval_samples": 2,
}
PRIORS = ("qwen_math", "llama", "olmo_sft")


class Arm(NamedTuple):
    changes: dict = {}  # of SETTINGS
    loop: str = "grpo"  # grpo, ppo, sft, or "static": GRPO on a frozen reward model
    start: str = "mixed"  # a prior of world.PRIORS, with its warm-up steps; or the run it follows


# Weights and clipping do something only where the policy has moved since it sampled: eight updates
# of the same completions, not two. The rate is that at which GRPO takes 10 to 12 steps to 0.9; the
# others were not tuned.
MOVED = {"minibatches": 8, "lr": 5e-5}
ALGORITHMS = {name: Arm(MOVED | {"algorithm": name}) for name in objectives.PRESETS}
# at this rate the paper's range clips most tokens in the first steps
WIDE = {"algorithm": "gspo", "clip_eps_low": 0.003, "clip_eps_high": 0.003}
ALGORITHMS |= {"gspo wider": Arm(MOVED | WIDE), "ppo": Arm(MOVED, "ppo")}

TRICKS = {
    "plain": {},
    "no std": {"scale_by_std": False},
    "no clipping": {"clip_eps": None},
    "KL 0.01": {"kl_coef": 0.01},
    "entropy bonus": {"entropy_coef": 0.01},
    "entropy target": {"entropy_target": 0.3},
    "mean over sequences": {"loss_norm": "sequence"},
    "constant normaliser": {"loss_norm": "constant"},
}
STATIC = {"steps": 120}

WITHOUT_LABELS = ("rule", "majority", "ttrl", "confidence", "self_certainty", "negative_entropy")

# longer than anything that the warm-up shows; with room for its steps
LONG = {"data": "arithmetic:7-9", "max_new_tokens": 60}
GIVEN = {"solutions": "given"}
# references above 9 are written "9 + n", to be met word for word: nothing in this prior does
NINES = {"data": "nines.train.jsonl", "eval_data": "nines.test.jsonl", "rule": "same text"}

# name: (seeds, arms)
QUESTIONS = {
    "algorithms": (8, ALGORITHMS),
    "tricks": (
        6,
        {name: Arm(MOVED | changes) for name, changes in TRICKS.items()}
        | {f"static, {name}": Arm(MOVED | STATIC | c, "static") for name, c in TRICKS.items()},
    ),
    "process": (
        5,
        {
            "outcome": Arm(start="careless"),
            "outcome + 0.3 steps": Arm({"process_coef": 0.3}, start="careless"),
            "outcome + steps": Arm({"process_coef": 1.0}, start="careless"),
            "steps alone": Arm({"reward": "0 rule", "process_coef": 1.0}, start="careless"),
        },
    ),
    "labels": (
        5,
        {
            f"{prior}, {reward}": Arm({"reward": reward}, start=prior)
            for prior in PRIORS
            for reward in WITHOUT_LABELS
        },
    ),
    "prior": (
        5,
        {f"{steps} updates": Arm(start=f"mixed {steps}") for steps in (100, 200, 400, 800, 1600)},
    ),
    "sft": (
        5,
        {
            "rl": Arm(),
            "own samples": Arm({"solutions": "samples"}, "sft"),
            "given": Arm(GIVEN, "sft"),
            "rl, then rl": Arm(LONG, start="sft/rl"),
            "rl, then given": Arm(LONG | GIVEN, "sft", "sft/rl"),
            "given, then rl": Arm(LONG, start="sft/given"),
            "given, then given": Arm(LONG | GIVEN, "sft", "sft/given"),
            "given on long alone": Arm(LONG | GIVEN, "sft"),
        },
    ),
    "discovery": (5, {"rl on long": Arm(LONG), "rl on nines": Arm(NINES)}),
    "prefix": (5, {}),
}
NEEDS = {"discovery": "sft"}


@dataclass(frozen=True)
class SurveyConfig:
    output: str = "runs/survey"  # starts and runs; what is there already is not repeated
    only: tuple[str, ...] = tuple(QUESTIONS)  # which questions
    seeds: int | None = None  # at most so many of each question; None takes all
    first_seed: int = 1  # 101 and above to try settings
    workers: int = 2  # runs at a time, one thread each
    keep: str | None = None  # folder of slim logs, tables and figures; None is output/results
    readmes: tuple[str, ...] = ()  # files whose tables, between marks, are renewed


def folder(cfg: SurveyConfig, seed: int, *names: str) -> str:
    return str(Path(cfg.output, f"seed{seed}", file_name(*names)))


def start_of(cfg: SurveyConfig, arm: Arm, seed: int) -> str:
    if "/" in arm.start:
        return str(Path(folder(cfg, seed, *arm.start.split("/")), "policy"))
    return folder(cfg, seed, "policy", arm.start)


def run_config(cfg: SurveyConfig, question: str, name: str, arm: Arm, seed: int):
    settings = SETTINGS | arm.changes | {"seed": seed}
    for field in ("data", "eval_data"):
        if str(settings.get(field)).endswith(".jsonl"):
            settings[field] = folder(cfg, seed, settings[field])
    settings["model"] = start_of(cfg, arm, seed)
    settings["output"] = folder(cfg, seed, question, name)
    if arm.loop == "static":
        settings |= {"rm_model": folder(cfg, seed, "rm"), "rm_lr": 0.0}
        return cooper.CooperConfig(**({"kl_coef": 0.0} | settings))
    kinds = {"grpo": grpo.GRPOConfig, "ppo": ppo.PPOConfig, "sft": sft.SFTConfig}
    return kinds[arm.loop](**settings)


def make_policy(cfg: SurveyConfig, start: str, seed: int) -> None:
    """ "mixed" with its helpers, "mixed 200" and the other priors without."""
    prior, _, steps = start.partition(" ")
    settings = {"helpers": start == "mixed"} | ({"steps": int(steps)} if steps else {})
    output = folder(cfg, seed, "policy", start)
    quietly(tiny.warm_up, tiny.WarmUpConfig(prior=prior, output=output, seed=seed, **settings))


def make_reward_model(cfg: SurveyConfig, seed: int) -> None:
    settings = {"eval_problems": SETTINGS["eval_problems"], "seed": seed}
    settings |= {"model": folder(cfg, seed, "policy", "mixed"), "output": folder(cfg, seed, "rm")}
    quietly(reward_model.train, reward_model.RewardModelConfig(**settings))


def make_nines(cfg: SurveyConfig, seed: int) -> None:
    """Chains whose reference, where it is above 9, is written "9 + n"."""
    for split, count in (("train", 2000), ("test", SETTINGS["eval_problems"])):
        path = Path(folder(cfg, seed, f"nines.{split}.jsonl"))
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            rows = [
                {"question": p.question, "answer": in_nines(int(p.answer))}
                for p in load_problems("arithmetic", split, count, seed)
            ]
            write(path, "".join(json.dumps(row) + "\n" for row in rows))


def in_nines(number: int) -> str:
    """
    >>> in_nines(9), in_nines(14)
    ('9', '9 + 5')
    """
    return f"9 + {number - 9}" if number > 9 else str(number)


def run_one(cfg) -> None:
    torch.manual_seed(cfg.seed)
    loops = {cooper.CooperConfig: cooper, ppo.PPOConfig: ppo, sft.SFTConfig: sft}
    quietly(loops.get(type(cfg), grpo).train, cfg)


def seeds_of(cfg: SurveyConfig, question: str) -> range:
    count = QUESTIONS[question][0]
    return range(cfg.first_seed, cfg.first_seed + min(count, cfg.seeds or count))


def main(cfg: SurveyConfig) -> None:
    check_settings(cfg, seeds=(1, None), first_seed=(1, None))
    if unknown := set(cfg.only) - set(QUESTIONS):
        raise InputError(f"no {', '.join(unknown)}: choose from {', '.join(QUESTIONS)}")
    claim_results(Path(cfg.output), "experiments.survey")
    only = list(dict.fromkeys([NEEDS[q] for q in cfg.only if q in NEEDS] + list(cfg.only)))
    runs, policies, reward_models = {}, set(), set()
    for question in only:
        for seed in seeds_of(cfg, question):
            for name, arm in QUESTIONS[question][1].items():
                runs[run_config(cfg, question, name, arm, seed)] = arm
                if "/" not in arm.start:
                    policies.add((seed, arm.start))
                if arm.loop == "static":
                    reward_models.add(seed)
            if question == "discovery":
                make_nines(cfg, seed)
            if question == "prefix":
                policies |= {(seed, prior) for prior in PRIORS}
    jobs = [(make_policy, cfg, start, seed) for seed, start in sorted(policies)]
    run_all(jobs, cfg.workers, "policies")
    jobs = [(make_reward_model, cfg, seed) for seed in sorted(reward_models)]
    run_all(jobs, cfg.workers, "reward models")
    by_seed = sorted(runs, key=lambda run: run.seed)
    first = [run for run in by_seed if "/" not in runs[run].start]
    run_all([(run_one, run) for run in first], cfg.workers, "runs")
    then = [run for run in by_seed if "/" in runs[run].start]
    run_all([(run_one, run) for run in then], cfg.workers, "second tasks")
    kept = cfg.keep or str(Path(cfg.output, "results"))
    for question in only:
        arms = list(QUESTIONS[question][1])
        if arms:
            keep(cfg.output, kept, question, arms)
        if question in survey_measures.MEASURES:
            jobs = survey_measures.jobs(cfg.output, question, seeds_of(cfg, question))
            run_all(jobs, cfg.workers, f"measures of {question}")
            survey_measures.keep(cfg.output, kept, question)
    report(SurveyReportConfig(kept, cfg.readmes))


if __name__ == "__main__":
    command_line(SurveyConfig, main)
