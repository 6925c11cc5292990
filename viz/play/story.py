"""Story: a recording and the scenes it plays on, as the JSON that the page reads.

Nodes are numbered in the order of computation. A box shows a node; plain numbers and unnamed initial
values have none.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from microgrid.tensor import Tensor
from viz import theme
from viz.labels import Strip, printable
from viz.play.formulas import Pieces, Place, expression, local_derivative, vjp_formula
from viz.play.recording import Contribution, Recording
from viz.play.summary import JSON, norm, summary
from viz.play.symbols import Symbol
from viz.scene import Box, Frame, Scene, Wire

Look = dict[str, Any]


@dataclass(frozen=True)
class Story:
    """What is told, and on which pictures.

    `rolled` is the picture of the network before it was unrolled; `shared` are the nodes that stand once and
    are read in many places, so that their gradient is a sum worth a table.
    """

    title: str
    recording: Recording
    symbols: dict[Tensor, Symbol]
    scene: Scene
    rolled: Scene | None
    steps: int
    shared: tuple[Tensor, ...]
    note: str = ""

    @functools.cached_property
    def number(self) -> dict[Tensor, int]:
        """The place of each node in the order of computation."""
        return {node: i for i, node in enumerate((*self.recording.given, *self.recording.forward))}

    def to_json(self) -> JSON:
        """The whole story; the same for the same graph."""
        boxes = [(box.tensor, box) for box in self.scene.boxes.values() if box.tensor is not None]
        time = {tensor: box.timestep for tensor, box in reversed(boxes)}
        kinds = {tensor: box.content.kind for tensor, box in boxes}
        return {
            "title": printable(self.title),
            "note": self.note,
            "steps": self.steps,
            "root": self.number[self.recording.root],
            "looks": looks(),
            "nodes": [self.node_json(node, kinds.get(node, ""), time.get(node)) for node in self.number],
            "picture": picture(self.scene, self.number),
            "rolled": picture(self.rolled, {}) if self.rolled is not None else None,
            "shared": [self.number[node] for node in self.shared],
            "events": self.events(set(kinds)),
        }

    def node_json(self, node: Tensor, kind: str, t: int | None) -> JSON:
        symbol = self.symbols[node]
        told: JSON = {"symbol": symbol.text, "kind": kind, "value": summary(node.value)}
        if symbol.is_expression:
            told["compound"] = 1
        if t is not None:
            told["t"] = t
        if node.primitive is not None:
            told["op"] = printable(node.primitive.name)
            told["operands"] = [self.number.get(operand, -1) for operand in node.operands]
            told["expression"] = self.pieces(expression(node))
        if node in self.recording.earlier:
            told["earlier"] = summary(self.recording.earlier[node])
        if self.recording.has_gradients and node not in self.recording.gradients:
            told["unreached"] = 1
        return told

    def pieces(self, written: Pieces) -> JSON:
        return [
            [self.number.get(piece.node, -1), int(piece.brackets), int(piece.gradient)]
            if isinstance(piece, Place)
            else piece
            for piece in written
        ]

    def events(self, drawn: set[Tensor]) -> list[JSON]:
        told: list[JSON] = [{"pass": "start"}]
        told += [{"pass": "forward", "node": self.number[x]} for x in self.recording.forward if x in drawn]
        if not self.recording.has_gradients:
            return told
        told.append({"pass": "seed", "node": self.number[self.recording.root], "seed": summary(self.recording.seed)})
        for node, contributions in self.recording.backward:
            if contributions and (node in drawn or any(each.operand in drawn for each in contributions)):
                passed = [self.contribution(each) for each in contributions]
                told.append({"pass": "backward", "node": self.number[node], "to": passed})
        told.append({"pass": "end"})
        return told

    def contribution(self, each: Contribution) -> JSON:
        told: JSON = {"operand": each.index, "node": self.number[each.operand], "added": summary(each.added)}
        formula = local_derivative(each.reader, each.index)
        if each.local is not None:
            told["local"] = summary(each.local)
            told["formula"] = self.pieces(formula)
        if each.reader.shape or each.operand.shape:
            told["rule"] = self.pieces(vjp_formula(each.reader, each.index))
        told["total"] = norm(each.total) if each.operand.shape else summary(each.total)
        return told


def looks() -> dict[str, Look]:
    """The shape of each kind of node; its colours are the style sheet's."""
    return {
        kind: {
            "shape": style.shape,
            "rounded": int("rounded" in style.style),
            "dashed": int("dashed" in style.style),
            "rings": style.peripheries,
            "pen": style.pen,
        }
        for kind, style in theme.LIGHT.nodes.items()
    }


def picture(scene: Scene, number: dict[Tensor, int]) -> JSON:
    """A scene with y downwards, as SVG has it."""
    left, bottom, right, top = scene.bounds
    places = {id: place for place, id in enumerate(scene.boxes)}
    return {
        "bounds": [round(left, 1), round(-top, 1), round(right - left, 1), round(top - bottom, 1)],
        "boxes": [box(each, number) for each in scene.boxes.values()],
        "wires": [wire(each, places, number) for each in scene.wires],
        "frames": [frame(each) for each in scene.frames.values()],
    }


def box(each: Box, number: dict[Tensor, int]) -> JSON:
    return {
        "id": each.id,
        "node": -1 if each.tensor is None else number.get(each.tensor, -1),
        "kind": each.content.kind,
        "at": [round(each.x, 1), round(-each.y, 1), round(each.width, 1), round(each.height, 1)],
        "rows": rows(each),
    }


def rows(each: Box) -> list[JSON]:
    """The lines of a box: text that stays, and where the value and the gradient are written as they come."""
    found: list[JSON] = []
    word = ""
    for place, line in enumerate(each.content.lines):
        if isinstance(line, Strip):
            found.append([f"{word} cells", line.area[1], [round(share, 2) for share in line.cells]])
            continue
        word = line.text.partition(" ")[0]
        found.append([word, line.size] if place and word in {"value", "grad"} else ["text", line.size, line.text])
    return found


def wire(each: Wire, places: dict[str, int], number: dict[Tensor, int]) -> JSON:
    told: JSON = {
        "ends": [places[each.tail], places[each.head]],
        "kind": each.kind,
        "route": [coordinate for x, y in each.route for coordinate in (round(x, 1), round(-y, 1))],
    }
    carried = [[number[reader], index] for reader, index in each.carries if reader in number]
    if carried:
        told["carries"] = carried
    if each.label:
        told["label"] = each.label
        told["at"] = [round(each.label_at[0], 1), round(-each.label_at[1], 1)]
    return told


def frame(each: Frame) -> JSON:
    return {
        "label": each.label,
        "x": round(each.label_x, 1),
        "at": [round(n, 1) for n in (each.left, -each.top, each.right - each.left, each.top - each.bottom)],
    }


def shared_nodes(recording: Recording, timed: set[Tensor], leaves: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """The leaves that receive a gradient, and other nodes that stand once and are read in timesteps."""
    found = dict.fromkeys(leaf for leaf in leaves if leaf in recording.gradients)
    for node, contributions in recording.backward:
        if node in timed:
            found |= dict.fromkeys(
                each.operand
                for each in contributions
                if each.operand not in timed and each.operand.primitive is not None
            )
    return tuple(found)
