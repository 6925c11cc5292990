"""Graph: which nodes stand behind some outputs, what they are called, and what a state may be."""

import contextlib
import inspect
import re

import networkx as nx
import numpy as np
import pytest

import microgrid as mg
from microgrid.errors import CausalityError, NameClashError, OperandTypeError, StateError, UnknownNameError


def rnn(batch=2, features=3, hidden=4):
    """The parts of a plain RNN, by name; the values are irrelevant here."""
    x = mg.input(np.ones((batch, features)), name="x")
    W = mg.parameter(np.full((features, hidden), 0.1), name="W")
    U = mg.parameter(np.full((hidden, hidden), 0.2), name="U")
    h = mg.state(np.zeros((batch, hidden)), name="h")
    h.next = mg.tanh(x @ W + h @ U)
    return {"x": x, "W": W, "U": U, "h": h}


def lines_of(excerpt):
    """The "file:line" of the one line of the calling test that holds `excerpt`."""
    frame = inspect.stack()[1].frame
    lines, start = inspect.getsourcelines(frame.f_code)
    found = [start + i for i, line in enumerate(lines) if excerpt in line and "lines_of" not in line]
    assert len(found) == 1
    return f"{frame.f_code.co_filename}:{found[0]}"


# --- which nodes ------------------------------------------------------------------------------------


def test_graph_reaches_through_delays_and_initial_values():
    parts = rnn()
    h0 = mg.parameter(np.zeros((2, 4)), name="h0")
    slow = mg.state(h0, name="slow")
    slow.next = 0.5 * slow + parts["h"]  # reached only through the delay of `slow`
    net = mg.Graph(mg.sum(slow))
    assert set(net.inputs) == {parts["x"]}
    assert set(net.states) == {parts["h"], slow}
    assert set(net.parameters) == {parts["W"], parts["U"], h0}
    assert parts["h"].next in net
    assert slow.next in net


def test_graph_leaves_out_what_the_outputs_do_not_need():
    parts = rnn()
    unused = mg.exp(parts["h"].next)
    net = mg.Graph(mg.sum(parts["h"].next))
    assert unused not in net
    assert len(net) == len(net.nodes) == len(set(net.nodes))


def test_nodes_come_after_their_operands():
    parts = rnn()
    y = mg.state(np.zeros((2, 4)), name="y")
    y.next = y * parts["h"] + parts["h"].next
    net = mg.Graph(mg.time_mean(mg.sum(y.next)), other=mg.sum(y))
    position = {node: i for i, node in enumerate(net.nodes)}
    edges = [(operand, node) for node in net.nodes for operand in node.operands]
    assert len(edges) > 15
    assert all(position[operand] < position[node] for operand, node in edges)


def test_chain_of_20000_operations_needs_no_recursion():
    x = mg.tensor(1.0)
    y = x
    for _ in range(20_000):
        y = mg.negative(y)
    assert len(mg.Graph(y)) == 20_001


def test_chain_of_3000_states_needs_no_recursion():
    x = mg.input(1.0, name="x")
    node = x
    for _ in range(3000):
        delayed = mg.state(0.0)
        delayed.next = node
        node = delayed
    net = mg.Graph(node)
    assert len(net.states) == 3000
    assert net.cycles == []


def test_varying_are_inputs_states_and_what_depends_on_them_within_a_timestep():
    parts = rnn()
    doubled = parts["U"] * 2
    mean = mg.time_mean(parts["h"].next)
    centred = parts["h"].next - mean
    net = mg.Graph(mg.time_sum(mg.sum(centred * mg.sum(doubled))))
    varying = {parts["x"], parts["h"], parts["h"].next, centred}
    static = {parts["W"], parts["U"], doubled, mean, parts["h"].initial, net.output}
    assert varying <= net.varying
    assert not static & net.varying
    assert net.varying | static < set(net.nodes)


def test_what_is_spread_over_time_varies_and_what_it_reads_does_not():
    b, x = mg.parameter(np.zeros((4, 2)), name="b"), mg.input(np.zeros(2), name="x")
    row, stacked = mg.time_unstack(b), mg.time_stack(x)
    again = mg.time_unstack(2 * stacked)
    net = mg.Graph(row + again)
    assert net.varying == {x, row, again, net.output}


def test_a_state_runs_forwards_unless_it_is_said_to_run_backwards():
    assert mg.state(0.0).reverse is False
    assert mg.state(np.zeros(2), name="k", reverse=True).reverse is True


