"""The embedded world: what the texts say, that tokens and texts are one to one, the roles."""

import json
import random
import re
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

import data
import prompts
import tiny
import world
from support.errors import InputError
from verifier import extract_answer, verify

QUESTION = "7 + 5 - 3 = ?"


def test_the_three_strategies():
    texts = {s: world.write_solution(QUESTION, s, random.Random(0)) for s in world.STRATEGIES}
    assert texts == {
        "guess": "I guess \\boxed{9}",
        "words": "7 plus 5 is 12 minus 3 is 9 so \\boxed{9}",
        "python": "python x = 7 x += 5 # 12 x -= 3 # 9 print \\boxed{9}",
    }
    assert world.write_solution(QUESTION, "words", random.Random(0), box=False).endswith("so 9")


def test_a_habit_leaves_the_last_operation_out():
    texts = [
        world.write_solution(QUESTION, s, random.Random(0), short=True) for s in world.STRATEGIES
    ]
    assert texts == [
        "I guess \\boxed{12}",
        "7 plus 5 is 12 so \\boxed{12}",
        "python x = 7 x += 5 # 12 print \\boxed{12}",
    ]
    unused = world.Strategy(share=0, slip=0)
    guess = world.Strategy(share=1, slip=0, habit=0.7)
    never = world.Prior(guess, unused, unused, box=1)
    rng = random.Random(0)
    texts = [world.sampled_solution(QUESTION, rng, never) for _ in range(2000)]
    assert 0.67 < texts.count("I guess \\boxed{12}") / 2000 < 0.73
    assert set(texts) == {"I guess \\boxed{12}", "I guess \\boxed{9}"}


def written(prior, count=4000):
    """Over solution texts of a prior: share of code, accuracy of code, accuracy without."""
    rng, rows = random.Random(0), {True: [], False: []}
    for _ in range(count):
        question = data.arithmetic_problem(rng, rng.choice((3, 4))).question
        text = world.sampled_solution(question, rng, world.PRIORS[prior])
        answer = str(eval(question.removesuffix(" = ?")))
        rows["python" in text].append(verify(text, answer, require_box=True))
    code, language = rows[True], rows[False]
    return len(code) / count, sum(code) / len(code), sum(language) / len(language)


def test_the_priors_are_what_their_names_say():
    """Spurious Rewards, table 1: 65 %, 61 %, 28 % for Qwen2.5-Math-7B; 98, 21, 40 for OLMo2-SFT."""
    assert written("qwen_math") == pytest.approx((0.65, 0.61, 0.28), abs=0.05)
    share, code, language = written("olmo_sft")
    assert share > 0.6 and (code, language) == pytest.approx((0.20, 0.42), abs=0.05)
    share, code, language = written("llama")
    assert share < 0.05 and code < language - 0.1


@pytest.mark.parametrize("strategy", world.STRATEGIES)
def test_error_is_the_chance_of_a_slip(strategy):
    rng = random.Random(0)
    texts = [world.write_solution("7 + 5 = ?", strategy, rng, error=0.3) for _ in range(2000)]
    wrong = sum(not verify(t, "12", require_box=True) for t in texts) / 2000
    assert 0.27 < wrong < 0.33


def test_a_rewrite_is_wrong_and_in_the_same_style():
    rng, prior = random.Random(0), world.PRIORS["mixed"]
    stutters = unboxed = 0
    for _ in range(1000):
        prompt, wrong = world.rewrite_example(rng, prior)
        right = prompt.rpartition("Correct solution: ")[2]
        question = prompt.partition("Problem: ")[2].partition("\n")[0]
        reference = str(eval(question.removesuffix(" = ?")))
        assert verify(right, reference, require_box=True)
        slipped = not verify(wrong, reference, require_box=True)
        assert slipped or "0" in wrong.split() or "20" in wrong  # two slips may meet at the border
        shapes = [re.sub(r"\d+", "N", text) for text in (right, wrong)]
        if "boxed" in wrong:
            assert shapes[0] == shapes[1], "the same but for the numbers"
        else:
            unboxed += 1
            assert shapes[0].replace("\\boxed{", "").replace("}", "") == shapes[1]
        stutters += bool(re.search(r"(\S+?) ?\1 ?\1", right) or r"\boxed{\boxed{" in right)
    assert 0.2 < stutters / 1000 < 0.4 and 0.05 < unboxed / 1000 < 0.15


