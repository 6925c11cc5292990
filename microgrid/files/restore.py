"""From JSON and arrays to a graph: every operation is recorded anew, so that all is checked as when it was written."""

from __future__ import annotations

import functools
import inspect
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from microgrid import recording
from microgrid.errors import FileFormatError, MicrogridError
from microgrid.files.arrays import Arrays
from microgrid.files.describe import operation_named
from microgrid.files.fields import Damaged, Fields, shown
from microgrid.files.leaf_kinds import LEAF_KINDS
from microgrid.files.values import WORDS, decoded
from microgrid.files.work import work_of
from microgrid.graph import Graph
from microgrid.leaves import State, state
from microgrid.primitive import Primitive, record
from microgrid.tensor import NO_PARAMS, PYTHON_NUMBERS, Name, Tensor


def graph_of(description: Any, arrays: Arrays, place: str, max_work: int | None) -> Graph:
    """The graph that `description_of` described; takes the arrays out of `arrays`.

    Parameters
    ----------
    description : JSON as Python values, by whomever
    arrays : dict of str → np.ndarray
    place : str
        Where its nodes got their names, for errors.
    max_work : int or None
        How many elements its operations may read and make; None for no bound.

    Raises
    ------
    FileFormatError
        If that is no graph, or uses operations that are not known here.
    """
    fields = Fields(description, "the description")
    nodes = fields.take("nodes", list)
    outputs, named = fields.take("outputs", list), fields.take("named", dict)
    fields.end()
    refuse_unknown_operations(nodes)
    reader = Reader(arrays, place, max_work)
    with recording.always(), np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # examples may be anything; they gave their warnings when they were recorded
        for node in nodes:
            reader.read(node)
        reader.close_cycles()
        if arrays:
            raise Damaged(f"no node uses the array {min(arrays)!r:.60}")
        try:
            graph = Graph(
                *(reader.node_at(number, "an output") for number in outputs),
                **{name: reader.node_at(number, "an output") for name, number in named.items()},
            )
        except (MicrogridError, TypeError) as error:
            raise Damaged(f"its nodes are no graph ({error})") from error
    if len(graph) < len(reader.made) or any(a is not b for a, b in zip(graph, reader.made, strict=True)):
        raise Damaged("the nodes are not in the order of a graph, or no output depends on some of them")
    return graph


def refuse_unknown_operations(nodes: Sequence[Any]) -> None:
    """All of them at once."""
    used = {str(node["op"]) for node in nodes if type(node) is dict and type(node.get("op")) is str}
    unknown = sorted(name for name in used if operation_named(name) is None)
    if unknown:
        several = len(unknown) > 1
        raise FileFormatError(
            f"the file uses the operation{'s' * several} {', '.join(f'{name!r:.60}' for name in unknown[:12])}, which "
            f"this program does not know: declare {'them' if several else 'it'} with mg.primitive before loading, if "
            f"you trust {'them' if several else 'it'}"
        )


