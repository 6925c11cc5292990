"""What the nodes of a graph are called: the user's names, after those of their parts, and numbers for the rest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

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
    for node in sorted(nodes, key=lambda node: node not in aliases and node.place is None):  # who gives way comes last
        name = aliases.get(node) or name_within(node, within)
        if name is None:
            continue
        if name in owners and node not in aliases and may_be_numbered(node, owners[name]):
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


def may_be_numbered(node: Tensor, other: Tensor) -> bool:
    """Whether a node may get a number beside another of its name: a copy, or what one line of a module made twice."""
    return node.place is None or (node._name == other._name and node._name is not None and node._name.scope is not None)


def name_within(node: Tensor, within: Mapping[Scope, str]) -> str | None:
    """The name of a node with the name of its scope before it."""
    if node._name is None:
        return None
    scope = node._name.scope
    return f"{within[scope]}.{node._name.text}" if scope is not None and within[scope] else node._name.text


def unique_scopes(scopes: Sequence[Scope | None]) -> dict[Scope, str]:
    """A name for every scope and those around it; parts of one name are numbered as they come."""
    paths = {scope: scope.path for scope in dict.fromkeys(scopes) if scope is not None}
    found = dict.fromkeys(each for path in paths.values() for each in path)
    depth = {each: number for path in paths.values() for number, each in enumerate(path)}
    levels: dict[int, list[Scope]] = {}
    for scope in found:
        levels.setdefault(depth[scope], []).append(scope)
    around: dict[Scope, str] = {}
    taken: set[str] = set()
    for number in sorted(levels):
        alike: dict[str, list[Scope]] = {}
        for scope in levels[number]:
            outer = around[scope.parent] if scope.parent is not None else ""
            alike.setdefault(".".join(part for part in (outer, scope.name or "") if part), []).append(scope)
        taken.update(alike)
        for path, twins in alike.items():
            named = [scope for scope in twins if scope.name]
            around.update((scope, path) for scope in twins if not scope.name)
            if len(named) == 1 and path not in around.values():
                around[named[0]] = path
                continue
            count = 0
            for scope in named:
                count += 1
                while f"{path}_{count}" in taken:
                    count += 1
                around[scope] = f"{path}_{count}"
                taken.add(around[scope])
    return around


def short_names(names: Mapping[Tensor, str]) -> dict[Tensor, str]:
    """Each name without the outer scopes that it does not need to be told from the others.

    >>> with mg.scope("lstm"):
    ...     h = mg.state(0.0, name="h")
    >>> h.next = mg.tanh(h)
    >>> short_names(mg.Graph(h.next).names)[h]
    'h'
    """
    shorter = {node: list(endings(node, name)) for node, name in names.items()}
    times = Counter(ending for each in shorter.values() for ending in each)
    return {node: next((ending for ending in each if times[ending] == 1), each[-1]) for node, each in shorter.items()}


def endings(node: Tensor, name: str) -> Iterator[str]:
    """A node's name with no scope before it, the innermost one, the two innermost, up to all."""
    text = node._name.text if node._name is not None else name
    outer = name[: -len(text)].rstrip(".").split(".") if name.endswith(f".{text}") else []
    yield text if outer else name
    for count in range(1, len(outer) + 1):
        if not outer[-count][:1].isdigit() or count == len(outer):  # "0.h" would read as a number
            yield ".".join([*outer[-count:], text])