def test_graph_needs_tensors_as_outputs():
    with pytest.raises(OperandTypeError, match="at least one output"):
        mg.Graph()
    with pytest.raises(OperandTypeError, match=r"float 3\.0"):
        mg.Graph(3.0)
    with pytest.raises(OperandTypeError, match="ndarray"):
        mg.Graph(loss=np.zeros(3))


def test_output_is_the_only_one_or_an_error():
    x = mg.input(1.0, name="x")
    y = 2 * x
    assert mg.Graph(y).output is y
    with pytest.raises(UnknownNameError, match="2 outputs"):
        _ = mg.Graph(y, x).output


def test_zero_grad_forgets_all_gradients():
    a, b = mg.tensor(2.0, name="a"), mg.tensor(3.0, name="b")
    product = a * b
    product.backward()
    net = mg.Graph(product)
    assert (a.grad, b.grad, product.grad) == (3.0, 2.0, 1.0)
    net.zero_grad()
    assert [node.grad for node in net] == [None, None, None]


def test_repr_counts_by_kind():
    parts = rnn()
    assert repr(mg.Graph(loss=mg.sum(parts["h"].next))) == "Graph(loss: 10 nodes, 2 parameters, 1 input, 1 state)"


# --- names ------------------------------------------------------------------------------------------


def test_unnamed_nodes_are_called_by_operation_and_number():
    x = mg.input(0.5)
    first, second = mg.tanh(x), mg.tanh(mg.tanh(x))
    net = mg.Graph(first + second)
    assert {net[f"tanh_{i}"] for i in (1, 2, 3)} == {first, second, second.operands[0]}
    assert net["input_1"] is x
    assert net["add_1"] is net.output


def test_every_node_has_a_name_of_its_own_and_is_found_by_it():
    parts = rnn()
    net = mg.Graph(mg.sum(parts["h"].next * 2.0 + 3.0))
    assert set(net.names) == set(net.nodes)
    assert len(set(net.names.values())) == len(net.nodes)
    for node, name in net.names.items():
        assert net[name] is node
        assert net[node] is node
        assert name in net
        assert node in net


@pytest.mark.parametrize("taken", ["tanh_1", "tanh_2"])
def test_made_up_names_give_way_to_the_names_of_the_user(taken):
    x = mg.input(0.5, name=taken)
    one, two = mg.tanh(x), mg.tanh(2 * x)
    net = mg.Graph(one + two)
    assert net[taken] is x
    assert len(set(net.names.values())) == len(net)
    assert {net.names[one], net.names[two]} < {"tanh_1", "tanh_2", "tanh_3"}


def test_made_up_names_give_way_to_keyword_names():
    x = mg.input(0.5, name="x")
    one, two = mg.tanh(x), mg.tanh(2 * x)
    net = mg.Graph(one, tanh_1=two)
    assert net["tanh_1"] is two
    assert net.names[one] == "tanh_2"


def test_same_name_twice_shows_both_places():
    one = mg.parameter(np.zeros((2, 3)), name="W")
    two = mg.input(np.zeros(3), name="W")
    places = [lines_of("one = mg.parameter"), lines_of("two = mg.input")]
    with pytest.raises(NameClashError) as caught:
        mg.Graph(mg.sum(one * two))
    message = str(caught.value)
    assert "'W'" in message
    for place in places:
        assert re.search(re.escape(place) + r"\b", message)
    assert "parameter of shape (2, 3)" in message
    assert "input of shape (3,)" in message


@pytest.mark.parametrize("way", ["tensor", "state", "attribute", "named"])
def test_place_of_a_name_is_the_line_that_gave_it(way):
    if way == "tensor":
        node = mg.tensor(1.0, name="n")
        place = lines_of("node = mg.tensor")
    elif way == "state":
        node = mg.state(1.0, name="n")
        place = lines_of("node = mg.state")
    elif way == "attribute":
        node = mg.tanh(mg.tensor(1.0))
        node.name = "n"
        place = lines_of('node.name = "n"')
    else:
        node = mg.exp(mg.tensor(1.0)).named("n")
        place = lines_of("node = mg.exp")
    assert node.name == "n"
    assert node.place == place


