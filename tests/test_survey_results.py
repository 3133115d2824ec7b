"""The sentences of results/survey/README.md against the committed logs of every seed."""

from pathlib import Path
from statistics import fmean

from test_results import says

from experiments.reproduce_logs import last, load
from experiments.survey_figures import soon
from experiments.survey_report import COLUMNS, arm_table, fall, measure_table
from support.jsonl import read_jsonl
from support.stats import sign_flip
from support.tables import renew

RESULTS = Path(__file__).parents[1] / "results" / "survey"
README = (RESULTS / "README.md").read_text(encoding="utf-8")


def ends(question, arm, name="eval/accuracy"):
    """The results of an arm's seeds, by seed."""
    return [last(run, name) for _, run in sorted(load(str(RESULTS), question)[arm].items())]


def measured(question, **where):
    rows = read_jsonl(RESULTS / f"{question}_measures.jsonl")
    return [row for row in rows if all(row[k] == v for k, v in where.items())]


def test_the_readme_holds_the_tables_of_the_logs():
    made = {
        f"survey: {path.stem.replace('_', ' ')}": measure_table(read_jsonl(path))
        for path in RESULTS.glob("*_measures.jsonl")
    }
    for name, columns in COLUMNS.items():
        if (RESULTS / f"{name}.jsonl").exists():
            made[f"survey: {name}"] = arm_table(load(str(RESULTS), name), columns)
    assert renew(README, made) == README
    assert README.count("<!-- survey: ") == len(made)


# -- algorithms ----------------------------------------------------------------------------------


def gaps(question, arm, base, of=soon):
    """What `of` a run gains over the base's, by seed."""
    arms = load(str(RESULTS), question)
    return [of(run) - of(arms[base][seed]) for seed, run in sorted(arms[arm].items())]


def test_all_algorithms_end_alike():
    arms = load(str(RESULTS), "algorithms")
    means = {arm: fmean(ends("algorithms", arm)) for arm in arms}
    assert len(arms) == 18 and all(len(runs) == 8 for runs in arms.values())
    largest = max(abs(mean - means["grpo"]) for mean in means.values())
    assert says(README, f"apart by {largest:.3f} from `grpo` at most")
    low, high = min(means.values()), max(means.values())
    assert says(README, f"near the ceiling, {low:.3f} to {high:.3f}.")
    least = sign_flip([1.0] * len(arms["grpo"]))
    assert says(README, f"of eight seeds {least:.2f} is the least")
    assert (len(arms) - 1) * least > 0.05, "none of them could survive a correction"


def test_most_algorithms_are_as_fast_and_seven_are_not():
    arms = [arm for arm in load(str(RESULTS), "algorithms") if arm != "grpo"]
    found = {arm: gaps("algorithms", arm, "grpo") for arm in arms}
    same = [arm for arm in arms if sign_flip(found[arm]) > 0.3]
    assert len(same) == 8 and max(abs(fmean(found[arm])) for arm in same) < 0.0045
    far = {arm for arm in arms if abs(fmean(found[arm])) > 0.0385}
    assert far == {"gmpo", "grpo_sequence", "pass@k", "raft", "gspo wider", "ppo", "gspo"}
    assert all(sign_flip(found[arm]) == 2 / 2**8 for arm in far)
    assert {arm for arm in far if min(found[arm]) > 0} == {"gmpo", "grpo_sequence"}
    size = [abs(fmean(found[arm])) for arm in far]
    assert says(README, f"seven by {min(size):.2f} to {max(size):.2f}")
    rest = set(arms) - set(same) - far
    assert rest == {"reinforce_baseline", "rloo"}
    assert all(round(fmean(found[arm]), 2) == 0.01 for arm in rest)


