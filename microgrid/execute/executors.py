"""The executors by name: what runs a schedule, and which rewrites it wants before."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from microgrid import rewrite
from microgrid.errors import UnknownNameError, did_you_mean
from microgrid.execute import on_numpy
from microgrid.graph import Graph


@dataclass(frozen=True, slots=True)
class Executor:
    """What runs graphs.

    Attributes
    ----------
    name : str
    rewrites : Rewrites
        What makes graphs cheaper for it.
    program : callable
        Graph → Program.
    """

    name: str
    rewrites: rewrite.Rewrites
    program: Callable[[Graph], on_numpy.Program]


def llvm_program(graph: Graph) -> on_numpy.Program:
    from microgrid.execute.on_llvm import Program

    return Program(graph)


NUMPY = Executor("numpy", rewrite.CALLS, on_numpy.Program)
LLVM = Executor("llvm", rewrite.PASSES, llvm_program)
ALIASES = {"numpy": "numpy", "llvm": "llvm", "numba": "llvm", "auto": "auto"}


def checked_name(name: str) -> str:
    """The name of an executor, "auto" included.

    Raises
    ------
    UnknownNameError
        If there is none of that name.
    MissingExtraError
        If it needs a package that is not installed.
    """
    if name not in ALIASES:
        raise UnknownNameError(f"there is no executor {name!r}. {did_you_mean(str(name), ALIASES)}")
    if ALIASES[name] != "numpy":
        from microgrid.execute.llvm import machine

        machine.require()
    return ALIASES[name]
