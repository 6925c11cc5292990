"""The schedule: only what is in a cycle runs step by step, and nobody has to say what that is."""

import numpy as np
import pytest
from networks import NETWORKS
from random_networks import RandomNetwork

import microgrid as mg
from microgrid.errors import CausalityError
from microgrid.leaves import State


def names_by_kind(schedule):
    """The names of the nodes in blocks of each kind, operations and states."""
    found = {"once": set(), "all": set(), "loop": set()}
    for block in schedule.blocks:
        found[block.kind] |= {schedule.graph.names[node] for node in block.nodes}
    return found


def loops(schedule):
    """(whether it runs backwards, names of its nodes), per loop."""
    return [
        (block.reverse, {schedule.graph.names[node] for node in block.nodes})
        for block in schedule.blocks
        if block.kind == "loop"
    ]


def assert_can_run(schedule):
    """Every operation stands in one block, of the kind that cycles give, after all that it reads."""
    graph = schedule.graph
    operations = [node for node in graph.nodes if node.primitive is not None]
    placed = [node for block in schedule.blocks for node in block.nodes]
    assert len(placed) == len(operations)
    assert set(placed) == set(operations)
    cyclic = {node for cycle in graph.cycles for node in cycle.nodes}
    block_of = {node: i for i, block in enumerate(schedule.blocks) for node in block.nodes}
    position = {node: i for i, node in enumerate(placed)}
    for block in schedule.blocks:
        for node in block.nodes:
            assert block.kind == ("loop" if node in cyclic else "all" if node in graph.varying else "once")
    for tail, head, kind in graph.edges():
        if tail not in position:
            continue
        if kind == "delay" and block_of[tail] == block_of[head]:
            assert schedule.blocks[block_of[head]].kind == "loop"  # over the whole of `next` first, else
        else:
            assert position[tail] < position[head]
    for block in schedule.blocks:
        states = [node for node in block.nodes if isinstance(node, State)]
        assert block.directed == bool(states)
        assert all(state.reverse == block.reverse for state in states)
        if block.kind == "loop":
            assert len({id(cycle) for cycle in graph.cycles for state in states if state in cycle.states}) == 1
        elif states:
            assert len(states) == 1
            assert block.nodes[0] is states[0]  # rows of its next are all there before any is read
    assert schedule.operations("once", "all", "loop") == len([x for x in operations if not isinstance(x, State)])


@pytest.mark.parametrize("name", NETWORKS)
def test_schedule_of_every_network_can_run(name):
    net = NETWORKS[name]()
    assert_can_run(mg.schedule(net))
    assert_can_run(mg.compile(net, wrt=()).schedule)


@pytest.mark.parametrize("seed", range(25))
def test_schedule_of_random_graphs_can_run(seed):
    net, _ = RandomNetwork(seed, both_directions=True).tensors(numbers_as_floats=False)
    assert_can_run(mg.schedule(net))
    assert_can_run(mg.compile(net).schedule)


# --- what runs where -------------------------------------------------------------------------------------


def test_rnn_hoists_the_projection_of_its_inputs_and_its_outputs():
    net = NETWORKS["rnn"]()
    x, h = net["x"], net["h"]
    schedule = mg.schedule(net)
    (loop,) = loops(schedule)
    assert not loop[0]
    assert "h" in loop[1]
    inside = [node for block in schedule.blocks if block.kind == "loop" for node in block.nodes]
    products = [node for node in net.nodes if node.primitive is mg.matmul.primitive]
    (of_x,) = [node for node in products if node.operands[0] is x]
    (of_h,) = [node for node in products if node.operands[0] is h]
    assert of_x not in set(inside)
    assert of_h in set(inside)
    kinds = names_by_kind(schedule)
    assert {"y", net.names[of_x]} <= kinds["all"]
    assert kinds["once"] == {"loss"}


def operations_in(schedule, kind, primitive):
    return [
        node for block in schedule.blocks if block.kind == kind for node in block.nodes if node.primitive is primitive
    ]


