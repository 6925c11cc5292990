"""Repeated nodes become one."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np

from microgrid.graph import Graph
from microgrid.rebuild import Made
from microgrid.rewrite.reading import ADD, MULTIPLY
from microgrid.rewrite.rule import Rewrite, Rule
from microgrid.tensor import Tensor, is_number


@Rewrite
def merge_repeated(graph: Graph) -> Rule | None:
    """The graph in which the same operation on the same operands is computed once; dead nodes are gone.

    Source: J. Cocke, Global common subexpression elimination, ACM SIGPLAN Notices 5 (1970).
    """
    known: dict[Hashable, Tensor] = {}
    outputs = set(graph.outputs)  # each stays itself: there may be a gradient by one of them

    def rule(node: Tensor, made: Made) -> Tensor | None:
        key: Hashable
        if node.primitive is None:
            if not is_number(node):
                return None
            key = (type(node.value), repr(node.value))
        elif node in outputs:
            return None
        else:
            operands = [id(made[operand]) for operand in node.operands]
            order = sorted(operands) if node.primitive in (ADD, MULTIPLY) else operands
            key = (node.primitive, tuple(order), content(node.params) if node.params else None)
        first = known.setdefault(key, node)
        return None if first is node else made[first]

    return rule


def content(setting: Any) -> Hashable:
    """A setting by its content, to compare with others; what cannot be compared is only itself."""
    if isinstance(setting, Mapping):
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
