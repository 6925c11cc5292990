"""DOT → SVG, PNG, PDF or positions, by the Graphviz inside pygraphviz, or else a `dot` on PATH."""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import graphviz

from microgrid.errors import MicrogridError

PNG_DPI = 144
"""Twice the pixels of a screen point, so that PNGs stay sharp."""

_one_at_a_time = threading.Lock()  # Graphviz keeps global state, and its messages go to the process's stderr


class RenderError(MicrogridError, RuntimeError):
    """Graphviz could not lay out or render a picture."""


def render(source: str, format: str, engine: str = "nop2") -> bytes:
    """The DOT source laid out by `engine` and written in `format`.

    "nop2" takes the positions in the source as they are.

    Raises RenderError, with Graphviz's own words, if it fails or is not installed.
    """
    run = in_process() or by_executable
    try:
        with _one_at_a_time, graphviz_messages() as messages:
            data = run(source, format, engine)
    except Exception as error:
        said = "; ".join(filter(None, [str(error), messages().strip()]))
        raise RenderError(f"Graphviz could not make a {format} picture: {said}") from error
    if not data:
        raise RenderError(f"Graphviz made no {format} picture: {messages().strip() or 'it gave no reason'}")
    return data


def layout(source: str, engine: str = "dot") -> dict[str, Any]:
    """The laid-out graph, as Graphviz's JSON: nodes and edges with their `pos`."""
    found: dict[str, Any] = json.loads(render(source, "json", engine))
    return found


def in_process() -> Callable[[str, str, str], bytes] | None:
    """A renderer inside this process, where the pygraphviz wheel is installed."""
    try:
        import pygraphviz
    except ImportError:
        return None

    def run(source: str, format: str, engine: str) -> bytes:
        graph = pygraphviz.AGraph(string=source, strict=False)
        try:
            drawn: bytes = graph.draw(format=format, prog=engine)
        finally:
            graph.close()
        return drawn

    return run


def by_executable(source: str, format: str, engine: str) -> bytes:
    """Graphviz as a program on PATH."""
    if engine == "nop2":
        engine = "neato"
        source = source.replace("{", "{ layout=nop2", 1)
    try:
        piped: bytes = graphviz.Source(source).pipe(format=format, engine=engine, quiet=True)
    except graphviz.ExecutableNotFound:
        raise RenderError(
            "no Graphviz was found. `pip install 'pygraphviz>=2.0'` brings one along on Linux, macOS and Windows; "
            "elsewhere install Graphviz so that `dot` is on PATH"
        ) from None
    return piped


@contextlib.contextmanager
def graphviz_messages() -> Iterator[Callable[[], str]]:
    """Keep what Graphviz prints (fonts, graph size) off the user's terminal, and return it on request."""
    text = io.StringIO()
    with tempfile.TemporaryFile() as caught:
        sys.stderr.flush()
        terminal = os.dup(2)
        os.dup2(caught.fileno(), 2)
        try:
            with contextlib.redirect_stderr(text), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                yield text.getvalue
        finally:
            os.dup2(terminal, 2)
            os.close(terminal)
            caught.seek(0)
            text.write(caught.read().decode(errors="replace"))
