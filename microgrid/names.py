"""What the nodes of a graph are called: the user's names, after those of their parts, and numbers for the rest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from microgrid.errors import NameClashError
from microgrid.leaves import Input, Parameter, State
from microgrid.scope import Scope
from microgrid.tensor import Tensor


def kind_of(node: Tensor) -> str:
    """parameter, input, state, the operation's name, or constant."""
    for kind in (Parameter, Input, State):
        if isinstance(node, kind):
            return kind.__name__.lower()
    return node.primitive.name if node.primitive is not None else "constant"


def origin(node: Tensor, aliases: Mapping[Tensor, str]) -> str:
    """What a named node is and where it got its name, for an error."""
    where = "by a keyword of mg.Graph" if node in aliases else f"at {node.place}"
    return f"{kind_of(node)} of shape {node.shape}, named {where}"


def unique_names(nodes: Sequence[Tensor], aliases: Mapping[Tensor, str]) -> dict[Tensor, str]:
    """A name for every node: the user's, or its kind with a number."""
    names: dict[Tensor, str] = {}
    owners: dict[str, Tensor] = {}
    within = unique_scopes([node._name.scope for node in nodes if node._name is not None])
    for node in nodes:
        name = aliases.get(node) or name_within(node, within)
        if name is None:
            continue
        if name in owners and node.place is None and node not in aliases:  # copies of two unrolled windows
            continue
        if name in owners:
            other = owners[name]
            raise NameClashError(
                f"two nodes are named {name!r}: {origin(other, aliases)}, and {origin(node, aliases)}. "
                "Rename one of them."
            )
        names[node], owners[name] = name, node
    counts: dict[str, int] = {}
    for node in nodes:
        if node in names:
            continue
        kind = name_within(node, within) or kind_of(node)
        while True:
            counts[kind] = counts.get(kind, 0) + 1
            name = f"{kind}_{counts[kind]}"
            if name not in owners:
                break
        names[node], owners[name] = name, node
    return {node: names[node] for node in nodes}


def name_within(node: Tensor, within: Mapping[Scope, str]) -> str | None:
    """The name of a node with the name of its scope before it."""
    if node._name is None:
        return None
    scope = node._name.scope
    return f"{within[scope]}.{node._name.text}" if scope is not None and within[scope] else node._name.text


def unique_scopes(scopes: Sequence[Scope | None]) -> dict[Scope, str]:
    """A name for every scope and those around it; parts of one name are numbered as they come."""
    alike: dict[tuple[str, str], list[Scope]] = {}
    found = dict.fromkeys(each for scope in scopes if scope is not None for each in scope.path)
    around: dict[Scope, str] = {}
    for depth in range(max((len(scope.path) for scope in found), default=0)):
        level = [scope for scope in found if len(scope.path) == depth + 1]
        for scope in level:
            outer = around[scope.parent] if scope.parent is not None else ""
            alike.setdefault((outer, scope.name or ""), []).append(scope)
        for scope in level:
            outer = around[scope.parent] if scope.parent is not None else ""
            twins = alike[outer, scope.name or ""]
            number = f"_{twins.index(scope) + 1}" if scope.name and len(twins) > 1 else ""
            around[scope] = ".".join(part for part in (outer, f"{scope.name or ''}{number}") if part)
    return around
