"""Measuring: every engine in a process of its own, agreement first, then interleaved rounds; peak memory."""

from __future__ import annotations

import contextlib
import math
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from .cases import Array, Arrays, Case
from .engines import Engine

TOLERANCE = 1e-5  # relative to the largest entry of each gradient
TURN_SECONDS = 0.1  # so long each engine is timed when it is its turn,
WARM_SECONDS = 0.1  # and so long it runs before: threads that have slept wake up on one core, and part in time
PAUSE_SECONDS = 0.04  # until the threads of the engine before have stopped spinning
LEFT_TO_OPENBLAS = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")  # the choice of kernels and blocks
Say = Callable[[str], None]


@dataclass
class Measured:
    """What one engine took for one case, in seconds.

    Attributes
    ----------
    first : float
        From the written model to the first gradient, compilation included.
    rounds : list of float
        One step, in each round.
    disagreement : float
        The largest deviation of the loss or of a gradient from the float64 reference, relative to its largest entry.
    """

    first: float
    rounds: list[float] = field(default_factory=list)
    disagreement: float = math.nan

    @property
    def steady(self) -> float:
        """The median step."""
        return statistics.median(self.rounds)

    def as_json(self) -> dict[str, Any]:
        """For the file of numbers."""
        return {**asdict(self), "steady": self.steady}


@contextlib.contextmanager
def environment_of_engines() -> Iterator[None]:
    """The environment that processes started inside get: kernels as OpenBLAS chooses, nothing compiled before."""
    before = dict(os.environ)
    for setting in LEFT_TO_OPENBLAS:
        os.environ.pop(setting, None)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as empty:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(Path(empty, "inductor"))
        os.environ["NUMBA_CACHE_DIR"] = str(Path(empty, "numba"))
        flags = [f"base_compiledir={Path(empty, 'pytensor')}", os.environ.get("PYTENSOR_FLAGS")]
        os.environ["PYTENSOR_FLAGS"] = ",".join(filter(None, flags))
        try:
            yield
        finally:
            os.environ.clear()
            os.environ.update(before)


class Worker:
    """A process in which a function serves one end of a pipe; `answer` waits for what it sends."""

    def __init__(self, serve: Callable[..., None], *arguments: Any) -> None:
        fresh = multiprocessing.get_context("spawn")
        self.connection, other_end = fresh.Pipe()
        self.process = fresh.Process(target=run, args=(serve, other_end, *arguments), daemon=True)
        self.process.start()
        other_end.close()

    def answer(self) -> Any:
        """What the process sends next.

        Raises
        ------
        RuntimeError
            If it failed instead.
        """
        try:
            answer = self.connection.recv()
        except EOFError:
            self.process.join()
            raise RuntimeError(f"its process ended with exit code {self.process.exitcode}") from None
        if isinstance(answer, Exception):
            raise RuntimeError(str(answer))
        return answer

    def ask(self) -> Any:
        """What the process says when it is its turn."""
        self.connection.send(True)
        return self.answer()

    def stop(self) -> None:
        """End the process."""
        with contextlib.suppress(OSError):
            self.connection.send(False)
        self.connection.close()
        self.process.join(timeout=5)
        if self.process.is_alive():
            self.process.kill()


def run(serve: Callable[..., None], parent: Connection, *arguments: Any) -> None:
    """In the new process: serve, and report a failure as an answer."""
    try:
        serve(parent, *arguments)
    except Exception as failure:
        lines = str(failure).strip().splitlines() or [""]
        parent.send(RuntimeError(f"{type(failure).__name__}: {lines[0][:200]}"))


def serve_reference(parent: Connection, case: Case) -> None:
    """Send the float64 reference."""
    from .microgrid_programs import reference

    parent.send(reference(case))


def serve_steps(parent: Connection, engine: Engine, case: Case) -> None:
    """Send the time to the first gradient and all gradients, then the time of a step each time the parent asks."""
    program = engine.make(case)
    begin = time.perf_counter()
    step = program.start()
    result = step()
    first = time.perf_counter() - begin
    parent.send((first, program.gradients(result)))
    del result
    while parent.recv():
        timed(step, WARM_SECONDS)
        parent.send(statistics.median(timed(step, TURN_SECONDS)))


def timed(step: Callable[[], Any], seconds: float) -> list[float]:
    """The time of each step, as often as fits into so many seconds; once in any case."""
    times: list[float] = []
    end = time.perf_counter() + seconds
    while not times or time.perf_counter() < end:
        begin = time.perf_counter()
        step()
        times.append(time.perf_counter() - begin)
    return times


def serve_variants(parent: Connection, case: Case) -> None:
    """Send the gradients of every variant of NumPy by hand: whichever is chosen, it is right."""
    from .by_hand import programs

    for variant, program in programs(case).items():
        parent.send((str(variant), program.gradients(program.start()())))
    parent.send(None)


def disagreement(found: Arrays, reference: Arrays) -> dict[str, float]:
    """Loss or parameter → the largest deviation, relative to the reference's largest entry."""

    def relative(name: str, expected: Array) -> float:
        assert found[name].shape == expected.shape, f"{name} has the shape {found[name].shape}"
        return float(np.max(np.abs(found[name] - expected)) / np.max(np.abs(expected)))

    return {name: relative(name, expected) for name, expected in reference.items()}


