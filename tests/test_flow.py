"""The size of the gradient through each edge: against finite differences, hand-derived numbers, and at its limits."""

import math
import xml.etree.ElementTree as ET

import numpy as np
import pytest

import microgrid as mg
import viz
from viz.dot import THICKEST, THINNEST
from viz.flow import DECADES_AT_LEAST, norm, through, ticks
from viz.theme import THEMES


def sizes(picture):
    """The norms on a picture's edges, by the names of their ends."""
    found = {}
    for wire in picture.scene.wires:
        if wire.carries:
            ends = name(picture.scene, wire.tail), name(picture.scene, wire.head)
            found.setdefault(ends, []).append(through(wire.carries, {}))
    return found


def number(text):
    """What a tick says."""
    mantissa, power = text[:2], text[2:].translate(str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "-0123456789"))
    return float(f"1e{power}") if mantissa == "10" and power != text[2:] else float(text)


def name(scene, id):
    box = scene.boxes[id]
    word = box.content.lines[0].text.split(" = ")[0]
    return word if box.timestep is None else f"{word}@{box.timestep}"


def drawn(dag, **settings):
    picture = viz.draw(dag, flow=True, **settings)
    return picture, sizes(picture)


def test_a_scalar_network_has_the_gradients_of_finite_differences_on_its_edges():
    """h_t = tanh(u h_{t-1} + x_t), loss = sum of squares: what a small change on an edge changes."""
    xs, u0, steps = [0.3, -0.5, 0.8], 0.7, 3
    u, x, h = mg.parameter(u0, name="u"), mg.input(1.0, name="x"), mg.state(0.2, name="h")
    uh = (u * h).named("uh")
    h.next = mg.tanh(uh + x).named("n")
    dag = mg.Graph(loss=mg.time_sum(mg.square(h.next).named("q"))).unroll(x=xs)
    dag.backward()

    def loss(on="", at=0, by=0.0):
        def moved(edge, t, value):
            return value + by if (edge, t) == (on, at) else value

        total, held = 0.0, 0.2
        for t in range(steps):
            product = moved("u>uh", t, u0) * moved("h>uh", t, moved("n>h", t, held))
            held = math.tanh(moved("uh>+", t, product) + xs[t])
            total += moved("n>q", t, held) ** 2
        return total

    def slope(on, at):
        return abs(loss(on, at, 1e-6) - loss(on, at, -1e-6)) / 2e-6

    _, found = drawn(dag)
    expected = {}
    for t in range(steps):
        expected |= {("u", f"uh@{t}"): slope("u>uh", t), (f"h@{t}", f"uh@{t}"): slope("h>uh", t)}
        expected |= {(f"uh@{t}", f"uh + x@{t}"): slope("uh>+", t), (f"n@{t}", f"q@{t}"): slope("n>q", t)}
        if t:
            expected[f"n@{t - 1}", f"h@{t}"] = slope("n>h", t)
    assert {edge: size for edge, (size,) in found.items() if edge in expected} == pytest.approx(expected, rel=1e-6)


def test_strengths_and_ticks_are_the_logarithms_of_the_sizes_between_the_smallest_and_the_largest():
    dag = coupled(0.01).unroll(steps=4)
    dag.backward()
    scene = viz.draw(dag, flow=True).scene
    carrying = [(wire.strength, through(wire.carries, {})) for wire in scene.wires if wire.carries]
    logs = [math.log10(size) for _, size in carrying if size]
    low, high = min(logs), max(logs)
    assert high - low > DECADES_AT_LEAST
    for strength, size in carrying:
        assert strength == pytest.approx((math.log10(size) - low) / (high - low) if size else -1.0)
    for share, text in scene.legend.ticks:
        assert math.log10(number(text)) == pytest.approx(low + share * (high - low), abs=1e-9)


def strengths(picture):
    """Edge → size relative to the largest, from strengths alone."""
    return {(name(picture.scene, w.tail), name(picture.scene, w.head)): w.strength for w in picture.scene.wires}


def test_a_matrix_product_has_the_gradients_written_by_hand():
    A = mg.parameter(np.array([[1.0, 2.0], [3.0, 4.0]]), name="A")
    B = mg.parameter(np.array([[100.0, 0.0], [0.0, 200.0]]), name="B")
    loss = mg.sum((A @ B).named("AB"))
    loss.backward()
    _, found = drawn(loss)
    ones = np.ones((2, 2))
    expected = {
        ("A", "AB"): np.linalg.norm(ones @ B.value.T),
        ("B", "AB"): np.linalg.norm(A.value.T @ ones),
        ("AB", "Σ"): np.linalg.norm(ones),
    }
    assert {edge: size for edge, (size,) in found.items()} == pytest.approx(expected, rel=1e-9)


