"""Graph: the nodes behind some outputs, the delay edges included, with a name for each."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import networkx as nx

from microgrid.errors import CausalityError, OperandTypeError, UnknownNameError, did_you_mean
from microgrid.leaves import Input, Parameter, State
from microgrid.names import kind_of, short_names, unique_names
from microgrid.ops.time import is_spread_over_time
from microgrid.tensor import ArrayLike, Tensor, describe

if TYPE_CHECKING:
    from microgrid.cycles import Cycle
    from microgrid.unroll import Unrolled


Node = TypeVar("Node", bound=Tensor, covariant=True)


class Nodes(tuple[Node, ...]):
    """A tuple of nodes that knows them by identity: == on Tensors compares elements.

    >>> a, b = mg.tensor(1.0), mg.tensor(1.0)
    >>> b in (a,), b in Nodes([a])
    (True, False)
    """

    def __contains__(self, node: object) -> bool:
        return any(node is own for own in self)

    def index(self, node: Any, *bounds: Any) -> int:
        return [id(own) for own in self].index(id(node), *bounds)


class Graph:
    """A recorded network: everything its outputs depend on, in this timestep or an earlier one.

    Parameters
    ----------
    *outputs : Tensor
        The nodes of interest, such as the loss.
    **named_outputs : Tensor
        The same, under a name by which the graph knows them.

    Attributes
    ----------
    nodes : tuple of Tensor
        Operands before the operations that read them; delay edges do not count.
    outputs : tuple of Tensor
    inputs, parameters, states : tuple of Tensor
        The leaves of each kind.
    varying : frozenset of Tensor
        The nodes with a value per timestep; all others have one for the whole sequence.
    aliases : dict of Tensor → str
        The names given to outputs by keyword.

    Raises
    ------
    NameClashError
        If two nodes have the same name.
    StateError
        If a state has no `next`.
    CausalityError
        If the initial value of a state, or what is unstacked, changes over time.

    Examples
    --------
    >>> x, h = mg.input(1.0, name="x"), mg.state(0.0, name="h")
    >>> h.next = mg.tanh(x + 0.5 * h)
    >>> net = mg.Graph(h.next)
    >>> net.cycles
    [Cycle(h → multiply → add → tanh → h)]
    >>> net["tanh_1"] is h.next
    True
    """

    def __init__(self, *outputs: Tensor, **named_outputs: Tensor) -> None:
        self.outputs = Nodes((*outputs, *named_outputs.values()))
        if not self.outputs:
            raise OperandTypeError("mg.Graph() needs at least one output: mg.Graph(loss)")
        for output in self.outputs:
            if not isinstance(output, Tensor):
                raise OperandTypeError(f"mg.Graph takes Tensors, not {type(output).__name__} {output!r:.60}")
        self.nodes = Nodes(nodes_behind(self.outputs))
        self._named_outputs = named_outputs
        self.aliases = {node: name for name, node in reversed(named_outputs.items())}
        for state in self.states:
            if state.initial in self.varying:
                raise CausalityError(
                    f"the initial value of {self.names[state]!r}, {describe(state.initial)}, changes over time; "
                    f"it must be known before the {'last' if state.reverse else 'first'} timestep"
                )
        for node in self.nodes:
            if is_spread_over_time(node) and node.operands[0] in self.varying:
                raise CausalityError(
                    f"time_unstack takes one value for the whole sequence, of shape (time, ...), but "
                    f"{describe(node.operands[0])} has a value at every timestep already"
                )
        _ = self.names  # names that clash are refused at once

    @classmethod
    def of_checked(cls, outputs: Sequence[Tensor]) -> Graph:
        """The graph behind nodes that stand for those of a graph checked before: its names are made when asked for."""
        graph = cls.__new__(cls)
        graph.outputs = Nodes(outputs)
        graph.nodes = Nodes(nodes_behind(graph.outputs))
        graph._named_outputs, graph.aliases = {}, {}
        return graph

    @functools.cached_property
    def inputs(self) -> Nodes[Input]:
        return Nodes([node for node in self.nodes if isinstance(node, Input)])

    @functools.cached_property
    def parameters(self) -> Nodes[Parameter]:
        return Nodes([node for node in self.nodes if isinstance(node, Parameter)])

    @functools.cached_property
    def states(self) -> Nodes[State]:
        return Nodes([node for node in self.nodes if isinstance(node, State)])

    @functools.cached_property
    def varying(self) -> frozenset[Tensor]:
        return frozenset(varying_nodes(self.nodes))

    @functools.cached_property
    def readers(self) -> dict[Tensor, list[Tensor | None]]:
        """For each node those that read it, once per operand, through delays too; None stands for an output."""
        readers: dict[Tensor, list[Tensor | None]] = {node: [] for node in self.nodes}
        for tail, head, _ in self.edges():
            readers[tail].append(head)
        for output in self.outputs:
            readers[output].append(None)
        return readers

    @functools.cached_property
    def names(self) -> dict[Tensor, str]:
        """A name for every node: the user's, or one made of its operation and a number."""
        return unique_names(self.nodes, self.aliases)

    @functools.cached_property
    def _by_name(self) -> dict[str, Tensor]:
        return {**self._named_outputs, **{name: node for node, name in self.names.items()}}

    @functools.cached_property
    def _by_short_name(self) -> dict[str, Tensor]:
        """The nodes by what pictures write: their names without the scopes that they do not need."""
        return {name: node for node, name in short_names(self.names).items()}

    @functools.cached_property
    def components(self) -> list[list[Tensor]]:
        """The strongly connected components, delays included, in an order in which they can be computed."""
        from microgrid.cycles import strong_components

        return strong_components(self)

    @functools.cached_property
    def cycles(self) -> list[Cycle]:
        """The recurrences: strongly connected components that contain a delay."""
        from microgrid.cycles import find_cycles

        return find_cycles(self)

    def unroll(
        self,
        sequences: Mapping[str, Sequence[ArrayLike] | ArrayLike] | None = None,
        /,
        *,
        steps: int | None = None,
        initial: Mapping[Any, ArrayLike] | None = None,
        **named_sequences: Sequence[ArrayLike] | ArrayLike,
    ) -> Unrolled:
        """The ordinary acyclic graph with one copy of the varying nodes per timestep. See `mg.unroll`."""
        from microgrid.unroll import unroll

        return unroll(self, {**(sequences or {}), **named_sequences}, steps=steps, initial=initial)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the network, with its parameters as they are now, to a safetensors file. See `mg.files.save`.

        Raises
        ------
        FileFormatError
            If something in it cannot be held by a file.
        OSError
            If the file cannot be written; an older one stays as it was.

        Examples
        --------
        >>> import tempfile
        >>> W = mg.parameter([2.0, 3.0], name="W")
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     mg.Graph(y=W * W).save(folder + "/squares.safetensors")
        ...     mg.load(folder + "/squares.safetensors")
        Graph(y: 2 nodes, 1 parameter)
        """
        from microgrid.files.model import save

        save(self, path)

    def backward(self, gradient: Any = None) -> None:
        """Backpropagation from the only output; refused where it depends on a state: unroll first."""
        self.output.backward(gradient)

    @property
    def output(self) -> Tensor:
        """The only output."""
        if len(self.outputs) > 1:
            raise UnknownNameError(f"the graph has {len(self.outputs)} outputs: take one of graph.outputs")
        return self.outputs[0]

    def find(self, key: str | Tensor) -> Tensor:
        """The node of this name, or the node itself if it is part of the graph."""
        if isinstance(key, Tensor):
            if key in self.names:
                return key
            raise UnknownNameError(f"{describe(key)} is no node of this graph")
        if (
            key not in self._by_name and isinstance(key, str) and key.endswith((".next", "′"))
        ):  # "h.next", which pictures write h′
            name = key.removesuffix(".next").removesuffix("′")
            state = self._by_name.get(name, self._by_short_name.get(name))
            if isinstance(state, State):
                return state.next
        if key not in self._by_name and key in self._by_short_name:
            return self._by_short_name[key]
        if key not in self._by_name:
            raise UnknownNameError(f"the graph has no node {key!r}. {did_you_mean(key, self._by_name)}")
        return self._by_name[key]

    def __getitem__(self, name: str | Tensor) -> Tensor:
        return self.find(name)

    def __contains__(self, key: object) -> bool:
        try:
            self.find(key)  # type: ignore[arg-type]
        except UnknownNameError:
            return False
        return True

    def __iter__(self) -> Iterator[Tensor]:
        return iter(self.nodes)

    def __len__(self) -> int:
        return len(self.nodes)

    def __repr__(self) -> str:
        outputs = ", ".join(self.names[output] for output in self.outputs)
        counts = [
            f"{len(self.nodes)} nodes",
            *(
                f"{len(group)} {word if len(group) == 1 else word + 's'}"
                for group, word in [(self.parameters, "parameter"), (self.inputs, "input"), (self.states, "state")]
                if group
            ),
        ]
        return f"Graph({outputs}: {', '.join(counts)})"

    def zero_grad(self) -> None:
        """Forget the gradients of all nodes."""
        for node in self.nodes:
            node.zero_grad()

    def edges(self) -> Iterator[tuple[Tensor, Tensor, str]]:
        """(from, to, kind), in the direction of computation; kind is operand, initial or delay."""
        for node in self.nodes:
            kind = "initial" if isinstance(node, State) else "operand"
            for operand in node.operands:
                yield operand, node, kind
            if isinstance(node, State):
                yield node.next, node, "delay"

    def to_networkx(self) -> nx.MultiDiGraph[str]:
        """The graph for networkx, nodes by name.

        Nodes carry `tensor`, `op`, `shape` and `varies`; edges carry `kind`: operand, initial or delay.
        """
        exported: nx.MultiDiGraph[str] = nx.MultiDiGraph()
        for node in self.nodes:
            exported.add_node(
                self.names[node], tensor=node, op=kind_of(node), shape=node.shape, varies=node in self.varying
            )
        for tail, head, kind in self.edges():
            exported.add_edge(self.names[tail], self.names[head], kind=kind)
        return exported


def nodes_behind(outputs: Sequence[Tensor]) -> list[Tensor]:
    """All nodes the outputs depend on, through operands and delays, operands first."""
    order: list[Tensor] = []
    seen: set[Tensor] = set()
    roots = list(reversed(outputs))
    while roots:
        stack: list[Tensor | None] = [roots.pop()]
        while stack:
            node = stack.pop()
            if node is None:  # all operands of the node below are done
                done = stack.pop()
                assert done is not None
                order.append(done)
                if isinstance(done, State):
                    roots.insert(0, done.next)
            elif node not in seen:
                seen.add(node)
                new = [x for x in node.operands if x not in seen]
                if new or isinstance(node, State):
                    stack += [node, None, *reversed(new)]
                else:
                    order.append(node)
    return order


def varying_nodes(nodes: Sequence[Tensor]) -> set[Tensor]:
    """The nodes that have a value per timestep, given all nodes with operands first."""
    varying: set[Tensor] = set()
    for node in nodes:
        primitive = node.primitive
        if primitive is None or primitive.at_timestep is not None:
            varies = isinstance(node, Input | State) or primitive is not None
        else:
            varies = isinstance(node, State) or (primitive.over_time is None and not varying.isdisjoint(node.operands))
        if varies:
            varying.add(node)
    return varying
