"""The picture of a network as boxes, one for each part of it: what is in a box, and what runs between boxes."""

import itertools
import re
import xml.etree.ElementTree as ET

import networkx as nx
import numpy as np
import pytest
from geometry import crossings, loose_ends, overlaps
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import NETWORKS, weight
from random_networks import RandomNetwork

import microgrid as mg
import viz
from microgrid.leaves import State
from microgrid.ops.time import is_time_reduction
from microgrid.scope import Scope
from viz.diagram import diagram
from viz.fold import MOST_NODES
from viz.labels import is_folded
from viz.parts import parts


def sequence(features=3, name="x"):
    return mg.input(np.linspace(-1.0, 1.0, 2 * features).reshape(2, features), name=name)


# --- networks of scopes and layers ------------------------------------------------------------------


def layers():
    model = mg.nn.Sequential(
        mg.nn.LSTM(3, 8, rng=0),
        mg.nn.LayerNorm(8),
        mg.nn.Dropout(0.2, rng=0),
        mg.nn.GRU(8, 4, rng=0),
        mg.nn.Linear(4, 2, rng=0),
    )
    return mg.Graph(y=model(sequence()))


def stacked_layers():
    return mg.Graph(y=mg.nn.RNN(3, 4, num_layers=2, rng=0)(sequence()))


def bidirectional_layer():
    return mg.Graph(y=mg.nn.LSTM(3, 4, bidirectional=True, rng=0)(sequence()))


def language_model():
    token, target = (mg.input(np.array([1, 2]), name=name) for name in ("token", "target"))
    h = mg.nn.GRU(3, 4, rng=0)(mg.nn.Embedding(5, 3, rng=0)(token))
    return mg.Graph(loss=mg.time_mean(mg.nn.cross_entropy(mg.nn.Linear(4, 5, rng=0)(h), target)))


def losses():
    """Two parts behind reductions over time, one of which reads the other, and a penalty."""
    x, target = sequence(), sequence(1, "target")
    y = mg.nn.Linear(4, 1, rng=0)(mg.nn.RNN(3, 4, rng=0)(x))
    with mg.scope("metric"):
        metric = mg.time_mean(mg.mean(mg.abs(y - target)))
    penalty = 0.01 * mg.sum(weight("W", 3, 3) ** 2)
    with mg.scope("loss"):
        loss = mg.time_mean(mg.mean((y - target) ** 2)) + penalty + 0.1 * metric
    return mg.Graph(loss=loss, metric=metric)


def entered_twice():
    x, a, b = mg.input(1.0, name="x"), mg.scope("A"), mg.scope("B")
    with a:
        h = mg.state(0.0, name="h")
        u = mg.tanh(h + x)
    with b:
        v = mg.sin(u * 2.0 + x)
    with a:
        h.next = mg.tanh(v + u)
    return mg.Graph(y=h.next)


def coupled_scopes():
    """Two parts, each of which needs what the other was one timestep ago."""
    x = mg.input(1.0, name="x")
    with mg.scope("A"):
        a = mg.state(0.0, name="a")
        to_a = mg.tanh(a * 0.5 + x)
    with mg.scope("B"):
        b = mg.state(0.0, name="b")
        b.next = mg.tanh(b + a * 2.0)
    a.next = to_a + b
    return mg.Graph(y=a.next + b.next)


def read_by_reductions():
    """States in boxes that reductions over time and outputs read, not their nexts."""
    x = mg.input(0.5, name="x")
    with mg.scope("forwards"):
        h = mg.state(0.0, name="h")
        h.next = mg.tanh(x + 0.5 * h)
    with mg.scope("backwards"):
        k = mg.state(0.0, name="k", reverse=True)
        k.next = mg.tanh(x + 0.5 * k)
    g = mg.state(0.0, name="g")
    g.next = mg.sin(g + h.next * k.next)
    return mg.Graph(mg.time_mean(h), mg.last(k), mg.first(g), mg.time_stack(g), past=h)


