"""compile: a recorded network → a program that computes it, and its gradients, at any length.

The unrolled graph says what the numbers mean; the program is the fast way to the same numbers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

import numpy as np

from microgrid.compiled.finite import check_finite
from microgrid.compiled.lengths import LENGTHS, mask_of, padded
from microgrid.compiled.moving import Moving
from microgrid.compiled.ranges import out_of_range
from microgrid.compiled.run import Gradients, Run
from microgrid.compiled.segments import Segments
from microgrid.compiled.shapes import Recorded, recorded_for
from microgrid.compiled.stream import Stream
from microgrid.compiled.whole import Whole
from microgrid.differentiate import check_output, wanted_nodes
from microgrid.drawn_inputs import with_drawn
from microgrid.errors import GradientError, MicrogridError, OperandIndexError, SequenceError
from microgrid.execute.executors import LLVM, NUMPY, Executor, checked_name
from microgrid.execute.on_numpy import Program
from microgrid.execute.source import source_of
from microgrid.graph import Graph
from microgrid.leaves import Input
from microgrid.ops.time import TIME_STACK, is_spread_over_time
from microgrid.rewrite import Rewrites
from microgrid.schedule import Schedule
from microgrid.sequences import by_input_name, initial_values, number_of_steps, sequence_array
from microgrid.tensor import ArrayLike, Tensor, is_fixed_number

Runs: TypeAlias = Whole | Segments | Moving
"""What runs a network of some shapes."""

NOTHING: Mapping[str, Any] = {}
SHAPES_KEPT = 16
"""For how many combinations of shapes a compiled network keeps its program."""


class Compiled:
    """A network as a program: call it with sequences. Made by `mg.compile`.

    >>> x = mg.input(0.0, name="x")
    >>> total = mg.compile(mg.time_sum(x * x))
    >>> float(total(x=[1.0, 2.0]).value), float(total(x=[1.0, 2.0, 3.0]).value)
    (5.0, 14.0)
    """

    def __init__(
        self,
        graph: Graph,
        wrt: Iterable[Tensor | str] | Tensor | str | None = None,
        *,
        checkpoint_every: int | None = None,
        executor: str = "numpy",
    ) -> None:
        whole = isinstance(checkpoint_every, int | np.integer) and not isinstance(checkpoint_every, bool)
        if checkpoint_every is not None and not (whole and checkpoint_every >= 1):
            raise SequenceError(f"checkpoint_every is a number of timesteps, at least 1, not {checkpoint_every!r}")
        self.executor = checked_name(executor)
        self.graph = graph
        self.wrt = () if wrt is None and not graph.parameters else tuple(wanted_nodes(graph, wrt))
        self.loss = loss_of(graph) if self.wrt else None
        self.checkpoint_every = checkpoint_every
        self.names = {node: graph.names[node] for node in (*self.wrt, *graph.states)}
        self.draws = any(node.draws_itself for node in graph.inputs)
        self.inputs = [(graph.names[node], node) for node in graph.inputs]
        self.wrt_names = [self.names[node] for node in self.wrt]
        self.floats = [self.names[node] for node in self.wrt if type(node.value) is float]
        self.output_names = [graph.names[output] for output in graph.outputs]
        self.state_names = [graph.names[state] for state in graph.states]
        leaves = [node for node in graph.nodes if node.primitive is None and not isinstance(node, Input)]
        self.numbers = [node for node in leaves if is_fixed_number(node)]
        self.arrays = [node for node in leaves if not is_fixed_number(node)]
        self.shaped_by_length = any(node.primitive is TIME_STACK or is_spread_over_time(node) for node in graph.nodes)
        self.programs: dict[Any, Runs] = {}
        self.familiar: dict[Any, tuple[Any, int, Runs]] = {}

    def __repr__(self) -> str:
        by = ", ".join(self.names[node] for node in self.wrt) or "nothing"
        return f"Compiled({', '.join(self.output_names)}; inputs: {', '.join(n for n, _ in self.inputs)}; wrt: {by})"

    def __call__(
        self,
        sequences: Mapping[Any, Any] | None = None,
        /,
        *,
        steps: int | None = None,
        initial: Mapping[Any, ArrayLike] | None = None,
        lengths: ArrayLike | None = None,
        check: bool = False,
        **named_sequences: Any,
    ) -> Run:
        """Run the network on sequences of shape (time, *shape of the input).

        Parameters
        ----------
        sequences : mapping of input or its name → array, optional
            Or each by its name as a keyword.
        steps : int, optional
            How many timesteps; by default as many as the sequences have.
        initial : mapping of state name → array, optional
            Where the states start, instead of their own initial values; the gradient stops there.
        lengths : integers of shape (batch,), optional
            How many timesteps each sequence of the batch has. Past its end a sequence keeps its states and
            counts in no sum; a mean over batch and time is over the timesteps that there are.
        check : bool, optional
            Look at every value and raise where the first NaN or infinity appears. Slow, and keeps everything.

        Raises
        ------
        SequenceError
            If sequences differ in length, are missing, or do not have the inputs' shape or dtype.
        UnknownNameError
            If an input or state of that name does not exist.
        NotFiniteError
            With `check`, naming the node and the timestep.
        """
        usual = steps is None and initial is None and lengths is None and not check
        if sequences is None:
            given = named_sequences
        elif isinstance(sequences, Mapping):
            given = {**by_input_name(self.graph, sequences), **named_sequences}
        else:
            raise SequenceError(
                "the sequences come by the names of the inputs, as in step(x=...) or step({'x': ...}), not as "
                f"{type(sequences).__name__}"
            )
        if self.draws:
            given = with_drawn(self.graph, given, steps, initial, dropping=bool(self.wrt))
        try:
            known = self.known(given) if usual else None
            if known is not None:
                return self.result(*known[1].run(known[0], given, NOTHING))
            return self.run_anew(given, steps, initial, lengths, check)
        except IndexError as error:
            found = out_of_range(self.graph, given, lengths, lambda graph, inputs: Compiled(graph, ())(inputs).value)
            raise found or (error if isinstance(error, MicrogridError) else OperandIndexError(str(error))) from None

    def run_anew(
        self,
        given: Mapping[str, Any],
        steps: int | None,
        initial: Mapping[Any, ArrayLike] | None,
        lengths: ArrayLike | None,
        check: bool,
    ) -> Run:
        """A run on sequences that were not checked before."""
        length = number_of_steps(self.graph, given, steps)
        arrays = [sequence_array(node, name, given.get(name), length) for name, node in self.inputs]
        if isinstance(initial, Run):
            raise SequenceError("initial= takes the states of a run: pass initial=run.state")
        starts = initial_values(self.graph, initial) if initial is not None else {}
        mask = None if lengths is None else self.mask(lengths, arrays, length)
        if mask is not None:
            arrays = [padded(array, mask) for array in arrays]
        by_name = {name: array for (name, _), array in zip(self.inputs, arrays, strict=True)}
        if mask is not None:
            by_name[LENGTHS] = mask
        given_starts = {self.names[state]: start.value for state, start in starts.items()}
        if check:
            network = self.recorded(length, arrays, starts, mask is not None)
            check_finite(Whole(network, simplify=False), length, by_name, given_starts)
        program = self.specialised(length, arrays, starts, mask is not None)
        if arrays and not starts and mask is None and all(given.get(name) is x for name, x in by_name.items()):
            if len(self.familiar) >= SHAPES_KEPT:
                self.familiar.clear()
            key = tuple([each for x in arrays for each in (x.shape, x.dtype)])
            self.familiar[key] = self.leaf_values(), length, program
        return self.result(*program.run(length, by_name, given_starts))

    def known(self, given: Mapping[str, Any]) -> tuple[int, Runs] | None:
        """The length and program of sequences just like some that were checked before; a run costs microseconds."""
        if len(given) != len(self.inputs):
            return None
        key: list[Any] = []
        for name, _ in self.inputs:
            array = given.get(name)
            if type(array) is not np.ndarray:
                return None
            key += array.shape, array.dtype
        found = self.familiar.get(tuple(key))
        if found is None:
            return None
        (shapes, numbers), length, program = found
        for leaf, shape in zip(self.arrays, shapes, strict=True):
            if getattr(leaf.value, "shape", None) != shape:
                return None
        return (length, program) if [leaf.value for leaf in self.numbers] == numbers else None

    def leaf_values(self) -> tuple[list[Any], list[Any]]:
        """What of the leaves is part of the program: the shapes of arrays, and numbers."""
        return [getattr(leaf.value, "shape", None) for leaf in self.arrays], [leaf.value for leaf in self.numbers]

    def result(self, outputs: list[Any], grads: list[Any], ends: list[Any]) -> Run:
        """What a run gave, by name."""
        by_name = dict(zip(self.wrt_names, grads, strict=True))
        for name in self.floats:
            if np.ndim(by_name[name]) == 0:
                by_name[name] = float(by_name[name])
        return Run(
            dict(zip(self.output_names, outputs, strict=True)),
            Gradients(self.names, by_name),
            dict(zip(self.state_names, ends, strict=True)),
            self.wrt,
        )

    def stream(self, initial: Mapping[Any, ArrayLike] | None = None) -> Stream:
        """The network one timestep at a time, from `initial` or the states' own initial values.

        Raises
        ------
        CausalityError
            If an output needs the whole sequence: a reduction over time, or a reverse state.
        """
        return Stream(self if not self.wrt else Compiled(self.graph, (), executor=self.executor), initial)

    @property
    def schedule(self) -> Schedule:
        """What runs once, what for all timesteps at once and what step by step, for the shapes as recorded."""
        return self.as_recorded().schedule

    @property
    def source(self) -> str:
        """What runs, as Python to read, for the shapes as recorded.

        With executor="llvm" a script of loops, with a line for each number, that computes what the machine code
        computes; otherwise the functions of NumPy calls, in which a name stands for a node's array, of one timestep
        in a loop, of all elsewhere.

        >>> u, x, h = mg.parameter(0.5, name="u"), mg.input(0.0, name="x"), mg.state(0.0, name="h")
        >>> h.next = mg.tanh(u * h + x)
        >>> print(mg.compile(mg.Graph(h.next), wrt=()).source)  # doctest: +ELLIPSIS
        # before the first timestep: initial values
        ...
        # step by step, forwards: multiply_1, add_1, h_next
        def block_1(S, all_h, multiply_1, all_x, add_1, all_h_next):
            u = S[0]
            for h, x, h_next in zip(all_h, all_x, all_h_next):
                np.multiply(u, h, multiply_1)
                np.add(multiply_1, x, add_1)
                np.tanh(add_1, h_next)
        ...
        """
        program = self.as_recorded()
        if self.executor == "llvm":
            from microgrid.execute import on_llvm
            from microgrid.execute.llvm.listing import listing

            assert isinstance(program, on_llvm.Program)
            return listing(program)
        return source_of(program)

    def as_recorded(self) -> Program:
        """The program for the shapes as recorded."""
        examples = [np.asarray(node.value)[None] for _, node in self.inputs]
        spread = [len(node.operands[0]) for node in self.graph.nodes if is_spread_over_time(node)]
        executor = LLVM if self.executor == "llvm" else NUMPY
        network = self.recorded(spread[0] if spread else 1, examples, {}, False, executor.rewrites)
        return Whole(network, executor).program

    def mask(self, lengths: Any, arrays: list[Any], length: int) -> Any:
        """Which sequences of the batch have not ended at which timestep."""
        if LENGTHS in [name for name, _ in self.inputs]:
            raise SequenceError("an input of the network is called 'lengths' itself: rename it to use lengths=")
        batch = next((array.shape[1] for array in arrays if array.ndim > 1), None)
        if batch is None:
            raise SequenceError("lengths= needs an input with a batch axis, the first of every timestep")
        return mask_of(lengths.value if isinstance(lengths, Tensor) else lengths, length, batch)

    def specialised(self, length: int, arrays: list[Any], starts: Mapping[Tensor, Tensor], with_lengths: bool) -> Runs:
        """The program for these shapes, made when they are met first."""
        key = (
            tuple([(array.shape[1:], array.dtype) for array in arrays]),
            tuple([(self.names[state], start.shape) for state, start in starts.items()]),
            *map(tuple, self.leaf_values()),
            length if self.shaped_by_length else None,
            with_lengths,
        )
        found = self.programs.get(key)
        if found is None:
            for old in list(self.programs)[: max(0, len(self.programs) - SHAPES_KEPT + 1)]:
                self.programs.pop(old, None)  # not `del`: another thread may have been faster

            def made(executor: Executor) -> Whole | Segments:
                network = self.recorded(length, arrays, starts, with_lengths, executor.rewrites)
                if self.checkpoint_every:
                    return Segments(network, self.checkpoint_every, executor)
                return Whole(network, executor)

            if self.executor == "auto":
                found = Moving(made(NUMPY), lambda: made(LLVM))
            else:
                found = made(LLVM if self.executor == "llvm" else NUMPY)
            self.programs[key] = found
        return found

    def recorded(
        self,
        length: int,
        arrays: list[Any],
        starts: Mapping[Tensor, Tensor],
        with_lengths: bool,
        rewrites: Rewrites | None = None,
    ) -> Recorded:
        """The network recorded for these shapes."""
        return recorded_for(
            *(self.graph, self.wrt, self.loss, arrays, starts, length), with_lengths=with_lengths, rewrites=rewrites
        )


def loss_of(graph: Graph) -> Tensor:
    """The output to differentiate: the only one, or the only scalar with one value for the whole sequence."""
    scalars = [
        output
        for output in graph.outputs
        if output not in graph.varying and output.shape == () and output.requires_grad
    ]
    if len(graph.outputs) > 1 and len(scalars) != 1:
        names = ", ".join(repr(graph.names[output]) for output in graph.outputs)
        raise GradientError(
            f"the graph has several outputs, {names}, and not one of them alone is a scalar to differentiate. Compile "
            "the graph of the loss, or with wrt=() for the values alone."
        )
    loss = scalars[0] if scalars else graph.output
    try:
        check_output(graph, loss)
    except GradientError as error:
        raise GradientError(f"{str(error).rstrip('.')}. Or compile with wrt=() for the values alone.") from None
    return loss


def compile(
    loss_or_graph: Tensor | Graph,
    wrt: Iterable[Tensor | str] | Tensor | str | None = None,
    *,
    checkpoint_every: int | None = None,
    executor: str = "numpy",
) -> Compiled:
    """Make a network into a program, which computes the same numbers as `unroll` and `backward`, fast.

    The adjoint is built as a graph with cycles of its own, and both are scheduled together: what is in no
    cycle runs once for all timesteps, only cycles run step by step. One compiled network serves every
    length and batch size. Parameters are read at each run, so an optimiser may change them in place.

    Parameters
    ----------
    loss_or_graph : Tensor or Graph
    wrt : node, name, or several of them, optional
        By what to differentiate; by default all parameters. `wrt=()` computes the outputs alone.
    checkpoint_every : int, optional
        Keep only the states of every so many timesteps, and compute the rest of each segment again on the
        way back: the memory grows as T/k + k instead of T, the time by about a third.
    executor : "numpy", "llvm" or "auto", optional
        What runs the program. "numpy" needs nothing else and is there at once. "llvm" makes it machine code, in
        which whole recurrences run without Python and with their work fused, at several times the speed; it
        compiles for a part of a second, once for each network on this computer, and needs the extra `fast`
        (llvmlite, the compiler of Numba; "numba" is another name for it). "auto" starts on NumPy and moves over
        when the machine code is ready; results differ by rounding only.

    Returns
    -------
    Compiled
        Call it with the sequences of the inputs, each of shape (time, *shape of the input).

    Raises
    ------
    GradientError
        If there is no scalar to differentiate, and `wrt` is not ().
    MissingExtraError
        If the executor's packages are not installed.

    Examples
    --------
    >>> import numpy as np
    >>> u, x, h = mg.parameter(0.5, name="u"), mg.input(0.0, name="x"), mg.state(0.0, name="h")
    >>> h.next = u * h + x
    >>> step = mg.compile(mg.last(h.next))
    >>> run = step(x=[1.0, 0.0, 0.0])
    >>> float(run.value), run.grads["u"], float(run.state["h"])
    (0.25, 1.0, 0.25)
    """
    graph = loss_or_graph if isinstance(loss_or_graph, Graph) else Graph(loss_or_graph)
    return Compiled(graph, wrt, checkpoint_every=checkpoint_every, executor=executor)