def test_renaming_one_of_two_resolves_the_clash():
    one, two = mg.tensor(1.0, name="a"), mg.tensor(2.0, name="a")
    with pytest.raises(NameClashError):
        mg.Graph(one + two)
    two.name = "b"
    net = mg.Graph(one + two)
    assert net["a"] is one
    assert net["b"] is two


def test_same_node_read_twice_is_no_clash():
    a = mg.tensor(1.0, name="a")
    assert mg.Graph(a * a, a)["a"] is a


def test_names_of_nodes_outside_the_graph_do_not_clash():
    a = mg.tensor(1.0, name="a")
    mg.tensor(2.0, name="a")
    _ = mg.exp(a).named("a")
    assert mg.Graph(mg.tanh(a))["a"] is a


def test_keyword_outputs_are_known_by_their_keyword():
    x = mg.input(1.0, name="x")
    loss, accuracy = x * x, 3 * x
    loss.name = "L"
    net = mg.Graph(loss=loss, accuracy=accuracy)
    assert [id(output) for output in net.outputs] == [id(loss), id(accuracy)]
    assert net["loss"] is loss
    assert net["accuracy"] is accuracy
    assert loss.name == "L"  # the graph knows it by another name; the node keeps its own


def test_node_given_under_two_keywords_is_found_under_both():
    x = mg.input(1.0, name="x")
    y = 2 * x
    net = mg.Graph(prediction=y, output=y)
    assert net["prediction"] is y
    assert net["output"] is y


def test_keyword_that_another_node_has_as_name_is_a_clash_that_shows_where():
    x = mg.input(1.0, name="x")
    place = lines_of("mg.input(")
    with pytest.raises(NameClashError, match="'x'") as caught:
        mg.Graph(x=2 * x)
    assert place in str(caught.value)
    assert "None" not in str(caught.value)


def test_unknown_name_suggests_the_nearest():
    parts = rnn()
    target = mg.input(np.zeros((2, 4)), name="target")
    net = mg.Graph(mg.sum((parts["h"].next - target) ** 2))
    with pytest.raises(UnknownNameError, match=r"no node 'targe'\. Did you mean 'target'\?"):
        net["targe"]
    with pytest.raises(UnknownNameError, match="Did you mean 'tanh_1'"):
        net.find("tanh")
    with pytest.raises(KeyError):
        net["targe"]
    assert "targe" not in net


def test_unknown_name_without_a_near_one_lists_what_there_is():
    net = mg.Graph(mg.tanh(mg.input(1.0, name="x")))
    with pytest.raises(UnknownNameError, match=r"Known: 'x', 'tanh_1'\."):
        net["zzzzzz"]


def test_node_of_another_graph_is_refused_by_name():
    net = mg.Graph(mg.tanh(mg.input(1.0, name="x")))
    stranger = mg.tensor(1.0, name="stranger")  # equal in value to x
    assert stranger not in net
    with pytest.raises(UnknownNameError, match="'stranger' is no node"):
        net[stranger]


# --- states -----------------------------------------------------------------------------------------


def test_state_without_next_is_named():
    h = mg.state(np.zeros(3), name="memory")
    with pytest.raises(StateError, match=r"'memory' has no next yet: set memory\.next"):
        mg.Graph(mg.sum(h))
    with pytest.raises(StateError, match="'memory'"):
        _ = h.next


def test_state_without_next_reached_only_through_another_state_is_named():
    inner, outer = mg.state(0.0, name="inner"), mg.state(0.0, name="outer")
    outer.next = mg.tanh(outer + inner)
    with pytest.raises(StateError, match="'inner'"):
        mg.Graph(outer)


def test_unnamed_state_without_next_is_called_a_state_not_a_delay():
    with pytest.raises(StateError) as caught:
        mg.Graph(mg.tanh(mg.state(np.zeros(3))))
    assert "result of delay" not in str(caught.value)


def test_next_set_twice_shows_where_it_was_set_first():
    h = mg.state(np.zeros(3), name="h")
    h.next = mg.tanh(h)
    kept, place = h.next, lines_of("h.next = mg.tanh")
    with pytest.raises(StateError, match=r"h\.next was set before") as caught:
        h.next = mg.exp(h)
    assert re.search(re.escape(place) + r"\b", str(caught.value))
    assert h.next is kept


