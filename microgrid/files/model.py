"""A model on disk: its graph as JSON, its numbers as arrays. It loads without the code that made it."""

from __future__ import annotations

import os

from microgrid.errors import FileFormatError, OperandTypeError
from microgrid.files.arrays import naming, read_arrays, write_arrays
from microgrid.files.describe import description_of
from microgrid.files.restore import graph_of
from microgrid.graph import Graph

KIND = "model"


def save(graph: Graph, path: str | os.PathLike[str]) -> None:
    """Write a graph and its numbers to a file that `load` reads, in the format safetensors.

    The file holds every node, the names, the parameters as they are now, the constants, and the examples of
    the inputs; not gradients, and not the values of operations, which are computed anew. Parameters stand in it
    under their names, where any reader of safetensors finds them. An older file is replaced once the new one
    is complete.

    Parameters
    ----------
    graph : Graph
        Rolled or not; an operation of the user's own is written by its name alone.
    path : path
        Any name; ".safetensors" is customary.

    Raises
    ------
    FileFormatError
        If something in the graph cannot be held by a file, such as a setting that is a function, or if the
        graph cannot be made again from what the file would hold.
    OSError
        If the file cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> u, x, h = mg.parameter(0.5, name="u"), mg.input(1.0, name="x"), mg.state(0.0, name="h")
    >>> h.next = mg.tanh(u * h + x)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save(mg.Graph(y=h.next), folder + "/net.safetensors")
    ...     load(folder + "/net.safetensors").cycles
    [Cycle(h → multiply → add → tanh → h)]
    """
    if not isinstance(graph, Graph):
        raise OperandTypeError(f"save takes a Graph, not {type(graph).__name__}: mg.Graph(loss)")
    description, arrays = description_of(graph)
    try:
        graph_of(description, dict(arrays), os.fspath(path), max_work=None)
    except FileFormatError as error:  # found now, not when the file is needed
        raise FileFormatError(
            f"{os.fspath(path)!r} was not written: the graph could not be read back ({error}). If a parameter or an "
            "example was replaced by one of another shape or dtype, record the graph anew"
        ) from error
    write_arrays(path, arrays, KIND, description)


def load(path: str | os.PathLike[str], *, max_work: int | None = None) -> Graph:
    """The graph that `save` wrote: new nodes, with the same names, values and gradients.

    Nothing in the file is executed. Its operations must be known here: microgrid's own are, and those of the
    user once they are declared with `mg.primitive`. They compute the example values, as when the graph was
    recorded, so a file says by its graph how much is computed; that is bounded.

    Parameters
    ----------
    path : path
    max_work : int, optional
        About how many elements the operations may read and make; by default 2²⁸, and 64 for each element in
        the file. Raise it for a file that you trust.

    Raises
    ------
    FileFormatError
        If the file is no model, is damaged, uses an operation that is not known here, or asks for more than
        `max_work`. It names the file, what was found, and what to do.
    OSError
        If the file is not there or cannot be read.

    Examples
    --------
    >>> import tempfile
    >>> W = mg.parameter([[1.0, 2.0]], name="W")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     mg.Graph(norm=mg.sum(W * W)).save(folder + "/norm.safetensors")
    ...     net = mg.load(folder + "/norm.safetensors")
    >>> net.backward()
    >>> net["norm"].value.item(), net["W"].grad.tolist()
    (5.0, [[2.0, 4.0]])
    """
    arrays, description = read_arrays(path, KIND)
    stored = sum(array.size for array in arrays.values())
    with naming(path):
        return graph_of(description, arrays, os.fspath(path), 2**28 + 64 * stored if max_work is None else max_work)
