"""Every rewrite does what it says, leaves all values unchanged, and leaves alone the graph it was given."""

import functools

import numpy as np
import pytest
from networks import NETWORKS, weight
from random_networks import RandomNetwork
from test_compiled import differentiable, reduced, sequences_for

import microgrid as mg
from microgrid import rewrite
from microgrid.differentiate import gradients
from microgrid.leaves import State
from microgrid.ops.time import is_time_reduction
from microgrid.rebuild import recorded_on
from microgrid.rewrite.parts import flat_joins

REWRITES = {
    each.__name__: each
    for each in (
        *(rewrite.merge_repeated, rewrite.fold_constants, rewrite.hoist_terms, rewrite.merge_products),
        *(rewrite.scale_weights, rewrite.contract_over_time, rewrite.static_factors_last, rewrite.sigmoid_by_tanh),
        *(rewrite.squares, rewrite.means_as_sums, rewrite.without_broadcasts, rewrite.merge_neighbours),
        *(rewrite.scale_before_slicing, rewrite.join_scatters, rewrite.distribute_over_parts, flat_joins),
        *(rewrite.join_single_rows, rewrite.slice_weights, rewrite.share_factors, rewrite.negate_outside),
        *(rewrite.factors_outside, rewrite.interpolations, rewrite.merge_products_by_one),
    )
}
FIRST_ROUND = [  # of rewrite.network, then again and again the three that feed each other
    *("merge_repeated", "squares", "means_as_sums", "sigmoid_by_tanh", "merge_products", "interpolations"),
    "hoist_terms",
    *("merge_neighbours", "scale_before_slicing", "scale_weights") * 3,
    *("hoist_terms", "join_single_rows"),
]
OF_THE_JOINT_GRAPH = [  # rewrite.program
    *("fold_constants", "slice_weights", "without_broadcasts", "join_scatters", "distribute_over_parts"),
    *(
        "hoist_terms",
        "negate_outside",
        "factors_outside",
        "share_factors",
        "factors_outside",
        "merge_products_by_one",
        "static_factors_last",
        "contract_over_time",
        "fold_constants",
        "merge_repeated",
    ),
]
STEPS = 2


# --- one sequence, and what the adjoint of a gated cell shares ------------------------------------------


def one_row(cell):
    """A recurrent network on a batch of one, and its adjoint, as one graph before the rewrites of the program."""
    rng = np.random.default_rng(0)
    x, h = mg.input(np.zeros((1, 3)), name="x"), mg.state(np.zeros((1, 4)), name="h")
    p = {
        name: mg.parameter(rng.normal(size=shape), name=name)
        for name, shape in {"W": (3, 4), "U": (4, 4), "b": (4,), "Z": (3, 4), "R": (4, 4)}.items()
    }
    h.next = cell(x, h, p)
    return mg.Graph(loss=mg.time_sum(mg.sum(h.next**2)))


def plain(x, h, p):
    return mg.tanh(x @ p["W"] + h @ p["U"] + p["b"])


def highway(x, h, p):
    z = mg.sigmoid(x @ p["Z"] + h @ p["R"])
    return (1 - z) * mg.tanh(x @ p["W"] + h @ p["U"]) + z * h


def test_one_sequence_needs_one_product_and_no_sum_per_timestep():
    net = one_row(plain)
    rewritten = rewrite.network(net)
    assert (in_loops(rewritten, "matmul"), in_loops(rewritten, "add")) == (1, 0)
    assert mg.schedule(rewritten).operations("all") == 2  # the loss's square and sum: nothing of the input is left
    assert_rewritten_equally(rewritten, net, {"x": np.random.default_rng(1).normal(size=(3, 1, 3))})


def test_two_sequences_keep_the_product_of_the_input_outside():
    rewritten = rewrite.network(NETWORKS["rnn"]())
    assert count(rewritten, "concatenate") == 0


@pytest.mark.parametrize("cell", [plain, highway])
def test_joined_rows_give_the_gradients_of_the_unrolled_graph(cell):
    net = one_row(cell)
    xs = np.random.default_rng(2).normal(size=(6, 1, 3))
    run, dag = mg.compile(net)(x=xs), net.unroll(x=xs)
    dag.backward()
    for parameter in net.parameters:
        np.testing.assert_allclose(run.grads[parameter], parameter.grad, rtol=1e-11, atol=1e-13)


def test_factor_shared_by_two_terms_multiplies_once_in_the_loop():
    net = one_row(highway)
    found = gradients(net, net.output, net.parameters)
    joint = rewrite.hoist_terms(mg.Graph(net.output, *found.values()))
    shared = rewrite.share_factors(rewrite.negate_outside(joint))
    assert in_loops(shared, "multiply") < in_loops(joint, "multiply")
    assert in_loops(shared, "negative") == 0 < in_loops(joint, "negative")
    assert_rewritten_equally(shared, joint, {"x": np.random.default_rng(1).normal(size=(3, 1, 3))})


def test_gate_between_old_and_new_takes_three_operations():
    def network(mix):
        x, h = mg.input(np.ones((2, 3)), name="x"), mg.state(np.zeros((2, 3)), name="h")
        h.next = mix(mg.sigmoid(x + h), mg.tanh(x - h), h)
        return mg.Graph(h.next)

    sequences = {"x": np.random.default_rng(0).normal(size=(3, 2, 3))}
    for mix in (lambda z, n, h: (1 - z) * n + z * h, lambda z, n, h: z * h + n * (1.0 - z)):
        graph = network(mix)
        rewritten = rewrite.interpolations(graph)
        assert count(rewritten, "multiply") == count(graph, "multiply") - 1
        assert_rewritten_equally(rewritten, graph, sequences)
    for other in (
        lambda z, n, h: (2 - z) * n + z * h,
        lambda z, n, h: (1 - z) * n + n * h,
        lambda z, n, h: (z - 1) * n + z * h,
        lambda z, n, h: (1 - z[:1]) * n + z[:1] * h,
    ):
        graph = network(other)
        assert not changed(rewrite.interpolations(graph), graph)


@pytest.mark.parametrize("by", ["1 − z", "(1 − z)·n", "z·h", "slice"])
def test_rewrites_pass_by_no_node_by_which_a_gradient_is_asked_for(by):
    x, h = mg.input(np.zeros((2, 6)), name="x"), mg.state(np.zeros((2, 2)), name="h")
    part = mg.sin(weight("w", 6) * x)[:, :4]
    z = mg.sigmoid(part[:, 1:3] + h)
    rest = 1 - z
    new, old = rest * mg.tanh(part[:, 2:]), z * h
    h.next = new + old
    loss = mg.Graph(mg.time_sum(mg.sum(h.next**2)))
    node = {"1 − z": rest, "(1 − z)·n": new, "z·h": old, "slice": part}[by]
    sequences = {"x": np.random.default_rng(0).normal(size=(4, 2, 6))}
    dag = loss.unroll(sequences)
    dag.backward()
    found = mg.compile(loss, wrt=node)(sequences).grads[node]
    np.testing.assert_allclose(found, dag.grads(node), rtol=1e-11, atol=1e-13)