def test_the_algorithm_decides_between_words_and_code():
    code = {arm: ends("algorithms", arm, "eval/code") for arm in load(str(RESULTS), "algorithms")}
    assert max(code["gmpo"] + code["grpo_sequence"]) < 0.005
    assert says(README, f"in code on all eight ({min(code['gspo wider']):.2f} or more)")
    assert sum(x < 0.005 for x in code["grpo"]) == 5 and sum(x > 0.99 for x in code["grpo"]) == 2
    pace = {a: fmean(map(soon, r.values())) for a, r in load(str(RESULTS), "algorithms").items()}
    assert sorted(pace, key=pace.get)[-2:] == ["grpo_sequence", "gmpo"]
    starts = [run["eval/code"][0] for run in load(str(RESULTS), "algorithms")["grpo"].values()]
    assert 0.22 < fmean(starts) < 0.28 and says(README, "in a quarter of its completions")
    for arm, tokens in (("gmpo", 18), ("gspo wider", 24)):
        found = fmean(ends("algorithms", arm, "completions/mean_length"))
        assert abs(found - tokens) < 0.6


def test_what_the_slow_algorithms_pay():
    arms = load(str(RESULTS), "algorithms")
    entropy = {arm: fmean(ends("algorithms", arm, "entropy")) for arm in arms}
    assert max(entropy, key=entropy.get) == "pass@k"
    assert says(README, "({pass@k:.2f} against {grpo:.2f})".format(**entropy))
    assert min(fmean(ends("algorithms", arm, "eval/pass@2")) for arm in arms) > 0.99
    clipped = [run["clip_ratio/region_mean"][1] for run in arms["gspo"].values()]
    assert says(README, f"clips {fmean(clipped):.2f} of the tokens in the first steps")
    assert fmean(ends("algorithms", "grpo", "clip_ratio/region_mean")) < 2e-4
    sampled = [sum(run["completions"][-1] for run in arms[a].values()) for a in ("dapo", "grpo")]
    assert says(README, f"in all 60 it samples {sampled[0] / sampled[1]:.2f} times as much")
    to = {arm: COLUMNS["algorithms"]["steps to 0.9"](runs, {}) for arm, runs in arms.items()}
    assert (to["gspo"], to["gspo wider"], to["ppo"], to["vine_ppo"]) == ("30", "14", "14", "8")
    assert to["dapo"] == to["grpo"] == "8"
    cost = COLUMNS["algorithms"]["completions to 0.9"](arms["vine_ppo"], {})
    assert says(README, f"needs 8, and {cost} completions")


# -- tricks --------------------------------------------------------------------------------------


def test_on_the_rule_tricks_do_next_to_nothing():
    arms = [arm for arm in load(str(RESULTS), "tricks") if "static" not in arm and arm != "plain"]
    assert len(arms) == 7
    pace = {arm: fmean(gaps("tricks", arm, "plain")) for arm in arms}
    end = {arm: fmean(gaps("tricks", arm, "plain", last)) for arm in arms}
    assert pace.pop("mean over sequences") > 0.04
    assert says(README, f"at most {max(map(abs, pace.values())):.3f} up to step 20")
    cost = end.pop("entropy target")
    assert says(README, f"at most {max(map(abs, end.values())):.3f} at the end")
    kept = [fmean(ends("tricks", arm, "entropy")) for arm in ("entropy target", "plain")]
    assert says(README, "is never reached ({:.2f} instead of {:.2f})".format(*kept))
    assert says(README, f"costs {-cost:.3f}") and max(map(abs, end.values())) < 0.0025


def test_a_frozen_reward_model_is_hacked():
    runs = load(str(RESULTS), "tricks")["static, plain"].values()
    steps = [fall(run) for run in runs]
    assert len(steps) == 6 and says(README, f"between steps {min(steps)} and {max(steps)}")
    tops = [run["eval/accuracy"].index(max(run["eval/accuracy"])) for run in runs]
    best = [run["reward"][top] for run, top in zip(runs, tops)]
    end = [last(run, "reward") for run in runs]
    assert all(after > before for before, after in zip(best, end))
    said = f"from {min(best):.2f} to {max(best):.2f} where accuracy is best to {min(end):.2f} to"
    assert says(README, f"ends at {fmean(map(last, runs)):.2f}, while the score goes on")
    assert says(README, said) and says(README, f"to {max(end):.2f}: it is hacked")


