r"""Accuracy over k samples, pass@k and the share of code, with intervals.

    accuracy = mean over problems of (correct samples / samples)           "avg@k" in the papers
    pass@k   = 1 - C(n - c, k) / C(n, k), of n samples c correct           arXiv:2107.03374, eq. 1

Correct means that the last \boxed{} equals the reference by the rule verifier. Defaults are
Cooper's: 8 samples per problem at temperature 0.7, top-p 0.95. `--temperature 0` decodes greedily.

    python eval.py --model runs/demo/policy --data arithmetic
    python eval.py --model DIR --data gsm8k_test.jsonl --limit 100 --max_new_tokens 512
"""

import json
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

import rewards
from data import is_choice, load_problems
from rollout import load_policy, sample, those_that_fit
from support.checks import check_settings
from support.errors import InputError
from support.files import check_apart, write
from support.flags import command_line
from support.progress import progress
from support.run import due, torch_rng
from support.selfcheck import set_bf16
from support.stats import t95
from support.tables import markdown
from verifier import equivalent


def pass_at_k(n: int, c: int, k: int) -> float:
    """Chance that k of the n samples, drawn without replacement, hold one of the c correct ones.

    >>> pass_at_k(n=4, c=1, k=2)  # of the 6 pairs, 3 hold the correct one
    0.5
    """
    if not 0 <= c <= n or not 1 <= k <= n:
        raise ValueError(f"pass_at_k needs 0 <= c <= n and 1 <= k <= n, got n={n}, c={c}, k={k}")
    return 1.0 - math.comb(n - c, k) / math.comb(n, k)


def interval(shares: list[float], samples: int = 8) -> tuple[float, float]:
    """95% interval of the mean p of N per-problem shares, each of `samples` completions: Wilson's
    (1927) for n trials, with Student's t for N problems (see the test by simulation),

        (p + q/2 -+ sqrt(p (1 - p) q + q^2/4)) / (1 + q),  q = t^2 / n

    Samples of one problem are not independent: n = p (1 - p) / var, of the mean's unbiased
    variance, is how many independent ones would spread as much; at most N * samples, and N where
    there is no spread to go by. Of a single problem nothing follows for others.

    >>> [round(x, 3) for x in interval([1.0] * 5 + [0.0] * 5)]  # var 1/36, n = 9, t = 2.26
    [0.199, 0.801]
    """
    count, p = len(shares), sum(shares) / len(shares)
    if count == 1:
        return 0.0, 1.0
    variance = sum((s - p) ** 2 for s in shares) / (count - 1) / count  # of the mean
    n = min(p * (1 - p) / variance, count * samples) if variance > 0 else count
    q = t95(count) ** 2 / n
    half = math.sqrt(p * (1 - p) * q + q**2 / 4)
    return max(0.0, (p + q / 2 - half) / (1 + q)), min(1.0, (p + q / 2 + half) / (1 + q))