def test_factors_from_outside_are_multiplied_outside_also_where_others_read_the_product():
    x, h = mg.input(np.ones((2, 3)), name="x"), mg.state(np.ones((2, 3)), name="h")
    a, b, c = mg.sin(x), mg.cos(x), weight("c", 3)
    inner = a * h
    h.next = mg.tanh(inner + c * (b * inner))
    graph = mg.Graph(h.next)
    rewritten = rewrite.factors_outside(graph)
    assert (in_loops(graph, "multiply"), in_loops(rewritten, "multiply")) == (3, 2)
    assert_rewritten_equally(rewritten, graph, {"x": np.random.default_rng(0).normal(size=(3, 2, 3))})
    shared = rewrite.share_factors(rewritten)
    assert (in_loops(shared, "multiply"), in_loops(shared, "add")) == (1, 0)  # a·h has no other reader any more
    assert_rewritten_equally(shared, graph, {"x": np.random.default_rng(1).normal(size=(3, 2, 3))})


def test_term_and_its_multiple_are_one_product():
    x, h = mg.input(np.ones((2, 3)), name="x"), mg.state(np.ones((2, 3)), name="h")
    h.next = h + mg.sin(x) * h
    graph = mg.Graph(h.next)
    rewritten = rewrite.share_factors(graph)
    assert (in_loops(rewritten, "multiply"), in_loops(rewritten, "add")) == (1, 0)
    assert_rewritten_equally(rewritten, graph, {"x": np.random.default_rng(0).normal(size=(3, 2, 3))})


@pytest.mark.parametrize("rows", [1, 2])
def test_neighbouring_parts_with_a_shared_factor_are_one_product(rows):
    x, h = mg.input(np.ones((rows, 3)), name="x"), mg.state(np.ones((rows, 3)), name="h")
    y = mg.tanh(h)
    joined = mg.concatenate([mg.sin(x) * y, y * mg.cos(x), x * y, mg.exp(h), x * y, y * y, weight("w", 3) * y], axis=1)
    h.next = mg.tanh(joined @ weight("W", 21, 3))
    graph = mg.Graph(h.next)
    rewritten = rewrite.merge_products_by_one(graph)
    assert in_loops(graph, "multiply") - in_loops(rewritten, "multiply") == 2
    sequences = {"x": np.random.default_rng(0).normal(size=(5, rows, 3))}
    assert_rewritten_equally(rewritten, graph, sequences)
    loss = mg.Graph(mg.time_sum(mg.sum(graph.output**2)))
    run, dag = mg.compile(loss)(sequences), loss.unroll(sequences)
    dag.backward()
    for parameter in loss.parameters:
        np.testing.assert_allclose(run.grads[parameter], parameter.grad, rtol=1e-11, atol=1e-12)


def test_part_that_is_the_shared_factor_itself_stays_apart():
    x, h = mg.input(np.ones((2, 3)), name="x"), mg.state(np.ones((2, 3)), name="h")
    y = mg.tanh(h)
    joined = mg.concatenate([y, mg.sin(x) * y, y, y, x * y, mg.cos(x) * y], axis=1)
    h.next = mg.tanh(joined @ weight("W", 18, 3))
    graph = mg.Graph(h.next)
    rewritten = rewrite.merge_products_by_one(graph)
    assert in_loops(graph, "multiply") - in_loops(rewritten, "multiply") == 1
    assert_rewritten_equally(rewritten, graph, {"x": np.random.default_rng(0).normal(size=(5, 2, 3))})


def test_two_products_of_single_rows_stay_two():
    x, h = mg.input(np.ones((1, 3)), name="x"), mg.state(np.ones((1, 3)), name="h")
    h.next = mg.tanh(mg.concatenate([mg.sin(x) * h, mg.cos(x) * h], axis=1) @ weight("W", 6, 3))
    graph = mg.Graph(h.next)
    assert not changed(rewrite.merge_products_by_one(graph), graph)


# --- graphs to rewrite -----------------------------------------------------------------------------------


def joint(net):
    """A network and the gradients of all its outputs, as one graph."""
    net = recorded_on(reduced(net), {}, {}, STEPS)
    return mg.Graph(*net.outputs, *gradients(net, net.output, differentiable(net)).values())


def gated(seed):
    """A random gated cell, as users write them: projections, cut into gates, scaled, and joined again."""
    rng = np.random.default_rng(seed)
    x, h = mg.input(np.zeros((2, 3)), name="x"), mg.state(0.1 * rng.normal(size=(2, 4)), name="h")
    widths = [int(n) for n in rng.integers(1, 5, size=3)]
    total, parts = sum(widths), []

    def parameter(*shape):
        return mg.parameter(0.5 * rng.normal(size=shape))

    if rng.random() < 0.5:  # one product, cut
        whole = x @ parameter(3, total) + h @ parameter(4, total) + parameter(total)
        if rng.random() < 0.5:
            whole = whole * 0.5 if rng.random() < 0.5 else whole * mg.tensor(rng.normal(size=total))
        start = 0
        for width in widths:
            parts.append(whole[:, start : start + width])
            start += width - int(rng.random() < 0.2 and width > 1)  # a gap is left, or an overlap made
    else:  # a product for each gate
        parts = [x @ parameter(3, width) + h @ parameter(4, width) + parameter(width) for width in widths]
    words = [mg.sigmoid, mg.tanh, lambda a: 0.5 * a, lambda a: a * parameter(a.shape[-1]), lambda a: a**2, mg.sin]
    some = [words[k] for k in rng.integers(0, len(words), size=2)]
    gates = [some[int(rng.integers(2))](part) for part in parts]
    joined = mg.concatenate(gates, axis=-1) * (mg.sigmoid(x @ parameter(3, total)) if rng.random() < 0.5 else 1.0)
    h.next = mg.tanh(joined @ parameter(total, 4))
    y = mg.mean(h.next @ parameter(4, 1), axis=0) + mg.mean(mg.sum(joined, axis=1, keepdims=True), axis=0)
    return mg.Graph(loss=mg.time_mean(mg.mean(y**2)) + mg.sum(mg.time_mean(h) * parameter(4)))


@functools.cache
def graphs():
    """Name → (graph, sequences): the networks, gated cells and random networks; then each with its gradients."""
    found, both = {}, {}
    for name, network in NETWORKS.items():
        net = recorded_on(network(), {}, {}, STEPS)
        found[name] = net, sequences_for(net, STEPS, np.random.default_rng(0))
    for seed in range(16):
        found[f"gated {seed}"] = net, _ = gated(seed), {"x": np.random.default_rng(seed).normal(size=(STEPS, 2, 3))}
    for seed in range(60):
        random = RandomNetwork(seed, both_directions=seed % 4 > 0, steps=STEPS)
        net, leaves = random.tensors(numbers_as_floats=bool(seed % 2))
        found[f"random {seed}"] = recorded_on(net, {}, {}, STEPS), random.sequences(net, leaves)
    for name, (net, sequences) in found.items():
        number = int(name.split()[1]) if " " in name else 1
        if number % 6 == 1 and differentiable(reduced(net)):  # every network, and a sixth of the random ones
            both[f"{name} with gradients"] = joint(net), sequences
    return {**found, **both}


def some_networks():
    """(name, graph, sequences) of all networks and some random ones, without gradients."""
    for name, (graph, sequences) in graphs().items():
        if f"{name} with gradients" in graphs():
            yield name, graph, sequences


