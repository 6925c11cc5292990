"""What is written on the nodes of a diagram: names, operations, shapes, numbers."""

from __future__ import annotations

from collections.abc import Sequence

from microgrid.leaves import Input, Parameter, State
from microgrid.names import short_names
from microgrid.ops.time import is_time_reduction
from microgrid.tensor import Tensor
from viz.diagram import Diagram, Node, delay_label, direction
from viz.labels import Content, content, part_content


class Writing:
    """The contents of the boxes of one picture.

    `values` and `gradients` add the numbers that the shown tensors hold.
    """

    def __init__(self, diagram: Diagram, *, values: bool = False, gradients: bool = False) -> None:
        self.graph = diagram.graph
        self.values = values
        self.gradients = gradients
        self.recurrent = {delay.head for delay in diagram.delays if delay.head.part is not None}
        self.state_of: dict[Tensor, State] = {}
        """next → the (first) state that takes its value."""
        for state in self.graph.states:
            self.state_of.setdefault(state.next, state)
        self.short_names = short_names(self.graph.names)

    def kind(self, node: Node) -> str:
        """The kind of a node, which decides its look."""
        tensor = node.tensor
        if node.part is not None:
            word = "cell" if node in self.recurrent else "part"
            return word if set(node.members).isdisjoint(self.graph.outputs) else f"output {word}"
        if isinstance(tensor, State):
            return "output" if tensor in self.graph.outputs else "state"
        if tensor in self.graph.outputs and (tensor.operands or node.varies):
            return "output"
        if isinstance(tensor, Input):
            return "input"
        if isinstance(tensor, Parameter):
            return "parameter"
        if tensor in self.state_of:
            return "next"
        if tensor.primitive is None:
            return "leaf"
        return "reduction" if is_time_reduction(tensor) else "operation"

    def on(self, node: Node, shown: Sequence[Tensor]) -> list[Content]:
        """What to write on the copies of a node that the picture shows."""
        if node.part is not None:
            return part_content(
                node.part,
                node.members,
                shown,
                self.kind(node),
                result=self.graph.aliases.get(node.tensor),
                values=self.values,
                gradients=self.gradients,
            )
        tensor = node.tensor
        state = self.state_of.get(tensor)
        own = self.user_name(tensor)
        if own is None and isinstance(tensor, Input | Parameter | State):
            own = self.short_names[tensor]
        return content(
            shown,
            own,
            self.kind(node),
            full_name=self.full_name(tensor),
            operation=delay_label(direction(tensor)) if isinstance(tensor, State) else None,
            follows=self.short_names[state] if state is not None else None,
            operands=[self.called(operand) for operand in tensor.operands],
            values=self.values,
            gradients=self.gradients,
        )

    def user_name(self, tensor: Tensor) -> str | None:
        """The name its user gave a tensor, without the scopes that it needs not to be told from others."""
        if tensor in self.graph.aliases or tensor.name is None:
            return self.graph.aliases.get(tensor)
        return self.short_names[tensor]

    def full_name(self, tensor: Tensor) -> str | None:
        """By what the graph knows a tensor that has a name or is the next of a state."""
        state = self.state_of.get(tensor)
        if tensor in self.graph.aliases or tensor.name is not None or isinstance(tensor, Input | Parameter | State):
            return self.graph.names[tensor]
        return f"{self.graph.names[state]}′" if state is not None else None

    def called(self, tensor: Tensor) -> str | None:
        """The name by which a picture writes a node as an operand, if it has one."""
        name = self.user_name(tensor)
        if name is None and tensor in self.state_of:
            return f"{self.short_names[self.state_of[tensor]]}′"
        return name
