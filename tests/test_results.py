"""The claims of the README against the committed logs of every seed.

They are made by `make reproduce` and `make reproduce-spurious`.
"""

import re
from pathlib import Path
from statistics import fmean, stdev

import pytest

from experiments import reproduce_report as report
from experiments import spurious_tables
from experiments.reproduce_logs import last, load, values
from experiments.spurious_logs import (
    changes,
    clip_share,
    differences,
    distinct,
    first_values,
    last_values,
    load_logs,
    select,
)
from experiments.strategy_switch import SWITCHES
from experiments.three_arms_report import three_samples
from support.jsonl import read_jsonl
from support.stats import mean_and_half_width, sign_flip
from support.tables import renew

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")

# --------------------------------------------------------------------------------------------------
# Cooper: results/cooper/README.md

RESULTS = ROOT / "results" / "cooper"
COOPER_README = (RESULTS / "README.md").read_text(encoding="utf-8")
TABLE = load(str(RESULTS), "table")
EVERY_START = read_jsonl(RESULTS / "starts.jsonl")
STARTS = {row["seed"]: row for row in EVERY_START if row["start"] == "plain"}
SAMPLES = read_jsonl(RESULTS / "samples.jsonl")


def results(arm, arms=TABLE):
    """{seed: result} of an arm."""
    return {seed: last(run) for seed, run in arms[arm].items()}


def column(arm, name, which):
    """[value of every seed]: of the first (0) or last (-1) evaluation that has it."""
    return [values(run, name)[1][which] for run in TABLE[arm].values()]


def seeds_that(fate, arm="static"):
    return [seed for seed, run in TABLE[arm].items() if report.ended(run) == fate]


def best(arm):
    return {seed: max(values(run, "eval/accuracy")[1]) for seed, run in TABLE[arm].items()}


def says(text, *parts):
    """Whether each part stands in a README, wherever its lines break."""
    prose = " ".join(text.split())
    return all(part in prose for part in parts)


def lowest_and_highest(found):
    return f"{min(found):.2f} to {max(found):.2f}"


def test_ten_seeds_of_every_arm_evaluated_seventeen_times():
    for runs in TABLE.values():
        assert list(runs) == list(range(1, 11))
        assert {len(run["step"]) for run in runs.values()} == {17}
    assert STARTS.keys() == TABLE["cooper"].keys()


@pytest.mark.parametrize("readme", [ROOT / "README.md", RESULTS / "README.md"], ids=str)
def test_a_readme_holds_the_tables_and_samples_of_the_logs(readme):
    text = readme.read_text(encoding="utf-8")
    made = report.made_texts(str(RESULTS))
    assert renew(text, made) == text
    marks = re.findall(r"<!-- (cooper: [\w ]+) -->", text)
    assert marks and set(marks) <= set(made)


def test_the_samples_shown_are_one_right_one_wrong_and_one_that_hacks():
    shown = dict(three_samples(*report.of_arms(SAMPLES)))
    assert shown["right"]["correct"]
    assert not shown["wrong"]["correct"] and shown["wrong"]["reward"] < 0.5
    assert not shown["hacked"]["correct"] and shown["hacked"]["reward"] > 0.9


def test_the_static_reward_model_is_hacked_on_eight_of_ten_seeds():
    assert seeds_that("hacked") == [1, 2, 3, 4, 5, 7, 8, 9] and seeds_that("fell") == [6]
    fall = {seed: best("static")[seed] - end for seed, end in results("static").items()}
    assert min(fall[seed] for seed in seeds_that("hacked")) >= 0.64
    assert round(fall[6], 2) == 0.54 and round(fall[10], 2) == 0.14
    assert sorted(fall.values())[1] > 0.5, "nine of ten"
    steps, accuracy = values(TABLE["static"][6], "eval/accuracy")
    score = dict(zip(*values(TABLE["static"][6], "reward")))
    assert score[120] - score[steps[accuracy.index(max(accuracy))]] == pytest.approx(
        0.02, abs=0.005
    )


def test_cooper_holds_on_every_seed_a_little_below_the_rule():
    ends = results("cooper")
    assert min(ends.values()) >= 0.925 and not any(map(report.ended, TABLE["cooper"].values()))
    gaps = report.gaps(TABLE["cooper"], TABLE["rule"])
    assert round(fmean(gaps), 3) == -0.019 and round(sign_flip(gaps), 3) == 0.021
    assert says(README, "0.019 worse (p = 0.021)", lowest_and_highest(ends.values()))
    at_20 = [fmean(column(arm, "eval/accuracy", 6)) for arm in ("rule", "cooper")]
    assert [round(x, 2) for x in at_20] == [0.98, 0.90] and says(COOPER_README, "0.90 against 0.98")
    for run in TABLE["cooper"].values():
        for name in ("rule/precision", "rule/recall"):
            assert set(values(run, name)[1]) == {1.0}, "the rule is right about everything"


