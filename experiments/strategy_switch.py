"""Where a change of accuracy comes from: a switch of strategy (arXiv:2506.10947, section 4.3)?

Completions of two policies side by side, code or language before and after: how many pairs of each
kind, how often they are right, and which part of the whole gain they make.

    python -m experiments.strategy_switch --before runs/qwen_math --after runs/random/policy
    python -m experiments.strategy_switch --before a.jsonl --after b.jsonl   (eval.py --output)
"""

import math
from dataclasses import dataclass
from pathlib import Path

import rewards
from eval import EvalConfig, completions
from support.checks import check_settings
from support.errors import InputError
from support.flags import command_line
from support.jsonl import read_rows

SWITCHES = ("code->code", "code->lang", "lang->code", "lang->lang")


def strategy_switch(before: list[dict], after: list[dict]) -> dict[str, dict]:
    """For each subset d of the pairs D: n, accuracy `before` and `after`, and its part of the gain,

        C_d = sum_{x in d} (correct after - correct before) / sum_{x in D} (the same)

    before, after: rows {"question", "completion", "correct"} of two policies on the same problems,
    line by line. A pair of lines belongs to one of SWITCHES, by whether its completion mentions
    python before and after. The four C_d add up to 1; they are nan where there is no gain at all.
    Raises InputError if the problems are not the same.

    NOTE: the paper decodes greedily. Of two samples at a higher temperature the strategies differ
    by chance as well, and C_d holds that too where the gain is small.
    """
    if [row["question"] for row in before] != [row["question"] for row in after]:
        raise InputError("the two files to compare do not hold the same problems line by line")
    pairs = {switch: [] for switch in SWITCHES}
    for old, new in zip(before, after):
        switch = f"{strategy(old['completion'])}->{strategy(new['completion'])}"
        pairs[switch].append((int(old["correct"]), int(new["correct"])))
    gain = sum(new["correct"] - old["correct"] for old, new in zip(before, after))
    return {switch: describe(part, gain) for switch, part in pairs.items()}


def strategy(text: str) -> str:
    return "code" if rewards.mentions_python(text) else "lang"


def describe(pairs: list[tuple[int, int]], gain: int) -> dict:
    """n, accuracies and C_d of one subset.

    pairs: (is it correct before, after). gain: of all subsets.

    >>> describe([(0, 1), (0, 0)], gain=4)
    {'n': 2, 'before': 0.0, 'after': 0.5, 'C_d': 0.25}
    """
    n = len(pairs)
    before, after = sum(old for old, _ in pairs), sum(new for _, new in pairs)
    return {
        "n": n,
        "before": before / n if n else math.nan,
        "after": after / n if n else math.nan,
        "C_d": (after - before) / gain if gain else math.nan,
    }


# --------------------------------------------------------------------------------------------------
# The command


@dataclass(frozen=True)
class SwitchConfig:
    before: str  # folder or hub name of a model, or a .jsonl file of eval.py --output
    after: str  # the same, after training
    data: str = "arithmetic"  # for models: "arithmetic", a .jsonl file, or a named benchmark
    limit: int | None = 200  # problems, drawn with --seed; None takes all
    samples: int = 8  # completions per problem
    temperature: float = 0.7  # 0 decodes greedily, as the paper does
    max_new_tokens: int = 32  # tokens per completion; real models want 512 or more
    seed: int = 0  # of problems and sampling


def main(cfg: SwitchConfig) -> dict[str, dict]:
    """Print the table of strategy_switch for the two models or files."""
    check_settings(cfg)
    before, after = find_completions(cfg, cfg.before), find_completions(cfg, cfg.after)
    switch = strategy_switch(before, after)
    print("subset            n   before    after      C_d")
    for name, row in switch.items():
        print(f"{name:12} {row['n']:6} {row['before']:8.3f} {row['after']:8.3f} {row['C_d']:8.3f}")
    total = [sum(row["correct"] for row in rows) / len(rows) for rows in (before, after)]
    print(f"{'all':12} {len(before):6} {total[0]:8.3f} {total[1]:8.3f}")
    return switch


def find_completions(cfg: SwitchConfig, source: str) -> list[dict]:
    """The rows of a file, or those that a model writes now."""
    if source.endswith(".jsonl"):
        return read_completions(source)
    sampling = EvalConfig(
        data=cfg.data,
        limit=cfg.limit,
        samples=cfg.samples,
        temperature=cfg.temperature,
        max_new_tokens=cfg.max_new_tokens,
        seed=cfg.seed,
    )
    _, rows = completions(sampling, source)
    return rows


ROW = {"question": str, "completion": str, "correct": bool}


def read_completions(path: str) -> list[dict]:
    """The rows that --output wrote. Raises InputError with file and line."""
    if not Path(path).is_file():
        raise InputError(f"no file {path!r}: write it with eval.py --output {path}")
    rows = read_rows(path)
    for where, row in rows:
        if not (isinstance(row, dict) and all(isinstance(row.get(k), t) for k, t in ROW.items())):
            raise InputError(f"{where}: not a row with question, completion and correct")
    if not rows:
        raise InputError(f"{path}: holds no completion")
    return [row for _, row in rows]


if __name__ == "__main__":
    command_line(SwitchConfig, main)
