"""What a picture shows: every node, edge and timestep once, nothing over anything else."""

import functools
import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from geometry import crossings, loose_ends, overlaps
from networks import NETWORKS, bidirectional, lstm, reverse_rnn, rnn, scalar, weight

import microgrid as mg
import viz
import viz.render
from microgrid.leaves import State
from viz.labels import is_folded

SNAPSHOTS = Path(__file__).parent / "snapshots"
SVG = "{http://www.w3.org/2000/svg}"


def neighbours():
    """One node is the next of a forward and of a reverse state, both with a start that is learned."""
    x, past = mg.input(0.5, name="x"), mg.state(mg.parameter(0.0, name="p0"), name="past")
    future = mg.state(mg.parameter(0.0, name="f0"), name="future", reverse=True)
    past.next = future.next = x
    return mg.Graph(y=0.25 * past + 0.5 * x + 0.25 * future)


def bidirectional_lstm():
    """More on the rows of the states than stands there at first."""
    x, ends = mg.input(np.zeros((2, 3)), name="x"), []
    for reverse in (False, True):
        c, h = (mg.state(np.zeros((2, 4)), name=f"{name}{reverse:d}", reverse=reverse) for name in "ch")
        i, f, o, g = mg.split(x @ weight(f"W{reverse:d}", 3, 16) + h @ weight(f"U{reverse:d}", 4, 16), 4, axis=1)
        c.next = mg.sigmoid(f) * c + mg.sigmoid(i) * mg.tanh(g)
        h.next = mg.sigmoid(o) * mg.tanh(c.next)
        ends.append(h.next)
    return mg.Graph(y=mg.concatenate(ends, axis=1))


def odd_reverse_delays():
    """A reverse state that is its own next, one whose next never varies, two that share theirs, one that delays one."""
    h, k, a, b, c = (mg.state(0.0, name=name, reverse=True) for name in "hkabc")
    h.next, k.next, c.next = h, mg.parameter(2.0, name="W") * 3.0, b
    a.next = b.next = mg.tanh(mg.input(0.1, name="x") + a)
    return mg.Graph(out=h * k + a * b + c)


def starts_of_every_kind():
    """Starts that timesteps read as well, that two directions share, behind a reduction over time, and computed."""
    x, s, w, both = mg.input(np.zeros((1, 3)), name="x"), *(weight(name, 1, 3) for name in ("s", "w", "both"))
    h, g = mg.state(s, name="h"), mg.state(both, name="g", reverse=True)
    h.next = mg.tanh(mg.tanh(x + h) * 2.0)
    g.next = mg.tanh(g + mg.exp(h.next) * s)
    k, d = mg.state(mg.tanh(mg.last(h.next)), name="k", reverse=True), mg.state(mg.last(g.next), name="d")
    e, f = mg.state(mg.exp(w), name="e", reverse=True), mg.state(both, name="f")
    k.next, d.next, e.next, f.next = mg.tanh(k + g.next), mg.tanh(d), mg.sin(e), mg.sin(f)
    return mg.Graph(loss=mg.time_mean(mg.sum(k.next * d.next * e.next * f.next)))


def learnable_delay_lines():
    """Learnable starts of states beside which other nodes stand."""
    x, node, total = mg.input(0.5, name="x"), None, 0.0
    for reverse in (False, True):
        node = x
        for k in range(3):
            start = mg.parameter(float(k), name=f"s{k}{reverse:d}")
            past = mg.state(start, name=f"d{k}{reverse:d}", reverse=reverse)
            past.next = node
            total, node = total + 0.5 * past, past
    return mg.Graph(y=total)