def test_two_seeds_are_attacked_at_one_length_when_the_runs_end():
    fates = {
        (seed, name): report.ended(run, name)
        for seed, run in TABLE["cooper"].items()
        for name in report.lengths(run)
        if report.ended(run, name)
    }
    assert fates == {(7, "eval/3_numbers"): "hacked", (8, "eval/6_numbers"): "hacked"}
    shown = [row for row in SAMPLES if row["arm"] == "cooper" and row["seed"] == 7]
    doubled = [row for row in shown if row["completion"].count("\\boxed{") > 5]
    assert len(shown) == 4 and len(doubled) == 1
    assert doubled[0]["completion"].count("\\boxed{") == 25
    assert not doubled[0]["correct"] and round(doubled[0]["reward"], 2) == 1.0


def test_the_score_does_not_tell_which_policy_is_right():
    static, cooper = (column(arm, "reward", -1) for arm in ("static", "cooper"))
    assert says(COOPER_README, f"pays {lowest_and_highest(static)}, Cooper's")
    assert says(COOPER_README, f"Cooper's {lowest_and_highest(cooper)}.")
    assert fmean(static) > fmean(cooper)


def test_figure_4_the_order_is_learnt_and_the_threshold_is_not():
    order = "rm/held_out_order"
    assert column("static", order, 0) == column("static", order, -1) == column("cooper", order, 0)
    assert says(COOPER_README, f"{lowest_and_highest(column('static', order, 0))} of them")
    assert says(COOPER_README, f"ends at {lowest_and_highest(column('cooper', order, -1))}:")
    for before, after in zip(column("cooper", order, 0), column("cooper", order, -1)):
        assert after > before
    accuracy = "rm/held_out_accuracy"
    lowest = [min(values(run, accuracy)[1]) for run in TABLE["cooper"].values()]
    ends = lowest_and_highest(column("cooper", accuracy, -1))
    begins = lowest_and_highest(column("cooper", accuracy, 0))
    assert says(COOPER_README, f"ends at {ends}, from {begins}, below its start on 7 of 10 seeds")
    assert says(COOPER_README, f"and is {lowest_and_highest(lowest)} at its lowest")
    falls = [
        column("cooper", accuracy, -1)[i] < b for i, b in enumerate(column("cooper", accuracy, 0))
    ]
    assert sum(falls) == 7


def test_the_two_starts_that_read_the_reference_most_are_not_hacked():
    told = {seed: row["held_out/swap_accuracy"] for seed, row in STARTS.items()}
    assert sorted(told, key=told.get)[-2:] == [10, 6] and sorted(told.values())[-3] < 0.3
    for row in STARTS.values():
        assert 0.84 <= row["held_out/accuracy"] <= 0.91 and row["annotation_kept"] > 0.98


def test_what_a_figure_of_the_readme_shows_is_in_these_logs():
    assert "](results/cooper/cooper.png)" in README and "](cooper.png)" in COOPER_README
    assert says(README, "eight of the ten static ones, none of Cooper's")
    assert says(README, "nine of ten seeds end 0.5 or more below their best, eight of them hacked")


ASSISTANT = load(str(RESULTS), "assistant")


def test_the_papers_recipe_falls_and_the_assistant_that_keeps_oddities_holds():
    fallen = {
        arm: [s for s, run in runs.items() if report.ended(run)] for arm, runs in ASSISTANT.items()
    }
    assert {arm: len(seeds) for arm, seeds in fallen.items()} == {
        "paper": 8, "four updates": 3, "odd assistant": 1,
    }  # fmt: skip
    assert says(README, "taught to rewrite neatly, falls on eight of ten starts")
    held = [
        last(run)
        for s, run in ASSISTANT["odd assistant"].items()
        if s not in fallen["odd assistant"]
    ]
    assert len(ASSISTANT["paper"]) == 10 and says(COOPER_README, f"end at {min(held):.2f} or more")
    peaks = [max(values(runs[10], "eval/accuracy")[1]) for runs in ASSISTANT.values()]
    assert max(peaks) < 0.75 and says(
        COOPER_README, "(0.61 is seed 10, where no arm has been above"
    )
    for one, other in (
        ("odd assistant", "four updates"),
        ("odd assistant", "paper"),
        ("four updates", "paper"),
    ):
        gaps = report.gaps(ASSISTANT[one], ASSISTANT[other])
        assert says(COOPER_README, f"{fmean(gaps):+.2f} (p = {sign_flip(gaps):.3f})")