def values(graph, sequences, steps=STEPS):
    """What every output is at every timestep, by unrolling."""
    dag = graph.unroll({node: sequences[graph.names[node]] for node in graph.inputs}, steps=steps)
    return [dag.values(output) if output in graph.varying else dag[output].value for output in graph.outputs]


@functools.cache
def known_values(name):
    return values(*graphs()[name])


def assert_equal_values(found, expected, rtol=1e-12):
    assert len(found) == len(expected)
    for one, two in zip(found, expected, strict=True):
        one, two = np.asarray(one), np.asarray(two)
        assert one.shape == two.shape
        assert one.dtype == two.dtype
        np.testing.assert_allclose(one, two, rtol=0, atol=rtol * max(1e-3, float(np.max(np.abs(two), initial=0))))


def assert_rewritten_equally(rewritten, graph, sequences, steps=2, rtol=1e-12):
    assert_equal_values(values(rewritten, sequences, steps), values(graph, sequences, steps), rtol)


def count(graph, *names):
    """How many operations of these names."""
    return sum(node.primitive is not None and node.primitive.name in names for node in graph.nodes)


def in_loops(graph, name):
    """How many operations of this name run step by step."""
    return sum(
        node.primitive is not None and node.primitive.name == name
        for block in mg.schedule(graph).blocks
        if block.kind == "loop"
        for node in block.nodes
    )


def operations(graph):
    """Every operation and what it reads: operations by their names, leaves by themselves."""
    return sorted(
        (node.primitive.name, [x.primitive.name if x.primitive else str(id(x)) for x in node.operands])
        for node in graph.nodes
        if node.primitive is not None
    )


def changed(rewritten, graph):
    """Whether other operations than those of `graph` are there."""
    return operations(rewritten) != operations(graph)


# --- all rewrites: values ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", REWRITES)
def test_rewrite_of_every_graph_leaves_its_values_unchanged(name):
    met = 0
    for key, (graph, sequences) in graphs().items():
        rewritten = REWRITES[name](graph)
        if not changed(rewritten, graph):
            continue
        met += 1
        assert_equal_values(values(rewritten, sequences), known_values(key))
    assert met or name in (
        "distribute_over_parts",
        "flat_joins",
        "merge_products_by_one",
        "scale_before_slicing",
        "scale_weights",
        "slice_weights",
    )  # see the next test


def test_rewrites_one_after_the_other_leave_values_unchanged():
    worked = set()
    for key, graph, sequences in some_networks():
        expected = known_values(key)

        def through(graph, names, sequences, expected):
            for name in names:
                before = graph
                graph = REWRITES[name](before)
                if changed(graph, before):
                    worked.add(name)
                    assert_equal_values(values(graph, sequences), expected)
            return graph

        net = through(graph, FIRST_ROUND, sequences, expected)
        both = joint(net)
        through(both, OF_THE_JOINT_GRAPH, sequences, values(both, sequences))
    assert worked >= set(REWRITES) - {"flat_joins"}


def test_gradients_of_a_rewritten_network_are_those_of_the_network():
    for key, graph, sequences in some_networks():
        loss = recorded_on(reduced(graph), {}, {}, STEPS)
        by = differentiable(loss)
        net = rewrite.network(mg.Graph(*loss.outputs, *by))
        assert list(map(id, net.outputs[1:])) == list(map(id, by))
        found = gradients(net, net.outputs[0], by)
        program = rewrite.program(mg.Graph(net.outputs[0], *(found[node] for node in by)))
        for one, two in zip(values(program, sequences), known_values(f"{key} with gradients"), strict=True):
            one = np.broadcast_to(one, np.shape(two))  # some do not vary any more
            np.testing.assert_allclose(one, two, rtol=0, atol=1e-12 * max(1e-3, float(np.max(np.abs(two), initial=0))))


# --- all rewrites: the graph they are given ----------------------------------------------------------------


def picture(graph):
    """All that a graph is, to compare with what it is later."""
    return (
        [id(output) for output in graph.outputs],
        [
            (
                *(id(node), type(node), id(node.primitive), [id(operand) for operand in node.operands]),
                *(repr(node.params), node.name, node.requires_grad, id(node.value), np.array(node.value).tobytes()),
                (id(node.next), node.reverse) if isinstance(node, State) else None,
            )
            for node in graph.nodes
        ],
    )


@pytest.mark.parametrize("name", [*REWRITES, "network", "program"])
def test_rewrite_does_not_change_the_graph_it_is_given_and_keeps_its_leaves(name):
    each = REWRITES.get(name) or getattr(rewrite, name)
    for key, (graph, _) in list(graphs().items())[::6]:
        before = picture(graph)
        rewritten = each(graph)
        assert picture(graph) == before, key
        assert len(rewritten.outputs) == len(graph.outputs)
        for group in ("parameters", "inputs"):
            known = {id(node) for node in getattr(graph, group)}
            assert {id(node) for node in getattr(rewritten, group)} <= known
        assert {s.name for s in rewritten.states} <= {s.name for s in graph.states}
        for old, new in zip(graph.outputs, rewritten.outputs, strict=True):
            assert (new.shape, new.dtype) == (old.shape, old.dtype)


@pytest.mark.parametrize("name", [*REWRITES, "network", "program"])
def test_rewrite_of_a_rewritten_graph_changes_no_value(name):
    each = REWRITES.get(name) or getattr(rewrite, name)
    for key in ("lstm with gradients", "gru with gradients", "gated 1 with gradients", "bidirectional"):
        graph, sequences = graphs()[key]
        assert_equal_values(values(each(each(graph)), sequences), known_values(key))


def float32_cell():
    rng = np.random.default_rng(0)

    def parameter(*shape):
        return mg.parameter(rng.normal(size=shape).astype(np.float32))

    x, h = mg.input(np.zeros((2, 3), np.float32), name="x"), mg.state(np.zeros((2, 4), np.float32), name="h")
    z = x @ parameter(3, 12) + h @ parameter(4, 12) + parameter(12)
    h.next = mg.sigmoid(z[:, :4]) * mg.tanh(z[:, 4:8]) + 0.5 * (z[:, 8:] ** 2) / (1.0 + z[:, 8:] ** 2)
    scaled = (x @ parameter(3, 4) + parameter(4)) * 0.5
    return mg.Graph(loss=mg.time_mean(mg.mean((h.next - scaled) ** 2)) + mg.sum(mg.last(h.next) * 2.0))


@pytest.mark.parametrize("name", [*REWRITES, "network", "program"])
def test_float32_stays_float32(name):
    each = REWRITES.get(name) or getattr(rewrite, name)
    net = float32_cell()
    both = joint(net)
    x = {"x": np.random.default_rng(1).normal(size=(STEPS, 2, 3)).astype(np.float32)}
    for graph in (net, both, joint(rewrite.network(net))):
        rewritten = each(graph)
        assert {node.dtype for node in rewritten.nodes if node.shape and node.dtype.kind == "f"} == {
            np.dtype(np.float32)
        }
        found, expected = values(rewritten, x), values(graph, x)
        assert [np.asarray(value).dtype for value in found] == [np.dtype(np.float32)] * len(found)
        for one, two in zip(found, expected, strict=True):
            np.testing.assert_allclose(one, two, rtol=1e-4, atol=1e-4)


