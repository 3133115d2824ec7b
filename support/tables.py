"""Markdown tables, and where they stand in a README."""

import re
from pathlib import Path

from support.errors import InputError
from support.files import write


def markdown(header: list[str], rows: list[list]) -> str:
    """
    >>> print(markdown(["a", "b"], [[1, 2]]))
    | a | b |
    | --- | --- |
    | 1 | 2 |
    """
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def renew(text: str, made: dict[str, str]) -> str:
    """Put each text between its marks, <!-- NAME --> and <!-- /NAME -->; other marks stay.

    >>> renew("<!-- a -->old<!-- /a --> <!-- b -->kept<!-- /b -->", {"a": "new"})
    '<!-- a -->\\nnew\\n<!-- /a --> <!-- b -->kept<!-- /b -->'
    """
    for mark, new in made.items():
        pattern = rf"(<!-- {re.escape(mark)} -->).*?(<!-- /{re.escape(mark)} -->)"
        # a function, since backslashes in a replacement string would be read as escapes
        text = re.sub(pattern, lambda m, new=new: f"{m[1]}\n{new}\n{m[2]}", text, flags=re.S)
    return text


def check_readme(path: str | None) -> None:
    """Raise InputError where there is no such text file."""
    try:
        if path is not None:
            Path(path).read_bytes().decode("utf-8")
    except OSError:
        raise InputError(f"no file {path!r}") from None
    except ValueError:
        raise InputError(f"{path}: not UTF-8 text") from None


def renew_file(path: str | None, made: dict[str, str]) -> None:
    """`renew` a file, if one is named; without a mark in it nothing is written."""
    check_readme(path)
    if path is not None:
        # bytes: the file keeps its line ends
        old = Path(path).read_bytes().decode("utf-8")
        if (new := renew(old, made)) != old:
            write(Path(path), new)