class Reader:
    """Makes the nodes one after the other, each from those before it.

    Attributes
    ----------
    made : list of Tensor
    """

    def __init__(self, arrays: Arrays, place: str, max_work: int | None) -> None:
        self.made: list[Tensor] = []
        self.arrays = arrays
        self.place = place
        self.max_work = max_work
        self.work = 0
        self.nexts: list[tuple[State, Any]] = []

    def read(self, found: Any) -> None:
        what = f"node {len(self.made)}"
        fields = Fields(found, what)
        kind, name = fields.take("kind", str), fields.take("name", str, None)
        requires_grad = fields.take("grad", bool)
        if kind == "state":
            node = self.read_state(fields)
        elif kind == "operation":
            node = self.read_operation(fields)
        elif kind in LEAF_KINDS:
            node = self.read_leaf(fields, kind)
        else:
            raise Damaged(f"{what} is of the kind {kind!r:.60}, which does not exist")
        fields.end()
        if requires_grad and not (node.requires_grad or can_have_gradient(node)):
            raise Damaged(f"{what} is to have a gradient, and can have none")
        node.requires_grad = requires_grad
        node._name = None if name is None else Name(name, self.place)
        self.made.append(node)

    def node_at(self, number: Any, reader: str) -> Tensor:
        if type(number) is not int or not 0 <= number < len(self.made):
            raise Damaged(f"{reader} is said to be node {shown(number)}, and there are {len(self.made)} before it")
        return self.made[number]

    def read_state(self, fields: Fields) -> Tensor:
        initial = self.node_at(fields.take("initial", int), f"the initial value of {fields.what}")
        node = state(initial, reverse=fields.take("reverse", bool))
        node.any_batch = fields.take("any_batch", bool)
        self.nexts.append((node, fields.take("next", int)))
        return node

    def close_cycles(self) -> None:
        """Give the states their nexts, which may come after them."""
        for node, number in self.nexts:
            following = self.node_at(number, "the next of a state")
            try:
                node.next = following
            except MicrogridError as error:
                raise Damaged(f"a state cannot have its next ({error})") from error
            node._next_place = self.place

    def read_leaf(self, fields: Fields, kind: str) -> Tensor:
        value = decoded(fields.take("value", object), self.arrays)
        if type(value) not in PYTHON_NUMBERS and not isinstance(value, np.ndarray | np.generic):
            raise Damaged(f"the value of {fields.what} is no number and no array")
        settings = self.read_settings(fields)
        try:
            leaf = LEAF_KINDS[kind].make(value, settings)
            names = LEAF_KINDS[kind].settings_of(leaf).keys()
        except Exception as error:  # who adds a kind of leaf raises what fits it
            raise Damaged(f"{fields.what}, of the kind {kind!r}, cannot be made ({error!s:.300})") from error
        if names != settings.keys():
            raise Damaged(f"{fields.what}, of the kind {kind!r}, has the settings {sorted(settings)}")
        return leaf

    def read_settings(self, fields: Fields) -> dict[str, Any]:
        found = fields.take("settings", dict, NO_PARAMS)
        return {key: decoded(value, self.arrays) for key, value in found.items()}

    def read_operation(self, fields: Fields) -> Tensor:
        primitive = operation_named(fields.take("op", str))
        assert primitive is not None  # unknown ones were refused
        numbers = fields.take("operands", list)
        operands = [self.node_at(number, f"an operand of {fields.what}") for number in numbers]
        settings = self.read_settings(fields)
        check_call(primitive, operands, settings, fields.what)
        shape, dtype = fields.take("shape", list), fields.take("dtype", str)
        if not all(type(size) is int for size in shape):
            raise Damaged(f"the shape of {fields.what} is no list of whole numbers")
        try:
            self.account(primitive, operands, settings)
            node = record(primitive, operands, settings or NO_PARAMS)
            made = (list(node.shape), node.dtype.name)
        except FileFormatError:
            raise
        except Exception as error:  # settings that make no sense may break an operation anywhere
            raise Damaged(f"{fields.what} cannot be computed ({error!s:.300})") from error
        if type(node.value) is int and node.value not in WORDS:
            raise Damaged(f"{fields.what}, {primitive.name}, computes a whole number of more than 64 bits")
        if made != (shape, dtype):
            raise Damaged(
                f"{fields.what}, {primitive.name}, should be of shape {tuple(shape)!r:.60} and dtype {dtype!r:.60}, "
                f"but computes shape {node.shape} and dtype {made[1]}"
            )
        return node

    def account(self, primitive: Primitive, operands: Sequence[Tensor], settings: Mapping[str, Any]) -> None:
        """Refuse what would take too much memory or time, before it is computed."""
        if self.max_work is None:
            return
        self.work += work_of(primitive, operands, settings)
        if not self.work <= self.max_work:
            raise FileFormatError(
                f"its operations, up to node {len(self.made)}, {primitive.name}, would make "
                f"{min(self.work, 10**300):.1e} elements, and {self.max_work:.1e} are allowed for a file of its size. "
                "If you trust it, load it with a larger max_work"
            )


def can_have_gradient(node: Tensor) -> bool:
    return np.issubdtype(node.dtype, np.floating) and (node.primitive is None or node.primitive.differentiable)


def check_call(primitive: Primitive, operands: Sequence[Tensor], settings: Mapping[str, Any], what: str) -> None:
    """Refuse operands and settings that the operation does not have: it might compute, and fail in its gradient.

    What else a user's own operation takes is known to its user only.
    """
    count = operand_count(primitive) if primitive.is_own else len(primitive.vjps)
    if not operands or (count and not primitive.variadic and len(operands) != count):
        raise Damaged(f"{what}, {primitive.name}, has {len(operands)} operands")
    if primitive.is_own:
        names, is_open = settings_of(primitive)
        if not names <= settings.keys() or (settings.keys() - names and not is_open):
            raise Damaged(f"{what}, {primitive.name}, takes the settings {sorted(names)}, and not {sorted(settings)}")
    if not isinstance(settings.get("dtype"), np.dtype | None):
        raise Damaged(f"{what}, {primitive.name}, has a dtype that is none")


@functools.cache
def operand_count(primitive: Primitive) -> int:
    """How many arguments an operation has that are no settings; a variadic one has one list."""
    parameters = inspect.signature(primitive.forward).parameters.values()
    return 1 if primitive.variadic else len(primitive.vjps) or sum(p.default is p.empty for p in parameters)


@functools.cache
def settings_of(primitive: Primitive) -> tuple[frozenset[str], bool]:
    """The names of the settings, and whether there may be others."""
    after_operands = list(inspect.signature(primitive.forward).parameters.values())[operand_count(primitive) :]
    is_open = any(p.kind is p.VAR_KEYWORD for p in after_operands)
    return frozenset(p.name for p in after_operands if p.kind is not p.VAR_KEYWORD), is_open
