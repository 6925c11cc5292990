"""DOT → SVG, PNG, PDF or positions, by the Graphviz inside pygraphviz, or else a `dot` on PATH."""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from typing import Any

import graphviz

from microgrid.errors import MicrogridError

LONGEST_PNG = 32_000
"""Pixels; the library that draws PNGs goes no further."""

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
    if format == "png":
        source = source.replace("{", f"{{ dpi={png_dpi(source):.0f}", 1)
    failure: Exception | None = None
    data = b""
    with _one_at_a_time:
        with graphviz_messages() as messages:
            try:
                data = run(source, format, engine)
            except RenderError:
                raise
            except Exception as error:
                failure = error
        if failure is not None:
            said = "; ".join(filter(None, [str(failure), messages().strip()]))
            raise RenderError(f"Graphviz could not make a {format} picture: {said}") from failure
    if not data:
        raise RenderError(f"Graphviz made no {format} picture: {messages().strip() or 'it gave no reason'}")
    return data


def png_dpi(source: str) -> float:
    """Sharp where it fits into a PNG that programs can open; else as sharp as fits.

    Raises RenderError for a picture that would not be readable.
    """
    bounds = re.search(r'bb="0,0,([\d.]+),([\d.]+)"', source)
    longest = max(map(float, bounds.groups())) if bounds else 0.0
    fits = PNG_DPI if longest == 0 else min(PNG_DPI, 72 * LONGEST_PNG / longest)
    if fits < 48:
        raise RenderError(
            f"the picture is {longest:,.0f} points long, too large for a PNG: save it as .svg, or draw fewer timesteps"
        )
    return fits


def layout(source: str, engine: str = "dot") -> dict[str, Any]:
    """The laid-out graph, as Graphviz's JSON: nodes and edges with their `pos`."""
    found: dict[str, Any] = json.loads(render(source, "json0", engine))
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
            graph.has_layout = engine == "nop2"
            drawn: bytes = graph.draw(format=format, prog=None if graph.has_layout else engine)
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
    """Keep what Graphviz prints (fonts, graph size) off the user's terminal, and return it on request.

    Graphviz prints from C, so the process's stderr is caught. What others wrote there meanwhile, such
    as a progress bar of another thread, is passed on afterwards.
    """
    said: list[str] = []
    try:
        terminal = os.dup(2)
    except OSError:  # a process without stderr
        yield lambda: ""
        return
    with tempfile.TemporaryFile() as caught:
        os.dup2(caught.fileno(), 2)
        try:
            yield lambda: "".join(said)
        finally:
            if sys.stderr is not None:
                sys.stderr.flush()
            os.dup2(terminal, 2)
            os.close(terminal)
            caught.seek(0)
            for line in caught.read().splitlines(keepends=True):
                if re.match(rb"Warning:|Error:|Fontconfig|\(null\):|dot:|neato:", line):
                    said.append(line.decode(errors="replace"))
                else:
                    os.write(2, line)
