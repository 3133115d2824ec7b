"""The whole story in one command: warm-up, reward model, and three arms from the same start.

    rule     GRPO on the rule verifier                  the ceiling
    frozen   GRPO on a frozen reward model              hacked: its score rises, true accuracy falls
    cooper   GRPO on a reward model that learns along   not hacked

    python -m experiments.three_arms --seed 1 --output runs/demo1

Every stage is kept under `output`; a second call does only what is missing. All flags of cooper.py
are here and reach every arm, but for model, rm_model and reward, which the demo sets; `seed` also
reaches the warm-up and the reward model.
"""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import cooper
import grpo
import reward_model
import tiny
from experiments.three_arms_report import PlotConfig, report
from support.flags import command_line


@dataclass(frozen=True)
class DemoConfig(cooper.CooperConfig):
    output: str = "runs/demo"  # folder of all stages
    prior: Literal[tuple(tiny.PRIORS)] = "mixed"  # what the policy is taught in the warm-up
    warm_up_steps: int = 800  # updates of the warm-up
    rm_target: float = 0.94  # validation accuracy at which the initial reward model is done
    steps: int = 400  # rollout phases an arm


def pick(config_class, cfg, *changes: dict):
    """The part of `cfg` that `config_class` has, with changes; later ones win."""
    names = {field.name for field in dataclasses.fields(config_class)}
    settings = {name: getattr(cfg, name) for name in names}
    for change in changes:
        settings |= {name: value for name, value in change.items() if name in names}
    return config_class(**settings)


def main(cfg: DemoConfig) -> None:
    folder = Path(cfg.output)
    policy, rm = str(folder / "policy"), str(folder / "rm")
    tiny.warm_up(tiny.WarmUpConfig(cfg.prior, policy, cfg.warm_up_steps, seed=cfg.seed))
    reward_model.train(
        reward_model.RewardModelConfig(
            model=policy, data=cfg.data, output=rm, target=cfg.rm_target, seed=cfg.seed,
            max_new_tokens=cfg.max_new_tokens,
        )
    )  # fmt: skip
    start = {"model": policy, "rm_model": rm, "reward": "rule"}
    arms = {
        "rule": (grpo.train, grpo.GRPOConfig, {}),
        "frozen": (cooper.train, cooper.CooperConfig, {"rm_lr": 0.0}),
        "cooper": (cooper.train, cooper.CooperConfig, {}),
    }
    for arm, (train, config_class, changes) in arms.items():
        history = train(pick(config_class, cfg, start, {"output": str(folder / arm)}, changes))
        if history[-1]["step"] < cfg.steps:
            raise SystemExit(
                f"{arm}: stopped at step {history[-1]['step']}; the same command goes on"
            )
    caption = (
        f"prior {cfg.prior}, {cfg.prompts} x {cfg.group_size} rollouts a step, lr {cfg.lr:g}: "
        f"python -m experiments.three_arms --seed {cfg.seed} --steps {cfg.steps}"
    )
    report(PlotConfig(cfg.output, str(folder / "cooper.png"), caption))


if __name__ == "__main__":
    command_line(DemoConfig, main)