def test_each_operand_of_x_times_x_has_its_own_gradient_and_one_edge_of_a_part_their_sum():
    x = mg.tensor(np.array([3.0, 4.0]), name="x")
    with mg.scope("part"):
        loss = mg.sum(x * x * 10.0).named("end")
    loss.backward()
    _, each = drawn(loss, level="op")
    assert each["x", "x × x"] == pytest.approx([50.0, 50.0])
    assert np.linalg.norm(x.grad) == 100.0
    _, whole = drawn(loss, level="cell")
    assert list(whole.values()) == [[pytest.approx(100.0)]]


def coupled(reader_of_a):
    x = mg.input(1.0, name="x")
    with mg.scope("A"):
        a = mg.state(0.3, name="a")
        a.next = mg.tanh(a * 0.5 + x)
    with mg.scope("B"):
        y = mg.sin(reader_of_a * a + x)
    return mg.Graph(loss=mg.time_sum(y))


def test_delays_from_one_box_to_two_carry_each_what_its_reader_passes_back():
    """Not both the whole gradient of the state."""
    dag = coupled(2.0).unroll(x=[0.1, 0.2, 0.3])
    dag.backward()
    a = [float(value) for value in dag.values("A.a")]
    to_b = [2.0 * math.cos(2.0 * a[t] + x) for t, x in enumerate([0.1, 0.2, 0.3])]
    _, found = drawn(dag, level="cell")
    for t in (1, 2):
        assert found[f"A@{t - 1}", f"B@{t}"] == pytest.approx([abs(to_b[t])], rel=1e-9)
    to_a_at_1 = 0.5 * (1 - math.tanh(a[1] * 0.5 + 0.2) ** 2) * to_b[2]
    assert found["A@0", "A@1"] == pytest.approx([abs(to_a_at_1)], rel=1e-9)
    assert found["A@1", "A@2"] == [0.0]


def test_a_reduction_over_time_passes_each_timestep_its_share():
    x, w = mg.input(1.0, name="x"), mg.parameter(2.0, name="w")
    y = (w * x).named("y")
    dag = mg.Graph(loss=mg.last(y) * 100.0 + mg.time_sum(y)).unroll(x=[1.0, 2.0])
    dag.backward()
    _, found = drawn(dag)
    assert found["y@1", "last t"] == pytest.approx([100.0], rel=1e-9)
    assert ("y@0", "last t") not in found
    assert found["y@0", "Σ over t"] == found["y@1", "Σ over t"] == pytest.approx([1.0], rel=1e-9)
    assert found["w", "y@1"] == pytest.approx([2.0 * 101.0], rel=1e-9)


def test_the_timesteps_left_out_have_gradients_on_their_edges_too():
    x, h = mg.input(1.0, name="x"), mg.state(0.0, name="h")
    h.next = mg.tanh(x + mg.parameter(0.5, name="u") * h)
    dag = mg.Graph(loss=mg.time_mean(h.next)).unroll(steps=9)
    dag.backward()
    scene = viz.draw(dag, level="cell", fold=1, flow=True).scene
    at_gap = [wire for wire in scene.wires if "gap" in (wire.tail, wire.head)]
    assert len(at_gap) == 3
    assert all(wire.strength is not None and wire.strength >= 0 for wire in at_gap)


def test_before_backward_there_is_nothing_to_draw():
    dag = coupled(1.0).unroll(steps=2)
    with pytest.raises(mg.errors.GradientError, match=r"backward\(\)"):
        viz.draw(dag, flow=True)
    with pytest.raises(mg.errors.GradientError, match="unrolled"):
        viz.draw(coupled(1.0), flow=True)


def test_an_edge_without_gradient_is_dotted_and_thin():
    x, w = mg.input(1.0, name="x"), mg.parameter(2.0, name="w")
    dag = mg.Graph(loss=mg.first(x * w)).unroll(steps=2)
    dag.backward()
    picture = viz.draw(dag, flow=True)
    none = [edge for edge, strength in strengths(picture).items() if strength == -1.0]
    assert sorted(none) == [("w", "x × w@1"), ("x@1", "x × w@1")]
    assert picture.source.count("style=dotted") == 2


