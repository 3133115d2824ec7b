"""JSON lines: files of one object a line. Whatever is wrong is said with file and line."""

import codecs
import json
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
