r"""What the tiny policy is taught: solutions in three strategies, mistakes and all; two helpers.

RL with verifiable rewards mostly brings out what the pretrained prior already holds. So that a
laptop can show it, this file writes such a prior. Problems are chains of sums
(`data.arithmetic_problem`). Solutions come in three strategies, each with its own hit rate:

    guess    I guess \boxed{9}                                        seldom right
    words    7 plus 5 is 12 minus 3 is 9 so \boxed{9}                 often right
    python   python x = 7 x += 5 # 12 x -= 3 # 9 print \boxed{9}      mostly right

and some without the \boxed{}. A mistake is a *slip*, any other number, which a policy that grows
more confident makes less often; or a *habit*, the last operation left out, which it makes more
often where most solutions do. A *typo* names the other operation beside the right result.

The same model learns two other roles of Cooper, each behind its instruction: the *assistant*, which
rewrites a correct solution into a wrong one, and the *judge*, which names both answers before it
says whether they agree. (Asked for Yes or No alone, it learns to compare them on some seeds and on
others says Yes to everything for as long as one cares to train.)
"""

import random
from dataclasses import dataclass

import data
import prompts
from data import PLAIN, Chains
from verifier import equivalent, extract_answer

STRATEGIES = ("guess", "words", "python")


@dataclass(frozen=True)
class Strategy:
    """How common a way of solving is in the warm-up texts, and how often it goes wrong."""

    share: float  # of the solutions
    slip: float  # chance of a wrong result: of the whole sum for guess, of each step otherwise
    habit: float = 0.0  # chance that the last operation is left out
    typo: float = 0.0  # chance that a step names the other operation, though its result is right


@dataclass(frozen=True)
class Prior:
    """What the warm-up texts look like; the three shares sum to 1."""

    guess: Strategy
    words: Strategy
    python: Strategy
    box: float = 0.8  # share of solutions with a \\boxed{}


# Cooper's three arms start from "mixed". The others are for the spurious rewards: accuracy with
# code and without is about that of table 1 of Spurious Rewards (Qwen2.5-Math-7B 61% and 28%,
# OLMo2-7B-SFT 21% and 40%), and so is Qwen's share of code (65%); OLMo's is 98%, which would leave
# nothing to choose.
PRIORS = {
    "mixed": Prior(
        guess=Strategy(share=0.50, slip=0.90),
        words=Strategy(share=0.20, slip=0.15),
        python=Strategy(share=0.30, slip=0.04),
    ),
    # right answers under wrong steps: what a reward for the answer alone cannot see
    "careless": Prior(
        guess=Strategy(share=0.50, slip=0.90),
        words=Strategy(share=0.20, slip=0.15, typo=0.2),
        python=Strategy(share=0.30, slip=0.04, typo=0.2),
    ),
    # code common and accurate
    "qwen_math": Prior(
        guess=Strategy(share=0.15, slip=0.30, habit=0.70),
        words=Strategy(share=0.20, slip=0.05, habit=0.45),
        python=Strategy(share=0.65, slip=0.05, habit=0.15),
    ),
    # the same, confident: the chance of code is out of the upper bound's reach, 0.9 * 1.2 > 1
    "qwen_confident": Prior(
        guess=Strategy(share=0.03, slip=0.30, habit=0.70),
        words=Strategy(share=0.07, slip=0.05, habit=0.45),
        python=Strategy(share=0.90, slip=0.05, habit=0.15),
    ),
    # code rare and inaccurate
    "llama": Prior(
        guess=Strategy(share=0.30, slip=0.30, habit=0.70),
        words=Strategy(share=0.67, slip=0.05, habit=0.35),
        python=Strategy(share=0.03, slip=0.05, habit=0.75),
    ),
    # code common and inaccurate
    "olmo_sft": Prior(
        guess=Strategy(share=0.05, slip=0.30, habit=0.70),
        words=Strategy(share=0.25, slip=0.05, habit=0.35),
        python=Strategy(share=0.70, slip=0.05, habit=0.75),
    ),
}


# --------------------------------------------------------------------------------------------------
# Texts


def write_solution(
    question: str, strategy: str, rng: random.Random, error=0.0, slip=None, box=True, short=False,
    typo=0.0, form=str,
):  # fmt: skip
    r"""One solution text. A miswritten result is carried on: later steps build on it.

    error: chance that a result is off. slip: index of a step that is certainly off; one past the
    last step it is the answer, which then contradicts the steps. short: leave out the last
    operation. typo: chance that a step names the other operation, before the right result. form:
    how the final answer is written, see Chains.form.

    >>> write_solution("7 + 5 - 3 = ?", "words", random.Random(0))
    '7 plus 5 is 12 minus 3 is 9 so \\boxed{9}'
    """
    first, *rest = question.removesuffix(" = ?").split()
    steps, total = [(op, int(n)) for op, n in zip(rest[::2], rest[1::2])], int(first)
    words = {"guess": "I guess", "words": first, "python": f"python x = {first}"}[strategy]
    if short:
        steps = steps[:-1]
    if strategy == "guess":  # the whole sum at once: one place to be wrong
        steps = [("+", sum(n if op == "+" else -n for op, n in steps))]
    for i, (op, n) in enumerate(steps):
        total = total + n if op == "+" else total - n
        if i == slip or rng.random() < error:
            total = rng.choice([t for t in range(data.MAX_TOTAL + 1) if t != total])
        total = min(max(total, 0), data.MAX_TOTAL)
        if typo and rng.random() < typo:
            op = "-" if op == "+" else "+"
        if strategy == "words":
            words += f" {'plus' if op == '+' else 'minus'} {n} is {total}"
        elif strategy == "python":
            words += f" x {op}= {n} # {total}"
    if slip == len(steps):
        total = rng.choice([t for t in range(data.MAX_TOTAL + 1) if t != total])
    words += {"guess": "", "words": " so", "python": " print"}[strategy]
    return f"{words} \\boxed{{{form(total)}}}" if box else f"{words} {form(total)}"