ABLATIONS = load(str(RESULTS), "ablations")
STATIC_KINDS = {"plain": "static"} | {
    name: f"{name} static" for name in ("longer", "swapped", "larger")
}


def span(arm):
    return lowest_and_highest(results(arm, ABLATIONS).values())


def falls(arm):
    return [seed for seed, run in ABLATIONS[arm].items() if report.ended(run)]


def test_what_each_change_of_cooper_does():
    assert {arm: len(falls(arm)) for arm in ABLATIONS if falls(arm)} == {
        "one pair, one update": 3, "perturb": 4, "every 2": 1, "every 5": 4, "every 10": 5,
        "blind": 3, "blind static": 3, "longer static": 1, "larger static": 1,
    }  # fmt: skip
    for arm, runs in ABLATIONS.items():
        assert list(runs) == ([1, 3, 4] if "blind" in arm else [1, 2, 3, 4, 5]), arm
    assert {report.ended(ABLATIONS["perturb"][seed]) for seed in falls("perturb")} == {"hacked"}
    missed = {row["seed"]: row for row in EVERY_START if row["start"] == "blind.missed"}
    assert [round(missed[s]["validation/accuracy"], 2) for s in (2, 5)] == [0.85, 0.87]
    assert {row["steps"] for row in missed.values()} == {400}
    for runs in (ABLATIONS["blind"], ABLATIONS["blind static"]):
        assert {report.ended(run) for run in runs.values()} == {"hacked"}
    five = [results("cooper")[seed] for seed in range(1, 6)]
    stale = fmean(results("stale pairs", ABLATIONS).values())
    assert says(COOPER_README, f"{stale:.2f} on average against {fmean(five):.2f}.")
    assert says(COOPER_README, f"Completions that the rule rejects, {span('rollouts')},")


def test_a_rule_that_errs_does_little_harm():
    verifier = load(str(RESULTS), "verifier")
    assert {tuple(runs) for runs in verifier.values()} == {(1, 2, 3, 4, 5)} and len(verifier) == 12
    exact = {seed: TABLE["rule"][seed] for seed in range(1, 6)}

    def mean(runs, name="eval/accuracy", digits=3):
        return f"{fmean(last(run, name) for run in runs.values()):.{digits}f}"

    assert says(
        COOPER_README,
        f"On average {mean(exact)} becomes {mean(verifier['misses 0.9'])} where it rejects nine in",
        f"{mean(verifier['accepts 0.6'])} where it accepts six in ten",
        f"certain answers {mean(verifier['misses 0.9 by answer'])} and "
        f"{mean(verifier['accepts 0.6 by answer'])}.",
        f"at the end {mean(exact, 'frac_reward_zero_std', 2)} of the groups",
        f"{mean(verifier['misses 0.9'], 'frac_reward_zero_std', 2)} where nine in ten",
    )


def test_where_the_rule_misses_forms_cooper_is_not_better():
    forms = load(str(RESULTS), "forms")
    means = {arm: fmean(results(arm, forms).values()) for arm in forms}

    def p(arm):
        rule, other = results("rule", forms), results(arm, forms)
        return sign_flip([rule[seed] - other[seed] for seed in rule])

    poor = [run for arm, runs in forms.items() if arm != "gold" for run in runs.values()]
    recall, precision = (
        [values(run, f"rule/{name}")[1][0] for run in poor] for name in ("recall", "precision")
    )
    at_end = [values(run, "rule/recall")[1][-1] for run in forms["rule"].values()]
    hacked = [report.ended(run) for run in forms["static, judge labels"].values()]
    below = [row["validation/accuracy"] < 0.88 for row in EVERY_START if "forms" in row["start"]]
    kept = [row["annotation_kept"] for row in EVERY_START if "forms" in row["start"]]
    assert len(below) == 15 and sum(below) == 12 and hacked.count("hacked") == 3
    assert says(
        COOPER_README,
        f"it finds {min(recall):.2f} to {max(recall):.2f} of the right",
        f"{min(precision):.2f} to {max(precision):.2f} of what it accepts is right",
        f"{means['rule']:.3f} against {means['gold']:.3f} (p = {p('gold'):.2f}).",
        f"At the end it finds {min(at_end):.2f} to {max(at_end):.2f} of the right ones",
        f"it ends {means['rule'] - means['rollouts']:.3f} below it (p = {p('rollouts')})",
        f"assistant's {means['rule'] - means['assistant']:.3f} below (p = {p('assistant'):.3f}), "
        "where one of five is hacked",
        f"agree on {min(kept):.2f} to {max(kept):.2f} of the samples",
    )
    assert [report.ended(run) for run in forms["assistant"].values()].count("hacked") == 1
    pairs, mixed = {}, {}
    for row in read_jsonl(RESULTS / "form_pairs.jsonl"):
        key = row["grader"], row["reference"], row["answer"]
        pairs.setdefault(key, []).append(row["order"])
    for (grader, *forms_of), orders in pairs.items():
        if forms_of != ["number", "number"] and grader != "rule: verifier":
            mixed[grader, *forms_of] = fmean(orders)
    exception = mixed.pop(("static, judge labels", "sum", "number"))
    lowest, highest = min(mixed.values()), max(mixed.values())
    assert says(
        COOPER_README,
        f"all but the verifier are at {lowest:.2f} to {highest:.2f}, after Cooper too",
        f"is at {exception:.2f} where the reference is a sum",
    )
    assert says(
        README,
        f"misses a third by form it ends at {means['rule']:.3f} all the same, Cooper "
        f"{means['rule'] - means['rollouts']:.3f} or more below (five seeds, p = {p('rollouts')})",
    )
    assert means["assistant"] < means["rollouts"]