def read_again():
    """Timesteps read, and states take as their next, what stands high above reductions over time."""
    x, h, k = (
        mg.input(np.zeros(3), name="x"),
        mg.state(np.zeros(3), name="h"),
        mg.state(np.zeros(3), name="k", reverse=True),
    )
    p, q = mg.state(0.0, name="p"), mg.state(0.0, name="q", reverse=True)
    h.next = mg.tanh(x + h)
    whole, top = mg.time_stack(h.next), weight("top", 3)
    k.next = 0.5 * k + mg.time_unstack(whole / 2 + mg.mean(whole))
    p.next, q.next = mg.time_sum(mg.sum(x)), mg.time_sum(mg.sum(x)) / 2
    return mg.Graph(y=mg.time_sum(mg.sum(mg.exp(k.next) * top * p * q)))


def read_past_a_weight():
    """A value from behind a reduction over time comes down where a weight above the timesteps would stand."""
    y = mg.exp(mg.exp(mg.exp(mg.input(np.zeros(3), name="x"))))
    return mg.Graph(y=y * weight("top", 3) - mg.time_mean(y) / 2)


PICTURED = NETWORKS | {
    network.__name__: network
    for network in (
        *(neighbours, bidirectional_lstm, odd_reverse_delays),
        *(starts_of_every_kind, learnable_delay_lines, read_again, read_past_a_weight),
    )
}


@pytest.fixture(params=PICTURED, scope="module")
def net(request):
    return PICTURED[request.param]()


def toy():
    a, b = mg.tensor(2.0, name="a"), mg.tensor(-3.0, name="b")
    return mg.tanh(a * b + 7).named("c")


# --- every node, edge and timestep exactly once -----------------------------------------------------


def svg_groups(picture, kind):
    root = ET.fromstring(picture.render("svg"))
    return [g for g in root.iter(f"{SVG}g") if g.get("class") == kind]


@functools.cache
def titles(picture, kind):
    return [group.find(f"{SVG}title").text for group in svg_groups(picture, kind)]


def is_drawn(graph, node):
    """Plain numbers are written on the operations that read them; unnamed initial values are left out."""
    initial = any(state.initial is node for state in graph.states)
    unnamed_leaf = node.name is None and type(node) is mg.Tensor and not node.operands
    return not is_folded(node) and not (initial and unnamed_leaf)


def node_id(graph, node, t=None):
    number = next(i for i, other in enumerate(graph.nodes) if other is node)
    return f"n{number}t{t or 0}" if node in graph.varying else f"n{number}"


def expected_edges(graph, steps, rolled):
    edges = Counter()
    for node in graph.nodes:
        times = range(steps) if node in graph.varying else [None]
        for t in times:
            if isinstance(node, State):
                first = steps - 1 if node.reverse else 0
                if rolled:
                    edges[f"{node_id(graph, node.next)}->{node_id(graph, node)}"] += 1
                elif t != first:
                    source = t + 1 if node.reverse else t - 1
                    edges[f"{node_id(graph, node.next, source)}->{node_id(graph, node, t)}"] += 1
                if t == first and is_drawn(graph, node.initial):
                    edges[f"{node_id(graph, node.initial)}->{node_id(graph, node, t)}"] += 1
                continue
            over_time = node.primitive is not None and node.primitive.over_time
            for operand in node.operands:
                if is_drawn(graph, operand):
                    sources = [t]
                    if over_time and operand in graph.varying:
                        sources = node.primitive.over_time(list(range(steps)))
                    for s in sources:
                        edges[f"{node_id(graph, operand, s)}->{node_id(graph, node, t)}"] += 1
    return edges


def expected_nodes(graph, steps):
    return Counter(
        node_id(graph, node, t)
        for node in graph.nodes
        if is_drawn(graph, node)
        for t in (range(steps) if node in graph.varying else [None])
    )


@functools.cache
def rolled(net):
    return viz.draw(net)


@functools.cache
def unrolled(net):
    return viz.draw(net.unroll(steps=3))


@functools.cache
def beside(net):
    return viz.before_after(net, steps=3)


