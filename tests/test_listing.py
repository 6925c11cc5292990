"""The listing of a program's machine code is Python that runs, leaves what the machine code leaves, and reads well."""

import ast
import re

import numpy as np
import pytest
from networks import weight

import microgrid as mg
from microgrid.execute.llvm.contract import contraction_of
from microgrid.execute.llvm.listing import Script, listing

pytest.importorskip("llvmlite")

STEPS, BATCH, INPUTS, HIDDEN = 5, 3, 2, 4


def numbers(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape)


def of_input(batch=BATCH):
    return mg.input(numbers(0, batch, INPUTS), name="x", requires_grad=False)


def loss_of(y):
    target = mg.input(numbers(1, *y.shape), name="target", requires_grad=False)
    return mg.Graph(loss=mg.time_mean(mg.mean((y - target) ** 2)))


def scalar_rnn():
    u, x, h = mg.parameter(0.5, name="u"), mg.input(1.0, name="x"), mg.state(0.1, name="h")
    h.next = mg.tanh(u * h + x)
    return mg.Graph(loss=mg.time_mean(mg.square(h.next)))


def rnn():
    h = mg.state(numbers(2, BATCH, HIDDEN), name="h")
    h.next = mg.tanh(of_input() @ weight("W", INPUTS, HIDDEN) + h @ weight("U", HIDDEN, HIDDEN))
    return loss_of(h.next @ weight("V", HIDDEN, 2))


def lstm(peephole=False, batch=BATCH):
    h, c = (mg.state(np.zeros((batch, HIDDEN)), name=name) for name in "hc")
    z = (
        of_input(batch) @ weight("W", INPUTS, 4 * HIDDEN)
        + h @ weight("U", HIDDEN, 4 * HIDDEN)
        + weight("b", 4 * HIDDEN)
    )
    z_i, z_f, z_o, z_g = mg.split(z.named("z") if peephole else z, 4, axis=1)
    if peephole:
        z_i, z_f, z_o = z_i.named("z_i"), z_f + weight("p_f", HIDDEN) * c, z_o.named("z_o")
        z_i = z_i + weight("p_i", HIDDEN) * c
    i, f, g = mg.sigmoid(z_i).named("i"), mg.sigmoid(z_f).named("f"), mg.tanh(z_g).named("g")
    c.next = f * c + i * g
    if peephole:
        z_o = z_o + weight("p_o", HIDDEN) * c.next
    h.next = mg.sigmoid(z_o).named("o") * mg.tanh(c.next)
    return loss_of(h.next)


def gru():
    x, h = of_input(1), mg.state(np.zeros((1, HIDDEN)), name="h")
    z, r = (mg.sigmoid(x @ weight(f"W{n}", INPUTS, HIDDEN) + h @ weight(f"U{n}", HIDDEN, HIDDEN)) for n in "zr")
    n = mg.tanh(x @ weight("Wn", INPUTS, HIDDEN) + (r * h) @ weight("Un", HIDDEN, HIDDEN)).named("n")
    h.next = (1 - z) * n + z * h
    return loss_of(h.next)


def layer_norm():
    h = mg.state(np.zeros((BATCH, HIDDEN)), name="h")
    a = (of_input() @ weight("W", INPUTS, HIDDEN) + h @ weight("U", HIDDEN, HIDDEN)).named("a")
    d = a - mg.mean(a, axis=1, keepdims=True).named("mean")
    variance = mg.mean(d * d, axis=1, keepdims=True).named("variance")
    h.next = mg.tanh(weight("gain", HIDDEN) * d / mg.sqrt(variance + 1e-5))
    return loss_of(h.next)


def two_sizes():
    h, slow = mg.state(np.zeros((BATCH, HIDDEN)), name="h"), mg.state(np.ones((BATCH, 2)), name="slow")
    h.next = mg.tanh(of_input() @ weight("W", INPUTS, HIDDEN) + slow @ weight("A", 2, HIDDEN))
    slow.next = 0.9 * slow + 0.1 * mg.tanh(h @ weight("B", HIDDEN, 2))
    return loss_of(h.next)


def both_ways():
    x, h = of_input(), mg.state(np.zeros((BATCH, HIDDEN)), name="h")
    back = mg.state(numbers(3, BATCH, HIDDEN), name="back", reverse=True)
    h.next = mg.tanh(x @ weight("W", INPUTS, HIDDEN) + h)
    back.next = mg.tanh(h.next @ weight("U", HIDDEN, HIDDEN) + back)
    return loss_of(mg.concatenate([h.next, back.next], axis=1) @ weight("V", 2 * HIDDEN, 1))


def masked():
    x, h = of_input(), mg.state(np.zeros((BATCH, HIDDEN)), name="h")
    on = mg.input(np.ones((BATCH, 1), bool), name="on")
    new = mg.tanh(x @ weight("W", INPUTS, HIDDEN) + h @ weight("U", HIDDEN, HIDDEN)).named("new")
    h.next = mg.where(on, mg.maximum(new, -0.5), h)
    return loss_of(h.next)


def partly_by_numpy():
    """A loop that machine code computes beside one that it does not."""
    x, h, s = of_input(), mg.state(np.zeros((BATCH, HIDDEN)), name="h"), mg.state(np.zeros((BATCH, INPUTS)), name="s")
    h.next = mg.tanh(x @ weight("W", INPUTS, HIDDEN) + h)
    s.next = mg.cumsum(s + x, axis=1)
    return loss_of(mg.sum(h.next, axis=1, keepdims=True) * s.next)


