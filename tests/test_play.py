"""What the player tells: the engine's own numbers, in an order that can be followed, whatever nodes are called."""

import base64
import hashlib
import html
import json
import os
import re
import shutil
import subprocess
import sys
from collections import defaultdict
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from networks import NETWORKS, bidirectional, lstm, weight

import microgrid as mg
import viz
from microgrid.errors import GradientError, OperandTypeError, UnknownNameError
from viz.play import Player, TooLargeError, play
from viz.play.page import SCRIPTS, joined_script, read
from viz.play.recording import computation_order

ROOT = Path(__file__).parent.parent
RNG = np.random.default_rng(0)


def scalar_rnn(steps=4, backward=True):
    u, w = mg.parameter(0.8, name="u"), mg.parameter(0.5, name="w")
    x, target = mg.input(1.0, name="x"), mg.input(0.0, name="target")
    h = mg.state(0.0, name="h")
    h.next = mg.tanh(u * h + w * x)
    net = mg.Graph(loss=mg.last(mg.square(h.next - target)))
    dag = net.unroll(x=np.linspace(1, -0.5, steps).tolist(), target=[0.2] * steps)
    if backward:
        dag.backward()
    return dag


def with_loss(net):
    """A network with one number as its output, of every output it had."""
    if len(net.outputs) == 1 and net.output not in net.varying and net.output.shape == ():
        return net
    parts = [mg.sum(mg.square(output)) for output in net.outputs]
    sums = [
        mg.time_sum(part) if output in net.varying else part for output, part in zip(net.outputs, parts, strict=True)
    ]
    return mg.Graph(loss=sum(sums[1:], sums[0]))


def sequences(net, steps):
    """Random ones, tokens where the inputs are whole numbers."""
    floats = {x: np.issubdtype(x.dtype, np.floating) for x in net.inputs}
    return {
        net.names[x]: RNG.normal(size=(steps, *x.shape)) if floats[x] else RNG.integers(0, 3, size=(steps, *x.shape))
        for x in net.inputs
    }


@pytest.fixture(params=NETWORKS, scope="module")
def played(request):
    net = with_loss(NETWORKS[request.param]())
    dag = net.unroll(sequences(net, 3)) if net.inputs else net.unroll(steps=3)
    dag.backward()
    return dag, play(dag)


def told(player):
    """The story as the page reads it."""
    return json.loads(
        re.search(r'<script type="application/json" id="story">(.*?)</script>', player.html, re.DOTALL)[1]
    )


def same(a, b):
    return np.shape(a) == np.shape(b) and np.array_equal(np.asarray(a), np.asarray(b), equal_nan=True)


# --- the numbers are the engine's -------------------------------------------------------------------


def test_forward_comes_every_node_after_what_it_reads_and_with_its_value(played):
    dag, player = played
    recording = player.story.recording
    order = [*recording.given, *recording.forward]
    assert set(order) == set(dag.nodes)
    place = {node: i for i, node in enumerate(order)}
    assert all(place[operand] < place[node] for node in order for operand in node.operands)
    for node, shown in zip(order, told(player)["nodes"], strict=True):
        if node.shape == ():
            assert float(shown["value"]) == node.value
        else:
            assert shown["value"]["shape"] == list(node.shape)
            assert shown["value"]["norm"] == pytest.approx(np.linalg.norm(np.asarray(node.value, float)))


def test_backward_ends_with_the_gradients_that_the_engine_found(played):
    dag, player = played
    totals = {player.story.recording.root: player.story.recording.seed}
    for _, contributions in player.story.recording.backward:
        totals |= {each.operand: each.total for each in contributions}
    with_gradient = {node for node in dag.nodes if node.grad is not None}
    assert set(totals) == with_gradient
    assert all(same(totals[node], node.grad) for node in with_gradient)


def test_a_node_passes_its_gradient_on_once_all_its_readers_have(played):
    _, player = played
    recording = player.story.recording
    missing = defaultdict(int)
    for _, contributions in recording.backward:
        for each in contributions:
            missing[each.operand] += 1
    for node, contributions in recording.backward:
        assert missing[node] == 0
        for each in contributions:
            missing[each.operand] -= 1


