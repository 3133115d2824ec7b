"""The closed form of the clipping bias, what each experiment changes, logs, tables."""

import dataclasses
import itertools
import json
import math
import shutil
from pathlib import Path

import pytest
import torch

import grpo
import labels
from data import Problem, load_problems
from experiments import clipping_bias as closed_form
from experiments import spurious, spurious_logs, workers
from experiments import spurious_tables as report
from grpo import GRPOConfig, group_advantages, policy_loss
from support.errors import InputError
from support.jsonl import read_jsonl
from support.stats import mean_and_half_width
from support.tables import renew

OLD = torch.tensor([0.6, 1.4, -0.3, 0.2], dtype=torch.float64)
# Moved so far that, at eps 0.2, two tokens have left the clip region upwards and one downwards.
NEW = OLD + torch.tensor([0.5, -0.6, 0.4, 0.1], dtype=torch.float64)


def enumerated(logits, old_logits, gamma, group_size, low, high):
    """E[grad J] with nothing assumed: every token and every outcome of the coins, one by one."""
    pi, old = logits.softmax(-1), old_logits.softmax(-1)
    total = torch.zeros_like(pi)
    for coins in itertools.product([0.0, 1.0], repeat=group_size):
        chance = math.prod(gamma if coin else 1 - gamma for coin in coins)
        for a in group_advantages(torch.tensor([coins], dtype=torch.float64))[0].tolist():
            for y, (new, before) in enumerate(zip(pi.tolist(), old.tolist())):
                ratio = new / before
                if (a > 0 and ratio > high) or (a < 0 and ratio < low):
                    continue  # clipped: no gradient
                grad_ratio = ratio * (torch.eye(len(pi), dtype=pi.dtype)[y] - pi)
                total += chance * before * a * grad_ratio / group_size
    return total


def test_the_ratios_of_the_example_leave_the_clip_region_on_both_sides():
    ratio = NEW.softmax(-1) / OLD.softmax(-1)
    assert (ratio > 1.2).sum() == 2 and (ratio < 0.8).sum() == 1


def test_without_clipping_the_expected_gradient_of_a_random_reward_is_zero():
    assert enumerated(NEW, OLD, 0.3, 4, -math.inf, math.inf).abs().max() < 1e-15
    assert closed_form.clipping_bias(NEW, OLD, 0.3, 4, -math.inf, math.inf).abs().max() == 0


@pytest.mark.parametrize("gamma", [0.1, 0.5, 0.7])
@pytest.mark.parametrize("low, high", [(0.8, 1.2), (0.8, math.inf), (-math.inf, 1.2), (0.5, 1.5)])
def test_with_clipping_it_is_the_closed_form(gamma, low, high):
    exact = enumerated(NEW, OLD, gamma, 4, low, high)
    formula = closed_form.clipping_bias(NEW, OLD, gamma, 4, low, high)
    torch.testing.assert_close(formula, exact, rtol=1e-5, atol=1e-9)  # std + 1e-6 is all between
    assert exact.abs().max() > 1e-3 or (low, high) == (0.5, 1.5)


@pytest.mark.parametrize("clip_eps", [0.2, None])
def test_the_projects_own_loss_has_that_gradient_on_average(clip_eps):
    """Groups of four drawn from pi_old, coins for rewards, policy_loss, autograd: 300,000 of it."""
    generator = torch.Generator().manual_seed(0)
    logits, old = NEW.clone().requires_grad_(), OLD.log_softmax(-1)
    n, g, gamma = 300_000, 4, 0.3
    y = torch.multinomial(old.exp(), n * g, replacement=True, generator=generator)
    coins = (torch.rand(n, g, generator=generator) < gamma).double()
    adv = group_advantages(coins).flatten()
    logp = logits.log_softmax(-1)[y][:, None]
    loss, _ = policy_loss(
        logp, old[y][:, None], adv, torch.ones_like(logp), GRPOConfig(clip_eps=clip_eps)
    )
    loss.backward()
    bounds = (0.8, 1.2) if clip_eps else (-math.inf, math.inf)
    expected = closed_form.clipping_bias(NEW, OLD, gamma, g, *bounds)
    # one token's gradient is at most |A| R < 1.5 * 1.7, so that is the most its mean can spread by
    spread = 1.5 * 1.7 / math.sqrt(n * g)
    assert (-logits.grad - expected).abs().max() < 4 * spread
    if clip_eps:  # and the test can tell it from zero
        assert expected.abs().max() > 8 * spread


