"""The claims of the README against the committed logs of every seed.

They are made by `make reproduce` and `make reproduce-spurious`.
"""

from pathlib import Path

import pytest

from experiments import spurious_tables, three_arms_report
from experiments.spurious_logs import Logs
from experiments.strategy_switch import SWITCHES
from support.run import read_jsonl
from support.stats import mean_and_half_width

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "results" / "cooper"
SEEDS = sorted(RESULTS.glob("seed*"))


def accuracies(seed, arm):
    rows = read_jsonl(seed / arm / "metrics.jsonl")
    return [row["eval/accuracy"] for row in rows if "eval/accuracy" in row]


def mean_of_last(seed, arm, key, count=20):
    return three_arms_report.last(read_jsonl(seed / arm / "metrics.jsonl"), key, count)


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
    readme = (ROOT / "README.md").read_text()
    assert three_arms_report.table(three_arms_report.load_arms(str(RESULTS))) in readme


# --------------------------------------------------------------------------------------------------
# Spurious rewards

LOGS = Logs(str(RESULTS.parent / "spurious"))
PRIORS = ("qwen_math", "llama", "olmo_sft")


def interval(values):
    mean, half = mean_and_half_width(values)
    return mean - half, mean + half


def grid(prior, reward, metric="eval/accuracy", updates=None):
    """95 % interval of the change under a reward."""
    return interval(LOGS.change(("grid", prior), reward, metric, updates))


def clipping(name, other, metric, where=("stronger", "qwen_math")):
    """95 % interval of a paired difference at the end of the run."""
    return interval(LOGS.difference(where, name, other, metric))


def test_five_seeds_of_every_run():
    seeds = {len(seeds) for names in LOGS.runs.values() for seeds in names.values()}
    assert seeds == {5} and len(LOGS.runs["grid", "llama"]) == 10


def test_the_readme_holds_the_tables_of_the_logs():
    readme = (RESULTS.parent.parent / "README.md").read_text()
    assert spurious_tables.renew(readme, spurious_tables.tables(LOGS)) == readme
    assert readme.count("<!-- spurious:") == len(spurious_tables.TABLES)


@pytest.mark.parametrize("prior", PRIORS)
def test_true_rewards_lift_every_prior(prior):
    assert grid(prior, "rule")[0] > 0.4 and grid(prior, "one_shot")[0] > 0.15


def test_under_true_rewards_code_rises_where_it_is_accurate_and_falls_where_it_is_not():
    assert grid("qwen_math", "rule", "eval/code")[0] > 0.3
    assert grid("olmo_sft", "rule", "eval/code")[1] < -0.6


def test_a_majority_helps_where_it_is_mostly_right():
    for reward in ("majority", "ttrl"):
        assert grid("qwen_math", reward)[0] > 0.4 and grid("llama", reward)[0] > 0.4
        assert grid("olmo_sft", reward)[1] < -0.15


@pytest.mark.parametrize("prior", PRIORS)
def test_the_format_reward_teaches_the_box_and_lifts_by_it_at_first(prior):
    assert grid(prior, "format", "eval/boxed")[0] > 0.15
    assert mean_and_half_width(LOGS.change(("grid", prior), "format", updates=80))[0] > 0.04


def test_the_python_reward_lifts_qwen_math_and_lowers_the_others():
    assert grid("qwen_math", "python", updates=80)[0] > 0.05
    assert grid("llama", "python")[1] < -0.1 and grid("olmo_sft", "python")[1] < -0.02
    assert all(grid(prior, "python", "eval/code")[0] > 0.2 for prior in PRIORS)


@pytest.mark.parametrize("prior", PRIORS)
def test_incorrect_labels_lower_every_prior(prior):
    assert grid(prior, "incorrect")[1] < -0.15


def test_incorrect_labels_lift_where_they_are_of_no_system():
    where = ("labels", "qwen_young")
    assert interval(LOGS.change(where, "other"))[0] > 0.05
    assert interval(LOGS.change(where, "other", "eval/code"))[0] > 0.1
    assert interval(LOGS.change(where, "habit"))[1] < -0.25


@pytest.mark.parametrize("prior", PRIORS)
def test_random_rewards_lift_no_prior(prior):
    low, high = grid(prior, "random")
    assert low < 0 < high < 0.12
    assert interval(LOGS.change(("clipping", prior), "standard"))[0] < 0


def test_gamma_0_changes_nothing():
    where = ("gamma", "qwen_math")
    for metric in ("eval/accuracy", "eval/code", "eval/boxed", "eval/greedy"):
        assert LOGS.change(where, "gamma 0.0", metric) == [0.0] * 5
    for gamma in ("0.001", "0.3", "0.7"):
        low, high = interval(LOGS.change(where, f"gamma {gamma}"))
        assert low < 0 < high


def test_with_many_updates_a_step_clipping_holds_accuracy_and_entropy():
    name, other = "32 updates a step", "32 updates a step, no clip"
    assert clipping(name, other, "eval/accuracy")[0] > 0.2
    assert clipping(name, other, "entropy")[1] < -0.05
    assert clipping(name, other, "token_prob")[0] > 0.03
    assert interval(LOGS.change(("stronger", "qwen_math"), other))[1] < -0.35


def test_it_is_the_upper_bound_that_holds():
    other = "32 updates a step, no clip"
    assert clipping("32 updates a step, upper bound only", other, "eval/accuracy")[0] > 0.1
    assert clipping("32 updates a step, upper bound only", other, "entropy")[1] < -0.05
    assert clipping("32 updates a step, lower bound only", other, "eval/accuracy")[1] < 0.06
    low, high = clipping("32 updates a step, lower bound only", other, "entropy")
    assert low < 0 < high


@pytest.mark.parametrize("prior", PRIORS)
def test_with_eight_updates_a_step_five_seeds_show_no_effect_on_entropy(prior):
    low, high = clipping("standard", "no clip", "entropy", ("clipping", prior))
    assert low < 0 < high
    assert LOGS.clip_shares(("clipping", prior), "standard") < 0.002


def test_no_random_reward_gains_accuracy_in_any_setting():
    for where, names in LOGS.runs.items():
        for name in names:
            if where[0] not in ("grid", "labels") and name != "gamma 0.0":
                assert interval(LOGS.change(where, name))[0] < 0, (where, name)


def test_most_of_a_gain_comes_from_language_to_code_or_within_code():
    seeds = LOGS.runs["grid", "qwen_math"]["rule"].values()
    gains = {d: 0.0 for d in SWITCHES}
    for rows in seeds:
        for d, part in rows[-1]["switch"].items():
            gains[d] += part["n"] * (part["after"] - part["before"]) if part["n"] else 0
    assert 0.4 < gains["lang->code"] / sum(gains.values()) < 0.6
