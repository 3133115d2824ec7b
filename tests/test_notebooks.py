"""The notebooks: their exercises judge as they should, their cells are thin, and all run."""

import ast
import math
import os
import re
import shutil
from pathlib import Path
from statistics import fmean

import pytest
import torch

from notebooks import check, solutions
from reward_model import bce_loss
from support.jsonl import read_jsonl
from verifier import extract_answer


def population_std(r):
    return (r - r.mean(1, keepdim=True)) / (r.std(1, correction=0, keepdim=True) + 1e-6)


# exercise: (answer, word of the hint that it must get), of typical mistakes
MISTAKES = {
    "advantages": [
        (population_std, "G - 1"),
        (lambda r: (r - r.mean(1)) / r.std(1), "keepdim"),
        (lambda r: (r - r.mean()) / r.std(), "each row"),
        (lambda r: r - r.mean(1, keepdim=True), "std is missing"),
        (lambda r: (r - r.mean(1, keepdim=True)) / r.std(1, keepdim=True), "1e-6"),
        (lambda r: r.nothing, "AttributeError"),
    ],
    "leave_one_out": [
        (lambda r: r - r.mean(1, keepdim=True), "itself is in your mean"),
        (lambda r: r - (r.sum(1, keepdim=True) - r) / r.shape[1], "not by G"),
    ],
    "silent_groups": [
        ({"B"}, "right answers"),
        ({"A", "B", "D", "E"}, "0.01"),
        ({"A", "D"}, "wrong"),
    ],
    "loss_means": [
        (lambda o, m: ((o * m).sum() / o.numel(), (o * m).sum(1).mean()), "expected"),
        (lambda o, m: ((o * m).sum() / m.sum(), (o * m).mean(1).mean()), "own length"),
        (lambda o, m: (o.mean(), o.mean()), "padding"),
        (lambda o, m: solutions.loss_means(o, m)[::-1], "wrong way round"),
    ],
    "silent_bug": [("A", "predicts"), ("C", "padding"), ("everything", "A, B or C")],
    "reaches": [
        ([{"step": 0}], "eval_every"),
        ([{"step": 20, "eval/accuracy": 0.6}], "0.60"),
        ([{"step": 50, "eval/accuracy": 0.95}], "step 50"),
    ],
    "clipped": [
        (lambda r, a, eps: r.clamp(1 - eps, 1 + eps) * a, "smaller of the two"),
        (lambda r, a, eps: torch.maximum(r * a, r.clamp(1 - eps, 1 + eps) * a), "larger"),
        (lambda r, a, eps: r.clamp(max=1 + eps) * a, "bounded below"),
        (lambda r, a, eps: r * a, "Nothing is clipped"),
        (lambda r, a, eps: solutions.clipped(r, a, eps).detach(), "graph"),
    ],
    "quadrant": [
        ("A > 0, ratio > 1.2", "the same"),
        ("A < 0, ratio < 0.8", "too much"),
        ("left", "say one of"),
    ],
    "clips": [
        ([{"step": 0}, {"step": 1, "clip_ratio/region_mean": 0.0}], "With one update"),
        ([{"step": 0}], "no history"),
        (32, "TypeError"),
    ],
    "cleaned": [
        (lambda a: a.strip(), "of 10"),
        (lambda a: "".join(c for c in a if c.isalnum()), "RL will find"),
        (lambda a: extract_answer(a), "misses"),
    ],
    "fools": [("seven", "not fooled"), (r"so \boxed{12}", "verifier takes it")],
    "debatable": [
        (solutions.debatable | {"3.14": True}, "six digits"),
        (solutions.debatable | {"17 or 18": True}, "hedge"),
        (dict.fromkeys(check.DEBATABLE), "no decision"),
    ],
    "bce": [
        (lambda z, y: 3 * bce_loss(z, y), "not the sum"),
        (lambda z, y: -bce_loss(z, y), "minus"),
        (lambda z, y: -(y * z.sigmoid().log()).mean(), "term of its own"),
        (lambda z, y: ((z.sigmoid() - y) ** 2).mean(), "log"),
    ],
    "pairwise": [
        (lambda p, n: -(p.sigmoid() - n.sigmoid()).sigmoid().log().mean(), "not of the scores"),
        (lambda p, n: -(n - p).sigmoid().log().mean(), "z_pos - z_neg"),
        (lambda p, n: -(p - n).sigmoid().log().sum(), "not the sum"),
    ],
    "hacks": [({"A", "B", "D"}, "it is right"), ({"A", "C", "D"}, "knows"), ({"A"}, "the sum")],
    "reads_reference": [
        ({"held_out/swap_accuracy": 0.06, "held_out/accuracy": 0.88}, "swap_share"),
        ({"held_out/swap_accuracy": 0.99, "held_out/accuracy": 0.5}, "less"),
    ],
    "positives": [
        (lambda c, g, random: [1, 8], "draw"),
        (lambda c, g, random: [1, 0], "whole batch"),
        (lambda c, g, random: [random.choice([i for i in range(12) if c[i]])], "each group"),
    ],
    "negative": [
        (lambda text, reference: extract_answer(text) != reference, "4/2"),
        (lambda text, reference: reference not in text, "only the box"),
        (lambda text, reference: "box" in text and solutions.negative(text, reference), "no box"),
    ],
    "lost": [({"A"}, "towards 0"), ({"A", "B", "C"}, "ends at 0.56")],
    "mu": [
        (lambda g: g * (1 - g), "sample std"),
        (lambda g: 2 * g * (1 - g) / math.sqrt(2), "only one"),
        (lambda g: 1 / math.sqrt(2), "equal coins"),
    ],
    "helped_by_python": [({"llama"}, "0.16"), ({"qwen_math", "olmo_sft"}, "0.18"), (set(), "0.59")],
    "pass_at_k": [
        (lambda n, c, k: 1 - (1 - c / n) ** k, "replacement"),
        (lambda n, c, k: c / n, "pass@1"),
        (lambda n, c, k: math.comb(n - c, k) / math.comb(n, k), "none is right"),
    ],
    "kinds": [
        (solutions.kinds | {"left": "rare common"}, "1.00 before"),
        (dict.fromkeys(solutions.kinds, "sharpens"), "rises with"),
        (dict.fromkeys(solutions.kinds), "no name"),
    ],
    "sign_flip": [
        (lambda d: check.exact_sign_flip(d) / 2, "Both sides"),
        (check.beyond, "those as far"),
    ],
    "memory": [
        (lambda n: 4 * n, "weights alone"),
        (lambda n: 12 * n, "two numbers"),
        (lambda n: 8 * n, "optimizer"),
    ],
    "calculated": [(0, "answer the question"), (10, "Work out")],
}
LIKED = "plus plus"
REWARDS = [
    ((solutions.reward, r"\boxed{3}"), "the hack gets"),
    ((solutions.reward, r"plus \boxed{12}"), "no hack"),
    ((lambda r: torch.ones(len(r.texts)), LIKED), "same to all"),
    ((lambda r: [1.0] * len(r.texts), LIKED), "not a tensor"),
    ((lambda r: None, LIKED), "nothing so far"),
]
MEASURED = {
    "clips": [{"step": 0}, {"step": 1, "clip_ratio/region_mean": 0.05}],
    "reaches": [{"step": 0, "eval/accuracy": 0.4}, {"step": 24, "eval/accuracy": 0.93}],
    "reads_reference": {"held_out/swap_accuracy": 0.9, "held_out/accuracy": 0.87},
}
EXERCISES = sorted(name for name in vars(check) if hasattr(getattr(check, name), "__wrapped__"))