def test_next_of_another_shape_is_refused_with_both_shapes():
    h = mg.state(np.zeros((1, 3)), name="h")
    x = mg.input(np.zeros((2, 3)), name="x")
    grown = h + x
    with pytest.raises(StateError, match=r"'grown' of shape \(2, 3\).*'h' starts with shape \(1, 3\)"):
        h.next = grown
    with pytest.raises(StateError, match="no next yet"):
        _ = h.next  # refused, not half accepted
    h.next = mg.mean(grown, axis=0, keepdims=True)


@pytest.mark.parametrize(
    ("initial", "next_value", "found", "started"),
    [
        (np.zeros(3, np.float32), np.zeros(3), "float64", "float32"),
        (np.zeros(3), np.zeros(3, np.float32), "float32", "float64"),
        (np.zeros(3, int), np.zeros(3), "float64", "int64"),
        (0, 1.5, "float64", "int64"),
    ],
)
def test_next_of_another_dtype_is_refused_with_both_dtypes(initial, next_value, found, started):
    h = mg.state(initial, name="h")
    with pytest.raises(StateError, match=f"dtype {found}.*'h' starts with dtype {started}"):
        h.next = mg.tensor(next_value) * 1


def test_float32_state_accepts_a_float32_next():
    h = mg.state(np.zeros(3, np.float32), name="h")
    h.next = mg.tanh(2 * h + 1.0)  # Python numbers are weak
    assert mg.Graph(h.next)["h"].dtype == np.float32


@pytest.mark.parametrize("wrong", [0.0, np.zeros(3), None, "h"])
def test_next_that_is_no_tensor_is_refused(wrong):
    h = mg.state(np.zeros(3), name="h")
    with pytest.raises(OperandTypeError, match=rf"h\.next takes a Tensor, not {type(wrong).__name__}"):
        h.next = wrong


def test_initial_value_that_changes_over_time_is_refused():
    x = mg.input(np.zeros(3), name="x")
    start = mg.tanh(x).named("start")
    h = mg.state(start, name="h")
    h.next = 0.5 * h
    with pytest.raises(CausalityError, match="initial value of 'h', 'start', changes over time"):
        mg.Graph(h.next)


def test_state_as_initial_value_of_a_state_is_refused():
    g = mg.state(0.0, name="g")
    g.next = g + 1.0
    h = mg.state(g, name="h")
    h.next = 0.5 * h
    with pytest.raises(CausalityError, match="initial value of 'h', 'g'"):
        mg.Graph(h.next)


def test_initial_value_computed_from_parameters_or_a_whole_sequence_is_allowed():
    x, W = mg.input(2.0, name="x"), mg.parameter(3.0, name="W")
    summary = mg.time_sum(x)
    h = mg.state(mg.tanh(W) + summary, name="h")
    h.next = 0.5 * h
    net = mg.Graph(h.next)
    assert {x, W, summary} < set(net.nodes)
    assert h.initial not in net.varying


def test_state_holds_its_own_copy_of_the_initial_array():
    start = np.zeros(2)
    h = mg.state(start, name="h")
    start[:] = 7
    assert h.value.tolist() == [0, 0]


# --- networkx ---------------------------------------------------------------------------------------


def test_export_has_all_nodes_by_name_with_what_they_are():
    parts = rnn()
    net = mg.Graph(loss=mg.time_mean(mg.sum(parts["h"].next)))
    exported = net.to_networkx()
    assert set(exported) == set(net.names.values())
    assert exported.nodes["h"] == {"tensor": parts["h"], "op": "state", "shape": (2, 4), "varies": True}
    assert exported.nodes["W"]["op"] == "parameter"
    assert exported.nodes["x"]["op"] == "input"
    assert exported.nodes["tanh_1"]["op"] == "tanh"
    assert exported.nodes["constant_1"]["op"] == "constant"
    assert exported.nodes["loss"]["varies"] is False


def test_export_has_one_edge_per_operand_and_marks_delays():
    a, h = mg.parameter(1.0, name="a"), mg.state(0.0, name="h")
    h.next = h * h + a
    exported = mg.Graph(h.next).to_networkx()
    edges = sorted((tail, head, kind) for tail, head, kind in exported.edges(data="kind"))
    assert edges == [
        ("a", "add_1", "operand"),
        ("add_1", "h", "delay"),
        ("constant_1", "h", "initial"),
        ("h", "multiply_1", "operand"),
        ("h", "multiply_1", "operand"),
        ("multiply_1", "add_1", "operand"),
    ]