@pytest.mark.parametrize("name", ["rnn", "lstm", "gru"])
def test_compiled_gradients_have_one_loop_each_way_and_only_the_products_of_the_recurrence_inside(name):
    net = NETWORKS[name]()
    loss = mg.Graph(mg.time_sum(mg.sum(net.output))) if net.output in net.varying else net
    schedule = mg.compile(loss).schedule
    assert [reverse for reverse, _ in loops(schedule)] == [False, True]
    products = operations_in(schedule, "loop", mg.matmul.primitive)
    recurrent = {"rnn": 1, "lstm": 1, "gru": 2}[name]  # of the GRU, r * h needs a product after that of h
    assert len(products) == 2 * recurrent  # forwards, and its transpose backwards; weight gradients are outside
    assert not operations_in(schedule, "loop", mg.transpose.primitive)
    for reverse, names in loops(schedule):
        squashed = {schedule.graph[each].primitive for each in names} & {mg.tanh.primitive, mg.sigmoid.primitive}
        assert bool(squashed) != reverse  # local derivatives are made of outputs, outside the backward loop


def test_lstm_hoists_the_local_derivatives_of_its_gates():
    net = NETWORKS["lstm"]()
    schedule = mg.compile(mg.Graph(mg.time_sum(mg.sum(net.output)))).schedule
    graph = schedule.graph
    (backwards,) = [names for reverse, names in loops(schedule) if reverse]
    for name in backwards:  # 1 − h² and the like read only what the forward loop made
        node = graph[name]
        assert node.primitive is not mg.square.primitive
        if node.primitive is mg.subtract.primitive:
            assert any(graph.names[operand] in backwards for operand in node.operands)


def test_bias_is_added_outside_the_loop():
    net = NETWORKS["rnn"]()
    schedule = mg.compile(net, wrt=()).schedule
    assert len(operations_in(schedule, "loop", mg.add.primitive)) == 1


def test_delay_line_has_no_loop():
    net = NETWORKS["delay_line"]()
    for schedule in (mg.schedule(net), mg.compile(net, wrt=()).schedule):
        kinds = names_by_kind(schedule)
        assert not kinds["loop"]
        assert {"d1", "d2", "d3"} <= kinds["all"]
        assert schedule.operations("loop") == 0


def test_pure_delay_behind_a_cycle_is_outside_the_loop():
    x, h, past = mg.input(0.0, name="x"), mg.state(0.0, name="h"), mg.state(0.0, name="past")
    h.next = mg.tanh(x + h)
    past.next = h.next
    kinds = names_by_kind(mg.schedule(mg.Graph((past * h).named("y"))))
    assert "h" in kinds["loop"]
    assert {"past", "y"} <= kinds["all"]


def test_two_layers_are_two_loops_and_what_lies_between_is_done_at_once():
    net = NETWORKS["stacked"]()
    schedule = mg.schedule(net)
    assert [sorted({"h1", "h2"} & names) for _, names in loops(schedule)] == [["h1"], ["h2"]]
    first, second = (i for i, block in enumerate(schedule.blocks) if block.kind == "loop")
    between = [node for block in schedule.blocks[first + 1 : second] for node in block.nodes]
    assert [node.primitive for node in between] == [mg.matmul.primitive]


def test_states_that_need_each_other_are_one_loop():
    ((_, names),) = loops(mg.schedule(NETWORKS["coupled"]()))
    assert {"a", "b"} <= names


def test_reverse_state_runs_backwards():
    x, h = mg.input(0.0, name="x"), mg.state(0.0, name="h", reverse=True)
    h.next = mg.tanh(x + h)
    net = mg.Graph(h.next)
    ((reverse, names),) = loops(mg.schedule(net))
    assert reverse
    assert "h" in names
    assert "step by step, backwards" in str(mg.schedule(net))


