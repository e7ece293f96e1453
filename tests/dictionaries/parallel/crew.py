"""Processes for tests: they start once, join one process group, and then run functions of `jobs.py` by name.

This file imports nothing of the package, so that its types are checked in those processes too.
"""

import importlib
import multiprocessing
import queue
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

START, ANSWER = 1000.0, 1000.0  # seconds: only a machine that others keep busy comes near


class Crew:
    """`size` processes. `run` has all of them do one thing and brings back what each found, in the order of ranks."""

    def __init__(self, size: int, folder: Path):
        context = multiprocessing.get_context("spawn")
        self.folder, self.jobs, self.answers = folder, [context.Queue() for _ in range(size)], context.Queue()
        self.processes = [
            context.Process(target=serve, args=(rank, size, str(folder), self.jobs[rank], self.answers), daemon=True)
            for rank in range(size)
        ]
        for process in self.processes:
            process.start()
        self._collect(size, START)

    def run(self, job: Callable[..., Any], **given: Any) -> list[dict]:
        from microtome.store.checkpoint import load_state

        self.begin(job, **given)
        self._collect(len(self.processes), ANSWER)
        return [load_state(self.folder / f"{rank}.safetensors") for rank in range(len(self.processes))]

    def begin(self, job: Callable[..., Any], **given: Any) -> None:
        for jobs in self.jobs:
            jobs.put((job.__module__, job.__name__, given))

    def _collect(self, count: int, seconds: float) -> None:
        until = time.monotonic() + seconds
        problems = [self.answers.get(timeout=max(0.1, until - time.monotonic())) for _ in range(count)]
        assert not any(problems), "\n".join(problems)

    def answer(self, seconds: float) -> str | None:
        """What went wrong in the next process that answers, empty if nothing; None where none answers in time."""
        try:
            return self.answers.get(timeout=seconds)
        except queue.Empty:
            return None

    def close(self) -> None:
        for process in self.processes:
            process.kill()
            process.join()


def serve(rank: int, size: int, folder: str, jobs: Any, answers: Any) -> None:
    import torch
    from jaxtyping import install_import_hook

    install_import_hook("microtome", "beartype.beartype")
    warnings.simplefilter("error")
    warnings.simplefilter("ignore", DeprecationWarning)
    warnings.filterwarnings("ignore", message=".*Sparse.*", category=UserWarning)
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=size)
    answers.put("")
    while True:
        module, name, given = jobs.get()
        answers.put(attempt(rank, folder, module, name, given))


def attempt(rank: int, folder: str, module: str, name: str, given: dict[str, Any]) -> str:
    try:
        found = getattr(importlib.import_module(module), name)(**given)
        from microtome.store.checkpoint import save_state

        save_state(found, Path(folder) / f"{rank}.safetensors")
    except BaseException:
        return f"rank {rank}: {traceback.format_exc()}"
    return ""
