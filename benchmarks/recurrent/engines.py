"""The engines by name, what each needs, and what each is asked to run."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from .cases import GATES, SIZES, Case, Program

ALL_CELLS = tuple(GATES)
TEXTBOOK = ("RNN", "LSTM", "GRU", "peephole")


@dataclass(frozen=True)
class Engine:
    """One column of the tables.

    Attributes
    ----------
    key : str
        What `--engines` calls it.
    title : str
        What tables call it.
    package : str
        What must be installed for it.
    program : str
        Where its program is made, as "module:function". Only the process that runs it imports it.
    cells : tuple of str
        The cells it has.
    usual_cells : tuple of str
        Those among them that it runs without `--all`.
    usual_sizes : int
        How many of the sizes, smallest first, it runs without `--all`: some take half a minute to compile.
    computes_gradients : bool
        False where there is nothing that could agree with the others.
    """

    key: str
    title: str
    package: str
    program: str
    cells: tuple[str, ...] = ALL_CELLS
    usual_cells: tuple[str, ...] = ALL_CELLS
    usual_sizes: int = len(SIZES)
    computes_gradients: bool = True

    def runs(self, case: Case, everything: bool) -> bool:
        """Whether it is asked to run this case."""
        cheapest = sorted(SIZES, key=lambda size: size.time * size.batch * size.hidden * (size.features + size.hidden))
        usual = case.cell in self.usual_cells and case.size not in cheapest[self.usual_sizes :]
        return case.cell in self.cells and (everything or usual)

    def make(self, case: Case, **options: Any) -> Program:
        """The case written for this engine; imports the engine."""
        module, function = self.program.split(":")
        made: Callable[..., Program] = getattr(importlib.import_module(f".{module}", __package__), function)
        return made(case, **options)


ENGINES = {
    engine.key: engine
    for engine in (
        Engine("fused", "microgrid, fused", "llvmlite", "microgrid_programs:fused"),
        Engine("microgrid", "microgrid, NumPy", "microgrid", "microgrid_programs:compiled"),
        Engine("numpy", "NumPy by hand", "numpy", "by_hand:numpy_by_hand", cells=("RNN", "LSTM")),
        Engine("gemms", "GEMMs alone", "numpy", "by_hand:gemms_alone", cells=TEXTBOOK, computes_gradients=False),
        Engine("torch.nn", "torch.nn", "torch", "torch_programs:torch_nn", cells=("RNN", "LSTM", "GRU")),
        Engine("torch-loop", "torch loop", "torch", "torch_programs:torch_loop"),
        Engine(
            *("torch-compile", "torch.compile", "torch", "torch_programs:torch_compile"),
            usual_cells=("peephole", "layer-norm", "coupled"),
        ),
        Engine("jax", "jax.lax.scan", "jax", "jax_programs:jax_scan"),
        Engine(
            *("pytensor", "PyTensor scan", "pytensor", "pytensor_programs:pytensor_scan"),
            usual_cells=("RNN", "LSTM"),
            usual_sizes=2,
        ),
        Engine("autograd", "autograd loop", "autograd", "autograd_programs:autograd_loop"),
    )
}
UNTUNED_NUMPY = Engine("numpy", "NumPy by hand", "numpy", "by_hand:one_variant", cells=("RNN", "LSTM"))
"""For modes in which the search for the fastest variant would disturb."""


def installed(engine: Engine) -> bool:
    """Whether what it needs can be imported."""
    return importlib.util.find_spec(engine.package) is not None


def versions(engines: Iterable[Engine]) -> dict[str, str]:
    """The version of everything these engines come from."""
    import microgrid

    peers = dict.fromkeys(engine.package for engine in engines if engine.package != "microgrid")
    return {"microgrid": microgrid.__version__, **{peer: importlib.metadata.version(peer) for peer in peers}}