def test_the_rolled_svg_has_every_node_and_edge_once(net):
    picture = rolled(net)
    assert Counter(titles(picture, "node")) == expected_nodes(net, 1)
    assert Counter(titles(picture, "edge")) == expected_edges(net, 1, rolled=True)
    assert len(titles(picture, "cluster")) == 1


def test_the_unrolled_svg_has_every_node_edge_and_timestep_once(net):
    picture = unrolled(net)
    assert Counter(titles(picture, "node")) == expected_nodes(net, 3)
    assert Counter(titles(picture, "edge")) == expected_edges(net, 3, rolled=False)
    assert titles(picture, "cluster") == ["cluster_t0", "cluster_t1", "cluster_t2"]


def test_before_after_holds_both_pictures(net):
    picture = beside(net)
    both = Counter(titles(rolled(net), "node")) + Counter(titles(unrolled(net), "node"))
    captions = 2
    assert len(titles(picture, "node")) == both.total() + captions
    assert len(set(titles(picture, "node"))) == both.total() + captions
    assert len(titles(picture, "cluster")) == 4


def test_an_ordinary_graph_draws_each_operand_edge():
    picture = viz.draw(toy())
    assert len(titles(picture, "node")) == 5
    assert Counter(titles(picture, "edge")) == Counter(["n0->n2", "n1->n2", "n2->n4", "n4->n5"])


def test_a_node_read_twice_by_one_operation_has_two_edges():
    x = mg.tensor(3.0, name="x")
    assert Counter(titles(viz.draw(x * x), "edge")) == Counter({"n0->n1": 2})


# --- where things stand -----------------------------------------------------------------------------


@functools.cache
def all_scenes(net):
    return [rolled(net).scene, viz.draw(net.unroll(steps=4)).scene, beside(net).scene]


def test_no_two_nodes_overlap(net):
    for scene in all_scenes(net):
        assert overlaps(scene) == []


def test_no_edge_runs_through_a_node_that_is_not_its_own(net):
    for scene in all_scenes(net):
        assert crossings(scene) == []


def test_every_edge_starts_and_ends_at_its_nodes(net):
    for scene in all_scenes(net):
        assert loose_ends(scene) == []


def test_a_node_stands_at_the_same_place_in_every_timestep(net):
    scene = unrolled(net).scene
    for id, box in scene.boxes.items():
        if id.endswith("t0"):
            later = [scene.boxes[id[:-1] + str(t)] for t in (1, 2)]
            assert {round(other.y, 6) for other in later} == {round(box.y, 6)}
            assert later[1].x - later[0].x == pytest.approx(later[0].x - box.x)


@pytest.mark.parametrize(
    "name",
    [
        *("scalar", "rnn", "lstm", "gru", "stacked", "coupled", "fed_back", "embedding", "static_operations"),
        *("bidirectional", "reverse_rnn", "forward_then_reverse", "bidirectional_lstm", "starts_of_every_kind"),
    ],
)
def test_a_state_stands_beside_its_next_at_the_same_height_and_its_delay_runs_level(name):
    """Left of it, so that the delay runs on to the right; a reverse state right of it."""
    net = PICTURED[name]()
    scene = viz.draw(net.unroll(steps=2)).scene
    for state in net.states:
        here, following = (scene.boxes[node_id(net, node, 0)] for node in (state, state.next))
        assert here.y == pytest.approx(following.y)
        left, right = (following, here) if state.reverse else (here, following)
        assert left.right[0] < right.left[0]
    delays = [wire for wire in scene.wires if wire.kind == "delay"]
    assert len(delays) == len(net.states)
    for wire in delays:
        assert np.ptp([y for _, y in wire.route]) < 0.5


def test_computation_flows_upwards(net):
    scene = unrolled(net).scene
    for wire in scene.wires:
        if wire.kind == "operand" and "t" in wire.tail:
            assert scene.boxes[wire.tail].y < scene.boxes[wire.head].y


