"""Equations: the lines of networks, of every operation, and what they mean, read back and computed."""

import re
from typing import ClassVar

import networks
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import microgrid as mg
from microgrid.errors import OperandError, OperandTypeError
from microgrid.explain import equations
from microgrid.explain.typeset import latex_name
from microgrid.ops import time
from microgrid.ops.pick import add_rows, place
from microgrid.primitive import DECLARED, Primitive, record


def lines(net):
    found = equations(net)
    return [str(line) for line in found.forward], [str(line) for line in found.adjoint]


# --- networks ----------------------------------------------------------------------------------------


def test_tanh_rnn_with_its_gradients():
    forward, adjoint = lines(networks.rnn())
    assert forward == [
        "h_t = tanh(x_t W + h_{t−1} U + b)",
        "y_t = h_t V",
        "loss = (1/T) Σ_t mean((y_t − target_t)²)",
    ]
    assert adjoint == [
        "∂y_t = (y_t − target_t) / T",  # 2 / 2: the mean is over two numbers
        "∂h_t = ∂y_t Vᵀ + δ_{t+1} Uᵀ",
        "δ_t = ∂h_t ⊙ (1 − h_t²)",
        "∂W = Σ_t x_tᵀ δ_t",
        "∂U = Σ_t h_{t−1}ᵀ δ_t",
        "∂b = Σ_t Σ_{axis 0} δ_t",
        "∂V = Σ_t h_tᵀ ∂y_t",
    ]
    assert [str(line) for line in equations(networks.rnn()).where] == [
        "x_t: input, 2 × 3",
        "target_t: input, 2 × 1",
        "W: parameter, 3 × 4",
        "U: parameter, 4 × 4",
        "b: parameter, 4",
        "V: parameter, 4 × 1",
        "h_{−1} = 0",
        "δ_T = 0",
        "∂v: the gradient of loss by v",
    ]


def test_latex_of_the_tanh_rnn():
    found = equations(networks.rnn())
    assert found.forward[0].latex == r"h_t = \tanh(x_t W + h_{t-1} U + b)"
    assert found.forward[2].latex == (
        r"\mathrm{loss} = \frac{1}{T} \sum_t \operatorname{mean}((y_t - \mathrm{target}_t)^2)"
    )
    assert found.adjoint[1].latex == r"\partial h_t = \partial y_t V^\top + \delta_{t+1} U^\top"
    assert found.latex.startswith("\\begin{aligned}\nh_t &= \\tanh(")
    assert found.latex.endswith("\\end{aligned}")
    assert found._repr_latex_() == f"$${found.latex}$$"


def test_lstm_written_by_hand():
    forward, adjoint = lines(networks.lstm())
    assert "z_t = x_t W + h_{t−1} U + b" in forward
    assert "f_t = σ(z_t[:, 4:8])" in forward
    assert "c_t = f_t ⊙ c_{t−1} + i_t ⊙ g_t" in forward
    assert "h_t = o_t ⊙ tanh(c_t)" in forward
    assert adjoint[:2] == [
        "∂h_t = ∂y_t Vᵀ + ∂z_{t+1} Uᵀ",
        "∂c_t = ∂h_t ⊙ o_t ⊙ (1 − tanh(c_t)²) + ∂c_{t+1} ⊙ f_{t+1}",
    ]
    assert (
        "∂z_t = [∂i_t ⊙ i_t ⊙ (1 − i_t), ∂f_t ⊙ f_t ⊙ (1 − f_t), ∂o_t ⊙ o_t ⊙ (1 − o_t), ∂g_t ⊙ (1 − g_t²)]"
    ) in adjoint


