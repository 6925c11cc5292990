"""What notebooks show: the chapter of pictures runs, and graphs and tensors show themselves."""

import base64
import json
import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from networks import NETWORKS, lstm

import microgrid as mg
from viz import notebook
from viz.theme import LIGHT

CHAPTER = Path(__file__).parent.parent / "examples" / "17_pictures.ipynb"
SHOWN = {
    "imports": None,
    "rolled": "image/svg+xml",
    "equations": "text/latex",
    "cell": "image/svg+xml",
    "unrolled": "image/svg+xml",
    "fold": "image/svg+xml",
    "numbers": "image/svg+xml",
    "tensor": "text/html",
    "flow": "image/png",
    "jacobians": "image/png",
    "values": "image/png",
    "gradients": "image/png",
    "training": "image/png",
    "styling": "image/png",
    "play": "text/html",
}
MENTIONS = {"equations": r"\tanh(x_t W + h_{t-1} U)", "tensor": "<b>U</b>", "play": "<iframe"}
RUN = """
import sys, nbformat
from nbclient import NotebookClient
book = nbformat.read(sys.argv[1], as_version=4)
NotebookClient(book, timeout=50, kernel_name="python3").execute()
print(nbformat.writes(book))
"""


def test_the_chapter_is_committed_without_outputs_and_without_traces_of_a_machine():
    book = json.loads(CHAPTER.read_text(encoding="utf-8"))
    assert set(book["metadata"]) == {"kernelspec", "language_info"}
    assert book["metadata"]["language_info"] == {"name": "python"}
    assert book["metadata"]["kernelspec"]["name"] == "python3"
    for cell in book["cells"]:
        assert cell["metadata"] == {}
        assert cell.get("outputs", []) == []
        assert cell.get("execution_count") is None
        assert cell["source"]


def test_every_cell_of_the_chapter_shows_one_picture_and_leaves_no_file(tmp_path):
    pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    here, private = tmp_path / "here", tmp_path / "private"
    here.mkdir()
    places = ("IPYTHONDIR", "JUPYTER_RUNTIME_DIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR")
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", **{place: str(private / place) for place in places}}
    done = subprocess.run(
        [sys.executable, "-c", RUN, str(CHAPTER)],
        cwd=here,
        env={**environment, "PYTHONUTF8": "1", "PYTHONPATH": str(CHAPTER.parent.parent)},
        capture_output=True,
        encoding="utf-8",
        timeout=90,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert list(here.iterdir()) == []
    cells = [cell for cell in json.loads(done.stdout)["cells"] if cell["cell_type"] == "code"]
    assert [cell["id"] for cell in cells] == list(SHOWN)
    for cell in cells:
        kind = SHOWN[cell["id"]]
        shown = [output for output in cell["outputs"] if "data" in output]
        assert len(shown) == (kind is not None), cell["id"]  # once, and not a second time by pyplot
        assert [output for output in cell["outputs"] if output["output_type"] in ("stream", "error")] == [], cell["id"]
        for output in shown:
            assert kind in output["data"], cell["id"]
            content = "".join(output["data"][kind])
            if kind == "image/svg+xml":
                ET.fromstring(content)
            elif kind == "image/png":
                assert base64.b64decode(content).startswith(b"\x89PNG")
            else:
                assert MENTIONS[cell["id"]] in content


@pytest.fixture
def show(monkeypatch):
    """What a notebook in which viz is known shows of a value, by kind."""
    formatters = pytest.importorskip("IPython.core.formatters")
    shell = SimpleNamespace(display_formatter=formatters.DisplayFormatter())
    shell.display_formatter.active_types = shell.display_formatter.format_types
    monkeypatch.setattr("IPython.get_ipython", lambda: shell)
    notebook.register()
    return lambda value: shell.display_formatter.format(value)[0]


def test_graphs_and_tensors_show_themselves(show):
    net = lstm()
    assert ET.fromstring(show(net)["image/svg+xml"]).tag.endswith("svg")
    assert ET.fromstring(show(net.unroll(steps=2))["image/svg+xml"]).tag.endswith("svg")
    for node in (net.parameters[0], net.states[0], net.inputs[0], net.outputs[0], mg.tensor(2.0)):
        assert show(node)["text/html"].startswith("<table")


def test_a_graph_too_large_to_look_at_shows_as_text(show, monkeypatch):
    net = lstm()
    assert "image/svg+xml" in show(net.unroll(steps=300))  # most timesteps are folded away
    monkeypatch.setattr(notebook, "MOST_CHARACTERS", 1000)
    assert set(show(net)) == {"text/plain"}
    monkeypatch.setattr(notebook, "MOST_NODES", 5)
    monkeypatch.setattr(notebook, "draw", None)  # is not even tried
    assert set(show(net)) == {"text/plain"}


def test_what_cannot_be_drawn_shows_as_text_without_a_traceback(show, monkeypatch, capsys):
    def fail(*_):
        raise RuntimeError("no Graphviz")

    monkeypatch.setattr(notebook, "draw", fail)
    monkeypatch.setattr(notebook, "card", fail)
    net = lstm()
    assert list(show(net)) == ["text/plain"]
    assert list(show(net.states[0])) == ["text/plain"]
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("network", NETWORKS.values())
def test_every_node_of_every_network_has_a_card(network):
    dag = network().unroll(steps=2)
    for node in dag:
        ET.fromstring(notebook.card(node))  # well-formed


@pytest.mark.parametrize("name", ["<script>alert(1)</script>", "a&b", '"quoted"', "]]>", "$x$", "\x00", "ä‖"])
def test_names_are_text(name):
    card = notebook.card(mg.tensor(np.ones(2), name=name))
    assert "<script" not in card
    if "\x00" not in name:
        assert name in "".join(ET.fromstring(card).itertext())


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (2.5, "2.5"),
        (True, "1"),
        (np.zeros((0, 3)), "no elements"),
        (np.array([1.0, np.nan, 3.0]), "1 to 3, mean 2, 1 not finite"),
        (np.full(3, np.inf), "nothing finite, 3 not finite"),
        (np.array([1, 2, 3]), "1 to 3, mean 2"),
        (np.array([True, False]), "0 to 1, mean 0.5"),
        (np.zeros((20, 40)), "0 to 0, mean 0; the first 8 × 32 as colours"),
        (np.ones((2, 3, 4)), "1 to 1, mean 1"),
        (np.array([1e308, 1e308, -1e308]), "-1e+308 to 1e+308"),
    ],
)
def test_numbers_are_summed_up(value, said):
    assert said in notebook.numbers(value)


def test_colours_tell_sign_and_size():
    strip = notebook.numbers(np.array([-2.0, 0.0, 1.0, 2.0]))
    below, zero, half, above = re.findall(r'fill="(#\w+)"', strip)
    assert (below, zero, above) == tuple(map(LIGHT.signed, (-1, 0, 1)))
    assert half not in (zero, above)
    assert re.findall(r"<title>(.*?)</title>", strip) == ["-2", "0", "1", "2"]


def test_without_ipython_nothing_is_registered(monkeypatch):
    monkeypatch.delitem(sys.modules, "IPython", raising=False)
    notebook.register()