def test_how_good_the_static_reward_models_are():
    models = read_jsonl(RESULTS / "reward_models.jsonl")
    held_out = [model["held_out/accuracy"] for model in models]
    assert len(models) == 6 and min(model["validation/accuracy"] for model in models) > 0.88
    assert says(README, f"({min(held_out):.2f} to {max(held_out):.2f} on held-out ones)")


def test_the_spread_of_the_score_shrinks():
    runs = load(str(RESULTS), "tricks")["static, plain"].values()
    begin = [next(x for x in run["reward_std"] if x is not None) for run in runs]
    end = [last(run, "reward_std") for run in runs]
    assert says(README, f"that spread falls from {fmean(begin):.2f} to {fmean(end):.2f}")
    assert all(after < before / 2 for before, after in zip(begin, end))


def test_without_clipping_it_falls_farther_rather_than_sooner():
    found = gaps("tricks", "static, no clipping", "static, plain", fall)
    assert sum(gap < 0 for gap in found) == 3 and sum(gap > 0 for gap in found) == 1


def test_by_the_middle_of_the_run_the_signs_are_there():
    def middle(run):
        rows = zip(run["step"], run["eval/accuracy"])
        return fmean(accuracy for step, accuracy in rows if 40 <= step <= 60)

    names = ("no std", "no clipping", "entropy target")
    gained = [fmean(gaps("tricks", f"static, {n}", "static, plain", middle)) for n in names]
    assert says(README, "({:+.2f}, {:+.2f}, {:+.2f})".format(*gained))
    assert max(abs(fmean(gaps("tricks", n, "plain", middle))) for n in names) < 0.01


def test_three_tricks_decide_how_far_it_is_hacked():
    base = "static, plain"
    found = {arm: gaps("tricks", arm, base, last) for arm in load(str(RESULTS), "tricks")}
    static = {arm for arm in found if arm.startswith("static") and arm != base}
    higher = {arm for arm in static if min(found[arm]) > 0}
    lower = {arm for arm in static if max(found[arm]) < 0}
    assert higher == {"static, no std"}
    assert lower == {"static, no clipping", "static, entropy target"}
    assert all(sign_flip(found[arm]) > 0.09 for arm in static - higher - lower)
    mean = {arm: fmean(ends("tricks", arm)) for arm in static}
    assert says(README, f"each of the six, at {mean['static, no std']:.2f}, though")
    falls = [fall(run) for run in load(str(RESULTS), "tricks")["static, no std"].values()]
    assert falls.count(None) == 1
    without, target = mean["static, no clipping"], mean["static, entropy target"]
    assert says(README, f"ends at {without:.2f}, with an entropy target at {target:.2f}")


# -- discovery -----------------------------------------------------------------------------------


def pass_at(k: int, policy: str, on: str) -> list[float]:
    return [row[f"pass@{k}"] for row in measured("discovery", policy=policy, on=on)]


def test_within_reach_rl_sharpens():
    steps = "3 to 6 numbers: every step"
    means = [fmean(pass_at(1, p, steps)) for p in ("before", "rl")]
    assert says(README, "by every step pass@1 goes from {:.2f} to {:.2f}, and".format(*means))
    assert says(README, "pass@1 {:.2f} to {:.2f} where pass@64 was 1.00".format(*means))
    assert min(pass_at(64, "before", steps)) > 0.995


