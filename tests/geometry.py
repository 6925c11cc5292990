"""Where things stand in a picture: nothing over anything else, every edge from node to node."""

import itertools

import numpy as np


def curve(route, points=24):
    """Points along a piecewise cubic Bézier curve."""
    s = np.linspace(0, 1, points)[:, None]
    pieces = [map(np.array, route[start : start + 4]) for start in range(0, len(route) - 1, 3)]
    return np.concatenate(
        [(1 - s) ** 3 * a + 3 * (1 - s) ** 2 * s * b + 3 * (1 - s) * s**2 * c + s**3 * d for a, b, c, d in pieces]
    )


def overlap(a, b, gap=2.0):
    return (
        abs(a.x - b.x) < (a.width + b.width) / 2 + gap - 1e-6
        and abs(a.y - b.y) < (a.height + b.height) / 2 + gap - 1e-6
    )


def overlaps(scene):
    """The pairs of nodes of which one stands on the other."""
    return [(a.id, b.id) for a, b in itertools.combinations(scene.boxes.values(), 2) if overlap(a, b)]


def crossings(scene):
    """The edges that run through a node that is not their own, and that node."""
    boxes = list(scene.boxes.values())
    at = np.array([(box.x, box.y) for box in boxes])
    half = np.array([(box.width, box.height) for box in boxes]) / 2 - 2
    found = []
    for wire in scene.wires:
        inside = (np.abs(curve(wire.route)[:, None] - at) < half).all(axis=2).any(axis=0)
        others = [boxes[i].id for i in np.nonzero(inside)[0] if boxes[i].id not in {wire.tail, wire.head}]
        found += [(wire.tail, wire.head, wire.kind, other) for other in others]
    return found


def loose_ends(scene):
    """The edges that do not start and end at their nodes."""
    return [
        (wire.tail, wire.head, wire.kind, end.id)
        for wire in scene.wires
        for end, (x, y) in ((scene.boxes[wire.tail], wire.route[0]), (scene.boxes[wire.head], wire.route[-1]))
        if abs(x - end.x) > end.width / 2 + 3 or abs(y - end.y) > end.height / 2 + 3
    ]