def delay_line_in_a_scope():
    x = mg.input(0.5, name="x")
    with mg.scope("taps"):
        first, second, third = (mg.state(0.0, name=f"d{k}") for k in range(3))
        first.next, second.next, third.next = x, first, second
        y = x + 0.25 * third
    return mg.Graph(y=mg.tanh(y))


def starts_in_scopes():
    x, outside = sequence(), weight("outside", 2, 3)
    with mg.scope("cell"):
        h = mg.state(mg.tanh(weight("h0", 2, 3)), name="h")
        h.next = mg.tanh(x @ weight("W", 3, 3) + h)
    with mg.scope("back"):
        k = mg.state(outside, name="k", reverse=True)
        k.next = mg.tanh(k + h.next)
    return mg.Graph(loss=mg.last(mg.sum(k.next)))


def normalised_in_a_scope():
    """A part whose middle is a reduction over time: what it computes before, and after."""
    x = sequence()
    with mg.scope("norm"):
        z = mg.tanh(x * 2.0)
        z = (z - mg.time_mean(z)) / 2.0
    return mg.Graph(y=mg.nn.RNN(3, 2, rng=0)(z))


def nested():
    x = mg.input(1.0, name="x")
    with mg.scope("outer"):
        y = mg.tanh(x + 1.0)
        with mg.scope("middle"):
            y = mg.tanh(y + 1.0)
            with mg.scope("inner"):
                h = mg.state(0.0, name="h")
                h.next = y = mg.tanh(y + h)
    return mg.Graph(y=y * 2.0)


SCOPED = {
    make.__name__: make
    for make in (
        *(layers, stacked_layers, bidirectional_layer, language_model, losses, entered_twice, coupled_scopes),
        *(read_by_reductions, delay_line_in_a_scope, starts_in_scopes, normalised_in_a_scope, nested),
    )
}
EVERY = NETWORKS | SCOPED


@pytest.fixture(params=EVERY, scope="module")
def net(request):
    return EVERY[request.param]()


def random_network(seed):
    """A random network whose nodes are in random scopes, of random names and depths."""
    rng = np.random.default_rng(seed)
    graph, _ = RandomNetwork(seed, both_directions=bool(seed % 2)).tensors(False)
    scopes = []
    for _ in range(rng.integers(1, 5)):
        scope = Scope(rng.choice(["a", "b", "<c>"]) if rng.random() < 0.9 else None)
        scope.parent = scopes[rng.integers(len(scopes))] if scopes and rng.random() < 0.5 else None
        scopes.append(scope)
    stay, current = rng.choice([0.3, 0.7, 0.9]), None
    for node in graph.nodes:
        if rng.random() > stay:
            current = [*scopes, None][rng.integers(len(scopes) + 1)]
        node.scope = current
    return graph


# --- what must hold of every network ----------------------------------------------------------------


def check_members(graph, boxes):
    """Each tensor is in one box, or a plain number written where it is read."""
    members = [member for node in boxes.nodes for member in node.members]
    assert len(set(members)) == len(members)
    assert all(is_folded(left_out) for left_out in set(graph.nodes) - set(members))


def check_scopes(graph, boxes, depth):
    """The operations of a box are of one scope, or of one cycle."""
    for node in boxes.nodes:
        operations = [m for m in node.members if m.operands and not isinstance(m, State)]
        named = [[s for s in m.scope.path if s.name][:depth] if m.scope is not None else [] for m in operations]
        assert len({path[-1] if path else None for path in named}) <= 1
        assert len({m in graph.varying for m in operations}) <= 1
        if len(operations) > 1 and not named[0]:
            assert any(set(operations) <= set(component) for component in graph.components)


def check_acyclic(boxes):
    """Nothing needs its own result within a timestep, and everything comes after what it reads."""
    place = {node: i for i, node in enumerate(boxes.nodes)}
    assert all(place[link.tail] < place[link.head] for link in boxes.links)