def count_up(dtype):
    """Integer arithmetic in which all shapes occur that rewrites of floats look for."""
    x, h = mg.input(np.zeros((2, 4), dtype), name="x"), mg.state(np.zeros((2, 4), dtype), name="h")
    k = mg.input(np.zeros((2, 4), dtype), name="k")
    W, V, b = (mg.tensor(np.arange(n, dtype=dtype).reshape(shape)) for n, shape in ((16, (4, 4)), (16, (4, 4)), (4, 4)))
    sums = x + k
    h.next = x @ W + h * 2 + b
    half = sums[:, :2] * 2
    joined = mg.concatenate([k[:, :2] + k[:, 2:], x[:, :2] * x[:, 2:]], axis=-1)
    return mg.Graph(
        *(h.next @ V, (x @ V + b) * 3, half, sums[:, 2:] * 0.5, x**2),
        *(mg.time_sum(mg.sum(x * k)), mg.time_sum(x * b), mg.time_sum(mg.transpose(x) @ k), mg.time_sum(mg.sum(x, 0))),
        *(
            mg.time_sum(x * mg.tensor(np.arange(1000, 1004))),
            joined * x,
            mg.maximum(sums[:, :2], 1),
            mg.maximum(sums[:, 2:], 1),
            mg.broadcast_to(b, (2, 4)) * x,
        ),
    )


@pytest.mark.parametrize("dtype", [np.int64, np.int8, np.uint8, np.bool_], ids=lambda dtype: dtype.__name__)
@pytest.mark.parametrize("name", [*REWRITES, "network", "program"])
def test_integers_are_counted_exactly(name, dtype):
    each = REWRITES.get(name) or getattr(rewrite, name)
    graph = count_up(np.int64) if dtype is np.bool_ else count_up(dtype)
    rng = np.random.default_rng(0)
    sequences = {key: rng.integers(0, 100, size=(STEPS, 2, 4)).astype(graph[key].dtype) for key in "xk"}
    if dtype is np.bool_:
        x = mg.input(np.ones(3, bool), name="x")
        graph = mg.Graph(x + x, x * x, mg.time_sum(x), mg.time_sum(x * x), mg.time_mean(x), mg.mean(x), (x & ~x))
        sequences = {"x": rng.random((STEPS, 3)) < 0.5}
    assert_equal_values(
        values(each(graph), sequences), values(graph, sequences), rtol=0 if dtype is not np.bool_ else 1e-12
    )


@pytest.mark.parametrize("name", [*REWRITES, "network", "program"])
def test_precision_of_float64_is_kept_beside_float32(name):
    each = REWRITES.get(name) or getattr(rewrite, name)
    rng = np.random.default_rng(0)
    small = {k: mg.parameter(rng.normal(size=s).astype(np.float32), name=k) for k, s in [("W", (3, 3)), ("b", 3)]}
    c = mg.parameter(rng.normal(size=3).astype(np.float32), name="c")
    p, x = mg.parameter(rng.normal(size=3)), mg.input(np.zeros((2, 3)), name="x")
    y = mg.input(np.zeros(3, np.float32), name="y")
    graph = mg.Graph(
        *(x + small["b"] + c, x * small["b"] * c, (x @ small["W"] + small["b"]) * 0.1, mg.time_sum(y * p)),
        *(x @ small["W"], x @ mg.parameter(rng.normal(size=(3, 3))), mg.time_sum(mg.sum(x * small["b"]))),
    )
    sequences = {"x": rng.normal(size=(STEPS, 2, 3)), "y": rng.normal(size=(STEPS, 3)).astype(np.float32)}
    assert_rewritten_equally(each(graph), graph, sequences)


# --- merge_repeated ------------------------------------------------------------------------------------------


def test_operation_that_is_written_twice_is_computed_once():
    x, W = mg.input(np.ones((2, 3)), name="x"), weight("W", 3, 3)
    graph = mg.Graph(mg.tanh(x @ W) + mg.tanh(x @ W), x * 2.0 + x * 2.0, x + W[0] + (W[0] + x))
    rewritten = rewrite.merge_repeated(graph)
    assert (count(graph, "matmul"), count(rewritten, "matmul")) == (2, 1)
    assert (count(graph, "multiply"), count(rewritten, "multiply")) == (2, 1)
    assert (count(graph, "getitem"), count(rewritten, "getitem")) == (2, 1)
    assert (count(graph, "add"), count(rewritten, "add")) == (5, 4)  # a + b is b + a


def test_operations_that_differ_in_a_setting_or_an_operand_are_two():
    x, y = mg.input(np.ones((2, 3)), name="x"), mg.input(np.ones((2, 3)), name="y")
    a, b = mg.parameter(1.0, name="a"), mg.parameter(1.0, name="b")
    pairs = [
        *((mg.sum(x, axis=0), mg.sum(x, axis=1)), (x[:, :2], x[:, 1:]), (x * 2, x * 2.0), (x - y, y - x)),
        *((x * a, x * b), (x[[0, 1]], x[[1, 0]]), (x * mg.tensor(2.0, name="p"), x * mg.tensor(2.0, name="q"))),
        *((x * 0.0, x * -0.0), (mg.sum(x, axis=0), mg.sum(x, axis=0, keepdims=True))),
    ]
    for pair in pairs:
        one, two = (output.operands[0] for output in rewrite.merge_repeated(mg.Graph(*map(mg.sin, pair))).outputs)
        assert one is not two
    for pair in [(x[:, :2], x[:, :2]), (x - y, x - y), (x - 1.0, x - 1.0), (mg.sum(x, axis=0), mg.sum(x, axis=0))]:
        one, two = (output.operands[0] for output in rewrite.merge_repeated(mg.Graph(*map(mg.sin, pair))).outputs)
        assert one is two


def test_outputs_that_are_the_same_operation_stay_two():
    """There may be a gradient by one of them."""
    x = mg.input(np.ones(3), name="x")
    one, two = rewrite.merge_repeated(mg.Graph(mg.tanh(x), mg.tanh(x))).outputs
    assert one is not two


def test_states_are_never_merged():
    x = mg.input(1.0, name="x")
    one, two = mg.state(0.0, name="one"), mg.state(0.0, name="two")
    one.next, two.next = one + x, two - x
    assert len(rewrite.merge_repeated(mg.Graph(one.next, two.next)).states) == 2


def test_what_no_output_depends_on_is_gone():
    graph = NETWORKS["lstm"]()
    rewritten = rewrite.program(joint(rewrite.network(graph)))
    needed = set()
    stack = list(rewritten.outputs)
    while stack:
        node = stack.pop()
        if id(node) not in needed:
            needed.add(id(node))
            stack += [*node.operands, *([node.next] if isinstance(node, State) else [])]
    assert {id(node) for node in rewritten.nodes} == needed


# --- fold_constants ------------------------------------------------------------------------------------------


def test_operations_on_numbers_are_done_once_and_for_all():
    x = mg.input(np.ones(3), name="x")
    two = mg.tensor(2.0, requires_grad=False)
    graph = mg.Graph(x * (mg.exp(two) * 3.0 + 1.0))
    rewritten = rewrite.fold_constants(graph)
    assert count(graph, "exp", "multiply", "add") == 4
    assert [node.primitive.name for node in rewritten.nodes if node.primitive] == ["multiply"]
    assert_rewritten_equally(rewritten, graph, {"x": np.ones((3, 3))})


