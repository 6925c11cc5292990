"""What machine code could get wrong where NumPy could not: memory, order, threads, and arrays as users give them."""

import os
import platform
import re
import threading

import numpy as np
import pytest
from test_compiled import assert_compiled_is_unrolled, assert_same, reference

import microgrid as mg
from microgrid.execute import on_numpy
from microgrid.execute.llvm import machine, storage, threads

pytest.importorskip("llvmlite")
pytestmark = pytest.mark.usefixtures("on_llvm", "guarded")

GUARD = 256
"""Bytes on either side of each buffer that nobody may touch."""


@pytest.fixture
def on_llvm(monkeypatch):
    usual = mg.compile
    monkeypatch.setattr(mg, "compile", lambda *args, **kwargs: usual(*args, **{"executor": "llvm", **kwargs}))


@pytest.fixture
def guarded(monkeypatch):
    """Buffers between guards, and full of nan: who reads what nobody wrote shows."""
    whole = []

    def raw(rows, row_bytes):
        memory = np.full(rows * row_bytes + 2 * GUARD, 0xA5, np.uint8)
        memory[GUARD:-GUARD] = 0xFF
        whole.append(memory)
        return memory[GUARD:-GUARD]

    monkeypatch.setattr(on_numpy, "raw", raw)
    yield
    for memory in whole:
        assert np.all(memory[:GUARD] == 0xA5), "written before a buffer"
        assert np.all(memory[-GUARD:] == 0xA5), "written behind a buffer"


@pytest.fixture
def small_chunks(monkeypatch):
    monkeypatch.setattr(storage, "CACHE_BYTES", 1)
    monkeypatch.setattr(storage, "LEAST_CHUNK", 2)


@pytest.fixture
def many_threads(monkeypatch):
    monkeypatch.setattr(threads, "LEAST_SECONDS", 0.0)
    monkeypatch.setattr(threads, "_chosen", 3)


def weights(rng):
    """Makes named parameters of a shape."""
    count = iter(range(1000))
    return lambda *shape: mg.parameter(rng.normal(size=shape) / 2, name=f"w{next(count)}")


def lstm(rng, batch, features, width):
    w = weights(rng)
    x = mg.input(np.zeros((batch, features)), name="x")
    h, c = (mg.state(np.zeros((batch, width)), name=name) for name in "hc")
    i, f, o, g = mg.split(x @ w(features, 4 * width) + h @ w(width, 4 * width) + w(4 * width), 4, axis=1)
    c.next = mg.sigmoid(f) * c + mg.sigmoid(i) * mg.tanh(g)
    h.next = mg.sigmoid(o) * mg.tanh(c.next)
    return mg.Graph(loss=mg.time_mean(mg.mean(h.next**2)), y=h.next)


# --- the order of work ----------------------------------------------------------------------------------


@pytest.mark.parametrize("delays", [1, 2])
def test_what_a_delay_brings_is_there_before_a_product_of_all_timesteps_reads_it(delays):
    rng = np.random.default_rng(0)
    w = weights(rng)
    x, h = mg.input(np.zeros((2, 4)), name="x"), mg.state(np.zeros((2, 3)), name="h")
    y = past = mg.tanh(x * 2.0)
    for k in range(delays):
        delay = mg.state(np.zeros((2, 4)), name=f"d{k}")
        delay.next = past
        past = delay
    h.next = mg.tanh(mg.tanh(past * 3.0) @ w(4, 3) + y[:, :3] + h)
    net = mg.Graph(loss=mg.time_sum(mg.sum(h.next**2)))
    assert_compiled_is_unrolled(net, {"x": rng.normal(size=(20, 2, 4))}, 20)


def test_weight_that_a_later_loop_computes_with_is_not_needed_before():
    rng = np.random.default_rng(0)
    w = weights(rng)
    x = mg.input(np.zeros((4, 5)), name="x")
    h, k = (mg.state(np.zeros((4, 5)), name=name) for name in "hk")
    k.next = mg.tanh(x @ w(5, 5) + k)
    h.next = mg.tanh(x + h @ mg.tanh(w(5, 5) + mg.time_mean(mg.mean(k.next, axis=0))))
    net = mg.Graph(loss=mg.time_sum(mg.sum(h.next**2)))
    assert_compiled_is_unrolled(net, {"x": rng.normal(size=(9, 4, 5))}, 9)


def test_gradient_of_a_computed_weight_joins_the_products_of_its_parts():
    rng = np.random.default_rng(0)
    w = weights(rng)
    x, h = mg.input(np.zeros((4, 20)), name="x"), mg.state(np.zeros((4, 20)), name="h")
    both = mg.tanh(w(20, 40) * 1.5)
    h.next = mg.tanh(x + (h @ both[:, :20]) * 0.1 + (mg.tanh(h * x) @ both[:, 20:]) * 0.1)
    net = mg.Graph(loss=mg.time_sum(mg.sum(h.next**2)))
    assert_compiled_is_unrolled(net, {"x": rng.normal(size=(9, 4, 20))}, 9)


