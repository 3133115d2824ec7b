"""What the notebooks share: the policy that they start from; groups as tables, tokens in colour."""

import html
import os
from pathlib import Path

from transformers.utils import logging

import tiny
from support.progress import say

logging.disable_progress_bar()  # its bars of loading would leave an empty box under every cell


class Html(str):
    """A string of HTML that Jupyter draws."""

    def _repr_html_(self) -> str:
        return str(self)


def start(prior: str = "mixed") -> str:
    """The folder of a tiny policy, taught when it is first asked for, and kept from then on.

    "mixed" can judge and rewrite as well; the other priors of world.py only solve.
    MINICOOPER_FAST=1, as in the tests, teaches it far too little, in seconds.
    """
    fast, helpers = bool(os.environ.get("MINICOOPER_FAST")), prior == "mixed"
    folder = f"runs/notebooks/{prior}{'_fast' if fast else ''}"
    if not Path(folder).exists():
        minutes = "three to five minutes" if helpers else "one to two minutes"
        say(f"teaching the tiny policy {prior}, once: {minutes}")
    steps = 80 if fast else 800 if helpers else 500
    tiny.warm_up(
        tiny.WarmUpConfig(
            prior=prior, output=folder, helpers=helpers and not fast, steps=steps, seed=1
        )
    )
    return folder


def table(header: list[str], rows: list[list]) -> Html:
    """Rows of cells under a header; floats with two digits, text as it is."""

    def cell(value, tag="td"):
        text = f"{value:.2f}" if isinstance(value, float) else str(value)
        text = text if isinstance(value, Html) else html.escape(text)
        return f'<{tag} style="text-align: left">{text}</{tag}>'

    head = "".join(cell(name, "th") for name in header)
    body = "".join("<tr>" + "".join(cell(value) for value in row) + "</tr>" for row in rows)
    return Html(f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>")


def groups(rollouts, **columns) -> Html:
    """The completions of each problem, with columns [B] beside them: groups(r, reward=reward)."""
    size, rows = rollouts.group_size, []
    for i, (text, problem) in enumerate(zip(rollouts.texts, rollouts.problems)):
        question = f"{problem.question} ({problem.answer})" if i % size == 0 else ""
        rows.append([question, text, *(float(column[i]) for column in columns.values())])
    return table(["question (reference)", "completion", *columns], rows)


def shade(value: float, scale: float) -> str:
    """Green above 0, red below, stronger up to `scale`."""
    r, g, b = (30, 140, 60) if value > 0 else (200, 40, 40)
    return f"rgba({r},{g},{b},{min(1.0, abs(value) / scale) * 0.7:.2f})"


def tokens(rollouts, tokenizer, values, rows=None, scale: float | None = None) -> Html:
    """Completions token by token, coloured by `values` [B, T]: green above 0, red below.

    rows: which of them; None shows all. scale: the value of full colour; None is the largest.
    A number shows where the mouse rests.
    """
    shown, lines = range(len(rollouts.texts)) if rows is None else rows, []
    inside = rollouts.mask.bool()
    scale = scale or max(float(values[inside].abs().max()), 1e-9)
    for row in shown:
        ids = rollouts.completion_ids[row][inside[row]].tolist()
        spans = [
            f'<span title="{value:+.3f}" style="background:{shade(value, scale)};padding:1px 3px">'
            f"{html.escape(tokenizer.decode([token]).strip())}</span>"
            for token, value in zip(ids, values[row][inside[row]].tolist())
        ]
        lines.append("<div style='font-family:monospace;margin:2px'>" + " ".join(spans) + "</div>")
    return Html("".join(lines))
