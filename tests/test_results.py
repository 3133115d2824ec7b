"""The claims of the README against the committed logs of every seed (made by `make reproduce`)."""

from pathlib import Path

import pytest

import plots
from run import read_jsonl

RESULTS = Path(plots.__file__).parent / "results" / "cooper"
SEEDS = sorted(RESULTS.glob("seed*"))


def accuracies(seed, arm):
    rows = read_jsonl(seed / arm / "metrics.jsonl")
    return [row["eval/accuracy"] for row in rows if "eval/accuracy" in row]


def mean_of_last(seed, arm, key, count=20):
    return plots.last(read_jsonl(seed / arm / "metrics.jsonl"), key, count)


def test_three_seeds_or_more():
    assert len(SEEDS) >= 3


@pytest.mark.parametrize("seed", SEEDS, ids=lambda s: s.name)
def test_before_rl_the_policy_can_but_often_is_not_right(seed):
    assert 0.15 <= accuracies(seed, "rule")[0] <= 0.45


@pytest.mark.parametrize("seed", SEEDS, ids=lambda s: s.name)
def test_grpo_on_the_rule_learns_within_100_steps(seed):
    rows = read_jsonl(seed / "rule" / "metrics.jsonl")
    at_100 = next(row for row in rows if row["step"] == 100)
    assert at_100["eval/accuracy"] >= 0.60 and at_100["eval/greedy"] >= 0.90


def test_the_frozen_reward_model_is_hacked():
    """Its score rises while true accuracy falls: by 0.15 or more on most seeds and in the mean."""
    falls = []
    for seed in SEEDS:
        accuracy = accuracies(seed, "frozen")
        falls.append(max(accuracy) - accuracy[-1])
        reward = [row["reward"] for row in read_jsonl(seed / "frozen" / "metrics.jsonl")[1:]]
        assert sum(reward[-20:]) / 20 > sum(reward[:3]) / 3 + 0.2, "its score did not rise"
    assert sum(falls) / len(falls) >= 0.15
    assert sum(fall >= 0.15 for fall in falls) > len(falls) / 2


@pytest.mark.parametrize("seed", SEEDS, ids=lambda s: s.name)
def test_cooper_stays_with_the_rule(seed):
    final = {arm: accuracies(seed, arm)[-1] for arm in ("rule", "frozen", "cooper")}
    assert final["cooper"] >= final["rule"] - 0.03 and final["cooper"] > final["frozen"]
    assert mean_of_last(seed, "cooper", "rm/agreement") >= 0.90


def test_cooper_ends_far_above_the_frozen_arm():
    gaps = [accuracies(s, "cooper")[-1] - accuracies(s, "frozen")[-1] for s in SEEDS]
    assert sum(gaps) / len(gaps) >= 0.20


def test_the_table_of_the_readme_is_the_table_of_the_logs():
    readme = (Path(plots.__file__).parent / "README.md").read_text()
    assert plots.table(plots.load_arms(str(RESULTS))) in readme
