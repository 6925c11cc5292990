"""Repeated nodes become one."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import numpy as np

from microgrid.graph import Graph
from microgrid.rebuild import Made, kept, rebuilt
from microgrid.rewrite.reading import ADD, MULTIPLY
from microgrid.tensor import Tensor, is_number


def merge_repeated(graph: Graph) -> Graph:
    """The graph in which the same operation on the same operands is computed once; dead nodes are gone.

    Source: J. Cocke, Global common subexpression elimination, ACM SIGPLAN Notices 5 (1970).
    """
    known: dict[Hashable, Tensor] = {}
    outputs = set(graph.outputs)  # each stays itself: there may be a gradient by one of them

    def remake(node: Tensor, made: Made) -> Tensor:
        if node.primitive is None:
            return known.setdefault((type(node.value), repr(node.value)), node) if is_number(node) else node
        if node in outputs:
            return kept(node, made)
        operands = [made[operand] for operand in node.operands]
        order = sorted(map(id, operands)) if node.primitive in (ADD, MULTIPLY) else list(map(id, operands))
        key = (node.primitive, tuple(order), content(dict(node.params)))
        if key not in known:
            known[key] = kept(node, made)
        return known[key]

    return rebuilt(graph, remake)


def content(setting: Any) -> Hashable:
    """A setting by its content, to compare with others; what cannot be compared is only itself."""
    if isinstance(setting, dict):
        return tuple((key, content(value)) for key, value in sorted(setting.items()))
    if isinstance(setting, tuple | list):
        return tuple(map(content, setting))
    if isinstance(setting, slice):
        return ("slice", setting.start, setting.stop, setting.step)
    if isinstance(setting, np.ndarray):
        return (setting.dtype.str, setting.shape, setting.tobytes())
    try:
        hash(setting)
    except TypeError:
        return id(setting)
    return (type(setting), setting)