def test_forwards_and_backwards_side_by_side_are_two_loops():
    x = mg.input(0.0, name="x")
    f, b = mg.state(0.0, name="f"), mg.state(0.0, name="b", reverse=True)
    f.next, b.next = mg.tanh(x + f), mg.sin(x + b)
    schedule = mg.schedule(mg.Graph(f.next * b.next))
    assert sorted((reverse, *({"f", "b"} & names)) for reverse, names in loops(schedule)) == [(False, "f"), (True, "b")]
    backwards = mg.state(0.0, name="later", reverse=True)
    backwards.next = f.next
    schedule = mg.schedule(mg.Graph(backwards))
    (block,) = [block for block in schedule.blocks if backwards in set(block.nodes)]
    assert (block.kind, block.reverse, block.directed) == ("all", True, True)


def test_what_is_static_runs_once():
    net = NETWORKS["static_operations"]()
    schedule = mg.schedule(net)
    squashed = [node for node in net.nodes if node.primitive is mg.tanh.primitive and node not in net.varying]
    assert squashed
    kinds = names_by_kind(schedule)
    assert {net.names[node] for node in squashed} <= kinds["once"]


def test_leaves_are_in_no_block():
    net = NETWORKS["rnn"]()
    leaves = {node for node in net.nodes if node.primitive is None}
    assert leaves
    assert not leaves & {node for block in mg.schedule(net).blocks for node in block.nodes}


# --- as it is printed -----------------------------------------------------------------------------------


def test_printed_schedule_says_what_runs_where_with_names_and_shapes():
    rng = np.random.default_rng(0)
    x, h = mg.input(np.zeros((2, 3)), name="x"), mg.state(np.zeros((2, 4)), name="h")
    W, U = mg.parameter(rng.normal(size=(3, 4)), name="W"), mg.parameter(rng.normal(size=(4, 4)), name="U")
    h.next = mg.tanh((x @ W).named("xW") + (h @ U).named("hU")).named("h_next")
    net = mg.Graph(loss=mg.time_mean(mg.sum(h.next).named("total")), penalty=mg.sum(U).named("size_of_U"))
    assert str(mg.schedule(net)).splitlines()[-1] == (
        "3 operations in loops, at every timestep; 2 for all timesteps at once; 2 once"
    )
    printed = str(mg.schedule(net)).splitlines()
    assert "all timesteps at once    xW 2×4" in printed
    assert "step by step, forwards   h 2×4, hU 2×4, add_1 2×4, h_next 2×4" in printed
    assert "all timesteps at once    total scalar" in printed
    assert printed[-2] == "once                     loss scalar"
    assert len(printed) == len(mg.schedule(net).blocks) + 1


def test_counts_of_the_printed_schedule_are_those_of_its_blocks():
    for name in NETWORKS:
        schedule = mg.schedule(NETWORKS[name]())
        inside, outside, once = (schedule.operations(kind) for kind in ("loop", "all", "once"))
        assert str(schedule).endswith(
            f"{inside} operations in loops, at every timestep; {outside} for all timesteps at once; {once} once"
        )


def test_compiled_network_prints_the_schedule_of_all_its_gradients():
    printed = str(mg.compile(NETWORKS["rnn"]()).schedule)
    for words in ("step by step, forwards ", "step by step, backwards ", "h.grad⁺ 2×4", "W.grad 3×4", "loss scalar"):
        assert words in printed
    assert "grad" not in str(mg.compile(NETWORKS["rnn"](), wrt=()).schedule)


# --- what no order can compute ------------------------------------------------------------------------------


def test_cycle_of_both_directions_is_refused_with_its_path():
    x = mg.input(0.0, name="x")
    a, b = mg.state(0.0, name="a"), mg.state(0.0, name="b", reverse=True)
    a.next, b.next = mg.tanh(b + x), mg.sin(a)
    with pytest.raises(
        CausalityError, match=r"'a' runs forwards in time and 'b' backwards.*a → sin → b → add → tanh → a"
    ):
        mg.schedule(mg.Graph(a.next))


def test_reduction_over_time_inside_a_cycle_is_refused():
    x, h = mg.input(0.0, name="x"), mg.state(0.0, name="h")
    h.next = mg.tanh(x + mg.time_mean(h).named("average"))
    with pytest.raises(CausalityError, match=r"average.*stands inside the cycle"):
        mg.schedule(mg.Graph(h.next))