def check_edges(boxes):
    """Every edge stands for something that is read."""
    for link in boxes.links:
        assert link.reads
        for reader, index in link.reads:
            assert reader in set(link.head.members)
            assert reader.operands[index] in set(link.tail.members)
    for delay in boxes.delays:
        assert delay.states
        for state in delay.states:
            assert state.next in set(delay.tail.members)
            assert delay.ahead == (-1 if state.reverse else 1)
            reads = [operand for m in delay.head.members for operand in m.operands]
            reads += [m.next for m in delay.head.members if isinstance(m, State)]
            assert delay.head.state is state or any(read is state for read in reads)
    for start in boxes.starts:
        assert start.state.initial in set(start.tail.members)
        assert start.state in set(start.head.members)


def unrolled_reads(graph, steps):
    """What each tensor reads, at each timestep, as pairs of (tensor, timestep); None is the timestep of all others."""
    for node in graph.nodes:
        for t in range(steps) if node in graph.varying else [None]:
            if isinstance(node, State):
                before = t + 1 if node.reverse else t - 1
                source = (node.next, before) if 0 <= before < steps else (node.initial, None)
                yield (source[0], source[1] if source[0] in graph.varying else None), (node, t)
                continue
            for operand in node.operands:
                times = [t if operand in graph.varying else None]
                if is_time_reduction(node) and operand in graph.varying:
                    times = node.primitive.over_time(list(range(steps)))
                yield from (((operand, s), (node, t)) for s in times)


def boxes_reached(graph, boxes, steps):
    """The same dependencies as the edges of a diagram tell them."""
    found = nx.DiGraph()
    for link in boxes.links:
        for t in range(steps) if link.head.varies else [None]:
            times = [t if link.tail.varies else None]
            if link.tail.varies and not link.head.varies:
                over = [r.primitive.over_time(list(range(steps))) for r, _ in link.reads if r.primitive.over_time]
                times = sorted({s for each in over for s in each})
            found.add_edges_from(((link.tail, s), (link.head, t)) for s in times)
    for delay in boxes.delays:
        for t in range(steps):
            if 0 <= t - delay.ahead < steps:
                found.add_edge((delay.tail, t - delay.ahead if delay.tail.varies else None), (delay.head, t))
    for start in boxes.starts:
        found.add_edge((start.tail, None), (start.head, 0 if start.ahead > 0 else steps - 1))
    return found


def check_dependencies(graph, boxes, steps=3):
    """What depends on what, at which timestep, can be read off the diagram."""
    box = {member: node for node in boxes.nodes for member in node.members}
    exact, drawn = nx.DiGraph(unrolled_reads(graph, steps)), boxes_reached(graph, boxes, steps)
    for source, s in exact:
        if source not in box or isinstance(source, State):
            continue
        own = box[source]
        times = [s] if own.varies == (s is not None) else range(steps)  # a weight inside a box of every timestep
        reached = {(own, t) for t in times}.union(
            *(nx.descendants(drawn, (own, t)) for t in times if (own, t) in drawn)
        )
        for target, t in nx.descendants(exact, (source, s)):
            if not (isinstance(target, State) and box[target].part is not None):  # one inside a box waits to be read
                assert (box[target], t) in reached, (source, s, target, t)


def check(graph, depth=None):
    boxes = diagram(graph, parts(graph, depth))
    check_members(graph, boxes)
    check_scopes(graph, boxes, depth)
    check_acyclic(boxes)
    check_edges(boxes)
    check_dependencies(graph, boxes)
    return boxes


@pytest.mark.parametrize("depth", [None, 1])
def test_boxes_hold_every_tensor_once_and_their_edges_every_dependency(net, depth):
    check(net, depth)


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 10**6), depth=st.sampled_from([None, 1, 2]))
def test_boxes_of_random_scopes_hold_every_tensor_once_and_their_edges_every_dependency(seed, depth):
    check(random_network(seed), depth)