def test_segments_without_machine_code_run_beside_those_with_it():
    x, h = mg.input(np.zeros((2, 3)), name="x"), mg.state(np.zeros((2, 3)), name="h")
    h.next = mg.tanh(x + h)
    net, xs = mg.Graph(loss=mg.time_mean(mg.mean(h.next**2))), np.random.default_rng(0).normal(size=(7, 2, 3))
    run = mg.compile(net, wrt="x", checkpoint_every=2)(x=xs)
    _, gradients, _ = reference(net, {"x": xs}, wrt=net.inputs)
    assert_same(run.grads, gradients)


# --- arrays as users have them --------------------------------------------------------------------------


def field_of_records(array):
    records = np.zeros(array.shape, [("flag", np.float32), ("value", array.dtype)])
    records["value"] = array
    return records["value"]


def unaligned(array):
    found = np.zeros(array.nbytes + 3, np.uint8)[3:].view(array.dtype).reshape(array.shape)
    found[...] = array
    return found


STRIDED = {
    "fortran": np.asfortranarray,
    "flipped": lambda array: np.ascontiguousarray(array[..., ::-1])[..., ::-1],
    "every other": lambda array: np.repeat(array, 2, axis=-1)[..., ::2],
    "field": field_of_records,
    "unaligned": unaligned,
}


@pytest.mark.parametrize("way", STRIDED)
def test_parameters_and_sequences_may_lie_in_memory_anyhow(way):
    rng = np.random.default_rng(0)
    net, xs = lstm(rng, 3, 4, 5), rng.normal(size=(6, 3, 4))
    step = mg.compile(net)
    step(x=xs)
    for parameter in net.parameters:
        parameter.value = STRIDED[way](parameter.value * 0.9)
    run = step(x=STRIDED[way](xs))
    outputs, gradients, state = reference(mg.Graph(loss=net["loss"]), {"x": xs}, wrt=net.parameters)
    assert_same({"loss": run.outputs["loss"]}, outputs)
    assert_same(run.grads, gradients)
    assert_same(run.state, state)


@pytest.mark.parametrize("special", [np.nan, np.inf, -np.inf, 1e308, -0.0])
def test_what_is_not_finite_goes_the_way_it_goes_in_numpy(special):
    rng = np.random.default_rng(0)
    w = weights(rng)
    x, y = (mg.input(np.zeros((2, 9)), name=name) for name in "xy")
    h = mg.state(np.zeros((2, 9)), name="h")
    most = mg.maximum(x, y) + 0.5 * mg.minimum(y, x)
    inside = mg.where(mg.abs(x) < 1e300, mg.tanh(0.1 * (x @ w(9, 9)) + h), y)
    h.next = inside + mg.where(x > 0, mg.relu(most), mg.clip(most, -1, 1)) * 0.0 + mg.sigmoid(x) + mg.sign(most)
    net = mg.Graph(
        end=h.next, part=mg.softmax(h.next), total=mg.time_sum(x * y), odd=mg.where((x == x) & ~(y != y), x, 1.0)
    )
    xs, ys = rng.normal(size=(2, 4, 2, 9))
    xs[1, 0, 3] = ys[2, 1, 8] = special
    xs[3, 1, 1], ys[3, 1, 1] = special, -special
    with np.errstate(all="ignore"):
        outputs, _, _ = reference(net, {"x": xs, "y": ys})
        found = mg.compile(net, wrt=())(x=xs, y=ys).outputs
    for name, value in outputs.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-12, atol=1e-12, err_msg=name)


# --- threads and processes ------------------------------------------------------------------------------


@pytest.mark.parametrize("batch", [1, 5, 16])
def test_threads_share_the_sequences_of_a_batch(batch, monkeypatch, small_chunks):
    monkeypatch.setattr(threads, "LEAST_SECONDS", 0.0)
    rng = np.random.default_rng(0)
    net, xs = lstm(rng, batch, 3, 9), rng.normal(size=(11, batch, 3))
    runs = []
    for count in (1, 2, 3, 5):
        monkeypatch.setattr(threads, "_chosen", count)
        runs.append(mg.compile(net)(x=xs))
    for run in runs[1:]:
        assert_same(run.outputs, dict(runs[0].outputs), 1e-14)
        assert_same(run.grads, dict(runs[0].grads), 1e-14)