def test_on_longer_chains_rare_successes_become_commoner():
    answer, steps = "7 to 9 numbers: answer", "7 to 9 numbers: every step"
    for k in (1, 64):
        means = [fmean(pass_at(k, p, answer)) for p in ("before", "rl")]
        what = "pass@1 by the answer" if k == 1 else "pass@64"
        assert says(README, "{} ({:.2f} to {:.2f})".format(what, *means))
    means = [fmean(pass_at(1, p, answer)) for p in ("before", "rl on long")]
    assert says(README, "by the answer from {:.2f} to {:.2f}".format(*means))
    means = [fmean(pass_at(1, p, steps)) for p in ("before", "rl on long")]
    assert says(README, "by every step from {:.2f} to {:.2f}:".format(*means))
    begun, found = pass_at(64, "before", steps), pass_at(64, "rl on long", steps)
    lucky = [(b, f) for b, f in zip(begun, found) if f]
    assert len(begun) == 5 and len(lucky) == 3
    low, high = (f(x for _, x in lucky) for f in (min, max))
    assert says(README, f"grows to {low:.2f} to {high:.2f} on the three seeds")
    low, high = (f(x for x, _ in lucky) for f in (min, max))
    assert says(README, f"whose start had {low:.2f} to {high:.2f}")
    assert sorted(b for b, f in zip(begun, found) if not f) == [0.0, 0.01]


def test_the_format_that_no_sample_shows_is_not_found():
    for policy in ("before", "rl", "rl on long", "rl on nines"):
        assert pass_at(64, policy, "answers as 9 + n") == [0.0] * 5


# -- sft -----------------------------------------------------------------------------------------


def skill(policy: str, name: str) -> list[float]:
    return [row[name] for row in sorted(measured("sft", policy=policy), key=lambda r: r["seed"])]


def test_rl_is_a_little_ahead_on_longer_chains_and_moves_farther():
    short, long, kl = "3 to 6 numbers", "7 to 9 numbers", "KL to the start"
    firsts = ("rl", "own samples", "given")
    assert [f"{fmean(skill(p, short)):.2f}" for p in firsts] == ["0.99"] * 3
    found = [f"{fmean(skill(p, long)):.2f}" for p in (*firsts, "before")]
    assert found == ["0.10", "0.07", "0.05", "0.05"]
    ahead = [a - b for a, b in zip(skill("rl", long), skill("own samples", long))]
    assert min(ahead) > 0 and sign_flip(ahead) == 2 / 2**5
    assert f"{fmean(pass_at(1, 'rl', '7 to 9 numbers: every step')):.2f}" == "0.02"
    assert [f"{fmean(skill(p, kl)):.1f}" for p in firsts] == ["2.2", "0.8", "1.6"]
    assert min(skill("rl", kl)) > max(skill("given", kl)) > max(skill("own samples", kl))
    for judge in ("judge says Yes", "judge says No"):
        assert min(min(skill(p, judge)) for p in firsts) > 0.98


def test_rl_ends_in_words_and_given_solutions_are_code():
    assert max(ends("sft", "rl", "eval/code")) < 0.1
    assert min(ends("sft", "given", "eval/code")) > 0.99


def test_a_second_task_is_learnt_from_given_solutions_and_the_first_is_lost():
    names = ("rl, then given", "given, then given", "given on long alone", "rl, then rl")
    names += ("given, then rl",)
    long = [f"{fmean(skill(p, '7 to 9 numbers')):.2f}" for p in names]
    assert long == ["0.66", "0.69", "0.66", "0.35", "0.08"]
    left = [f"{fmean(skill(p, '3 to 6 numbers')):.2f}" for p in names]
    assert left == ["0.62", "0.53", "0.57", "0.82", "0.70"]
    rl = skill("rl, then rl", "7 to 9 numbers")
    assert says(README, f"0.35 after RL ({min(rl):.2f} to {max(rl):.2f})")


# -- prior ---------------------------------------------------------------------------------------