def test_the_edges_of_a_picture_are_those_of_its_diagram(net):
    boxes = diagram(net, parts(net))
    number = boxes.numbers
    rolled = {(wire.tail, wire.head) for wire in viz.draw(net, level="cell").scene.wires}
    ends = {node: f"n{number[node]}t0" if node.varies else f"n{number[node]}" for node in boxes.nodes}
    expected = {(ends[edge.tail], ends[edge.head]) for edge in (*boxes.links, *boxes.delays)}
    unnamed = {ends[start.tail] for start in boxes.starts if start.tail.part is None and start.tail.tensor.name is None}
    expected |= {(ends[start.tail], ends[start.head]) for start in boxes.starts}
    assert rolled <= expected
    assert {tail for tail, _ in expected - rolled} <= unnamed


# --- where things stand -----------------------------------------------------------------------------


def test_no_box_overlaps_another_and_no_edge_runs_through_one(net):
    dag = net.unroll(steps=3)
    for picture in (
        viz.draw(net, level="cell"),
        viz.draw(dag, level="cell"),
        viz.draw(dag, level="cell", weights="repeated"),
        viz.draw(dag, level="cell", fold=1),
    ):
        assert overlaps(picture.scene) == []
        assert crossings(picture.scene) == []
        assert loose_ends(picture.scene) == []


@pytest.mark.parametrize("seed", range(6))
def test_random_networks_in_random_scopes_are_drawn_without_overlaps(seed):
    net = random_network(seed)
    for what in (net, net.unroll(steps=3)):
        picture = viz.draw(what, level="cell", depth=[None, 1, 2][seed % 3])
        assert overlaps(picture.scene) == []
        assert loose_ends(picture.scene) == []


# --- which boxes there are --------------------------------------------------------------------------


def named(picture):
    """The boxes by what is written on them."""
    return {box.content.lines[0].text: box for box in picture.scene.boxes.values()}


def loops(picture):
    boxes = picture.scene.boxes
    return {boxes[wire.tail].content.lines[0].text for wire in picture.scene.wires if wire.tail == wire.head}


def test_layers_are_boxes_and_only_the_recurrent_ones_read_themselves():
    picture = viz.draw(layers(), level="cell")
    assert list(named(picture)) == ["x", "lstm", "layernorm", "dropout", "gru", "y = linear"]
    assert loops(picture) == {"lstm", "gru"}
    assert [box.content.kind for box in named(picture).values()] == [
        *("input", "cell", "part", "part", "cell", "output part")
    ]
    lstm = mg.nn.LSTM(3, 8)
    count = sum(parameter.size for parameter in lstm.parameters())
    assert f"{count} weights" in [line.text for line in named(picture)["lstm"].content.lines]


def test_each_layer_of_a_stack_and_each_direction_is_a_box_with_an_edge_to_itself():
    assert loops(viz.draw(stacked_layers(), level="cell")) == {"rnn.0", "y = rnn.1"}
    picture = viz.draw(bidirectional_layer(), level="cell")
    assert loops(picture) == {"lstm.forwards", "lstm.backwards"}
    labels = {wire.label for wire in picture.scene.wires if wire.tail == wire.head}
    assert labels == {"t−1", "t+1"}


def test_a_stack_folds_into_one_box_at_depth_1():
    (_, box) = named(viz.draw(stacked_layers(), level="cell", depth=1)).items()
    assert box[0] == "y = rnn"


def test_depth_says_how_deep_to_look_into_scopes():
    found = [[*named(viz.draw(nested(), level="cell", depth=depth))] for depth in (1, 2, 3, 9, None)]
    assert found[0] == ["x", "outer", "y = h′ × 2"]
    assert found[1] == ["x", "outer", "outer.middle", "y = h′ × 2"]
    assert found[2] == ["x", "outer", "outer.middle", "outer.middle.inner", "y = h′ × 2"]
    assert found[3] == found[4] == found[2]