def test_layers_have_the_gates_of_the_textbook():
    x = mg.input(np.zeros((2, 3)), name="x")
    forward, adjoint = lines(mg.Graph(y=mg.nn.LSTM(3, 4, rng=0)(x)))
    assert forward == [
        "a_t = x_t W + b + h_{t−1} U",
        "o_t = σ(a_t[…, 8:12])",
        "f_t = σ(a_t[…, 4:8])",
        "i_t = σ(a_t[…, 0:4])",
        "g_t = tanh(a_t[…, 12:16])",
        "c_t = f_t ⊙ c_{t−1} + i_t ⊙ g_t",
        "h_t = o_t ⊙ tanh(c_t)",
        "y_t = h_t",
    ]
    assert "∂W = Σ_t x_tᵀ ∂a_t" in adjoint
    assert all(len(line) < 120 for line in adjoint)
    forward, _ = lines(mg.Graph(mg.nn.GRU(3, 4, rng=0)(x)))
    assert forward[-1] == "h_t = (1 − z_t) ⊙ n_t + z_t ⊙ h_{t−1}"
    for layer in (mg.nn.GRU(3, 4, rng=0), mg.nn.LSTM(3, 4, bidirectional=True, rng=0)):
        assert all(len(line) < 220 for part in lines(mg.Graph(layer(x))) for line in part)


def test_cross_entropy_has_the_gradient_of_the_textbook():
    tokens, target = (mg.input(np.array([0, 1]), name=name) for name in ("token", "target"))
    E, W = networks.weight("E", 5, 3), networks.weight("W", 3, 5)
    scores = (mg.lookup(E, tokens) @ W).named("z")
    forward, adjoint = lines(mg.Graph(loss=mg.nn.cross_entropy(scores, target)))
    assert forward == ["z_t = E[token_t] W", "loss = (1/T) Σ_t mean(logsumexp(z_t) − z_t[target_t])"]
    assert adjoint == [
        "∂z_t = (softmax(z_t) − onehot(target_t)) / (2 T)",
        "∂E = Σ_t onehot(token_t)ᵀ (∂z_t Wᵀ)",
        "∂W = Σ_t E[token_t]ᵀ ∂z_t",
    ]


def test_scalars():
    a, b = mg.tensor(2.0, name="a"), mg.tensor(-3.0, name="b")
    found = equations(mg.tanh(a * b + 1).named("c"))
    assert str(found) == "\n".join(
        [
            "c = tanh(a · b + 1)",
            "",
            "δ = 1 − c²",
            "∂a = δ · b",
            "∂b = δ · a",
            "",
            "where",
            "    a = 2",
            "    b = −3",
            "    ∂v: the gradient of c by v",
        ]
    )


def test_delays_reverse_states_and_ends():
    forward, adjoint = lines(networks.delay_line())
    assert "d2_t = d1_{t−1}" in forward
    assert adjoint == []  # nothing to train
    found = equations(networks.reverse_rnn())
    assert str(found.forward[0]) == "k_t = tanh(x_t W + k_{t+1} U)"
    assert "k_T = k0" in map(str, found.where)
    assert "∂k0 = δ_{T−1} Uᵀ" in map(str, found.adjoint)
    assert "δ_{−1} = 0" in map(str, found.where)


def test_the_last_value_is_written_at_its_timestep():
    W, h = networks.weight("W", 3, 3), mg.state(np.zeros((1, 3)), name="h")
    h.next = mg.tanh(h @ W)
    forward, adjoint = lines(mg.Graph(y=mg.sum(mg.last(h.next @ W))))
    assert forward[1] == "y = Σ h_{T−1} W"
    assert adjoint[0] == "∂h_t = broadcast([t = T−1], shape=(1, 3)) Wᵀ + δ_{t+1} Wᵀ"


def test_two_states_that_only_pass_values_round():
    u = mg.parameter(0.5, name="u")
    a, b = mg.state(0.1, name="a"), mg.state(0.2, name="b")
    a.next, b.next = b, a
    forward, adjoint = lines(mg.Graph(loss=mg.time_sum(a * u)))
    assert {"a_t = b_{t−1}", "b_t = a_{t−1}", "loss = Σ_t a_{t−1} · u"} == set(forward)
    assert adjoint == ["∂u = Σ_t a_{t−1}"]


def test_a_graph_without_gradients_has_no_adjoint():
    x = mg.input(np.zeros(3, int), name="x")
    assert equations(mg.Graph(y=x * 2)).adjoint == ()