def test_product_by_one_is_gone_unless_it_gives_another_shape_or_dtype():
    x, x32 = mg.input(np.ones(3), name="x"), mg.input(np.ones(3, np.float32), name="x32")
    one = mg.tensor(1.0, requires_grad=False)
    rewritten = rewrite.fold_constants(mg.Graph(mg.tanh(x * 1.0), mg.sin(1.0 * x), mg.cos(x * (one * 1.0))))
    assert count(rewritten, "multiply") == 0
    kept_ones = mg.Graph(mg.tanh(x * mg.exp(mg.broadcast_to(one, (2, 3)) * 0.0)), mg.tanh(x32 * np.float64(1.0)))
    rewritten = rewrite.fold_constants(kept_ones)
    assert [output.shape for output in rewritten.outputs] == [(2, 3), (3,)]
    assert [output.dtype for output in rewritten.outputs] == [output.dtype for output in kept_ones.outputs]
    assert count(rewritten, "multiply") >= 1


def test_what_changes_between_runs_is_no_constant():
    """A count of timesteps, a parameter of one number, a tensor with a name."""
    p, named = mg.parameter(1.0, name="p"), mg.tensor(1.0, name="named", requires_grad=False)
    x = mg.input(1.0, name="x")
    graph = mg.Graph(mg.time_sum(1.0) * 2.0, mg.exp(p * 1.0) + x, mg.exp(named) * x)
    rewritten = rewrite.fold_constants(graph)
    assert count(rewritten, "time_sum") == 1
    assert count(rewritten, "exp") == 2
    assert values(rewritten, {"x": np.ones(5)}, steps=5)[0] == 10.0


# --- hoist_terms ---------------------------------------------------------------------------------------------


def test_terms_outside_the_cycle_are_added_outside_it():
    x, h = mg.input(np.zeros((2, 3)), name="x"), mg.state(np.zeros((2, 4)), name="h")
    W, U, b = weight("W", 3, 4), weight("U", 4, 4), weight("b", 4)
    h.next = mg.tanh(x @ W + h @ U + b)
    graph = mg.Graph(h.next)
    rewritten = rewrite.hoist_terms(graph)
    assert (in_loops(graph, "add"), in_loops(rewritten, "add")) == (2, 1)
    assert mg.schedule(rewritten).operations("loop") == 3
    assert_rewritten_equally(rewritten, graph, {"x": np.random.default_rng(0).normal(size=(3, 2, 3))})


def test_static_terms_are_added_once():
    x, a, b = mg.input(np.zeros(3), name="x"), weight("a", 3), weight("b", 3)
    graph = mg.Graph(a + x + b, a * x * b)
    rewritten = rewrite.hoist_terms(graph)
    schedules = mg.schedule(graph), mg.schedule(rewritten)
    assert [each.operations("all") for each in schedules] == [4, 2]
    assert [each.operations("once") for each in schedules] == [0, 2]


def test_factors_outside_the_cycle_are_multiplied_outside_it():
    x, h, p = mg.input(np.zeros(3), name="x"), mg.state(np.ones(3), name="h"), weight("p", 3)
    h.next = mg.sin(x * h * p * mg.exp(x))
    graph = mg.Graph(h.next)
    rewritten = rewrite.hoist_terms(graph)
    assert (in_loops(graph, "multiply"), in_loops(rewritten, "multiply")) == (3, 1)


def test_sum_that_somebody_else_reads_stays_as_it_is():
    x, h, b = mg.input(np.zeros(3), name="x"), mg.state(np.zeros(3), name="h"), weight("b", 3)
    part = x + h
    h.next = mg.tanh(part + b)
    assert count(rewrite.hoist_terms(mg.Graph(h.next, part)), "add") == 2
    assert in_loops(rewrite.hoist_terms(mg.Graph(h.next, part)), "add") == 2


# --- products ------------------------------------------------------------------------------------------------


def four_gates():
    x, h, c = mg.input(np.zeros((2, 3)), name="x"), mg.state(np.zeros((2, 4)), name="h"), mg.state(np.zeros((2, 4)))
    i, f, o, g = (x @ weight(f"W{k}", 3, 4) + h @ weight(f"U{k}", 4, 4) + weight(f"b{k}", 4) for k in "ifog")
    c.next = mg.sigmoid(f) * c + mg.sigmoid(i) * mg.tanh(g)
    h.next = mg.sigmoid(o) * mg.tanh(c.next)
    return mg.Graph(loss=mg.time_sum(mg.sum(h.next**2)))


def test_products_of_separate_gates_become_one():
    graph = four_gates()
    rewritten = rewrite.merge_products(graph)
    assert (count(graph, "matmul"), count(rewritten, "matmul")) == (8, 2)
    assert in_loops(rewritten, "matmul") == 1
    assert count(rewritten, "concatenate") == 2
    assert mg.schedule(rewritten).operations("once") >= 2  # weights are joined once a run
    assert_rewritten_equally(rewritten, graph, {"x": np.random.default_rng(0).normal(size=(3, 2, 3))})


def test_four_gates_written_apart_run_as_one_product_one_sum_and_two_sweeps():
    rewritten = rewrite.network(four_gates())
    assert in_loops(rewritten, "matmul") == 1
    assert in_loops(rewritten, "add") <= 5  # z, c and the three ½ + ½ tanh, or fewer
    assert in_loops(rewritten, "tanh") <= 2  # all gates, and the cell
    assert count(rewritten, "sigmoid") == 0


def test_products_with_weights_that_are_not_of_one_kind_stay_apart():
    x, h = mg.input(np.ones((2, 3)), name="x"), mg.state(np.ones((3, 3)), name="h")
    h.next = mg.tanh(h * 0.5)
    ends = mg.time_mean(mg.transpose(x) @ x)  # static, but known only after the whole sequence
    apart = [
        (x @ weight("A", 3, 2), x @ h),  # varies
        (x @ weight("A", 3, 2), x @ ends),
        (x @ weight("A", 3, 2), mg.tanh(x) @ weight("B", 3, 2)),  # another operand
        (x @ weight("A", 3, 2), x @ weight("b", 3)),  # a vector
        (x @ weight("A", 3, 2), weight("B", 4, 2) @ x),
    ]
    for one, two in apart:
        graph = mg.Graph(one, two)
        assert count(rewrite.merge_products(graph), "matmul") == count(graph, "matmul")


def test_scale_of_a_sum_of_products_is_taken_by_the_weights():
    x, h = mg.input(np.zeros((2, 3)), name="x"), mg.state(np.zeros((2, 4)), name="h")
    row = np.array([1.0, 2.0, 0.5, 3.0])
    h.next = mg.tanh((x @ weight("W", 3, 4) + h @ weight("U", 4, 4) + weight("b", 4)) * 0.5)
    y = mg.sin(row * (x @ weight("V", 3, 4) + x[:, :1] * weight("c", 4)))
    graph = mg.Graph(h.next, y)
    rewritten = rewrite.scale_weights(graph)
    assert in_loops(graph, "multiply") == 1
    assert in_loops(rewritten, "multiply") == 0
    schedules = mg.schedule(graph), mg.schedule(rewritten)
    assert [each.operations("once") for each in schedules] == [0, 5]
    assert_rewritten_equally(rewritten, graph, {"x": np.random.default_rng(0).normal(size=(3, 2, 3))})