def test_a_cycle_outside_of_scopes_is_a_box_called_after_its_states():
    picture = viz.draw(NETWORKS["lstm"](), level="cell")
    assert loops(picture) == {"h, c"}
    assert "V" in named(picture)


def test_parts_that_read_each_other_in_one_timestep_are_several_boxes():
    picture = viz.draw(entered_twice(), level="cell")
    assert [box.content.lines[0].text for box in picture.scene.boxes.values()] == ["x", "A", "B", "y = A"]
    assert loops(picture) == set()


def test_parts_that_read_each_other_only_through_delays_are_one_box_each():
    x = mg.input(1.0, name="x")
    with mg.scope("A"):
        a = mg.state(0.0, name="a")
        a_next = 0.5 * a + x
    with mg.scope("B"):
        b = mg.state(0.0, name="b")
        b.next = mg.tanh(a * 2.0)
    with a_next.scope:
        a.next = mg.sin(a_next + b)
    picture = viz.draw(mg.Graph(y=a.next, z=b.next), level="cell")
    ids = {id: box.content.lines[0].text for id, box in picture.scene.boxes.items()}
    assert sorted(ids.values()) == ["x", "y = A", "z = B"]
    back = {(ids[wire.tail], ids[wire.head]) for wire in picture.scene.wires if wire.kind == "delay back"}
    assert back == {("y = A", "y = A"), ("y = A", "z = B"), ("z = B", "y = A")}


def test_two_scopes_of_one_name_are_two_boxes():
    y = mg.input(1.0, name="x")
    for _ in range(2):
        with mg.scope("same"):
            y = mg.tanh(y * 2.0)
    assert list(named(viz.draw(mg.Graph(y), level="cell"))) == ["x", "same_1", "same_2"]


def test_a_scope_without_a_name_and_one_with_a_single_operation_make_no_box():
    x = mg.tensor(1.0, name="x")
    with mg.scope(None):
        y = mg.tanh(x) * 2.0
    with mg.scope("alone"):
        y = mg.sin(y)
    assert list(named(viz.draw(y, level="cell"))) == ["x", "tanh", "× 2", "sin"]


def test_weights_inside_a_box_are_not_drawn_and_shared_ones_are():
    x, shared = sequence(), weight("shared", 3, 3)
    with mg.scope("first"):
        y = mg.tanh(x @ shared + weight("own", 3))
    with mg.scope("second"):
        z = mg.tanh(y @ shared)
    found = named(viz.draw(mg.Graph(z), level="cell"))
    assert set(found) == {"x", "first", "shared", "second"}
    assert "3 weights" in [line.text for line in found["first"].content.lines]


def test_a_layer_made_within_a_scope_holds_its_own_weights():
    with mg.scope("encoder"):
        y = mg.nn.LSTM(3, 4, rng=0)(sequence())
    assert list(named(viz.draw(mg.Graph(y), level="cell"))) == ["x", "encoder.lstm"]


def test_an_input_stays_outside_of_its_scope_and_a_dropout_mask_inside():
    with mg.scope("net"):
        x = sequence()
        y = mg.tanh(mg.nn.Dropout(0.5, rng=0)(x) * 2.0)
    picture = viz.draw(mg.Graph(y), level="cell", depth=1)
    assert list(named(picture)) == ["x", "net"]


def test_a_learned_start_inside_a_scope_is_drawn_before_the_first_timestep():
    scene = viz.draw(starts_in_scopes().unroll(steps=3), level="cell").scene
    starts = [wire for wire in scene.wires if wire.kind == "weight" and "t" not in wire.tail]
    assert {wire.head for wire in starts if wire.head.endswith("t0")}
    start = scene.boxes[next(wire.tail for wire in starts if wire.head.endswith("t0"))]
    assert start.right[0] < scene.frames["t0"].left
    assert "6 weights" in [line.text for line in start.content.lines]


