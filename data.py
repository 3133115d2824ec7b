r"""Problems: a question and its reference answer.

Where they come from (`load_problems`):
    "arithmetic"     the embedded world: chains such as "7 + 5 - 3 = ?", made on the spot;
                     variants such as "arithmetic:3-4" and "arithmetic:sums": see Chains
    "path.jsonl"     your own file, one {"question": ..., "answer": ...} a line, UTF-8
    "gsm8k", ...     named benchmarks through the `datasets` library (see BENCHMARKS)
"""

import hashlib
import os
import random
import re
import zlib
from dataclasses import dataclass, replace
from pathlib import Path

from support.errors import InputError
from support.jsonl import fields, read_rows
from support.progress import warn
from verifier import last_boxed


@dataclass(frozen=True)
class Problem:
    question: str
    answer: str  # the reference answer, used as it is
    label: str | None = None  # what a vote took for the answer (labels.py), right or wrong
    benchmark: str = ""  # which column of the results it counts in; "" is in none


# --------------------------------------------------------------------------------------------------
# The embedded world: chain arithmetic, running totals in 0..20, operands 1..9.

MAX_TOTAL = 20
# how many different chains of each length the test split has
TEST_CHAINS = {2: 11, 3: 189, 4: 2677, 5: 37475}


@dataclass(frozen=True)
class Chains:
    """What "arithmetic" and its variants stand for.

    "arithmetic"        questions of 3 to 5 numbers; those of the test split also of 6, on which
                        nothing is trained but the tiny policy's warm-up
    "arithmetic:3-4"    of 3 and 4 numbers, in both splits
    "arithmetic:sums"   a third of the references is written as a sum, "4 + 5" for 9, of which a
                        rule that compares texts knows nothing
    """

    lengths: tuple[int, ...] = (3, 4, 5)  # how many numbers a question holds
    beyond: tuple[int, ...] = (6,)  # in the test split besides
    sums: bool = False

    def in_split(self, split: str) -> tuple[int, ...]:
        return self.lengths + self.beyond if split == "test" else self.lengths

    def form(self, rng: random.Random, chance: float):
        """How a number is written: with `chance` as a sum, in a world that has them."""
        if not self.sums or rng.random() >= chance:
            return str
        share = rng.random()
        return lambda n: f"{(a := 1 + int(share * (n - 1)))} + {n - a}" if n > 1 else str(n)


PLAIN = Chains()


def chains_of(source: str) -> Chains | None:
    """None where `source` is no arithmetic.

    >>> chains_of("arithmetic:3-4"), chains_of("gsm8k")
    (Chains(lengths=(3, 4), beyond=(), sums=False), None)
    """
    match = re.fullmatch(r"arithmetic(?::([2-9])-([2-9]))?(:sums)?", source)
    if not match:
        return None
    if match[1] is None:
        return Chains(sums=bool(match[3]))
    first, last = int(match[1]), int(match[2])
    if first > last:
        raise InputError(f"{source}: no chain has {first} to {last} numbers")
    return Chains(tuple(range(first, last + 1)), (), bool(match[3]))


def arithmetic_problem(rng: random.Random, operands: int) -> Problem:
    """One chain, e.g. "7 + 5 - 3 = ?" -> "9". Every running total stays in 0..MAX_TOTAL."""
    total = rng.randint(1, 9)
    question = [str(total)]
    for _ in range(operands - 1):
        op, n = rng.choice("+-"), rng.randint(1, 9)
        if not 0 <= (total + n if op == "+" else total - n) <= MAX_TOTAL:
            op = "-" if op == "+" else "+"  # n <= 9, so the other sign always fits in 0..20
        total = total + n if op == "+" else total - n
        question += [op, str(n)]
    return Problem(" ".join(question) + " = ?", str(total), benchmark=f"{operands}_numbers")


def _is_test(question: str) -> bool:
    """A tenth of all questions is for testing; a checksum decides, so no split file is needed."""
    return zlib.crc32(question.encode()) % 10 == 0


def arithmetic_problems(
    split: str, limit: int, seed: int = 0, chains: Chains = PLAIN
) -> list[Problem]:
    """`limit` distinct problems of split "train" or "test"; the two never share a question."""
    rng, found = random.Random(f"{split} {seed}"), {}
    while len(found) < limit:
        problem = arithmetic_problem(rng, rng.choice(chains.in_split(split)))
        if _is_test(problem.question) == (split == "test"):
            # the form of its reference belongs to the question
            form = chains.form(random.Random(problem.question), 1 / 3)
            answer = form(int(problem.answer))
            found[problem.question] = replace(problem, answer=answer)
    return list(found.values())