def test_networkx_algorithms_work_on_the_export():
    parts = rnn()
    exported = mg.Graph(loss=mg.time_mean(mg.sum(parts["h"].next))).to_networkx()
    assert nx.shortest_path(exported, "x", "loss") == ["x", "matmul_1", "add_1", "tanh_1", "sum_1", "loss"]
    assert not nx.is_directed_acyclic_graph(exported)
    delays = [edge for edge in exported.edges(keys=True) if exported.edges[edge]["kind"] == "delay"]
    exported.remove_edges_from(delays)
    assert nx.is_directed_acyclic_graph(exported)
    assert nx.ancestors(exported, "loss") == set(exported) - {"loss"}


def test_names_within_scopes():
    def cell(name):
        with mg.scope(name):
            h = mg.state(0.0, name="h")
            with mg.scope("gate"):
                w = mg.parameter(1.0, name="w")
            h.next = mg.tanh(h * w).named("out")
        return h.next

    net = mg.Graph(cell("enc") + cell("enc") + cell("dec"))
    assert [net.names[p] for p in net.parameters] == ["enc_1.gate.w", "enc_2.gate.w", "dec.gate.w"]
    assert [net.names[s] for s in net.states] == ["enc_1.h", "enc_2.h", "dec.h"]
    assert net["enc_2.out"].name == "enc.out"
    assert mg.parameter(1.0, name="w").name == "w"  # outside again
    run = mg.compile(mg.Graph(loss=mg.time_sum(net.output)))(steps=3)
    assert set(run.grads) == {"enc_1.gate.w", "enc_2.gate.w", "dec.gate.w"}
    assert set(run.state) == {"enc_1.h", "enc_2.h", "dec.h"}
    assert [net.names[node] for node in net.unroll(steps=2, initial={"enc_2.h": 0.5}).parameters] == list(run.grads)


def test_two_names_in_one_scope_clash():
    with mg.scope("part"):
        a = mg.tensor(1.0, name="a")
        b = mg.tensor(1.0, name="a")
    with pytest.raises(NameClashError, match=r"two nodes are named 'part\.a'"):
        mg.Graph(a + b)


def test_a_scope_without_a_name_adds_nothing():
    with mg.scope(None), mg.scope("part"):
        assert mg.tensor(1.0, name="a").name == "part.a"
    with pytest.raises(OperandTypeError, match="a scope's name is a string"):
        mg.scope(3)


def test_a_number_of_a_scope_is_never_another_scopes_name():
    leaves = []
    for name in ("a", "a", "a_1"):
        with mg.scope(name):
            leaves.append(mg.tensor(1.0, name="h"))
    net = mg.Graph(leaves[0] + leaves[1] + leaves[2])
    assert [net.names[leaf] for leaf in leaves] == ["a_2.h", "a_3.h", "a_1.h"]


def test_many_nested_scopes_are_named_in_no_time():
    with contextlib.ExitStack() as stack:
        for _ in range(300):
            stack.enter_context(mg.scope("s"))
        leaf = mg.tensor(1.0, name="h")
    assert mg.Graph(leaf * 2.0).names[leaf] == "s." * 300 + "h"


def test_nodes_know_the_scope_in_which_they_were_recorded() -> None:
    """Whether or not they have a name of their own; what is recorded outside has none."""
    x = mg.tensor(1.0, name="x")
    with mg.scope("outer"):
        a = x + 1
        with mg.scope("inner") as inner:
            b = mg.tanh(a)
            w = mg.parameter(1.0, name="w")
    c = (b * w).named("c")
    assert (str(a.scope), str(b.scope), str(w.scope), c.scope) == ("outer", "outer.inner", "outer.inner", None)
    assert b.scope is inner


def test_a_node_is_found_by_its_name_without_scopes_where_that_is_clear() -> None:
    """As pictures write it: the outer scopes may be left out as far as no other node ends alike."""
    x = mg.input(0.0, name="x")
    for part in ("first", "second"):
        with mg.scope("net"), mg.scope(part):
            h = mg.state(0.0, name="h")
            x = h.next = mg.tanh(x + h * mg.parameter(0.5, name=f"u_{part}"))
    graph = mg.Graph(x)
    assert graph["second.h"] is h
    assert graph["second.h′"] is graph["second.h.next"] is h.next
    assert graph["u_second"].name == "net.second.u_second"
    for unclear in ("h", "net.h"):
        with pytest.raises(mg.errors.UnknownNameError):
            graph[unclear]
