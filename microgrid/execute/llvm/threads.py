"""Who computes with how many threads: each takes whole sequences of the batch through all timesteps.

Machine code runs in this thread and in a few others that wait for it; it never calls BLAS, so no pool of
BLAS threads is awake beside them.
"""

from __future__ import annotations

import itertools
import os
import queue
import threading
from collections.abc import Callable, Sequence
from typing import Any

from microgrid.errors import OperandError

LEAST_SECONDS = 150e-6
"""From how much work on a second thread is worth waking up."""

_chosen: int | None = None


def set_num_threads(count: int) -> None:
    """Choose how many threads networks compiled with executor="llvm" use; 1 for none besides the caller's.

    NumPy's own threads, those of BLAS, are another matter.

    Raises
    ------
    OperandError
        If it is no whole number of at least 1.

    >>> before = mg.get_num_threads()
    >>> mg.set_num_threads(2)
    >>> mg.get_num_threads()
    2
    >>> mg.set_num_threads(before)
    """
    global _chosen
    if not isinstance(count, int) or isinstance(count, bool) or count < 1:
        raise OperandError(f"the number of threads is a whole number of at least 1, not {count!r}")
    _chosen = count


def get_num_threads() -> int:
    """How many threads networks compiled with executor="llvm" use.

    As `set_num_threads` says; else the environment's MICROGRID_NUM_THREADS or OMP_NUM_THREADS; else as many as this
    process has processors.

    >>> mg.get_num_threads() >= 1
    True
    """
    if _chosen is not None:
        return _chosen
    for name in ("MICROGRID_NUM_THREADS", "OMP_NUM_THREADS"):
        text = os.environ.get(name, "")
        if text.isdigit() and int(text):
            return int(text)
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def shares(total: int, threads: int, unit: int = 1) -> list[tuple[int, int]]:
    """`total` things in as many equal ranges, whose borders are multiples of `unit`.

    >>> shares(16, 2), shares(5, 2), shares(100, 2, unit=16)
    ([(0, 8), (8, 16)], [(0, 3), (3, 5)], [(0, 64), (64, 100)])
    """
    units = -(-total // unit)
    borders = [min(total, unit * -(-units * i // threads)) for i in range(threads + 1)]
    return [(a, b) for a, b in itertools.pairwise(borders) if a < b]


class Worker:
    """A thread that waits for work."""

    def __init__(self) -> None:
        self.work: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self.done: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()
        threading.Thread(target=self.serve, name="microgrid", daemon=True).start()

    def serve(self) -> None:
        while True:
            work = self.work.get()
            try:
                work()
            except BaseException as error:
                self.done.put(error)
            else:
                self.done.put(None)
            del work


_idle: list[Worker] = []


def forget() -> None:
    """After a fork: the threads stayed behind."""
    _idle.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=forget)


def run(tasks: Sequence[Callable[[], Any]]) -> None:
    """Do all tasks, the first in this thread and each of the others in one of its own, and wait for them."""
    if not tasks:
        return
    if len(tasks) == 1:
        tasks[0]()
        return
    workers: list[Worker] = []
    for task in tasks[1:]:
        try:
            worker = _idle.pop()
        except IndexError:
            worker = Worker()
        workers.append(worker)
        worker.work.put(task)
    try:
        tasks[0]()
    finally:
        errors = [worker.done.get() for worker in workers]
        _idle.extend(workers)
    for error in errors:
        if error is not None:
            raise error