def test_gradients_that_are_all_zero_are_drawn_as_none_at_all():
    w = mg.parameter(-2.0, name="w")
    loss = mg.relu(w) * 3.0
    loss.backward()
    strength = strengths(viz.draw(loss, flow=True))
    assert strength["w", "relu"] == -1.0
    everywhere = mg.relu(mg.parameter(np.array([-1.0, -2.0])))
    end = mg.sum(everywhere * everywhere * 0.0)
    end.backward()
    assert viz.draw(end, flow=True).render("svg")


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_gradients_that_are_not_finite_are_drawn_as_the_strongest(value):
    w, v = mg.parameter(np.array([1.0, 2.0]), name="w"), mg.parameter(np.array([1.0, 2.0]), name="v")
    loss = mg.sum(w * mg.tensor(np.array([value, 1.0]), name="c") + v)
    loss.backward()
    picture = viz.draw(loss, flow=True)
    assert strengths(picture)["w", "w × c"] == 1.0
    assert all(w.strength is None or math.isfinite(w.strength) for w in picture.scene.wires)
    alone = mg.sum(w * mg.tensor(np.array([value, value])))
    for node in (w, v):
        node.zero_grad()
    alone.backward()
    assert viz.draw(alone, flow=True).render("svg")


def test_a_gradient_whose_square_is_too_small_or_large_for_floats_has_its_size():
    assert norm([np.array([3e-200, 4e-200])]) == pytest.approx(5e-200)
    assert norm([np.array([3e200]), np.array([4e200])]) == pytest.approx(5e200)
    assert norm([np.zeros(0), np.zeros(3)]) == 0.0
    assert norm([]) == 0.0
    w = mg.parameter(1e-200, name="w")
    loss = mg.sum(w * 1e-180 * 1e10)
    loss.backward()
    assert all(strength >= 0 for strength in strengths(viz.draw(loss, flow=True)).values())


def test_ticks_are_few_powers_of_ten_in_order_on_the_scale():
    for low, high in ((-1.0, 0.0), (-0.3, 0.9), (-12.4, 3.1), (-300.0, 300.0), (0.2, 1.3), (2.0, 7.0)):
        found = ticks(low, high)
        assert 2 <= len(found) <= 6
        shares = [share for share, _ in found]
        assert shares == sorted(set(shares))
        assert all(-1e-9 <= share <= 1 + 1e-9 for share in shares)
        for share, text in found:
            assert math.log10(number(text)) == pytest.approx(low + share * (high - low), abs=0.05)
        assert len({text for _, text in found}) == len(found)


def test_the_legend_stands_below_everything_with_its_title_and_ticks():
    dag = coupled(1.0).unroll(steps=3)
    dag.backward()
    picture = viz.draw(dag, flow=True)
    legend, scene = picture.scene.legend, picture.scene
    lowest = min(box.bottom[1] for box in scene.boxes.values())
    assert legend.y < min(lowest, min(frame.bottom for frame in scene.frames.values()))
    root = ET.fromstring(picture.render("svg"))
    written = ["".join(text.itertext()) for text in root.iter() if text.tag.endswith("text")]
    assert {legend.title, *(text for _, text in legend.ticks)} <= set(written)


@pytest.mark.parametrize("theme", THEMES)
def test_a_stronger_gradient_is_a_thicker_edge_of_the_themes_scale(theme):
    w = mg.parameter(1.0, name="w")
    loss = ((w * 1000.0) * 1000.0).named("end")
    loss.backward()
    picture = viz.draw(loss, flow=True, theme=theme)
    by_strength = sorted((wire for wire in picture.scene.wires), key=lambda wire: wire.strength)
    assert [wire.strength for wire in by_strength] == pytest.approx([0.0, 1.0])
    look = THEMES[theme]
    edges = [line for line in picture.source.splitlines() if "->" in line]
    for share, pen in ((0.0, THINNEST), (1.0, THICKEST)):
        assert any(f'color="{look.strength(share)}"' in line and f"penwidth={pen:g}" in line for line in edges)


def test_nearly_equal_gradients_look_alike():
    w = mg.parameter(1.0, name="w")
    loss = w * 1.1 * 1.1
    loss.backward()
    found = [wire.strength for wire in viz.draw(loss, flow=True).scene.wires]
    assert max(found) - min(found) == pytest.approx(math.log10(1.1) / DECADES_AT_LEAST)


def test_flow_leaves_values_and_gradients_as_they_are():
    dag = coupled(1.0).unroll(steps=3)
    dag.backward()
    before = [(node, node.value, node.grad) for copies in dag.copies.values() for node in copies]
    viz.draw(dag, flow=True)
    assert all(node.value is value and node.grad is grad for node, value, grad in before)


def test_parameters_in_every_timestep_show_each_timesteps_share():
    x, h = mg.input(1.0, name="x"), mg.state(0.0, name="h")
    h.next = mg.tanh(x + mg.parameter(0.1, name="u") * h)
    dag = mg.Graph(loss=mg.last(h.next)).unroll(steps=3)
    dag.backward()
    for weights in ("shared", "repeated"):
        picture = viz.draw(dag, flow=True, weights=weights)
        shares = [w.strength for w in picture.scene.wires if w.kind == "weight"]
        assert len(shares) == 3
        assert shares[0] == -1.0  # the state starts at zero
        assert shares[1] < shares[2]
