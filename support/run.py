"""A run's folder: what it holds, how it is written, how an interrupted run goes on.

    runs/NAME/config.json      the resolved config
             /metrics.jsonl    one line per step, flushed as it is written
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
        (temporary / f"{name}.json").write_text(json.dumps(note, indent=1) + "\n", encoding="utf-8")
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(temporary, folder)


def finished(folder: Path, settings: dict) -> bool:
    """Whether `folder` holds a model made with these settings, by the note save_model left there.

    Raises InputError when it was made with others: nothing of the user's is overwritten.
    """
    note = folder / "settings.json"
    if not note.exists():
        return False
    refuse_other_settings(folder, json.loads(note.read_text(encoding="utf-8")), settings)
    return True


def refuse_other_settings(folder: Path, old: dict, new: dict) -> None:
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
    return [
        json.loads(line)
        for line in path.read_text(encoding="utf-8").splitlines(True)
        if line.endswith("\n")
    ]


# --------------------------------------------------------------------------------------------------
# The folder of one run


@contextlib.contextmanager
def interruptible():
    """Ctrl-C asks for a stop after this step, a second one stops at once. Yields stop() -> bool."""
    asked = threading.Event()

    def ask(signum, frame):
        if asked.is_set():
            raise KeyboardInterrupt
        asked.set()

    # only the main thread may handle signals
    if threading.current_thread() is not threading.main_thread():
        yield asked.is_set
        return
    before = signal.signal(signal.SIGINT, ask)
    try:
        yield asked.is_set
    finally:
        signal.signal(signal.SIGINT, before)


def due(every: int, step: int, steps: int) -> bool:
    """True every `every` steps and at the last one; never if `every` is 0."""
    return every > 0 and (step % every == 0 or step == steps)


class Run:
    """The folder of one run: opened, resumed, logged to and saved to by a training loop.

    run = Run(cfg)                      refuses a folder that holds another run
    run.resume(policy=..., ...)         loads the checkpoint, if there is one
    for step in run.steps():            what is left to do
        ...
        run.log(row)
        run.checkpoint(step)            every `save_every` steps
    """

    def __init__(self, cfg):
        """Raises InputError when the folder holds a checkpoint made with other settings."""
        self.cfg, self.folder = cfg, Path(cfg.output)
        self.history: list[dict] = []
        config = dataclasses.asdict(cfg)
        path = self.folder / "config.json"
        if (self.folder / "checkpoint.pt").exists():
            old = json.loads(path.read_text(encoding="utf-8"))
            if set(old) != set(config):
                raise InputError(
                    f"{self.folder} holds another kind of run: choose another --output"
                )
            refuse_other_settings(self.folder, old | {"steps": cfg.steps}, config)
        self.folder.mkdir(parents=True, exist_ok=True)
        write(path, json.dumps(config, indent=1) + "\n")

    def resume(self, **parts) -> None:
        """Load the checkpoint, if any, into `parts` (modules, optimizers); `checkpoint` saves them.

        Afterwards `history` holds the rows up to there; it is empty for a fresh run.
        """
        self.parts, self.done, logged = parts, 0, -1
        path = self.folder / "checkpoint.pt"
        if path.exists():
            saved = torch.load(path, map_location="cpu", weights_only=True)
            self.done = logged = saved["step"]
            for name, part in parts.items():
                part.load_state_dict(saved[name])
        # forget what was logged after the checkpoint
        for name in ("samples.jsonl", "metrics.jsonl"):
            rows = [row for row in read_jsonl(self.folder / name) if row["step"] <= logged]
            write(self.folder / name, "".join(json.dumps(row) + "\n" for row in rows))
        self.history = rows

    def steps(self):
        """The steps that are left. Ctrl-C ends them after the step that is under way."""
        left = range(self.done + 1, self.cfg.steps + 1)
        with interruptible() as self.stopped:
            for step in tqdm(left, desc=self.folder.name, disable=None):
                yield step
                if self.stopped():
                    return

    def checkpoint(self, step: int) -> None:
        """Save the parts: every cfg.save_every steps, at the last one, and after Ctrl-C."""
        if due(self.cfg.save_every, step, self.cfg.steps) or self.stopped():
            temporary = self.folder / "checkpoint.tmp"
            states = {name: part.state_dict() for name, part in self.parts.items()}
            torch.save({"step": step} | states, temporary)
            os.replace(temporary, self.folder / "checkpoint.pt")

    def log(self, row: dict) -> None:
        """Append one row to metrics.jsonl and to `history`."""
        row = {k: round(v, 6) if isinstance(v, float) else v for k, v in row.items()}
        self.history.append(row)
        self._append("metrics.jsonl", row)

    def log_samples(self, step: int, rollouts, reward, correct, count: int = 4) -> None:
        """Append one completion of each of the first `count` prompts: what it earned, is it right.

        reward, correct: [B], numbers.
        """
        rows = range(0, len(rollouts.texts), rollouts.group_size)[:count]
        for i, r, c in ((i, float(reward[i]), bool(correct[i])) for i in rows):
            problem = rollouts.problems[i]
            row = {"step": step, "question": problem.question, "reference": problem.answer}
            row |= {"completion": rollouts.texts[i], "reward": round(r, 4), "correct": c}
            self._append("samples.jsonl", row)

    def _append(self, name: str, row: dict) -> None:
        with open(self.folder / name, "a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")


def summary(history: list[dict], output: str) -> str:
    """One line on a finished run for whoever started it from a terminal."""
    evaluated = [row for row in history if "eval/accuracy" in row]
    if not evaluated:
        return f"{history[-1]['step']} steps without an evaluation; logs: {output}/metrics.jsonl"
    first, last = evaluated[0], evaluated[-1]
    return (
        f"accuracy on held-out problems: {first['eval/accuracy']:.2f} before, "
        f"{last['eval/accuracy']:.2f} after {last['step']} steps\n"
        f"logs: {output}/metrics.jsonl, samples.jsonl; policy: {output}/policy"
    )
