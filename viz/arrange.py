"""Graph → Scene: the rolled picture, the unrolled one, and that of an ordinary acyclic graph."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from microgrid.graph import Graph
from microgrid.leaves import Parameter
from microgrid.tensor import Tensor
from microgrid.unroll import Unrolled
from viz.delays import EVERY_STEP, RolledNetwork, UnrolledNetwork
from viz.labels import Content, content, is_folded
from viz.layout import Edge, lay_out
from viz.network import box
from viz.plan import looks, plan
from viz.scene import Caption, Scene


@dataclass(frozen=True, slots=True)
class Show:
    """What to write on nodes besides name and shape."""

    values: bool = False
    gradients: bool = False


def acyclic_scene(outputs: Sequence[Tensor], show: Show) -> Scene:
    """An ordinary graph, computation flowing upwards."""
    graph = Graph(*outputs)
    ids = {node: f"n{i}" for i, node in enumerate(graph.nodes) if not is_folded(node) or node in graph.outputs}
    contents = {}
    for node in ids:
        kind = "output" if node in graph.outputs and node.operands else looks(node)
        operands = [operand.name for operand in node.operands]
        contents[node] = content(node, node.name, kind, operands=operands, values=show.values, gradients=show.gradients)
    edges = [
        Edge(f"{ids[node]}.{index}", ids[operand], ids[node])
        for node in ids
        for index, operand in enumerate(node.operands)
        if operand in ids
    ]
    found = lay_out({ids[node]: contents[node].size for node in ids}, edges)
    scene = Scene()
    for node, id in ids.items():
        scene.add(box(id, contents[node], found.at[id]))
    quiet = {ids[node] for node in ids if isinstance(node, Parameter)}
    for edge in edges:
        kind = "weight" if edge.tail in quiet else "operand"
        scene.wire(edge.tail, edge.head, kind, found.routes[edge.id])
    return scene


def rolled_scene(graph: Graph, show: Show) -> Scene:
    """A recurrent network as one timestep, each delay a dashed edge back to its state."""
    return rolled_network(graph, show).draw()


def rolled_network(graph: Graph, show: Show) -> RolledNetwork:
    the_plan = plan(graph)
    contents = {node: [the_plan.content(node, node, values=show.values, gradients=show.gradients)] for node in graph}
    return RolledNetwork(the_plan, contents, [EVERY_STEP])


def unrolled_scene(dag: Unrolled, show: Show) -> Scene:
    """A network unrolled: the same timestep again and again, from left to right."""
    return unrolled_network(dag, show).draw()


def unrolled_network(dag: Unrolled, show: Show) -> UnrolledNetwork:
    the_plan = plan(dag.graph)

    def write(node: Tensor, shown: Tensor) -> Content:
        return the_plan.content(node, shown, values=show.values, gradients=show.gradients)

    contents = {node: [write(node, copy) for copy in dag.over_time(node)] for node in dag.graph}
    return UnrolledNetwork(the_plan, contents, [f"t = {t}" for t in range(dag.steps)], dag)


def before_after_scene(graph: Graph, dag: Unrolled, show: Show) -> Scene:
    """The rolled and the unrolled picture side by side, their rows at the same heights."""
    before, after = rolled_network(graph, show), unrolled_network(dag, show)
    before.fan = after.fan
    left = before.draw()
    after.head_room = before.head_room
    right = after.draw()
    gap = left.bounds[2] - right.bounds[0] + 70
    down = after.step.bottom - before.step.bottom
    whole = left.moved(0, down, "b_").joined([right.moved(gap, 0, "a_")])
    high = whole.bounds[3] + 22
    loop = "cycle" if graph.cycles else "delay" if graph.states else "time axis"
    for id, scene, dx, text in (
        ("before", left, 0.0, f"before: a graph with a {loop}"),
        ("after", right, gap, f"after: unrolled into {dag.steps} timesteps"),
    ):
        x_left, _, x_right, _ = scene.bounds
        whole.captions.append(Caption(id, text, (x_left + x_right) / 2 + dx, high))
    return whole
