"""Random recurrent networks, each as Tensors and as an interpreter of what it means.

test_bptt holds the unrolled graph against the interpreter; the tests of the compiled program and of the
adjoint hold those against the unrolled graph.
"""

import numpy as np

import microgrid as mg

TINY = 1e-30  # the step of complex-step differentiation, which has no rounding to speak of


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


SHAPES = [(), (3,), (2, 1), (1, 3), (2, 3)]  # all of which broadcast to (2, 3)
UNARY = {
    "tanh": (mg.tanh, np.tanh),
    "sin": (mg.sin, np.sin),
    "sigmoid": (mg.sigmoid, sigmoid),
    "scaled": (lambda a: 0.5 * a + 0.1, lambda a: 0.5 * a + 0.1),
    "total": (lambda a: mg.sum(a) / 6, lambda a: np.sum(a) / 6),
    "row": (
        lambda a: mg.mean(mg.broadcast_to(a, (2, 3)), axis=0),
        lambda a: np.mean(np.broadcast_to(a, (2, 3)), axis=0),
    ),
}
BINARY = {
    "add": (lambda a, b: 0.5 * (a + b), lambda a, b: 0.5 * (a + b)),
    "subtract": (lambda a, b: 0.5 * (a - b), lambda a, b: 0.5 * (a - b)),
    "multiply": (lambda a, b: a * b, lambda a, b: a * b),
    "divide": (lambda a, b: a / (2 + mg.sin(b)), lambda a, b: a / (2 + np.sin(b))),
}
OVER_TIME = {
    "time_sum": (lambda a: 0.3 * mg.time_sum(a), lambda values: 0.3 * sum(values)),
    "time_mean": (mg.time_mean, lambda values: sum(values) / len(values)),
    "first": (mg.first, lambda values: values[0]),
    "last": (mg.last, lambda values: values[-1]),
    "time_stack": (
        lambda a: mg.tanh(mg.mean(mg.time_stack(a), axis=0)),
        lambda values: np.tanh(np.mean(np.stack(values), axis=0)),
    ),
}

PICKS = np.array([1, 0, 1, 1]), np.array([0, 2, 2, 0])


def whole(a):
    """`a` in the shape to which all broadcast: the same word for Tensors and arrays."""
    return a if np.shape(a) == (2, 3) else np.broadcast_to(a, (2, 3))


def gates(a, concatenate, tanh, sine):
    """What an LSTM does: one array, cut, each part by itself, and joined; here along the last axis."""
    return concatenate([tanh(whole(a)[:, 1:]), sine(whole(a)[:, :1])], axis=1)


MORE_UNARY = {  # operations that move elements, on views of views; with the shape of the result
    "gates": (
        (2, 3),
        lambda a: gates(a, mg.concatenate, mg.tanh, mg.sin),
        lambda a: gates(a, np.concatenate, np.tanh, np.sin),
    ),
    "flipped": ((2, 3), lambda a: mg.flip(whole(a), 1), lambda a: np.flip(whole(a), 1)),
    "summed": ((2, 3), lambda a: 0.5 * mg.cumsum(whole(a), axis=1), lambda a: 0.5 * np.cumsum(whole(a), axis=1)),
    "picked": (
        (),
        lambda a: mg.mean(whole(a)[PICKS]),
        lambda a: np.mean(whole(a)[PICKS]),
    ),
    "reshaped": (
        (2, 3),
        lambda a: mg.reshape(mg.transpose(whole(a)), (2, 3)),
        lambda a: np.reshape(np.transpose(whole(a)), (2, 3)),
    ),
    "softmax": (
        (2, 3),
        lambda a: mg.softmax(whole(a), axis=0),
        lambda a: np.exp(whole(a)) / np.sum(np.exp(whole(a)), axis=0),
    ),
    "gram": (
        (3,),
        lambda a: mg.tanh(mg.mean(mg.transpose(whole(a)) @ whole(a), axis=0)),
        lambda a: np.tanh(np.mean(np.transpose(whole(a)) @ whole(a), axis=0)),
    ),
    "line": ((3,), lambda a: mg.squeeze(whole(a)[1:], axis=0), lambda a: whole(a)[1]),
    "column": ((2, 1), lambda a: whole(a)[:, 1:2], lambda a: whole(a)[:, 1:2]),
}
MORE_BINARY = {  # with results of the shape to which all broadcast
    "joined": (
        lambda a, b: mg.concatenate([whole(a), whole(b)], axis=1)[:, 1:4],
        lambda a, b: np.concatenate([whole(a), whole(b)], axis=1)[:, 1:4],
    ),
    "stacked": (
        lambda a, b: mg.mean(mg.stack([whole(a), 2.0 * whole(b), whole(a)]), axis=0),
        lambda a, b: np.mean(np.stack([whole(a), 2.0 * whole(b), whole(a)]), axis=0),
    ),
    "product": (
        lambda a, b: mg.tanh(whole(a) @ mg.transpose(whole(b)) @ whole(b)),
        lambda a, b: np.tanh(whole(a) @ np.transpose(whole(b)) @ whole(b)),
    ),
}
BINARY_TOO = {**BINARY, **MORE_BINARY}
UNARY_TOO = {**UNARY, **{name: words for name, (_, *words) in MORE_UNARY.items()}}
RESULT_SHAPES = {"total": (), "row": (3,), **{name: shape for name, (shape, *_) in MORE_UNARY.items()}}