def bias(old: float, new: float, low=0.8, high=1.2, group_size=8) -> float:
    """Push on the first of two tokens whose probability has gone from `old` to `new`."""
    logits = (torch.tensor([p, 1 - p], dtype=torch.float64).log() for p in (new, old))
    return closed_form.clipping_bias(*logits, 0.5, group_size, low, high)[0].item()


def test_the_bias_pulls_a_token_back_into_the_clip_region():
    assert bias(old=0.1, new=0.11) == 0  # inside it
    assert bias(old=0.1, new=0.13) < 0 < bias(old=0.1, new=0.07)


def test_the_bias_of_two_tokens_worked_out_by_hand():
    """From 0.5, 0.5 to 0.7, 0.3: R is 1.4 and 0.6, both outside, so the sides are -1 and +1.

    First entry of sum_y side_y grad pi_y: -0.7 * 0.3 - 0.3 * 0.7 = -0.42. Of groups of two coins
    half are (1, 0), with A = +-1/sqrt(2), so mu = 1/2 * 1/2 / sqrt(2) = 0.17678.
    """
    assert bias(old=0.5, new=0.7, group_size=2) == pytest.approx(-0.074246, abs=1e-6)


def test_only_through_the_others_is_a_confident_token_ever_held_down():
    """0.9 * 1.2 > 1: the upper bound cannot hold it; the lower bound of its alternative can.

    The paper argues with the first half, token by token. A softmax has both: a token gains what the
    others lose, and at 0.93 of 0.9 the other is at 0.07 of 0.1, below its own bound.
    """
    assert bias(old=0.9, new=0.99, low=-math.inf) == 0
    assert bias(old=0.9, new=0.87, low=-math.inf) > 0  # the rare token has passed 0.12
    assert bias(old=0.9, new=0.93) < 0


def test_mu_of_the_paper():
    """Appendix B with the population std: 0.484 and 0.439 at G = 16; ours divides by G - 1."""
    scale = math.sqrt(15 / 16)
    assert closed_form.positive_advantage(0.5, 16) == pytest.approx(0.484 * scale, abs=5e-4)
    assert closed_form.positive_advantage(0.3, 16) == pytest.approx(0.439 * scale, abs=5e-4)
    assert closed_form.positive_advantage(0.001, 16) == pytest.approx(0.0039 * scale, abs=5e-5)
    assert closed_form.positive_advantage(0.0, 16) == closed_form.positive_advantage(1.0, 16) == 0


# --------------------------------------------------------------------------------------------------
# The experiments

CFG = spurious.SpuriousConfig(output="somewhere")


def difference(name):
    standard, other = (
        dataclasses.asdict(spurious.run_config(CFG, "llama", n, spurious.CLIPPING[n], 3))
        for n in ("standard", name)
    )
    ignored = ("output", "steps", "eval_every", "save_every")  # its folder and its length
    return {k: other[k] for k in standard if standard[k] != other[k] and k not in ignored}


def test_an_ablation_differs_from_the_standard_run_in_what_it_names_alone():
    assert difference("standard") == {}
    assert difference("no clip") == {"clip_eps": None}
    assert difference("one large minibatch") == {"minibatches": 1}
    assert difference("lower bound only") == {"clip_eps_high": math.inf}
    assert difference("upper bound only") == {"clip_eps_low": math.inf}


