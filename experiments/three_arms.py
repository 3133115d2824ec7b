"""The whole story in one command: warm-up, reward model, and three arms from the same start.

    rule     GRPO on the rule verifier                  the ceiling
    frozen   GRPO on a frozen reward model              hacked: its score rises, true accuracy falls
    cooper   GRPO on a reward model that learns along   not hacked

    python -m experiments.three_arms --seed 1 --output runs/demo1

Every stage is kept under `output`; a second call does only what is missing. Takes every flag of
cooper.py except --model, --rm_model and --reward, which it sets itself; `seed` also reaches the
warm-up and the reward model.
"""

import dataclasses
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

import cooper
import grpo
import reward_model
import tiny
import world
from data import load_problems
from eval import evaluate
from experiments.three_arms_report import ReportConfig, report
from rollout import load_policy
from support.errors import InputError
from support.files import claim_results, read_json
from support.flags import command_line

# arm: (what is printed about it, its loop, its config class, what differs from the flags)
ARMS = {
    "rule": ("GRPO on the rule verifier", grpo.train, grpo.GRPOConfig, {"reward": "rule"}),
    "frozen": (
        "GRPO on the frozen reward model",
        cooper.train,
        cooper.CooperConfig,
        {"rm_lr": 0.0},
    ),
    "cooper": ("the reward model learns along", cooper.train, cooper.CooperConfig, {}),
}

# Seconds of a stage, of an arm per step, on two slow cores: only for what is announced.
SECONDS = {"warm-up": 320, "reward model": 30, "rule": 1.0, "frozen": 1.6, "cooper": 2.3}


@dataclass(frozen=True)
class DemoConfig(cooper.CooperConfig):
    output: str = "runs/demo"  # folder of all stages
    seed: int = 1  # of every stage; results/cooper has 1 to 10
    threads: int | None = 1  # of torch; a second one saves this policy no time; None takes all
    arms: tuple[str, ...] = ("rule", "frozen", "cooper")  # what is run: see ARMS
    prior: Literal[tuple(world.PRIORS)] = "mixed"  # what the policy is taught in the warm-up
    warm_up_steps: int = 800  # updates of the warm-up
    rm_target: float = 0.88  # validation accuracy at which the initial reward model is done
    eval_problems: int = 500  # problems per evaluation
    eval_samples: int = 2  # completions per problem; one greedy one besides
    eval_every: int = 10  # steps between evaluations, 0 for none
    eval_early: int = 10  # up to this step every other step is evaluated as well; 0 for none


def pick(config_class, cfg, *changes: dict):
    """The part of `cfg` that `config_class` has, with changes; later ones win."""
    names = {field.name for field in dataclasses.fields(config_class)}
    settings = {name: getattr(cfg, name) for name in names}
    for change in changes:
        settings |= {name: value for name, value in change.items() if name in names}
    return config_class(**settings)


class Stages:
    """Prints what begins, how long it will take and what came out, in a terminal or a pipe."""

    def __init__(self, count: int):
        self.count, self.number, self.speed = count, 0, 1.0

    def begin(self, name: str, what: str, seconds: float) -> None:
        self.number, self.began, self.expected = self.number + 1, time.time(), seconds
        minutes = seconds * self.speed / 60
        about = f"{minutes:.0f} minutes" if minutes > 1.5 else "a minute"
        print(f"[{self.number}/{self.count}] {name}: {what} (about {about})", flush=True)

    def end(self, result: str) -> None:
        took = time.time() - self.began
        # what was there already says nothing about the speed of this machine
        if took > self.expected / 20:
            self.speed = took / self.expected
        print(f"      {result} ({took:.0f} s)", flush=True)


def train_policy(cfg: DemoConfig, policy: str) -> str:
    """Train the start -> what to print of it."""
    tiny.warm_up(
        tiny.WarmUpConfig(
            prior=cfg.prior, data=cfg.data, output=policy, steps=cfg.warm_up_steps, seed=cfg.seed
        )
    )
    known = read_json(Path(policy, "marks.json"))
    problems = load_problems(cfg.eval_data or cfg.data, "test", cfg.eval_problems, cfg.seed)
    result = evaluate(*load_policy(policy), problems, samples=2, temperature=1.0, top_p=1.0)
    return (
        f"after {known['updates']} updates: policy {result['accuracy']:.2f} right on held-out "
        f"problems at temperature 1; of wrong solutions the judge tells "
        f"{known['judge says No']:.2f}, of right ones the assistant spoils {known['assistant']:.2f}"
    )


def train_reward_model(cfg: DemoConfig, policy: str, rm: str) -> str:
    """Train the initial reward model -> what to print of it."""
    result = reward_model.train(
        reward_model.RewardModelConfig(
            model=policy, data=cfg.data, eval_data=cfg.eval_data, eval_problems=cfg.eval_problems,
            output=rm, target=cfg.rm_target, seed=cfg.seed, max_new_tokens=cfg.max_new_tokens,
            rule=cfg.rule,
        )
    )  # fmt: skip
    return (
        f"reward model: {result['held_out/accuracy']:.3f} right on held-out samples after "
        f"{result['steps']} updates; rule and judge agreed on {result['annotation_kept']:.2f}"
    )


def main(cfg: DemoConfig) -> None:
    if unknown := set(cfg.arms) - set(ARMS):
        raise InputError(f"no arm called {', '.join(unknown)}: choose from {', '.join(ARMS)}")
    grpo.check(cfg, steps=(1, None))
    for field in ("model", "rm_model", "reward"):
        if getattr(cfg, field) != getattr(cooper.CooperConfig, field):
            raise InputError(f"the demo makes its own start: --{field} is for cooper.py")
    if cfg.threads is not None:
        torch.set_num_threads(cfg.threads)
    folder, stages = Path(cfg.output), Stages(2 + len(cfg.arms))
    claim_results(folder, "experiments.three_arms")
    policy, rm = str(folder / "policy"), str(folder / "rm")

    stages.begin("warm-up", "a tiny policy learns to solve, often wrongly", SECONDS["warm-up"])
    stages.end(train_policy(cfg, policy))
    stages.begin("reward model", "fit to labels of rule and judge", SECONDS["reward model"])
    stages.end(train_reward_model(cfg, policy, rm))

    start = {"model": policy, "rm_model": rm}
    for arm in cfg.arms:
        what, train, config_class, changes = ARMS[arm]
        seconds = cfg.steps * SECONDS.get(arm, SECONDS["cooper"])
        stages.begin(arm, f"{what}, {cfg.steps} steps", seconds)
        history = train(pick(config_class, cfg, start, {"output": str(folder / arm)}, changes))
        accuracy = [row["eval/accuracy"] for row in history if "eval/accuracy" in row]
        shown = (
            f"true accuracy {accuracy[0]:.2f} -> {max(accuracy):.2f} at best -> {accuracy[-1]:.2f}"
            if accuracy
            else "not evaluated"
        )
        stages.end(f"{shown}; reward {history[-1]['reward']:.2f}")

    caption = (
        f"prior {cfg.prior}, {cfg.prompts} x {cfg.group_size} completions per step, lr {cfg.lr:g}, "
        f"rm_lr {cfg.rm_lr:g}: python -m experiments.three_arms --seed {cfg.seed} "
        f"--steps {cfg.steps}"
    )
    report(ReportConfig(cfg.output, str(folder / "cooper.png"), caption))


if __name__ == "__main__":
    command_line(DemoConfig, main)