def test_long_networks_are_cut_into_lines():
    x = mg.parameter(0.3, name="x")
    y = x
    for _ in range(200):
        y = mg.sin(y * 0.9 + 0.1)
    found = equations(mg.Graph(y=y))
    assert max(len(str(line)) for line in (*found.forward, *found.adjoint)) < 800
    assert 10 < len(found.forward) < 100


def test_nothing_is_too_deep():
    u, x, h = mg.parameter(0.5, name="u"), mg.input(0.1, name="x"), mg.state(0.1, name="h")
    h.next = mg.tanh(u * h + x)
    dag = mg.Graph(mg.time_sum(h.next).named("loss")).unroll(steps=200)
    assert "h[199] = tanh_1[198]" in str(equations(dag.output))  # an unrolled network, line by line
    before = h.next
    for i in range(100):
        after = mg.state(0.0, name=f"d{i}")
        after.next = before
        before = after
    assert "d99_t = d98_{t−1}" in str(equations(mg.Graph(loss=mg.time_sum(before))))


def test_what_is_no_network_is_refused():
    with pytest.raises(OperandTypeError, match="equations takes a Graph or a Tensor, not list"):
        equations([1.0])


# --- every operation ---------------------------------------------------------------------------------


def varying(name, *shape):
    return mg.input(np.ones(shape), name=name)


x, y, z = (varying(name, 2, 3) for name in "xyz")
c = mg.input(np.ones((2, 3), bool), name="c")
i, k = mg.input(np.array([0, 1]), name="i"), mg.input(np.array([0, 2]), name="k")
W, P = mg.parameter(np.ones((3, 4)), name="W"), mg.parameter(np.ones((5, 3)), name="P")