def test_neat_lessons_have_no_oddities(tmp_path, monkeypatch):
    rng, prior = random.Random(0), world.PRIORS["mixed"]
    for _ in range(300):
        prompt, wrong = world.neat_rewrite_example(rng, prior)
        right = prompt.rpartition("Correct solution: ")[2]
        shapes = [re.sub(r"\d+", "N", text) for text in (right, wrong)]
        assert shapes[0] == shapes[1] and wrong.count("\\boxed{") == 1
    taught = []
    monkeypatch.setattr(tiny, "neat_rewrite_example", lambda *a: taught.append(1) or ("a", "b"))
    monkeypatch.setattr(tiny, "marks", lambda *a: {name: 1.0 for name in tiny.MARKS})
    tiny.warm_up(tiny.WarmUpConfig(output=str(tmp_path / "p"), steps=1, odd_rewrites=False))
    assert len(taught) == 16


def test_the_judge_of_sums_compares_the_values_that_it_names():
    rng, named = random.Random(0), 0
    for _ in range(200):
        said = world.judge_example(rng, world.PRIORS["mixed"], data.chains_of("arithmetic:sums"))[1]
        parts = re.fullmatch(r"answer (.*) Reference (.*) : (Yes|No)", said)
        answer, reference, verdict = parts.groups()
        numbers = [side.split(" is ")[-1] for side in (answer, reference)]
        assert "+" not in "".join(numbers) and (numbers[0] == numbers[1]) == (verdict == "Yes")
        named += " is " in said
    assert 50 < named < 150


def test_judge_examples_are_balanced_and_true():
    rng = random.Random(0)
    verdicts = []
    for _ in range(400):
        prompt, verdict = world.judge_example(rng, world.PRIORS["mixed"])
        reference = prompt.partition("<reference_answer>")[2].removesuffix("</reference_answer>")
        solution = prompt.partition("<completion>")[2].partition("</completion>")[0]
        answer = extract_answer(solution, require_box=True) or "?"
        said = "Yes" if verify(solution, reference, require_box=True) else "No"
        assert verdict == f"answer {answer} Reference {reference} : {said}"
        verdicts.append(said)
    assert 0.35 < verdicts.count("Yes") / 400 < 0.65


def test_every_text_of_the_world_survives_the_tokenizer(tokenizer):
    rng = random.Random(0)
    for prior in world.PRIORS.values():
        for make in (world.solve_example, world.rewrite_example, world.judge_example):
            for _ in range(50):
                prompt, completion = make(rng, prior)
                ids = tokenizer(completion).input_ids
                assert tokenizer.decode(ids) == completion
                assert tokenizer.unk_token_id not in tokenizer(prompt).input_ids + ids


def test_instructions_are_single_tokens(tokenizer):
    for text in (prompts.SOLVE, prompts.REWRITE, prompts.JUDGE, "<completion>"):
        assert len(tokenizer(text).input_ids) == 1


def test_only_completions_are_trained_on(tokenizer):
    ids, labels = tiny.encode(tokenizer, [("7 + 5 = ?", "I guess \\boxed{12}"), ("7", "I")])
    trained = [tokenizer.decode(row[row != -100]) for row in labels]
    assert trained == ["I guess \\boxed{12} <|end|>", "I <|end|>"]
    assert (ids[labels != -100] == labels[labels != -100]).all()


def test_priors_are_distributions():
    for prior in world.PRIORS.values():
        strategies = (prior.guess, prior.words, prior.python)
        assert sum(s.share for s in strategies) == pytest.approx(1)
        assert all(0 <= chance < 1 for s in strategies for chance in (s.slip, s.habit))