def test_running_sums_grow_by_what_is_added(played):
    _, player = played
    so_far = {}
    for _, contributions in player.story.recording.backward:
        for each in contributions:
            before = so_far.get(each.operand, 0.0)
            np.testing.assert_allclose(each.total, before + np.asarray(each.added), rtol=1e-9, atol=1e-12)
            so_far[each.operand] = each.total


def test_what_is_added_is_the_gradient_times_the_local_derivative(played):
    _, player = played
    recording = player.story.recording
    checked = 0
    for node, contributions in recording.backward:
        for each in contributions:
            if each.local is not None:
                product = np.asarray(recording.gradients[node]) * each.local
                np.testing.assert_allclose(each.added, product, rtol=1e-9, atol=1e-12)
                checked += 1
    assert checked


def test_the_terms_of_a_shared_weight_are_those_of_bptt_by_hand():
    dag = scalar_rnn()
    u, xs, h = 0.8, np.linspace(1, -0.5, 4), [0.0]
    for x in xs:
        h.append(np.tanh(u * h[-1] + 0.5 * x))
    by_hand, g = {}, 2 * (h[4] - 0.2)
    for t in (3, 2, 1, 0):
        g = g * (1 - h[t + 1] ** 2)
        by_hand[t] = g * h[t]
        g = g * u
    story = told(play(dag))
    symbols = [node["symbol"] for node in story["nodes"]]
    number = symbols.index("u")
    terms = {
        story["nodes"][event["node"]]["t"]: each["added"]
        for event in story["events"]
        if event["pass"] == "backward"
        for each in event["to"]
        if each["node"] == number
    }
    assert list(terms) == [3, 2, 1, 0]
    assert terms == pytest.approx(by_hand)
    assert sum(terms.values()) == pytest.approx(dag.graph["u"].grad)
    assert number in story["shared"]


def test_the_backward_pass_is_the_forward_pass_run_backwards():
    recording = play(scalar_rnn()).story.recording
    order = [node for node, _ in recording.backward]
    assert order == [node for node in reversed(recording.forward) if node in set(order)]


def test_an_operand_that_is_read_twice_receives_two_terms():
    x = mg.tensor(3.0, name="x")
    y = (x * x).named("y")
    y.backward()
    (_, event, end) = told(play(y))["events"][-3:]
    assert [(each["operand"], each["added"], each["total"]) for each in event["to"]] == [(0, 3.0, 3.0), (1, 3.0, 6.0)]
    assert end == {"pass": "end"}
    wires = told(play(y))["picture"]["wires"]
    assert sorted(wire["carries"] for wire in wires) == [[[1, 0]], [[1, 1]]]


def test_a_number_that_scales_an_array_keeps_the_sign_of_its_gradient():
    a = mg.tensor(2.0, name="a")
    y = mg.sum(a * np.array([-1.0, -2.0]))
    y.backward()
    last = told(play(y))["events"][-2]["to"][0]
    assert (last["added"], last["total"]) == (-3.0, -3.0) == (a.grad, a.grad)


def test_gradients_of_earlier_calls_are_told():
    dag = scalar_rnn()
    dag.backward()
    u = dag.graph["u"]
    player = play(dag)
    recording = player.story.recording
    last = [each for _, group in recording.backward for each in group if each.operand is u][-1]
    assert last.total == u.grad
    assert recording.earlier[u] == pytest.approx(u.grad / 2)
    story = told(player)
    shown = next(node for node in story["nodes"] if node["symbol"] == "u")
    assert shown["earlier"] == recording.earlier[u]


def test_gradients_that_were_cleared_since_are_those_of_this_pass():
    dag = scalar_rnn()
    u = dag.graph["u"]
    found = u.grad
    u.zero_grad()
    assert play(dag).story.recording.gradients[u] == found


def test_a_value_that_changed_since_is_refused():
    dag = scalar_rnn()
    dag.graph["u"].value = 0.1
    with pytest.raises(GradientError, match="changed since backward"):
        play(dag)


