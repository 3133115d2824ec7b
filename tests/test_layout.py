"""The house: what lies at the top level, imports that go one way, files of one sitting."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TOP = {
    "grpo", "reward_model", "verifier", "cooper", "eval",
    "rollout", "rewards", "rules", "labels", "annotation", "data", "prompts", "pairs", "tiny",
    "world", "judge", "learner", "sft", "metrics", "decoding", "cooper_trl",
}  # fmt: skip
FILES = [
    file
    for folder in (".", "survey", "support", "support/formula", "experiments")
    for file in sorted((ROOT / folder).glob("*.py"))
]


def name(file: Path) -> str:
    """support/run.py -> support.run; a package's __init__.py -> the package."""
    return ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {name(file): file for file in FILES}


def imported(file: Path) -> set[str]:
    """The project's modules that a file imports, wherever in the file."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found & set(MODULES)


IMPORTS = {module: imported(file) for module, file in MODULES.items()}


def circle(imports: dict[str, set[str]]) -> list[str]:
    """A path that leads back to where it began, or []."""
    done = set()

    def visit(module, path):
        if module in path:
            return [*path[path.index(module) :], module]
        if module not in done:
            for other in sorted(imports[module]):
                if found := visit(other, [*path, module]):
                    return found
            done.add(module)
        return []

    return next((found for module in sorted(imports) if (found := visit(module, []))), [])


def folder(module: str) -> str:
    return MODULES[module].parent.relative_to(ROOT).as_posix()


def test_circle_finds_one():
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]
    assert circle({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


def test_the_top_level_holds_what_one_reads_and_nothing_else():
    assert {module for module in MODULES if folder(module) == "."} == TOP


def test_no_file_imports_one_that_imports_it():
    inside = {module: others - {module} for module, others in IMPORTS.items()}
    assert circle(inside) == []


def test_no_folder_imports_one_that_imports_it():
    """experiments -> top level -> support -> support/formula, and never back; what GRPO leaves
    off, survey, belongs to the top level."""

    def level(module):
        return "." if folder(module) == "survey" else folder(module)

    between = {level(module): set() for module in MODULES}
    for module, others in IMPORTS.items():
        between[level(module)] |= {level(other) for other in others} - {level(module)}
    assert circle(between) == []
    assert between["support"] <= {"support/formula"} and "experiments" not in between["."]


def test_what_a_reader_must_understand_first_does_not_import_what_comes_later():
    order = ["data", "rollout", "rewards", "eval", "grpo", "reward_model", "cooper"]
    for i, module in enumerate(order):
        assert not IMPORTS[module] & set(order[i + 1 :]), module


@pytest.mark.parametrize("file", FILES, ids=name)
def test_a_file_is_what_one_sitting_holds(file):
    assert len(file.read_text(encoding="utf-8").splitlines()) <= 320


@pytest.mark.parametrize("module", ["grpo", "cooper"])
def test_the_stages_stand_in_the_loop_in_their_order(module):
    """Stages are comments inside `for step` of train: all eight in cooper, without 5-7 in grpo."""
    lines = MODULES[module].read_text(encoding="utf-8").splitlines()
    begin = next(i for i, line in enumerate(lines) if "for step in run.steps()" in line)
    end = next(i for i, line in enumerate(lines) if line.startswith("        run.save_model("))
    stages = [
        line.strip()[2:]
        for line in lines[begin:end]
        if line.strip()[:3] in map("# {}".format, range(9))
    ]
    expected = [
        "1 sample", "2 score", "3 advantages", "4 policy update",
        "5 positives", "6 negatives", "7 reward-model update", "8 log / eval",
    ]  # fmt: skip
    if module == "grpo":
        expected[4:] = ["8 log / eval (5-7 are Cooper's)"]
    assert stages == expected
    assert end - begin <= 70, "the loop no longer fits on one screen"
