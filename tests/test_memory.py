"""The memory of a compiled program: chunks of timesteps, buffers that serve again, and what a run allocates."""

import gc
import itertools
import tracemalloc
import weakref

import numpy as np
import pytest
from networks import NETWORKS
from random_networks import RandomNetwork
from test_compiled import assert_same, differentiable, reduced, reference, sequences_for

import microgrid as mg
from microgrid.compiled.whole import Whole
from microgrid.execute import memory, on_numpy
from microgrid.execute.memory import lay_out

# --- inputs that are read where they are ---------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(40))
def test_random_graphs_that_read_inputs_in_place_equal_the_unrolled_ones(seed, monkeypatch):
    monkeypatch.setattr(memory, "LARGE_ROW", 1)
    random = RandomNetwork(seed, both_directions=seed % 4 > 0, steps=5)
    net, leaves = random.tensors(numbers_as_floats=bool(seed % 2))
    by, sequences = differentiable(net), random.sequences(net, leaves)
    outputs, grads, state = reference(net, sequences, 5, wrt=by)
    step = mg.compile(net, wrt=by)
    for _ in range(2):
        run = step(sequences, steps=5)
        assert_same(run.outputs, outputs)
        assert_same(dict(run.grads), grads)
        assert_same(run.state, state)


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_that_read_inputs_in_place_equal_the_unrolled_ones(name, monkeypatch):
    monkeypatch.setattr(memory, "LARGE_ROW", 1)
    monkeypatch.setattr(on_numpy, "CACHE_BYTES", 200)
    net = reduced(NETWORKS[name]())
    by, sequences = differentiable(net), sequences_for(net, 19, np.random.default_rng(0))
    outputs, grads, state = reference(net, sequences, 19, wrt=by)
    run = mg.compile(net, wrt=by)(sequences, steps=19)
    assert_same(run.outputs, outputs)
    assert_same(dict(run.grads), grads)
    assert_same(run.state, state)


def wide_rnn():
    """An RNN whose input has rows of 4 KiB, and sequences for it that lie in memory in four ways."""
    rng = np.random.default_rng(0)
    x, h = mg.input(np.zeros((8, 64)), name="x"), mg.state(np.zeros((8, 3)), name="h")
    W, U = (mg.parameter(0.1 * rng.normal(size=shape), name=name) for name, shape in (("W", (64, 3)), ("U", (3, 3))))
    h.next = mg.tanh(x @ W + h @ U)
    plain = rng.normal(size=(6, 8, 64))
    larger = rng.normal(size=(12, 8, 128))
    return mg.Graph(mg.time_mean(mg.sum(h.next**2))), {
        "in order": plain,
        "by columns": np.asfortranarray(plain[::-1]),
        "with gaps": larger[::2, :, ::2],
        "backwards": plain[::-1],
    }


@pytest.mark.parametrize("layout", ["in order", "by columns", "with gaps", "backwards"])
def test_input_may_lie_in_memory_in_any_order(layout):
    net, ways = wide_rnn()
    step, x = mg.compile(net), ways[layout]
    before = x.copy()
    for each in (ways["in order"], x, x[:4], x):
        outputs, grads, _ = reference(net, {"x": each}, len(each), wrt=net.parameters)
        run = step(x=each)
        assert_same(run.outputs, outputs)
        assert_same(dict(run.grads), grads)
    np.testing.assert_array_equal(x, before)


def test_large_inputs_are_not_copied():
    net, ways = wide_rnn()
    step, x = mg.compile(net), np.tile(ways["in order"], (50, 1, 1))
    step(x=x)
    (program,) = (whole.program for whole in step.programs.values())
    (workspace,) = program.idle[len(x)]
    assert workspace.nbytes < x.nbytes / 4


def test_inputs_are_not_held():
    net, ways = wide_rnn()
    step, x = mg.compile(net), ways["in order"].copy()
    step(x=x)
    gone = weakref.ref(x)
    del x
    gc.collect()
    assert gone() is None


def test_failed_run_does_not_hold_its_input():
    fails = []

    @mg.primitive(vjp=lambda g, out, value: g)
    def breaking(value):
        if fails:
            raise KeyboardInterrupt
        return value

    net, ways = wide_rnn()
    step, x = mg.compile(mg.Graph(breaking(net.output)), wrt=()), ways["in order"].copy()
    step(x=x)
    fails.append(True)
    try:
        step(x=x)
    except KeyboardInterrupt:
        interrupted = True
    gone = weakref.ref(x)
    del x
    gc.collect()
    assert interrupted
    assert gone() is None