def fitted(a, shape):
    """`a` brought to `shape`, by means and broadcasting: the same words for Tensors and arrays."""
    full = np.broadcast_to(a, (2, 3))
    axes = tuple(i for i, n in enumerate((1,) * (2 - len(shape)) + shape) if n == 1)
    return np.reshape(np.mean(full, axis=axes) if axes else full, shape)


class RandomNetwork:
    """A recurrent network of one random program, as Tensors and as an interpreter of what it means.

    The program is in stages. A stage has states of its own, reads the stages before it and their
    reductions over time, and is reduced over time at its end, so that no cycle needs its own future.

    With `both_directions` each stage runs forwards or backwards in time, and delays of either direction
    stand beside its states; and operations that move elements are drawn too. Without `stacks` none stacks time.
    """

    def __init__(self, seed, both_directions=False, steps=None, stacks=True):
        self.rng = rng = np.random.default_rng(seed)
        self.both_directions = both_directions
        self.over_time = [name for name in OVER_TIME if stacks or name != "time_stack"]
        self.unary, self.binary = (UNARY_TOO, BINARY_TOO) if both_directions else (UNARY, BINARY)
        self.steps = int(rng.integers(1, 6)) if steps is None else steps
        self.nodes = []  # (kind, details...), operands by number
        self.shapes = []
        self.varies = []
        self.arrays = {}  # number of a leaf → its value, or its sequence
        self.nexts = {}
        self.reverse = {}  # number of a state → whether it runs backwards
        for _ in range(rng.integers(1, 3)):
            self.leaf("input", SHAPES[rng.integers(5)], varies=True)
        for _ in range(rng.integers(2, 5)):
            self.leaf("parameter", SHAPES[rng.integers(5)], varies=False)
        square = self.leaf("parameter", (3, 3), varies=False)
        readable = [i for i in range(len(self.nodes)) if i != square]
        ends = []
        for _ in range(rng.integers(1, 4 if both_directions else 3)):
            earlier, reverse = list(readable), bool(both_directions and rng.random() < 0.5)
            states = [self.state(readable, reverse) for _ in range(rng.integers(1, 4))]
            readable += states
            for _ in range(rng.integers(3, 10)):
                readable.append(self.operation(readable, states, square))
            for state in states:
                self.set_next(state, readable[-4:] if rng.random() < 0.8 else readable)
            delays = []
            if both_directions and rng.random() < 0.6:  # of what came before: no cycle, whatever its direction
                delays.append(self.state(earlier, bool(rng.random() < 0.5)))
                self.set_next(delays[0], earlier)
                readable.append(self.operation([*readable, *delays], delays, square))
            for source in (*states, *delays, *readable[-2:]):
                if self.varies[source]:
                    reduced = self.node(("over", rng.choice(self.over_time), source), self.shapes[source], False)
                    readable.append(reduced)
                    ends.append(reduced)
        self.ends = ends

    def node(self, what, shape, varies):
        self.nodes.append(what)
        self.shapes.append(shape)
        self.varies.append(varies)
        return len(self.nodes) - 1

    def leaf(self, kind, shape, varies):
        number = self.node((kind,), shape, varies)
        value = self.rng.uniform(-1, 1, size=(self.steps, *shape) if kind == "input" else shape)
        self.arrays[number] = value
        return number

    def state(self, readable, reverse):
        static = [i for i in readable if not self.varies[i]]
        start = int(self.rng.choice(static)) if self.rng.random() < 0.5 else None
        if start is None:
            start = self.leaf("parameter", SHAPES[self.rng.integers(5)], varies=False)
        number = self.node(("state", start), self.shapes[start], True)
        self.reverse[number] = reverse
        return number

    def set_next(self, state, sources):
        source = int(self.rng.choice(sources))
        if not self.rng.random() < 0.3 or self.shapes[source] != self.shapes[state]:
            source = self.node(("fit", source), self.shapes[state], self.varies[source])
        self.nexts[state] = source

    def operation(self, readable, states, square):
        rng = self.rng
        one = int(rng.choice(readable[-6:]))  # the latest nodes, so that chains are long and cycles frequent
        two = int(rng.choice(states if rng.random() < 0.6 else readable))
        if self.shapes[one][-1:] == (3,) and rng.random() < 0.4:
            return self.node(("matmul", one, square), self.shapes[one], self.varies[one])
        if rng.random() < 0.4:
            name = rng.choice(list(self.unary))
            return self.node(("unary", name, one), RESULT_SHAPES.get(name, self.shapes[one]), self.varies[one])
        name, varies = rng.choice(list(self.binary)), self.varies[one] or self.varies[two]
        shape = (2, 3) if name in MORE_BINARY else np.broadcast_shapes(self.shapes[one], self.shapes[two])
        return self.node(("binary", name, one, two), shape, varies)

    def loss(self, arrays):
        """The value by the definition of each word: a memo of (node, timestep), filled on demand."""
        memo = {}

        def value(i, t):
            key = (i, t if self.varies[i] else None)
            if key not in memo:
                memo[key] = compute(*self.nodes[i], i=i, t=t)
            return memo[key]

        def compute(kind, *details, i, t):
            if kind == "input":
                return arrays[i][t]
            if kind == "parameter":
                return arrays[i]
            if kind == "state":
                source, border = (t + 1, self.steps) if self.reverse[i] else (t - 1, -1)
                return value(details[0], None) if source == border else value(self.nexts[i], source)
            if kind == "fit":
                return fitted(value(details[0], t), self.shapes[i])
            if kind == "matmul":
                return np.tanh(value(details[0], t) @ value(details[1], t))
            if kind == "unary":
                return self.unary[details[0]][1](value(details[1], t))
            if kind == "binary":
                return self.binary[details[0]][1](value(details[1], t), value(details[2], t))
            return OVER_TIME[details[0]][1]([value(details[1], each) for each in range(self.steps)])

        return sum(np.sum(value(end, None)) * (k + 1) for k, end in enumerate(self.ends))

    def tensors(self, numbers_as_floats):
        """The same network recorded, and its leaves by number."""
        made, leaves = [], {}
        for i, (kind, *details) in enumerate(self.nodes):
            if kind in ("input", "parameter"):
                array = self.arrays[i]
                example = array[0] if kind == "input" else array
                if numbers_as_floats and example.shape == ():
                    example = float(example)
                make = mg.input if kind == "input" else mg.parameter
                node = leaves[i] = make(example, name=f"{kind}{i}")
            elif kind == "state":
                node = mg.state(made[details[0]], name=f"state{i}", reverse=self.reverse[i])
            elif kind == "fit":
                node = fitted(made[details[0]], self.shapes[i])
            elif kind == "matmul":
                node = mg.tanh(made[details[0]] @ made[details[1]])
            elif kind == "unary":
                node = self.unary[details[0]][0](made[details[1]])
            elif kind == "binary":
                node = self.binary[details[0]][0](made[details[1]], made[details[2]])
            else:
                node = OVER_TIME[details[0]][0](made[details[1]])
            made.append(node)
        for state, source in self.nexts.items():
            made[state].next = made[source]
        total = 0.0
        for k, end in enumerate(self.ends):
            total = total + mg.sum(made[end]) * (k + 1)
        return mg.Graph(loss=total), leaves

    def sequences(self, net, leaves):
        """The sequences of those inputs that the network reads, by name."""
        return {leaf.name: self.arrays[i] for i, leaf in leaves.items() if isinstance(leaf, mg.Input) and leaf in net}

    def gradients(self):
        """By complex steps through the interpreter: no differences, no rounding."""
        found = {}
        for i, array in self.arrays.items():
            gradient = found[i] = np.zeros(array.shape)
            for index in np.ndindex(array.shape):
                moved = array.astype(complex)
                moved[index] += TINY * 1j
                gradient[index] = np.imag(self.loss({**self.arrays, i: moved})) / TINY
        return found