def test_scale_stays_where_the_sum_is_read_unscaled_too_or_is_no_product():
    x = mg.input(np.zeros((2, 3)), name="x")
    z = x @ weight("W", 3, 4) + weight("b", 4)
    learned = mg.parameter(0.5, name="s")
    for graph in (
        mg.Graph(z * 0.5, z),
        mg.Graph(mg.tanh(x @ weight("W", 3, 4)) * 0.5),
        mg.Graph((x @ weight("W", 3, 4) + mg.tanh(x[:, :1])) * 0.5),
        mg.Graph((x @ weight("W", 3, 4)) * learned),
        mg.Graph((x @ weight("W", 3, 1)) * np.ones(4)),
    ):
        rewritten = rewrite.scale_weights(graph)
        assert not changed(rewritten, graph)
        assert mg.schedule(rewritten).operations("once") == 0
    assert rewrite.scale_weights(mg.Graph(z * 0.5, z)).outputs[1] is z


# --- time ----------------------------------------------------------------------------------------------------


def test_gradients_by_weights_and_biases_are_one_product_over_all_timesteps():
    net = NETWORKS["rnn"]()
    graph = joint(net)
    rewritten = rewrite.contract_over_time(graph)
    assert count(rewritten, "time_matmul") == 3  # W, U, V
    assert count(rewritten, "time_rows") == 1  # b
    assert not [node for node in rewritten.nodes if node.primitive and node.primitive.name == "time_sum" and node.shape]
    assert count(rewritten, "matmul") == count(graph, "matmul") - 3
    assert_equal_values(values(rewritten, graphs()["rnn"][1]), known_values("rnn with gradients"))


def test_sums_of_products_and_squares_over_time_are_one_product():
    x, y = mg.input(np.zeros((2, 3)), name="x"), mg.input(np.zeros((2, 3)), name="y")
    row, b = mg.input(np.zeros(3), name="row"), weight("b", 3)
    graph = mg.Graph(
        *(mg.time_sum(mg.sum(x * y)), mg.time_sum(mg.sum(mg.square(x))), mg.time_sum(mg.sum(x, axis=0))),
        *(mg.time_sum(mg.transpose(x) @ y), mg.time_sum(mg.reshape(mg.sum(x, axis=0), (3, 1)))),
    )
    rng = np.random.default_rng(0)
    sequences = {"x": rng.normal(size=(3, 2, 3)), "y": rng.normal(size=(3, 2, 3)), "row": rng.normal(size=(3, 3))}
    rewritten = rewrite.contract_over_time(graph)
    assert [count(rewritten, name) for name in ("time_dot", "time_rows", "time_matmul", "time_sum")] == [2, 2, 1, 0]
    assert_rewritten_equally(rewritten, graph, sequences)
    others = mg.Graph(  # which are none of these
        *(mg.time_sum(mg.sum(x * row)), mg.time_sum(mg.sum(x * b)), mg.time_sum(mg.sum(x, axis=1))),
        *(mg.time_sum(mg.sum(x, axis=0, keepdims=True)), mg.time_sum(x @ mg.transpose(y))),
        *(mg.time_mean(mg.sum(x * y)), mg.time_sum(mg.transpose(weight("C", 2, 3)) @ y), mg.time_sum(mg.sum(b * b))),
    )
    rewritten = rewrite.contract_over_time(others)
    assert count(rewritten, "time_dot", "time_rows", "time_matmul") == 0
    assert_rewritten_equally(rewritten, others, sequences)


def test_static_factor_multiplies_the_sum_over_time():
    x, w = mg.input(np.zeros((2, 3)), name="x"), weight("w", 3)
    graph = mg.Graph(mg.time_sum(x * w), mg.time_sum(w * mg.tanh(x)))
    rewritten = rewrite.static_factors_last(graph)
    assert mg.schedule(graph).operations("all") == 3
    assert mg.schedule(rewritten).operations("all") == 1
    assert all(output.primitive.name == "multiply" for output in rewritten.outputs)
    assert_rewritten_equally(rewritten, graph, {"x": np.random.default_rng(0).normal(size=(3, 2, 3))})
    broad = mg.Graph(mg.time_sum(x[0] * weight("W", 2, 3)), mg.time_sum(w * w))  # a larger sum; nothing that varies
    assert not changed(rewrite.static_factors_last(broad), broad)


# --- cheaper operations --------------------------------------------------------------------------------------


def test_sigmoid_is_a_tanh_that_overflows_nowhere():
    x = mg.input(np.zeros(7), name="x")
    graph = mg.Graph(mg.sigmoid(x).named("gate") * 1.0)
    rewritten = rewrite.sigmoid_by_tanh(graph)
    assert count(rewritten, "sigmoid") == 0
    assert count(rewritten, "tanh") == 1
    assert rewritten["gate"] in rewritten.output.operands
    at = np.array([[-1e308, -1000.0, -30.0, 0.0, 30.0, 1000.0, 1e308]])
    with np.errstate(all="raise"):
        found = values(rewritten, {"x": at}, 1)[0]
    np.testing.assert_allclose(found, [[0, 0, 0, 0.5, 1, 1, 1]], atol=1e-12)


def test_logarithm_of_a_small_sigmoid_is_finite():
    """As in a cross-entropy of two classes, written by hand: -log σ(z)."""
    z = mg.input(0.0, name="z")
    graph = mg.Graph(mg.log(mg.sigmoid(z)))
    with np.errstate(all="ignore"):
        found = values(rewrite.network(graph), {"z": np.array([-50.0, -20.0, 2.0])}, 3)[0]
    np.testing.assert_allclose(found, [-50.0, -20.0 - np.log1p(np.exp(-20)), -np.log1p(np.exp(-2))], rtol=1e-9)


def test_second_power_is_a_square_and_no_other_is():
    x, p = mg.input(np.ones(3), name="x"), mg.parameter(2.0, name="p")
    graph = mg.Graph(x**2, x**2.0)
    assert count(rewrite.squares(graph), "power") == 0
    assert count(rewrite.squares(graph), "square") == 2
    others = mg.Graph(x**3, x**0.5, x**p, 2.0**x)
    assert count(rewrite.squares(others), "power") == count(others, "power") == 4
    assert_rewritten_equally(rewrite.squares(graph), graph, {"x": np.random.default_rng(0).normal(size=(3, 3))})


def test_means_are_sums_divided_by_a_number():
    x = mg.input(np.zeros((2, 3)), name="x")
    means = [
        mg.mean(x),
        mg.mean(x, axis=0),
        mg.mean(x, axis=(0, 1), keepdims=True),
        mg.time_mean(x),
        mg.mean(weight("b", 3)),
    ]
    graph = mg.Graph(*means)
    rewritten = rewrite.means_as_sums(graph)
    assert count(rewritten, "mean", "time_mean") == 0
    for steps in (1, 2, 5):  # the number of timesteps is known only when the graph runs
        sequences = {"x": np.random.default_rng(0).normal(size=(steps, 2, 3))}
        assert_rewritten_equally(rewritten, graph, sequences, steps)


