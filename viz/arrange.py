"""Graph → Scene: the rolled picture, the unrolled one, and that of an ordinary acyclic graph."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from microgrid.graph import Graph
from microgrid.tensor import Tensor
from microgrid.unroll import Unrolled
from viz import theme
from viz.delays import EVERY_STEP, RolledNetwork, UnrolledNetwork
from viz.diagram import Diagram, Link, Node, diagram
from viz.flow import with_gradient_flow
from viz.fold import MOST_NODES, Fold, folded
from viz.labels import Content
from viz.layout import Edge, lay_out
from viz.parts import parts
from viz.plan import plan
from viz.scene import Box, Caption, Scene
from viz.timesteps import Shown, step_of
from viz.writing import Writing

ALL_AT_ONCE = Fold(1)


@dataclass(frozen=True, slots=True)
class Show:
    """What a picture shows, and how; the settings of `draw`."""

    values: bool = False
    gradients: bool = False
    flow: bool = False
    level: str | None = None
    depth: int | None = None
    fold: int | None = None
    weights: str = "shared"

    @property
    def repeats_weights(self) -> bool:
        return self.weights == "repeated"

    def diagram(self, graph: Graph) -> Diagram:
        """The boxes and edges to draw."""
        boxes = diagram(graph)
        too_many = self.level is None and len(boxes.nodes) > MOST_NODES
        return diagram(graph, parts(graph, self.depth)) if too_many or self.level == "cell" else boxes

    def writing(self, boxes: Diagram) -> Writing:
        return Writing(boxes, values=self.values, gradients=self.gradients)

    def hints(self, boxes: Diagram, fold: Fold = ALL_AT_ONCE) -> list[str]:
        """What a picture says that left something out by itself, and how to see it."""
        found = []
        if self.level is None and any(node.part is not None for node in boxes.nodes):
            found.append(f'{len(boxes.graph.nodes):,} operations are folded into boxes: level="op" draws each')
        if fold.hidden and self.fold is None:
            found.append(f"{len(fold.hidden):,} of {fold.steps:,} timesteps are folded: fold=0 draws all")
        return found


def acyclic_scene(outputs: Sequence[Tensor], show: Show) -> Scene:
    """An ordinary graph, computation flowing upwards."""
    whole = show.diagram(Graph(*outputs))
    boxes = nearest(whole, MOST_NODES) if show.fold is None else whole
    writing = show.writing(boxes)
    hints = show.hints(boxes)
    if len(boxes.nodes) < len(whole.nodes):
        cut = len(whole.nodes) - len(boxes.nodes)
        hints.append(f"{cut:,} more nodes lie behind those that are dashed: fold=0 draws all")
    ids = {node: f"n{number}" for node, number in boxes.numbers.items()}
    contents = {node: writing.on(node, [node.tensor])[0] for node in boxes.nodes}
    feeding = {link.head for link in whole.links if link.tail not in contents}
    contents |= {node: replace(contents[node], kind="gap") for node in feeding if node in contents}
    links = {f"e{i}": link for i, link in enumerate(boxes.links)}
    edges = [Edge(id, ids[link.tail], ids[link.head]) for id, link in links.items()]
    found = lay_out({ids[node]: contents[node].size for node in boxes.nodes}, edges)
    scene = Scene()
    for node, id in ids.items():
        scene.add(Box(id, contents[node], *found.at[id], *contents[node].size, node.tensor))
    for edge in edges:
        link = links[edge.id]
        kind = "weight" if contents[link.tail].kind == "parameter" else "operand"
        scene.wire(edge.tail, edge.head, kind, found.routes[edge.id], link.reads)
    return finished(scene, show, hints)


def rolled_scene(graph: Graph, show: Show) -> Scene:
    """A recurrent network as one timestep, each delay a dashed edge back to its state."""
    network = rolled_network(graph, show)
    return finished(network.draw(), show, show.hints(network.diagram))


def rolled_network(graph: Graph, show: Show) -> RolledNetwork:
    boxes = show.diagram(graph)
    contents = rolled_contents(boxes, show.writing(boxes))
    return RolledNetwork(Shown(plan(boxes), contents, EVERY_STEP, show.repeats_weights))


def rolled_contents(boxes: Diagram, writing: Writing) -> dict[Node, list[Content]]:
    return {node: writing.on(node, [node.tensor]) for node in boxes.nodes}


def unrolled_scene(dag: Unrolled, show: Show) -> Scene:
    """A network unrolled: the same timestep again and again, from left to right."""
    network = unrolled_network(dag, show)
    return finished(network.draw(), show, show.hints(network.diagram, network.fold))


def unrolled_network(dag: Unrolled, show: Show) -> UnrolledNetwork:
    boxes = show.diagram(dag.graph)
    fold = folded(dag.steps, show.fold, sum(node.varies for node in boxes.nodes))
    contents = unrolled_contents(boxes, show.writing(boxes), dag, fold)
    return UnrolledNetwork(Shown(plan(boxes), contents, fold, show.repeats_weights), dag)


def unrolled_contents(boxes: Diagram, writing: Writing, dag: Unrolled, fold: Fold) -> dict[Node, list[Content]]:
    contents = {}
    for node in boxes.nodes:
        copies = dag.over_time(node.tensor)
        shown = [copies[t] for t in fold.shown] if len(copies) > 1 else copies
        contents[node] = writing.on(node, shown)
    return contents


def before_after_networks(graph: Graph, dag: Unrolled, show: Show) -> tuple[RolledNetwork, UnrolledNetwork]:
    """The rolled and the unrolled network, of one and the same timestep."""
    boxes = show.diagram(graph)
    writing, the_plan = show.writing(boxes), plan(boxes)
    fold = folded(dag.steps, show.fold, sum(node.varies for node in boxes.nodes))
    rolled, unrolled = rolled_contents(boxes, writing), unrolled_contents(boxes, writing, dag, fold)
    label = max(EVERY_STEP.label(0), fold.label(dag.steps - 1), key=len)
    step = step_of(the_plan, {node: [*rolled[node], *unrolled[node]] for node in boxes.nodes}, label)
    return (
        RolledNetwork(Shown(the_plan, rolled, EVERY_STEP, show.repeats_weights, step)),
        UnrolledNetwork(Shown(the_plan, unrolled, fold, show.repeats_weights, step), dag),
    )


def before_after_scene(graph: Graph, dag: Unrolled, show: Show) -> Scene:
    """The rolled and the unrolled picture side by side, their rows at the same heights."""
    before, after = before_after_networks(graph, dag, show)
    before.fan = after.fan
    left = before.draw()
    after.head_room = before.head_room
    right = after.draw()
    gap = left.bounds[2] - right.bounds[0] + 70
    whole = left.moved(0.0, 0.0, "b_").joined([right.moved(gap, 0, "a_")])
    high = whole.bounds[3] + 22
    loop = "cycle" if graph.cycles else "delay" if graph.states else "time axis"
    for id, scene, dx, text in (
        ("before", left, 0.0, f"before: a graph with a {loop}"),
        ("after", right, gap, f"after: unrolled into {dag.steps} timesteps"),
    ):
        x_left, _, x_right, _ = scene.bounds
        whole.captions.append(Caption(id, text, (x_left + x_right) / 2 + dx, high))
    return finished(whole, show, show.hints(after.diagram, after.fold))


def finished(scene: Scene, show: Show, hints: Sequence[str]) -> Scene:
    """The scene with the sizes of gradients, if they are asked for, and below it what it left out."""
    if show.flow:
        scene = with_gradient_flow(scene)
    for number, text in enumerate(hints):
        left, bottom, right, _ = scene.bounds
        scene.captions.append(Caption(f"hint{number}", text, (left + right) / 2, bottom - 20, theme.LABEL_SIZE))
    return scene


def nearest(whole: Diagram, most: int) -> Diagram:
    """The nodes of an acyclic diagram that are nearest to its outputs, and the edges between them."""
    if len(whole.nodes) <= most:
        return whole
    into: dict[Node, list[Link]] = {node: [] for node in whole.nodes}
    for link in whole.links:
        into[link.head].append(link)
    found = dict.fromkeys(node for node in whole.nodes if not set(whole.graph.outputs).isdisjoint(node.members))
    for node in (waiting := list(found)):
        for link in into[node]:
            if link.tail not in found and len(found) < most:
                found[link.tail] = None
                waiting.append(link.tail)
    nodes = tuple(node for node in whole.nodes if node in found)
    return replace(whole, nodes=nodes, links=tuple(x for x in whole.links if x.tail in found and x.head in found))
