"""find_cycles: what recurs, and how it is told."""

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import microgrid as mg


def weights(*shape, name=None):
    return mg.parameter(np.full(shape, 0.1), name=name)


def lstm_cell(x, c, h, hidden):
    """The next cell and hidden state of an LSTM; `x` has `hidden` features."""
    gates = x @ weights(hidden, 4 * hidden) + h @ weights(hidden, 4 * hidden)
    i, f, o, g = mg.split(gates, 4, axis=-1)
    c_next = mg.sigmoid(f) * c + mg.sigmoid(i) * mg.tanh(g)
    return c_next, mg.sigmoid(o) * mg.tanh(c_next)


def names(nodes):
    return [node.name for node in nodes]


def same(nodes, expected):
    """Whether two sequences hold the same nodes; == between nodes would compare their values."""
    return [id(node) for node in nodes] == [id(node) for node in expected]


# --- the networks of the textbooks ------------------------------------------------------------------


def test_rnn_has_one_cycle_through_its_state():
    x, h = mg.input(np.ones((2, 3)), name="x"), mg.state(np.zeros((2, 4)), name="h")
    product = h @ weights(4, 4, name="U")
    summed = x @ weights(3, 4, name="W") + product
    h.next = mg.tanh(summed)
    net = mg.Graph(mg.time_mean(mg.sum(h.next)))
    (cycle,) = net.cycles
    assert same(cycle.states, [h])
    assert set(cycle.nodes) == {h, product, summed, h.next}
    assert str(cycle) == "h → matmul → add → tanh → h"
    assert repr(cycle) == "Cycle(h → matmul → add → tanh → h)"
    assert same(cycle.path, [h, product, summed, h.next, h])


def test_user_names_stand_in_the_path():
    h = mg.state(0.0, name="h")
    h.next = mg.tanh((0.5 * h).named("drive"))
    assert str(mg.Graph(h.next).cycles[0]) == "h → drive → tanh → h"


def test_unnamed_state_stands_in_the_path_as_state():
    h = mg.state(0.0)
    h.next = mg.tanh(h)
    assert str(mg.Graph(h.next).cycles[0]) == "state → tanh → state"


def test_lstm_is_one_cycle_with_two_states():
    x = mg.input(np.ones((2, 3)), name="x")
    c, h = mg.state(np.zeros((2, 3)), name="c"), mg.state(np.zeros((2, 3)), name="h")
    c.next, h.next = lstm_cell(x, c, h, 3)
    net = mg.Graph(mg.sum(h.next))
    (cycle,) = net.cycles
    assert set(cycle.states) == {c, h}
    assert x not in set(cycle.nodes)
    assert {c.next, h.next} < set(cycle.nodes)
    first = cycle.states[0]
    assert str(cycle) == {c: "c → multiply → add → c", h: "h → matmul → add → getitem → sigmoid → multiply → h"}[first]


def test_stacked_rnn_has_one_cycle_per_layer_in_the_order_of_computation():
    below, states = mg.input(np.ones((1, 2)), name="x"), []
    for layer in range(3):
        h = mg.state(np.zeros((1, 2)), name=f"h{layer}")
        h.next = mg.tanh(below @ weights(2, 2) + h @ weights(2, 2))
        states.append(h)
        below = h.next
    net = mg.Graph(mg.sum(below))
    assert [names(cycle.states) for cycle in net.cycles] == [["h0"], ["h1"], ["h2"]]
    assert same((state for cycle in net.cycles for state in cycle.states), states)
    assert not set(net.cycles[0].nodes) & set(net.cycles[1].nodes)


def test_layers_with_feedback_from_the_top_are_one_cycle():
    low, high = mg.state(0.0, name="low"), mg.state(0.0, name="high")
    low.next = mg.tanh(low + high)
    high.next = mg.tanh(high + low.next)
    (cycle,) = mg.Graph(high.next).cycles
    assert set(cycle.states) == {low, high}


def test_output_fed_back_as_next_input_is_a_cycle():
    V, previous = mg.parameter(np.full((2, 2), 0.3), name="V"), mg.state(np.zeros((1, 2)), name="previous")
    hidden = mg.tanh(previous @ V)
    previous.next = mg.softmax(hidden @ V.T)
    (cycle,) = mg.Graph(previous.next).cycles
    assert str(cycle) == "previous → matmul → tanh → matmul → softmax → previous"
    assert V not in set(cycle.nodes)


def test_states_that_feed_each_other_are_one_cycle():
    a, b = mg.state(1.0, name="a"), mg.state(0.0, name="b")
    a.next = mg.tanh(b)
    b.next = mg.exp(a)
    (cycle,) = mg.Graph(a).cycles
    assert set(cycle.states) == {a, b}
    start = cycle.states[0]
    assert str(cycle) == {a: "a → exp → b → tanh → a", b: "b → tanh → a → exp → b"}[start]


