"""The kinds of leaves that a model file holds; a new class of leaf adds itself to the table."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from microgrid.errors import FileFormatError
from microgrid.leaves import Input, Parameter
from microgrid.names import kind_of
from microgrid.tensor import Tensor


def nothing_more(leaf: Any) -> Mapping[str, Any]:
    return {}


@dataclass(frozen=True, slots=True)
class LeafKind:
    """How leaves of one class are written and made.

    Attributes
    ----------
    made_as : type
        The class: this very one, no class made from it.
    make : callable
        (value, settings) → the leaf. Whether it requires a gradient and what it is called is set afterwards.
    settings_of : callable
        What a leaf has beyond its value, such as a rate, as numbers, strings, tuples, lists or arrays by name.
    """

    made_as: type[Tensor]
    make: Callable[[Any, Mapping[str, Any]], Tensor]
    settings_of: Callable[[Any], Mapping[str, Any]] = nothing_more


LEAF_KINDS: dict[str, LeafKind] = {
    "constant": LeafKind(Tensor, lambda value, settings: Tensor(value)),
    "parameter": LeafKind(Parameter, lambda value, settings: Parameter(value)),
    "input": LeafKind(Input, lambda value, settings: Input(value)),
}
"""By the name that stands in files."""


def leaf_kind_of(leaf: Tensor) -> str:
    """The name of a leaf's kind.

    Raises
    ------
    FileFormatError
        If its class has none.
    """
    for name, kind in LEAF_KINDS.items():
        if type(leaf) is kind.made_as:
            return name
    raise FileFormatError(f"{kind_of(leaf)} leaves of class {type(leaf).__name__} have no kind in LEAF_KINDS")
