r"""A real LLM on word problems: cold start, GRPO on the rule, reward model, static and Cooper.

    python -m experiments.real --model HuggingFaceTB/SmolLM2-135M-Instruct --data svamp

A small model reasons at length and never writes a box: the rule pays nothing, and there is nothing
to learn from. It cannot rewrite or judge a solution either. The cold start shows it the form of all
three, in texts made from the training questions alone, without an answer:

    solve      a calculation with two numbers of the question, drawn at random
    rewrite    such a calculation -> another one, as the assistant
    judge      a calculation and a reference -> both results, Yes or No

Which calculation a problem asks for is left to RL. Resumable: a second call does what is missing. A
larger model needs no cold start, but room to reason, and a GPU:

    python -m experiments.real --model Qwen/Qwen2.5-0.5B-Instruct --data gsm8k --start_steps 0 \
        --steps 100 --max_new_tokens 400 --prompts 16 --micro_batch 32 --output runs/qwen
"""

import itertools
import json
import re
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Literal

import cooper
import grpo
import reward_model
import rewards
import sft
from data import Problem, training_and_held_out
from eval import evaluate
from experiments import real_report
from pairs import find_negatives, pair_up, select_positives
from prompts import judge_prompt, rewrite_prompt
from rollout import load_policy, sample, those_that_fit
from support.errors import InputError
from support.files import claim_results, write
from support.flags import command_line
from support.progress import say
from support.run import rng, torch_rng
from support.selfcheck import set_bf16
from support.tables import check_readme

ARMS = ("rule", "static", "cooper")  # and "rollouts": Cooper with rejected completions as wrong


@dataclass(frozen=True)
class RealConfig:
    model: str = "HuggingFaceTB/SmolLM2-135M-Instruct"  # folder or hub name of a causal LM
    data: str = "svamp"  # a benchmark or a .jsonl file
    output: str = "runs/real"
    arms: tuple[str, ...] = ARMS  # or with rollouts besides, see ARMS
    seeds: tuple[int, ...] = (3, 4)  # of each arm, from the same cold start
    start_steps: int = 60  # updates of the cold start, of 16 texts each; 0: without one
    start_lr: float = 3e-5
    steps: int = 60  # of each arm
    lr: float = 5e-6
    labels: Literal["both", "rule", "judge"] = "both"  # the reward model's first, by the start
    rm_problems: int = 400  # whose completions, of group_size 4, the reward model is trained on
    rm_steps: int = 80  # updates of the reward model, of 32 inputs each
    rm_lr: float = 1e-5  # of Cooper
    prompts: int = 8
    group_size: int = 8
    max_new_tokens: int = 40
    eval_problems: int = 200  # held out; the others are trained on
    eval_samples: int = 8
    eval_every: int = 0  # steps between looks at the held-out problems; the ends are measured
    micro_batch: int = 8  # rows a forward pass; a GPU takes more
    bf16: bool | None = None  # saves time where a CPU calculates in bfloat16; None: on a GPU
    keep: str | None = None  # folder of slim logs and figure; None is output/results
    readme: str | None = None  # file whose tables, between marks, are renewed


OPERATIONS = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "/": lambda a, b: a / b if b else Fraction(-1),
}


def calculations(question: str) -> list[tuple[str, str]]:
    """(solution, answer) of every calculation with two numbers of the question that comes to an
    integer from 0 to 1000: what so small a model can calculate.

    >>> calculations("Dan has 7 pens and 3 books. How many more pens?")[1]
    ('7 - 3 = 4. The answer is \\\\boxed{4}.', '4')
    """
    pairs = dict.fromkeys(itertools.permutations(re.findall(r"\d+(?:\.\d+)?", question), 2))
    found = {}
    for (a, b), (sign, operation) in itertools.product(pairs, OPERATIONS.items()):
        result = operation(Fraction(a), Fraction(b))
        if (
            0 <= result <= 1000
            and result.denominator == 1
            and not (sign in "+*" and (b, sign, a) in found)
        ):
            found[a, sign, b] = str(result)
    return [
        (f"{' '.join(how)} = {r}. The answer is \\boxed{{{r}}}.", r) for how, r in found.items()
    ]


def cold_start(problems: list[Problem]) -> list[dict]:
    """Rows of sft.py, made from the questions alone; half of them solve."""
    draw, rows = rng(0, "cold start"), []
    for problem in problems:
        question, found = problem.question, calculations(problem.question)
        if len({answer for _, answer in found}) < 2:
            continue
        (one, result), (other, another) = draw.sample(found, 2)
        if result == another:
            continue
        reference, verdict = draw.choice([(result, "Yes"), (another, "No")])
        judged = judge_prompt(question, reference, one)
        texts = [
            {"solution": one},
            {"solution": other},
            {"prompt": rewrite_prompt(question, one), "solution": other},
            {"prompt": judged, "solution": f"{result} and {reference}. {verdict}."},
        ]
        rows += [{"question": question} | row for row in texts]
    say(f"cold start: {len(rows)} texts on {len(rows) // 4} of the {len(problems)} problems")
    return rows


@contextmanager
def stage(cfg: RealConfig, name: str, makes: str) -> Iterator[Path]:
    """What `makes` is; if it is not there yet, a line of output/stages.jsonl says what it took.

    GB: the most memory that this process has had so far.
    """
    path, began = Path(cfg.output, makes), time.time()
    new = not path.exists()
    yield path
    if new:
        gigabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        took = {"stage": name, "seconds": round(time.time() - began), "GB": round(gigabytes, 1)}
        with open(Path(cfg.output, "stages.jsonl"), "a", encoding="utf-8") as file:
            file.write(json.dumps(took) + "\n")


