"""The examples run, print their chapter and nothing else, and save the pictures they name."""

import json
import os
import re
import runpy
import subprocess
import sys
import time
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"
CHAPTERS = sorted(EXAMPLES.glob("[0-9]*.py"))
LONG = [chapter for chapter in CHAPTERS if "--quick" in chapter.read_text(encoding="utf-8")]
WITH_PLOTS = [  # the longest four say it as the others do
    chapter
    for chapter in CHAPTERS
    if "matplotlib" in chapter.read_text(encoding="utf-8") and chapter.name[:2] not in ("12", "13", "14", "15")
]
WITHOUT_MATPLOTLIB = """
import json, runpy, sys
sys.modules["matplotlib"] = None
for arguments in json.loads(sys.argv[1]):
    print("\\nchapter of", arguments[0])
    sys.argv = arguments
    runpy.run_path(arguments[0], run_name="__main__")
"""


def shortened(chapter: Path) -> list[str]:
    """The command line of a chapter that takes seconds."""
    return [str(chapter), *(["--quick"] if chapter in LONG else [])]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        encoding="utf-8",
        env={**os.environ, "PYTHONUTF8": "1", "OPENBLAS_NUM_THREADS": "1"},  # tests beside it run, too
        timeout=60,
    )


def complaints(stderr: str) -> list[str]:
    """What was written on stderr, except what matplotlib says the first time it runs on a machine."""
    return [line for line in stderr.splitlines() if "font cache" not in line]


def test_there_are_seventeen_chapters_of_which_five_have_a_short_form():
    assert [chapter.name[:2] for chapter in CHAPTERS] == [f"{number:02}" for number in [*range(1, 17), 18]]
    assert [chapter.name[:2] for chapter in LONG] == [f"{number:02}" for number in range(11, 16)]


def test_readme_lists_every_chapter():
    listed = re.findall(r"\]\((\d\d_\w+\.py)\)", (EXAMPLES / "README.md").read_text(encoding="utf-8"))
    assert listed == [chapter.name for chapter in CHAPTERS]


@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda chapter: chapter.stem)
def test_example_runs_and_saves_its_pictures(chapter, monkeypatch, capfd):
    began = time.time()
    monkeypatch.setattr(sys, "argv", shortened(chapter))
    runpy.run_path(str(chapter), run_name="__main__")  # in this process: a new one takes a second to start
    said = capfd.readouterr()
    assert said.out.strip()
    assert complaints(said.err) == []
    named = re.findall(r"wrote examples/out/(\S+)", said.out)
    assert named
    for name in named:
        picture = EXAMPLES / "out" / name
        assert picture.stat().st_size > 0
        assert picture.stat().st_mtime > began - 2, f"{name} is from an earlier run"


def test_examples_do_without_matplotlib():
    done = run("-c", WITHOUT_MATPLOTLIB, json.dumps([shortened(chapter) for chapter in WITH_PLOTS]))
    assert done.returncode == 0, done.stdout + done.stderr
    told = done.stdout.split("\nchapter of ")[1:]
    assert [text.splitlines()[0] for text in told] == [str(chapter) for chapter in WITH_PLOTS]
    assert [text.splitlines()[0] for text in told if "needs matplotlib" not in text] == []
