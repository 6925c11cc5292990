"""The command `microgrid`, also `python -m microgrid`."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path


def whole_number(least: int) -> Callable[[str], int]:
    """An argparse type: a whole number of at least `least`."""

    def parse(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"expected a whole number, not {text!r}") from None
        if number < least:
            raise argparse.ArgumentTypeError(f"expected at least {least}, not {number}")
        return number

    return parse


def parser() -> argparse.ArgumentParser:
    command = argparse.ArgumentParser(
        prog="microgrid",
        description="A recurrent network learns the yearly sunspot numbers: recorded as a graph with a cycle, "
        "unrolled, trained by backpropagation through time, and drawn.",
        epilog="microgrid draw FILE.py draws a network of your own: microgrid draw --help.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    command.add_argument(
        "--steps",
        type=whole_number(1),
        default=argparse.SUPPRESS,
        help="years to unroll at a time; fewer than the training years means truncated BPTT",
    )
    command.add_argument("--epochs", type=whole_number(1), default=200, help="passes over the training years")
    command.add_argument("--hidden", type=whole_number(1), default=16, help="hidden units")
    command.add_argument("--seed", type=whole_number(0), default=0, help="of the initial weights")
    command.add_argument("--out", type=Path, default=Path("microgrid_out"), help="folder for the pictures")
    return command


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the main job; returns the exit status."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given[:1] == ["draw"]:
        from viz.command import main as draw

        return draw(given[1:])
    command = parser()
    options = command.parse_args(given)
    try:
        options.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        command.error(f"argument --out: cannot make the folder {str(options.out)!r}: {error.strerror}")
    if not os.access(options.out, os.W_OK | os.X_OK):
        command.error(f"argument --out: the folder {str(options.out)!r} is not writable")
    from microgrid.demo.story import Job, tell

    tell(Job(getattr(options, "steps", None), options.epochs, options.hidden, options.seed, options.out))
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        print("\nstopped", file=sys.stderr)
        sys.exit(130)
