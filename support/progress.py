"""Progress of long work: a bar in a terminal and in Jupyter, a line every so often elsewhere."""

import functools
import sys

from tqdm import tqdm


class _Lines:
    """A file for tqdm that ends a line where tqdm would go back to its beginning."""

    def write(self, text: str) -> None:
        if text.strip():
            print(text.strip(), file=sys.stderr, flush=True)

    def flush(self) -> None:
        pass


def in_notebook() -> bool:
    """Whether this process is a Jupyter kernel; one that only imports its libraries is not."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    return getattr(shell, "kernel", None) is not None


def progress(items, what: str, every: float = 30.0, **options) -> tqdm:
    """The items, with a bar called `what`; redirected, a line every `every` seconds instead."""
    if sys.stderr.isatty() or in_notebook():
        return tqdm(items, desc=what, **options)
    return tqdm(
        items, desc=what, file=_Lines(), mininterval=every, miniters=1, delay=every / 3,
        bar_format="{desc}: {n_fmt} of {total_fmt}, {elapsed}{postfix}", **options,
    )  # fmt: skip


def say(text: str) -> None:
    """One line to whoever watches, past the bar."""
    tqdm.write(text, file=sys.stderr)


@functools.cache
def warn(text: str) -> None:
    """A warning, the same one only once: a run reads its files twice."""
    say(f"warning: {text}")
