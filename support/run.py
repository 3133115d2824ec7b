"""A run's folder: what it holds, how it is written, how an interrupted run goes on.

    runs/NAME/config.json      the resolved config
             /metrics.jsonl    one line a step, flushed as it is written
             /samples.jsonl    a few completions with their rewards
             /checkpoint.pt    everything needed to go on: weights, optimizers, step
             /policy/          the trained model, an ordinary Hugging Face folder

Files are written under a temporary name and renamed, so nobody reads half of one. The random
numbers of step t come from generators seeded with (seed, t), never from a stream that runs through
the whole run: a resumed run needs no generator state to end with the same numbers, bit for bit.
"""

import contextlib
import dataclasses
import json
import os
import random
import shutil
import signal
import threading
import zlib
from pathlib import Path

import torch
from tqdm import tqdm

from support.errors import InputError


def rng(seed: int, *names) -> random.Random:
    """A Python generator of its own for each (seed, names), e.g. rng(0, "problems", step)."""
    return random.Random(f"{seed} {names}")


def torch_rng(device, seed: int, *names) -> torch.Generator:
    """The same for torch."""
    return torch.Generator(device).manual_seed(zlib.crc32(f"{seed} {names}".encode()))


# --------------------------------------------------------------------------------------------------
# Files


def write(path: Path, text: str) -> None:
    """Write a text file so that it is either the old one or the whole new one."""
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)


def save_model(folder: Path, *parts, **notes: dict) -> None:
    """save_pretrained of model and tokenizer, and each note as NAME.json; renamed when complete."""
    temporary = folder.with_name(folder.name + ".tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    for part in parts:
        part.save_pretrained(temporary)
    for name, note in notes.items():
        (temporary / f"{name}.json").write_text(json.dumps(note, indent=1) + "\n")
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(temporary, folder)


def finished(folder: Path, settings: dict) -> bool:
    """Whether `folder` holds a model made with these settings, by the note save_model left there.

    Raises InputError when it was made with others: nothing of the user's is overwritten.
    """
    note = folder / "settings.json"
    if not note.exists():
        return False
    compare(folder, json.loads(note.read_text()), settings)
    return True


def compare(folder: Path, old: dict, new: dict) -> None:
    """Raise InputError where a folder's settings are not the ones asked for; it may have moved."""
    for name, value in json.loads(json.dumps(new)).items():
        if name != "output" and old.get(name) != value:
            raise InputError(
                f"{folder} was made with {name}={old.get(name)!r}, now {value!r}: choose another "
                "--output, or delete that folder"
            )


def read_jsonl(path: Path) -> list[dict]:
    """The complete lines of a log; a last line cut off by a kill is left out."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().splitlines(True) if line.endswith("\n")]


@contextlib.contextmanager
def interruptible():
    """Ctrl-C asks for a stop after this step, a second one stops at once. Yields stop() -> bool."""
    asked = threading.Event()

    def ask(signum, frame):
        if asked.is_set():
            raise KeyboardInterrupt
        asked.set()

    if threading.current_thread() is not threading.main_thread():
        yield asked.is_set  # only the main thread may handle signals
        return
    before = signal.signal(signal.SIGINT, ask)
    try:
        yield asked.is_set
    finally:
        signal.signal(signal.SIGINT, before)


def due(every: int, step: int, steps: int) -> bool:
    """Whether what happens every so many steps, and at the end, happens at this one; 0 is never."""
    return every > 0 and (step % every == 0 or step == steps)


class Run:
    """The folder of one run: opens it, logs to it, saves to it, resumes from it."""

    def __init__(self, cfg):
        """Raises InputError when the folder holds a checkpoint made with other settings."""
        self.folder = Path(cfg.output)
        self.history: list[dict] = []
        config = dataclasses.asdict(cfg)
        path = self.folder / "config.json"
        if (self.folder / "checkpoint.pt").exists():
            old = json.loads(path.read_text())
            if set(old) != set(config):
                raise InputError(
                    f"{self.folder} holds another kind of run: choose another --output"
                )
            compare(self.folder, old | {"steps": cfg.steps}, config)
        self.folder.mkdir(parents=True, exist_ok=True)
        write(path, json.dumps(config, indent=1) + "\n")

    @contextlib.contextmanager
    def steps(self, cfg, **parts):
        """The steps that are left, from the checkpoint on; saves `parts` as it goes and at Ctrl-C.

        A fresh run starts with step 0: nothing has been trained yet, evaluate.
        """
        done = self.resume(**parts)
        with interruptible() as stop:
            yield self._steps_after(done, cfg, stop, parts)

    def _steps_after(self, done, cfg, stop, parts):
        if not self.history:
            yield 0
        for step in tqdm(range(done + 1, cfg.steps + 1), desc=self.folder.name, disable=None):
            yield step
            if due(cfg.save_every, step, cfg.steps) or stop():
                self.save(step, **parts)
            if stop():
                return

    def resume(self, **parts) -> int:
        """Load the checkpoint, if any, into `parts` (modules, optimizers) -> its step, or 0."""
        path, step = self.folder / "checkpoint.pt", -1
        if path.exists():
            saved = torch.load(path, map_location="cpu", weights_only=True)
            step = saved["step"]
            for name, part in parts.items():
                part.load_state_dict(saved[name])
        for name in (
            "metrics.jsonl",
            "samples.jsonl",
        ):  # forget what was logged after the checkpoint
            rows = [row for row in read_jsonl(self.folder / name) if row["step"] <= step]
            write(self.folder / name, "".join(json.dumps(row) + "\n" for row in rows))
            if name == "metrics.jsonl":
                self.history = rows
        return max(step, 0)

    def save(self, step: int, **parts) -> None:
        temporary = self.folder / "checkpoint.tmp"
        torch.save(
            {"step": step} | {name: part.state_dict() for name, part in parts.items()}, temporary
        )
        os.replace(temporary, self.folder / "checkpoint.pt")

    def log(self, row: dict) -> None:
        """Append one row to metrics.jsonl and to `history`."""
        row = {k: round(v, 6) if isinstance(v, float) else v for k, v in row.items()}
        self.history.append(row)
        self._append("metrics.jsonl", row)

    def log_samples(self, step: int, rollouts, reward: torch.Tensor, count: int = 4) -> None:
        """Append the first `count` completions with what they earned."""
        for text, problem, r in zip(rollouts.texts[:count], rollouts.problems, reward.tolist()):
            row = {"step": step, "question": problem.question, "reference": problem.answer}
            self._append("samples.jsonl", row | {"completion": text, "reward": round(r, 4)})

    def _append(self, name: str, row: dict) -> None:
        with open(self.folder / name, "a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