WRITTEN = {
    "add": (x + y, "x_t + y_t"),
    "subtract": (x - (y - z), "x_t − (y_t − z_t)"),
    "multiply": (x * y, "x_t ⊙ y_t"),
    "divide": (x / (2 * y), "x_t / (2 y_t)"),
    "negative": (-x * y, "−x_t ⊙ y_t"),
    "power": ((-x) ** 3, "(−x_t)³"),
    "positive": (+x, "x_t"),
    "to_floats": (x.astype(np.float32), "x_t"),
    "to_others": (x.astype(np.int64), "int64(x_t)"),
    "exp": (mg.exp(x), "exp(x_t)"),
    "log": (mg.log(x), "log(x_t)"),
    "log1p": (mg.log1p(x), "log(1 + x_t)"),
    "expm1": (2 * mg.expm1(x), "2 (exp(x_t) − 1)"),
    "sqrt": (mg.sqrt(x + y), "√(x_t + y_t)"),
    "square": (mg.square(x + y), "(x_t + y_t)²"),
    "absolute": (abs(x - y), "|x_t − y_t|"),
    "sign": (mg.sign(x), "sign(x_t)"),
    "sin": (mg.sin(x), "sin(x_t)"),
    "cos": (mg.cos(x), "cos(x_t)"),
    "tanh": (mg.tanh(x), "tanh(x_t)"),
    "sigmoid": (mg.sigmoid(x), "σ(x_t)"),
    "relu": (mg.relu(x), "relu(x_t)"),
    "softplus": (mg.softplus(x), "softplus(x_t)"),
    "gelu": (mg.gelu(x), "gelu(x_t)"),
    "maximum": (mg.maximum(x, y), "max(x_t, y_t)"),
    "minimum": (mg.minimum(x, 0.0), "min(x_t, 0)"),
    "where": (mg.where(x > 0, x, y), "where(x_t > 0, x_t, y_t)"),
    "clip_between": (mg.clip(x, 0, None), "clip(x_t, 0, ∞)"),
    "getitem": (x[i, 1:], "x_t[i_t, 1:]"),
    "take": (mg.take(P, i, axis=0), "P[i_t]"),
    "matmul": ((x + y) @ W, "(x_t + y_t) W"),
    "einsum": (mg.einsum("ij,jk->ik", x, W), "einsum_{ij,jk→ik}(x_t, W)"),
    "sum": (mg.sum(x, axis=1), "Σ_{axis 1} x_t"),
    "mean": (mg.mean(x), "mean(x_t)"),
    "max": (mg.max(x), "max(x_t)"),
    "min": (mg.min(x, axis=(0, 1)), "min_{axis 0, 1}(x_t)"),
    "var": (mg.var(x), "var(x_t)"),
    "std": (mg.std(x, axis=-1), "std_{axis −1}(x_t)"),
    "prod": (mg.prod(x), "∏ x_t"),
    "cumsum": (mg.cumsum(x, axis=0), "cumsum_{axis 0}(x_t)"),
    "logsumexp": (mg.logsumexp(x, axis=-1), "logsumexp(x_t)"),
    "softmax": (mg.softmax(x), "softmax(x_t)"),
    "log_softmax": (mg.log_softmax(x, axis=0), "log_softmax_{axis 0}(x_t)"),
    "reshape": (mg.reshape(x, (3, 2)), "reshape(x_t, shape=(3, 2))"),
    "squeeze": (mg.squeeze(x[:1], axis=0), "squeeze(x_t[:1], axis=0)"),
    "expand_dims": (mg.expand_dims(x, 0), "expand_dims(x_t, axis=0)"),
    "transpose": ((x + y).T, "(x_t + y_t)ᵀ"),
    "swapaxes": (mg.swapaxes(x, -1, -2), "x_tᵀ"),
    "broadcast_to": (mg.sum(mg.broadcast_to(mg.sum(x), (2, 3))), "Σ broadcast(Σ x_t, shape=(2, 3))"),
    "flip": (mg.flip(x, 1), "flip(x_t, axis=1)"),
    "pad": (mg.pad(x, 1), "pad_1(x_t)"),
    "concatenate": (mg.concatenate([x, y, z], axis=1), "[x_t, y_t, z_t]"),
    "stack": (mg.stack([x, y]), "stack(x_t, y_t, axis=0)"),
    "lookup": (mg.lookup(P, i), "P[i_t]"),
    "pick": (mg.pick(x, k), "x_t[k_t]"),
    "place": (place(mg.sum(x, axis=1), k, 3), "(Σ_{axis 1} x_t) · onehot(k_t)"),
    "add_rows": (add_rows(x, i, 5), "onehot(i_t)ᵀ x_t"),
    "scatter_add": (None, None),
    "stop_gradient": (x.detach(), "stop_gradient(x_t)"),
    "time_sum": (mg.time_sum(x), "Σ_t x_t"),
    "time_mean": (mg.time_mean(x * y + z), "(1/T) Σ_t (x_t ⊙ y_t + z_t)"),
    "first": (mg.first(x + y), "x_0 + y_0"),
    "last": (mg.last(x @ W), "x_{T−1} W"),
    "time_stack": (mg.time_stack(x), "stack_t(x_t)"),
    "time_matmul": (time.time_matmul(x, y), "Σ_t x_tᵀ y_t"),
    "time_dot": (time.time_dot(x, y), "Σ_t Σ x_t ⊙ y_t"),
    "time_rows": (time.time_rows(x), "Σ_t Σ_{axis 0} x_t"),
    "time_add_rows": (time.time_add_rows(x, i, 5), "Σ_t onehot(i_t)ᵀ x_t"),
    "time_unstack": (mg.time_unstack(P), "P[t]"),
    "delay": (None, None),  # see the states
    "equal": (mg.equal(x, y), "[x_t = y_t]"),
    "not_equal": (mg.not_equal(x, y), "[x_t ≠ y_t]"),
    "less": (x < y, "[x_t < y_t]"),
    "less_equal": (x <= y, "[x_t ≤ y_t]"),
    "greater": (x > y, "[x_t > y_t]"),
    "greater_equal": (x >= y, "[x_t ≥ y_t]"),
    "logical_and": ((x < y) & (y < z), "[x_t < y_t ∧ y_t < z_t]"),
    "logical_or": (c & ((x < y) | c), "[c_t ∧ (x_t < y_t ∨ c_t)]"),
    "logical_not": (~c, "¬c_t"),
}


