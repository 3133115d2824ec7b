"""The README tells the truth: files exist, commands parse, line counts are right."""

import importlib
import re
import shlex
from pathlib import Path

import pytest

from support import flags

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
CONFIGS = {
    "grpo": "GRPOConfig",
    "cooper": "CooperConfig",
    "reward_model": "RewardModelConfig",
    "eval": "EvalConfig",
    "tiny": "WarmUpConfig",
    "experiments.real": "RealConfig",
    "experiments.three_arms": "DemoConfig",
    "experiments.three_arms_report": "ReportConfig",
    "experiments.spurious": "SpuriousConfig",
    "experiments.spurious_tables": "TablesConfig",
    "experiments.strategy_switch": "SwitchConfig",
    "support.plots": "CompareConfig",
}


def commands():
    blocks = re.findall(r"```(?:sh|bash)\n(.*?)```", README, re.S)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [line.partition("#")[0].strip() for line in lines if line.strip()]


@pytest.mark.parametrize("command", [c for c in commands() if c.startswith("python ")])
def test_every_python_command_of_the_readme_parses(command):
    words = shlex.split(command)[1:]
    name = words[1] if words[0] == "-m" else words[0].removesuffix(".py")
    module = importlib.import_module(name)
    flags.parse_flags(getattr(module, CONFIGS[name]), words[1 + (words[0] == "-m") :])


def test_every_make_target_of_the_readme_exists():
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M))
    asked = {c.split()[1] for c in commands() if c.startswith("make ")}
    assert {"demo", "test"} <= asked <= targets


def test_every_file_that_the_readme_links_to_exists():
    links = re.findall(r"\]\(([^)#]+?)(?:#L(\d+))?\)", README)
    local = [(path, line) for path, line in links if "://" not in path]
    assert len(local) > 10
    for path, line in local:
        assert (ROOT / path).exists(), path
        if line:
            assert int(line) <= len((ROOT / path).read_text(encoding="utf-8").splitlines()), (
                path,
                line,
            )


def test_the_eight_stages_link_to_the_lines_that_say_so():
    """`1 sample` links to the line of the code that carries the banner `# 1 sample`, and so on."""
    stages = re.findall(r"^(\d)\. \[(.+?)\]\((\w+\.py)#L(\d+)\)", README, re.M)
    assert [int(number) for number, *_ in stages] == list(range(1, 9))
    for number, name, file, line in stages:
        code = (ROOT / file).read_text(encoding="utf-8").splitlines()[int(line) - 1]
        assert code.strip() == f"# {number} {name}", f"stage {number} is not at {file}:{line}"


def test_both_loops_are_linked_where_they_begin():
    for file, line in re.findall(r"`(?:grpo|cooper)\.train`\]\((\w+\.py)#L(\d+)\)", README):
        assert (
            (ROOT / file)
            .read_text(encoding="utf-8")
            .splitlines()[int(line) - 1]
            .startswith("def train(")
        )


def test_line_counts_of_the_file_table():
    rows = re.findall(r"^\| \[`(\w+\.py)`\]\(\w+\.py\) \|.*\| (\d+) \|$", README, re.M)
    assert {name for name, _ in rows} == {p.name for p in ROOT.glob("*.py")}
    for name, count in rows:
        actual = len((ROOT / name).read_text(encoding="utf-8").splitlines())
        assert abs(actual - int(count)) <= 10, f"{name} has {actual} lines, the README says {count}"


@pytest.mark.parametrize("file", [ROOT / "README.md", *ROOT.glob("results/*/README.md")], ids=str)
def test_every_row_of_a_table_has_the_cells_of_its_header(file):
    for table in re.findall(r"(?:^\|.*\n)+", file.read_text(encoding="utf-8"), re.M):
        assert len({row.count("|") for row in table.splitlines()}) == 1, table


def test_a_newcomer_finishes_the_readme():
    assert len(README.split()) <= 2000


def test_every_logged_name_is_in_the_glossary():
    """Names are written in the code as "group/name"; those without a group by rollout_metrics."""
    glossary = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    code = "".join(
        (ROOT / f"{name}.py").read_text(encoding="utf-8") for name in ("grpo", "cooper", "eval")
    )
    groups = "clip_ratio|completions|eval|rm|sampling"
    logged = set(re.findall(rf'"((?:{groups})/[\w/]+)"', code))
    logged |= {"reward", "reward_std", "frac_reward_zero_std", "accuracy", "code", "step_time"}
    assert len(logged) > 18
    assert not {name for name in logged if f"`{name}`" not in glossary}
