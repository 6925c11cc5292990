"""Parameters as an optimiser is given them, a list or several groups, made into groups."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from microgrid.errors import OperandError, OperandTypeError
from microgrid.graph import Graph
from microgrid.leaves import Parameter
from microgrid.optim.settings import Kind, checked
from microgrid.tensor import Tensor, describe

Parameters: TypeAlias = Iterable[Tensor] | Iterable[Mapping[str, Any]]
"""What optimisers take: leaves, or groups of leaves with settings of their own."""


@dataclass(slots=True, eq=False)
class Group:
    """Parameters that are moved with the same settings.

    >>> adam = mg.optim.Adam([mg.parameter(1.0, name="x")], lr=0.1)
    >>> adam.groups[0].parameters, adam.groups[0].settings["lr"]
    ([Parameter(1.0, name='x')], 0.1)
    """

    parameters: list[Tensor]
    settings: dict[str, Any]


def groups_of(given: Any, defaults: Mapping[str, Any], kinds: Mapping[str, Kind], whose: str) -> list[Group]:
    """The groups that the optimiser `whose` was given; `defaults` are the settings that a group need not have."""
    defaults = checked(kinds, defaults, whose)
    if isinstance(given, Mapping):
        raise OperandTypeError(f'{whose} takes groups in a list: write {whose}([{{"parameters": [...], "lr": ...}}])')
    found = listed(given, whose)
    if not any(isinstance(each, Mapping) for each in found):
        groups = [Group(leaves(found, whose), defaults)]
    else:
        groups = [group_of(each, defaults, kinds, f"group {i} of {whose}", whose) for i, each in enumerate(found)]
    seen: set[Tensor] = set()
    for parameter in (parameter for group in groups for parameter in group.parameters):
        if parameter in seen:
            raise OperandError(f"{describe(parameter)} was given to {whose} twice, and would move twice")
        seen.add(parameter)
    return groups


def group_of(given: Any, defaults: Mapping[str, Any], kinds: Mapping[str, Kind], called: str, whose: str) -> Group:
    if not isinstance(given, Mapping):
        what = describe(given) if isinstance(given, Tensor) else repr(given)[:60]
        raise OperandTypeError(f"{whose} takes parameters or groups, and {what} stands beside groups: put it in one")
    keys = [key for key in ("parameters", "params") if key in given]
    if len(keys) != 1:
        raise OperandError(f'{called} needs its leaves under "parameters", once')
    own = {name: value for name, value in given.items() if name != keys[0]}
    return Group(leaves(listed(given[keys[0]], called), whose), {**defaults, **checked(kinds, own, called)})


def listed(given: Any, called: str) -> list[Any]:
    """What was given as a list that is not empty."""
    if isinstance(given, Tensor) and given.operands:
        raise OperandTypeError(f"{called} takes parameters, not {describe(given)}: give it mg.Graph(loss).parameters")
    if isinstance(given, Tensor):
        raise OperandTypeError(f"{called} takes a list of parameters: write [{given.name or 'parameter'}]")
    if isinstance(given, Graph):
        raise OperandTypeError(f"{called} takes a list of parameters, as graph.parameters is, not the graph")
    if not isinstance(given, Iterable):
        raise OperandTypeError(f"{called} takes a list of parameters, not {type(given).__name__}")
    found = list(given)
    if not found:
        raise OperandError(f"{called} was given no parameters")
    return found


def leaves(found: list[Any], whose: str) -> list[Tensor]:
    """The leaves that need a gradient; parameters that are frozen, by `requires_grad = False`, are passed over."""
    found = [each for each in found if not (isinstance(each, Parameter) and not each.requires_grad)]
    if not found:
        raise OperandError(f"{whose} was given frozen parameters only (requires_grad is False)")
    for each in found:
        if not isinstance(each, Tensor) or each.operands or not each.requires_grad:
            what = describe(each) if isinstance(each, Tensor) else repr(each)[:60]
            raise OperandTypeError(
                f"{whose} changes parameters, and {what} is none: give it leaves that need a gradient, as "
                "net.parameters of a graph or model.parameters() of a module are"
            )
    return found