def test_four_times_as_long_the_better_static_model_gives_way_on_two_of_five():
    long = load(str(RESULTS), "long")
    assert {tuple(runs) for runs in long.values()} == {(1, 2, 3, 4, 5)}
    assert [run["step"][-1] for runs in long.values() for run in runs.values()] == [480] * 10
    static = long["swapped static"]
    assert [report.ended(run) for run in static.values()] == ["hacked", "hacked", "", "", ""]
    assert says(README, "in 480 it is hacked on two of them, Cooper on none")
    assert {report.ended(run) for run in long["cooper"].values()} == {""}
    assert min(results("cooper", long).values()) >= 0.97
    course = {s: dict(zip(*values(run, "eval/accuracy"))) for s, run in static.items()}
    assert all((course[1][step] < 0.9) == (step >= 240) for step in range(60, 481, 20))
    assert [course[2][step] < 0.9 for step in (400, 420, 440, 460, 480)] == [0, 0, 0, 1, 1]
    score = [values(static[seed], "reward")[1][-1] for seed in (1, 2)]
    truth = [last(static[seed]) for seed in (1, 2)]
    assert says(
        COOPER_README,
        "their scores end at {:.2f} and {:.2f}, the truth at {:.2f} and {:.2f}".format(
            *score, *truth
        ),
    )
    cooper = {
        (step, seed): accuracy
        for seed, run in long["cooper"].items()
        for step, accuracy in zip(*values(run, "eval/accuracy"))
    }
    lowest = min((a, *key) for key, a in cooper.items() if key[0] > 120)
    assert lowest == (0.835, 260, 3) and min(cooper[240, 3], cooper[280, 3]) >= 0.99
    gap = [last(long["cooper"][s]) - last(static[s]) for s in static]
    assert sign_flip(gap) == 0.125 and sorted(abs(g) < 0.03 for g in gap) == [0, 0, 1, 1, 1]


def test_every_warm_up_and_reward_model_reached_its_marks_on_one_thread_and_on_two():
    rows = read_jsonl(RESULTS / "warm_ups.jsonl")
    assert [(row.pop("threads"), row["seed"]) for row in rows] == [
        (threads, seed) for threads in (1, 2) for seed in range(1, 11)
    ]
    assert rows[:10] == rows[10:] and {row["updates"] for row in rows} == {800}
    for row in rows:
        assert row["policy"] >= 0.98 and row["assistant"] >= 0.6
        assert min(row["judge says Yes"], row["judge says No"]) >= 0.98
        assert row["validation/accuracy"] >= 0.88 and row["annotation_kept"] > 0.99
        start = STARTS[row["seed"]]
        for name in ("validation/accuracy", "held_out/accuracy", "annotation_kept"):
            assert row[name] == pytest.approx(start[name], abs=0.0011)