def test_states_that_only_swap_are_a_cycle_without_operations():
    a, b = mg.state(1.0, name="a"), mg.state(0.0, name="b")
    a.next, b.next = b, a
    (cycle,) = mg.Graph(a).cycles
    assert set(cycle.nodes) == {a, b}
    assert str(cycle) in ("a → b → a", "b → a → b")


def test_state_that_keeps_its_value_is_a_cycle_of_its_own():
    h = mg.state(1.0, name="h")
    h.next = h
    (cycle,) = mg.Graph(2 * h).cycles
    assert same(cycle.nodes, [h])
    assert same(cycle.states, [h])
    assert same(cycle.path, [h, h])
    assert str(cycle) == "h → h"


def test_crossing_cycles_are_one_component_and_the_path_is_the_shorter():
    h = mg.state(0.0, name="h")
    far = mg.exp(mg.sin(mg.cos(h)))
    h.next = far + mg.tanh(h)
    (cycle,) = mg.Graph(h.next).cycles
    assert len(cycle.nodes) == 6
    assert str(cycle) == "h → tanh → add → h"


def test_cycle_inside_a_cycle_is_one_component():
    inner, outer = mg.state(0.0, name="inner"), mg.state(0.0, name="outer")
    inner.next = mg.tanh(inner + outer)
    outer.next = mg.exp(inner.next)
    (cycle,) = mg.Graph(outer.next).cycles
    assert set(cycle.states) == {inner, outer}


def test_recurrence_over_k_delays_is_one_cycle_with_k_states():
    x, past = mg.input(1.0, name="x"), [mg.state(0.0, name=f"y{k}") for k in range(1, 5)]
    y = mg.tanh(x + 0.5 * past[3])  # y(t) depends on y(t−4)
    for state, source in zip(past, [y, *past[:-1]], strict=True):
        state.next = source
    (cycle,) = mg.Graph(y).cycles
    assert set(cycle.states) == set(past)
    assert len(cycle.path) == 4 + 3 + 1


# --- backwards in time --------------------------------------------------------------------------------


@pytest.mark.parametrize("reverse", [False, True])
def test_cycle_knows_whether_it_runs_backwards_in_time(reverse):
    h = mg.state(0.0, name="h", reverse=reverse)
    h.next = mg.tanh(h)
    (cycle,) = mg.Graph(h.next).cycles
    assert cycle.reverse is reverse
    assert str(cycle) == "h → tanh → h"


def test_bidirectional_network_has_a_cycle_of_each_direction():
    x = mg.input(np.ones((1, 2)), name="x")
    h, k = mg.state(np.zeros((1, 2)), name="h"), mg.state(np.zeros((1, 2)), name="k", reverse=True)
    h.next = mg.tanh(x + h @ weights(2, 2))
    k.next = mg.tanh(x + k @ weights(2, 2))
    cycles = mg.Graph(mg.sum(h.next * k.next)).cycles
    assert {cycle.states[0].name: cycle.reverse for cycle in cycles} == {"h": False, "k": True}


def test_reverse_cycle_that_reads_a_forward_one_is_listed_after_it():
    h, g = mg.state(0.0, name="h"), mg.state(0.0, name="g", reverse=True)
    h.next = mg.tanh(h)
    g.next = g * h
    assert [(names(cycle.states), cycle.reverse) for cycle in mg.Graph(g.next).cycles] == [
        (["h"], False),
        (["g"], True),
    ]


def test_reverse_delay_is_no_cycle():
    x, coming = mg.input(1.0, name="x"), mg.state(0.0, name="coming", reverse=True)
    coming.next = x
    assert mg.Graph(x - coming).cycles == []


# --- no cycle ---------------------------------------------------------------------------------------


def test_pure_delay_is_no_cycle():
    x, past = mg.input(1.0, name="x"), mg.state(0.0, name="past")
    past.next = x
    net = mg.Graph(x - past)
    assert net.cycles == []
    assert past in net.varying


def test_chain_of_pure_delays_is_no_cycle():
    node = mg.input(1.0, name="x")
    for _ in range(5):
        past = mg.state(0.0)
        past.next = node
        node = 2 * past
    assert mg.find_cycles(mg.Graph(node)) == []


def test_delay_of_a_parameter_is_no_cycle():
    W, seen = mg.parameter(1.0, name="W"), mg.state(0.0, name="seen")
    seen.next = W
    assert mg.Graph(seen).cycles == []


def test_pure_delay_beside_a_recurrence_is_not_part_of_it():
    x, h, past = mg.input(1.0, name="x"), mg.state(0.0, name="h"), mg.state(0.0, name="past")
    h.next = mg.tanh(h + x)
    past.next = h.next
    (cycle,) = mg.Graph(past * h).cycles
    assert same(cycle.states, [h])
    assert past not in set(cycle.nodes)


