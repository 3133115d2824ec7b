"""JSON lines: files of one object a line. Whatever is wrong is said with file and line."""

import codecs
import json
import math
from pathlib import Path

from support.errors import InputError


def read_rows(path: str | Path) -> list[tuple[str, object]]:
    """("file:line", what stands there) for every line that is not empty. Raises InputError."""
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    # NOTE: bytes end a line at \n and \r only; a str would at a U+2028 inside a question, too
    lines = content.removeprefix(codecs.BOM_UTF8).splitlines()
    places = [(f"{path}:{number}", line) for number, line in enumerate(lines, 1) if line.strip()]
    return [(where, parse(line, where)) for where, line in places]


def read_jsonl(path: str | Path) -> list[dict]:
    """The complete lines of a log; a last line cut off by a kill is left out.

    Raises InputError with the line: one before the last is broken.
    """
    if not (path := Path(path)).exists():
        return []
    lines = path.read_bytes().split(b"\n")[:-1]
    rows = [(f"{path}:{number}", line) for number, line in enumerate(lines, 1)]
    return [an_object(parse(line, where), where) for where, line in rows]


def an_object(row, where: str) -> dict:
    if not isinstance(row, dict):
        raise InputError(f"{where}: not a JSON object")
    return row


def parse(line: bytes, where: str):
    if line.lstrip().startswith(b"["):
        raise InputError(f"{where}: expected an object a line, not a JSON array")
    try:
        return json.loads(line.decode("utf-8"))
    except UnicodeDecodeError:
        raise InputError(f"{where}: not UTF-8 text: save the file as UTF-8") from None
    except json.JSONDecodeError as error:
        why = f"{error.msg} at column {error.colno}"
        raise InputError(f"{where}: not JSON ({why}): one whole object a line") from None
    except (RecursionError, ValueError):  # more than Python itself can hold
        raise InputError(f"{where}: nested too deeply, or a number of too many digits") from None


def fields(row, needed: tuple[str, ...], optional: str, where: str) -> list[str | None]:
    """The texts under the `needed` keys and the `optional` one, None without it.

    The first is text, the others may be numbers, too. Raises InputError: a key is missing, or what
    is there is something else.
    """
    if not isinstance(row, dict):
        raise InputError(f"{where}: expected an object with {' and '.join(map(repr, needed))}")
    for key in needed:
        if key not in row:
            keys = ", ".join(map(repr, list(row)[:9])) or "none"
            raise InputError(f"{where}: {key!r} must be given; the keys there are: {keys}")
    texts = [text(row[key], key, where, numbers=key != needed[0]) for key in needed]
    given = row.get(optional)
    return [*texts, None if given is None else text(given, optional, where)]


def text(value, key: str, where: str, numbers: bool = True) -> str:
    if numbers and isinstance(value, int | float) and not isinstance(value, bool):
        if value != value or abs(value) == math.inf:
            raise InputError(f"{where}: {key!r} must be a finite number, not {value}")
        return str(value)
    if not isinstance(value, str) or not value.strip():
        raise InputError(f"{where}: {key!r} must be a non-empty string")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        raise InputError(
            f"{where}: {key!r} must be text, but holds half a character (a lone \\ud8.. or \\udc..)"
        ) from None
    return value