def test_the_delay_is_a_dashed_labelled_edge_back(net):
    back = [wire for wire in rolled(net).scene.wires if wire.kind == "delay back"]
    assert len(back) == len(net.states)
    assert Counter((wire.head, wire.label) for wire in back) == Counter(
        (node_id(net, state), "t+1" if state.reverse else "t−1") for state in net.states
    )
    assert rolled(net).source.count("dashed") == len(net.states)


def test_the_loop_of_a_reverse_state_runs_the_other_way_round():
    net = bidirectional()
    scene = viz.draw(net).scene
    for state in net.states:
        here, following = (scene.boxes[node_id(net, node)] for node in (state, state.next))
        (loop,) = [wire for wire in scene.wires if wire.kind == "delay back" and wire.head == here.id]
        leaves, arrives = (following.left, here.right) if state.reverse else (following.right, here.left)
        assert loop.route[0] == pytest.approx(leaves)
        assert loop.route[-1] == pytest.approx(arrives)


def test_a_node_that_both_directions_delay_stands_between_its_states():
    net = neighbours()
    boxes = viz.draw(net).scene.boxes
    past, x, future = (boxes[node_id(net, net[name])] for name in ("past", "x", "future"))
    assert past.y == pytest.approx(x.y) == pytest.approx(future.y)
    assert past.right[0] < x.left[0] < x.right[0] < future.left[0]


@pytest.mark.parametrize("steps", [1, 3])
def test_a_learnable_start_stands_outside_the_timestep_at_which_its_state_starts(steps):
    net = neighbours()
    for scene in (viz.draw(net.unroll(steps=steps)).scene, viz.draw(net).scene):
        frames = list(scene.frames.values())
        assert scene.boxes[node_id(net, net["p0"])].right[0] < frames[0].left
        assert scene.boxes[node_id(net, net["f0"])].left[0] > frames[-1].right


def test_weights_stand_once_outside_the_timesteps(net):
    scene = unrolled(net).scene
    for parameter in net.parameters:
        box = scene.boxes[node_id(net, parameter)]
        for frame in scene.frames.values():
            inside = frame.left < box.x < frame.right and frame.bottom < box.y < frame.top
            assert not inside


# --- what is written on nodes -----------------------------------------------------------------------


def texts(picture):
    root = ET.fromstring(picture.render("svg"))
    return ["".join(text.itertext()) for text in root.iter(f"{SVG}text")]


def test_names_shapes_and_operations_are_written():
    written = texts(viz.draw(rnn()))
    assert {"x", "h", "W", "U", "V", "target", "h @ U", "h′ = tanh", "y = h′ @ V", "loss = mean over t"} <= set(written)
    assert {"2 × 3", "4 × 4", "every timestep t", "t−1"} <= set(written)


def test_a_state_that_is_an_output_says_when_its_value_is_that_of_its_next():
    x, past, future = mg.input(0.0, name="x"), mg.state(0.0), mg.state(0.0, reverse=True)
    past.next = future.next = x
    net = mg.Graph(past=past, future=future)
    for picture in (viz.draw(net), viz.draw(net.unroll(steps=2))):
        assert {"past = t−1", "future = t+1"} <= set(texts(picture))


def test_plain_numbers_are_written_on_the_operation_that_reads_them():
    assert {"+ 7", "a × b"} <= set(texts(viz.draw(toy())))


def test_values_and_gradients_are_written_on_request():
    c = toy()
    c.backward()
    assert not [text for text in texts(viz.draw(c)) if "grad" in text]
    written = texts(viz.draw(c, values=True, gradients=True))
    assert "value 2" in written
    assert f"grad {c.operands[0].grad:.4g}" in written


def test_an_array_shows_its_norm():
    x = mg.tensor(np.array([3.0, 4.0]), name="x")
    assert "value ‖5‖" in texts(viz.draw(mg.sum(x), values=True))


