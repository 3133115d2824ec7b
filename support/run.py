"""A run's folder: what it holds, how it is written, how an interrupted run goes on.

    runs/NAME/config.json      the resolved config
             /inputs.json      fingerprints of the model, data and reward function that it reads
             /metrics.jsonl    one row per step, row 0 before training
             /samples.jsonl    four completions with their rewards, at every evaluation after step 0
             /labels.json      votes of the initial policy, where the reward needs them (labels.py)
             /checkpoint.pt    weights, optimizers, step and settings: what is needed to go on
             /policy/, /rm/    the trained model, and Cooper's reward model: Hugging Face folders
             /.lock            held while a run writes here

The random numbers of step t come from generators seeded with (seed, t), never from a stream that
runs through the whole run: a resumed run needs no generator state to end with the same numbers, bit
for bit.
"""

import contextlib
import json
import math
import os
import random
import signal
import threading
import zlib
from pathlib import Path

import torch
from filelock import FileLock, Timeout

from support.errors import InputError
from support.files import (
    check_apart,
    fingerprints,
    is_new,
    plain,
    read_json,
    refuse_other_inputs,
    refuse_other_settings,
    save_model,
    write,
)
from support.identity import identity
from support.jsonl import read_jsonl
from support.models import one_line
from support.progress import progress, say


def rng(seed: int, *names) -> random.Random:
    """A Python generator of its own for each (seed, names), e.g. rng(0, "problems", step)."""
    return random.Random(f"{seed} {names}")


def torch_rng(device, seed: int, *names) -> torch.Generator:
    """The same for torch."""
    return torch.Generator(device).manual_seed(zlib.crc32(f"{seed} {names}".encode()))


# what a run has written before its first step
WRITTEN_FIRST = ("config.json", "inputs.json", "metrics.jsonl", "samples.jsonl")


def due(every: int, step: int, steps: int) -> bool:
    """True every `every` steps and at the last one; never if `every` is 0."""
    return every > 0 and (step % every == 0 or step == steps)


@contextlib.contextmanager
def interruptible():
    """Ctrl-C or SIGTERM asks for a stop after this step, a second one stops at once.

    Yields stop() -> bool. Where SIGINT was ignored from the start (a shell's background job), it
    stays so.
    """
    asked = threading.Event()

    def ask(signum, frame):
        if asked.is_set():
            raise KeyboardInterrupt
        asked.set()

    before = {}
    # only the main thread may handle signals
    if threading.current_thread() is threading.main_thread():
        before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        before = {number: old for number, old in before.items() if old != signal.SIG_IGN}
    try:
        for number in before:
            signal.signal(number, ask)
        yield asked.is_set
    finally:
        for number, old in before.items():
            signal.signal(number, old)


