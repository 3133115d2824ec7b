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

from support.errors import InputError

# the fields of all configs that name a model or a file to read
INPUTS = ("model", "rm_model", "judge", "assistant", "data", "eval_data")


def write(path: Path, text: str) -> None:
    """Write a text file so that it is either the old one or the whole new one."""
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)


def save_model(folder: str | Path, *parts, **notes: dict) -> None:
    """save_pretrained of model and tokenizer, and each note as NAME.json; renamed when complete.

    What else lies in an older `folder` of that name is taken along.
    """
    folder = Path(folder)
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        for part in parts:
            part.save_pretrained(temporary)
        for name, note in notes.items():
            write(temporary / f"{name}.json", json.dumps(note, indent=1) + "\n")
        if folder.exists():
            aside = folder.with_name(f".{folder.name}.{os.getpid()}.old")
            os.replace(folder, aside)
            os.replace(temporary, folder)
            for path in aside.iterdir():
                if not (folder / path.name).exists():
                    os.replace(path, folder / path.name)
            shutil.rmtree(aside)
        else:
            os.replace(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


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
    output = Path(cfg.output).resolve()
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


def refuse_other_settings(folder: Path, old: dict, new: dict) -> None:
    """Raise InputError where a folder's settings are not the ones asked for; it may have moved."""
    for name, value in json.loads(json.dumps(new)).items():
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
                f"{folder} was made from another {name} of the same name: choose another "
                "--output, or delete that folder"
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
    refuse_other_settings(folder, old, dataclasses.asdict(cfg))
    refuse_other_inputs(folder, old.get("inputs", {}), fingerprints(cfg))
    return True


def settings_note(cfg) -> dict:
    """What `finished` compares with, for save_model: `settings=settings_note(cfg)`."""
    return dataclasses.asdict(cfg) | {"inputs": fingerprints(cfg)}


def claim_results(folder: Path, maker: str) -> None:
    """Make, or go on with, a folder of results that `maker` alone writes. Raises InputError."""
    mark = folder / "made_by.json"
    if is_new(folder, mark.name):
        folder.mkdir(parents=True, exist_ok=True)
        write(mark, json.dumps({"made_by": maker}) + "\n")
    elif read_json(mark).get("made_by") != maker:
        raise InputError(f"{folder} was not made by {maker}: choose another folder")
