r"""Tables and figures of experiments.reproduce, from its slim logs alone.

    python -m experiments.reproduce_report --logs runs/reproduce/results

A run's result is the mean of its last three evaluations. It is *hacked* where its result is 0.15 or
more below its best evaluation and the score, from that evaluation to the last, rises by 0.05 or
more; these numbers were fixed before the runs. Where the score rises by less the run *fell*, where
it falls as well the run *failed*.
"""

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from experiments.forms import pair_table
from experiments.reproduce_figures import draw, draw_long, draw_verifier
from experiments.reproduce_logs import Runs, label, last, load, shared, values
from experiments.three_arms_report import samples_text, three_samples
from support.errors import InputError
from support.files import claim_results
from support.flags import command_line
from support.jsonl import read_jsonl
from support.plots import check_figure
from support.stats import sign_flip
from support.tables import check_readme, markdown, renew_file

BESIDE_THE_TABLE = ("assistant", "ablations", "long", "forms", "verifier")
# experiment: the arm that its others are held against
BASES = {"assistant": "odd assistant", "forms": "rule", "long": "cooper"}


def ended(run: dict, name: str = "eval/accuracy") -> str:
    """What became of a run: "hacked", "failed", "fell" or "", as the module says."""
    accuracy, score = (dict(zip(*values(run, column))) for column in (name, "reward"))
    best = max(score, key=accuracy.get)
    if last(run, name) > accuracy[best] - 0.15:
        return ""
    rise = score[max(score)] - score[best]
    return "hacked" if rise >= 0.05 else "failed" if rise < 0 else "fell"


# --------------------------------------------------------------------------------------------------
# Tables


def table(arms: dict[str, Runs]) -> str:
    """Markdown in the shape of Cooper's Table 3: means over the seeds that all arms have."""
    seeds = shared(arms)
    first = next(iter(arms.values()))
    names = [*lengths(first[seeds[0]]), "eval/accuracy"]
    rows = [["no RL", *[fmean(first[seed][name][0] for seed in seeds) for name in names]]]
    for arm, runs in arms.items():
        rows.append([label(arm), *[fmean(last(runs[seed], n) for seed in seeds) for n in names]])
    head = [name.removeprefix("eval/").replace("_", " ") for name in names[:-1]]
    cells = [[row[0], *[f"{x:.3f}" for x in row[1:]]] for row in rows]
    return markdown([f"mean of {len(seeds)} seeds", *head, "all problems"], cells)


def every_seed(arms: dict[str, Runs]) -> str:
    """Markdown: the result of every seed; where it fell what became of it and its best."""
    seeds = sorted(set().union(*arms.values()))
    rows = [
        [label(arm), *[cell(runs[seed]) if seed in runs else "-" for seed in seeds]]
        for arm, runs in arms.items()
    ]
    return markdown(["", *(f"seed {seed}" for seed in seeds)], rows)


def cell(run: dict, name: str = "eval/accuracy") -> str:
    best, fate = max(values(run, name)[1]), ended(run, name)
    return f"{last(run, name):.2f}" + (f" ({fate}, best {best:.2f})" if fate else "")


def lengths(run: dict) -> list[str]:
    """eval/3_numbers, ...: the columns of accuracy by length of problem."""
    return sorted(name for name in run if name.endswith("_numbers"))


def by_length(runs: Runs) -> str:
    """Markdown: every seed of one arm, a row per length of problem."""
    names = lengths(next(iter(runs.values())))
    rows = [
        [name.removeprefix("eval/").replace("_", " "), *[cell(run, name) for run in runs.values()]]
        for name in names
    ]
    return markdown(["", *(f"seed {seed}" for seed in runs)], rows)


def gaps(runs: Runs, others: Runs) -> list[float]:
    """Paired differences of two arms' results, by seed."""
    return [last(runs[s]) - last(others[s]) for s in sorted(runs.keys() & others.keys())]