class Run:
    """The folder of one run: opened, resumed, logged to and saved to by a training loop.

    with Run(cfg) as run:               refuses a folder that holds anything but this very run
        ...                             load what the run needs
        run.resume(policy=..., ...)     loads the checkpoint, if there is one
        for step in run.steps():        what is left to do
            ...
            run.log(row)
            run.checkpoint(step)        every `save_every` steps
    """

    def __init__(self, cfg, reward=None, on_row=None):
        """reward: a reward function given beside the config; another one is another run.
        on_row: called with each row of metrics.jsonl as it is written, for a dashboard."""
        self.cfg, self.folder = cfg, Path(cfg.output)
        self.config, self.inputs = plain(cfg), fingerprints(cfg)
        if reward is not None and not callable(reward):
            raise InputError("a reward is a function of rollouts; its name goes into cfg.reward")
        if reward is not None:
            self.inputs["reward function"] = identity(reward)
        self.history: list[dict] = []
        self.on_row = on_row
        self.moved = False

    def __enter__(self) -> "Run":
        """Raises InputError, before anything is written: other settings, other inputs, a folder
        that is not a run's, one that is an input or holds one, one that another run writes to."""
        check_apart(self.cfg)
        is_new(self.folder, "config.json")  # raises before anything is written
        self.folder.mkdir(parents=True, exist_ok=True)
        # let go by the system when the process ends, however it ends
        self.lock = FileLock(self.folder / ".lock")
        try:
            self.lock.acquire(timeout=0)
        except Timeout:
            raise InputError(
                f"another run writes to {self.folder}: wait, or choose another --output"
            ) from None
        self.fresh = is_new(self.folder, "config.json")
        try:
            if not self.fresh:
                self._compare(read_json(self.folder / "config.json"))
                old = read_json(self.folder / "inputs.json")
                refuse_other_inputs(self.folder, old, self.inputs)
        except InputError:
            self.lock.release()
            raise
        if self.fresh:
            write(self.folder / "inputs.json", json.dumps(self.inputs, indent=1) + "\n")
            write(self.folder / "config.json", json.dumps(self.config, indent=1) + "\n")
        return self

    def __exit__(self, *error) -> None:
        # a run that failed before its first step leaves nothing behind, unless it has voted
        failed = error[0] is not None and not issubclass(error[0], KeyboardInterrupt)
        unused = self.fresh and len(self.history) < (2 if failed else 1)
        if unused := unused and not (self.folder / "labels.json").exists():
            for name in WRITTEN_FIRST:
                (self.folder / name).unlink(missing_ok=True)
        self.lock.release()
        if unused:
            (self.folder / ".lock").unlink(missing_ok=True)
            with contextlib.suppress(OSError):
                self.folder.rmdir()

    def _compare(self, old: dict) -> None:
        """Raise InputError where `old` settings are not this run's; `steps` may be extended."""
        if set(old) != set(self.config):
            raise InputError(f"{self.folder} holds another kind of run: choose another --output")
        refuse_other_settings(self.folder, old | {"steps": self.cfg.steps}, self.config)

    def resume(self, **parts) -> None:
        """Load the checkpoint, if any, into `parts` (modules, optimizers); `checkpoint` saves them.

        Afterwards `history` holds the rows up to there; it is empty for a fresh run.
        Raises InputError: checkpoint or log are broken or do not belong together.
        """
        self.parts, self.done = parts, 0
        path, logged = self.folder / "checkpoint.pt", -1
        if path.exists():
            try:
                saved = torch.load(path, map_location="cpu", weights_only=True)
                self.done = logged = saved["step"]
                self._compare(json.loads(saved["config"]))
                refuse_other_inputs(self.folder, json.loads(saved["inputs"]), self.inputs)
                for name, part in parts.items():
                    part.load_state_dict(saved[name])
            except InputError:
                raise
            except Exception as error:  # whatever torch makes of a file that is not whole
                raise InputError(
                    f"{path} cannot be read ({type(error).__name__}): restore it, or delete "
                    f"{self.folder}"
                ) from error
        elif (self.folder / "policy").exists():
            raise InputError(f"{self.folder} is finished, but {path} is gone: restore it")
        if self.done > self.cfg.steps:
            raise InputError(
                f"{self.folder} has {self.done} steps already: give --steps {self.done} or more"
            )
        rows = {}
        for name in ("samples.jsonl", "metrics.jsonl"):
            steps = [(row.get("step"), row) for row in read_jsonl(self.folder / name)]
            rows[name] = [row for step, row in steps if not isinstance(step, int) or step <= logged]
        self.history = rows["metrics.jsonl"]
        if [row.get("step") for row in self.history] != list(range(logged + 1)):
            raise InputError(
                f"{self.folder}/metrics.jsonl does not hold the {logged + 1} rows up to its "
                f"checkpoint: restore it, or delete {self.folder}"
            )
        # steps may have been extended
        write(self.folder / "config.json", json.dumps(self.config, indent=1) + "\n")
        # forget what was logged after the checkpoint
        for name, kept in rows.items():
            write(self.folder / name, "".join(json.dumps(row) + "\n" for row in kept))

    def steps(self):
        """The steps that are left.

        Ctrl-C or SIGTERM ends them after the step that is under way: KeyboardInterrupt.
        """
        left = range(self.done + 1, self.cfg.steps + 1)
        with interruptible() as self.stopped:
            for step in progress(left, self.folder.name):
                yield step
                # what came after the checkpoint was due is heard in the next step
                if self.stopped() and self.done == step:
                    raise KeyboardInterrupt(
                        f"stopped after step {step} of {self.cfg.steps}, which is saved in "
                        f"{self.folder}: the same command goes on"
                    )

    def checkpoint(self, step: int) -> None:
        """Save the parts: every cfg.save_every steps, at the last one, and after Ctrl-C."""
        last = step == self.cfg.steps
        if last or self.stopped() or due(self.cfg.save_every, step, self.cfg.steps):
            temporary = self.folder / "checkpoint.tmp"
            saved = {"step": step, "config": json.dumps(self.config)}
            saved |= {"inputs": json.dumps(self.inputs)}
            saved |= {name: part.state_dict() for name, part in self.parts.items()}
            try:
                with one_line(f"cannot write {self.folder}/checkpoint.pt"):
                    torch.save(saved, temporary)
                    os.replace(temporary, self.folder / "checkpoint.pt")
            finally:
                temporary.unlink(missing_ok=True)
            self.done, self.moved = step, True

    def save_model(self, name: str, *parts) -> None:
        """Save a trained model as folder/NAME, unless this call has trained nothing."""
        if self.moved or not (self.folder / name).exists():
            save_model(self.folder / name, *parts, replace=True)

    def log(self, row: dict) -> None:
        """Append one row to metrics.jsonl and to `history`; what is not finite becomes None."""

        def tidy(value):  # six digits; JSON has no nan
            if not isinstance(value, float):
                return value
            return float(f"{value:.6g}") if math.isfinite(value) else None

        row = {name: tidy(value) for name, value in row.items()}
        self.history.append(row)
        self._append("metrics.jsonl", row)
        if self.on_row is not None:
            self.on_row(dict(row))
        if row["step"] == 1 and row.get("completions/clipped_ratio", 0) > 0.9:
            say(f"nearly all completions ran into max_new_tokens={self.cfg.max_new_tokens}")

    def log_samples(self, step: int, rollouts, reward, correct, count: int = 4) -> None:
        """Append one completion of each of the first `count` prompts: what it earned, is it right.

        reward, correct: [B], numbers.
        """
        for i in range(0, len(rollouts.texts), rollouts.group_size)[:count]:
            problem, r, c = rollouts.problems[i], float(reward[i]), bool(correct[i])
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
