"""Which tensors level "cell" draws as one box: those of a scope, and outside of scopes those of a cycle."""

from __future__ import annotations

from collections.abc import Sequence

from microgrid.cycles import is_cyclic
from microgrid.graph import Graph
from microgrid.leaves import Input, Parameter, State
from microgrid.names import unique_scopes
from microgrid.scope import Scope
from microgrid.tensor import Tensor
from viz.diagram import Node, behind_time
from viz.labels import is_folded

Key = tuple[Scope | int, str]
"""A scope, or the number of a cycle; and when its nodes are computed: before, during or after the timesteps."""


class Part:
    """Tensors that will be one box, and what reads them."""

    def __init__(self, key: Key | None) -> None:
        self.key = key
        self.members: list[Tensor] = []
        self.readers: list[Part] = []

    def leads_to(self, others: Sequence[Part]) -> bool:
        """Whether one of the others needs this one in the same timestep."""
        seen: set[Part] = set()
        stack = list(self.readers)
        while stack:
            part = stack.pop()
            if part in others:
                return True
            if part not in seen:
                seen.add(part)
                stack += part.readers
        return False


def parts(graph: Graph, depth: int | None = None) -> list[Node]:
    """The parts of a network, each to be drawn as one node.

    A part is the innermost scope, or with `depth` the scope at that depth, the outermost being 1. An operation in
    no scope is part of its cycle. Where one box would need its own result in the same timestep, there are several.
    """
    keys = part_keys(graph, depth)
    of, latest = operations_by_part(graph, keys)
    for state, part in states_by_part(graph, keys, of, latest).items():
        part.members.append(state)
        of[state] = part
    for node in reversed(graph.nodes):  # a leaf of a part, or of one around it, that nothing else reads
        if node.primitive is None and not is_folded(node) and (drawn_by_itself(node) or not fed(node)):
            readers = {of.get(reader) if reader is not None else None for reader in graph.readers[node]}
            own = readers.pop() if len(readers) == 1 else None
            if own is not None and own.key is not None and may_join(node, own.key[0], keys):
                own.members.append(node)
                of[node] = own
    names = unique_scopes([scope for scope, _ in keys.values() if isinstance(scope, Scope)])
    order = {node: number for number, node in enumerate(graph.nodes)}
    found = []
    for part in dict.fromkeys(of[node] for node in graph.nodes if node in of):
        if part.key is not None and len(part.members) > 1:
            scope, members = part.key[0], tuple(sorted(part.members, key=order.__getitem__))
            name = (
                names[scope]
                if isinstance(scope, Scope)
                else called_after_states(members, graph.components[scope], graph)
            )
            varies = not graph.varying.isdisjoint(members)
            found.append(Node(result(members, graph), members, varies, name or "part"))
    return found


def may_join(leaf: Tensor, place: Scope | int, keys: dict[Tensor, Key]) -> bool:
    """Whether a leaf that one part alone reads belongs to it: made in its scope or around it, or a weight of none."""
    if leaf in keys:
        return keys[leaf][0] in around(place)
    return isinstance(leaf, Parameter) and isinstance(place, Scope)


def part_keys(graph: Graph, depth: int | None) -> dict[Tensor, Key]:
    """What decides which tensors are one part, for each tensor that may be in one."""
    late = behind_time(graph)
    cycle_of = {
        node: number for number, component in enumerate(graph.components) if is_cyclic(component) for node in component
    }
    keys: dict[Tensor, Key] = {}
    for node in graph.nodes:
        named = [scope for scope in node.scope.path if scope.name][:depth] if node.scope is not None else []
        time = "during" if node in graph.varying else "after" if node in late else "before"
        if named:
            keys[node] = named[-1], time
        elif node in cycle_of:
            keys[node] = cycle_of[node], time
    return keys


def operations_by_part(graph: Graph, keys: dict[Tensor, Key]) -> tuple[dict[Tensor, Part], dict[Key, Part]]:
    """Each operation's part, so that no part needs its own result in the same timestep; and the last of each key."""
    of: dict[Tensor, Part] = {}
    latest: dict[Key, Part] = {}
    for node in graph.nodes:
        if node.primitive is None or isinstance(node, State):
            continue
        key = keys.get(node)
        reads = list(dict.fromkeys(of[operand] for operand in node.operands if operand in of))
        part = latest.get(key) if key is not None else None
        if part is None or part.leads_to([read for read in reads if read is not part]):
            part = Part(key)
            if key is not None:
                latest[key] = part
        for read in reads:
            if read is not part:
                read.readers.append(part)
        part.members.append(node)
        of[node] = part
    return of, latest


def states_by_part(
    graph: Graph, keys: dict[Tensor, Key], of: dict[Tensor, Part], latest: dict[Key, Part]
) -> dict[State, Part]:
    """The states of a part, and those that a part sets and only parts read.

    Not those that an output, a reduction over time or a state elsewhere reads: these are drawn.
    """
    found: dict[State, Part] = {}

    def waits(reader: Tensor | None, part: Part) -> bool:
        """Whether a delay of the part's state can run to its reader."""
        if isinstance(reader, State):
            return found.get(reader) is part
        return reader is not None and reader in graph.varying

    for node in graph.states:
        ends = [of.get(node.next), *(of.get(r) if r is not None else None for r in graph.readers[node])]
        in_parts = all(part is not None and part.key is not None for part in ends)
        own = latest.get(keys[node]) if node in keys else None
        own = own or (ends[0] if in_parts else None)
        if own is not None:
            found[node] = own
    apart: list[State] | None = None
    while apart is None or apart:  # one that is left out may leave another without a reader in its part
        apart = [node for node, own in found.items() if not all(waits(r, own) for r in graph.readers[node])]
        for node in apart:
            del found[node]
    return found


def around(whole: Scope | int) -> Sequence[Scope | int]:
    """A scope and those around it, or a cycle."""
    return whole.path if isinstance(whole, Scope) else [whole]


def fed(node: Tensor) -> bool:
    """Whether its user gives a leaf its values: it is then shown."""
    return isinstance(node, Input)


def drawn_by_itself(node: Tensor) -> bool:
    return isinstance(node, Input) and node.draws_itself


def called_after_states(members: Sequence[Tensor], cycle: Sequence[Tensor], graph: Graph) -> str:
    """What a part of a cycle is called: after its own states, or where it holds none after those of the cycle."""
    own = [graph.names[node] for node in members if isinstance(node, State)]
    return ", ".join(own or [graph.names[node] for node in cycle if isinstance(node, State)])


def result(members: Sequence[Tensor], graph: Graph) -> Tensor:
    """The tensor of a part whose value the picture shows: the last that others read."""
    inside = set(members)
    operations = [node for node in members if node.primitive is not None and not isinstance(node, State)]

    def is_read_outside(node: Tensor) -> bool:
        return any(r is None or (r not in inside and not isinstance(r, State)) for r in graph.readers[node])

    return ([node for node in operations if is_read_outside(node)] or operations)[-1]