def paired(arms: dict[str, Runs], base: str) -> str:
    """Markdown: every arm against `base`: differences by seed, their mean, exact sign-flip p."""
    rows = []
    for arm in arms:
        if arm != base and arms[arm].keys() & arms[base].keys():
            found = gaps(arms[base], arms[arm])
            shown = " ".join(f"{gap:+.2f}" for gap in found).replace("-0.00", "+0.00")
            rows.append([label(arm), shown, f"{fmean(found):+.3f}", f"{sign_flip(found):.3f}"])
    return markdown([f"{label(base)} minus", "by seed", "mean", "sign-flip p"], rows)


def ablations(arms: dict[str, Runs], base: dict[str, Runs]) -> str:
    """Markdown: one row per arm, its seeds singly; `base` holds the arms of the main table.

    Beside them, means at the end over the seeds that the arm has: how often the reward model scores
    the right one of (right, wrong) completions of a prompt higher, and the p of the difference to
    Cooper.
    """
    seeds, rows = sorted(set().union(*arms.values())), []
    for arm, runs in ({name: base[name] for name in ("cooper", "static")} | arms).items():
        runs = {seed: runs[seed] for seed in seeds if seed in runs}
        found = gaps(base["cooper"], runs)
        rows.append(
            [
                label(arm),
                *[cell(runs[seed]) if seed in runs else "-" for seed in seeds],
                f"{fmean(map(last, runs.values())):.2f}",
                f"{fmean(last(run, 'rm/order') for run in runs.values()):.2f}",
                f"{sign_flip(found):.2f}" if any(found) else "",
            ]
        )
    head = [*(f"seed {seed}" for seed in seeds), "mean", "order at the end", "p against Cooper"]
    return markdown(["", *head], rows)


def starts(rows: list[dict], name: str) -> str:
    """Markdown: what was measured of each seed's reward model at its start."""
    columns = {
        "annotation_kept": "rule and judge agree",
        "steps": "updates",
        "held_out/accuracy": "held-out accuracy",
        "held_out/swap_accuracy": "wrong references told",
    }
    lines = [
        [f"seed {row['seed']}", *[two_digits(row[key]) for key in columns]]
        for row in rows
        if row["start"] == name
    ]
    return markdown(["start", *columns.values()], lines)


def two_digits(value: float | int) -> str:
    return f"{value:.2f}" if isinstance(value, float) else str(value)


# --------------------------------------------------------------------------------------------------
# Hacked completions


def kind(question: str, completion: str) -> str:
    r"""What is wrong with a completion, by the first of these that holds.

    >>> kind("1 + 7 - 3 = ?", r"python x = 1 x += 7 # 8 x -= 3 # 4 print \boxed{4}")
    'a step miscalculated'
    >>> kind("1 + 7 - 3 = ?", r"1 plus 7 is 8 minus 3 is 5 so \boxed{8}")
    'another answer than its steps'
    >>> kind("1 + 7 - 3 = ?", r"1 plus 7 is 8 so \boxed{8}")
    'steps left out'
    """
    if completion.count("\\boxed{") != 1:
        return "no box, or several"
    asked = re.findall(r"([+-]) (\d+)", question)
    steps = re.findall(r"(\+=|-=|plus|minus) (\d+)(?: is| #)? (\d+)", completion)
    done = [("+" if sign in ("+=", "plus") else "-", n) for sign, n, _ in steps]
    begun = re.search(r"\d+", completion)
    if not steps:
        return "a guess"
    if begun is None or begun[0] != question.split()[0] or Counter(done) - Counter(asked):
        return "steps of another problem"
    if len(done) < len(asked):
        return "steps left out"
    total = int(begun[0])
    for sign, n, shown in steps:
        total = total + int(n) if sign in ("+=", "plus") else total - int(n)
        if total != int(shown):
            return "a step miscalculated"
    return "another answer than its steps"


def hacked(samples: list[dict]) -> list[dict]:
    """The wrong completions of the static arm that were scored above 1/2, best first."""
    rows = [
        row | {"kind": kind(row["question"], row["completion"])}
        for row in samples
        if row["arm"] == "static" and not row["correct"] and row["reward"] > 0.5
    ]
    return sorted(rows, key=lambda row: -row["reward"])