def test_input_that_a_loop_reads_row_by_row_is_copied():
    x, h = mg.input(np.zeros((8, 64)), name="x"), mg.state(np.zeros((8, 64)), name="h")
    h.next = mg.maximum(h * x, mg.tanh(x))
    layout = lay_out(mg.schedule(mg.Graph(mg.last(h.next))))
    assert layout.buffer[x].kind == "kept"
    k = mg.state(np.zeros((8, 64)), name="k")
    k.next = mg.maximum(k, mg.tanh(x))
    layout = lay_out(mg.schedule(mg.Graph(mg.last(k.next))))
    assert layout.buffer[x].kind == "given"


# --- chunks of timesteps ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "seeds", [range(start, 60, 8) for start in range(1, 5)], ids=["1, 9…", "2, 10…", "3, 11…", "4, 12…"]
)
def test_random_graphs_in_chunks_of_any_size_equal_the_unrolled_ones(seeds, monkeypatch):
    lengths = set()
    make = on_numpy.chunk_length

    def seen(phase, layout, steps):
        found = make(phase, layout, steps)
        lengths.add((found, steps))
        return found

    monkeypatch.setattr(on_numpy, "chunk_length", seen)
    monkeypatch.setattr(on_numpy, "LEAST_CHUNK", 1)
    for number, seed in enumerate(seeds):
        random = RandomNetwork(seed, both_directions=seed % 4 > 0, steps=5)
        net, leaves = random.tensors(numbers_as_floats=bool(seed % 2))
        by, sequences = differentiable(net), random.sequences(net, leaves)
        outputs, grads, state = reference(net, sequences, 5, wrt=by)
        monkeypatch.setattr(on_numpy, "CACHE_BYTES", (1, 256, 4096)[number % 3])
        run = mg.compile(net, wrt=by)(sequences, steps=5)
        assert_same(run.outputs, outputs)
        assert_same(dict(run.grads), grads)
        assert_same(run.state, state)
    found = {chunk for chunk, _ in lengths}
    assert 1 in found
    assert 5 in found
    assert found & {2, 3, 4}


@pytest.mark.parametrize("cache", [1, 400])
@pytest.mark.parametrize("name", NETWORKS)
def test_networks_in_chunks_of_any_size_equal_the_unrolled_ones(name, cache, monkeypatch):
    monkeypatch.setattr(on_numpy, "CACHE_BYTES", cache)
    monkeypatch.setattr(on_numpy, "LEAST_CHUNK", 1)
    net = reduced(NETWORKS[name]())
    by = differentiable(net)
    sequences = sequences_for(net, 7, np.random.default_rng(0))
    outputs, grads, state = reference(net, sequences, 7, wrt=by)
    run = mg.compile(net, wrt=by)(sequences, steps=7)
    assert_same(run.outputs, outputs)
    assert_same(dict(run.grads), grads)
    assert_same(run.state, state)


@pytest.mark.parametrize("cache", [1, 200, 1000])
def test_runs_of_several_lengths_in_chunks(cache, monkeypatch):
    """Of lengths that chunks divide and that they do not, forwards and backwards, again and again."""
    monkeypatch.setattr(on_numpy, "CACHE_BYTES", cache)
    monkeypatch.setattr(on_numpy, "LEAST_CHUNK", 1)
    net = NETWORKS["bidirectional"]()
    step = mg.compile(net)
    for steps in (7, 1, 12, 7, 2):
        sequences = sequences_for(net, steps, np.random.default_rng(steps))
        outputs, grads, state = reference(net, sequences, wrt=net.parameters)
        run = step(sequences)
        assert_same(run.outputs, outputs)
        assert_same(dict(run.grads), grads)
        assert_same(run.state, state)


def test_chunks_hold_what_the_cache_holds(monkeypatch):
    x = mg.input(np.zeros(8), name="x")  # 64 bytes a row
    net = mg.Graph(total=mg.time_sum(mg.sum(mg.tanh(mg.exp(x)))))

    def chunks(cache, steps):
        monkeypatch.setattr(on_numpy, "CACHE_BYTES", cache)
        program = program_of(net, wrt=())
        found = zip(on_numpy.Workspace(program, steps).chunks, program.steps, strict=True)
        return min(chunk for chunk, (phase, _) in found if not phase.once)

    assert chunks(1 << 30, 1000) == 1000
    assert chunks(1, 1000) == on_numpy.LEAST_CHUNK
    assert chunks(1, on_numpy.LEAST_CHUNK - 1) == on_numpy.LEAST_CHUNK - 1
    assert 64 * 3 * chunks(64 * 300, 1000) <= 64 * 300 + 8 * 300  # x, exp and tanh
    assert chunks(64 * 600, 1000) >= 2 * chunks(64 * 300, 1000) - 2 > 20