def test_a_state_that_a_reduction_over_time_reads_is_drawn_beside_its_box():
    picture = viz.draw(read_by_reductions(), level="cell")
    kinds = [box.content.kind for box in picture.scene.boxes.values()]
    assert kinds.count("state") + kinds.count("output") >= 3
    assert {"past = t−1", "k", "g"} <= set(named(picture))
    assert "part" not in named(picture)


def test_a_box_named_like_its_output_says_so_once():
    assert "loss" in named(viz.draw(losses(), level="cell"))


HOSTILE = ['<b>&"x"]', "a\\nb\\N\\", '"]; evil [label="', "line\nbreak\r\n", "\x07\x00", "'--></script>", "n" * 10_000]


@pytest.mark.parametrize("name", HOSTILE, ids=range(len(HOSTILE)))
def test_a_hostile_scope_name_is_shown_as_text(name):
    x = mg.input(1.0, name="x")
    with mg.scope(name):
        h = mg.state(0.0, name="h")
        h.next = mg.tanh(h + x)
    net = mg.Graph(h.next)
    for picture in (viz.draw(net, level="cell"), viz.draw(net.unroll(steps=2), level="cell")):
        root = ET.fromstring(picture.render("svg"))
        tags = {element.tag.rpartition("}")[2] for element in root.iter()}
        assert tags <= {"svg", "g", "title", "a", "text", "path", "polygon", "ellipse", "polyline"}
        assert "evil" not in {element.get("label") for element in root.iter()}
        written = ["".join(text.itertext()) for text in root.iter() if text.tag.endswith("text")]
        assert max(map(len, written)) <= 40
        if name[:1].isprintable() and len(name) < 28 and "\n" not in name:
            assert name in [text.replace("\u2060", "") for text in written]


# --- settings ---------------------------------------------------------------------------------------


def test_settings_that_mean_nothing_are_refused():
    net = NETWORKS["scalar"]()
    for wrong in (
        *({"level": "box"}, {"level": "cell", "depth": 0}, {"level": "cell", "depth": True}, {"depth": 1}),
        *({"fold": -1}, {"fold": 1.5}, {"fold": True}, {"weights": "twice"}),
    ):
        with pytest.raises(mg.MicrogridError):
            viz.draw(net, **wrong)


def test_level_op_draws_every_operation_of_a_layer():
    net = mg.Graph(mg.nn.LSTM(3, 4, rng=0)(sequence()))
    drawn = {box.tensor for box in viz.draw(net, level="op").scene.boxes.values()}
    assert drawn >= {node for node in net.nodes if node.operands and not isinstance(node, State)}


def test_before_after_takes_the_level_for_both_sides():
    picture = viz.before_after(layers(), steps=2, level="cell")
    assert {box.content.kind for box in picture.scene.boxes.values()} == {"input", "cell", "part", "output part"}
    assert overlaps(picture.scene) == []


# --- long sequences ---------------------------------------------------------------------------------


def shown(scene):
    return [int(id[1:]) for id in scene.frames]


@pytest.mark.parametrize("steps", range(1, 11))
def test_fold_shows_the_first_and_last_timesteps_and_counts_the_others(steps):
    dag = NETWORKS["bidirectional"]().unroll(steps=steps)
    for kept in (0, 1, 2, 4):
        scene = viz.draw(dag, level="cell", fold=kept).scene
        hidden = range(kept, steps - kept) if kept and steps > 2 * kept + 1 else range(0)
        assert shown(scene) == [t for t in range(steps) if t not in hidden]
        assert ("gap" in scene.boxes) == bool(hidden)
        if hidden:
            texts = [line.text for line in scene.boxes["gap"].content.lines]
            assert f"{len(hidden)} more" in texts
            assert f"t = {hidden[0]} … {hidden[-1]}" in texts
            assert scene.frames[f"t{kept - 1}"].right < scene.boxes["gap"].left[0]
            assert scene.boxes["gap"].right[0] < scene.frames[f"t{steps - kept}"].left
        assert not scene.captions