# --------------------------------------------------------------------------------------------------
# Files and named benchmarks.

# name: (hub path, configuration, {our split: theirs}, question field, answer field)
TEST_ONLY, TRAIN_ONLY = {"train": "test"}, {"test": "train"}
BENCHMARKS = {
    "gsm8k": ("openai/gsm8k", "main", {}, "question", "answer"),
    "svamp": ("ChilleD/SVAMP", None, {}, "question_concat", "Answer"),
    "math500": ("HuggingFaceH4/MATH-500", None, TEST_ONLY, "problem", "answer"),
    "olympiadbench": (
        "Hothan/OlympiadBench",
        "OE_TO_maths_en_COMP",
        TRAIN_ONLY,
        "question",
        "final_answer",
    ),  # fmt: skip
    "math_odyssey": ("MathOdyssey/MathOdyssey", None, TEST_ONLY, "problem_statement", "answer"),
    "amc23": ("math-ai/amc23", None, TEST_ONLY, "question", "answer"),
    "aime24": ("HuggingFaceH4/aime_2024", None, TRAIN_ONLY, "problem", "answer"),
    "aime25": ("math-ai/aime25", None, TEST_ONLY, "problem", "answer"),
    "deepmath": ("zwhe99/DeepMath-103K", None, TRAIN_ONLY, "question", "final_answer"),
}


def load_problems(
    source: str, split: str = "train", limit: int | None = None, seed: int = 0
) -> list[Problem]:
    """The problems of `source`; with `limit`, that many, drawn with `seed` and in file order.

    source: "arithmetic" (2000 where limit is None), a .jsonl path, or a key of BENCHMARKS.
    split: "train" or "test"; a file is taken whole whatever the split.
    Raises InputError: nothing of that name, a bad line (with its number), no problem at all.
    """
    if split not in ("train", "test"):
        raise InputError(f"split must be train or test, not {split!r}")
    if chains := chains_of(source):
        # nine in ten of all chains are for training
        most = sum(TEST_CHAINS.get(n, 10**5) for n in chains.in_split(split))
        most *= 1 if split == "test" else 8
        if limit is not None and limit > most:
            raise InputError(f"{source} has {most} problems to {split}: ask for less")
        return arithmetic_problems(split, min(2000, most) if limit is None else limit, seed, chains)
    if source in BENCHMARKS:
        problems = _benchmark(source, split)
    elif os.path.isfile(source):
        problems = read_problems(source)
    else:
        what = "a folder" if os.path.isdir(source) else "no problems"
        names = ", ".join(BENCHMARKS)
        raise InputError(f"{what} called {source!r}: name a .jsonl file, 'arithmetic', or {names}")
    if not problems:
        raise InputError(f"{source}: holds no problem")
    if limit is None:
        return problems
    drawn = {id(problem) for problem in shuffled(problems, seed)[:limit]}
    return [problem for problem in problems if id(problem) in drawn]


def is_choice(problem: Problem) -> bool:
    """Whether the reference names options, as a third of Math Odyssey's do: a guess is often right.

    >>> is_choice(Problem("q", "B")), is_choice(Problem("q", "B, F")), is_choice(Problem("q", "x"))
    (True, True, False)
    """
    return re.fullmatch(r"[A-H](, [A-H])*", problem.answer) is not None


def normalised(question: str) -> str:
    """What two ways to write one question have in common: all but case and white space."""
    return " ".join(question.casefold().split())


def shuffled(problems: list[Problem], seed: int) -> list[Problem]:
    """In an order that a checksum of seed and question decides, wherever a problem stands.

    So the first 50 are part of the first 100, and new lines in a file mix in among the old ones.
    """

    def checksum(problem):
        return hashlib.sha256(f"{seed} {normalised(problem.question)}".encode()).digest()

    return sorted(problems, key=checksum)