HOSTILE = [
    '<b>&"x"]',
    "a\\nb\\N",
    "x:y:z",
    "-> {",
    '"]; evil [label="',
    "",
    "\x07bell\x00",
    "名前 🙂",
    "<<i>>",
    "n" * 300,
]


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_name_is_shown_as_text(name):
    h = mg.state(0.0, name=name)
    h.next = mg.tanh(h + mg.parameter(1.0, name=name + "'"))
    for picture in (viz.draw(mg.Graph(h.next)), viz.before_after(mg.Graph(h.next), steps=2)):
        root = ET.fromstring(picture.render("svg"))
        written = ["".join(text.itertext()).replace("\u2060", "").strip() for text in root.iter(f"{SVG}text")]
        if name and len(name) <= 28:
            assert re.sub(r"[\x00-\x1f]", " ", name).strip() in written
        assert not [element for element in root.iter() if element.tag in {f"{SVG}b", f"{SVG}i", f"{SVG}script"}]
        assert "evil" not in {element.get("label") for element in root.iter()}


def test_a_long_name_is_cut_on_the_node_and_whole_in_its_tooltip():
    picture = viz.draw(mg.tensor(1.0, name="n" * 300) + 1)
    assert "n" * 27 + "…" in texts(picture)
    assert "n" * 300 in picture.render("svg").decode()


# --- DOT snapshots ----------------------------------------------------------------------------------


def structure(source):
    """DOT without positions and sizes, which follow Graphviz's version."""
    source = re.sub(r'\b(pos|bb|lp|width|height|pad)="?[-\d.,e ]*"?\s*', "", source)
    return re.sub(r"[ \t]+\n", "\n", source)


@pytest.mark.parametrize(
    ("name", "make"),
    {
        "toy": lambda: viz.draw(toy()),
        "rnn_rolled": lambda: viz.draw(rnn()),
        "rnn_unrolled": lambda: viz.draw(rnn().unroll(steps=2)),
        "scalar_before_after": lambda: viz.before_after(scalar(), steps=2),
        "lstm_rolled": lambda: viz.draw(lstm()),
        "bidirectional_rolled": lambda: viz.draw(bidirectional()),
        "reverse_rnn_unrolled": lambda: viz.draw(reverse_rnn().unroll(steps=2)),
        "forward_then_reverse_before_after": lambda: viz.before_after(NETWORKS["forward_then_reverse"](), steps=2),
    }.items(),
)
def test_dot_source_is_as_it_was(name, make):
    """Run with UPDATE_SNAPSHOTS=1 after a wanted change, and read the difference."""
    file = SNAPSHOTS / f"{name}.dot"
    found = structure(make().source)
    if os.environ.get("UPDATE_SNAPSHOTS"):
        file.write_text(found, encoding="utf-8")
    assert found == file.read_text(encoding="utf-8")


def test_a_layout_is_the_same_every_time():
    assert viz.draw(lstm()).source == viz.draw(lstm()).source


# --- saving and rendering ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("suffix", "start"),
    [(".svg", b"<?xml"), (".png", b"\x89PNG"), (".pdf", b"%PDF"), (".dot", b"digraph"), (".SVG", b"<?xml")],
)
def test_the_suffix_decides_the_format(tmp_path, suffix, start):
    path = viz.draw(scalar()).save(tmp_path / f"picture{suffix}")
    assert path.read_bytes().startswith(start)
    assert [file.name for file in tmp_path.iterdir()] == [f"picture{suffix}"]


def test_an_unknown_suffix_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(viz.PictureFormatError, match=r"'\.bmp'.*\.svg, \.png"):
        viz.draw(scalar()).save(tmp_path / "picture.bmp")
    assert list(tmp_path.iterdir()) == []


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        viz.draw(scalar()).save(tmp_path / "nowhere" / "picture.svg")