def test_delays_run_into_the_timesteps_left_out_and_out_of_them_in_their_direction():
    scene = viz.draw(NETWORKS["bidirectional"]().unroll(steps=9), level="cell", fold=2).scene
    gap, frame = scene.boxes["gap"], scene.frames
    into = [wire for wire in scene.wires if wire.head == "gap"]
    out = [wire for wire in scene.wires if wire.tail == "gap" and wire.kind == "delay"]
    assert sorted(wire.tail[-2:] for wire in into) == ["t1", "t7"]
    assert sorted(wire.head[-2:] for wire in out) == ["t1", "t7"]
    for wire in (*into, *out):
        end = wire.route[-1] if wire.head == "gap" else wire.route[0]
        towards_left = (wire.tail if wire.head == "gap" else wire.head).endswith("t1")
        assert end[0] == pytest.approx((gap.left if towards_left else gap.right)[0])
    assert frame["t1"].right < gap.left[0]
    assert overlaps(scene) == []
    assert crossings(scene) == []


@pytest.mark.parametrize(
    ("reduction", "from_gap", "read"),
    [(mg.first, False, ["t0"]), (mg.last, False, ["t9"]), (mg.time_mean, True, ["t0", "t9"])],
)
def test_reductions_read_the_timesteps_left_out_where_they_do(reduction, from_gap, read):
    x, h = mg.input(1.0, name="x"), mg.state(0.0, name="h")
    h.next = mg.tanh(x + h)
    scene = viz.draw(mg.Graph(reduction(h.next)).unroll(steps=10), level="cell", fold=1).scene
    over_time = [wire for wire in scene.wires if wire.kind == "over time"]
    assert [wire.tail[-2:] for wire in over_time if wire.tail != "gap"] == read
    assert any(wire.tail == "gap" for wire in over_time) == from_gap


def test_a_thousand_steps_of_an_lstm_fold_into_a_few_boxes_and_say_so():
    net = mg.Graph(mg.nn.LSTM(3, 4, rng=0)(sequence()))
    dag = net.unroll(x=np.zeros((1000, 2, 3)))
    scene = viz.draw(dag).scene
    assert len(scene.boxes) < MOST_NODES
    assert [caption.text for caption in scene.captions] == ["994 of 1,000 timesteps are folded: fold=0 draws all"]
    assert "994 more" in [line.text for line in scene.boxes["gap"].content.lines]
    assert not viz.draw(dag, fold=2, level="cell").scene.captions


def test_fold_0_draws_all_of_many_steps():
    scene = viz.draw(NETWORKS["scalar"]().unroll(steps=150), fold=0).scene
    assert shown(scene) == list(range(150))
    assert "gap" not in scene.boxes


def test_a_large_acyclic_graph_shows_what_is_nearest_to_its_result_and_how_to_see_all():
    y = mg.tensor(1.0, name="y")
    for k in range(1500):
        y = mg.tanh(y) if k % 2 else y + mg.parameter(1.0)
    scene = viz.draw(y).scene
    assert len(scene.boxes) == MOST_NODES
    assert y in {box.tensor for box in scene.boxes.values()}
    assert scene.captions[-1].text.endswith("fold=0 draws all")
    assert "gap" in [box.content.kind for box in scene.boxes.values()]


def test_a_large_graph_of_scopes_folds_into_its_parts_by_itself():
    y = mg.tensor(1.0, name="y")
    for _ in range(10):
        with mg.scope("block"):
            for _ in range(300):
                y = mg.tanh(y)
    scene = viz.draw(y).scene
    assert len(scene.boxes) == 11
    assert [caption.text for caption in scene.captions] == [
        '3,001 operations are folded into boxes: level="op" draws each'
    ]


# --- weights in every timestep ----------------------------------------------------------------------