# --- buffers --------------------------------------------------------------------------------------------------


def program_of(net, wrt=None):
    """The program of a network, for the shapes as recorded."""
    step = mg.compile(net, wrt=wrt)
    examples = [np.asarray(node.value)[None] for _, node in step.inputs]
    return Whole(step.recorded(1, examples, {}, False)).program


def chain(length, hidden=16):
    """Many operations one after the other on all timesteps, and then a cycle."""
    x, h = mg.input(np.zeros((2, hidden)), name="x"), mg.state(np.zeros((2, hidden)), name="h")
    y = x
    for k in range(length):
        y = mg.tanh(mg.sin(y) @ mg.tensor(np.eye(hidden) * (k + 1.0)))
    h.next = mg.tanh(y + h)
    z = h
    for _ in range(length):
        z = mg.sin(mg.cos(z))
    return mg.Graph(total=mg.time_sum(mg.sum(z)))


def test_buffers_whose_last_reader_has_run_serve_again():
    sizes = {}
    for length in (5, 40):
        layout = program_of(chain(length), wrt=()).layout
        sizes[length] = len(layout.allocations), sum(each.row_bytes for each in layout.allocations)
        assert len(layout.buffers()) > length
    assert sizes[40] == sizes[5]  # however long the chain
    assert sizes[5][0] <= 8


@pytest.mark.parametrize("name", NETWORKS)
def test_there_are_fewer_allocations_than_nodes(name):
    net = reduced(NETWORKS[name]())
    layout = program_of(net, wrt=differentiable(net)).layout
    varying = [node for node in layout.graph.nodes if node in layout.graph.varying]
    assert len(layout.allocations) <= len(layout.buffers()) <= len(varying)
    if len(varying) > 12:
        assert len(layout.allocations) < 0.75 * len(varying)
        assert sum(a.row_bytes for a in layout.allocations) < sum(node.size * node.dtype.itemsize for node in varying)


def test_rnn_with_gradients_keeps_few_rows_for_the_whole_sequence():
    """Its inputs, the projection or h, 1 − h² or the adjoint: not one row per operation."""
    net = NETWORKS["rnn"]()
    layout = program_of(net).layout
    kept = sum(each.row_bytes for each in layout.allocations if each.kind == "kept")
    inputs = 8 * (2 * 3 + 2 * 1)
    assert kept <= inputs + 5 * 8 * (2 * 4)


def test_part_of_a_join_that_is_read_in_another_shape_too():
    """A place in a wider row has gaps, over which no view of another shape can reach."""
    rng = np.random.default_rng(0)
    x, h = mg.input(np.zeros((3, 4)), name="x"), mg.state(np.zeros((3, 4)), name="h")
    U = mg.parameter(rng.normal(size=(8, 4)), name="U")
    for shape in ((6, 2), (3, 2, 2), (12,), (1, 3, 4), (3, 4, 1)):
        h = mg.state(np.zeros((3, 4)), name="h")
        y = mg.tanh(h * 0.5 + x)
        joined = mg.concatenate([y, mg.sin(h)], axis=1)
        rest = mg.sum(mg.sin(mg.reshape(y, shape))) + mg.sum(mg.cos(mg.reshape(h, shape)))
        h.next = mg.tanh(joined @ U) + 0.01 * rest
        state_joined = mg.concatenate([x, h], axis=1)
        net = mg.Graph(mg.time_sum(mg.sum(h.next**2)) + mg.time_sum(mg.sum(mg.tanh(state_joined))))
        xs = rng.normal(size=(5, 3, 4))
        outputs, grads, _ = reference(net, {"x": xs}, 5, wrt=net.parameters)
        run = mg.compile(net)(x=xs)
        assert_same(run.outputs, outputs)
        assert_same(dict(run.grads), grads)