def test_state_without_delay_back_into_its_initial_value_is_no_cycle():
    W = mg.parameter(1.0, name="W")
    h = mg.state(mg.tanh(W), name="h")
    h.next = mg.exp(W)
    assert mg.Graph(h * h).cycles == []


def test_feedforward_network_has_no_cycle():
    x = mg.input(np.ones(3), name="x")
    assert mg.Graph(mg.sum(mg.tanh(x * x))).cycles == []


def test_cycles_of_different_networks_are_different_and_compare_without_error():
    def cycle():
        h = mg.state(np.zeros(3), name="h")
        h.next = mg.tanh(h)
        return mg.Graph(h.next).cycles[0]

    one, other = cycle(), cycle()
    assert one in [one]
    assert one != other
    assert other not in [one]


# --- against networkx and brute force on random graphs ----------------------------------------------


@st.composite
def random_network(draw):
    """A network of scalars: states, inputs, parameters, then operations on any earlier nodes, then nexts."""
    count = draw(st.integers(1, 5))
    states = [mg.state(0.1 * (i + 1), name=f"s{i}", reverse=draw(st.booleans())) for i in range(count)]
    nodes = [*states, mg.input(0.3, name="x"), mg.parameter(0.7, name="w")]
    for i in range(draw(st.integers(0, 14))):
        one, two = draw(st.sampled_from(nodes)), draw(st.sampled_from(nodes))
        node = mg.tanh(one) if draw(st.booleans()) else one * two
        node.name = f"n{i}"
        nodes.append(node)
    for state in states:
        state.next = draw(st.sampled_from(nodes))
    return mg.Graph(*draw(st.lists(st.sampled_from(nodes), min_size=1, max_size=3)))


def readers_of(net):
    """Node → the nodes that read it, delays included; written without Graph.edges."""
    readers = {node: set() for node in net.nodes}
    for node in net.nodes:
        for operand in node.operands:
            readers[operand].add(node)
        if isinstance(node, mg.State):
            readers[node.next].add(node)
    return readers


def reachable(readers, start):
    found, waiting = set(), [start]
    while waiting:
        for reader in readers[waiting.pop()]:
            if reader not in found:
                found.add(reader)
                waiting.append(reader)
    return found


@settings(deadline=None, max_examples=100)
@given(net=random_network())
def test_nodes_in_cycles_are_those_that_reach_themselves(net):
    readers = readers_of(net)
    after = {node: reachable(readers, node) for node in net.nodes}
    expected = {frozenset(m for m in after[node] if node in after[m]) for node in net.nodes if node in after[node]}
    assert {frozenset(cycle.nodes) for cycle in net.cycles} == expected
    for cycle in net.cycles:
        assert set(cycle.states) == {node for node in cycle.nodes if isinstance(node, mg.State)}
        assert len(cycle.nodes) == len(set(cycle.nodes))
        assert cycle.reverse in {state.reverse for state in cycle.states}


@settings(deadline=None, max_examples=100)
@given(net=random_network())
def test_cycles_cover_what_networkx_lists_as_simple_cycles(net):
    names_of = {net.names[node]: node for node in net.nodes}
    loops = list(nx.simple_cycles(nx.DiGraph(net.to_networkx())))
    assert {node for cycle in net.cycles for node in cycle.nodes} == {names_of[name] for loop in loops for name in loop}
    for cycle in net.cycles:
        first = net.names[cycle.states[0]]
        assert len(cycle.path) - 1 == min(len(loop) for loop in loops if first in loop)


@settings(deadline=None, max_examples=100)
@given(net=random_network())
def test_path_is_a_closed_walk_along_edges_inside_the_cycle(net):
    readers = readers_of(net)
    for cycle in net.cycles:
        assert cycle.path[0] is cycle.path[-1] is cycle.states[0]
        assert set(cycle.path) <= set(cycle.nodes)
        assert all(head in readers[tail] for tail, head in zip(cycle.path, cycle.path[1:], strict=False))
        assert str(cycle) == " → ".join(names(cycle.path))


@settings(deadline=None, max_examples=100)
@given(net=random_network())
def test_cycles_are_listed_in_an_order_in_which_they_can_be_computed(net):
    readers = readers_of(net)
    for i, later in enumerate(net.cycles):
        for earlier in net.cycles[:i]:
            assert not reachable(readers, later.nodes[0]) & set(earlier.nodes)


@pytest.mark.parametrize("length", [1, 2, 500])
def test_long_ring_of_states_is_found_without_recursion(length):
    ring = [mg.state(0.0, name=f"s{i}") for i in range(length)]
    for state, following in zip(ring, [*ring[1:], ring[0]], strict=True):
        state.next = following
    (cycle,) = mg.Graph(ring[0]).cycles
    assert set(cycle.states) == set(ring)
    assert len(cycle.path) == length + 1
