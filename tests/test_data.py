"""Problems: the arithmetic is right, the splits are apart, bad lines are named."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

import data
import reward_model
from data import Problem, load_problems, training_and_held_out
from support.errors import InputError
from verifier import verify


def test_arithmetic_answers_and_bounds():
    for problem in load_problems("arithmetic", "train", 300, seed=1):
        first, *rest = problem.question.removesuffix(" = ?").split()
        total = int(first)
        for op, n in zip(rest[::2], rest[1::2]):
            total += int(n) if op == "+" else -int(n)
            assert 0 <= total <= data.MAX_TOTAL and 1 <= int(n) <= 9
        assert problem.answer == str(total)


def test_train_and_test_never_share_a_question_and_seeds_reproduce():
    train = {p.question for p in load_problems("arithmetic", "train", 2000)}
    test = {p.question for p in load_problems("arithmetic", "test", 300)}
    assert len(train) == 2000 and len(test) == 300 and not train & test
    assert load_problems("arithmetic", "test", 20) == load_problems("arithmetic", "test", 20)
    assert load_problems("arithmetic", "test", 20) != load_problems(
        "arithmetic", "test", 20, seed=1
    )


def test_jsonl(tmp_path):
    file = tmp_path / "p.jsonl"
    file.write_text(
        '{"question": "1+1?", "answer": 2, "id": 7}\n\n{"question": "é", "answer": "\\\\frac12"}\n',
        encoding="utf-8",
    )
    assert load_problems(str(file)) == [Problem("1+1?", "2"), Problem("é", "\\frac12")]
    assert len(load_problems(str(file), limit=1)) == 1


@pytest.mark.parametrize(
    "line, says",
    [
        ('{"question": "a"', "bad.jsonl:2: not JSON"),
        ('{"question": "a"}', "bad.jsonl:2: 'answer' must be"),
        ('{"question": "", "answer": "1"}', "bad.jsonl:2: 'question' must be"),
        ('{"question": "a", "answer": null}', "bad.jsonl:2: 'answer' must be"),
        ('{"question": "a", "answer": true}', "bad.jsonl:2: 'answer' must be"),
        ('{"question": "a", "answer": "1", "label": ""}', "bad.jsonl:2: 'label' must be"),
        ('["a", "b"]', "bad.jsonl:2: expected an object a line, not a JSON array"),
        ("[", "bad.jsonl:2: expected an object a line, not a JSON array"),
        ("5", "bad.jsonl:2: expected an object"),
        ("{", "bad.jsonl:2: not JSON"),
        ('{"problem": "a", "solution": "1"}', "the keys there are: 'problem', 'solution'"),
        ('{"question": 5, "answer": "1"}', "bad.jsonl:2: 'question' must be"),
        ('{"question": "a", "answer": ["1"]}', "bad.jsonl:2: 'answer' must be"),
        ('{"question": "a", "answer": NaN}', "bad.jsonl:2: 'answer' must be a finite number"),
        ('{"question": "a", "answer": -1e999}', "bad.jsonl:2: 'answer' must be a finite number"),
        ('{"question": "a", "answer": ' + "9" * 5000 + "}", "bad.jsonl:2: nested too deeply, or a"),
        ('{"question": ' + "[" * 100_000, "bad.jsonl:2: nested too deeply"),
        ("[" * 100_000, "bad.jsonl:2: expected an object"),
        ('{"question": "\\ud83d", "answer": "1"}', "bad.jsonl:2: 'question' must be text"),
        ('{"question": "a", "answer": "\\udc00"}', "bad.jsonl:2: 'answer' must be text"),
    ],
)
def test_a_bad_line_is_named_with_its_number(tmp_path, line, says):
    file = tmp_path / "bad.jsonl"
    file.write_text('{"question": "ok", "answer": "1"}\n' + line + "\n", encoding="utf-8")
    with pytest.raises(InputError) as error:
        load_problems(str(file))
    assert says in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16"])
def test_not_utf8_is_named(tmp_path, encoding):
    file = tmp_path / "other.jsonl"
    file.write_text('{"question": "café", "answer": "1"}\n', encoding=encoding)
    with pytest.raises(InputError, match="other.jsonl:1: not UTF-8"):
        load_problems(str(file))


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_a_byte_order_mark_and_every_line_end_are_read(tmp_path, end):
    lines = [
        json.dumps({"question": q, "answer": 1}, ensure_ascii=False) for q in ("é", "b\u2028c")
    ]
    file = tmp_path / "windows.jsonl"
    file.write_bytes((end.join(lines) + end).encode("utf-8-sig"))
    assert load_problems(str(file)) == [Problem("é", "1"), Problem("b\u2028c", "1")]


def test_a_folder_is_not_a_file(tmp_path):
    with pytest.raises(InputError, match="a folder called"):
        load_problems(str(tmp_path))
    with pytest.raises(InputError, match="cannot be read"):
        data.read_problems(tmp_path)


# -- references ----------------------------------------------------------------------------------


def write_rows(file, rows) -> str:
    lines = [json.dumps({"question": q, "answer": a}) + "\n" for q, a in rows]
    file.write_text("".join(lines), encoding="utf-8")
    return str(file)


@pytest.mark.parametrize(
    "reference, answer",
    [
        ("Natalia sold 48 / 2 = <<48/2=24>>24 clips in May.\n#### 18", "18"),
        ("long\n#### not yet\nmore\n####1,080\n", "1,080"),
        (r"We add, so $x = \boxed{\frac{1}{2}}$.", r"\frac{1}{2}"),
        (r"\boxed{2} or \boxed{3}", r"\boxed{2} or \boxed{3}"),
        (r"an open \boxed{2", r"an open \boxed{2"),
        (" 18 ", " 18 "),
    ],
)
def test_the_answer_of_a_reference_that_is_a_solution(tmp_path, capsys, reference, answer):
    (problem,) = load_problems(write_rows(tmp_path / "p.jsonl", [("q", reference)]))
    assert problem.answer == answer and capsys.readouterr().err == ""


def test_whole_solutions_as_references_are_announced_in_one_line(tmp_path, capsys):
    solution = "Janet sells 16 - 3 - 4 = 9 duck eggs a day. She makes 9 * 2 = 18 dollars every day."
    rows = [
        ("a", "18"),
        ("b", solution),
        ("c", "We add.\nSo it is 4"),
        ("d", r"\frac{a}{b}, \pi r"),
    ]
    load_problems(write_rows(tmp_path / "p.jsonl", rows))
    said = capsys.readouterr().err
    assert (
        said.count("\n") == 1
        and "p.jsonl:2: the answer reads like a whole solution (2 of 4" in said
    )


def test_a_question_is_trained_on_once_and_another_answer_to_it_is_announced(tmp_path, capsys):
    rows = [("What is  1+1?", "2"), ("x", "1"), ("what is 1+1? ", "2")]
    same = write_rows(tmp_path / "same.jsonl", rows)
    assert len(load_problems(same)) == 3, "a file is evaluated whole"
    assert training_and_held_out(same, "arithmetic", 5)[0] == [
        Problem("What is  1+1?", "2"), Problem("x", "1"),
    ]  # fmt: skip
    assert capsys.readouterr().err == ""
    file = write_rows(tmp_path / "p.jsonl", [*rows, ("X", "3")])
    assert training_and_held_out(file, "arithmetic", 5)[0][1].answer == "1"
    said = capsys.readouterr().err
    assert "p.jsonl:4: the question of" in said and "p.jsonl:2 again, with another answer" in said


# -- held out ------------------------------------------------------------------------------------


def test_of_one_file_a_small_held_out_part_lies_in_a_large_one(tmp_path):
    rows = [(f"question {i}", str(i)) for i in range(40)]
    file = write_rows(tmp_path / "p.jsonl", rows)
    (train, small), (rest, large) = (training_and_held_out(file, None, n) for n in (5, 20))
    assert (len(small), len(large)) == (5, 20) and set(small) < set(large)
    assert set(train) == set(load_problems(file)) - set(small) and set(rest) < set(train)
    assert load_problems(file, "test", limit=5) == small, "eval.py takes others"
    assert small != load_problems(file)[:5] and load_problems(file, limit=5, seed=1) != small
    backwards = write_rows(tmp_path / "q.jsonl", rows[::-1])
    assert training_and_held_out(backwards, None, 5)[1] == small[::-1]


def test_what_another_file_evaluates_is_not_trained_on_in_other_writing(tmp_path):
    file = write_rows(tmp_path / "train.jsonl", [("Add 1\nand 1", "2"), ("b", "1")])
    tests = write_rows(tmp_path / "test.jsonl", [(" add  1 AND 1 ", "2")])
    assert training_and_held_out(file, tests, 200)[0] == [Problem("b", "1")]
    with pytest.raises(InputError, match="every problem is held out; lower eval_problems"):
        training_and_held_out(file, None, 2)


def test_copies_of_a_question_are_held_out_together(tmp_path):
    rows = [(f"question {i}", str(i)) for i in range(10)] * 2
    file = write_rows(tmp_path / "p.jsonl", rows)
    for held_out in range(1, 18):
        train, tests = training_and_held_out(file, None, held_out)
        assert len(tests) == held_out and not set(train) & set(tests) and len(train) >= 1


def test_a_draw_of_training_problems_does_not_move_what_is_held_out(tmp_path):
    file = write_rows(tmp_path / "p.jsonl", [(f"question {i}", str(i)) for i in range(40)])
    _, tests = training_and_held_out(file, None, 10)
    for seed in range(3):
        problems, same = training_and_held_out(file, None, 10, limit=12, seed=seed)
        assert len(set(problems)) == 12 and same == tests and not set(problems) & set(tests)


def test_arithmetic_is_as_it_was_when_the_results_were_made():
    problems, tests = training_and_held_out("arithmetic:3-4", None, 200)
    assert [p.question for p in (problems[0], problems[-1], tests[0], tests[-1])] == [
        "7 + 9 + 4 - 9 = ?", "5 - 2 - 3 + 8 = ?", "3 + 6 + 6 - 6 = ?", "3 - 1 - 1 = ?",
    ]  # fmt: skip
    assert len(problems) == 2000
    assert training_and_held_out("arithmetic", None, 200, 9, 4)[0] == load_problems(
        "arithmetic", "train", 9, 4
    )


def lengths(problems):
    return {int(problem.benchmark.removesuffix("_numbers")) for problem in problems}


def test_what_is_never_trained_on_is_in_the_test_split_alone():
    problems, tests = training_and_held_out("arithmetic", None, 200, seed=3)
    assert lengths(problems) == {3, 4, 5} and lengths(tests) == {3, 4, 5, 6}
    assert all(p.benchmark == f"{len(p.question.split()) // 2}_numbers" for p in tests)
    others, other_tests = training_and_held_out("arithmetic", None, 200, seed=4)
    assert problems != others and tests != other_tests, "drawn by seed"


def test_in_the_world_of_sums_a_third_of_the_references_is_one():
    problems = load_problems("arithmetic:sums", "test", 500)
    sums = [p for p in problems if "+" in p.answer]
    assert 0.25 < len(sums) / 500 < 0.4
    for problem in problems:
        assert eval(problem.question.removesuffix(" = ?")) == eval(problem.answer)
    plain = {p.question for p in load_problems("arithmetic", "test", 500)}
    assert plain == {p.question for p in problems}
    again = {p.question: p.answer for p in load_problems("arithmetic:sums", "test", 400, seed=9)}
    assert all(again.get(p.question, p.answer) == p.answer for p in problems)


def test_a_world_that_makes_no_sense_is_an_error():
    with pytest.raises(InputError, match="no chain has 5 to 3 numbers"):
        load_problems("arithmetic:5-3", "test", 5)
    with pytest.raises(InputError, match="no problems called 'arithmetic:x'"):
        load_problems("arithmetic:x", "test", 5)


def test_more_chains_than_there_are_is_an_error_and_no_endless_search():
    with pytest.raises(InputError, match="arithmetic:3-4 has 2866 problems to test"):
        load_problems("arithmetic:3-4", "test", 2867)
    chains = {(str(n),): n for n in range(1, 10)}
    for length in (2, 3, 4):
        chains = {
            (*chain, op, str(n)): total + (n if op == "+" else -n)
            for chain, total in chains.items()
            for op in "+-"
            for n in range(1, 10)
            if 0 <= total + (n if op == "+" else -n) <= data.MAX_TOTAL
        }
        tests = sum(data._is_test(" ".join(chain) + " = ?") for chain in chains)
        assert tests == data.TEST_CHAINS[length] and len(chains) - tests > 8 * tests


def test_a_split_that_does_not_exist_is_an_error():
    with pytest.raises(InputError, match="train or test, not 'tset'"):
        load_problems("arithmetic", "tset", 5)


# --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("source", ["no_such_file.jsonl", "gsm9k"])
def test_an_unknown_source_lists_what_there_is(source):
    with pytest.raises(InputError, match="gsm8k"):
        load_problems(source)


def test_an_empty_file_is_an_error(tmp_path):
    (tmp_path / "e.jsonl").write_text("\n", encoding="utf-8")
    with pytest.raises(InputError, match="holds no problem"):
        load_problems(str(tmp_path / "e.jsonl"))


@pytest.fixture
def hub(monkeypatch):
    """A stand-in for the datasets library; hub.rows is what it loads, hub.asked for what."""
    library = SimpleNamespace(rows=[], asked=[])

    def load_dataset(path, config, split):
        library.asked.append((path, config, split))
        if not library.rows:
            raise ConnectionError("no route to the hub\nfor many lines")
        return library.rows

    library.load_dataset = load_dataset
    monkeypatch.setitem(sys.modules, "datasets", library)
    return library


def test_benchmarks_map_their_fields(hub):
    hub.rows = [{"question": "q", "answer": "long\n#### 1,080", "final_answer": ["3", "4"]}]
    assert load_problems("gsm8k", "test") == [Problem("q", "1,080")]
    assert load_problems("olympiadbench", "test") == [Problem("q", "3, 4")]
    assert hub.asked[0] == ("openai/gsm8k", "main", "test") and hub.asked[1][2] == "train"


@pytest.mark.parametrize("name", data.BENCHMARKS)
def test_every_benchmark_names_its_fields_and_splits(hub, name):
    path, config, splits, question, answer = data.BENCHMARKS[name]
    hub.rows = [{question: "How many?", answer: 12, "other": "x"}]
    for split in ("train", "test"):
        assert load_problems(name, split) == [Problem("How many?", "12")]
        assert hub.asked[-1] == (path, config, splits.get(split, split))


SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.mark.parametrize(
    "name, file, count, choices",
    [
        ("gsm8k", "gsm8k_test", 1319, 0),
        ("svamp", "svamp", 1000, 0),
        ("math500", "math500", 500, 0),
        ("olympiadbench", "olympiadbench_en", 675, 0),
        ("math_odyssey", "math_odyssey", 387, 128),
    ],
)
def test_whole_benchmarks_are_read_and_their_own_answers_are_right(hub, name, file, count, choices):
    """Their rows as the hub gives them; their files are not shipped with the project."""
    path = SHARED / f"{file}.jsonl"
    if not path.is_file():
        pytest.skip(f"{path.name} is not here")
    question, answer = data.BENCHMARKS[name][3:]
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    hub.rows = [{question: row["question"], answer: row["answer"]} for row in rows]
    problems = load_problems(name, "test")
    assert len(problems) == count and sum(map(data.is_choice, problems)) == choices
    assert [p.question for p in load_problems(str(path))] == [p.question for p in problems]
    unequal = [p.answer for p in problems if not verify(f"So \\boxed{{{p.answer}}}.", p.answer)]
    assert not unequal


def test_a_benchmark_that_cannot_be_loaded_or_read_is_one_line(hub):
    with pytest.raises(InputError, match="'gsm8k' cannot be loaded: no route to the hub$"):
        load_problems("gsm8k")
    hub.rows = [{"problem": "q", "solution": "s"}]
    with pytest.raises(InputError, match="math500 row 0: 'answer' must be given; the keys there"):
        load_problems("math500")


def test_a_benchmark_of_one_split_holds_out_like_a_file(hub, capsys):
    hub.rows = [{"problem": f"{i}?", "answer": i} for i in range(30)]
    hub.rows[7]["answer"] = "First we add the two numbers, then we see that it is 7."
    train, tests = training_and_held_out("math500", None, 10)
    assert len(tests) == 10 and len(train) == 20 and not set(train) & set(tests)
    said = capsys.readouterr().err
    assert "math500 row 7: the answer reads like" in said and said.count("\n") == 1


def test_graders_read_the_papers_template_and_its_truncation():
    text = reward_model.format_input("q", "r", "a" * 499 + "bc" + "d" * 999 + "e")
    assert text == (
        "<question>q</question>\n<reference_answer>r</reference_answer>\n<completion>"
        + "a" * 499 + "b" + "d" * 999 + "e" + "</completion>"
    )  # fmt: skip
    assert reward_model.shorten("x" * 1500) == "x" * 1500