def test_mean_of_many_halves_does_not_overflow():
    x = mg.input(np.zeros(2000, np.float16), name="x")
    graph = mg.Graph(mg.mean(x))
    found = values(rewrite.means_as_sums(graph), {"x": np.full((1, 2000), 100, np.float16)}, 1)[0]
    assert found == np.float16(100)


def test_operation_reads_the_small_operand_and_not_its_copies():
    x, b, s = mg.input(np.zeros((2, 3)), name="x"), weight("b", 3), mg.parameter(2.0, name="s")
    graph = mg.Graph(x + mg.broadcast_to(b, (2, 3)), mg.tanh(x * mg.broadcast_to(mg.reshape(s, (1, 1)), (2, 3))))
    rewritten = rewrite.without_broadcasts(graph)
    assert count(rewritten, "broadcast_to", "reshape") == 0
    assert_rewritten_equally(rewritten, graph, {"x": np.random.default_rng(0).normal(size=(3, 2, 3))})


def test_broadcast_stays_where_the_shape_needs_it():
    b, c, s = weight("b", 3), weight("c", 2, 1), mg.input(0.0, name="s")
    graph = mg.Graph(
        *(mg.tanh(mg.broadcast_to(b, (2, 3))), mg.broadcast_to(b, (2, 3)) + mg.broadcast_to(mg.sum(b), (2, 3))),
        *(mg.sum(mg.broadcast_to(b, (4, 3)), axis=0), mg.broadcast_to(s, (2, 3)) * s, mg.broadcast_to(c, (2, 3)) + b),
    )
    rewritten = rewrite.without_broadcasts(graph)
    assert [output.shape for output in rewritten.outputs] == [output.shape for output in graph.outputs]
    assert_rewritten_equally(rewritten, graph, {"s": np.arange(3.0)})
    assert rewritten.outputs[4].operands[0] is c


# --- slices --------------------------------------------------------------------------------------------------


def cut(*spans, operation=mg.tanh):
    z = mg.input(np.zeros((2, 6)), name="z")
    return mg.Graph(*(operation(z[:, start:stop]) for start, stop in spans))


SIX = {"z": np.random.default_rng(0).normal(size=(3, 2, 6))}


@pytest.mark.parametrize(
    ("spans", "sweeps"),
    [
        (((0, 2), (2, 4), (4, 6)), 1),
        (((2, 4), (0, 2), (4, 6)), 1),  # in any order
        (((0, 2), (2, 6)), 1),
        (((1, 2), (2, 5)), 1),  # not the whole array
        (((0, 2), (3, 6)), 2),  # a gap
        (((0, 2), (2, 4), (5, 6)), 2),
        (((0, 3), (2, 6)), 2),  # an overlap
        (((0, 2), (0, 2), (2, 4)), 2),
        (((0, 6),), 1),
    ],
    ids=str,
)
def test_operations_on_adjoining_slices_become_one_sweep(spans, sweeps):
    graph = cut(*spans)
    rewritten = rewrite.merge_neighbours(graph)
    assert count(rewritten, "tanh") == sweeps
    assert_rewritten_equally(rewritten, graph, SIX)


def test_sigmoids_of_slices_become_one_sweep():
    graph = cut((0, 2), (2, 4), (4, 6), operation=lambda part: mg.sigmoid(part) * part)
    once = rewrite.network(graph)
    assert [count(once, name) for name in ("tanh", "sigmoid", "add")] == [1, 0, 1]
    assert_rewritten_equally(once, graph, SIX)


def test_gates_of_an_lstm_are_one_tanh():
    once = rewrite.network(NETWORKS["lstm"]())
    assert in_loops(once, "tanh") == 2  # the gates with the candidate; and the cell
    assert in_loops(once, "matmul") == 1


def test_slices_with_other_operands_of_their_own_are_joined_with_them():
    z, s = mg.input(np.zeros((2, 6)), name="z"), mg.input(np.zeros((2, 1)), name="s")
    a, b = weight("a", 3), weight("b", 3)
    static = mg.Graph(z[:, :3] * a, z[:, 3:] * b)
    number = mg.Graph(z[:, :3] - 0.5, z[:, 3:] - 0.5)
    column = mg.Graph(z[:, :3] * s, z[:, 3:] * s)
    sequences = {**SIX, "s": np.random.default_rng(1).normal(size=(3, 2, 1))}
    for graph in (static, number, column):
        rewritten = rewrite.merge_neighbours(graph)
        assert count(rewritten, "multiply", "subtract") == 1
        assert_rewritten_equally(rewritten, graph, sequences)


def test_slices_whose_operations_differ_stay_apart():
    z, y, s = mg.input(np.zeros((2, 6)), name="z"), mg.input(np.zeros((2, 6)), name="y"), mg.input(0.0, name="s")
    pairs = [
        *((mg.tanh(z[:, :3]), mg.sin(z[:, 3:])), (z[:, :3] * 2.0, z[:, 3:] * 3.0), (z[:, :3] - 2.0, 2.0 - z[:, 3:])),
        *((mg.tanh(z[:, :3]), mg.tanh(y[:, 3:])), (z[:, :3] * s, z[:, 3:] * (s * 2.0)), (z[:1] * 2.0, z[1:] * 2.0)),
        *((z[:, :3] - y[:, :3], z[:, 3:] - z[:, :3]), (mg.tanh(z[:, 0:4:2]), mg.tanh(z[:, 4:]))),
        (mg.sum(z[:, :3]), mg.sum(z[:, 3:])),
    ]
    for one, two in pairs:
        graph = mg.Graph(one, two)
        assert not changed(rewrite.merge_neighbours(graph), graph)


def test_zeros_of_both_signs_are_two_numbers():
    z = mg.input(np.ones((2, 6)), name="z")
    graph = mg.Graph(z[:, :3] * 0.0, z[:, 3:] * -0.0)
    found = values(rewrite.merge_neighbours(graph), {"z": np.ones((1, 2, 6))}, 1)
    assert not np.signbit(found[0]).any()
    assert np.signbit(found[1]).all()


def test_slices_of_a_sum_are_scaled_in_the_sum():
    z, y = mg.input(np.zeros((2, 6)), name="z"), mg.input(np.zeros((2, 6)), name="y")
    total = z + y
    graph = mg.Graph(mg.tanh(total[:, :2] * 0.5), mg.tanh(total[:, 2:4]), mg.tanh(3.0 * total[:, 4:]))
    rewritten = rewrite.scale_before_slicing(graph)
    assert (count(graph, "multiply"), count(rewritten, "multiply")) == (2, 1)
    (product,) = (node for node in rewritten.nodes if node.primitive and node.primitive.name == "multiply")
    row = next(operand for operand in product.operands if operand.shape == (6,))
    assert row.value.tolist() == [0.5, 0.5, 1, 1, 3, 3]
    assert_rewritten_equally(rewritten, graph, {**SIX, "y": SIX["z"][::-1]})
    swept = rewrite.merge_neighbours(rewritten)
    assert count(swept, "tanh") == 1