def test_runs_in_several_python_threads_do_not_meet(many_threads):
    rng = np.random.default_rng(0)
    step = mg.compile(lstm(rng, 6, 3, 9))
    sequences = rng.normal(size=(4, 20, 6, 3))
    expected = [step(x=xs).grads["w1"] for xs in sequences]
    wrong = []

    def work(k):
        for _ in range(40):
            if not np.array_equal(step(x=sequences[k]).grads["w1"], expected[k]):
                wrong.append(k)

    workers = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not wrong


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:This process")
def test_child_of_a_fork_has_threads_of_its_own(many_threads):
    rng = np.random.default_rng(0)
    xs = rng.normal(size=(20, 6, 3))
    step = mg.compile(lstm(rng, 6, 3, 9))
    expected = step(x=xs).grads["w1"]
    child = os.fork()
    if not child:
        os._exit(0 if np.array_equal(step(x=xs).grads["w1"], expected) else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert np.array_equal(step(x=xs).grads["w1"], expected)


# --- any cell -------------------------------------------------------------------------------------------


class RandomCell:
    """Layers of one random network: products, delays and loops of mixed widths, sliced, joined and broadcast."""

    def __init__(self, seed):
        self.rng = rng = np.random.default_rng(seed)
        self.batch = int(rng.choice([1, 2, 5]))
        self.widths = [int(width) for width in rng.choice([1, 2, 3, 5, 8, 9, 17], size=3)]
        self.weight = weights(rng)
        self.nodes = [mg.input(np.zeros((self.batch, width)), name=f"x{width}") for width in {*self.widths[:2]}]
        self.reverse = bool(rng.random() < 0.3)
        for number in range(int(rng.integers(3, 9))):
            [self.elements, self.product, self.delay, self.loop, self.loop][int(rng.integers(5))](f"s{number}")

    def recent(self):
        return self.nodes[-1 - min(len(self.nodes) - 1, int(self.rng.geometric(0.25)) - 1)]

    def width(self):
        return self.widths[int(self.rng.integers(3))]

    def fitted(self, x, width):
        own = x.shape[1]
        if own >= width:
            start = int(self.rng.integers(0, own - width + 1))
            return x[:, start : start + width]
        return (
            x * self.weight(width) if own == 1 else mg.concatenate([x, self.fitted(self.recent(), width - own)], axis=1)
        )

    def elements(self, name):
        width = self.width()
        a, b = (self.fitted(self.recent(), width) for _ in range(2))
        heads = 2 if width % 2 == 0 else 1
        in_heads = mg.reshape(a, (self.batch, heads, -1))
        choices = [
            lambda: mg.sigmoid(a) * b,
            lambda: a * mg.mean(self.recent(), axis=1, keepdims=True),
            lambda: mg.where((a > 0) & (b <= 0.5), a, mg.maximum(b, -0.5)),
            lambda: mg.softmax(a) + mg.softplus(b[:, ::-1]),
            lambda: (a - mg.mean(a, axis=1, keepdims=True)) / mg.sqrt(mg.var(a, axis=1, keepdims=True) + 0.1),
            lambda: mg.tanh(mg.concatenate([a, self.recent()], axis=1))[:, : 2 * width],
            lambda: mg.reshape(in_heads * mg.sum(in_heads, axis=2, keepdims=True) * self.weight(heads, 1), a.shape),
        ]
        self.nodes.append(choices[int(self.rng.integers(len(choices)))]())

    def product(self, name):
        x, width = self.recent(), self.width()
        weight = (
            self.weight(x.shape[1], width) if self.rng.random() < 0.6 else mg.tanh(self.weight(width, x.shape[1])).T
        )
        self.nodes.append(x @ weight)

    def state(self, width, name):
        start = np.zeros((self.batch, width)) if self.rng.random() < 0.5 else self.weight(self.batch, width)
        return mg.state(start, name=name, reverse=self.reverse != (self.rng.random() < 0.15))

    def delay(self, name):
        x = self.recent()
        delay = self.state(x.shape[1], name)
        delay.next = x
        self.nodes.append(delay)

    def loop(self, name):
        width, before = self.width(), list(self.nodes)
        a, h = self.fitted(self.recent(), width), self.state(width, name)
        self.nodes.append(h)
        for _ in range(int(self.rng.integers(0, 3))):
            self.elements(name)
        h.next = mg.tanh(0.5 * a + h @ self.weight(width, width) + 0.5 * self.fitted(self.recent(), width))
        self.nodes = [*before, h, h.next]  # what reads h by itself is not read outside

    def network(self):
        total = sum(mg.time_mean(mg.mean(self.recent() ** 2)) for _ in range(2))
        return mg.Graph(loss=total + mg.sum(self.weight(1) ** 2))


@pytest.mark.parametrize("seed", range(12))
def test_random_cell_equals_the_unrolled_one(seed, small_chunks, many_threads):
    net = RandomCell(seed).network()
    rng = np.random.default_rng(seed)
    steps = int(rng.integers(1, 8))
    sequences = {net.names[x]: rng.normal(size=(steps, *x.shape)) for x in net.inputs}
    outputs, gradients, state = reference(net, sequences, steps, wrt=net.parameters)
    run = mg.compile(net)(sequences, steps=steps)
    assert_same(run.outputs, outputs)
    assert_same(run.grads, gradients)
    assert_same(run.state, state)


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="looks for the registers of x86")
def test_a_cell_of_ones_own_computes_in_wide_registers():
    if machine.cpu().vector_bytes < 32:
        pytest.skip("this processor has none")
    net, sequences = gated(np.random.default_rng(0), 16, np.float32)
    step = mg.compile(net, executor="llvm")
    step(sequences)
    (whole,) = step.programs.values()
    code = machine.assembly(whole.program.source)
    wide = re.findall(r"v(?:mul|add|sub|fmadd\w*|fnmadd\w*)ps\s[^\n]*%[yz]mm", code)
    single = re.findall(r"v(?:mul|add|sub|fmadd\w*|fnmadd\w*)ss\s", code)
    assert len(wide) > 50
    assert len(single) < len(wide) / 10