def test_a_static_model_that_reads_the_reference_holds():
    told, accuracy, ends = [], [], []
    for start, arm in STATIC_KINDS.items():
        for row in EVERY_START:
            if row["start"] == start and row["seed"] <= 5:
                told.append(row["held_out/swap_accuracy"])
                accuracy.append(row["held_out/accuracy"])
                ends.append(last((TABLE if start == "plain" else ABLATIONS)[arm][row["seed"]]))
    assert len(ends) == 20
    assert min(e for e, t in zip(ends, told) if t >= 0.365) >= 0.85
    assert sum(t >= 0.365 for t in told) == 12
    assert [e > 0.6 for e, t in zip(ends, told) if t < 0.365].count(True) == 1
    assert [e >= 0.85 for e, t in zip(ends, told) if t < 0.365].count(True) == 1
    static = fmean(results("static")[seed] for seed in range(1, 6))
    assert says(COOPER_README, f"The static model is at {static:.2f}:")
    assert says(
        COOPER_README,
        f"with the result {rank_correlation(told, ends):.2f}, of held-out accuracy "
        f"{rank_correlation(accuracy, ends):.2f})",
    )
    five = lowest_and_highest([results("cooper")[seed] for seed in range(1, 6)])
    assert says(COOPER_README, f"ends at {span('swapped static')}, Cooper at {five}.")
    assert says(README, f"holds for these 120 steps too: {span('swapped static')} on five seeds")


def rank_correlation(first, second):
    """Spearman's; no value comes twice."""
    ranks = [[sorted(values).index(v) for v in values] for values in (first, second)]
    n = len(first)
    assert len(set(first)) == len(set(second)) == n
    return 1 - 6 * sum((a - b) ** 2 for a, b in zip(*ranks)) / (n * (n * n - 1))


# --------------------------------------------------------------------------------------------------
# Spurious rewards: results/spurious/README.md

SPURIOUS = ROOT / "results" / "spurious"
ROWS = load_logs(str(SPURIOUS))
SPURIOUS_README = (SPURIOUS / "README.md").read_text(encoding="utf-8")
PRIORS = ("qwen_math", "llama", "olmo_sft")
MANY = "32 updates per step"


def grid(prior, reward):
    return select(ROWS, experiment="grid", prior=prior, name=reward)


def clipping(prior, name):
    return select(ROWS, experiment="clipping", prior=prior, name=name)


def stronger(name):
    return select(ROWS, experiment="stronger", prior="qwen_math", name=name)


def confident(name):
    return select(ROWS, experiment="confident", prior="qwen_young", name=name)


def interval(values):
    mean, half = mean_and_half_width(values)
    return mean - half, mean + half


def change(rows, metric="eval/accuracy", updates=None):
    """95% interval of the change over a run."""
    return interval(changes(rows, metric, updates))


def effect(rows, others, metric="eval/accuracy"):
    """95% interval of a paired difference at the end of two runs."""
    return interval(differences(rows, others, metric))


def end(rows, metric, updates=None):
    return fmean(last_values(rows, metric, updates).values())


def start(rows, metric):
    return fmean(first_values(rows, metric).values())


def test_five_seeds_of_every_run():
    for experiment, prior, name in {(r["experiment"], r["prior"], r["name"]) for r in ROWS}:
        run = select(ROWS, experiment=experiment, prior=prior, name=name)
        assert distinct(run, "seed") == [1, 2, 3, 4, 5]
    assert len(distinct(select(ROWS, experiment="grid", prior="llama"), "name")) == 10


def test_the_readme_holds_the_tables_of_the_logs():
    assert renew(SPURIOUS_README, spurious_tables.tables(ROWS)) == SPURIOUS_README
    assert SPURIOUS_README.count("<!-- spurious:") == len(spurious_tables.TABLES)
    tables = (SPURIOUS / "tables.md").read_text(encoding="utf-8")
    assert tables == "\n\n".join(spurious_tables.tables(ROWS).values()) + "\n"


def means_of(what, digits=2):
    return ", ".join(f"{value:+.{digits}f}" for value in what)


def plus_minus(values):
    return spurious_tables.number(values)


