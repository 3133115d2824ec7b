"""What benchmarks/README.md says is what the committed measurements say."""

import sys
from pathlib import Path
from statistics import fmean

from test_results import says

from support.jsonl import read_jsonl
from support.stats import sign_flip
from support.tables import renew

FOLDER = Path(__file__).parents[1] / "benchmarks"
README = (FOLDER / "README.md").read_text(encoding="utf-8")


def blocks() -> list[dict[str, dict[str, float]]]:
    """{side: {column: number}} of each command in trl_step.txt."""
    found = []
    for text in (FOLDER / "trl_step.txt").read_text(encoding="utf-8").split("$ ")[1:]:
        _, _, head, *rows = text.splitlines()
        found.append(
            {r.split()[0]: dict(zip(head.split(), map(float, r.split()[1:]))) for r in rows}
        )
    return found


def test_what_was_printed_is_shown_whole():
    for file in ("trl_step.txt", "cpu.txt"):
        for line in (FOLDER / file).read_text(encoding="utf-8").splitlines():
            assert line.removeprefix("$ ") in README


def test_beside_trl():
    shares = [block["ours"]["cpu"] / block["TRL"]["cpu"] for block in blocks()]
    assert 0.48 < shares[0] < 0.52  # half
    assert says(README, f"{shares[1]:.2f} of it late")
    assert says(README, f"A step of Cooper takes {shares[2]:.2f} and {shares[3]:.2f}")
    for block in blocks()[2:]:  # the same code on both sides is most of it
        assert block["ours"]["score"] > 0.6 * block["ours"]["wall"]
        assert abs(block["ratio"]["score"] - 1) < 0.05


def test_the_curves_of_both_loops_agree_within_seeds():
    sys.path.insert(0, str(FOLDER))
    import trl_curve

    rows = read_jsonl(FOLDER / "trl_curve.jsonl")
    assert renew(README, {"curve": trl_curve.table(rows)}) == README
    sides = [[row["accuracy"] for row in rows if row["side"] == side] for side in ("ours", "TRL")]
    ends = [[curve[-1] for curve in side] for side in sides]
    assert says(README, f"both end between {min(map(min, ends)):.2f} and {max(map(max, ends)):.2f}")
    assert max(map(min, ends)) < min(map(max, ends))
    gaps = [[t[i] - o[i] for o, t in zip(*sides)] for i in range(6)]
    means = [fmean(gap) for gap in gaps]
    assert says(README, f"differ by {max(map(abs, means[:2])):.3f} at most")
    assert all(0.025 <= mean < 0.045 for mean in means[2:]) and says(README, "0.03 to 0.04 higher")
    assert round(min(map(sign_flip, gaps)), 2) == 0.13


def test_how_a_step_grows():
    rows = read_jsonl(FOLDER / "growth.jsonl")
    base = rows[0]

    def times(what, micro_batch=None, **size):
        def row(**other):
            same = base | {"micro_batch": micro_batch} | other
            keys = ("prompts", "group_size", "tokens", "layers", "micro_batch")
            return next(r for r in rows if all(r[k] == same[k] for k in keys))

        return row(**size)[what] / row()[what]

    assert times("sample", prompts=64) < 6 and times("sample", layers=32) < 6
    assert times("sample", tokens=256) > 8 > times("sample", prompts=64)
    assert says(README, f"The update grows {times('update', prompts=64):.1f} times")
    assert says(README, f"it is {times('update', 32, prompts=64):.1f} times, and memory")
    assert says(
        README,
        f"grows {times('MB', 32, prompts=64):.1f} times instead of {times('MB', prompts=64):.1f}",
    )
    assert times("MB", tokens=256) < 8 and times("MB", layers=32) < 8