def test_every_exercise_has_mistakes_and_a_solution():
    assert set(EXERCISES) == set(MISTAKES) | {"reward"}
    assert all(len(cases) >= 2 for cases in MISTAKES.values())
    assert all(hasattr(solutions, name) for name in EXERCISES)


@pytest.mark.parametrize("name", EXERCISES)
def test_a_blank_is_not_yet(name):
    judge, parts = getattr(check, name), 2 if name == "reward" else 1
    for blank in (None, ..., lambda *inputs: None):
        assert judge(*[blank] * parts).startswith("not yet"), blank


@pytest.mark.parametrize(
    "name, answer, hint", [(n, a, h) for n, cases in MISTAKES.items() for a, h in cases]
)
def test_a_mistake_gets_its_hint(name, answer, hint):
    said = getattr(check, name)(answer)
    assert said.startswith("not yet") and hint in said


@pytest.mark.parametrize("answer, hint", REWARDS)
def test_a_reward_that_is_none_gets_its_hint(answer, hint):
    said = check.reward(*answer)
    assert said.startswith("not yet") and hint in said


@pytest.mark.parametrize("name", EXERCISES)
def test_a_solution_is_right(name):
    answer = MEASURED.get(name, getattr(solutions, name))
    more = (solutions.hack,) if name == "reward" else ()
    assert getattr(check, name)(answer, *more) == "right"


