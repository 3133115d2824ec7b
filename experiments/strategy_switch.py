r"""Where a change of accuracy comes from: a switch of strategy (arXiv:2506.10947, section 4.3)?

python -m experiments.strategy_switch --before runs/qwen_math --after runs/random/policy
python -m experiments.strategy_switch --before a.jsonl --after b.jsonl   (eval.py --output)
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path

import rewards
from eval import EvalConfig, completions
from support.errors import InputError
from support.flags import command_line

SWITCHES = ("code->code", "code->lang", "lang->code", "lang->lang")


def strategy_switch(before: list[dict], after: list[dict]) -> dict[str, dict]:
    """Where a change of accuracy comes from (Spurious Rewards, arXiv:2506.10947, section 4.3).

    before, after: rows {"question", "completion", "correct"} of two policies on the same problems,
    line by line. Each pair of lines belongs to one subset d of SWITCHES, by whether its completion
    mentions python before and after. Returns for each d: n, accuracy
    `before` and `after`, and its part of the whole gain over the pairs D,

        C_d = sum_{x in d} (correct after - correct before) / sum_{x in D} (the same),

    which add up to 1, and are nan where there is no gain at all. Raises InputError if the problems
    are not the same. The paper decodes greedily. Of two samples at a higher temperature the
    strategies differ by chance as well, and C_d holds that too where the gain is small.
    """
    if [row["question"] for row in before] != [row["question"] for row in after]:
        raise InputError("the two files to compare do not hold the same problems line by line")
    code = [rewards.mentions_python(row["completion"]) for row in before + after]
    kinds = ["code" if c else "lang" for c in code]
    pairs = {d: [] for d in SWITCHES}
    for old, new, b, a in zip(kinds, kinds[len(before) :], before, after):
        pairs[f"{old}->{new}"].append((int(b["correct"]), int(a["correct"])))
    gain = sum(a - b for part in pairs.values() for b, a in part)
    return {
        d: {
            "n": len(part),
            "before": sum(b for b, _ in part) / len(part) if part else math.nan,
            "after": sum(a for _, a in part) / len(part) if part else math.nan,
            "C_d": sum(a - b for b, a in part) / gain if gain else math.nan,
        }
        for d, part in pairs.items()
    }


@dataclass(frozen=True)
class SwitchConfig(EvalConfig):
    before: str | None = None  # folder or hub name of a model, or a .jsonl file of eval.py --output
    after: str | None = None  # the same, after training


def main(cfg: SwitchConfig) -> dict[str, dict]:
    """Print the table of strategy_switch for the two models or files."""
    if not (cfg.before and cfg.after) or cfg.model or cfg.output:
        raise InputError(
            "give two models or files, --before and --after, and neither --model nor --output"
        )
    before, after = (
        read_completions(name) if name.endswith(".jsonl") else completions(cfg, name)[1]
        for name in (cfg.before, cfg.after)
    )
    switch = strategy_switch(before, after)
    print("subset            n   before    after      C_d")
    for name, row in switch.items():
        print(f"{name:12} {row['n']:6} {row['before']:8.3f} {row['after']:8.3f} {row['C_d']:8.3f}")
    total = [sum(row["correct"] for row in rows) / len(rows) for rows in (before, after)]
    print(f"{'all':12} {len(before):6} {total[0]:8.3f} {total[1]:8.3f}")
    return switch


ROW = {"question": str, "completion": str, "correct": bool}


def read_completions(path: str) -> list[dict]:
    """The rows that --output wrote. Raises InputError with file and line."""
    if not Path(path).is_file():
        raise InputError(f"no file {path!r}: write it with eval.py --output {path}")
    rows = []
    for number, line in enumerate(Path(path).read_text().splitlines(), 1):
        try:
            row = json.loads(line)
            if not all(isinstance(row[key], kind) for key, kind in ROW.items()):
                raise TypeError
            rows.append(row)
        except (json.JSONDecodeError, KeyError, TypeError):
            raise InputError(
                f"{path}:{number}: not a row with question, completion and correct"
            ) from None
    if not rows:
        raise InputError(f"{path}: holds no completion")
    return rows


if __name__ == "__main__":
    command_line(SwitchConfig, main)