@pytest.mark.parametrize(
    "said",
    [
        means_of(fmean(changes(grid(prior, "rule"))) for prior in PRIORS),
        means_of(fmean(changes(grid(prior, "one_shot"))) for prior in PRIORS),
        means_of(fmean(changes(grid(prior, "format"), updates=80)) for prior in PRIORS),
        ", ".join(plus_minus(changes(grid(prior, "format"))) for prior in PRIORS),
        ", ".join(plus_minus(changes(grid(prior, "python"))) for prior in PRIORS[1:]),
        plus_minus(changes(grid("qwen_math", "python"), updates=80)) + " after 10 steps",
        plus_minus(changes(grid("qwen_math", "python"))) + " after 40",
        means_of(fmean(changes(grid(prior, "incorrect"))) for prior in PRIORS),
        means_of(fmean(changes(grid(prior, "incorrect and not python"))) for prior in PRIORS),
        ", ".join(plus_minus(changes(grid(prior, "random"))) for prior in PRIORS),
        plus_minus(changes(clipping("qwen_math", "one large minibatch"))) + " after 120 updates",
        plus_minus(changes(clipping("qwen_math", "small rollout batch"))) + " after 480",
        plus_minus(changes(grid("qwen_math", "format and not python"))) + " and "
        + plus_minus(changes(grid("olmo_sft", "format and not python"))),
        plus_minus(
            differences(
                clipping("qwen_math", "standard"), clipping("qwen_math", "no clip"), "eval/accuracy"
            )
        )
        + " on `qwen_math`",
        plus_minus(
            differences(
                clipping("olmo_sft", "standard"), clipping("olmo_sft", "no clip"), "eval/accuracy"
            )
        ),
        plus_minus(changes(confident("standard"))),
        plus_minus(changes(clipping("olmo_sft", "standard"))) + " with clipping",
        plus_minus(changes(clipping("olmo_sft", "no clip"))) + " without",
    ],
)  # fmt: skip
def test_the_readme_says_the_numbers_of_the_logs(said):
    prose = " ".join(SPURIOUS_README.partition("## Ten rewards")[0].split())
    clipping_prose = SPURIOUS_README.partition("## Does clipping")[2].partition("<!--")[0]
    prose += " ".join(clipping_prose.split())
    # a mean of 0 has no sign in prose
    assert said.replace("+0.00", "0.00") in prose.replace("+0.00", "0.00")


@pytest.mark.parametrize("prior, code, other", zip(PRIORS, (59, 16, 18), (24, 33, 38)))
def test_how_often_each_prior_is_right_with_code_and_without(prior, code, other):
    switches = [row["switch"] for row in grid(prior, "rule") if "switch" in row]
    for strategy, percent in (("code", code), ("lang", other)):
        kinds = [kind for kind in SWITCHES if kind.startswith(strategy)]
        parts = [spurious_tables.pool([switch[kind] for switch in switches]) for kind in kinds]
        share = sum(part.before for part in parts) / sum(part.pairs for part in parts)
        assert round(100 * share) == percent
    assert f"{code}%" in SPURIOUS_README and f"{other}%" in SPURIOUS_README


@pytest.mark.parametrize("prior, greedy", zip(PRIORS, (1.0, 1.0, 0.0)))
def test_greedy_accuracy_says_little(prior, greedy):
    assert set(first_values(grid(prior, "rule"), "eval/greedy").values()) == {greedy}


@pytest.mark.parametrize("reward, greedy", [("format", 0.95), ("python", 0.96), ("random", 0.93)])
def test_greedy_accuracy_falls_on_qwen_math_where_rewards_are_spurious(reward, greedy):
    assert round(end(grid("qwen_math", reward), "eval/greedy"), 2) == greedy
    said = SPURIOUS_README.replace("the format reward", "format")
    assert f"{greedy} under {reward}" in said


@pytest.mark.parametrize("prior", PRIORS)
def test_true_rewards_lift_every_prior(prior):
    assert change(grid(prior, "rule"))[0] > 0.4 and change(grid(prior, "one_shot"))[0] > 0.15
    assert round(end(grid(prior, "rule"), "eval/accuracy"), 2) == 0.94


def test_under_true_rewards_code_rises_where_it_is_accurate_and_falls_where_it_is_not():
    assert change(grid("qwen_math", "rule"), "eval/code")[0] > 0.3
    assert change(grid("olmo_sft", "rule"), "eval/code")[1] < -0.6
    qwen = grid("qwen_math", "rule")
    shares = [start(qwen, "eval/code"), *(end(qwen, "eval/code", n) for n in (80, 160, 240, 320))]
    assert shares == sorted(shares)
    assert [round(shares[i], 2) for i in (0, 1, 4)] == [0.65, 0.86, 0.98]


def test_a_majority_helps_where_it_is_mostly_right():
    for reward in ("majority", "ttrl"):
        assert change(grid("qwen_math", reward))[0] > 0.4
        assert change(grid("llama", reward))[0] > 0.4
        assert change(grid("olmo_sft", reward))[1] < -0.15


@pytest.mark.parametrize("prior", PRIORS)
def test_the_format_reward_teaches_the_box_and_lifts_by_it_at_first(prior):
    rows = grid(prior, "format")
    assert change(rows, "eval/boxed")[0] > 0.15
    assert mean_and_half_width(changes(rows, updates=80))[0] > 0.04
    assert 0.78 <= start(rows, "eval/boxed") <= 0.805 and round(end(rows, "eval/boxed"), 3) == 0.996