def test_slices_that_overlap_or_are_read_twice_are_not_scaled_together():
    z, y = mg.input(np.zeros((2, 6)), name="z"), mg.input(np.zeros((2, 6)), name="y")

    def graph(make):
        total = z + y
        return mg.Graph(*make(total))

    for make in (
        lambda a: (a[:, :4] * 0.5, a[:, 2:]),
        lambda a: (a[:, :2] * 0.5, a),  # the sum is an output
        lambda a: (a[:, :2] * 0.5, mg.sin(a)),
        lambda a: (a[:, :2], a[:, 2:]),  # nothing to scale
        lambda a: (a[:, :2] * z[:, :2], a[:, 2:]),
    ):
        before = graph(make)
        assert not changed(rewrite.scale_before_slicing(before), before)
    part = (z + y)[:, :2]
    before = mg.Graph(part * 0.5, part * 2.0)
    assert not changed(rewrite.scale_before_slicing(before), before)


def gradient_by_a_cut_sum(*indices):
    """Σ of sin of parts of tanh(x): its gradient is scattered to the parts."""
    x = mg.input(np.zeros((2, 6)), name="x")
    y = mg.tanh(x)
    net = mg.Graph(mg.time_sum(sum(mg.sum(mg.sin(y[index] * (k + 1.0))) for k, index in enumerate(indices))))
    return mg.Graph(*net.outputs, *gradients(net, net.output, [x]).values())


@pytest.mark.parametrize(
    ("indices", "joins", "scatters"),
    [
        ((np.s_[:, :2], np.s_[:, 2:4], np.s_[:, 4:]), 1, 0),
        ((np.s_[:, 4:], np.s_[:, :2]), 1, 0),  # zeros between
        ((np.s_[:, 1:3],), 1, 0),  # zeros around
        ((np.s_[:1], np.s_[1:]), 1, 0),  # along the other axis
        ((np.s_[..., :3], np.s_[:, -3:]), 1, 0),
        ((np.s_[:, :4], np.s_[:, 2:]), None, None),  # overlapping: added
        ((np.s_[:, :2], np.s_[1:]), 2, 0),  # along both axes: joined each, and added
        ((np.s_[:, ::2], np.s_[:, 1::2]), 0, 2),
        ((np.s_[:, ::-1],), 0, 1),
        ((np.s_[0], np.s_[1]), 0, 2),
        ((np.s_[:, [0, 0, 3]],), 0, 1),
        ((np.s_[:1, :2],), 0, 1),
    ],
    ids=str,
)
def test_gradients_of_slices_are_joined(indices, joins, scatters):
    graph = gradient_by_a_cut_sum(*indices)
    assert count(graph, "scatter_add") == len(indices)
    rewritten = rewrite.join_scatters(graph)
    if joins is not None:
        assert count(rewritten, "concatenate") == joins
        assert count(rewritten, "scatter_add") == scatters
    assert_rewritten_equally(rewritten, graph, {"x": SIX["z"]})


def test_gradient_of_the_gates_of_an_lstm_is_one_concatenation():
    both = joint(rewrite.network(NETWORKS["lstm"]()))
    assert count(both, "scatter_add") > 0
    assert in_loops(rewrite.program(both), "scatter_add") == 0
    assert in_loops(rewrite.program(both), "concatenate") == 1


def joined_times(factor, *, twice=False):
    """Parts made in a cycle, joined, times `factor` of (x, widths)."""
    x, h = mg.input(np.zeros((2, 6)), name="x"), mg.state(np.zeros((2, 4)), name="h")
    joined = mg.concatenate([mg.tanh(h), mg.sin(h[:, 1:3])], axis=-1)
    product = joined * factor(x, h)
    h.next = mg.tanh(product @ weight("U", 6, 4)) + (joined[:, :4] if twice else 0.0)
    return mg.Graph(h.next)


@pytest.mark.parametrize(
    "factor",
    [lambda x, h: mg.exp(x), lambda x, h: mg.exp(x[:, :1]), lambda x, h: 0.5, lambda x, h: weight("p", 6)],
    ids=["array", "column", "number", "row"],
)
def test_joined_parts_times_a_factor_are_products_joined(factor):
    graph = joined_times(factor)
    rewritten = rewrite.distribute_over_parts(graph)
    (join,) = (node for node in rewritten.nodes if node.primitive and node.primitive.name == "concatenate")
    assert [part.primitive.name for part in join.operands] == ["multiply", "multiply"]
    assert in_loops(rewritten, "multiply") == 2
    assert in_loops(rewritten, "getitem") <= in_loops(graph, "getitem")  # the factor is cut outside the cycle
    assert_rewritten_equally(rewritten, graph, {"x": SIX["z"]})


def test_joined_parts_stay_where_the_factor_recurs_or_they_are_read_twice():
    for graph in (
        joined_times(lambda x, h: mg.concatenate([h, h[:, :2]], axis=1) + x),
        joined_times(lambda x, h: mg.exp(x), twice=True),
    ):
        assert not changed(rewrite.distribute_over_parts(graph), graph)


def test_joined_parts_that_are_joined_themselves_are_joined_at_once():
    x, y = mg.input(np.zeros((2, 2)), name="x"), mg.input(np.zeros((2, 3)), name="y")
    inner = mg.concatenate([mg.tanh(x), y], axis=1)
    graph = mg.Graph(mg.concatenate([x, mg.concatenate([inner, mg.sin(y)], axis=-1), y], axis=-1))
    rewritten = flat_joins(graph)
    assert count(graph, "concatenate") == 3
    assert count(rewritten, "concatenate") == 1
    assert len(rewritten.output.operands) == 5
    sequences = {
        "x": np.random.default_rng(0).normal(size=(3, 2, 2)),
        "y": np.random.default_rng(1).normal(size=(3, 2, 3)),
    }
    assert_rewritten_equally(rewritten, graph, sequences)
    read_twice = mg.Graph(mg.concatenate([inner, x], axis=1), inner)
    assert not changed(flat_joins(read_twice), read_twice)
    other_axis = mg.Graph(mg.concatenate([mg.concatenate([x, x], axis=0), mg.concatenate([x, x], axis=0)], axis=1))
    assert not changed(flat_joins(other_axis), other_axis)


# --- all of them ---------------------------------------------------------------------------------------------


def test_names_of_the_user_are_those_of_the_rewritten_graph():
    graph = NETWORKS["lstm"]()
    rewritten = rewrite.network(graph)
    for name in ("x", "h", "c", "W", "U", "b", "V", "i", "f", "o"):
        assert name in rewritten, name


def test_rewritten_networks_do_not_do_more_in_their_loops():
    for name in NETWORKS:
        graph, _ = graphs()[name]
        assert mg.schedule(rewrite.network(graph)).operations("loop") <= 2 + mg.schedule(
            rewrite.sigmoid_by_tanh(graph)
        ).operations("loop")


def test_rewriting_ends():
    """A network whose slices of slices could be rewritten for ever."""
    x, h = mg.input(np.zeros((2, 8)), name="x"), mg.state(np.zeros((2, 8)), name="h")
    z = x + h
    for _ in range(20):
        z = mg.concatenate([mg.tanh(z[:, :4]) * 0.5, mg.tanh(z[:, 4:]) * 2.0], axis=1) + x
    h.next = z
    graph = mg.Graph(h.next)
    rewritten = rewrite.network(graph)
    assert_rewritten_equally(rewritten, graph, {"x": np.random.default_rng(0).normal(size=(3, 2, 8))})
    assert not any(is_time_reduction(node) for node in rewritten.nodes)