def test_gradients_that_are_parts_of_one_product_belong_to_the_user():
    """They are handed out as they are, and neither a later run nor a change of one reaches another."""
    rng = np.random.default_rng(0)
    x, h = mg.input(np.zeros((1, 3)), name="x"), mg.state(np.zeros((1, 20)), name="h")
    W, U, b = (mg.parameter(rng.normal(size=s), name=n) for n, s in (("W", (3, 20)), ("U", (20, 20)), ("b", 20)))
    h.next = mg.tanh(x @ W + h @ U + b)
    net, xs = mg.Graph(mg.time_sum(mg.sum(h.next**2))), rng.normal(size=(2, 6, 1, 3))
    step = mg.compile(net)
    first = step(x=xs[0])
    (program,) = (whole.program for whole in step.programs.values())
    assert {program.graph.names[output] for output in program.layout.parted} >= {"W.grad", "U.grad"}
    kept = {name: grad.copy() for name, grad in first.grads.items()}
    second = step(x=xs[1])
    assert_same(dict(first.grads), kept)
    assert not np.allclose(second.grads["W"], kept["W"])
    first.grads["W"][...] = 0
    assert_same({name: first.grads[name] for name in "Ub"}, {name: kept[name] for name in "Ub"})
    assert_same(dict(step(x=xs[0]).grads), kept)


def test_outputs_that_show_the_same_elements_are_copies():
    x, g = mg.input(np.zeros((5, 20)), name="x"), mg.input(np.zeros((5, 20)), name="g")
    product = mg.time_sum(x.T @ g)
    step = mg.compile(mg.Graph(a=product[:8], b=product[4:12], c=product[12:], d=product[12:].T), wrt=())
    xs = np.random.default_rng(0).normal(size=(3, 5, 20))
    found = step(x=xs, g=xs).outputs
    kept = {name: value.copy() for name, value in found.items()}
    for name in found:
        found[name][...] = 0
        assert_same({n: found[n] for n in found if n > name}, {n: kept[n] for n in found if n > name})


def test_parts_copied_before_a_loop_overwrite_nothing_that_it_reads():
    rng = np.random.default_rng(0)
    for outside in ("static", "varying"):
        x, h = mg.input(np.zeros((2, 6)), name="x"), mg.state(np.zeros((2, 3)), name="h")
        last_read_in_the_loop = mg.tanh(x)
        inner = mg.tanh((last_read_in_the_loop[:, :3] + h) * last_read_in_the_loop[:, 3:])
        other = mg.parameter(rng.normal(size=(2, 3)), name="c") if outside == "static" else mg.cos(x[:, 1:4])
        joined = mg.concatenate([inner, other], axis=1)
        h.next = mg.sin(joined[:, :3])
        net, xs = mg.Graph(mg.sin(joined)), rng.normal(size=(4, 2, 6))
        outputs, _, _ = reference(net, {"x": xs}, 4)
        assert_same(mg.compile(net, wrt=())(x=xs).outputs, outputs)


def test_static_parts_are_computed_in_their_place():
    """Also where one value is a part twice, or of two joins, or read by itself."""
    rng = np.random.default_rng(0)
    W, V = (mg.parameter(rng.normal(size=(20, 20)), name=name) for name in "WV")
    x = mg.input(np.zeros((2, 60)), name="x")
    a, b = mg.tanh(W), mg.sin(V)
    wide = mg.concatenate([a, b, a], axis=0)
    tall = mg.concatenate([b, mg.cos(W), V], axis=0)
    loss = mg.time_sum(mg.sum(mg.tanh(x @ wide) * mg.sin(x @ tall))) + mg.sum(a * a) + mg.sum(b.T @ a)
    net, xs = mg.Graph(loss), rng.normal(size=(4, 2, 60))
    step = mg.compile(net)
    for _ in range(3):
        outputs, grads, _ = reference(net, {"x": xs}, 4, wrt=net.parameters)
        run = step(x=xs)
        assert_same(run.outputs, outputs)
        assert_same(dict(run.grads), grads)
        W.value = W.value * 0.5
    (program,) = (whole.program for whole in step.programs.values())
    assert len(program.layout.static_placed) >= 3


def test_without_sharing_every_node_has_memory_that_lasts():
    graph = program_of(NETWORKS["lstm"](), wrt=()).graph
    layout = lay_out(mg.schedule(graph), share=False)
    assert len(layout.allocations) == len(layout.buffers())
    assert {each.kind for each in layout.allocations} == {"kept"}


def live_spans(program):
    """For each buffer (slot, first, last): when it is written first and read last, as numbers of instructions."""
    layout = program.layout
    order = [node for phase in layout.phases for block in phase.blocks for node in block.nodes]
    spans = {}
    for i, node in enumerate(order):
        for touched in (node, *(() if isinstance(node, mg.leaves.State) else node.operands)):
            if touched in layout.buffer:
                buffer = layout.buffer[touched]
                first, last, _ = spans.get(id(buffer), (i, i, buffer))
                spans[id(buffer)] = (min(first, i), max(last, i), buffer)
    return spans.values()


