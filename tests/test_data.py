"""Problems: the arithmetic is right, the splits are apart, bad lines are named."""

import pytest

import data
import reward_model
from data import InputError, Problem, load_problems


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
        '{"question": "1+1?", "answer": 2, "id": 7}\n\n{"question": "é", "answer": "\\\\frac12"}\n'
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
        ('["a", "b"]', "bad.jsonl:2: expected an object"),
    ],
)
def test_a_bad_line_is_named_with_its_number(tmp_path, line, says):
    file = tmp_path / "bad.jsonl"
    file.write_text('{"question": "ok", "answer": "1"}\n' + line + "\n")
    with pytest.raises(InputError) as error:
        load_problems(str(file))
    assert says in str(error.value) and "\n" not in str(error.value)


def test_not_utf8_is_named(tmp_path):
    file = tmp_path / "latin.jsonl"
    file.write_bytes(b'{"question": "caf\xe9", "answer": "1"}\n')
    with pytest.raises(InputError, match="not UTF-8"):
        load_problems(str(file))


@pytest.mark.parametrize("source", ["no_such_file.jsonl", "gsm9k"])
def test_an_unknown_source_lists_what_there_is(source):
    with pytest.raises(InputError, match="gsm8k"):
        load_problems(source)


def test_an_empty_file_is_an_error(tmp_path):
    (tmp_path / "e.jsonl").write_text("\n")
    with pytest.raises(InputError, match="holds no problem"):
        load_problems(str(tmp_path / "e.jsonl"))


def test_benchmarks_map_their_fields(monkeypatch):
    datasets = pytest.importorskip("datasets")
    asked = []

    def load_dataset(path, config, split):
        asked.append((path, config, split))
        return [
            {"question": "q", "answer": "long solution\n#### 1,080", "final_answer": ["3", "4"]}
        ]

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    assert load_problems("gsm8k", "test") == [Problem("q", "1,080")]
    assert load_problems("olympiadbench", "test") == [Problem("q", "3, 4")]
    assert asked[0] == ("openai/gsm8k", "main", "test") and asked[1][2] == "train"


def test_graders_read_the_papers_template_and_its_truncation():
    text = reward_model.format_input("q", "r", "a" * 499 + "bc" + "d" * 999 + "e")
    assert text == (
        "<question>q</question>\n<reference_answer>r</reference_answer>\n<completion>"
        + "a" * 499 + "b" + "d" * 999 + "e" + "</completion>"
    )  # fmt: skip
    assert reward_model.shorten("x" * 1500) == "x" * 1500