def assert_agreement(found: Arrays, reference: Arrays, who: str) -> float:
    """The largest disagreement; AssertionError if it is above the tolerance."""
    deviations = disagreement(found, reference)
    worst = max(deviations, key=lambda name: deviations[name])
    # Written so that NaN does not pass.
    assert deviations[worst] <= TOLERANCE, f"{who}: {worst} deviates from float64 by {deviations[worst]:.1e}"
    return deviations[worst]


def measure(
    case: Case, engines: Sequence[Engine], rounds: int, say: Say, progress: Callable[[], None]
) -> dict[str, Measured]:
    """Engine's key → what it took; engines that fail are left out and said.

    Raises
    ------
    AssertionError
        If the loss or a gradient of an engine is wrong.
    """
    with environment_of_engines():
        reference = single_answer(serve_reference, case)
        if any(engine.key == "numpy" for engine in engines):
            assert_variants(case, reference)
        workers: dict[str, Worker] = {}
        measured: dict[str, Measured] = {}
        try:
            for engine in engines:
                worker = Worker(serve_steps, engine, case)
                try:
                    first, found = worker.answer()
                except RuntimeError as failure:
                    say(f"{engine.title}, {case.cell} {case.size}: not available: {failure}")
                    worker.stop()
                else:
                    workers[engine.key], measured[engine.key] = worker, Measured(first)
                    if engine.computes_gradients:
                        who = f"{engine.title}, {case.cell} {case.size}"
                        measured[engine.key].disagreement = assert_agreement(found, reference, who)
                progress()
            for number, order in enumerate(rotations(list(workers), rounds + 1)):
                for key in order:
                    time.sleep(PAUSE_SECONDS)
                    seconds = workers[key].ask()
                    if number:  # the first round warms up
                        measured[key].rounds.append(seconds)
                progress()
        finally:
            for worker in workers.values():
                worker.stop()
    return measured


def assert_variants(case: Case, reference: Arrays) -> None:
    """AssertionError if a variant of NumPy by hand is wrong."""
    worker = Worker(serve_variants, case)
    while (answer := worker.answer()) is not None:
        variant, found = answer
        assert_agreement(found, reference, f"NumPy by hand, {case.cell} {case.size}, {variant}")
    worker.stop()


def single_answer(serve: Callable[..., None], *arguments: Any) -> Any:
    """What a process of its own answers."""
    worker = Worker(serve, *arguments)
    try:
        return worker.answer()
    finally:
        worker.stop()


def rotations(keys: Sequence[str], rounds: int) -> Iterator[Sequence[str]]:
    """The order in each round: every engine comes first, second, … equally often."""
    for i in range(rounds):
        first = i % len(keys) if keys else 0
        yield [*keys[first:], *keys[:first]]


# --- memory ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Footprint:
    """What compiling and running needs beyond model and inputs; bytes, and seconds of the median step.

    Attributes
    ----------
    resident : int
        Growth of the process, at its peak.
    arrays : int
        NumPy's share, at its peak, as tracemalloc counts it; 0 if not asked for.
    steady : float
        The median of a few steps.
    """

    resident: int
    arrays: int
    steady: float


def footprint(engine: Engine, case: Case, count_arrays: bool = True, **options: Any) -> Footprint:
    """The footprint, each number from a process of its own: counting slows down, and counts itself."""
    with environment_of_engines():
        resident, steady = single_answer(serve_resident, engine, case, options)
        arrays = single_answer(serve_arrays, engine, case, options) if count_arrays else 0
    return Footprint(resident, arrays, steady)


def serve_resident(parent: Connection, engine: Engine, case: Case, options: dict[str, Any]) -> None:
    """Send the growth of the process over the first steps, and the time of a few further ones."""
    program = engine.make(case, **options)
    np.dot(np.ones((512, 512), np.float32), np.ones((512, 512), np.float32))  # BLAS has its own buffers
    before = resident_now_and_restart_peak()
    step = program.start()
    for _ in range(2):
        step()
    grown = resident_peak() - before
    times = []
    for _ in range(5):
        begin = time.perf_counter()
        step()
        times.append(time.perf_counter() - begin)
    parent.send((grown, statistics.median(times)))


def serve_arrays(parent: Connection, engine: Engine, case: Case, options: dict[str, Any]) -> None:
    """Send the peak of what tracemalloc sees over the first steps."""
    program = engine.make(case, **options)
    tracemalloc.start()
    step = program.start()
    for _ in range(2):
        step()
    parent.send(tracemalloc.get_traced_memory()[1])


def resident_now_and_restart_peak() -> int:
    """Bytes resident now; where the system allows it, the peak counts from here on and not from the imports on."""
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return resident_peak()
    return memory_status("VmRSS")


def resident_peak() -> int:
    """The most bytes resident so far."""
    try:
        return memory_status("VmHWM")
    except OSError:
        import resource  # some systems have neither

        unit = 1 if sys.platform == "darwin" else 1024
        return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def memory_status(entry: str) -> int:
    """An entry of the kernel's account of this process, in bytes."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(entry + ":"):
            return 1024 * int(line.split()[1])
    raise OSError(f"no {entry} in /proc/self/status")