def balanced(latex):
    """Whether the braces and the brackets that grow with what they hold match."""
    bare = re.sub(r"\\[{}]", "", latex)
    depth = 0
    for character in bare:
        depth += (character == "{") - (character == "}")
        if depth < 0:
            return False
    return depth == 0 and latex.count(r"\left") == latex.count(r"\right")


@pytest.mark.parametrize("name", [name for name, (node, _) in WRITTEN.items() if node is not None])
def test_notation(name):
    node, expected = WRITTEN[name]
    found = equations(mg.Graph(out=node))
    assert found.forward[-1].right == expected
    assert all(balanced(line.aligned) for line in (*found.forward, *found.adjoint, *found.where))


def test_every_primitive_is_written_here():
    own = {name for name, declared in DECLARED.items() if declared.is_own}
    assert own - set(WRITTEN) == set()


def test_an_array_of_ones_is_no_number_to_a_product_of_matrices():
    assert equations(mg.Graph(out=x @ np.ones((3, 4)))).forward[0].right == "x_t broadcast(1, shape=(3, 4))"


def test_a_primitive_without_notation_shows_its_name_and_settings():
    @mg.primitive(vjp=lambda g, out, x, *, rate: g)
    def leak(x, rate=0.1):
        return x

    assert equations(mg.Graph(out=leak(x, 0.5))).forward[0].right == "leak(x_t, rate=0.5)"


def test_a_primitive_of_the_user_with_a_notation():
    @mg.primitive(vjp=lambda g, out, x: g, notation="x / (1 + |x|)")
    def softsign(x):
        return x

    assert equations(mg.Graph(out=2 * softsign(x + y))).forward[0].right == "2 (x_t + y_t) / (1 + |x_t + y_t|)"

    @mg.primitive(vjp=lambda g, out, x: g, notation="x +")
    def broken(x):
        return x

    with pytest.raises(
        OperandError, match=r"the primitive 'broken' of 1 operands is declared with the notation 'x \+'"
    ):
        equations(mg.Graph(out=broken(x)))

    @mg.primitive(vjp=lambda g, out, x: g, notation="x + y")
    def greedy(x):
        return x

    with pytest.raises(OperandError, match="'greedy'"):
        equations(mg.Graph(out=greedy(x)))


# --- names -------------------------------------------------------------------------------------------

HOSTILE = [
    r"\input{passwd}",
    "a&b",
    "50%",
    "$x$",
    "x_y_z",
    "{",
    "}",
    "new\nline",
    "<script>alert(1)</script>",
    "~^#",
    "ünder",
]


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_are_typeset_as_they_are(name):
    h = mg.state(0.0, name=name)
    h.next = mg.tanh(h * mg.parameter(0.5, name=name + "2"))
    found = equations(mg.Graph(loss=mg.time_sum(h.next)))
    assert balanced(found.latex)
    assert "\\input" not in found.latex
    assert "<script>" not in found.latex
    assert not re.search(r"(?<!\\)[%$#]", found.latex)
    assert len(found.latex.splitlines()) == len(found.forward) + len(found.adjoint) + len(found.where) + 3


def test_symbols_keep_clear_of_the_names():
    a, T, delta = (mg.input(np.ones(2), name=name) for name in ("a", "T", "δ"))
    t = mg.parameter(np.ones(2), name="t")
    shared = a + T
    h = mg.state(np.zeros(2), name="h")
    h.next = mg.tanh(shared * shared[::-1] * t + h * delta)
    found = equations(mg.Graph(loss=mg.time_mean(mg.sum(h.next))))
    assert [str(line) for line in found.forward] == [
        "g_τ = a_τ + T_τ",
        "h_τ = tanh(g_τ ⊙ g_τ[::−1] ⊙ t + h_{τ−1} ⊙ δ_τ)",
        "loss = (1/N) Σ_τ Σ h_τ",
    ]
    assert "ε_τ" in str(found.adjoint[1])


