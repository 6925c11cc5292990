"""The command `microgrid draw FILE.py`: a picture of the network that a script leaves in a variable."""

from __future__ import annotations

import argparse
import runpy
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from microgrid.errors import MicrogridError
from microgrid.graph import Graph
from microgrid.tensor import Tensor
from microgrid.unroll import Unrolled
from viz.picture import FORMATS, draw, file_and_format
from viz.theme import THEMES


def parser() -> argparse.ArgumentParser:
    command = argparse.ArgumentParser(
        prog="microgrid draw",
        allow_abbrev=False,
        description="Run a script and draw the network that it leaves in the variable `net`: a Graph, an unrolled "
        "graph or a Tensor.",
    )
    command.add_argument("file", type=Path, metavar="FILE.py", help="the script; it is run as python would run it")
    command.add_argument("--net", default="net", metavar="NAME", help="the variable to draw (default: net)")
    command.add_argument(
        "--steps",
        type=int,
        metavar="N",
        help="unroll so many timesteps, each with the example inputs; without it, draw the cycle",
    )
    command.add_argument("--level", choices=("op", "cell"), help="every operation, or one box for each part")
    command.add_argument("--depth", type=int, metavar="N", help="with --level cell: how deep to look into parts")
    command.add_argument("--fold", type=int, metavar="N", help="timesteps to show at either end; 0 shows all")
    command.add_argument("--weights", choices=("shared", "repeated"), default="shared")
    command.add_argument("--values", action="store_true", help="write the values on the nodes")
    command.add_argument("--gradients", action="store_true", help="write the gradients, where the script computed them")
    command.add_argument("--flow", action="store_true", help="colour the edges by the gradient that flows through them")
    command.add_argument("--theme", choices=tuple(THEMES), default="light")
    command.add_argument(
        "--out", type=Path, metavar="PICTURE", help=f"{', '.join(FORMATS)} (default: the script's name with .svg)"
    )
    return command


def main(arguments: Sequence[str]) -> int:
    """Draw; returns the exit status: 0, 1 if the script failed, 2 if there was nothing to draw or nowhere to."""
    options = parser().parse_args(arguments)
    settings = {
        name: getattr(options, name)
        for name in ("level", "depth", "fold", "weights", "values", "gradients", "flow", "theme")
    }
    try:
        if options.file.is_dir():
            raise ScriptError(f"{str(options.file)!r} is a folder: name a script")
        if not options.file.is_file():
            raise ScriptError(f"there is no file {str(options.file)!r}")
        out = options.out or Path(options.file.with_suffix(".svg").name)
        target = file_and_format(out)[0].absolute()  # whatever folder the script goes to
        if options.steps is not None and (options.flow or options.gradients):
            raise ScriptError(
                "with --steps the command unrolls the network itself, and nothing has gradients then: unroll it in "
                f"{options.file}, call dag.backward(), and draw that: --net dag"
            )
        made = run(options.file)
        if made is None:
            return 1
        network = found_in(made, options.net, options.file)
        if options.steps is not None:
            if not isinstance(network, Graph | Tensor):
                raise ScriptError(f"{options.net!r} is unrolled already: leave --steps out")
            network = (network if isinstance(network, Graph) else Graph(network)).unroll(steps=options.steps)
        picture = draw(network, **settings)
        picture.save(target)
    except (MicrogridError, OSError) as error:
        print(f"microgrid draw: error: {error}", file=sys.stderr)
        return 2
    print(f"{out}: {picture}")
    return 0


def run(file: Path) -> dict[str, Any] | None:
    """The variables that a script leaves; None, and its traceback on the terminal, if it fails."""
    arguments, path = sys.argv, list(sys.path)
    sys.argv = [str(file)]
    sys.path.insert(0, str(file.resolve().parent))  # as for python FILE.py
    try:
        return runpy.run_path(str(file), run_name="__main__")
    except SystemExit as leaving:
        if not leaving.code:
            return left_by(leaving, file)
        print(f"{file} left with {leaving.code!r}", file=sys.stderr)
    except Exception as error:
        own = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(file)]
        if isinstance(error, SyntaxError) and not own:
            line = f", line {error.lineno}" if error.lineno else ""
            raise ScriptError(f"{file} is no Python script: {error.msg}{line}") from None
        print("Traceback of the script:", file=sys.stderr)
        print("".join(traceback.format_list(own)), end="", file=sys.stderr)
        print("".join(traceback.format_exception_only(error)), end="", file=sys.stderr)
    finally:
        sys.argv, sys.path[:] = arguments, path
    return None


def left_by(leaving: SystemExit, file: Path) -> dict[str, Any]:
    """The variables of a script that has called sys.exit()."""
    for frame, _ in traceback.walk_tb(leaving.__traceback__):
        if frame.f_code.co_filename == str(file):
            return dict(frame.f_globals)
    return {}


def found_in(made: dict[str, Any], name: str, file: Path) -> Graph | Unrolled | Tensor:
    """The network in the script's variable of this name."""
    drawable = sorted(key for key, value in made.items() if isinstance(value, Graph | Unrolled | Tensor))
    others = [key for key in drawable if not key.startswith("_")]
    advice = f"It has {', '.join(others)}: choose with --net" if others else "Write net = mg.Graph(loss) in it"
    if name not in made:
        raise ScriptError(f"{file} leaves nothing in a variable {name!r}. {advice}")
    value = made[name]
    if not isinstance(value, Graph | Unrolled | Tensor):
        raise ScriptError(
            f"{name!r} in {file} is no Graph, unrolled graph or Tensor, but {type(value).__name__}. {advice}"
        )
    return value


class ScriptError(MicrogridError, ValueError):
    """A script leaves no network to draw."""