def test_without_backward_only_the_forward_pass_is_played_and_the_page_says_what_to_call():
    player = play(scalar_rnn(backward=False))
    story = told(player)
    assert {event["pass"] for event in story["events"]} == {"start", "forward"}
    assert "dag.backward()" in story["note"]
    assert repr(player) == "Player(37 steps forward, no backward pass)"


def test_infinities_and_nan_are_told_as_text():
    x = mg.tensor(np.inf, name="x")
    y = -x * 0.0
    y.backward()
    values = {node["symbol"]: node["value"] for node in told(play(y))["nodes"]}
    assert values["−x"] == "-inf"
    assert values["(−x) × 0"] == "nan"


def test_which_of_several_outputs_is_played():
    x, h = mg.input(1.0, name="x"), mg.state(0.0, name="h")
    h.next = mg.tanh(x + 0.5 * h)
    dag = mg.Graph(a=mg.last(h.next), b=mg.time_sum(h.next)).unroll(x=[1.0, 2.0])
    dag["b"].backward()
    assert play(dag).story.recording.root is dag["b"]
    with pytest.raises(UnknownNameError):
        play(dag, output="c")
    dag["a"].backward()
    with pytest.raises(GradientError, match="several outputs"):
        play(dag)


def test_an_output_per_timestep_is_played_from_the_timestep_on_which_backward_was_called():
    h = mg.state(0.1, name="h")
    h.next = mg.tanh(h * mg.parameter(0.5, name="u"))
    dag = mg.Graph(h.next).unroll(steps=3)
    dag[h.next, 1].backward()
    assert play(dag).story.recording.root is dag[h.next, 1]


def test_large_arrays_are_summarised():
    x = mg.tensor(RNG.normal(size=(50, 300)), name="x")
    y = mg.sum(x * x)
    y.backward()
    shown = told(play(y))["nodes"][0]["value"]
    assert shown["shape"] == [50, 300]
    assert np.size(shown["cells"]) <= 64
    assert {cell for row in shown["cells"] for cell in row} <= {float(f"{v:.4g}") for v in x.value.flat}


# --- how things are called ----------------------------------------------------------------------------


def plain(story, pieces):
    return "".join(part if isinstance(part, str) else story["nodes"][part[0]]["symbol"] for part in pieces)


def test_nodes_are_called_as_one_writes_them():
    story = told(play(scalar_rnn()))
    symbols = {node["symbol"] for node in story["nodes"]}
    assert {"u", "w", "x₂", "h₂", "h′₂", "u × h₂", "u × h₂ + w × x₂", "loss"} <= symbols
    written = {node["symbol"]: plain(story, node["expression"]) for node in story["nodes"] if "expression" in node}
    assert written["h′₂"] == "tanh(u × h₂ + w × x₂)"
    assert written["h₂"] == "h′₁"


def test_local_derivatives_are_written_as_formulas():
    story = told(play(scalar_rnn()))
    formulas = {
        story["nodes"][event["node"]]["symbol"]: plain(story, event["to"][0]["formula"])
        for event in story["events"]
        if event["pass"] == "backward"
    }
    assert formulas["h′₂"] == "1 − h′₂²"
    assert formulas["u × h₂"] == "h₂"
    assert formulas["h₂"] == "1"


def test_a_primitive_of_the_users_own_is_not_taken_for_one_of_the_same_name():
    @mg.primitive(vjp=lambda g, out, x: 3 * g)
    def sigmoid(x):
        return 3 * x

    y = sigmoid(mg.tensor(1.0, name="x"))
    y.backward()
    story = told(play(y))
    (passed,) = [event for event in story["events"] if event["pass"] == "backward"]
    assert passed["to"][0]["formula"] == []
    assert passed["to"][0]["local"] == 3.0
    assert story["nodes"][1]["symbol"] == "sigmoid(x)"


# --- the pictures -------------------------------------------------------------------------------------


