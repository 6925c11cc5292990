"""Picture: what draw and before_after return; save it, show it, or read its DOT source."""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from microgrid.errors import GradientError, MicrogridError, OperandError, OperandTypeError
from microgrid.files.whole import write_whole
from microgrid.graph import Graph
from microgrid.nn import Module
from microgrid.ops.time import is_time_reduction
from microgrid.tensor import Tensor
from microgrid.unroll import Unrolled
from viz import theme as themes
from viz.arrange import Show, acyclic_scene, before_after_scene, rolled_scene, unrolled_scene
from viz.dot import to_dot
from viz.render import render
from viz.scene import Scene
from viz.svg import centred

FORMATS = {".svg": "svg", ".png": "png", ".pdf": "pdf", ".dot": "dot", ".gv": "dot"}


class PictureFormatError(MicrogridError, ValueError):
    """A picture was to be saved under a suffix that names no format."""


class Picture:
    """A drawn graph.

    Attributes
    ----------
    source : str
        The DOT source, every position given: `neato -n2` or the engine nop2 renders it as it is.
    scene : Scene
        The same as data.
    """

    def __init__(self, scene: Scene, look: themes.Theme = themes.LIGHT) -> None:
        self.scene = scene
        self._look = look

    @functools.cached_property
    def source(self) -> str:
        return to_dot(self.scene, self._look)

    def render(self, format: str) -> bytes:
        """The picture as "svg", "png", "pdf" or "dot"."""
        if format == "dot":
            return self.source.encode()
        data = render(self.source, format)
        return centred(data) if format == "svg" else data

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the picture; the suffix decides the format: .svg, .png, .pdf, .dot.

        An existing file is replaced only once the new one is complete.

        Raises
        ------
        PictureFormatError
            If the suffix is none of these.
        OSError
            If the folder does not exist or cannot be written.
        """
        target, format = file_and_format(path)
        write_whole(target, self.render(format))
        return target

    def _repr_svg_(self) -> str:
        return self.render("svg").decode()

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        return {"image/svg+xml": self._repr_svg_(), "text/plain": repr(self)}

    def __repr__(self) -> str:
        return f"Picture({len(self.scene.boxes)} nodes, {len(self.scene.wires)} edges)"


def file_and_format(path: str | os.PathLike[str]) -> tuple[Path, str]:
    """Where a picture may be written, and in which format; errors as `Picture.save` says."""
    target = Path(path)
    if target.is_dir():
        raise PictureFormatError(f"{str(target)!r} is a folder: give the name of a file in it, such as picture.svg")
    format = FORMATS.get(target.suffix.lower())
    if format is None:
        raise PictureFormatError(
            f"{target.name!r} has the suffix {target.suffix!r}: a picture is saved as {', '.join(FORMATS)}"
        )
    if not target.parent.is_dir():
        raise FileNotFoundError(f"the folder {str(target.parent)!r} does not exist: make it first")
    return target, format


def draw(
    what: Graph | Unrolled | Tensor,
    *,
    level: str | None = None,
    depth: int | None = None,
    fold: int | None = None,
    weights: str = "shared",
    values: bool = False,
    gradients: bool = False,
    flow: bool = False,
    theme: str = "light",
) -> Picture:
    """Draw a graph: rolled, unrolled, or ordinary.

    Parameters
    ----------
    what : Graph, Unrolled or Tensor
        A recurrent graph is drawn as one timestep, with a dashed edge "t−1" for each delay, "t+1" for
        that of a reverse state; an unrolled one as a row of timesteps; a Tensor as everything it
        depends on.
    level : "op" or "cell"
        Every operation, the default unless there are more than a few hundred; or one box for each part of
        the network: a layer of `mg.nn`, what was recorded in one `mg.scope`, and elsewhere a cycle. A
        recurrent box has an edge to itself.
    depth : int, optional
        With level="cell": how deep to look into parts of parts. 1 draws the outermost as one box each;
        by default the innermost are boxes.
    fold : int, optional
        Show so many timesteps from the start and as many from the end; 0 shows all. By default all where they are
        not more than a few hundred nodes.
    weights : "shared" or "repeated"
        Parameters stand once, with an edge into every timestep; or in every timestep, with a dotted tie between
        the copies, which are one and the same.
    values, gradients : bool
        Write the value and gradient on each node: a number for scalars; for arrays the Euclidean norm
        ‖·‖, and a strip of colours on one scale for all timesteps.
    flow : bool
        Colour each edge by the size of the gradient that flows through it, on a logarithmic scale; after `backward`.
    theme : "light", "dark" or "print"

    Returns
    -------
    Picture
        `.save("net.svg")` writes it; notebooks show it.

    Raises
    ------
    GradientError
        If `gradients` or `flow` is asked for before `backward`, or of a rolled graph.

    Examples
    --------
    >>> import viz
    >>> a, b = mg.tensor(2.0, name="a"), mg.tensor(-3.0, name="b")
    >>> viz.draw(mg.tanh(a * b + 1))
    Picture(5 nodes, 4 edges)
    >>> lstm = mg.nn.LSTM(3, 8)
    >>> viz.draw(mg.Graph(lstm(mg.input([[0.0, 0.0, 0.0]], name="x"))), level="cell")
    Picture(2 nodes, 2 edges)
    """
    show = checked(Show(values, gradients, flow, level, depth, fold, weights))
    look = themes.theme(theme)
    if isinstance(what, Unrolled):
        if gradients and all(node.grad is None for node in what.nodes):
            raise GradientError("there are no gradients to write yet: call dag.backward() before gradients=True")
        if not what.copies:  # the same in every timestep
            return Picture(acyclic_scene([what.static[output] for output in what.graph.outputs], show), look)
        return Picture(unrolled_scene(what, show), look)
    if isinstance(what, Tensor):
        what = Graph(what)
    if not isinstance(what, Graph):
        raise OperandTypeError(f"viz.draw takes a Graph, an unrolled graph or a Tensor, {instead(what)}")
    if what.states or any(is_time_reduction(node) and node.operands[0] in what.varying for node in what):
        if flow or gradients:
            raise GradientError(
                "a rolled graph has no gradients: draw the unrolled one, viz.draw(dag, ...), after dag.backward()"
            )
        return Picture(rolled_scene(what, show), look)
    return Picture(acyclic_scene(what.outputs, show), look)


def before_after(
    net: Graph | Tensor,
    sequences: Mapping[str, Any] | None = None,
    /,
    *,
    steps: int = 4,
    level: str | None = None,
    depth: int | None = None,
    fold: int | None = None,
    weights: str = "shared",
    values: bool = False,
    gradients: bool = False,
    theme: str = "light",
    **named_sequences: Any,
) -> Picture:
    """Draw a recurrent network before and after unrolling, side by side.

    Parameters
    ----------
    net : Graph or Tensor
    sequences, **named_sequences : array of shape (time, ...)
        Sequences for the inputs, of which the first `steps` values are used; by default every
        timestep reads the example value.
    steps : int
        How many timesteps to unroll.
    level, depth, fold, weights, values, gradients, theme
        As in `draw`.

    Examples
    --------
    >>> import viz
    >>> x, h = mg.input(1.0, name="x"), mg.state(0.0, name="h")
    >>> h.next = mg.tanh(x + h)
    >>> viz.before_after(mg.Graph(h.next), steps=3)
    Picture(16 nodes, 15 edges)
    """
    graph = Graph(net) if isinstance(net, Tensor) else net
    if not isinstance(graph, Graph):
        raise OperandTypeError(f"viz.before_after takes a Graph or a Tensor, {instead(net)}")
    if not graph.varying:
        raise OperandTypeError("nothing in this graph changes over time, so there is nothing to unroll: use viz.draw")
    if gradients:
        raise GradientError(
            "before_after unrolls the network itself, and nothing has gradients then: "
            "viz.draw(dag, gradients=True) after dag.backward()"
        )
    show = checked(Show(values, False, False, level, depth, fold, weights))
    look = themes.theme(theme)
    dag = graph.unroll({**(sequences or {}), **named_sequences}, steps=steps)
    return Picture(before_after_scene(graph, dag, show), look)


def instead(what: Any) -> str:
    """What was given in place of a graph, and what to give."""
    kind = f"the class {what.__name__}" if isinstance(what, type) else type(what).__name__
    if isinstance(what, Unrolled):
        return f"not {kind}: give the network before unrolling, such as dag.graph"
    if isinstance(what, Module) or (isinstance(what, type) and issubclass(what, Module)):
        return f"not {kind}: call the module on an input, and give what comes out, as in mg.Graph(module(x))"
    return f"not {kind}: give the Tensor that a network computes, such as a loss, or mg.Graph(loss)"


def checked(show: Show) -> Show:
    """The settings, if a picture can be drawn with them."""
    if show.level not in (None, "op", "cell"):
        raise OperandError(f"level is 'op', every operation, or 'cell', a box for each part; not {show.level!r}")
    if show.weights not in ("shared", "repeated"):
        raise OperandError(f"weights are 'shared', drawn once, or 'repeated', in every timestep; not {show.weights!r}")
    if show.depth is not None and show.level != "cell":
        raise OperandError("depth folds the parts within parts: give level='cell' with it")
    for name, number, least in (("depth", show.depth, 1), ("fold", show.fold, 0)):
        if number is not None and (not isinstance(number, int) or isinstance(number, bool) or number < least):
            raise OperandError(f"{name} is a whole number of at least {least}, not {number!r}")
    return show