def test_names_that_look_alike_in_latex_are_told_apart():
    a, b = mg.tensor(1.0, name="W1"), mg.tensor(2.0, name="W_1")
    found = equations(mg.Graph(y=a * b))
    assert len({line.aligned.split("&=")[0] for line in found.where[:2]}) == 2


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("h", ("h", "")),
        ("W12", ("W", "12")),
        ("W_x", ("W", "x")),
        ("W_ih", ("W", r"\mathrm{ih}")),
        ("alpha", (r"\alpha", "")),
        ("θ", (r"\theta", "")),
        ("lstm.h", (r"\mathrm{lstm.h}", "")),
    ],
)
def test_latex_name(name, expected):
    assert latex_name(name) == expected


# --- read back ---------------------------------------------------------------------------------------


class Reading:
    """Computes the lines of scalar equations by reading their text: the other way round than they were written."""

    TOKEN = re.compile(
        r"\s*(Σ_t|∂?[^\W\d_²³]\w*?_(?:\{[^}]*\}|[t0T](?![a-z0-9]))|\d+\.?\d*(?:e[−+]?\d+)?|∂?[^\W\d_²³][a-z0-9]*|\S)"
    )
    FUNCTIONS: ClassVar = {
        "tanh": np.tanh,
        "sin": np.sin,
        "cos": np.cos,
        "exp": np.exp,
        "σ": lambda x: 1 / (1 + np.exp(-x)),
        "log": np.log,
    }

    def __init__(self, found, sequences, parameters, steps):
        self.known, self.steps = dict(parameters), steps
        self.sequences = sequences
        self.lines, self.ends = {}, {}
        for line in (*found.forward, *found.adjoint):
            self.lines[line.left.removesuffix("_t")] = line.right
        for line in found.where:
            if " = " in str(line):
                left, right = str(line).split(" = ")
                self.ends[left] = right
        self.memo = {}

    def value(self, name, t=None):
        if name == "T":
            return self.steps
        if name in self.known:
            return self.known[name]
        if t is not None and not 0 <= t < self.steps:
            end = f"{name}_T" if t == self.steps else f"{name}_{{−1}}"
            return self.compute(self.ends.get(end, "0"), None)  # what is not told is multiplied by a gradient of 0
        if name in self.sequences:
            return self.sequences[name][t]
        if t is None and name in self.ends:
            return self.compute(self.ends[name], None)
        if (name, t) not in self.memo:
            self.memo[name, t] = self.compute(self.lines[name], t)
        return self.memo[name, t]

    def compute(self, text, t):
        self_tokens = [m.group(1) for m in self.TOKEN.finditer(text)]
        value, position = self.total(self_tokens, 0, t)
        assert position == len(self_tokens), (text, self_tokens[position:])
        return value

    def total(self, tokens, i, t):
        value, i = self.product(tokens, i, t)
        while i < len(tokens) and tokens[i] in "+−":
            sign = 1 if tokens[i] == "+" else -1
            term, i = self.product(tokens, i + 1, t)
            value = value + sign * term
        return value, i

    def product(self, tokens, i, t):
        if tokens[i] == "−":
            value, i = self.product(tokens, i + 1, t)
            return -value, i
        value, i = self.factor(tokens, i, t)
        while i < len(tokens) and tokens[i] not in "+−),]=":
            divide = tokens[i] == "/"
            i += tokens[i] in "·/"
            factor, i = self.factor(tokens, i, t)
            value = value / factor if divide else value * factor
        return value, i

    def factor(self, tokens, i, t):
        if tokens[i] == "Σ_t":
            parts = [self.product(tokens, i + 1, step) for step in range(self.steps)]
            return sum(part for part, _ in parts), parts[0][1]
        value, i = self.atom(tokens, i, t)
        while i < len(tokens) and tokens[i] in "²³^":
            sign = tokens[i]
            exponent, i = (2 if sign == "²" else 3, i + 1) if sign in "²³" else self.atom(tokens, i + 1, t)
            value = value**exponent
        return value, i

    def atom(self, tokens, i, t):
        token = tokens[i]
        if token == "(":
            value, i = self.total(tokens, i + 1, t)
            assert tokens[i] == ")"
            return value, i + 1
        if token == "[":
            close = tokens.index("]", i)
            left, right = "".join(tokens[i + 1 : close]).split("=")
            return float(self.timestep(left, t) == self.timestep(right, t)), close + 1
        if token[0].isdigit():
            return float(token.replace("−", "-")), i + 1
        if token in self.FUNCTIONS:
            value, j = self.total(tokens, i + 2, t)
            return self.FUNCTIONS[token](value), j + 1
        name, underscore, when = token.partition("_")
        return self.value(name, self.timestep(when.strip("{}"), t) if underscore else None), i + 1

    def timestep(self, text, t):
        text = text.replace("−", "-").replace("{", "").replace("}", "")
        base = {"t": t, "T": self.steps}.get(text[:1])
        return int(text) if base is None else base + int(text[1:] or 0)