def test_the_small_rollout_batch_is_one_minibatch_of_the_standard_run():
    changed = difference("small rollout batch")
    standard = spurious.run_config(CFG, "llama", "standard", spurious.CLIPPING["standard"], 3)
    small = spurious.run_config(CFG, "llama", "", spurious.CLIPPING["small rollout batch"], 3)
    assert set(changed) == {"prompts", "minibatches"}
    rows = [c.prompts * c.group_size // c.minibatches for c in (standard, small)]
    assert rows[0] == rows[1]  # the same rows per update
    assert standard.steps * standard.minibatches == small.steps * small.minibatches  # and updates


def test_the_standard_run_clips_and_updates_eight_times():
    cfg = spurious.run_config(CFG, "qwen_math", "standard", spurious.CLIPPING["standard"], 0)
    assert (cfg.reward, cfg.gamma, cfg.clip_eps, cfg.minibatches) == ("random", 0.5, 0.2, 8)
    assert cfg.kl_coef == cfg.entropy_coef == cfg.weight_decay == 0


def test_the_plan_is_every_reward_on_every_prior_and_seed():
    runs = spurious.plan(dataclasses.replace(CFG, seeds=2))
    assert len({run.output for *_, run in runs}) == len(runs)
    grid = {(prior, name, seed) for e, prior, name, seed, _ in runs if e == "grid"}
    assert len(grid) == 3 * len(spurious.GRID) * 2
    only = spurious.plan(dataclasses.replace(CFG, only="clipping", priors="llama", seeds=1))
    assert {(e, p) for e, p, *_ in only} == {("clipping", "llama")} and len(only) == 7
    with pytest.raises(InputError, match="none of grid, clipping"):
        spurious.plan(dataclasses.replace(CFG, only="clip"))


# --------------------------------------------------------------------------------------------------
# Logs, tables


def test_slim_logs_are_means_of_bins_and_every_evaluation():
    rows = [{"step": 0, "eval/accuracy": 0.5}]
    rows += [{"step": s, "code": float(s), "reward": 1.0} for s in range(1, 10)]
    rows[3]["eval/accuracy"] = 0.7
    assert spurious_logs.slim(rows, updates_per_step=8, bins=2) == [
        {"step": 0, "updates": 0, "eval/accuracy": 0.5},
        {"step": 3, "updates": 24, "eval/accuracy": 0.7},
        {"step": 4, "updates": 32, "code": 2.5, "reward": 1.0},
        {"step": 8, "updates": 64, "code": 6.5, "reward": 1.0},
        {"step": 9, "updates": 72, "code": 9.0, "reward": 1.0},
    ]


def write_logs(folder, accuracy):
    """accuracy: {(experiment, prior, name): {seed: (first, last)}}"""
    for (experiment, prior, name), seeds in accuracy.items():
        file = folder / experiment / f"{prior}.jsonl"
        file.parent.mkdir(parents=True, exist_ok=True)
        with open(file, "a", encoding="utf-8") as out:
            for seed, values in seeds.items():
                for step, value in enumerate(values):
                    row = {"name": name, "seed": seed, "step": step, "updates": 8 * step}
                    out.write(json.dumps(row | {"eval/accuracy": value}) + "\n")


def test_changes_and_paired_differences(tmp_path):
    where = ("clipping", "llama")
    write_logs(
        tmp_path,
        {
            (*where, "standard"): {0: (0.5, 0.6, 0.75), 1: (0.25, 0.5, 0.25)},
            (*where, "no clip"): {0: (0.5, 0.5, 0.5), 1: (0.25, 0.25, 0.125)},
        },
    )
    rows = spurious_logs.load_logs(str(tmp_path))
    clipping = spurious_logs.select(rows, experiment="clipping", prior="llama")
    standard = spurious_logs.select(clipping, name="standard")
    other = spurious_logs.select(clipping, name="no clip")
    assert spurious_logs.changes(standard) == [0.25, 0.0]
    assert spurious_logs.changes(standard, updates=8) == pytest.approx([0.1, 0.25])
    assert spurious_logs.differences(standard, other, "eval/accuracy") == [0.25, 0.125]
    assert report.number([0.25, 0.0]) == "+0.12 ± 1.59"  # 12.71 * std 0.1768 / sqrt(2)


@pytest.mark.parametrize("seeds, t95", [(2, 12.71), (5, 2.78), (11, 2.26), (12, 2.20), (40, 2.20)])
def test_half_of_an_interval_is_students_t_times_the_standard_error(seeds, t95):
    """0, 1, 0, 0, ...: mean 1/n, std 1/sqrt(n), so a standard error of 1/n."""
    values = [0.0, 1.0] + [0.0] * (seeds - 2)
    assert mean_and_half_width(values) == pytest.approx((1 / seeds, t95 / seeds))


def test_a_table_is_renewed_between_its_marks_only():
    text = "a\n<!-- spurious:grid -->\nold\n<!-- /spurious:grid -->\nb"
    new = renew(text, {"spurious:grid": r"| \boxed{1} |", "spurious:gamma": "x"})
    assert new == "a\n<!-- spurious:grid -->\n| \\boxed{1} |\n<!-- /spurious:grid -->\nb"
    assert renew(new, {"spurious:grid": "old"}) == text
    assert renew(new, {"spurious:grid": ""}).count("grid") == 2


def test_an_empty_folder_says_what_to_run(tmp_path):
    with pytest.raises(InputError, match="run experiments.spurious first"):
        spurious_logs.load_logs(str(tmp_path))


@pytest.fixture
def miniature(tmp_path, untrained, monkeypatch):
    """miniature(...) -> a config whose runs take a second, in this process, from no warm-up."""
    small = {"prompts": 4, "group_size": 4, "minibatches": 2, "eval_problems": 4, "eval_samples": 2}
    small |= {"max_new_tokens": 8, "lr": 1e-2}
    monkeypatch.setattr(spurious, "STANDARD", spurious.STANDARD | small)
    some = {name: spurious.GRID[name] for name in ("rule", "format", "python")}
    some["nothing"] = {"reward": "random", "gamma": 0.0}
    monkeypatch.setitem(
        spurious.EXPERIMENTS, "grid", spurious.Experiment(some, spurious.GRID_PRIORS[:2])
    )
    monkeypatch.setattr(
        spurious, "run_all", lambda jobs, *_: [function(*rest) for function, *rest in jobs]
    )
    monkeypatch.setattr(
        spurious,
        "make_start",
        lambda prior, folder, seed: shutil.copytree(untrained, folder, dirs_exist_ok=True),
    )

    def make(**changes):
        return spurious.SpuriousConfig(output=str(tmp_path / "runs"), shorten=20, **changes)

    return make


def test_the_clipping_experiment_in_miniature(tmp_path, miniature):
    """Runs, slim logs, tables, figures, README; a second call leaves what is there."""
    readme = tmp_path / "README.md"
    readme.write_text("<!-- spurious:effect -->\n\n<!-- /spurious:effect -->\n", encoding="utf-8")
    cfg = miniature(readme=str(readme), only="clipping", priors="llama", seeds=2)
    spurious.main(cfg)
    kept = tmp_path / "runs" / "results"
    rows = read_jsonl(kept / "clipping" / "llama.jsonl")
    assert {row["name"] for row in rows} == set(spurious.CLIPPING)
    assert {row["seed"] for row in rows} == {1, 2}
    for file in ("clipping.png", "clipping_all.png", "bounds_all.png", "tables.md"):
        assert (kept / file).stat().st_size > 500
    assert "llama: lower bound only" in readme.read_text(encoding="utf-8")
    checkpoints = sorted(tmp_path.glob("runs/**/checkpoint.pt"))
    times = [path.stat().st_mtime_ns for path in checkpoints]
    before = (kept / "clipping" / "llama.jsonl").read_text(encoding="utf-8")
    spurious.main(cfg)
    assert [path.stat().st_mtime_ns for path in checkpoints] == times and len(times) == 14
    assert (kept / "clipping" / "llama.jsonl").read_text(encoding="utf-8") == before


def test_grid_and_gamma_in_miniature(tmp_path, miniature, capsys):
    spurious.main(miniature(only="grid", seeds=1))
    spurious.main(miniature(only="gamma", seeds=1))
    out = capsys.readouterr().out
    assert "| accuracy (share of code), n = 1 seeds | qwen_math | llama |" in out
    assert "| gamma 0.001 | +" in out and "±" not in out  # one seed has no interval
    assert "| python | " in out and "code->lang" in out
    assert (tmp_path / "runs" / "results" / "grid.png").stat().st_size > 5000


def test_no_change_of_weights_is_no_switch_of_strategy(tmp_path, miniature):
    """Both policies meet the same random numbers: gamma 0 trains nothing, so no pair may differ."""
    spurious.main(miniature(only="grid", priors="llama", seeds=1))
    rows = read_jsonl(tmp_path / "runs" / "results" / "grid" / "llama.jsonl")
    switches = {row["name"]: row["switch"] for row in rows if "switch" in row}
    assert set(switches) == {"rule", "format", "python", "nothing"}
    assert all(sum(d["n"] for d in switch.values()) == 8 for switch in switches.values())
    assert switches["nothing"]["code->lang"]["n"] == switches["nothing"]["lang->code"]["n"] == 0
    assert all(d["before"] == d["after"] for d in switches["nothing"].values() if d["n"])


def test_wrong_labels_are_sorted_by_their_kind(tmp_path, untrained, monkeypatch):
    """7 + 5 - 3: 12 leaves the last operation out, 10 is another mistake, 9 is right."""

    def vote(policy, tokenizer, problems, votes, generator):
        question = "7 + 5 - 3 = ?"
        return [Problem(question, "9", label=label) for label in ("12", "10", "9", "12")]

    monkeypatch.setattr(labels, "vote_labels", vote)
    shutil.copytree(untrained, tmp_path / "start")
    spurious.sort_wrong_labels(str(tmp_path / "start"), seed=0)
    found = {kind: load_problems(str(tmp_path / f"{kind}.jsonl")) for kind in ("habit", "other")}
    assert [p.label for p in found["habit"]] == ["12", "12"]
    assert [p.label for p in found["other"]] == ["10"]
    cfg = spurious.run_config(CFG, spurious.YOUNG, "other", spurious.LABELS["other"], 2)
    assert cfg.data == "somewhere/qwen_young/seed2/other.jsonl" and cfg.reward == "incorrect"


def test_without_a_gain_c_d_is_left_out(tmp_path):
    zero = {d: {"n": 10, "before": 0.3, "after": 0.3, "C_d": math.nan} for d in report.SWITCHES}
    odd = (
        {"n": 49, "before": 29 / 49, "after": 30 / 49},
        {"n": 93, "before": 13 / 93, "after": 12 / 93},
    )
    switches = {"same": zero, "odd": zero | dict(zip(report.SWITCHES, odd))}
    file = tmp_path / "grid" / "llama.jsonl"
    file.parent.mkdir()
    rows = [{"name": n, "seed": 1, "step": 1, "switch": s} for n, s in switches.items()]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    table = report.switch_table(spurious_logs.load_logs(str(tmp_path)))
    assert "| same | +0.00 | 10: 0.30 > 0.30 | " in table
    assert "| odd | +0.00 | 49: 0.59 > 0.61 | 93: 0.14 > 0.13 | " in table


@pytest.mark.parametrize(
    "changes, says",
    [
        ({"shorten": 0}, "at least 1"),
        ({"workers": 0}, "at least 1"),
        ({"readme": "nowhere.md"}, "no file 'nowhere.md'"),
        ({"only": "gamma", "priors": "llama"}, "gamma does not run on llama"),
        ({"priors": "qwen"}, "none of qwen_math"),
    ],
)
def test_input_that_makes_no_sense_is_refused_before_any_run(changes, says):
    with pytest.raises(InputError, match=says):
        spurious.plan(dataclasses.replace(CFG, **changes))


def test_one_update_of_the_whole_batch_never_clips(tmp_path, untrained):
    """`one large minibatch`: ratio 1, so nothing is clipped; eight updates do clip at this rate."""
    shares = {}
    for name in ("standard", "one large minibatch"):
        cfg = spurious.run_config(CFG, "llama", name, spurious.CLIPPING[name], 1)
        small = {"steps": 2, "lr": 1e-2, "eval_every": 0, "eval_problems": 4, "max_new_tokens": 8}
        small |= {"data": spurious.WORLD, "eval_data": None}
        cfg = dataclasses.replace(cfg, model=untrained, output=str(tmp_path / name), **small)
        history = grpo.train(cfg)
        shares[name] = sum(row["clip_ratio/region_mean"] for row in history[1:])
    assert shares["one large minibatch"] == 0 < shares["standard"]


def test_workers_are_processes_with_one_thread(tmp_path):
    workers.run_all([(note_threads, str(tmp_path / name)) for name in "ab"], 1, "threads")
    assert [(tmp_path / name).read_text(encoding="utf-8") for name in "ab"] == ["1", "1"]
    with pytest.raises(InputError, match="as it should"):
        workers.run_all([(fail,)], 1, "a job that fails")
    with pytest.raises(KeyboardInterrupt, match="the same command goes on"):
        workers.run_all([(stop,)], 1, "a job that Ctrl-C stopped")


def note_threads(path):
    Path(path).write_text(str(torch.get_num_threads()), encoding="utf-8")


def fail():
    raise InputError("as it should")


def stop():
    raise KeyboardInterrupt