def draw_strategy(rng: random.Random, prior: Prior) -> str:
    return rng.choices(STRATEGIES, [getattr(prior, name).share for name in STRATEGIES])[0]


def sampled_solution(question: str, rng: random.Random, prior: Prior, chains=PLAIN) -> str:
    """A solver who works as the prior says."""
    name = draw_strategy(rng, prior)
    strategy, box = getattr(prior, name), rng.random() < prior.box
    short = strategy.habit > 0 and rng.random() < strategy.habit
    form = chains.form(rng, 0.1)
    return write_solution(
        question, name, rng, strategy.slip, box=box, short=short, typo=strategy.typo, form=form
    )


def draw_question(rng: random.Random, chains: Chains) -> str:
    return data.arithmetic_problem(rng, rng.choice(chains.in_split("test"))).question


def solve_example(rng: random.Random, prior: Prior, chains=PLAIN) -> tuple[str, str]:
    """(prompt, completion) of the solver."""
    question = draw_question(rng, chains)
    return prompts.solve_prompt(question), sampled_solution(question, rng, prior, chains)


def rewrite_example(rng: random.Random, prior: Prior, chains=PLAIN, odd=True) -> tuple[str, str]:
    """(prompt, completion) of the assistant: same strategy, one slip, what follows builds on it.

    odd: three in ten solutions repeat a token, and the rewrite keeps that; one rewrite in ten has
    no box. An assistant taught without them rewrites every text neatly; on the start whose texts
    were read, pairs then taught the reward model who wrote a text, a repeated box or a missing one
    being the sign of right (LOG.md). Taught with them it keeps a repeated box now and then.
    """
    question = draw_question(rng, chains)
    strategy, form = draw_strategy(rng, prior), chains.form(rng, 0.1)
    steps = 1 if strategy == "guess" else (len(question.split()) - 3) // 2
    slip = rng.randrange(steps + 1)
    texts = [write_solution(question, strategy, rng, slip=s, form=form) for s in (None, slip)]
    if odd and rng.random() < 0.3:
        place, times = rng.random(), rng.randint(2, 6)
        texts = [stutter(text, place, times) for text in texts]
    right, wrong = texts
    if odd and rng.random() < 0.1:
        wrong = wrong.replace("\\boxed{", "").replace("}", "")
    return prompts.rewrite_prompt(question, right), wrong


def neat_rewrite_example(rng: random.Random, prior: Prior, chains=PLAIN) -> tuple[str, str]:
    return rewrite_example(rng, prior, chains, odd=False)


def stutter(text: str, place: float, times: int) -> str:
    r"""The token at `place`, of 0 to 1 on the way to the final number, is written so many times.

    >>> stutter(r"I guess \boxed{9}", 0.7, 2)
    'I guess \\boxed{\\boxed{9}'
    """
    tokens = text.replace("{", "{ ").replace("}", " }").split()
    i = int(place * (len(tokens) - 2))
    tokens[i:i] = [tokens[i]] * (times - 1)
    return " ".join(tokens).replace("{ ", "{").replace(" }", "}")


def value(answer: str) -> int:
    """What a number or a sum comes to.

    >>> value("9"), value("4 + 5")
    (9, 9)
    """
    return sum(map(int, answer.split(" + ")))


def with_value(answer: str) -> str:
    """How the judge names an answer: of a sum it says what it comes to.

    >>> with_value("9"), with_value("4 + 5"), with_value("?")
    ('9', '4 + 5 is 9', '?')
    """
    return f"{answer} is {value(answer)}" if "+" in answer else answer


def judge_example(rng: random.Random, prior: Prior, chains=PLAIN) -> tuple[str, str]:
    """(prompt, completion) of the judge: half of the references agree with the solution.

    The completion is "answer 9 Reference 9 : Yes", with ? for an answer that is not in a box; of
    a sum it names the value too (without that five of five warm-ups missed the judge's marks).
    """
    question = draw_question(rng, chains)
    solution = sampled_solution(question, rng, prior, chains)
    answer = extract_answer(solution, require_box=True)
    number = rng.randint(0, data.MAX_TOTAL)
    if answer is not None and rng.random() < 0.5:
        number = value(answer)
    reference = chains.form(rng, 1 / 3)(number)
    agrees = answer is not None and equivalent(answer, reference)
    verdict = "Yes" if agrees else "No"
    said = f"answer {with_value(answer or '?')} Reference {with_value(reference)} : {verdict}"
    return prompts.judge_prompt(question, reference, solution), said
