"""Files and folders: what is written is whole, and nothing of the user's is overwritten.

A command writes only where nothing is yet, or where it finds its own mark: a run's config.json, a
model's settings.json, a results folder's made_by.json, a figure's metadata. Anything else, and
everything that is or holds or lies in what the command reads, is refused before any work.
"""

import dataclasses
import json
import os
import shutil
import zlib
from pathlib import Path

import torch

from support.errors import InputError
from support.models import one_line
from support.progress import say

# the fields of all configs that name a model or a file to read
INPUTS = ("model", "rm_model", "backbone", "judge", "assistant", "data", "eval_data", "solutions")


def write(path: Path, text: str, new: bool = False) -> None:
    """Write a text file so that it is either the old one or the whole new one.

    new: refuse to replace one. Raises InputError.
    """
    temporary = hidden(path, "tmp")
    try:
        temporary.write_bytes(text.encode("utf-8"))
        if new:
            open(path, "xb").close()  # takes the name, or fails where a file has appeared
        os.replace(temporary, path)
    except FileExistsError:
        raise InputError(f"{path} is there already: name another file, or delete it") from None
    finally:
        temporary.unlink(missing_ok=True)


def hidden(path: Path, ending: str) -> Path:
    """A name beside `path` that nobody else has."""
    return path.with_name(f".{path.name}.{os.getpid()}.{ending}")


def save_model(folder: str | Path, *parts, replace: bool = False, **notes: dict) -> None:
    """save_pretrained of model and tokenizer, and each note as NAME.json; renamed when complete.

    replace: an older model may be there; what else lies beside it stays. Raises InputError:
    weights that are not finite, a disk that is full, something there that is not to be replaced.
    """
    folder = Path(os.path.realpath(folder))
    temporary = hidden(folder, "tmp")
    for part in parts:
        if isinstance(part, torch.nn.Module) and not all_finite(part):
            raise InputError(f"the weights for {folder} are not finite: lower the learning rate")
    try:
        with one_line(f"cannot write {folder}"):
            temporary.mkdir(parents=True)
            for part in parts:
                part.save_pretrained(temporary)
            for name, note in notes.items():
                write(temporary / f"{name}.json", json.dumps(note, indent=1) + "\n")
            if replace and folder.is_dir():
                put_in_place_of(folder, temporary)
            else:
                os.rename(temporary, folder)  # over nothing, or an empty folder
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def all_finite(model: torch.nn.Module) -> bool:
    return all(bool(weight.isfinite().all()) for weight in model.parameters())


def put_in_place_of(folder: Path, made: Path) -> None:
    """Put the folder `made` where `folder` is; what only the old one holds is taken along."""
    aside = hidden(folder, "old")
    os.replace(folder, aside)
    os.replace(made, folder)
    for path in aside.iterdir():
        if not (folder / path.name).exists():
            os.replace(path, folder / path.name)
    shutil.rmtree(aside)


