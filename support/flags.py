"""Command-line flags from a config dataclass: the comment beside a field is its help."""

import inspect
import re
import typing

from transformers import HfArgumentParser, logging

from support.errors import InputError


def field_notes(config_class) -> dict[str, str]:
    """{field name: the comment on its line}, of the class and the config classes it extends."""
    notes = {}
    for cls in reversed(config_class.__mro__[:-1]):
        for line in inspect.getsource(cls).splitlines():
            if found := re.match(r"    (\w+): .*?  # (.*)", line):
                notes[found[1]] = found[2]
    return notes


def parse_flags(config_class, argv=None):
    """Flags -> config. `none` is None for an optional field; an unknown flag is an error."""
    description = inspect.getmodule(config_class).__doc__.strip().splitlines()[0]
    parser = HfArgumentParser(config_class, description=description, allow_abbrev=False)
    notes = field_notes(config_class)
    hints = typing.get_type_hints(config_class)  # of inherited fields as well
    optional = {name for name, hint in hints.items() if type(None) in typing.get_args(hint)}
    for action in parser._actions:
        if action.dest in notes:
            action.help = notes[action.dest].replace("%", "%%")
        if action.dest in optional and action.type is not None:
            action.type = _or_none(action.type)
    return config_class(**vars(parser.parse_args(argv)))


def _or_none(convert):
    def read(text):
        return None if text.lower() == "none" else convert(text)

    read.__name__ = f"{convert.__name__} or none"  # argparse names it in its error message
    return read


def command_line(config_class, main) -> None:
    """`main(config)` with flags as config; wrong input ends in one line instead of a traceback."""
    logging.set_verbosity_error()  # of transformers: no load reports, no progress bar a file
    logging.disable_progress_bar()
    try:
        main(parse_flags(config_class))
    except InputError as error:
        raise SystemExit(f"error: {error}") from None