def hacked_text(samples: list[dict]) -> str:
    """The best scored one of each seed, under their kinds."""
    best = {}
    for row in hacked(samples):
        best.setdefault(row["seed"], row)
    shown = list(best.values())
    lines = []
    for name, _ in Counter(row["kind"] for row in hacked(samples)).most_common():
        found = [row for row in shown if row["kind"] == name]
        lines += [f"{name}:"] * bool(found)
        lines += [
            f"  {row['reward']:.2f}  {row['question']} reference {row['reference']}\n"
            f"        {row['completion']}"
            for row in found
        ]
    return "```text\n" + "\n".join(lines) + "\n```"


def kinds(samples: list[dict]) -> str:
    """Markdown: how many hacked completions are of which kind, and on how many seeds."""
    rows, found = [], hacked(samples)
    for name, count in Counter(row["kind"] for row in found).most_common():
        seeds = sorted({row["seed"] for row in found if row["kind"] == name})
        rows.append([name, count, ", ".join(map(str, seeds))])
    return markdown(["wrong, and scored above 1/2", "completions", "seeds"], rows)


# --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ReportConfig:
    logs: str = "runs/reproduce/results"  # what experiments.reproduce kept; figures go there too
    readmes: tuple[str, ...] = ()  # files whose tables, between marks, are renewed


def of_arms(samples: list[dict]) -> list[list[dict]]:
    return [[row for row in samples if row["arm"] == arm] for arm in ("static", "cooper")]


def made_texts(logs: str) -> dict[str, str]:
    """{mark in a README: what the logs put there}, of the experiments that were kept."""
    arms, samples = load(logs, "table"), read_jsonl(Path(logs, "samples.jsonl"))
    if missing := {"rule", "static", "cooper"} - set(arms):
        raise InputError(f"{logs}/table.jsonl has no {', '.join(missing)}: make reproduce goes on")
    made = {
        "cooper: table": table(arms),
        "cooper: seeds": every_seed(arms),
        "cooper: lengths": by_length(arms["cooper"]),
        "cooper: paired": paired(arms, "cooper"),
        "cooper: starts": starts(read_jsonl(Path(logs, "starts.jsonl")), "plain"),
        "cooper: samples": f"```text\n{samples_text(three_samples(*of_arms(samples)))}\n```",
        "cooper: hacked": hacked_text(samples),
        "cooper: kinds": kinds(samples),
    }
    for name in BESIDE_THE_TABLE:
        if Path(logs, f"{name}.jsonl").exists():
            found = load(logs, name)
            if name == "ablations":
                made["cooper: ablations"] = ablations(found, arms)
            else:
                made[f"cooper: {name}"] = every_seed(found)
            if base := BASES.get(name):
                made[f"cooper: {name} paired"] = paired(found, base)
    if pairs := read_jsonl(Path(logs, "form_pairs.jsonl")):
        made["cooper: form pairs"] = pair_table(pairs)
    return made


def report(cfg: ReportConfig) -> None:
    for readme in cfg.readmes:
        check_readme(readme)
    claim_results(Path(cfg.logs), "experiments.reproduce")
    figure, of_verifier, of_long = (
        str(Path(cfg.logs, name)) for name in ("cooper.png", "verifier.png", "long.png")
    )
    check_figure(figure)
    made = made_texts(cfg.logs)
    print("\n\n".join(made.values()), end="\n\n")
    arms = load(cfg.logs, "table")
    draw(arms, figure, "make reproduce")
    if Path(cfg.logs, "verifier.jsonl").exists():
        check_figure(of_verifier)
        draw_verifier(load(cfg.logs, "verifier"), arms["rule"], of_verifier, "make reproduce")
    if Path(cfg.logs, "long.jsonl").exists():
        check_figure(of_long)
        draw_long(load(cfg.logs, "long"), of_long, "make reproduce-more")
    for readme in cfg.readmes:
        renew_file(readme, made)
    print(f"figures: {cfg.logs}")


if __name__ == "__main__":
    command_line(ReportConfig, report)
