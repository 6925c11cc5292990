"""The command `microgrid draw`: scripts of every kind, what it says when there is nothing to draw, files left whole."""

import subprocess
import sys
import textwrap

import pytest

import viz
from microgrid.__main__ import main

NETWORK = """\
import microgrid as mg
x, h = mg.input(1.0, name="x"), mg.state(0.0, name="h")
h.next = mg.tanh(x + 0.5 * h)
net = mg.Graph(h.next)
"""


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def script(tmp_path):
    def write(text, name="script.py"):
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else textwrap.dedent(text).encode())
        return name

    write(NETWORK, "neighbour.py")
    yield write
    sys.modules.pop("neighbour", None)
    sys.modules.pop("broken", None)


def draw(*arguments):
    return main(["draw", *map(str, arguments)])


def pictures(folder):
    return sorted(path.name for path in folder.iterdir() if path.suffix not in {".py", ""})


def test_the_command_of_the_documentation(script, tmp_path):
    script(NETWORK)
    code = [sys.executable, "-m", "microgrid", "draw", "script.py", "--steps", "4", "--level", "cell"]
    done = subprocess.run([*code, "--out", "picture.svg"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "picture.svg: Picture(8 nodes, 7 edges)\n"
    assert (tmp_path / "picture.svg").read_text().startswith("<?xml")


def test_the_picture_is_called_after_the_script_and_stands_here(script, tmp_path, capsys):
    (tmp_path / "folder").mkdir()
    script(NETWORK, "folder/own.py")
    assert draw("folder/own.py") == 0
    assert pictures(tmp_path) == ["own.svg"]
    assert capsys.readouterr() == ("own.svg: Picture(5 nodes, 5 edges)\n", "")


@pytest.mark.parametrize(
    ("name", "settings", "expected"),
    [
        ("net", [], lambda made: viz.draw(made["net"])),
        ("net", ["--steps", 3], lambda made: viz.draw(made["net"].unroll(steps=3))),
        ("net", ["--steps", 3, "--level", "cell"], lambda made: viz.draw(made["net"].unroll(steps=3), level="cell")),
        ("dag", ["--flow", "--gradients"], lambda made: viz.draw(made["dag"], flow=True, gradients=True)),
        ("dag", ["--fold", 1, "--values"], lambda made: viz.draw(made["dag"], fold=1, values=True)),
        ("dag", ["--weights", "repeated"], lambda made: viz.draw(made["dag"], weights="repeated")),
        ("net", ["--theme", "dark"], lambda made: viz.draw(made["net"], theme="dark")),
        ("loss", [], lambda made: viz.draw(made["loss"])),
        ("loss", ["--steps", 2], lambda made: viz.draw(made["loss"])),
        ("y", ["--steps", 2], lambda made: viz.draw(made["net"].unroll(steps=2))),
        ("net", ["--level", "cell", "--depth", 1], lambda made: viz.draw(made["net"], level="cell", depth=1)),
    ],
)
def test_every_setting_is_that_of_draw(script, tmp_path, name, settings, expected):
    text = """\
    import microgrid as mg
    x, h, w = mg.input(1.0, name="x"), mg.state(0.0, name="h"), mg.parameter(0.5, name="w")
    h.next = y = mg.tanh(x + w * h)
    net = mg.Graph(y)
    dag = mg.Graph(mg.time_sum(y)).unroll(steps=5)
    dag.backward()
    loss = mg.tanh(w)
    """
    made = {}
    exec(textwrap.dedent(text), made)
    assert draw(script(text), "--net", name, *settings, "--out", "found.dot") == 0
    assert (tmp_path / "found.dot").read_text() == expected(made).source


def test_a_script_is_run_as_python_would_run_it(script, tmp_path, capsys):
    made = script("""\
        import sys
        from neighbour import net as imported
        print(sys.argv, __name__, __file__)
        if __name__ == "__main__":
            net = imported
        """)
    arguments, path = list(sys.argv), list(sys.path)
    assert draw(made) == 0
    assert capsys.readouterr().out.splitlines()[0] == "['script.py'] __main__ script.py"
    assert (sys.argv, sys.path) == (arguments, path)


def test_a_script_that_ends_with_sys_exit_has_left_its_network(script, tmp_path, capsys):
    assert draw(script("import sys\nfrom neighbour import net\ndef main():\n    return 0\nsys.exit(main())\n")) == 0
    assert pictures(tmp_path) == ["script.svg"]
    assert draw(script("import sys\nsys.exit()\n", "empty.py")) == 2
    assert "leaves nothing in a variable 'net'" in capsys.readouterr().err


def test_a_picture_stands_where_it_was_asked_for_wherever_the_script_goes(script, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    made = script("import os\nfrom neighbour import net\nos.chdir('elsewhere')\n")
    assert draw(made, "--out", "picture.svg") == 0
    assert pictures(tmp_path) == ["picture.svg"]
    assert pictures(tmp_path / "elsewhere") == []


def test_other_encodings_are_read_as_they_declare(script):
    declared = b'# -*- coding: latin-1 -*-\nfrom neighbour import net\nname = "\xe9"\n'
    assert draw(script(declared)) == 0


FAILING = {
    "an error": ("1 / 0\n", "ZeroDivisionError: division by zero"),
    "a neighbour that is missing": ("import no_such_neighbour\n", "No module named 'no_such_neighbour'"),
    "a relative import": ("from .neighbour import net\n", "relative import"),
    "a number to exit with": ("import sys\nsys.exit(3)\n", "left with 3"),
    "a word to exit with": ("import sys\nsys.exit('no data')\n", "left with 'no data'"),
    "a broken neighbour": ("import broken\n", "'(' was never closed"),
    "an error of microgrid": ("import microgrid as mg\nmg.Graph()\n", "needs at least one output"),
}


@pytest.mark.parametrize(("text", "words"), FAILING.values(), ids=FAILING)
def test_a_script_that_fails_gives_status_1_and_its_own_words_and_no_picture(script, tmp_path, capsys, text, words):
    script("x = (\n", "broken.py")
    assert draw(script(text)) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert words in err
    assert "viz/command.py" not in err
    assert pictures(tmp_path) == []


UNREADABLE = {
    "no Python": ("net = (\n", "script.py is no Python script: '(' was never closed, line 1"),
    "bytes that are no text": (b'net = "\xff\xfe"\n', "script.py is no Python script"),
    "null bytes": (b"net = \0\n", "script.py is no Python script"),
    "nothing": ("", "leaves nothing in a variable 'net'. Write net = mg.Graph(loss)"),
    "another name": ("from neighbour import net as lstm\n", "It has lstm: choose with --net"),
    "a module": ("import microgrid as mg\nnet = mg.nn.LSTM(2, 3)\n", "but LSTM. Write net ="),
    "None": ("net = None\n", "but NoneType"),
    "an array": ("import numpy as np\nnet = np.zeros(3)\n", "but ndarray"),
}


@pytest.mark.parametrize(("text", "words"), UNREADABLE.values(), ids=UNREADABLE)
def test_a_script_without_a_network_gives_status_2_and_says_what_to_do(script, tmp_path, capsys, text, words):
    assert draw(script(text)) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("microgrid draw: error: ")
    assert words in err
    assert len(err.splitlines()) == 1
    assert pictures(tmp_path) == []


WRONG = {
    "no such file": (["missing.py"], "there is no file 'missing.py'"),
    "a folder": (["folder"], "'folder' is a folder: name a script"),
    "no steps": (["script.py", "--steps", 0], "at least 1"),
    "steps of what is unrolled": (["script.py", "--net", "dag", "--steps", 2], "'dag' is unrolled already"),
    "a fold below nothing": (["script.py", "--fold", -1], "fold is a whole number of at least 0"),
    "a depth without level": (["script.py", "--depth", 1], "level='cell'"),
    "a flow before backward": (["script.py", "--net", "dag", "--flow"], "backward"),
    "a suffix of no format": (["script.py", "--out", "picture.bmp"], "'.bmp'"),
    "a folder that is missing": (["script.py", "--out", "nowhere/picture.svg"], "'nowhere' does not exist"),
    "a folder as picture": (["script.py", "--out", "folder.svg"], "folder.svg"),
}


@pytest.mark.parametrize(("arguments", "words"), WRONG.values(), ids=WRONG)
def test_what_cannot_be_drawn_or_written_gives_status_2_and_one_line(script, tmp_path, capsys, arguments, words):
    script(NETWORK + "dag = net.unroll(steps=3)\n")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder.svg").mkdir()
    assert draw(*arguments) == 2
    err = capsys.readouterr().err
    assert words in err
    assert len(err.splitlines()) == 1
    assert pictures(tmp_path) == ["folder.svg"]


@pytest.mark.parametrize("arguments", [[], ["script.py", "--level", "box"], ["script.py", "--theme", "dork"]])
def test_arguments_that_mean_nothing_are_refused_with_the_usage(script, capsys, arguments):
    script(NETWORK)
    with pytest.raises(SystemExit) as leaving:
        draw(*arguments)
    assert leaving.value.code == 2
    assert capsys.readouterr().err.startswith("usage: microgrid draw")


def test_where_nothing_can_be_written_is_known_before_the_script_runs(script, tmp_path, capsys):
    made = script("raise SystemExit('it ran')\n")
    for out in ("picture.bmp", "nowhere/picture.svg"):
        assert draw(made, "--out", out) == 2
    assert "it ran" not in capsys.readouterr().err


def test_a_picture_that_was_there_survives_whatever_fails(script, tmp_path, monkeypatch):
    script(NETWORK)
    assert draw("script.py", "--out", "picture.svg") == 0
    whole = (tmp_path / "picture.svg").read_bytes()
    for text in ("1 / 0\n", "net = None\n", "net = (\n"):
        assert draw(script(text, "wrong.py"), "--out", "picture.svg") in (1, 2)
    monkeypatch.setattr("viz.picture.render", lambda *_: (_ for _ in ()).throw(viz.RenderError("no")))
    assert draw("script.py", "--out", "picture.svg", "--steps", 2) == 2
    assert (tmp_path / "picture.svg").read_bytes() == whole
    assert pictures(tmp_path) == ["picture.svg"]


def test_an_interrupted_script_is_not_taken_for_one_that_failed(script):
    with pytest.raises(KeyboardInterrupt):
        draw(script("raise KeyboardInterrupt\n"))