def test_rl_lifts_what_the_warm_up_has_taught():
    arms = load(str(RESULTS), "prior")
    names = [f"{n} updates" for n in (100, 200, 400, 800, 1600)]
    begin = [fmean(r["eval/accuracy"][0] for r in arms[arm].values()) for arm in names]
    gains = [fmean(ends("prior", arm)) - start for arm, start in zip(names, begin)]
    said = ", ".join(f"+{x:.2f}" for x in gains)
    assert says(README, f"in 60 steps {said} on starts of " + ", ".join(f"{x:.2f}" for x in begin))
    pairs = [f"{gain:.2f} to {start:.2f}" for gain, start in zip(gains, begin)]
    assert says(README, "0.01 to a start of 0.06, " + ", ".join(pairs[1:4]) + ".")
    by_end = zip(ends("prior", "1600 updates"), ends("prior", "800 updates"))
    slower = [a - b for a, b in by_end]
    runs = zip(*[[run for _, run in sorted(arms[arm].items())] for arm in names[3:]])
    early = [soon(long) - soon(short) for short, long in runs]
    assert max(slower) < 0 and max(early) < 0 and len(early) == 5
    assert min(run["eval/accuracy"][-1] for run in arms["1600 updates"].values()) > 0.985


# -- process -------------------------------------------------------------------------------------


def test_steps_paid_beside_the_outcome_become_right_at_no_cost():
    arms = load(str(RESULTS), "process")
    wrong = {arm: ends("process", arm, "right_with_wrong_step") for arm in arms}
    at_start = fmean(run["right_with_wrong_step"][1] for run in arms["outcome"].values())
    assert abs(fmean(wrong["outcome"]) - at_start) < 0.02
    assert says(README, "right answers that show steps 0.48 have a wrong one")
    assert round(fmean(wrong["outcome"]), 2) == 0.48
    assert says(README, "wrong steps fall to 0.19")
    assert round(fmean(wrong["outcome + steps"]), 2) == 0.19
    both = zip(ends("process", "outcome + steps"), ends("process", "outcome"))
    assert abs(fmean(a - b for a, b in both)) < 0.01
    pace = {arm: {s: soon(run) for s, run in runs.items()} for arm, runs in arms.items()}
    gaps = [pace["outcome + steps"][s] - pace["outcome"][s] for s in pace["outcome"]]
    assert min(gaps) > 0 and sign_flip(gaps) == 2 / 2**5
    means = [fmean(pace[arm].values()) for arm in ("outcome + steps", "outcome")]
    assert says(README, "{:.3f} against {:.3f} up to step 20, p = 0.06".format(*means))


def test_steps_alone_lose_the_box():
    accuracy, box = ends("process", "steps alone"), ends("process", "steps alone", "eval/boxed")
    assert round(fmean(accuracy), 2) == 0.84 and says(README, "they leave the accuracy at 0.84")
    starts = [run["eval/boxed"][0] for run in load(str(RESULTS), "process")["steps alone"].values()]
    assert says(README, f"boxes fall from {fmean(starts):.2f} to {fmean(box):.2f} of the texts")
    assert min(a / b for a, b in zip(accuracy, box)) > 0.975


# -- labels --------------------------------------------------------------------------------------


def test_votes_and_confidence_sharpen_what_is_there():
    sharp = ("majority", "ttrl", "confidence")
    found = [ends("labels", f"{p}, {r}") for p in ("qwen_math", "llama") for r in sharp]
    assert sum(round(end, 2) < 0.98 for arm in found for end in arm) == 1
    for reward in sharp:
        assert max(ends("labels", f"olmo_sft, {reward}")) < 0.01
    starts = [
        run["eval/accuracy"][0] for run in load(str(RESULTS), "labels")["olmo_sft, rule"].values()
    ]
    assert says(README, f"take {fmean(starts):.2f} to 0.00")


def test_self_certainty_collapses_on_every_run():
    arms = load(str(RESULTS), "labels")
    runs = [
        (p, run)
        for p in ("qwen_math", "llama", "olmo_sft")
        for run in arms[f"{p}, self_certainty"].values()
    ]
    assert len(runs) == 15 and all(last(run) < 0.5 * run["eval/accuracy"][0] for _, run in runs)
    qwen = [run["eval/accuracy"] for p, run in runs if p == "qwen_math"]
    start, best = fmean(a[0] for a in qwen), fmean(map(max, qwen))
    assert says(README, f"after a rise from {start:.2f} to {best:.2f}")