def evaluate(
    policy,
    tokenizer,
    problems,
    samples: int = 8,
    temperature: float = 0.7,
    top_p: float = 0.95,
    max_new_tokens: int = 40,
    batch: int = 256,
    seed: int = 0,
    keep: list | None = None,
    quiet: bool = True,
    vote: bool = False,
) -> dict:
    """Sample `samples` completions per problem and score them by the rule.

    batch: completions sampled at a time. keep: a list that receives every row as a dict.
    vote: whether maj@`samples` is wanted, the accuracy of each problem's most common boxed answer.
    Returns accuracy, accuracy_low, accuracy_high (95%), pass@1, pass@2, pass@4, ... to `samples`,
    the shares boxed, code and truncated, length (mean tokens), and the accuracy on each
    Problem.benchmark by its name.
    """
    correct, boxed, code, length, truncated, voted = [], [], [], [], [], []
    generator = torch_rng(policy.device, seed, "evaluate")
    prompts = max(1, batch // samples)
    starts = range(0, len(problems), prompts)
    for start in starts if quiet else progress(starts, "eval", leave=False):
        part = problems[start : start + prompts]
        rollouts = sample(
            policy, tokenizer, part, samples, max_new_tokens, temperature, top_p, generator
        )
        right = rewards.rule(rollouts)
        correct += right.view(len(part), samples).sum(1).int().tolist()
        boxed += rewards.boxed(rollouts).tolist()
        code += rewards.python(rollouts).tolist()
        length += rollouts.mask.sum(1).tolist()
        truncated += rollouts.truncated.tolist()
        if vote:
            groups = [rollouts.texts[i * samples : (i + 1) * samples] for i in range(len(part))]
            voted += [voted_right(group, problem) for group, problem in zip(groups, part)]
        if keep is not None:
            rows = zip(rollouts.problems, rollouts.texts, right.bool().tolist())
            keep += [
                {"question": p.question, "reference": p.answer, "completion": t, "correct": r}
                for p, t, r in rows
            ]
    shares = [c / samples for c in correct]
    accuracy = {
        name: [s for p, s in zip(problems, shares) if p.benchmark == name]
        for name in benchmarks(problems)
    }
    low, high = interval(shares, samples)
    mean = {"boxed": boxed, "code": code, "truncated": truncated, "length": length}
    ks = [2**i for i in range(samples.bit_length())]
    if vote:
        mean |= {f"maj@{samples}": voted}
    return (
        {"accuracy": sum(shares) / len(shares), "accuracy_low": low, "accuracy_high": high}
        | {f"pass@{k}": sum(pass_at_k(samples, c, k) for c in correct) / len(correct) for k in ks}
        | {name: sum(values) / len(values) for name, values in (mean | accuracy).items()}
    )


def voted_right(texts: list[str], problem) -> bool:
    """Whether the most common boxed answer of the texts is right."""
    answer = rewards.majority_vote(texts)
    return answer is not None and equivalent(answer, problem.answer)


# --------------------------------------------------------------------------------------------------
# What training runs log


def evaluation_due(cfg, step: int) -> bool:
    """Every `eval_every` steps and at the last, every other one up to `eval_early`; 0 is never."""
    early = step <= cfg.eval_early and step % 2 == 0
    return cfg.eval_every > 0 and (early or due(cfg.eval_every, step, cfg.steps))


def benchmarks(problems) -> list[str]:
    """The benchmarks that `problems` are of."""
    return sorted({problem.benchmark for problem in problems} - {""})


def eval_metrics(learner, cfg) -> dict:
    """Accuracy on learner.held_out, sampled and greedy, by the rule whatever the reward.

    learner: learner.Learner. cfg: grpo.GRPOConfig; nothing is evaluated if its eval_every is 0.
    """
    if not cfg.eval_every:
        return {}
    model = (learner.policy, learner.tokenizer, learner.held_out)
    size = {"max_new_tokens": cfg.max_new_tokens, "batch": cfg.prompts * cfg.group_size}
    sampled = evaluate(
        *model, cfg.eval_samples, cfg.eval_temperature, cfg.eval_top_p, seed=cfg.seed, **size
    )
    greedy = evaluate(*model, samples=1, temperature=0.0, **size)
    return {
        "eval/accuracy": sampled["accuracy"],
        "eval/greedy": greedy["accuracy"],
        "eval/code": sampled["code"],
        "eval/boxed": sampled["boxed"],
        "training_problems": len(learner.problems),
    } | {
        f"eval/{name}": sampled[name]
        for name in (*benchmarks(learner.held_out), *(key for key in sampled if "pass@" in key))
        if name != "pass@1"  # the accuracy
    }


# --------------------------------------------------------------------------------------------------
# The command


@dataclass(frozen=True)
class EvalConfig:
    model: str = "runs/demo/policy"  # folder or hub name of a causal LM
    system: str | None = None  # system prompt; None leaves it to the model's chat template
    chat: str | None = None  # "plain" for a base model, or JSON: {"enable_thinking": false}
    data: str = "arithmetic"  # "arithmetic", a .jsonl file, a benchmark, or several: "gsm8k,svamp"
    split: Literal["train", "test"] = "test"  # files are taken whole
    limit: int | None = 200  # problems; None takes all. Of a file seed 0 draws those held out
    samples: int = 8  # completions per problem
    temperature: float = 0.7  # 0 decodes greedily (and then one sample is enough)
    top_p: float = 0.95  # 1 samples the full distribution
    max_new_tokens: int = 40  # tokens per completion; real models want 512 or more
    batch: int = 256  # completions sampled at a time
    seed: int = 0  # of problems and sampling
    output: str | None = None  # .jsonl file for every completion; None keeps none


def sources_of(data: str) -> list[str]:
    """The names in "gsm8k,svamp"; what is a file is one source, whatever its name."""
    return [data] if os.path.exists(data) else [name.strip() for name in data.split(",")]


def asked(cfg: EvalConfig) -> dict[str, list]:
    """{benchmark: its problems}; multiple choice is reported apart."""
    found = {}
    for source in sources_of(cfg.data):
        problems = load_problems(source, cfg.split, cfg.limit, cfg.seed)
        choice = [problem for problem in problems if is_choice(problem)]
        rest = [problem for problem in problems if not is_choice(problem)]
        found |= {source: rest} if rest else {}
        found |= {f"{source}, choice": choice} if choice else {}
    return found


def completions(cfg: EvalConfig, model: str) -> tuple[dict[str, dict], list[dict]]:
    """({benchmark: result of evaluate}, every completion as a row) of a model."""
    set_bf16(None)
    policy, tokenizer = load_policy(model, "auto", cfg.system, cfg.chat)
    samples, results, keep = 1 if cfg.temperature == 0 else cfg.samples, {}, []
    names, lists = zip(*asked(cfg).items())
    for name, problems in zip(names, those_that_fit(policy, tokenizer, cfg.max_new_tokens, *lists)):
        rows = []
        with torch.inference_mode():
            found = evaluate(
                policy, tokenizer, problems, samples, cfg.temperature, cfg.top_p,
                cfg.max_new_tokens, cfg.batch, cfg.seed, rows, quiet=False, vote=samples > 1,
            )  # fmt: skip
        keep += [{"benchmark": name} | row for row in rows]
        results[name] = found | {"problems": float(len(problems))}
        print(f"{model} on {name}: {len(problems)} problems x {samples} samples")
        if results[name]["truncated"] > 0.5:
            print(f"most completions ran into max_new_tokens={cfg.max_new_tokens}: allow more")
    return results, keep


def table(results: dict[str, dict]) -> str:
    """Markdown: a row for each benchmark, as a row of Cooper's Table 3 on its side; and their mean,
    multiple choice left out."""
    rows, shown = [], [name for name in next(iter(results.values())) if "@" in name]
    for name, found in results.items():
        interval = "{accuracy_low:.3f}-{accuracy_high:.3f}".format(**found)
        numbers = [f"{found[metric]:.3f}" for metric in (*shown, "boxed", "truncated")]
        rows.append(
            [name, f"{found['problems']:.0f}", f"{found['accuracy']:.3f}", interval, *numbers]
        )
    averaged = [r["accuracy"] for name, r in results.items() if not name.endswith(", choice")]
    mean = sum(averaged) / len(averaged) if averaged else math.nan
    rows.append(["mean", "", f"{mean:.3f}", *[""] * (len(shown) + 3)])
    return markdown(["", "problems", "accuracy", "95%", *shown, "boxed", "truncated"], rows)


def main(cfg: EvalConfig) -> dict[str, dict]:
    check_settings(cfg)
    if cfg.output is not None:
        check_apart(cfg)
        if not cfg.output.endswith(".jsonl") or os.path.lexists(cfg.output):
            raise InputError(f"--output {cfg.output}: name a .jsonl file that is not there already")
    results, keep = completions(cfg, cfg.model)
    if cfg.output:
        Path(cfg.output).parent.mkdir(parents=True, exist_ok=True)
        write(Path(cfg.output), "".join(json.dumps(row) + "\n" for row in keep), new=True)
    if len(results) > 1:
        print(table(results))
    else:
        (found,) = results.values()
        for name, value in found.items():
            print(f"  {name:14} {value:.3f}")
    return results


if __name__ == "__main__":
    command_line(EvalConfig, main)
