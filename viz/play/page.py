"""The page: one HTML file with its style, its script and its data inside, that loads nothing."""

from __future__ import annotations

import base64
import functools
import hashlib
import html
import json
import re
from importlib import resources

from viz.labels import printable
from viz.play.colours import style_sheet
from viz.play.story import Story

SCRIPTS = (
    "numbers",
    "elements",
    "timeline",
    "words",
    "graph",
    "camera",
    "panel",
    "shared",
    "morph",
    "controls",
    "main",
)
"""In the order in which each finds what it uses; they are modules, joined into one script without imports."""


def page(story: Story) -> str:
    """The HTML of a story."""
    script, style = joined_script(), style_sheet() + read("player.css")
    policy = (
        f"default-src 'none'; script-src '{fingerprint(script)}'; style-src '{fingerprint(style)}'; "
        "base-uri 'none'; form-action 'none'"
    )
    filled = {
        "policy": html.escape(policy),
        "title": html.escape(printable(story.title)),
        "style": style,
        "data": in_script(json.dumps(story.to_json(), allow_nan=False, separators=(",", ":"))),
        "script": script,
    }
    return re.sub(r"\$\{(\w+)\}", lambda found: filled[found[1]], read("player.html"))


def in_script(data: str) -> str:
    """JSON that no HTML parser takes for markup, whatever names it holds."""
    return data.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def fingerprint(text: str) -> str:
    """By which the page's policy lets through this text and nothing else."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


@functools.cache
def joined_script() -> str:
    """All modules as one strict script: a page opened from disk cannot load one from another."""
    parts = [without_imports(read(f"{name}.js")) for name in SCRIPTS]
    return '(() => {\n"use strict";\n' + "\n".join(parts) + "\n})();\n"


def without_imports(module: str) -> str:
    module = re.sub(r'^import \{[^}]*\} from "[^"]*";\n', "", module, flags=re.MULTILINE)
    return re.sub(r"^export ", "", module, flags=re.MULTILINE)


@functools.cache
def read(name: str) -> str:
    return resources.files("viz.play").joinpath("assets", name).read_text(encoding="utf-8")