def gated(rng, width, dtype):
    """A network with a cell that no library has, and a sequence for it."""
    x, h = mg.input(np.zeros((4, 3), dtype), name="x"), mg.state(np.zeros((4, width), dtype), name="h")
    W, U = (mg.parameter(rng.normal(size=(n, 2 * width)).astype(dtype), name=s) for n, s in ((3, "W"), (width, "U")))
    z = x @ W + h @ U
    gate = mg.sigmoid(z[:, :width])
    h.next = gate * h + (1 - gate) * mg.tanh(z[:, width:]) * mg.exp(-h * h)
    return mg.Graph(mg.time_mean(mg.mean(h.next**2))), {"x": rng.normal(size=(9, 4, 3)).astype(dtype)}


def loops_are_fused(step):
    """Whether NumPy computes nothing step by step."""
    loops = [line for line in str(step.schedule).splitlines() if line.startswith("step by step")]
    return bool(loops) and not any("by NumPy" in line for line in loops)


@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize("width", [3, 8, 13, 65])
def test_softmax_and_its_relatives_are_fused_into_the_loop(batch, width):
    rng = np.random.default_rng(width)
    x, h = mg.input(np.zeros((batch, 5)), name="x"), mg.state(np.zeros((batch, width)), name="h")
    W, U = (mg.parameter(0.5 * rng.normal(size=(n, width)), name=s) for n, s in ((5, "W"), (width, "U")))
    z = x @ W + h @ U
    h.next = mg.softmax(z) + 0.1 * mg.log_softmax(z)
    net = mg.Graph(mg.time_mean(mg.mean(mg.logsumexp(h.next, axis=-1) + mg.logsumexp(z, axis=1, keepdims=True)[:, 0])))
    sequences = {"x": rng.normal(size=(7, batch, 5))}
    outputs, gradients, _ = reference(net, sequences, wrt=net.parameters)
    step = mg.compile(net, executor="llvm")
    run = step(sequences)
    assert_same(run.outputs, outputs)
    assert_same(run.grads, gradients)
    assert loops_are_fused(step)


@pytest.mark.parametrize("row", [[np.inf, 1, 2], [-np.inf] * 3, [np.nan, 1, 2], [1000.0, 1000.0, 0], [-np.inf, 0, 1]])
def test_softmax_and_the_largest_of_values_that_are_not_finite(row):
    x = mg.input(np.zeros((1, 3)), name="x")
    y = 1.0 * x
    net = mg.Graph(mg.logsumexp(y, axis=-1), mg.softmax(y), mg.log_softmax(y), mg.max(y, axis=-1))
    with np.errstate(all="ignore"):
        runs = [mg.compile(net, wrt=(), executor=each)(x=np.array([[row]])).outputs for each in ("numpy", "llvm")]
    for one, two in zip(*(run.values() for run in runs), strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-14)


@pytest.mark.parametrize("exponent", [-2.5, -1, -0.5, 0, 0.5, 1.5, 2, 3])
def test_whole_and_half_powers_are_products_and_roots(exponent):
    x, h = mg.input(np.ones((2, 5)), name="x"), mg.state(np.ones((2, 5)), name="h")
    h.next = 0.5 * h + mg.power(x + h * h, exponent)
    net = mg.Graph(mg.time_sum(mg.sum(h.next)))
    sequences = {"x": np.random.default_rng(1).uniform(1, 2, (4, 2, 5))}
    step = mg.compile(net, wrt=(), executor="llvm")
    assert_same(step(sequences).outputs, reference(net, sequences)[0])
    assert loops_are_fused(step)