def training_and_held_out(
    source: str, eval_source: str | None, held_out: int, limit: int | None = None, seed: int = 0
) -> tuple[list[Problem], list[Problem]]:
    """(problems to train on, `held_out` problems to evaluate on); no question is in both, and none
    twice in the first, which the reward model's training splits once more.

    eval_source: where the second come from; None: the test split of `source`.
    limit, seed: of the first, in a drawn order; None takes all. What is held out of a file depends
    on neither: a policy and its reward model may draw other problems and leave out the same ones.
    Of arithmetic both are drawn by seed, from splits that share no question.
    """
    drawn = seed if chains_of(eval_source or source) else 0
    tests = load_problems(eval_source or source, "test", held_out, drawn)
    asked = {normalised(problem.question) for problem in tests}
    # a file is drawn from after the held-out part has gone; arithmetic makes as many as it is asked
    made = {"limit": limit, "seed": seed} if chains_of(source) else {}
    first = {}
    for problem in load_problems(source, "train", **made):
        if (question := normalised(problem.question)) not in asked:
            first.setdefault(question, problem)
    problems = list(first.values())
    if not problems:
        raise InputError(f"{source}: every problem is held out; lower eval_problems")
    if limit is not None and not chains_of(source):
        problems = shuffled(problems, seed)[:limit]
    return problems, tests


def draw_problems(problems: list, count: int, random, chances=None) -> list:
    """`count` of the problems; each at most once, unless there are fewer than that.

    chances: how likely each is, in proportion; None: all alike.
    """
    if len(problems) < count:
        return random.choices(problems, chances, k=count)
    if chances is None:
        return random.sample(problems, count)
    # an exponential race: the first to come in is each with its chance
    race = [random.expovariate(chance) for chance in chances]
    return [problems[i] for i in sorted(range(len(problems)), key=race.__getitem__)[:count]]


# --------------------------------------------------------------------------------------------------
# From rows to problems


def read_problems(path: str | Path) -> list[Problem]:
    """One {"question": str, "answer": str or number} a line, perhaps with a "label"; empty lines
    are skipped."""
    rows = read_rows(path)
    return look_over([(where, _problem(row, "question", "answer", where)) for where, row in rows])


def _problem(row, question_key: str, answer_key: str, where: str) -> Problem:
    question, answer, label = fields(row, (question_key, answer_key), "label", where)
    return Problem(question, final_answer(answer), label)


def final_answer(reference: str) -> str:
    r"""What a reference that is a whole solution comes to: behind its last ####, as GSM8K is
    published, or in its only box; any other one is the answer as it is.

    >>> final_answer("48 / 2 = 24 clips in May.\n#### 1,024"), final_answer(r"So \boxed{\frac12}.")
    ('1,024', '\\frac12')
    """
    _, mark, answer = reference.rpartition("####")
    if mark:
        return answer.strip() or reference
    return (last_boxed(reference) if reference.count("\\boxed") == 1 else None) or reference


def look_over(rows: list[tuple[str, Problem]]) -> list[Problem]:
    """The problems of (place, problem) rows; a line to stderr for each kind that looks wrong."""
    first, again = {}, []
    for where, problem in rows:
        place, kept = first.setdefault(normalised(problem.question), (where, problem))
        if place != where and problem.answer != kept.answer:
            again.append(f"{where}: the question of {place} again, with another answer")
    if again:
        warn(f"{again[0]}: training takes the first; {len(again)} such row(s)")
    solutions = [where for where, problem in rows if reads_like_a_solution(problem.answer)]
    if solutions:
        warn(
            f"{solutions[0]}: the answer reads like a whole solution ({len(solutions)} of "
            f"{len(rows)} do): leave the final answer alone there, or put it behind ####, "
            "or nothing will equal it"
        )
    return [problem for _, problem in rows]


def reads_like_a_solution(reference: str) -> bool:
    """Over eight words, or several lines with words in them; LaTeX commands are no words."""
    words = re.findall(r"[^\W\d_]{2,}", re.sub(r"\\[a-zA-Z]+", " ", reference))
    return len(words) > 8 or ("\n" in reference.strip() and len(words) > 2)


def _benchmark(name: str, split: str) -> list[Problem]:
    try:
        from datasets import load_dataset
    except ImportError:
        raise InputError(
            f"benchmark {name!r} needs the datasets library: pip install datasets"
        ) from None
    path, config, splits, question_key, answer_key = BENCHMARKS[name]
    try:
        data = load_dataset(path, config, split=splits.get(split, split))
    except (OSError, ValueError) as error:  # no network, no such split
        why = str(error).partition("\n")[0]
        raise InputError(f"benchmark {name!r} cannot be loaded: {why}") from None
    rows = []
    for number, row in enumerate(data):
        where = f"{name} row {number}"
        if isinstance(row.get(answer_key), list):  # OlympiadBench's final answer is a list of one
            row = row | {answer_key: ", ".join(map(str, row[answer_key]))}
        rows.append((where, _problem(row, question_key, answer_key, where)))
    return look_over(rows)