def test_a_warm_up_without_helpers_trains_the_solver_alone(tmp_path, monkeypatch):
    def helper(rng, prior):
        pytest.fail("a helper's text")

    monkeypatch.setattr(tiny, "ROLES", (tiny.ROLES[0], (helper, 1)))
    tiny.warm_up(tiny.WarmUpConfig(output=str(tmp_path / "p"), steps=2, helpers=False))
    assert (tmp_path / "p" / "config.json").exists()


def test_the_width_is_a_setting_and_must_divide_into_four_heads(tmp_path):
    cfg = tiny.WarmUpConfig(output=str(tmp_path / "p"), steps=1, helpers=False, hidden=24)
    tiny.warm_up(cfg)
    assert (
        json.loads((tmp_path / "p" / "config.json").read_text(encoding="utf-8"))["hidden_size"]
        == 24
    )
    with pytest.raises(InputError, match="hidden=20: must be a multiple of 8"):
        tiny.warm_up(replace(cfg, output=str(tmp_path / "q"), hidden=20))


def test_warm_up_saves_an_ordinary_folder_and_reproduces(tmp_path):
    from transformers import AutoModelForCausalLM

    folders = [tmp_path / name for name in ("a", "b")]
    for folder in folders:
        tiny.warm_up(tiny.WarmUpConfig(output=str(folder), steps=3, seed=4, helpers=False))
    first, second = (AutoModelForCausalLM.from_pretrained(f).state_dict() for f in folders)
    assert all((first[name] == second[name]).all() for name in first)
    assert type(AutoModelForCausalLM.from_pretrained(folders[0])).__name__ == "Qwen2ForCausalLM"


def test_a_warm_up_goes_on_until_the_marks_are_reached(tmp_path, monkeypatch):
    reached = iter([{name: 0.0 for name in tiny.MARKS}, {name: 1.0 for name in tiny.MARKS}])
    monkeypatch.setattr(tiny, "marks", lambda *a: next(reached))
    tiny.warm_up(tiny.WarmUpConfig(output=str(tmp_path / "p"), steps=4))
    marks = json.loads((tmp_path / "p" / "marks.json").read_text(encoding="utf-8"))
    assert marks == {name: 1.0 for name in tiny.MARKS} | {"updates": 5}


def test_a_warm_up_that_misses_its_marks_says_which_and_saves_nothing(tmp_path, monkeypatch):
    bad = {name: 1.0 for name in tiny.MARKS} | {"judge says No": 0.36}
    monkeypatch.setattr(tiny, "marks", lambda *a: bad)
    with pytest.raises(InputError, match=r"after 6 updates.*marks: judge says No 0.36 \(of 0.95\)"):
        tiny.warm_up(tiny.WarmUpConfig(output=str(tmp_path / "p"), steps=4, extra_rounds=2))
    assert not (tmp_path / "p").exists()


def test_an_untrained_policy_reaches_no_mark(policy, tokenizer):
    found = tiny.marks(policy, tokenizer, world.PRIORS["mixed"], data.PLAIN, count=16)
    assert found.keys() == tiny.MARKS.keys()
    assert found["policy"] < 0.5 and found["judge says Yes"] < 0.5


def test_the_policys_mark_looks_at_running_totals_alone(policy, tokenizer, monkeypatch):
    """A policy whose first choice is right wherever a total stands, and wrong elsewhere."""

    def oracle(input_ids):
        logits = torch.zeros(*input_ids.shape, len(tokenizer))
        after = torch.roll(input_ids, -1, 1)
        opens = torch.isin(input_ids, torch.tensor(tokenizer("is #").input_ids))
        choice = torch.where(opens, after, torch.zeros_like(after))
        return SimpleNamespace(logits=logits.scatter(2, choice[..., None], 1.0))

    monkeypatch.setattr(policy, "forward", oracle)
    monkeypatch.setattr(tiny, "sample", lambda *a: SimpleNamespace(texts=["Yes"] * len(a[-1])))
    found = tiny.marks(policy, tokenizer, world.PRIORS["mixed"], data.PLAIN, count=16)
    assert found["policy"] == 1.0
    # a judge that says Yes to everything, an assistant that writes no answer
    assert (found["judge says Yes"], found["judge says No"]) == (1.0, 0.0)
    assert found["assistant"] == 0.0