@pytest.mark.parametrize("seed", range(6))
def test_buffers_of_one_place_do_not_live_at_the_same_time(seed):
    random = RandomNetwork(seed, both_directions=True, steps=3)
    net, _ = random.tensors(numbers_as_floats=False)
    by_slot = {}
    for first, last, buffer in live_spans(program_of(net, wrt=differentiable(net))):
        by_slot.setdefault(buffer.slot, []).append((first, last))
    assert -1 not in by_slot
    for spans in by_slot.values():
        spans.sort()
        for (_, end), (start, _) in itertools.pairwise(spans):
            assert end <= start  # the last reader may be the one that writes anew


# --- what a run allocates -----------------------------------------------------------------------------------


def rnn(hidden=32, batch=8):
    rng = np.random.default_rng(0)
    x, h = mg.input(np.zeros((batch, 4)), name="x"), mg.state(np.zeros((batch, hidden)), name="h")
    W, U = mg.parameter(rng.normal(size=(4, hidden)), name="W"), mg.parameter(0.5 * np.eye(hidden), name="U")
    h.next = mg.tanh(x @ W + h @ U)
    return mg.Graph(loss=mg.time_mean(mg.mean(h.next**2)))


def traced(call):
    """(the most memory held during a call, what is held after it), in bytes beyond that before."""
    gc.collect()
    tracemalloc.start()
    try:
        kept = call()
        now, peak = tracemalloc.get_traced_memory()
        del kept
        return peak, now
    finally:
        tracemalloc.stop()


def test_second_run_allocates_nothing_but_its_results():
    net, x = rnn(), np.random.default_rng(0).normal(size=(500, 8, 4))
    step = mg.compile(net)
    first, _ = traced(lambda: step(x=x))
    second, _ = traced(lambda: step(x=x))
    results = 8 * (4 * 32 + 32 * 32 + 8 * 32)
    assert first > 500 * 8 * 32 * 8
    assert second < 6 * results + 20_000  # the gradients, and static matrices on the way to them
    assert second < first / 10


def test_second_run_allocates_its_varying_outputs_once():
    x, h = mg.input(np.zeros((8, 32)), name="x"), mg.state(np.zeros((8, 32)), name="h")
    h.next = mg.tanh(x + 0.5 * h)
    step = mg.compile(mg.Graph(h.next), wrt=())
    xs = np.random.default_rng(0).normal(size=(500, 8, 32))
    step(x=xs)
    peak, _ = traced(lambda: step(x=xs))
    assert xs.nbytes <= peak < 1.1 * xs.nbytes + 10_000


def test_runs_of_one_length_do_not_pile_up():
    net, x = rnn(), np.random.default_rng(0).normal(size=(300, 8, 4))
    step = mg.compile(net)
    step(x=x)

    def many():
        for _ in range(20):
            step(x=x)

    _, held = traced(many)
    assert held < 20_000


def test_runs_of_many_lengths_hold_memory_for_few():
    net = rnn(8, 2)
    step = mg.compile(net)
    for steps in range(1, 60):
        step(x=np.zeros((steps, 2, 4)))
    (program,) = (whole.program for whole in step.programs.values())
    assert 1 <= len(program.idle) <= on_numpy.LENGTHS_KEPT
    assert all(1 <= len(held) <= 2 for held in program.idle.values())


def test_memory_is_linear_in_the_number_of_timesteps():
    net = rnn()
    peaks = {}
    for steps in (250, 500, 1000, 2000):
        step, x = mg.compile(net), np.zeros((steps, 8, 4))
        peaks[steps], _ = traced(lambda step=step, x=x: step(x=x))
    slope = (peaks[1000] - peaks[500]) / 500
    assert peaks[2000] - peaks[1000] < 1.15 * 1000 * slope
    assert peaks[500] - peaks[250] < 1.15 * 250 * slope
    row = 8 * 32 * 8
    assert slope < 8 * row  # h, its adjoint, and views of them; not one row per operation


def test_memory_does_not_grow_with_operations_that_are_done_with():
    x = np.zeros((1000, 2, 16))
    peaks = [traced(lambda net=net: mg.compile(net, wrt=())(x=x))[0] for net in (chain(5), chain(30))]
    programs = [traced(lambda net=net: mg.compile(net, wrt=())(x=x[:1]))[0] for net in (chain(5), chain(30))]
    rows = 1000 * 2 * 16 * 8
    assert peaks[1] - programs[1] < peaks[0] - programs[0] + 4 * rows  # where 75 more operations have rows
