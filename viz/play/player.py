"""Player: what `play` returns; save it as a page, or look at it in a notebook."""

from __future__ import annotations

import html
import os
from collections.abc import Sequence
from pathlib import Path

from microgrid.errors import GradientError, MicrogridError, OperandTypeError
from microgrid.files.whole import write_whole
from microgrid.graph import Graph
from microgrid.leaves import Parameter, State
from microgrid.tensor import Tensor, describe
from microgrid.unroll import Unrolled
from viz import arrange
from viz.labels import printable
from viz.picture import PictureFormatError
from viz.play.page import page
from viz.play.recording import record_passes
from viz.play.story import Story, shared_nodes
from viz.play.symbols import acyclic_symbols, unrolled_symbols

SUFFIXES = (".html", ".htm")

MOST_BOXES = 2_000
"""Of a page on which one can still step from node to node."""

FORWARD_ONLY = "There are no gradients to show: call {} first and play again to see the backward pass."


class TooLargeError(MicrogridError, ValueError):
    """A graph has too many nodes to step through."""


class Player:
    """A page on which one steps through the forward and the backward pass.

    Attributes
    ----------
    story : Story
        What it shows.
    html : str
        The page: one file that needs nothing else.
    """

    def __init__(self, story: Story) -> None:
        self.story = story
        self.html = page(story)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the page; any browser opens it, without a network.

        An existing file is replaced only once the new one is complete.

        Raises
        ------
        PictureFormatError
            If the suffix is neither .html nor .htm.
        OSError
            If the folder does not exist or cannot be written.
        """
        target = checked_target(path)
        write_whole(target, self.html.encode())
        return target

    def _repr_html_(self) -> str:
        title = html.escape(printable(self.story.title))
        return (
            f'<iframe srcdoc="{html.escape(self.html)}" sandbox="allow-scripts" title="{title}" '
            'style="width: 100%; height: 800px; border: 1px solid #8888; border-radius: 8px"></iframe>'
        )

    def __repr__(self) -> str:
        recording = self.story.recording
        backward = f"{len(recording.backward)} steps backward" if recording.has_gradients else "no backward pass"
        return f"Player({len(recording.forward)} steps forward, {backward})"


def play(
    what: Unrolled | Graph | Tensor,
    path: str | os.PathLike[str] | None = None,
    *,
    output: str | Tensor | None = None,
    title: str | None = None,
) -> Player:
    """Step through the forward and the backward pass, node by node, on a page of its own.

    Without a call of `backward` before, the page shows the forward pass only.

    Parameters
    ----------
    what : Unrolled or Tensor
        A network unrolled in time, or an ordinary acyclic graph by its output.
    path : str or path, optional
        Where to save the page at once: a file with the suffix .html.
    output : str or Tensor, optional
        The node on which `backward` was called, where an unrolled network has several outputs.
    title : str, optional
        The headline of the page.

    Returns
    -------
    Player
        `.save("bptt.html")` writes it; notebooks show it.

    Raises
    ------
    GradientError
        If a value has changed since `backward` was called, or several outputs have gradients.
    TooLargeError
        If there are more than 2,000 nodes to draw.

    Examples
    --------
    >>> from viz.play import play
    >>> u, x, h = mg.parameter(0.5, name="u"), mg.input(0.0, name="x"), mg.state(0.0, name="h")
    >>> h.next = mg.tanh(u * h + x)
    >>> dag = mg.Graph(loss=mg.last(h.next)).unroll(x=[1.0, 0.0, 0.0])
    >>> dag.backward()
    >>> play(dag)
    Player(16 steps forward, 13 steps backward)
    """
    if path is not None:
        checked_target(path)
    player = Player(story_of(what, output, title))
    if path is not None:
        player.save(path)
    return player


def checked_target(path: str | os.PathLike[str]) -> Path:
    """Where a page can be written."""
    target = Path(path)
    if target.suffix.lower() not in SUFFIXES:
        raise PictureFormatError(f"{target.name!r} has the suffix {target.suffix!r}: a page is saved as .html")
    if not target.parent.is_dir():
        raise FileNotFoundError(f"the folder {str(target.parent)!r} does not exist: make it first")
    return target


def story_of(what: Unrolled | Graph | Tensor, output: str | Tensor | None, title: str | None) -> Story:
    if isinstance(what, Unrolled):
        return unrolled_story(what, output, title)
    if isinstance(what, Graph):
        if what.varying:
            raise OperandTypeError(
                "viz.play shows values, and a graph with inputs or states has some only once it runs over a sequence: "
                "viz.play(graph.unroll(...))"
            )
        what = what.output
    if not isinstance(what, Tensor):
        raise OperandTypeError(f"viz.play takes an unrolled graph or a Tensor, not {type(what).__name__}")
    return acyclic_story(what, title)


def unrolled_story(dag: Unrolled, output: str | Tensor | None, title: str | None) -> Story:
    boxes = len(dag.copies) * dag.steps + len(dag.static)
    if boxes > MOST_BOXES:
        raise TooLargeError(
            f"{dag.steps} timesteps of {len(dag.copies)} nodes are {boxes:,} boxes, and nobody steps through more than "
            f"{MOST_BOXES:,}: unroll fewer steps, such as {max(1, min(8, MOST_BOXES // max(len(dag.copies), 1)))}"
        )
    number = {node: i for i, node in enumerate(dag.graph.nodes)}
    place: dict[Tensor, tuple[int, int]] = {}
    for node, copies in dag.copies.items():
        for t, copy in enumerate(copies):
            place.setdefault(copy, (t, number[node]))
    for node, copy in dag.static.items():
        early = copy.primitive is None or not node.depends_on_time()
        place.setdefault(copy, (-1 if early else dag.steps, number[node]))
    last = (-1, len(number))
    root = unrolled_root(dag, output)
    recording = record_passes(dag.nodes, root, lambda node: place.get(node, last))
    show = arrange.Show(values=True, gradients=recording.has_gradients, fold=0)
    timed = {copy for copies in dag.copies.values() for copy in copies}
    return Story(
        title=title or f"Backpropagation through time: {dag.steps} step{'s' if dag.steps != 1 else ''}",
        recording=recording,
        symbols=unrolled_symbols(dag, (*recording.given, *recording.forward)),
        scene=arrange.unrolled_scene(dag, show),
        rolled=arrange.rolled_scene(dag.graph, arrange.Show(values=True)),
        steps=dag.steps,
        shared=shared_nodes(recording, timed, [*dag.graph.parameters, *learnable_starts(dag)]),
        note="" if recording.has_gradients else FORWARD_ONLY.format("dag.backward()"),
    )


def learnable_starts(dag: Unrolled) -> list[Tensor]:
    """Named initial values that are no parameters."""
    starts = [state.initial for state in dag.graph.states]
    return [start for start in starts if start.name and not isinstance(start, Parameter) and start.primitive is None]


def unrolled_root(dag: Unrolled, output: str | Tensor | None) -> Tensor:
    """The node on which `backward` was called: `output`, or the only output that has a gradient of its own."""
    if output is not None:
        copies = {copy for each in dag.copies.values() for copy in each} | set(dag.static.values())
        return output if isinstance(output, Tensor) and output in copies else dag[output]
    outputs = [copy for each in dag.graph.outputs for copy in dag.over_time(each)]
    reached = [node for node in outputs if node.grad is not None]
    behind = set(nodes_below(reached))
    tops = [node for node in reached if node not in behind]
    if len(tops) > 1:
        names = ", ".join(describe(node) for node in tops[:4])
        raise GradientError(
            f"backward() was called on several outputs: {names}. Unroll again and call it on one, or say which one "
            "to play: viz.play(dag, output=dag['loss'])"
        )
    return tops[0] if tops else outputs[-1]


def nodes_below(roots: Sequence[Tensor]) -> list[Tensor]:
    """All nodes that some depend on, those themselves left out."""
    stack = [operand for root in roots for operand in root.operands]
    seen: dict[Tensor, None] = {}
    while stack:
        node = stack.pop()
        if node not in seen:
            seen[node] = None
            stack += node.operands
    return list(seen)


def acyclic_story(root: Tensor, title: str | None) -> Story:
    graph = Graph(root)
    for state in graph.states:
        raise OperandTypeError(
            f"{describe(root)} depends on the state {graph.names[state]!r}, which has one value per timestep: "
            "viz.play(mg.Graph(...).unroll(...))"
        )
    if len(graph.nodes) > MOST_BOXES:
        raise TooLargeError(
            f"the graph has {len(graph.nodes):,} nodes, and nobody steps through more than {MOST_BOXES:,}"
        )
    number = {node: i for i, node in enumerate(graph.nodes)}
    recording = record_passes(graph.nodes, root, lambda node: (-1 if node.primitive is None else 0, number[node]))
    called = acyclic_symbols(graph)
    leaves = [node for node in graph.nodes if node.primitive is None and not isinstance(node, State)]
    return Story(
        title=title or f"Backpropagation: {called[root].text}",
        recording=recording,
        symbols=called,
        scene=arrange.acyclic_scene([root], arrange.Show(values=True, gradients=recording.has_gradients)),
        rolled=None,
        steps=0,
        shared=shared_nodes(recording, set(), leaves),
        note="" if recording.has_gradients else FORWARD_ONLY.format(f"{called[root].text}.backward()"),
    )
