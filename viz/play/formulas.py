"""How operations and their local derivatives are written, as pieces: text, and places for nodes.

Templates name the operands 0, 1, …, the result `out` and its gradient `g`; "(0)" asks for brackets around
what is no single name.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from microgrid.tensor import Tensor
from viz.labels import index_text, is_folded, number_text, printable

GRADIENT = "g"


@dataclass(frozen=True, slots=True)
class Place:
    """Where a node, or the gradient of one, is written in a formula."""

    node: Tensor
    brackets: bool = False
    gradient: bool = False


Piece = str | Place
Pieces = tuple[Piece, ...]

EXPRESSIONS = {
    "add": "{0} + {1}",
    "subtract": "{0} − {(1)}",
    "multiply": "{(0)} × {(1)}",
    "divide": "{(0)} ÷ {(1)}",
    "matmul": "{(0)} @ {(1)}",
    "negative": "−{(0)}",
    "positive": "{0}",
    "power": "{(0)}^{(1)}",
    "square": "{(0)}²",
    "sqrt": "√{(0)}",
    "absolute": "|{0}|",
    "sigmoid": "σ({0})",
    "transpose": "{(0)}ᵀ",
    "delay": "{0}",
    "equal": "{0} = {1}",
    "not_equal": "{0} ≠ {1}",
    "less": "{0} < {1}",
    "less_equal": "{0} ≤ {1}",
    "greater": "{0} > {1}",
    "greater_equal": "{0} ≥ {1}",
}

LOCAL_DERIVATIVES: dict[str, tuple[str, ...]] = {
    "add": ("1", "1"),
    "subtract": ("1", "−1"),
    "multiply": ("{1}", "{0}"),
    "divide": ("1 ÷ {(1)}", "−{(out)} ÷ {(1)}"),
    "negative": ("−1",),
    "positive": ("1",),
    "power": ("{(1)} × {(0)}^({1} − 1)", "{(out)} × log({0})"),
    "to_floats": ("1",),
    "exp": ("{out}",),
    "log": ("1 ÷ {(0)}",),
    "log1p": ("1 ÷ (1 + {0})",),
    "expm1": ("{out} + 1",),
    "sqrt": ("1 ÷ (2 × {(out)})",),
    "square": ("2 × {(0)}",),
    "absolute": ("the sign of {0}",),
    "sin": ("cos({0})",),
    "cos": ("−sin({0})",),
    "tanh": ("1 − {(out)}²",),
    "sigmoid": ("{(out)} × (1 − {(out)})",),
    "relu": ("1 if {0} > 0, else 0",),
    "softplus": ("σ({0})",),
    "maximum": ("1 if {0} is the larger, else 0", "1 if {1} is the larger, else 0"),
    "minimum": ("1 if {0} is the smaller, else 0", "1 if {1} is the smaller, else 0"),
    "where": ("", "1 where {0}, else 0", "0 where {0}, else 1"),
    "clip_between": ("1 inside the bounds, else 0",),
    "delay": ("1",),
}
"""∂out/∂operand, element by element."""

ROUTES: dict[str, tuple[str, ...]] = {
    "matmul": ("{g} @ {(1)}ᵀ", "{(0)}ᵀ @ {g}"),
    "sum": ("{g}, to every element that was summed",),
    "transpose": ("{g}ᵀ",),
    "reshape": ("{g}, in the shape of {0}",),
    "squeeze": ("{g}, in the shape of {0}",),
    "expand_dims": ("{g}, in the shape of {0}",),
    "getitem": ("{g}, put back where it was read",),
    "take": ("{g}, put back where it was read",),
    "lookup": ("{g}, added to the rows that were read",),
    "pick": ("{g}, put back where it was read",),
    "max": ("{g}, to the largest elements",),
    "min": ("{g}, to the smallest elements",),
    "broadcast_to": ("{g}, summed over its copies",),
}
"""What an operand receives where that is no product element by element."""

SUPERSCRIPTS = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")


def pieces(template: str, node: Tensor) -> Pieces:
    """A template with the operands of `node` in their places; plain numbers are written out."""
    found: list[Piece] = []
    for part in re.split(r"(\{[^}]*\})", template):
        if not part.startswith("{"):
            found.append(part)
            continue
        name = part.strip("{()}")
        where = node if name in {"out", GRADIENT} else node.operands[int(name)]
        found.append(written(Place(where, "(" in part, name == GRADIENT)))
    return joined(found)


def written(place: Place) -> Piece:
    """A plain number as text, all else as a place."""
    if not is_folded(place.node) or place.gradient:
        return place
    text = number_text(place.node.value)
    return f"({text})" if text.startswith("−") and place.brackets else text


def joined(parts: Sequence[Piece]) -> Pieces:
    """The same without empty texts, and neighbouring texts as one."""
    found: list[Piece] = []
    for part in parts:
        if isinstance(part, str) and found and isinstance(found[-1], str):
            found[-1] += part
        elif part != "":
            found.append(part)
    return tuple(found)


def expression(node: Tensor) -> Pieces:
    """What an operation computes: "tanh(a)", "u × h", "(e₀ + e₁) ÷ 2"."""
    primitive = node.primitive
    assert primitive is not None
    if primitive.over_time is not None:
        return over_time(node)
    if primitive.name == "power" and is_folded(node.operands[1]):
        exponent = number_text(node.operands[1].value)
        if exponent.isdigit():
            return pieces(f"{{(0)}}{exponent.translate(SUPERSCRIPTS)}", node)
    if primitive.name == "getitem":
        return joined([written(Place(node.operands[0], True)), f"[{printable(index_text(node.params['template']))}]"])
    template = EXPRESSIONS.get(primitive.name) if primitive.is_own else None
    if template is None or len(node.operands) != template.count("{"):
        return call(node)
    return pieces(template, node)


def call(node: Tensor) -> Pieces:
    """A function of its operands: "concatenate(f, b, axis=1)"."""
    assert node.primitive is not None
    parts: list[Piece] = [f"{printable(node.primitive.name)}("]
    for number, place in enumerate(some(node.operands)):
        parts += [", " if number else "", place]
    for name, setting in node.params.items():
        if setting is not None and setting is not False and isinstance(setting, int | float | str | tuple):
            parts.append(f", {name}={printable(str(setting))[:20]}")
    return joined([*parts, ")"])


def some(operands: Sequence[Tensor]) -> list[Piece]:
    """The operands as places; the first three and the last of many."""
    if len(operands) > 4:
        return [*(written(Place(x)) for x in operands[:3]), "…", written(Place(operands[-1]))]
    return [written(Place(x)) for x in operands]


def over_time(node: Tensor) -> Pieces:
    """A reduction over time."""
    assert node.primitive is not None
    if node.primitive.name in {"last", "first"}:
        return pieces("{0}", node)
    if node.primitive.name not in {"time_sum", "time_mean"}:
        return call(node)
    total: list[Piece] = []
    for number, place in enumerate(some(node.operands)):
        total += [" + " if number else "", place]
    if node.primitive.name == "time_mean":
        return joined(["(", *total, f") ÷ {len(node.operands)}"])
    return joined(total)


def local_derivative(node: Tensor, index: int) -> Pieces:
    """∂out/∂operand of an operation on single elements, as a formula; empty where none is known."""
    primitive = node.primitive
    assert primitive is not None
    if primitive.name == "power" and index == 0 and is_folded(node.operands[1]):
        return of_power(node)
    if primitive.over_time is not None:
        return (f"1 ÷ {len(node.operands)}",) if primitive.name == "time_mean" else ("1",)
    known = LOCAL_DERIVATIVES.get(primitive.name, ()) if primitive.is_own else ()
    return pieces(known[index], node) if index < len(known) and known[index] else ()


def of_power(node: Tensor) -> Pieces:
    """n × xⁿ⁻¹ with n written out."""
    exponent: Any = node.operands[1].value
    rest = number_text(exponent - 1)
    if rest == "1":
        return pieces(f"{number_text(exponent)} × {{(0)}}", node)
    raised = rest.translate(SUPERSCRIPTS) if rest.isdigit() else f"^({rest})"
    return pieces(f"{number_text(exponent)} × {{(0)}}{raised}", node)


def vjp_formula(node: Tensor, index: int) -> Pieces:
    """What operand `index` receives, from the gradient `g` of the node."""
    primitive = node.primitive
    assert primitive is not None
    operand = node.operands[index]
    if primitive.over_time is not None:
        ends = f" ÷ {len(node.operands)}" if primitive.name == "time_mean" else ""
        ends = ", the part that came from here" if primitive.name == "time_stack" else ends
        return pieces(f"{{g}}{ends}", node)
    if primitive.name == "mean":
        count = operand.size // max(node.size, 1)
        return pieces("{g}" if count == 1 else f"{{g}} ÷ {count}, to every element", node)
    if primitive.name in {"concatenate", "stack"}:
        return pieces("{g}, the part that came from here", node)
    if primitive.name == "matmul" and {x.ndim for x in node.operands} != {2}:
        return pieces("{g} and the other operand, by the rule of matmul", node)
    known = ROUTES.get(primitive.name, ()) if primitive.is_own else ()
    if index < len(known):
        return pieces(known[index], node)
    local = local_derivative(node, index)
    if not local:
        return joined([*pieces("{g}", node), f", by the rule of {printable(primitive.name)}"])
    spread = ", summed where it was broadcast" if operand.shape != node.shape else ""
    if local == ("1",):
        return pieces(f"{{g}}{spread}", node)
    inner = local if len(local) == 1 else ("(", *local, ")")
    return joined([*pieces("{g}", node), " ⊙ ", *inner, spread])