def test_a_failed_rendering_leaves_the_old_picture_whole(tmp_path, monkeypatch):
    picture = viz.draw(scalar())
    path = picture.save(tmp_path / "picture.svg")
    before = path.read_bytes()
    monkeypatch.setattr("viz.picture.render", lambda *_: (_ for _ in ()).throw(viz.RenderError("no")))
    with pytest.raises(viz.RenderError):
        picture.save(path)
    monkeypatch.undo()
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError("disk")))
    with pytest.raises(OSError, match="disk"):
        picture.save(path)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["picture.svg"]


def test_pictures_need_no_dot_on_the_machine(tmp_path):
    code = "import microgrid as mg, viz; viz.draw(mg.tensor(1.0, name='a') + 1).save('a.svg')"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env={"PATH": ""}, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "a.svg").read_text().startswith("<?xml")


def test_without_any_graphviz_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setattr(viz.render, "in_process", lambda: None)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(viz.RenderError, match="pip install 'pygraphviz"):
        viz.draw(scalar())


def test_graphviz_keeps_off_the_terminal(capfd):
    viz.before_after(lstm(), steps=60).render("png")
    assert capfd.readouterr() == ("", "")


def test_broken_dot_gives_graphviz_own_words():
    with pytest.raises(viz.RenderError, match="Graphviz"):
        viz.render.render("digraph { a -> ", "svg")


def test_a_notebook_shows_the_picture():
    picture = viz.draw(scalar())
    assert picture._repr_svg_().startswith("<?xml")
    assert set(picture._repr_mimebundle_()) == {"image/svg+xml", "text/plain"}


def test_something_else_is_refused():
    with pytest.raises(TypeError, match="not ndarray"):
        viz.draw(np.zeros(3))


def test_sixty_four_timesteps_draw():
    assert len(viz.draw(lstm().unroll(steps=64), fold=0).scene.frames) == 64


def test_what_is_no_network_of_its_own_is_drawn_as_an_ordinary_graph():
    net = scalar()
    dag = mg.Graph(mg.last(net.output)).unroll(x=[1.0, 2.0])
    assert not viz.draw(dag.output).scene.frames
    assert len(viz.draw(mg.tensor(2.0)).scene.boxes) == 1


def test_a_computed_start_is_drawn_with_its_way_to_the_state():
    h0 = mg.parameter(np.zeros(3), name="h0")
    h = mg.state(mg.tanh(h0), name="h")
    h.next = mg.tanh(h * 2.0)
    net = mg.Graph(h.next)
    for picture in (viz.draw(net), viz.draw(net.unroll(steps=2))):
        assert {"h0", "tanh"} <= set(texts(picture))
        start, state = node_id(net, h.initial), node_id(net, h, 0)
        assert f"{start}->{state}" in titles(picture, "edge")


def test_a_start_that_was_replaced_is_not_drawn_as_the_start():
    h = mg.state(mg.parameter(np.zeros(3), name="h0"), name="h")
    h.next = mg.tanh(h)
    assert "h0" not in texts(viz.draw(mg.Graph(h.next).unroll(steps=2, initial={"h": np.ones(3)})))


def test_what_other_threads_write_to_stderr_meanwhile_is_passed_on(capfd):
    with viz.render.graphviz_messages() as messages:
        os.write(2, b"a progress bar\nWarning: of Graphviz\n")
    assert capfd.readouterr().err == "a progress bar\n"
    assert messages() == "Warning: of Graphviz\n"


def test_labels_in_svg_are_centred_on_their_node_whatever_the_font():
    for group in svg_groups(viz.draw(rnn()), "node"):
        anchors = {text.get("text-anchor") for text in group.iter(f"{SVG}text")}
        assert anchors == {"middle"}


def test_a_png_too_large_to_open_is_refused_with_advice():
    with pytest.raises(viz.RenderError, match=r"\.svg"):
        viz.draw(scalar().unroll(steps=600), fold=0).render("png")


def test_nothing_to_unroll_is_said():
    with pytest.raises(TypeError, match=r"viz\.draw"):
        viz.before_after(mg.Graph(mg.tanh(mg.parameter(1.0, name="w"))))