def test_every_read_of_a_drawn_node_has_its_edge(played):
    story = told(played[1])
    drawn = {box["node"] for box in story["picture"]["boxes"]}
    carried = {tuple(read) for wire in story["picture"]["wires"] for read in wire.get("carries", [])}
    for number, node in enumerate(story["nodes"]):
        for index, operand in enumerate(node.get("operands", [])):
            if number in drawn and operand in drawn:
                assert (number, index) in carried, (node["symbol"], index)


def test_every_copy_has_an_original_in_the_rolled_picture(played):
    story = told(played[1])
    rolled = {box["id"] for box in story["rolled"]["boxes"]}
    assert {re.sub(r"t\d+$", "t0", box["id"]) for box in story["picture"]["boxes"]} <= rolled


def test_all_timesteps_are_drawn_however_many():
    story = told(play(scalar_rnn(steps=40)))
    assert len(story["picture"]["frames"]) == 40


# --- the page -----------------------------------------------------------------------------------------

HOSTILE = [
    "</script><script>alert(1)</script>",
    "<!--<script>",
    "<img src=x onerror=alert(1)>",
    "\"'`${1}&amp;\\",
    "two\nlines\r\n\u2028end",
    "名前 🙂 ′₂",
    "]]>",
    "\ud800",
    "n" * 3000,
]


class Tags(HTMLParser):
    """The tags of a page, and what stands in the last JSON."""

    def __init__(self, page):
        super().__init__()
        self.found = []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_name_is_data_and_never_markup(name):
    h = mg.state(0.0, name=name)
    h.next = mg.tanh(h + mg.parameter(1.0, name=name + "'"))
    dag = mg.Graph(mg.last(h.next)).unroll(steps=2)
    dag.backward()
    player = play(dag, title=name)
    tags = Tags(player.html).found
    assert [tag for tag, _ in tags].count("script") == 2
    assert not [tag for tag, _ in tags if tag in {"img", "iframe"}]
    assert not [name for _, attributes in tags for name in attributes if name.startswith("on")]
    player.html.encode()
    if len(name) < 25 and name.isprintable():
        assert f"{name}₁" in {node["symbol"] for node in told(player)["nodes"]}


def test_the_policy_lets_through_this_script_and_style_and_nothing_else():
    page = play(scalar_rnn()).html
    policy = next(a["content"] for t, a in Tags(page).found if a.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'; ")
    for tag in ("script", "style"):
        text = re.search(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)[1]
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy


def test_the_page_names_no_other_address():
    page = play(scalar_rnn()).html
    assert set(re.findall(r"https?://[^\s\"'<]+", page)) == {"http://www.w3.org/2000/svg"}


def test_the_page_of_an_lstm_stays_small():
    x, h, c = mg.input(np.zeros((1, 8)), name="x"), mg.state(np.zeros((1, 16))), mg.state(np.zeros((1, 16)))
    z = x @ weight("W", 8, 64) + h @ weight("U", 16, 64) + weight("b", 64)
    i, f, o, g = mg.split(z, 4, axis=1)
    c.next = mg.sigmoid(f) * c + mg.sigmoid(i) * mg.tanh(g)
    h.next = mg.sigmoid(o) * mg.tanh(c.next)
    dag = mg.Graph(loss=mg.time_mean(mg.sum(mg.square(h.next)))).unroll(x=RNG.normal(size=(8, 1, 8)))
    dag.backward()
    assert len(play(dag).html) < 1_000_000


def test_the_same_graph_gives_the_same_page():
    assert play(scalar_rnn()).html == play(scalar_rnn()).html


def test_a_notebook_shows_the_page_in_a_frame_of_its_own():
    player = play(scalar_rnn(), title='"><b>')
    (frame,) = [attributes for tag, attributes in Tags(player._repr_html_()).found if tag == "iframe"]
    assert frame["srcdoc"] == player.html
    assert frame["sandbox"] == "allow-scripts"
    assert html.unescape(frame["title"]) == '"><b>'


# --- saving and errors --------------------------------------------------------------------------------


def test_it_is_saved_at_once_or_later(tmp_path):
    dag = scalar_rnn()
    player = play(dag, tmp_path / "one.html")
    assert isinstance(player, Player)
    assert player.save(tmp_path / "two.HTM") == tmp_path / "two.HTM"
    assert (tmp_path / "one.html").read_bytes() == (tmp_path / "two.HTM").read_bytes() == player.html.encode()


def test_another_suffix_is_refused_before_anything_is_done(tmp_path):
    with pytest.raises(viz.PictureFormatError, match=r"'\.svg'.*\.html"):
        play(scalar_rnn(), tmp_path / "page.svg")
    with pytest.raises(FileNotFoundError, match="nowhere"):
        play(scalar_rnn(), tmp_path / "nowhere" / "page.html")
    assert list(tmp_path.iterdir()) == []


def test_a_failed_save_leaves_the_old_page_whole(tmp_path, monkeypatch):
    player = play(scalar_rnn())
    path = player.save(tmp_path / "page.html")
    before = path.read_bytes()
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError("disk")))
    with pytest.raises(OSError, match="disk"):
        player.save(path)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["page.html"]


