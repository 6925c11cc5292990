"""The leaves of a graph: tensors, parameters, inputs, and the states that close its cycles."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from microgrid.errors import CyclicGraphError, GradientError, OperandTypeError, StateError
from microgrid.ops.time import DELAY, DELAY_BACK
from microgrid.scope import current_scope
from microgrid.tensor import PYTHON_NUMBERS, ArrayLike, Tensor, caller_place, describe, number_array


class Parameter(Tensor):
    """A leaf that training changes; the same object in every timestep (weight sharing)."""

    __slots__ = ()


class Input(Tensor):
    """A leaf that takes a new value at every timestep; its `value` is the example, that of step 0."""

    __slots__ = ()
    is_new_at_every_timestep = True

    draws_itself = False
    """Whether inputs of this class draw a sequence by themselves where a run gives them none, as dropout masks do."""

    def drawn(self, steps: int, shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
        """A sequence of so many values of a shape, where a gradient is computed."""
        raise NotImplementedError

    def without_drawing(self, steps: int, shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
        """A sequence of so many values of a shape, where only values are asked for."""
        raise NotImplementedError


class State(Tensor):
    """The value that another node, `next`, had one timestep ago; in a `reverse` state, has one timestep later.

    The edge from `next` back to the state is the delay: the only edge that may close a cycle. At the
    first timestep, in a reverse state at the last, the state has its `initial` value.
    """

    __slots__ = ("_next", "_next_place", "any_batch", "reverse")
    is_new_at_every_timestep = True

    _next: Tensor | None
    _next_place: str
    reverse: bool
    any_batch: bool
    """Whether its first axis is the batch and every sequence starts alike, so that it starts in any batch."""

    @property
    def initial(self) -> Tensor:
        """The value at the first timestep, as a node; a learnable one receives its gradient."""
        (start,) = self.operands
        return start

    @property
    def next(self) -> Tensor:
        """The node whose value the state takes one timestep later, a reverse state one earlier; set it once.

        Raises StateError if it is read before it is set, set twice, or of another shape or dtype
        than the initial value.
        """
        if self._next is None:
            raise StateError(f"{describe(self)} has no next yet: set {self.name or 'state'}.next = ...")
        return self._next

    @next.setter
    def next(self, node: Tensor) -> None:
        name = self.name or "state"
        if not isinstance(node, Tensor):
            raise OperandTypeError(f"{name}.next takes a Tensor, not {type(node).__name__}")
        if self._next is not None:
            raise StateError(
                f"{name}.next was set before, at {self._next_place}: a state has one next. "
                "Make a second mg.state(...) for a second recurrence."
            )
        for what, found, started, advice in (
            ("shape", node.shape, self.shape, f"of the shape of its next: mg.state(np.zeros({node.shape}))"),
            ("dtype", node.dtype, self.dtype, f"of that dtype, such as {example_of(node)}"),
        ):
            if found != started:
                called = describe(node, 2) if node.name or node.primitive else "a tensor"
                own = f" {self.name!r}" if self.name else ""
                raise StateError(
                    f"{name}.next is {called} of {what} {found}, but the state{own} starts with {what} {started}. "
                    f"Give it an initial value {advice}."
                )
        self._next = node
        self._next_place = caller_place(2)

    @classmethod
    def _check_backward(cls, root: Tensor, order: list[Tensor], called: Callable[[], str]) -> None:
        from microgrid.graph import Graph  # above this module: only a refusal looks there

        delayed = [node for node in order if isinstance(node, State) and node._next is not None]
        if not delayed:
            return
        name = called()
        variable = name.strip("'") if name.startswith("'") else "output"
        advice = f"Unroll first: mg.Graph({variable}).unroll(...).backward()."
        cycles = Graph(root).cycles
        if cycles:
            raise CyclicGraphError(
                f"{name} depends on {cycles[0].states[0].name or 'a state'!r}, which feeds itself: {cycles[0]}. "
                f"Plain backpropagation would never end, or would stop after one timestep. {advice}"
            )
        raise StateError(
            f"{name} depends on {describe(delayed[0])}, whose value is that of {describe(delayed[0].next)} one "
            f"timestep {'later' if delayed[0].reverse else 'earlier'}: plain backpropagation would stop there. {advice}"
        )


def example_of(node: Tensor) -> str:
    """How to write a value of a node's shape and dtype."""
    if node.shape:
        return f"np.zeros({node.shape}, np.{node.dtype})"
    return "0.0" if node.dtype == np.float64 else f"np.{node.dtype}(0)"


