"""Runs side by side, each in a process of its own with one thread."""

import contextlib
import io
import multiprocessing
import os
import signal
import threading
from concurrent.futures import ProcessPoolExecutor, as_completed

import torch
from transformers import logging as transformers_logging

from support.progress import progress, say


def quietly(function, *arguments):
    """Call it without the progress bar of its own: this file has one for all runs."""
    with contextlib.redirect_stderr(io.StringIO()):
        return function(*arguments)


def set_up_worker() -> None:
    """One thread, no messages; Ctrl-C is left to the parent and to a run's steps; no orphans."""
    torch.set_num_threads(1)
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    # not SIG_IGN: what is ignored from the start, a run leaves ignored
    signal.signal(signal.SIGINT, lambda *_: None)
    threading.Thread(target=end_with_parent, daemon=True).start()


def end_with_parent() -> None:
    multiprocessing.parent_process().join()
    os._exit(1)  # else an orphan would go on writing into a folder that the next call also uses


def run_all(jobs: list[tuple], workers: int, description: str) -> None:
    """Call jobs (function, arguments...), `workers` at a time, each in a one-thread process."""
    os.environ["OMP_NUM_THREADS"] = "1"
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, initializer=set_up_worker) as pool:
        futures = [pool.submit(*job) for job in jobs]
        try:
            for future in progress(as_completed(futures), description, total=len(futures)):
                future.result()
        except BaseException as error:
            say("waiting for the runs under way to save themselves or finish; Ctrl-C ends them")
            try:
                pool.shutdown(cancel_futures=True)
            except KeyboardInterrupt:
                for child in multiprocessing.active_children():
                    child.kill()
                raise
            if isinstance(error, KeyboardInterrupt):
                raise KeyboardInterrupt("stopped: the same command goes on") from None
            raise