def test_what_cannot_be_played_is_refused_with_what_to_do():
    net = NETWORKS["scalar"]()
    with pytest.raises(OperandTypeError, match="unroll"):
        play(net)
    with pytest.raises(OperandTypeError, match=r"'h'.*unroll"):
        play(net.output)
    with pytest.raises(OperandTypeError, match="not ndarray"):
        play(np.zeros(3))


def test_a_graph_that_nobody_steps_through_is_refused():
    with pytest.raises(TooLargeError, match="unroll fewer steps"):
        play(lstm().unroll(steps=100))
    x = mg.tensor(1.0)
    for _ in range(2100):
        x = x + 1
    with pytest.raises(TooLargeError, match="2,000"):
        play(x)


def test_a_lone_leaf_is_a_page_too():
    assert repr(play(mg.tensor(2.0, name="a"))) == "Player(0 steps forward, no backward pass)"


def test_an_acyclic_graph_may_be_given_as_such():
    a = mg.parameter(2.0, name="a")
    y = mg.tanh(a * a)
    y.backward()
    assert repr(play(mg.Graph(y))) == repr(play(y)) == "Player(2 steps forward, 2 steps backward)"


def test_a_reverse_state_is_played_from_its_end():
    dag = with_loss(bidirectional()).unroll(steps=3)
    place = {node: i for i, node in enumerate(play(dag).story.recording.forward)}
    where = [place[copy] for copy in dag.copies[dag.graph["k"]]]
    assert where == sorted(where, reverse=True)


def test_the_order_is_the_ranks_where_the_graph_leaves_a_choice():
    a, b = mg.tensor(1.0), mg.tensor(2.0)
    total = a + b
    rank = {total: (0,), a: (2,), b: (1,)}
    assert computation_order([a, b, total], rank.__getitem__) == [b, a, total]


# --- the scripts --------------------------------------------------------------------------------------


def test_oxlint_finds_nothing():
    oxlint = shutil.which("oxlint", path=Path(sys.executable).parent) or shutil.which("oxlint")
    assert oxlint, "oxlint is not installed: pip install -e '.[dev]'"
    done = subprocess.run(
        [oxlint, "--deny-warnings", "viz/play"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


def test_the_joined_script_has_no_imports_left_and_no_name_twice():
    script = joined_script()
    assert not re.findall(r"^(?:import|export) ", script, re.MULTILINE)
    names = re.findall(r"^(?:async )?(?:function|class|const|let) (\w+)", script, re.MULTILINE)
    assert len(names) == len(set(names))


def test_modules_import_only_from_those_joined_before_them():
    for place, name in enumerate(SCRIPTS):
        imported = re.findall(r'^import \{[^}]*\} from "\./(\w+)\.js";$', read(f"{name}.js"), re.MULTILINE)
        assert set(imported) <= set(SCRIPTS[:place])
        assert read(f"{name}.js").count("import {") == len(imported)


def test_no_script_reads_text_as_markup():
    assert not re.findall(
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|new Function", joined_script()
    )
