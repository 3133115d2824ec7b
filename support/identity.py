"""Which reward function is it? A run that goes on with another one would be two runs in one log."""

import functools
import inspect
import re
import site
import sysconfig
import types
import zlib

import numpy as np
import torch

LIBRARIES = (*site.getsitepackages(), site.getusersitepackages(), sysconfig.get_path("stdlib"))


def identity(function) -> str:
    """Name, and checksum of the code and of all that it holds and names.

    That is: defaults, closure, the object of a method, weights, and the functions and values of the
    user's own modules that it refers to. Equal in another process; different for another body,
    another partial argument, a reward model with other weights.
    """
    name = getattr(function, "__qualname__", type(function).__qualname__)
    return f"{name} {zlib.crc32(_describe(function, {}).encode()):08x}"


def _describe(value, seen: dict) -> str:
    if id(value) in seen:
        return f"again {list(seen).index(id(value))}"
    if isinstance(value, types.BuiltinFunctionType | types.ModuleType | type) or _foreign(value):
        return f"{getattr(value, '__module__', '')}.{getattr(value, '__qualname__', value)!s}"
    if not isinstance(value, str | bytes | int | float | None):
        seen[id(value)] = value  # kept alive, or its id might be used again
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()
    if isinstance(value, np.ndarray):
        return f"array {value.shape} {zlib.crc32(np.ascontiguousarray(value)):08x}"
    if isinstance(value, functools.partial):
        parts = [value.func, value.args, value.keywords]
    elif isinstance(value, types.MethodType):
        parts = [value.__func__, value.__self__]
    elif isinstance(value, types.FunctionType):
        held = [cell.cell_contents for cell in value.__closure__ or ()]
        code, known = value.__code__, value.__globals__
        named = [known[name] for name in _names(code) if name in known]
        parts = [code, value.__defaults__, value.__kwdefaults__, held, named]
    elif isinstance(value, types.CodeType):
        parts = [value.co_code, value.co_names, value.co_consts]
    elif hasattr(value, "__wrapped__"):
        parts = [inspect.unwrap(value)]
    elif isinstance(value, dict):
        parts = [item for pair in value.items() for item in pair]
    elif isinstance(value, list | tuple | set | frozenset):
        parts = sorted(value, key=repr) if isinstance(value, set | frozenset) else value
    elif hasattr(value, "__dict__"):
        kinds = [kind for kind in type(value).__mro__ if not _foreign(kind)]
        methods = [m for kind in kinds for m in vars(kind).values() if inspect.isfunction(m)]
        weights = value.state_dict() if isinstance(value, torch.nn.Module) else {}
        state = {k: v for k, v in vars(value).items() if not (weights and k.startswith("_"))}
        parts = [type(value).__qualname__, methods, state, weights]
    else:
        # addresses differ from one process to the next
        return re.sub(r"0x[0-9a-f]+", "", repr(value))
    return type(value).__name__ + "(" + ", ".join(_describe(part, seen) for part in parts) + ")"


def _names(code: types.CodeType) -> list[str]:
    """The global names in a function's code, those of the functions inside it too."""
    inner = [const for const in code.co_consts if isinstance(const, types.CodeType)]
    return [*code.co_names, *(name for const in inner for name in _names(const))]


def _foreign(value) -> bool:
    """Whether it is a function or class of a library: what those do is not the user's change."""
    if not (inspect.isfunction(value) or inspect.isclass(value)):
        return False
    try:
        return inspect.getfile(value).startswith(LIBRARIES)
    except (TypeError, OSError):  # built in
        return inspect.isclass(value) and value.__module__ != "__main__"