def measure(cfg: RealConfig, name: str, model: str, held_out, samples=None, length=None) -> None:
    """Accuracy of a folder on the held-out problems, and ten completions: output/NAME.json."""
    samples, length = samples or cfg.eval_samples, length or cfg.max_new_tokens
    with stage(cfg, f"measure {name}", f"{name}.json") as path:
        if path.exists():
            return
        policy, tokenizer = load_policy(model)
        (asked,), rows = those_that_fit(policy, tokenizer, length, held_out), []
        found = evaluate(policy, tokenizer, asked, samples, max_new_tokens=length, keep=rows)
        found["completions"] = rows[:: max(1, len(rows) // 10)][:10]
        write(path, json.dumps(found, indent=1, ensure_ascii=False) + "\n")


def show_pairs(cfg: RealConfig, name: str, start: str, problems: list[Problem]) -> None:
    """Up to three pairs as the first and the last step of the first Cooper run make them:
    output/pairs.json."""
    path, shown = Path(cfg.output, "pairs.json"), []
    if path.exists():
        return
    settings = cooper.CooperConfig(assistant_max_new_tokens=cfg.max_new_tokens)
    names, assistant = ("question", "reference", "right", "wrong"), load_policy(start)
    for step, model in (("first", start), ("last", str(Path(cfg.output, name, "policy")))):
        policy, tokenizer = load_policy(model)
        draw, seeded = rng(0, "pairs to show"), torch_rng(policy.device, 0, "pairs to show")
        asked = draw.sample(problems, 4 * cfg.prompts)
        rollouts = sample(
            policy, tokenizer, asked, cfg.group_size, cfg.max_new_tokens, generator=seeded
        )
        proved = rewards.rule(rollouts)
        positives = select_positives(rollouts, proved, draw, 1)
        negatives = find_negatives(rollouts, proved, positives, draw, assistant, settings, 0)
        pairs = pair_up(rollouts, positives, negatives)
        shown += [{"step": step} | dict(zip(names, pair)) for pair in pairs[:3]]
    write(path, json.dumps(shown, indent=1, ensure_ascii=False) + "\n")


def main(cfg: RealConfig) -> None:
    output = Path(cfg.output)
    claim_results(output, "experiments.real")
    check_readme(cfg.readme)
    if unknown := set(cfg.arms) - {*ARMS, "rollouts"}:
        raise InputError(f"no arm called {unknown.pop()!r}: {', '.join(ARMS)} or rollouts")
    set_bf16(cfg.bf16)
    problems, held_out = training_and_held_out(cfg.data, None, cfg.eval_problems)
    shared = {
        "data": cfg.data, "eval_problems": cfg.eval_problems, "bf16": cfg.bf16,
        "max_new_tokens": cfg.max_new_tokens, "micro_batch": cfg.micro_batch,
    }  # fmt: skip
    run = shared | {"eval_samples": cfg.eval_samples, "save_every": 20, "lr_warmup": 5}
    policy, rm = cfg.model, str(output / "rm")
    if cfg.start_steps:
        # as it is, with room to reason; a look at some is enough to see that it writes no box
        measure(cfg, "before", cfg.model, held_out[:100], samples=1, length=128)
        policy = str(output / "start" / "policy")
        if not (path := output / "solutions.jsonl").exists():
            rows = cold_start(problems)
            write(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
        with stage(cfg, "start", "start/policy"):
            sft.main(
                sft.SFTConfig(
                    model=cfg.model, output=str(output / "start"), solutions=str(path),
                    steps=cfg.start_steps, prompts=8, group_size=2, minibatches=1,
                    lr=cfg.start_lr, eval_every=0, **run,
                )
            )  # fmt: skip
    measure(cfg, "start", policy, held_out)
    if set(cfg.arms) - {"rule"}:
        with stage(cfg, "reward model", "rm"):
            reward_model.main(
                reward_model.RewardModelConfig(
                    model=policy, output=rm, labels=cfg.labels, group_size=4, batch=32,
                    problems=min(cfg.rm_problems, len(problems)), steps=cfg.rm_steps, lr=2e-5,
                    target=None, swap_share=0.25, **shared,
                )
            )  # fmt: skip
    run |= {
        "model": policy, "steps": cfg.steps, "prompts": cfg.prompts, "lr": cfg.lr,
        "group_size": cfg.group_size, "eval_every": cfg.eval_every, "share_prompts": True,
    }  # fmt: skip
    for seed, arm in itertools.product(cfg.seeds, cfg.arms):
        name = f"{arm}{seed}"
        one = run | {"output": str(output / name), "seed": seed}
        with stage(cfg, name, f"{name}/policy"):
            if arm == "rule":
                grpo.main(grpo.GRPOConfig(**one))
            else:
                rm_lr = 0.0 if arm == "static" else cfg.rm_lr
                one["negatives"] = "rollouts" if arm == "rollouts" else "assistant"
                one |= {"rm_model": rm, "rm_lr": rm_lr, "rm_micro_batch": cfg.micro_batch}
                one |= {"assistant_max_new_tokens": cfg.max_new_tokens}
                cooper.main(cooper.CooperConfig(kl_coef=0.0, **one))
        measure(cfg, name, str(output / name / "policy"), held_out)
        if arm == "cooper":
            show_pairs(cfg, name, policy, problems)
    kept = cfg.keep or str(output / "results")
    real_report.keep(cfg.output, kept)
    real_report.main(real_report.ReportConfig(kept, cfg.readme))


if __name__ == "__main__":
    command_line(RealConfig, main)