def test_where_self_certainty_shrinks_the_texts():
    arms = load(str(RESULTS), "labels")
    tokens = {
        prior: [
            run["completions/mean_length"][-1]
            for _, run in sorted(arms[f"{prior}, self_certainty"].items())
        ]
        for prior in ("qwen_math", "llama", "olmo_sft")
    }
    assert sum(n < 7 for n in tokens["qwen_math"]) == 3
    assert sum(n < 7 for n in tokens["llama"]) == 4 and max(tokens["llama"]) > 20
    for run in arms["olmo_sft, self_certainty"].values():
        at = run["step"].index(20)
        assert run["eval/accuracy"][at] < 0.07 and run["completions/mean_length"][at] > 16.5


def test_negative_entropy_lifts_and_falls_again():
    arms = load(str(RESULTS), "labels")
    runs = arms["olmo_sft, negative_entropy"].values()
    assert says(README, f"comes to {fmean(map(last, runs)):.2f} on `olmo_sft`")
    tokens = [run["completions/mean_length"] for run in runs]
    means = [fmean(seed[-1] for seed in tokens), fmean(seed[1] for seed in tokens)]
    assert says(README, "({:.0f} tokens against {:.0f} before)".format(*means))
    falls = [
        max(run["eval/accuracy"]) - run["eval/accuracy"][-1]
        for prior in ("qwen_math", "llama")
        for run in arms[f"{prior}, negative_entropy"].values()
    ]
    deep = [fall for fall in falls if fall >= 0.1]
    assert len(falls) == 10 and len(deep) == 5
    assert says(README, f"by {min(deep):.2f} to {max(deep):.2f} on five of the ten")


# -- prefix --------------------------------------------------------------------------------------


def test_code_by_the_first_word_has_the_papers_signs():
    for prior, sign in (("qwen_math", 1), ("llama", -1), ("olmo_sft", -1)):
        none = [row["accuracy"] for row in measured("prefix", policy=prior, prefix="none")]
        code = [row["accuracy"] for row in measured("prefix", policy=prior, prefix="python")]
        assert len(none) == 5 and all(sign * (b - a) > 0 for a, b in zip(none, code))


# -- the verdicts --------------------------------------------------------------------------------


def test_the_readme_of_the_project_says_the_same():
    door = (RESULTS.parents[1] / "README.md").read_text(encoding="utf-8")
    assert says(door, "seventeen relatives of GRPO end alike, seven are faster or slower")
    assert says(door, "three tricks decide how far a frozen reward model is hacked")
    means = [fmean(pass_at(1, p, "3 to 6 numbers: every step")) for p in ("before", "rl")]
    assert says(door, "pass@1 {:.2f} to {:.2f} where pass@64 was 1.00".format(*means))


def test_the_verdicts_say_the_numbers_of_their_sections():
    mean = {arm: fmean(ends("tricks", arm)) for arm in load(str(RESULTS), "tricks")}
    names = ("no std", "plain", "no clipping", "entropy target")
    names = [f"static, {name}" for name in names]
    said = "without std {:.2f}, as it is {:.2f}, without clipping {:.2f}, with more entropy {:.2f}"
    assert says(README, said.format(*(mean[name] for name in names)) + " |")
    wrong = [
        fmean(ends("process", arm, "right_with_wrong_step"))
        for arm in ("outcome", "outcome + steps")
    ]
    alone = fmean(ends("process", "steps alone"))
    assert says(
        README,
        "a wrong step {:.2f} and {:.2f}, equal accuracy; steps alone {:.2f} |".format(
            *wrong, alone
        ),
    )
    means = [
        fmean(row["accuracy"] for row in measured("prefix", policy=p, prefix=x))
        for p in ("qwen_math", "llama", "olmo_sft")
        for x in ("none", "python")
    ]
    assert says(README, "{:.2f} to {:.2f}; {:.2f} to {:.2f} and {:.2f} to {:.2f} |".format(*means))
