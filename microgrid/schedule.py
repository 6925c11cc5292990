"""Schedule: a graph → the order in which to compute it, where only the cycles run step by step.

A static node runs once, a node in no cycle once for all timesteps, a cycle as a loop over them. Nobody
marks what is which: it follows from the strongly connected components. Executors read the schedule;
it knows of none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from microgrid.cycles import check_causal, is_cyclic
from microgrid.graph import Graph
from microgrid.leaves import State
from microgrid.tensor import Tensor

Kind = Literal["once", "all", "loop"]
WORDS: dict[Kind, str] = {"once": "once", "all": "all timesteps at once", "loop": "step by step"}


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """Nodes that are computed together, operands before the operations that read them.

    Attributes
    ----------
    kind : "once", "all" or "loop"
        One value for the whole sequence; all timesteps at once; or step by step.
    nodes : tuple of Tensor
        Without the leaves, but with the states.
    reverse : bool
        Whether it must run from the last timestep to the first.
    """

    kind: Kind
    nodes: tuple[Tensor, ...]
    reverse: bool = False

    @property
    def directed(self) -> bool:
        """Whether it must run in one direction of time."""
        return any(isinstance(node, State) for node in self.nodes)


@dataclass(frozen=True, slots=True, eq=False)
class Schedule:
    """The order in which to compute a graph. `print` shows what runs step by step and what does not.

    >>> u, x, h = mg.parameter(0.5, name="u"), mg.input(0.0, name="x"), mg.state(0.0, name="h")
    >>> h.next = u * h + mg.exp(x)
    >>> schedule = mg.compile(mg.time_sum(h.next), wrt=()).schedule
    >>> schedule.operations("loop"), schedule.operations("all")      # u * h and +; exp
    (2, 1)
    """

    graph: Graph
    blocks: tuple[Block, ...]
    notes: Mapping[Block, str] = field(default_factory=dict)
    """What an executor has to say of a block."""

    def operations(self, *kinds: Kind) -> int:
        """How many operations the blocks of these kinds hold; delays are none."""
        return sum(not isinstance(node, State) for block in self.blocks if block.kind in kinds for node in block.nodes)

    def __str__(self) -> str:
        lines = [f"{heading(block):24} {self.listed(block)}{self.note(block)}" for block in self.blocks]
        inside, outside = self.operations("loop"), self.operations("all")
        lines.append(
            f"{inside} operations in loops, at every timestep; {outside} for all timesteps at once; "
            f"{self.operations('once')} once"
        )
        return "\n".join(lines)

    def __repr__(self) -> str:
        return f"Schedule({len(self.blocks)} blocks, {self.operations('loop')} operations in loops)"

    def note(self, block: Block) -> str:
        return f"  ({self.notes[block]})" if block in self.notes else ""

    def listed(self, block: Block) -> str:
        return ", ".join(
            f"{self.graph.names[node]} {'×'.join(map(str, node.shape)) or 'scalar'}" for node in block.nodes
        )


def heading(block: Block) -> str:
    if block.kind != "loop":
        return WORDS[block.kind]
    return f"{WORDS['loop']}, {'backwards' if block.reverse else 'forwards'}"


def schedule(loss_or_graph: Tensor | Graph) -> Schedule:
    """The schedule of a graph: what needs no timestep first, the rest as late as its readers allow, in few blocks.

    Raises
    ------
    CausalityError
        If a cycle holds a reduction over time, or states of both directions.

    Examples
    --------
    >>> import numpy as np
    >>> x, h = mg.input(np.zeros(3), name="x"), mg.state(np.zeros(3), name="h")
    >>> h.next = mg.tanh(x * 2.0 + h).named("y")
    >>> print(mg.schedule(mg.Graph(loss=mg.time_mean(mg.sum(h.next)))))
    all timesteps at once    multiply_1 3
    step by step, forwards   h 3, add_1 3, y 3
    all timesteps at once    sum_1 scalar
    once                     loss scalar
    2 operations in loops, at every timestep; 2 for all timesteps at once; 1 once
    """
    graph = loss_or_graph if isinstance(loss_or_graph, Graph) else Graph(loss_or_graph)
    components = [part for part in graph.components if part[0].primitive is not None]
    home = {node: i for i, part in enumerate(components) for node in part}
    kinds: list[Kind] = []
    for part in components:
        if is_cyclic(part):
            check_causal(part)
        kinds.append("loop" if is_cyclic(part) else "all" if part[0] in graph.varying else "once")

    read_by: list[set[int]] = [set() for _ in components]
    reads: list[set[int]] = [set() for _ in components]
    for tail, head, _ in graph.edges():
        if tail in home and home[tail] != home[head]:
            read_by[home[tail]].add(home[head])
            reads[home[head]].add(home[tail])

    first = {i: None for i, part in enumerate(components) if not part[0].depends_on_time()}
    waiting = [len(readers) for readers in read_by]
    ready: dict[Kind, list[int]] = {"once": [], "all": [], "loop": []}
    for i, count in enumerate(waiting):
        if not count and i not in first:
            ready[kinds[i]].append(i)
    last_first: list[Block] = []
    while any(ready.values()):  # from the end: an operation is taken when all of its readers are
        kind: Kind = next(kind for kind in ready if ready[kind])
        taken: list[int] = []
        while ready[kind]:
            ready[kind].sort()
            i = ready[kind].pop()
            taken.append(i)
            for operand in reads[i]:
                waiting[operand] -= 1
                if not waiting[operand] and operand not in first:
                    ready[kinds[operand]].append(operand)
            if kind == "loop" or (kind == "all" and isinstance(components[i][0], State)):
                break  # a direction of time: a block of its own
        nodes = tuple(node for i in reversed(taken) for node in components[i])
        reverse = any(isinstance(node, State) and node.reverse for node in nodes)
        last_first.append(Block(kind, nodes, reverse))
    if first:
        last_first.append(Block("once", tuple(components[i][0] for i in first)))
    return Schedule(graph, tuple(reversed(last_first)))
