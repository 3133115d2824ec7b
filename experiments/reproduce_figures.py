"""Figures of experiments.reproduce, drawn by experiments.reproduce_report."""

import re
from statistics import fmean

from experiments.reproduce_logs import Runs, label, last, shared, values
from support.plots import finish, pyplot

COLOURS = {
    "rule": "0.45",
    "static": "tab:green",
    "swapped static": "tab:green",
    "cooper": "tab:blue",
}


def draw_arm(axis, arm: str, runs: Runs, name: str) -> None:
    """A metric against step: a thin line per seed that has it, a thick one for their mean."""
    lines = [values(run, name) for run in runs.values() if name in run]
    for line in lines:
        axis.plot(*line, color=COLOURS[arm], lw=0.7, alpha=0.45)
    if lines:
        means = [fmean(found) for found in zip(*[line[1] for line in lines])]
        axis.plot(lines[0][0], means, color=COLOURS[arm], lw=2.6, label=label(arm))


def draw(arms: dict[str, Runs], output: str, caption: str = "") -> None:
    """The paper's Figure 3, true accuracy and reward against step; beside it the reward model on
    fixed pairs, where its Figure 4 has accuracy on fixed samples: that is dashed, the mean alone.
    """
    figure, axes = pyplot().subplots(1, 3, figsize=(13, 4), sharey=True)
    panels = ("eval/accuracy", "reward", "rm/held_out_order")
    for arm, runs in arms.items():
        for axis, name in zip(axes, panels):
            draw_arm(axis, arm, runs, name)
        if arm == "cooper":
            samples = [values(run, "rm/held_out_accuracy") for run in runs.values()]
            means = [fmean(found) for found in zip(*[line[1] for line in samples])]
            style = {"color": COLOURS[arm], "lw": 1.5, "ls": "--"}
            axes[2].plot(samples[0][0], means, label="on single samples, at score 1/2", **style)
    axes[0].set(title="True accuracy (Figure 3)", ylim=(0, 1.02))
    axes[1].set(title="Reward of the completions (Figure 3)")
    axes[2].set(title="Reward model on fixed pairs (cf. Figure 4)")
    axes[2].axhline(0.5, color="0.7", lw=0.8, ls=":")
    axes[2].text(
        0.5, 0.46, "a coin", color="0.5", fontsize=8, transform=axes[2].get_yaxis_transform()
    )
    axes[2].legend(loc="lower left", frameon=False, fontsize=9)
    count = max(map(len, arms.values()))
    axes[0].legend(
        loc="lower left", frameon=False, fontsize=9, title=f"{count} seeds and their mean"
    )
    for axis in axes:
        axis.set(xlabel="step")
        axis.tick_params(labelleft=True)
    finish(figure, axes, output, caption, dpi=110)


def draw_long(arms: dict[str, Runs], output: str, caption: str = "") -> None:
    """True accuracy and reward against step."""
    figure, axes = pyplot().subplots(1, 2, figsize=(10, 4), sharey=True)
    for axis, name in zip(axes, ("eval/accuracy", "reward")):
        for arm, runs in arms.items():
            draw_arm(axis, arm, runs, name)
        axis.axvline(120, color="0.7", lw=0.8, ls=":")
        axis.set(xlabel="step", ylim=(0, 1.02))
        axis.tick_params(labelleft=True)
    axes[0].text(124, 0.04, "the other runs end here", color="0.5", fontsize=8)
    axes[0].set(title="True accuracy")
    axes[1].set(title="Reward of the completions")
    axes[0].legend(loc="center right", frameon=False, fontsize=9)
    finish(figure, axes, output, caption, dpi=110)


def draw_verifier(arms: dict[str, Runs], exact: Runs, output: str, caption: str = "") -> None:
    """Final true accuracy against how often the rule errs, and the groups without a signal."""
    figure, axes = pyplot().subplots(1, 3, figsize=(13, 4), sharey=True)
    seeds = shared(arms)
    styles = {
        "": ("by chance", "tab:blue", "o"),
        " by answer": ("on certain answers", "tab:red", "s"),
    }
    for axis, (error, what) in zip(axes, {"misses": "rejects", "accepts": "accepts"}.items()):
        for by, (text, colour, marker) in styles.items():
            runs = {0.0: exact} | {
                float(match[1]): arms[arm]
                for arm in arms
                if (match := re.fullmatch(rf"{error} ([\d.]+){by}", arm))
            }
            side = 0.008 if by else -0.008
            for rate, found in runs.items():
                results = [last(found[seed]) for seed in seeds]
                axis.plot(
                    [rate + side] * len(seeds), results, marker, color=colour, ms=4, alpha=0.6
                )
            line = [fmean(last(found[seed]) for seed in seeds) for found in runs.values()]
            axis.plot(list(runs), line, color=colour, lw=2, label=text)
            zero = [
                fmean(last(found[s], "frac_reward_zero_std") for s in seeds)
                for found in runs.values()
            ]
            dashes = "-" if error == "misses" else "--"
            axes[2].plot(list(runs), zero, dashes, color=colour, label=f"{what}, {text}")
        right = "right" if error == "misses" else "wrong"
        axis.set(title=f"True accuracy; the rule {what} {right} answers", ylim=(0, 1.02))
        axis.set(xlabel=f"share of {right} answers that it {what}")
        axis.legend(loc="lower left", frameon=False, fontsize=9)
        axis.tick_params(labelleft=True)
    axes[2].set(title="Groups with equal rewards, no signal", xlabel="share on which the rule errs")
    axes[2].legend(frameon=False, fontsize=8)
    axes[2].tick_params(labelleft=True)
    finish(figure, axes, output, caption, dpi=110)