def peephole_lstm():
    return lstm(peephole=True)


CELLS = [scalar_rnn, rnn, lstm, gru, peephole_lstm, layer_norm, two_sizes, both_ways, masked, partly_by_numpy]


def program_of(net, wrt=None):
    return mg.compile(net, wrt, executor="llvm").as_recorded()


def left_by_machine_code(program, sequences):
    """The arrays in memory and the static values, by their names in the listing."""
    workspace = program.new_workspace(STEPS)
    names = Script(program).names
    values = workspace.compute({node: sequences[node.name] for node in program.graph.inputs}, {})
    arrays = {}
    for buffer in program.layout.buffers():
        if buffer.slot < 0:
            continue
        rows = workspace.array(buffer)
        if buffer.kind == "step":
            rows = rows[0]
        elif buffer.state is not None and not buffer.state.reverse:
            rows = np.roll(rows, -1, axis=0)  # the listing has the initial value last, where index −1 finds it
        arrays[names.array(buffer.owner)] = rows.copy()
    return arrays, {names.own[node]: values[slot] for node, slot in program.slots.items()}


def sequences_for(net):
    """Random sequences for the inputs, by name."""
    rng = np.random.default_rng(0)
    found = {}
    for node in net.inputs:
        values = rng.normal(size=(STEPS, *np.shape(node.value)))
        found[node.name] = values > 0 if node.dtype == bool else values
    return found


@pytest.mark.parametrize("cell", CELLS, ids=lambda cell: cell.__name__)
def test_the_listing_leaves_what_the_machine_code_leaves(cell):
    net = cell()
    sequences = sequences_for(net)
    program = program_of(net)
    text, names = listing(program), Script(program).names
    arrays, statics = left_by_machine_code(program, sequences)
    by_numpy = {
        names.array(buffer.owner) for buffer in program.layout.buffers() if buffer.owner in program.plan.by_numpy
    }
    sums = {names.own[node] for node in program.slots if contraction_of(node, program.layout) is not None}
    given = {**sequences, **{name: value for name, value in statics.items() if name not in sums}}
    scope = {**given, **{name: arrays[name].copy() for name in by_numpy if name in arrays}}
    exec(compile(text, "<listing>", "exec"), scope)
    expected = {name: value for name, value in arrays.items() if name not in by_numpy}
    expected |= {name: statics[name] for name in sums}
    assert len(expected) > len(sums)
    for name, value in expected.items():
        assert np.shape(scope[name]) == np.shape(value), name
        np.testing.assert_allclose(scope[name], value, rtol=1e-12, atol=1e-12, err_msg=name)
    assert max(map(len, text.split("\n"))) <= 120


def test_the_loop_of_an_lstm_reads_like_its_equations():
    text = listing(program_of(lstm(), ()))
    written = [line.strip() for line in text.split("\n")]
    loop = written.index("for t in range(T):")
    assert written[loop + 1 : loop + 4] == [
        "matmul_2 = h[t - 1] @ U  # for one timestep",
        "for row in range(batch):",
        "for k in range(4):",
    ]
    assert {
        "i = sigmoid(b[k] + matmul_1[t, row, k] + matmul_2[row, k])",
        "f = sigmoid(b[k + 4] + matmul_1[t, row, k + 4] + matmul_2[row, k + 4])",
        "g = tanh(b[k + 12] + matmul_1[t, row, k + 12] + matmul_2[row, k + 12])",
        "c_t = c[t, row, k] = f * c[t - 1, row, k] + i * g",
    } < set(written)
    assert "h[-1] = c[-1] = 0.0" in text
    assert "matmul_1 = x @ W" in text


def test_what_is_only_in_registers_has_no_array():
    text = listing(program_of(peephole_lstm(), ()))
    registers = re.search(r"# in registers only: (.*)", text)[1].split(", ")
    assert {"i", "f", "g", "o", "z_i", "z_o"} <= set(registers)
    indexed = {node.value.id for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Subscript)}
    assert indexed.isdisjoint(registers)
    assert "z_1 =" in text  # a part that nobody named


def test_what_numpy_computes_is_a_comment():
    text = listing(program_of(partly_by_numpy()))
    assert re.search(r"# NumPy, step by step, forwards: .*cumsum", text)
    assert re.search(r"# NumPy, once: .*loss = ", text, re.DOTALL)


def test_indices_are_called_what_no_node_is_called():
    k, t = mg.state(np.zeros((BATCH, HIDDEN)), name="k"), mg.input(numbers(0, BATCH, HIDDEN), name="t")
    k.next = mg.tanh(k + t).named("T")
    text = listing(program_of(mg.Graph(row=k.next * 2.0), ()))
    assert "for step in range(steps):" in text
    assert "T = k[step, sample, j] = tanh(k[step - 1, sample, j] + t[step, sample, j])" in text


def test_a_gradient_that_runs_backwards_keeps_two_rows():
    text = listing(program_of(rnn()))
    assert "for t in reversed(range(T)):" in text
    assert "# a ring of two timesteps" in text
    assert "h_grad[T % 2] = 0.0" in text
    assert "h_grad[(t + 1) % 2, row, k]" in text
    assert "U_grad = sum(h[t - 1].T @ " in text


def test_compiled_source_is_the_listing_or_the_calls_of_numpy():
    net = lstm()
    assert mg.compile(net, executor="llvm").source == listing(program_of(net))
    calls = mg.compile(net).source
    ast.parse(calls)
    assert "# step by step, forwards: " in calls
    assert "        np.multiply(f, c, " in calls
