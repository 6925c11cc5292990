"""SVG as Graphviz writes it, with every label centred on its node by the viewer's own font."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

NAMESPACE = "http://www.w3.org/2000/svg"
SVG = f"{{{NAMESPACE}}}"


def centred(svg: bytes) -> bytes:
    """Anchor the text of each node at its middle.

    Graphviz places labels by the widths of a font that the viewer may not have.
    """
    ET.register_namespace("", NAMESPACE)
    ET.register_namespace("xlink", "http://www.w3.org/1999/xlink")
    root = ET.fromstring(svg)
    for group in root.iter(f"{SVG}g"):
        if group.get("class") == "node":
            middle = middle_of(group)
            for text in group.iter(f"{SVG}text") if middle is not None else ():
                text.set("text-anchor", "middle")
                text.set("x", f"{middle:.2f}")
    return ('<?xml version="1.0" encoding="UTF-8" standalone="no"?>\n' + ET.tostring(root, "unicode") + "\n").encode()


def middle_of(group: ET.Element) -> float | None:
    """The x of the middle of a node's outline; None for a text without one."""
    for shape in group.iter():
        if shape.tag == f"{SVG}ellipse":
            return float(shape.get("cx", "0"))
        if shape.tag in {f"{SVG}polygon", f"{SVG}path"}:
            numbers = [float(n) for n in re.findall(r"-?\d+(?:\.\d+)?", shape.get("points") or shape.get("d") or "")]
            xs = numbers[::2]
            return (min(xs) + max(xs)) / 2
    return None