def tensor(value: ArrayLike, *, name: str | None = None, requires_grad: bool | None = None) -> Tensor:
    """A leaf of the graph: a number or array to compute with and to differentiate by.

    Parameters
    ----------
    value : number or array-like, any shape
        A Python number stays one, so scalar programs are fast; anything else becomes an array. The
        Tensor owns a copy.
    name : str, optional
        Shown in pictures and errors.
    requires_grad : bool, optional
        Whether `backward` computes its gradient. By default, if it holds floats.

    Raises
    ------
    OperandTypeError
        If `value` is no array of numbers.
    GradientError
        If `requires_grad=True` is asked of integers or booleans, which have no gradient.

    Examples
    --------
    >>> import microgrid as mg
    >>> x = mg.tensor([1.0, 2.0], name="x")
    >>> mg.sum(x * x).backward()
    >>> x.grad.tolist()
    [2.0, 4.0]
    """
    leaf = Tensor(leaf_value(value))
    set_up_leaf(leaf, name, requires_grad)
    return leaf


def set_up_leaf(leaf: Tensor, name: str | None, requires_grad: bool | None) -> None:
    """Name a new leaf after the place two calls up, and decide whether it needs a gradient."""
    leaf.scope = current_scope()
    if name is not None:
        leaf.rename(name, caller_place(3))
    differentiable = np.issubdtype(leaf.dtype, np.floating)
    if requires_grad and not differentiable:
        raise GradientError(
            f"{describe(leaf)} holds {leaf.dtype}, which has no gradient: a gradient needs real numbers. "
            "Write 2.0 instead of 2, or array.astype(float)."
        )
    leaf.requires_grad = differentiable if requires_grad is None else requires_grad


def leaf_value(value: ArrayLike) -> Any:
    """A value of the Tensor's own: Python numbers as they are, all else copied into an array."""
    if type(value) in PYTHON_NUMBERS:
        return value
    return np.array(value.value if isinstance(value, Tensor) else number_array(value))


def parameter(value: ArrayLike, *, name: str | None = None) -> Parameter:
    """A leaf that training changes, shared by all timesteps.

    Parameters
    ----------
    value : float or array of floats, any shape
        Where training starts.
    name : str, optional
        Shown in pictures and errors, and the key of its gradient.

    Raises
    ------
    GradientError
        If `value` holds integers.

    Examples
    --------
    >>> import numpy as np
    >>> mg.parameter(np.zeros((3, 2)), name="W").shape
    (3, 2)
    """
    leaf = Parameter(leaf_value(value))
    set_up_leaf(leaf, name, requires_grad=True)
    return leaf


def input(example: ArrayLike, *, name: str | None = None, requires_grad: bool | None = None) -> Input:
    """A leaf that takes a new value at every timestep.

    Parameters
    ----------
    example : number or array, the shape of one timestep
        The value at step 0, so that operations run, and fail, where they are written.
    name : str, optional
        The keyword by which `unroll` takes its sequence.
    requires_grad : bool, optional
        Whether the gradient with respect to it is computed; by default, if it holds floats.

    Examples
    --------
    >>> import numpy as np
    >>> mg.input(np.zeros((8, 3)), name="x").shape     # (batch, features)
    (8, 3)
    """
    leaf = Input(leaf_value(example))
    set_up_leaf(leaf, name, requires_grad)
    return leaf


def state(initial: ArrayLike, *, name: str | None = None, reverse: bool = False) -> State:
    """A leaf whose value at step t is what its `next` was at step t−1.

    Parameters
    ----------
    initial : number, array or Tensor, the shape of the state
        The value at step 0. A Tensor, such as a parameter, is learnable: it receives its gradient.
    name : str, optional
        Shown in pictures and errors; the key of its final value.
    reverse : bool, optional
        Run backwards in time: the value at step t is that of `next` at step t+1, and `initial` is the
        value at the last step. With a forward state beside it the network is bidirectional.

    Examples
    --------
    >>> import numpy as np
    >>> U = mg.parameter(0.5 * np.eye(2), name="U")
    >>> h = mg.state(np.ones((1, 2)), name="h")
    >>> h.next = mg.tanh(h @ U)
    >>> mg.Graph(h.next).cycles
    [Cycle(h → matmul → tanh → h)]

    A sum of what is still to come:

    >>> x, rest = mg.input(0.0, name="x"), mg.state(0.0, name="rest", reverse=True)
    >>> rest.next = rest + x
    >>> mg.Graph(rest.next).unroll(x=[1.0, 2.0, 3.0]).values(rest.next).tolist()
    [6.0, 5.0, 3.0]
    """
    if isinstance(initial, Tensor):
        start = initial
    else:
        start = Tensor(leaf_value(initial))
        start.requires_grad = bool(np.issubdtype(start.dtype, np.floating))
    differentiable = bool(np.issubdtype(start.dtype, np.floating))  # later values may need one where the first does not
    leaf = State(start.value, DELAY_BACK if reverse else DELAY, start, requires_grad=differentiable)
    leaf._next = None
    leaf.scope = current_scope()
    leaf.reverse = bool(reverse)
    leaf.any_batch = False
    if name is not None:
        leaf.rename(name, caller_place(2))
    return leaf
