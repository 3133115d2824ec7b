"""Figures of experiments.survey, from its slim logs alone."""

from statistics import fmean

from experiments.reproduce_logs import Runs, last, values
from support.plots import finish, pyplot


def soon(run: dict) -> float:
    """The mean accuracy of the evaluations of steps 2 to 20: how fast a run learns."""
    rows = zip(run["step"], run["eval/accuracy"])
    return fmean(accuracy for step, accuracy in rows if 0 < step <= 20)


SEEDS = "make survey; thin: a seed, thick: their mean"


def draw_seeds(axis, runs: Runs, name: str, colour: str, lw: float = 2.4, **look) -> None:
    """A metric against step: a thin line a seed, a thick one for their mean."""
    lines = [values(run, name) for run in runs.values()]
    for line in lines:
        axis.plot(*line, color=colour, lw=0.7, alpha=0.4)
    means = [fmean(found) for found in zip(*[line[1] for line in lines])]
    axis.plot(lines[0][0][: len(means)], means, color=colour, lw=lw, **look)


def draw_algorithms(arms: dict[str, Runs], output: str) -> None:
    """A dot a seed: how fast each learns, and how far it comes."""
    names = sorted(arms, key=lambda arm: fmean(map(soon, arms[arm].values())))
    figure, axes = pyplot().subplots(1, 2, figsize=(11, 0.3 * len(names) + 1.6), sharey=True)
    for axis, measure in zip(axes, (soon, last)):
        for row, arm in enumerate(names):
            found = [measure(run) for run in arms[arm].values()]
            colour = "tab:red" if arm == "grpo" else "tab:blue"
            axis.plot(found, [row] * len(found), "o", color=colour, alpha=0.6)
            axis.plot(fmean(found), row, "|", color="black", ms=14)
    axes[0].set(yticks=range(len(names)), yticklabels=names, title="Mean accuracy of steps 2 to 20")
    axes[1].set(title="Accuracy at the end, steps 40 to 60")
    finish(figure, axes, output, "make survey: a dot a seed, a bar their mean", dpi=110)


def draw_discovery(rows: list[dict], output: str) -> None:
    """pass@k before and after, a panel for each set of problems of which any was solved."""
    passes = [name for name in rows[0] if name.startswith("pass@")]
    ks = [int(name.removeprefix("pass@")) for name in passes]
    highest = {row["on"]: 0.0 for row in rows}
    for row in rows:
        highest[row["on"]] = max(highest[row["on"]], row[passes[-1]])
    sets = [on for on, most in highest.items() if most > 0] or list(highest)
    figure, axes = pyplot().subplots(
        1, len(sets), figsize=(3.2 * len(sets) + 1, 3.8), squeeze=False
    )
    colours = {"before": "0.45", "rl": "tab:blue", "rl on long": "tab:green"}
    colours |= {"rl on nines": "tab:red"}
    for axis, on in zip(axes[0], sets):
        for policy, colour in colours.items():
            found = [row for row in rows if row["on"] == on and row["policy"] == policy]
            for row in found:
                axis.plot(ks, [row[name] for name in passes], color=colour, lw=0.7, alpha=0.4)
            if found:
                means = [fmean(row[name] for row in found) for name in passes]
                axis.plot(ks, means, "o-", color=colour, label=policy, ms=4)
        axis.set(xscale="log", xticks=ks, xticklabels=ks, title=on, xlabel="k")
        axis.set_ylim(-0.01, 1.02 if highest[on] > 0.5 else 1.3 * highest[on] + 0.01)
        axis.minorticks_off()
    axes[0, 0].set(ylabel="pass@k")
    axes[0, -1].legend(frameon=False, loc="upper left")
    finish(figure, list(axes[0]), output, f"{SEEDS}; temperature 1", dpi=110)


def draw_process(arms: dict[str, Runs], output: str) -> None:
    """Accuracy, and the right answers that have a wrong step, against step."""
    figure, axes = pyplot().subplots(1, 2, figsize=(10, 4))
    for arm, colour in zip(arms, ("0.45", "tab:orange", "tab:blue", "tab:green")):
        for axis, name in zip(axes, ("eval/accuracy", "right_with_wrong_step")):
            draw_seeds(axis, arms[arm], name, colour, label=arm)
    axes[0].set(title="True accuracy", xlabel="step", ylabel="share", ylim=(0, 1.02))
    axes[1].set(title="Of the right answers: with a wrong step", xlabel="step", ylim=(0, 1.02))
    axes[0].legend(frameon=False)
    finish(figure, axes, output, SEEDS, dpi=110)


def draw_labels(arms: dict[str, Runs], output: str) -> None:
    """Accuracy against step for each reward, a panel for each prior."""
    priors = list(dict.fromkeys(arm.partition(", ")[0] for arm in arms))
    figure, axes = pyplot().subplots(1, len(priors), figsize=(13, 4), sharey=True)
    for axis, prior in zip(axes, priors):
        for number, reward in enumerate(a.partition(", ")[2] for a in arms if a.startswith(prior)):
            colour = "0.7" if reward == "rule" else f"C{number - 1}"
            # the first four lie on one another: broad below, narrow above
            look = {"lw": max(5 - 1.2 * number, 1.8), "ls": "--" if 0 < number < 4 else "-"}
            runs = arms[f"{prior}, {reward}"]
            draw_seeds(axis, runs, "eval/accuracy", colour, label=reward, **look)
        axis.set(title=prior, xlabel="step", ylim=(0, 1.02))
    axes[0].set(ylabel="true accuracy")
    axes[-1].legend(frameon=False, fontsize=9)
    finish(figure, axes, output, SEEDS, dpi=110)


def draw_tricks(arms: dict[str, Runs], output: str) -> None:
    """Accuracy on the frozen reward model against step, a panel for each trick over `plain`."""
    base, *tricks = [arm for arm in arms if arm.startswith("static, ")]
    figure, axes = pyplot().subplots(2, 4, figsize=(12, 5.4), sharex=True, sharey=True)
    for axis, arm in zip(axes.flat, tricks):
        draw_seeds(axis, arms[base], "eval/accuracy", "0.5")
        draw_seeds(axis, arms[arm], "eval/accuracy", "tab:red")
        axis.set(title=arm.partition(", ")[2], ylim=(0, 1.02))
    axes[0, -1].tick_params(labelbottom=True)  # nothing is below it
    axes.flat[-1].axis("off")
    axes.flat[-1].text(0, 0.5, "red: with the trick\ngrey: plain GRPO", fontsize=11)
    for axis in axes[1]:
        axis.set(xlabel="step")
    for axis in axes[:, 0]:
        axis.set(ylabel="true accuracy")
    finish(figure, list(axes.flat[: len(tricks)]), output, SEEDS, dpi=90)
