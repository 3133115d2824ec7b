"""Command-line flags from a config dataclass: a field is a flag, its comment the help text.

tyro does it: `--lr 1e-4`, `--clip_eps None`, `--no_scale_by_std`; it refuses unknown flags and
suggests the ones that look alike.
"""

import inspect
import signal
import sys

import tyro
from transformers import logging

from support.errors import InputError


def parse_flags(config_class, argv=None):
    """Flags -> config; argv is that of the process by default. A wrong flag ends the process."""
    module = inspect.getmodule(config_class)
    description = module.__doc__.strip().splitlines()[0]
    if hasattr(module, "HELP"):
        description += f"\n\n{module.HELP}"
    # shown in this order: a class's own fields, then those of the class that it extends, ...
    names = [name for c in config_class.__mro__ for name in c.__dict__.get("__annotations__", ())]
    found = config_class.__dataclass_fields__
    config_class.__dataclass_fields__ = {name: found[name] for name in dict.fromkeys(names)}
    return tyro.cli(config_class, args=argv, description=description, use_underscores=True)


def command_line(config_class, main) -> None:
    """`main(config)` with flags as config; wrong input ends in one line instead of a traceback.

    Exit status: 0, 1 for wrong input, 2 for wrong flags, 130 after Ctrl-C or SIGTERM.
    """
    # transformers: no load reports, no progress bar per file
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    # a completion may hold characters that the terminal does not know: no reason to stop
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    signal.signal(signal.SIGTERM, interrupt)
    try:
        main(parse_flags(config_class))
    except InputError as error:
        raise SystemExit(f"error: {error}") from None
    except BrokenPipeError:  # whoever read the output has left
        raise SystemExit(1) from None
    except OSError as error:
        raise SystemExit(f"error: {error.filename or 'a file'}: {error.strerror}") from None
    except KeyboardInterrupt as stop:
        print(str(stop) or "stopped; what was finished is kept", file=sys.stderr)
        raise SystemExit(130) from None


def interrupt(signum, frame):
    raise KeyboardInterrupt