def test_repeated_weights_stand_in_every_timestep_tied_to_each_other():
    net = NETWORKS["gru"]()
    scene = viz.draw(net.unroll(steps=3), weights="repeated").scene
    copies = [box for box in scene.boxes.values() if isinstance(box.tensor, mg.Parameter)]
    assert len(copies) == 3 * len(net.parameters)
    ties = [wire for wire in scene.wires if wire.kind == "tie"]
    assert len(ties) == 2 * len(net.parameters)
    for wire in ties:
        assert scene.boxes[wire.tail].tensor is scene.boxes[wire.head].tensor
        assert scene.boxes[wire.head].timestep - scene.boxes[wire.tail].timestep == 1
    weights = [wire for wire in scene.wires if wire.kind == "weight"]
    assert all(scene.boxes[wire.tail].timestep == scene.boxes[wire.head].timestep for wire in weights)
    assert crossings(scene) == []


def test_many_repeated_weights_of_a_narrow_timestep_do_not_reach_into_the_next():
    x, h = mg.input(np.zeros(1), name="x"), mg.state(np.zeros(13), name="h")
    h.next = mg.tanh(mg.concatenate([x, *(weight(f"weight{k}", 1) for k in range(12))]) + h)
    scene = viz.draw(mg.Graph(h.next).unroll(steps=3), weights="repeated").scene
    assert overlaps(scene) == []
    first, second = ([b for b in scene.boxes.values() if b.timestep == t] for t in (0, 1))
    assert max(b.right[0] for b in first) < min(b.left[0] for b in second)


def test_what_is_the_same_in_every_timestep_is_drawn_once_if_nothing_varies():
    net = mg.Graph(mg.tanh(mg.parameter(1.0, name="w")))
    scene = viz.draw(net.unroll(steps=4)).scene
    assert len(scene.boxes) == 2
    assert not scene.frames


def test_gaps_between_timesteps_are_alike():
    scene = viz.draw(NETWORKS["rnn"]().unroll(steps=4), level="cell").scene
    frames = list(scene.frames.values())
    gaps = {round(b.left - a.right, 3) for a, b in itertools.pairwise(frames)}
    assert len(gaps) == 1


def test_a_weight_from_outside_belongs_to_the_part_that_alone_reads_it():
    """Of two parts that read it, to neither; a cycle outside of scopes leaves its weights where they are."""
    x, own, shared = mg.input(1.0, name="x"), mg.parameter(0.5, name="own"), mg.parameter(0.5, name="shared")
    y = x
    for name in ("first", "second"):
        with mg.scope(name):
            y = mg.tanh(y * shared) if name == "second" else mg.tanh(y * shared * own)
    assert set(named(viz.draw(mg.Graph(y=y), level="cell"))) == {"x", "first", "second", "shared"}
    h = mg.state(0.0, name="h")
    h.next = mg.tanh(h * own)
    assert {"own", "h"} <= {text.split(" = ")[-1] for text in named(viz.draw(mg.Graph(y=h.next), level="cell"))}


@pytest.mark.parametrize(
    ("give", "advice"),
    [
        (lambda net: viz.draw(net, gradients=True), "after dag.backward"),
        (lambda net: viz.draw(net.unroll(steps=2), gradients=True), "call dag.backward"),
        (lambda net: viz.before_after(net, gradients=True), "after dag.backward"),
        (lambda net: viz.draw(mg.nn.LSTM(2, 3)), "call the module on an input"),
        (lambda net: viz.draw(mg.nn.LSTM), "the class LSTM: call the module"),
        (lambda net: viz.draw(np.ones(3)), "mg.Graph(loss)"),
        (lambda net: viz.before_after(net.unroll(steps=2)), "dag.graph"),
    ],
)
def test_first_mistakes_are_answered_with_what_to_do(give, advice):
    x, h = mg.input(1.0, name="x"), mg.state(0.0, name="h")
    h.next = mg.tanh(x + h)
    with pytest.raises(mg.MicrogridError, match=re.escape(advice)):
        give(mg.Graph(total=mg.time_sum(h.next)))