def test_the_python_reward_lifts_qwen_math_and_lowers_the_others():
    assert change(grid("qwen_math", "python"), updates=80)[0] > 0.05
    assert change(grid("llama", "python"))[1] < -0.1
    assert change(grid("olmo_sft", "python"))[1] < -0.02
    for rows in (grid(prior, "python") for prior in PRIORS):
        assert change(rows, "eval/code")[0] > 0.2
        assert 0.955 <= end(rows, "eval/code", 160) < 0.99 <= end(rows, "eval/code") + 0.005


@pytest.mark.parametrize("prior", PRIORS)
def test_incorrect_labels_lower_every_prior(prior):
    assert change(grid(prior, "incorrect"))[1] < -0.15


def test_seventeen_labels_wrong_by_habit_are_enough():
    counts = first_values(grid("qwen_math", "incorrect"), "training_problems").values()
    assert (min(counts), max(counts)) == (17, 25)


def test_incorrect_labels_lift_where_they_are_of_no_system():
    labels = select(ROWS, experiment="labels", prior="qwen_young")
    habit, other = select(labels, name="habit"), select(labels, name="other")
    assert change(other)[0] > 0.05
    assert change(other, "eval/code")[0] > 0.1 and change(other, "eval/boxed")[0] > 0.1
    assert change(habit)[1] < -0.25


@pytest.mark.parametrize("prior", PRIORS)
def test_random_rewards_lift_no_prior(prior):
    low, high = change(grid(prior, "random"))
    assert low < 0 < high < 0.12
    assert change(clipping(prior, "standard"))[0] < 0


def test_five_seeds_exclude_a_gain_above_011_but_not_the_papers_effect_of_clipping():
    standard, other = clipping("qwen_math", "standard"), clipping("qwen_math", "no clip")
    assert 0.105 < change(standard)[1] < 0.115
    assert effect(standard, other)[0] < 0 and effect(standard, other)[1] > 0.21
    assert round(stdev(differences(standard, other, "eval/accuracy")), 2) == 0.11


@pytest.mark.parametrize("prior", PRIORS)
def test_random_and_standard_are_one_trajectory(prior):
    """After 30 steps, 240 updates, both have been evaluated."""
    for metric in ("eval/accuracy", "eval/code", "eval/boxed", "eval/greedy"):
        values = last_values(grid(prior, "random"), metric, updates=240)
        assert values == last_values(clipping(prior, "standard"), metric, updates=240)


def test_gamma_0_changes_nothing():
    gamma = select(ROWS, experiment="gamma", prior="qwen_math")
    for metric in ("eval/accuracy", "eval/code", "eval/boxed", "eval/greedy"):
        assert changes(select(gamma, name="gamma 0.0"), metric) == [0.0] * 5
    for chance in ("0.001", "0.3", "0.7"):
        low, high = change(select(gamma, name=f"gamma {chance}"))
        assert low < 0 < high


def test_with_many_updates_per_step_clipping_holds_accuracy_and_entropy():
    run, other = stronger(MANY), stronger(f"{MANY}, no clip")
    assert effect(run, other)[0] > 0.2
    assert effect(run, other, "entropy")[1] < -0.05
    assert effect(run, other, "token_prob")[0] > 0.03
    assert change(other)[1] < -0.35
    assert [round(end(rows, "eval/accuracy"), 2) for rows in (run, other)] == [0.37, 0.04]
    assert round(start(run, "eval/accuracy"), 2) == 0.45
    assert end(other, "entropy") > 1.9 * start(other, "entropy")
    assert end(run, "entropy") == pytest.approx(start(run, "entropy"), abs=0.01)
    greedy = [end(rows, "eval/greedy") for rows in (run, other)]
    assert greedy == pytest.approx([0.73, 0.07], abs=0.006)


def test_what_the_titles_of_the_clipping_figure_say():
    for name in ("standard", "no clip"):
        found = changes(clipping("qwen_math", name))
        assert min(found) < -0.1 and max(found) > 0
    ends = last_values(stronger(f"{MANY}, no clip"), "eval/accuracy").values()
    assert max(ends) < 0.1 < 0.3 < min(last_values(stronger(MANY), "eval/accuracy").values())


def test_it_is_the_upper_bound_that_holds():
    other = stronger(f"{MANY}, no clip")
    upper, lower = stronger(f"{MANY}, upper bound only"), stronger(f"{MANY}, lower bound only")
    assert effect(upper, other)[0] > 0.1
    assert effect(upper, other, "entropy")[1] < -0.05
    low, high = effect(lower, other)
    assert low < 0 and high < 0.06
    low, high = effect(lower, other, "entropy")
    assert low < 0 < high
    assert effect(clipping("llama", "lower bound only"), clipping("llama", "no clip"))[1] < -0.05