def test_the_verdict_is_shown_without_quotes():
    assert repr(check.silent_bug("b")) == "right"


# --------------------------------------------------------------------------------------------------
# The notebooks themselves

ROOT = Path(check.__file__).parents[1]
FILES = sorted((ROOT / "notebooks").glob("*.ipynb"))
TABLE = ROOT / "results" / "cooper" / "table.jsonl"
# how long a class waits, and what a test needs
FAST = {
    "STEPS, N, G = 20, 32, 8": "STEPS, N, G = 2, 8, 4",
    "STEPS = 20": "STEPS = 2",
    "STEPS = 40": "STEPS = 2",
    'STEPS, TARGET, LABELS = 60, 0.88, "both"': 'STEPS, TARGET, LABELS = 2, 0.0, "rule"',
    "STEPS = 12": "STEPS = 1",
    "N, G = 4, 6": "N, G = 32, 8",  # some right completion is needed
    "STEPS, SAMPLES = 20, 64": "STEPS, SAMPLES = 2, 8",
}


def read(path: Path):
    return pytest.importorskip("nbformat").read(path, 4)


def code(path: Path) -> list[str]:
    return [cell.source for cell in read(path).cells if cell.cell_type == "code"]


def printed(number: str) -> str:
    """What the committed outputs of a notebook say, as one text."""
    (path,) = [file for file in FILES if file.name.startswith(number)]
    cells = [cell for cell in read(path).cells if cell.cell_type == "code"]
    return "".join(out.get("text", "") for cell in cells for out in cell.outputs)


def test_the_first_screen_of_the_readme_leads_to_the_first():
    first = "\n".join((ROOT / "README.md").read_text(encoding="utf-8").splitlines()[:10])
    assert f"(notebooks/{FILES[0].name})" in first and "(docs/teaching.md)" in first


def test_there_are_nine():
    assert [file.name[:2] for file in FILES] == [f"{n:02}" for n in range(1, 10)]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_notebook_is_thin(file):
    """At most 20 lines a cell, and no function that a module defines."""
    modules = [ROOT / f"{m}.py" for m in ("grpo", "cooper", "rollout", "reward_model", "eval")]
    modules += [ROOT / f"{m}.py" for m in ("verifier", "rewards", "pairs", "data", "metrics")]
    defined = {
        node.name
        for path in modules
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.FunctionDef)
    }
    for source in code(file):
        assert len(source.splitlines()) <= 20, source
        names = {n.name for n in ast.walk(ast.parse(source)) if isinstance(n, ast.FunctionDef)}
        assert not names & defined
    first = [cell.source for cell in read(file).cells[:2]]
    assert first[0].startswith("# ") and first[1] == read(FILES[0]).cells[1].source


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_outputs_are_committed_small_and_of_no_machine(file):
    text = file.read_text(encoding="utf-8")
    assert len(text) < 300_000
    assert not re.search(r"/(work|home|root|tmp|Users)/", text) and 'execution": {' not in text
    cells = [cell for cell in read(file).cells if cell.cell_type == "code"]
    assert all(cell.execution_count for cell in cells)
    outputs = [out for cell in cells for out in cell.outputs]
    assert not [out for out in outputs if out.output_type == "error" or out.get("name") == "stderr"]
    pictures = [out for out in outputs if "image/png" in out.get("data", {})]
    assert pictures and "not yet" in str(outputs)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_exercise_is_asked_and_left_blank(file):
    asked = re.findall(r"check\.(\w+)\(", "\n".join(code(file)))
    assert 2 <= len(set(asked) & set(EXERCISES)) <= 4
    everywhere = "\n".join(source for path in FILES for source in code(path))
    assert all(f"check.{name}(" in everywhere for name in EXERCISES)


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """The files alone, so that a run here touches nobody's."""
    folder = tmp_path_factory.mktemp("checkout") / "minicooper"
    names = ".git", ".venv", "runs", "__pycache__", ".*_cache", ".hypothesis"
    shutil.copytree(ROOT, folder, ignore=shutil.ignore_patterns(*names))
    return folder


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_notebook_runs_from_top_to_bottom(file, checkout, monkeypatch):
    """In a fresh kernel, with a policy that was hardly taught, for a step or two."""
    pytest.importorskip("nbclient")
    from notebooks import run

    monkeypatch.setenv("MINICOOPER_FAST", "1")
    monkeypatch.setattr(run, "FOLDER", checkout / "notebooks")
    notebook, changed = read(file), 0
    for cell in notebook.cells:
        for slow, fast in FAST.items():
            if f"{slow}\n" in cell.source + "\n":
                cell.source, changed = cell.source.replace(slow, fast), changed + 1
    assert bool(changed) == (file.name[:2] not in ("01", "09"))
    executed = run.cleaned(run.executed(notebook))
    assert str(checkout) not in str(executed) and os.listdir(checkout / "runs" / "notebooks")


