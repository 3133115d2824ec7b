"""Does a grader see that two texts are one number? Its order on right and wrong, by pair of forms.

A reference is written as a number or as a sum, "4 + 5" for 9, and so is the answer in the box. For
each of these four pairs and each of some problems a right solution stands against one with a slip,
both written in the same way. The order is the share of problems whose right one scores higher, ties
counted half: 1/2 is a grader that sees no difference.

    python -m experiments.forms --folder runs/reproduce
"""

import random
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import data
import rules
import world
from data import Problem
from experiments.reproduce_logs import file_name, seed_folders, write_lines
from reward_model import RewardModel
from support.errors import InputError
from support.files import claim_results
from support.flags import command_line
from support.tables import markdown
from verifier import extract_answer

FORMS = ("number", "sum")
CHAINS = data.chains_of("arithmetic:sums")
RULES = ("last number", "verifier")
# arm of the experiment "forms": the folder of its reward model, at the start and at the end
STARTS = {"static": "forms", "static, rule labels": "forms, rule labels"}
STARTS |= {"static, judge labels": "forms, judge labels"}
TRAINED = ("assistant", "rollouts")


def write_pair(rng: random.Random, reference: str, answer: str) -> tuple[Problem, str, str]:
    """(problem, right solution, wrong solution), the reference and both answers in these forms."""
    asked, written = ({"number": str, "sum": CHAINS.form(rng, 1.0)} for _ in range(2))
    while True:
        problem = data.arithmetic_problem(rng, rng.choice(CHAINS.in_split("train")))
        strategy = world.draw_strategy(rng, world.PRIORS["mixed"])
        steps = 1 if strategy == "guess" else (len(problem.question.split()) - 3) // 2
        right, wrong = (
            world.write_solution(problem.question, strategy, rng, slip=slip, form=written[answer])
            for slip in (None, rng.randrange(steps + 1))
        )
        # a slip may come out right at the border of 0..20; 0 and 1 are no sums
        totals = (int(problem.answer), number_in(wrong))
        if min(totals) > 1 and totals[0] != totals[1]:
            return Problem(problem.question, asked[reference](int(problem.answer))), right, wrong


def number_in(text: str) -> int:
    """The number in the box, be it written as a sum."""
    return world.value(extract_answer(text, require_box=True))


def order(score, pairs: list[tuple[Problem, str, str]]) -> float:
    """score(problems, texts) -> list of numbers; see the module."""
    problems = [problem for problem, _, _ in pairs]
    right, wrong = (score(problems, [pair[i] for pair in pairs]) for i in (1, 2))
    return fmean((r > w) + (r == w) / 2 for r, w in zip(right, wrong))


def by_rule(name: str):
    rule = rules.rule_of(name)
    return lambda problems, texts: [float(rule(t, p)) for t, p in zip(texts, problems)]


def by_model(folder: str):
    rm = RewardModel.load(folder)

    def score(problems, texts):
        questions, references = zip(*[(p.question, p.answer) for p in problems])
        return rm.score(questions, references, texts).tolist()

    return score


def graders(start: Path, runs: Path) -> dict:
    """{name: score} of the two rules, and of the reward models that one seed has."""
    models = {arm: start / "rm" / file_name(name) for arm, name in STARTS.items()}
    models |= {f"Cooper, {arm}": runs / "forms" / arm / "rm" for arm in TRAINED}
    found = {name: by_model(str(path)) for name, path in models.items() if path.exists()}
    return {f"rule: {name}": by_rule(name) for name in RULES} | found


def keep_pairs(starts: str, runs: str, kept: str, count: int = 300) -> None:
    """Write kept/form_pairs.jsonl: grader, seed, reference, answer, order.

    starts, runs: the folders with the seeds' reward models at the start and at the end.
    """
    claim_results(Path(kept), "experiments.reproduce")
    rows = []
    for folder in seed_folders(runs):
        if not (folder / "forms").exists():
            continue
        for name, score in graders(Path(starts, folder.name), folder).items():
            for reference in FORMS:
                for answer in FORMS:
                    rng = random.Random(f"{folder.name} {reference} {answer}")
                    pairs = [write_pair(rng, reference, answer) for _ in range(count)]
                    row = {"grader": name, "seed": int(folder.name[4:]), "reference": reference}
                    rows.append(row | {"answer": answer, "order": round(order(score, pairs), 3)})
    if not rows:
        raise InputError(f"{runs} holds no run of forms: make reproduce-more")
    write_lines(Path(kept, "form_pairs.jsonl"), rows)


def pair_table(rows: list[dict]) -> str:
    """Markdown: means over seeds, the lowest and the highest in brackets."""
    columns = [(reference, answer) for reference in FORMS for answer in FORMS]
    lines = []
    for name in dict.fromkeys(row["grader"] for row in rows):
        cells = []
        for pair in columns:
            found = [
                row["order"]
                for row in rows
                if row["grader"] == name and (row["reference"], row["answer"]) == pair
            ]
            spread = f" ({min(found):.2f}-{max(found):.2f})" if min(found) < max(found) else ""
            cells.append(f"{fmean(found):.2f}{spread}")
        lines.append([name, *cells])
    head = [f"reference a {reference}, answer a {answer}" for reference, answer in columns]
    return markdown(["order", *head], lines)


@dataclass(frozen=True)
class FormsConfig:
    folder: str = "runs/reproduce"  # what experiments.reproduce has run
    keep: str | None = None  # folder of the measured rows; None is folder/results


def main(cfg: FormsConfig) -> None:
    keep_pairs(cfg.folder, cfg.folder, cfg.keep or str(Path(cfg.folder, "results")))


if __name__ == "__main__":
    command_line(FormsConfig, main)