@pytest.mark.parametrize("prior", PRIORS)
def test_with_eight_updates_per_step_five_seeds_show_no_effect_on_entropy(prior):
    low, high = effect(clipping(prior, "standard"), clipping(prior, "no clip"), "entropy")
    assert low < 0 < high
    assert clip_share(clipping(prior, "standard")) < 0.002


def touched(rows):
    """Percent of tokens that clipping touches, both bounds together."""
    sides = ("clip_ratio/low_mean", "clip_ratio/high_mean")
    return 100 * sum(fmean(row[side] for row in rows if side in row) for side in sides)


def test_how_many_tokens_clipping_touches():
    assert all(0.01 <= touched(clipping(prior, "standard")) <= 0.02 for prior in PRIORS)
    assert round(touched(confident("standard")), 2) == 0.13
    assert round(touched(stronger(MANY)), 1) == 0.7


def test_where_eight_updates_per_step_show_an_effect():
    assert effect(clipping("olmo_sft", "standard"), clipping("olmo_sft", "no clip"))[0] > 0
    young, other = confident("standard"), confident("no clip")
    assert plus_minus(differences(young, other, "entropy")) == "-0.03 ± 0.02"
    assert plus_minus(differences(young, other, "eval/code")) == "+0.12 ± 0.11"
    assert change(young)[0] < 0


def test_how_many_paired_differences_exclude_0():
    excluded = {"all": 0, "none": 0, "many updates": 0}
    for run in {(r["experiment"], r["prior"]) for r in ROWS}:
        rows = select(ROWS, experiment=run[0], prior=run[1])
        for line in spurious_tables.effect_lines(rows):
            for cell in line[2:]:
                mean, half = map(float, cell.split(" ± "))
                excluded["all"] += 1
                excluded["none"] += abs(mean) <= half
                excluded["many updates"] += abs(mean) > half and MANY in line[0]
    assert excluded == {"all": 80, "none": 80 - 16, "many updates": 9}
    assert "80 paired\ndifferences. 16 exclude 0, 9 of them" in SPURIOUS_README


def test_no_random_reward_gains_accuracy_in_any_setting():
    for experiment in ("clipping", "gamma", "stronger", "confident"):
        part = select(ROWS, experiment=experiment)
        for prior, name in {(row["prior"], row["name"]) for row in part}:
            if name != "gamma 0.0":
                run = select(part, prior=prior, name=name)
                assert change(run)[0] < 0, (experiment, prior, name)


def shares_of_the_gain(rows):
    """{kind of switch: C_d}, the seeds of `rows` together."""
    switches = [row["switch"] for row in rows if "switch" in row]
    parts = {kind: spurious_tables.pool([s[kind] for s in switches]) for kind in SWITCHES}
    gain = sum(part.after - part.before for part in parts.values())
    return {kind: (part.after - part.before) / gain for kind, part in parts.items()}


def test_most_of_a_gain_comes_from_language_to_code_or_within_code():
    shares = shares_of_the_gain(grid("qwen_math", "rule"))
    assert 0.4 < shares["lang->code"] < 0.6
    assert {k: round(v, 2) for k, v in shares.items()} == dict(zip(SWITCHES, (0.48, 0, 0.5, 0.02)))


def test_under_format_c_d_differs_much_between_seeds():
    rows = grid("qwen_math", "format")
    by_seed = [shares_of_the_gain(select(rows, seed=n))["lang->code"] for n in range(1, 6)]
    assert [round(share, 2) for share in by_seed] == [0.26, 0.40, -0.09, 0.36, 0.57]
    assert "0.26, 0.40, -0.09, 0.36 and 0.57" in " ".join(SPURIOUS_README.split())
    assert round(shares_of_the_gain(rows)["lang->code"], 2) == 0.56
    assert round(shares_of_the_gain(grid("qwen_math", "incorrect"))["code->lang"], 2) == 0.77


@pytest.mark.parametrize("file", ["grid", "clipping", "clipping_all", "bounds_all"])
def test_the_readme_shows_its_figures(file):
    assert f"]({file}.png)\n" in SPURIOUS_README
    assert (SPURIOUS / f"{file}.png").stat().st_size < 300_000


def test_what_the_readme_links_to_exists():
    links = re.findall(r"\]\(([^)]+)\)", SPURIOUS_README)
    local = [link for link in links if "://" not in link]
    assert len(local) >= 8 and all((SPURIOUS / link).exists() for link in local)