SCALARS = st.recursive(
    st.sampled_from(["p", "q", "x", "2", "0.5", "-3"]),
    lambda inner: st.tuples(st.sampled_from("+-*/^~tse"), inner, inner),
    max_leaves=14,
)


def built(tree, leaves):
    if isinstance(tree, str):
        return leaves[tree] if tree in leaves else float(tree)
    sign, left, right = tree
    x, y = built(left, leaves), built(right, leaves)
    tensor = isinstance(x, mg.Tensor)
    match sign:
        case "+":
            return x + y
        case "-":
            return x - y
        case "*":
            return x * y
        case "/":
            return x / (y * y + 2.0)
        case "^":
            return (x**2) ** 1 if not tensor else mg.square(x)
        case "~":
            return -x
        case "t":
            return mg.tanh(x) if tensor else np.tanh(x)
        case "s":
            return mg.sin(x) if tensor else np.sin(x)
    return (mg.sigmoid(x) if tensor else 1 / (1 + np.exp(-x))) * y


@given(SCALARS)
@settings(max_examples=70, deadline=None)
def test_the_text_of_a_scalar_means_what_the_graph_computes(tree):
    leaves = {name: mg.tensor(value, name=name) for name, value in {"p": 0.7, "q": -1.3, "x": 0.4}.items()}
    out = built(tree, leaves) * 1.0 + leaves["p"]
    reading = Reading(equations(mg.Graph(loss=out)), {}, {}, 1)
    assert reading.value("loss") == pytest.approx(out.item(), rel=2e-3, abs=2e-3)


@given(SCALARS, SCALARS, st.booleans(), st.sampled_from([mg.time_sum, mg.time_mean, mg.last, mg.first]))
@settings(max_examples=70, deadline=None)
def test_the_text_of_a_recurrent_network_computes_its_gradients(inner, outer, reverse, over_time):
    leaves = {"p": mg.parameter(0.7, name="p"), "x": mg.input(0.4, name="x")}
    h = mg.state(leaves["p"] if reverse else 0.25, name="h", reverse=reverse)
    h.next = mg.tanh(built(inner, {**leaves, "q": h}) + 0.5 * h)
    loss = over_time(built(outer, {**leaves, "q": h.next}) + h.next * leaves["p"])
    net, xs = mg.Graph(loss=loss), [0.4, -0.2, 0.9]
    dag = net.unroll({"x": xs} if "x" in net else {}, steps=3)
    leaves["p"].zero_grad()
    dag.backward()
    reading = Reading(equations(net), {"x": xs}, {"p": 0.7}, 3)
    assert reading.value("loss") == pytest.approx(dag.output.item(), rel=2e-3, abs=2e-3)
    assert reading.value("∂p") == pytest.approx(float(leaves["p"].grad), rel=5e-3, abs=5e-3)


def test_a_primitive_made_without_the_decorator_is_written_by_its_name():
    twice = Primitive("a<b>", lambda value: 2 * value, vjps=(lambda g, out, value: 2 * g,))
    found = equations(mg.Graph(out=record(twice, (x,)))).forward[0]
    assert found.right == "a<b>(x_t)"
    assert "<b>" not in found.latex