def test_the_page_for_teachers_says_what_the_notebooks_print():
    page = (ROOT / "docs" / "teaching.md").read_text(encoding="utf-8")
    before, after = re.search(r"held-out accuracy (\S+) -> (\S+)", printed("02")).groups()
    assert f"held-out accuracy {before} to 0.9" in page and float(after) >= 0.9
    static = [row for row in read_jsonl(TABLE) if row["arm"] == "static"]
    by_60 = [row["eval/accuracy"][: row["step"].index(60) + 1] for row in static]
    assert [a[-1] <= 0.8 * max(a) for a in by_60].count(True) == 8 and len(by_60) == 10
    assert "Of the ten committed static runs eight have lost a fifth" in " ".join(page.split())
    right = re.search(r"right on held-out\s+(\S+)", printed("05"))[1]
    assert f"why is {right} not enough?" in page
    assert all(file.name in page for file in FILES)


def test_outputs_are_cleaned_and_nothing_else_of_a_notebook_is_lost():
    nbformat = pytest.importorskip("nbformat")
    from notebooks import run

    cell = nbformat.v4.new_code_cell("1 + 1", metadata={"tags": ["mine"], "execution": {"x": "1"}})
    here = f"{run.FOLDER.parent}/runs"
    cell.outputs = [
        nbformat.v4.new_output("stream", name="stderr", text="a bar"),
        nbformat.v4.new_output("stream", name="stdout", text=f"see {here}"),
    ]
    cleaned = run.cleaned(nbformat.v4.new_notebook(cells=[cell])).cells[0]
    assert cleaned.source == "1 + 1" and cleaned.metadata == {"tags": ["mine"]}
    assert [out.text for out in cleaned.outputs] == ["see runs"]


def prose(number: str) -> str:
    (path,) = [file for file in FILES if file.name.startswith(number)]
    text = " ".join(cell.source for cell in read(path).cells if cell.cell_type == "markdown")
    return " ".join(text.split())


def test_the_numbers_in_the_text_of_the_notebooks_are_those_of_the_logs():
    ends = {}
    for file in ("table", "assistant", "ablations"):
        for row in read_jsonl(ROOT / "results" / "cooper" / f"{file}.jsonl"):
            ends.setdefault(row["arm"], []).append(fmean(row["eval/accuracy"][-3:]))
    # notebooks 5 and 6
    best = [max(row["eval/accuracy"]) for row in read_jsonl(TABLE) if row["arm"] == "static"]
    assert sum(end < best - 0.3 for end, best in zip(ends["static"], best)) == 9
    assert "nine of ten end far below their best" in prose("05")
    assert f"from {min(ends['static']):.2f} to {max(ends['static']):.2f}" in prose("06")
    gain = [fmean(b - a for a, b in zip(ends[x], ends[y]))
            for x, y in (("paper", "four updates"), ("four updates", "odd assistant"))]  # fmt: skip
    assert f"four updates by {gain[0]:.2f}, the assistant by {gain[1]:.2f}" in prose("06")
    low, high = min(ends["rollouts"]), max(ends["rollouts"])
    assert f"{low:.2f} to {high:.2f} on five of five" in prose("06")
    assert sum(end < 0.5 for end in ends["perturb"]) == 4 and "hacked on four of five" in prose(
        "06"
    )
    assert sum(end < 0.5 for end in ends["every 5"]) == 4 and "four of five seeds" in prose("06")
    # notebook 8
    for arm, end in (("plain", 0.30), ("no std", 0.61), ("no clipping", 0.08)):
        rows = read_jsonl(ROOT / "results" / "survey" / "tricks.jsonl")
        found = [fmean(r["eval/accuracy"][-3:]) for r in rows if r["arm"] == f"static, {arm}"]
        assert round(fmean(found), 2) == end
    assert "0.30 as it is, 0.61 without std, 0.08 without clipping" in prose("08")