def read_json(path: Path) -> dict:
    """A JSON object. Raises InputError: the file is broken."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        found = None
    if not isinstance(found, dict):
        raise InputError(f"{path} is broken: restore it, or choose another --output")
    return found


def fingerprint(source: str) -> str:
    """Checksum of what a run reads: a file, or the files of a model's folder; else the name itself.

    It tells a run that goes on whether what it reads is still what it began with.
    """
    path = Path(source)
    if path.is_dir():
        kinds = (".safetensors", ".bin", ".json", ".jinja", ".model", ".txt")
        files = sorted(f for f in path.iterdir() if f.suffix in kinds and f.is_file())
    elif path.is_file():
        files = [path]
    else:
        return source
    checksum = 0
    for file in files:
        with open(file, "rb") as opened:
            while block := opened.read(2**24):
                checksum = zlib.crc32(block, checksum)
    return f"{checksum:08x}"


def fingerprints(cfg) -> dict[str, str]:
    """{field: fingerprint} of everything that a config names to be read."""
    named = {field: getattr(cfg, field, None) for field in INPUTS}
    return {field: fingerprint(source) for field, source in named.items() if source is not None}


# --------------------------------------------------------------------------------------------------
# May it be written?


def check_apart(cfg) -> None:
    """Raise InputError where cfg.output is, holds or lies in what cfg reads, or holds the working
    directory."""
    if cfg.output.startswith("~"):
        raise InputError(f"--output {cfg.output} is a folder called ~ here: write the path out")
    output = writable(cfg.output)
    if Path.cwd().is_relative_to(output):
        raise InputError(f"--output {cfg.output} holds the working directory: name a new folder")
    for field in INPUTS:
        source = getattr(cfg, field, None)
        if source is None or not Path(source).exists():
            continue
        read = Path(source).resolve()
        # beside a file is fine, in a model's folder is not
        inside = output.is_relative_to(read)
        if inside or read.is_relative_to(output):
            relation = "is" if output == read else "lies in" if inside else "holds"
            raise InputError(
                f"--output {cfg.output} {relation} --{field} {source}: choose another --output"
            )


def writable(output: str) -> Path:
    """Where a path leads. Raises InputError, before any work, where nothing can be written."""
    try:
        output.encode("utf-8")
        path = Path(output).resolve()
        parent = next(folder for folder in path.parents if folder.exists())
        if path.is_file() or parent.is_dir():
            if os.access(path if path.is_dir() else parent, os.W_OK):
                return path
        why = "no permission" if parent.is_dir() else f"{parent} is a file"
    except (OSError, RuntimeError, ValueError) as error:
        why = getattr(error, "strerror", None) or type(error).__name__
    raise InputError(f"{output!r} cannot be written ({why}): choose another --output")


def refuse_other_settings(folder: Path, old: dict, new: dict) -> None:
    """Raise InputError where a folder's settings are not the ones asked for; it may have moved."""
    for name, value in new.items():
        if name != "output" and old.get(name) != value:
            raise InputError(
                f"{folder} was made with {name}={old.get(name)!r}, now {value!r}: choose another "
                "--output, or delete that folder"
            )


def refuse_other_inputs(folder: Path, old: dict, new: dict) -> None:
    """Raise InputError where what a folder was made from has changed under the same name."""
    for name in old | new:
        if old.get(name) != new.get(name):
            raise InputError(
                f"{folder} was made from another {name} (of that name, or since changed): choose "
                "another --output, or delete that folder"
            )


def is_new(folder: Path, mark: str) -> bool:
    """Whether nothing is in `folder` yet; False where its mark is there. Else raises InputError."""
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file: choose another --output")
    found = {path.name for path in folder.iterdir()} if folder.exists() else set()
    if found - {".lock"} and mark not in found:
        raise InputError(f"{folder} holds something else (no {mark}): choose another --output")
    return mark not in found


def finished(cfg) -> bool:
    """Whether cfg.output holds a model that was made with these settings, by its settings.json.

    Raises InputError: it may not be written there; it was made with other settings, or from
    other models or data of the same names.
    """
    check_apart(cfg)
    folder = Path(cfg.output)
    if is_new(folder, "settings.json"):
        return False
    old = read_json(folder / "settings.json")
    # a setting younger than the folder had its default
    defaults = {field.name: field.default for field in dataclasses.fields(cfg)}
    refuse_other_settings(folder, defaults | old, plain(cfg))
    refuse_other_inputs(folder, old.get("inputs", {}), fingerprints(cfg))
    if not any(folder.glob("*.safetensors")):
        raise InputError(f"{folder} has lost its weights: restore them, or delete that folder")
    say(f"{folder} is there already")
    return True


def plain(cfg) -> dict:
    """The settings as JSON holds them."""
    return json.loads(json.dumps(dataclasses.asdict(cfg), default=lambda value: value.item()))


def settings_note(cfg) -> dict:
    """What `finished` compares with, for save_model: `settings=settings_note(cfg)`."""
    return plain(cfg) | {"inputs": fingerprints(cfg)}


def claim_results(folder: Path, maker: str) -> None:
    """Make, or go on with, a folder of results that `maker` alone writes. Raises InputError."""
    mark = folder / "made_by.json"
    if is_new(folder, mark.name):
        folder.mkdir(parents=True, exist_ok=True)
        write(mark, json.dumps({"made_by": maker}) + "\n")
    elif read_json(mark).get("made_by") != maker:
        raise InputError(f"{folder} was not made by {maker}: choose another folder")
