"""Arrays and a JSON header in one safetensors file: what models and checkpoints are on disk.

The header is text in the file's metadata, under one key, so that any safetensors reader finds the arrays.
"""

from __future__ import annotations

import contextlib
import json
import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from microgrid.errors import FileFormatError
from microgrid.files.fields import Damaged, Fields, parsed
from microgrid.files.whole import write_whole

Arrays = dict[str, np.ndarray[Any, Any]]

KEY = "microgrid"
"""Where in the metadata the header is."""

VERSION = 1
"""Of the format; a file of a later one is refused."""

LARGEST_HEADER = 100_000_000
"""How many bytes of header safetensors reads."""

DTYPES = frozenset(
    {
        *("bool", "float16", "float32", "float64"),
        *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)),
    }
)
"""The dtypes that a file holds, by name."""

SIGNATURES = {
    b"\x80": "it looks like a pickle, which runs code when it is read and is never opened here",
    b"PK": "it looks like a zip archive, as np.savez and torch.save write them",
    b"\x93NUMPY": "it looks like one array of np.save",
    b"\x89HDF": "it looks like HDF5",
    b"\x1f\x8b": "it looks compressed with gzip",
}
"""How files of other formats begin."""


def write_arrays(
    path: str | os.PathLike[str], arrays: Mapping[str, np.ndarray[Any, Any]], kind: str, header: Mapping[str, Any]
) -> None:
    """Write arrays and a header as a safetensors file; an older file is replaced once the new one is complete.

    Parameters
    ----------
    path : path
    arrays : mapping of str → np.ndarray of booleans, whole numbers or floats of up to 64 bits
        Written contiguously and in this machine's byte order.
    kind : str
        What the file holds, such as "model": `read_arrays` asks for it.
    header : mapping
        Anything that JSON can hold.

    Raises
    ------
    FileFormatError
        If an array is of another dtype, or the header too large for the format.
    OSError
        If the file cannot be written; an older one stays as it was.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_arrays(folder + "/numbers", {"x": np.arange(3)}, "numbers", {"unit": "cm"})
    ...     read_arrays(folder + "/numbers", "numbers")
    ({'x': array([0, 1, 2])}, {'unit': 'cm'})
    """
    from safetensors.numpy import save

    text = json.dumps({"version": VERSION, "kind": kind, "content": header}, allow_nan=False, separators=(",", ":"))
    data = save({key: plain(array, key) for key, array in arrays.items()}, metadata={KEY: text})
    size = int.from_bytes(data[:8], "little")
    if size > LARGEST_HEADER:
        raise FileFormatError(
            f"{os.fspath(path)!r} was not written: the description of its content takes {size} bytes, and safetensors "
            f"holds {LARGEST_HEADER}. Save the rolled graph, not an unrolled one, or fewer parts at a time"
        )
    write_whole(Path(path), data)


def plain(array: np.ndarray[Any, Any], key: str) -> np.ndarray[Any, Any]:
    """The array as a file holds it: contiguous, in rows, in this machine's byte order."""
    if array.dtype.name not in DTYPES:
        raise FileFormatError(
            f"the array {key!r} holds {array.dtype}, which a file cannot hold: convert it, to float64 for example"
        )
    return np.asarray(array, array.dtype.newbyteorder("="), order="C")


def read_arrays(path: str | os.PathLike[str], kind: str) -> tuple[Arrays, dict[str, Any]]:
    """The arrays of a file of this kind, and its header. Only numbers and text are read; nothing is executed.

    Raises
    ------
    FileFormatError
        If the file is none that `write_arrays` wrote: of another format, cut short, damaged, of another kind,
        or of a later version of the format. It names the file, what was found, and what to do.
    OSError
        If the file is not there or cannot be read.
    """
    from safetensors.numpy import load

    with naming(path):
        data = content_of(Path(path))
        try:
            arrays = {key: writable(array) for key, array in load(data).items()}
        except Exception as error:  # what an older or a later safetensors raises is its own affair
            raise Damaged(f"{looks_like(data)} ({error})") from None
        text = (parsed(data[8 : 8 + int.from_bytes(data[:8], "little")]).get("__metadata__") or {}).get(KEY)
        if text is None:
            raise FileFormatError(
                f"it is a safetensors file of {len(arrays)} arrays, but without microgrid's description of what they "
                "are. Write models with graph.save; safetensors.numpy.load_file reads bare arrays"
            )
        for key, array in arrays.items():
            if array.dtype.name not in DTYPES:
                raise Damaged(f"the array {key!r:.60} holds {array.dtype}")
        return arrays, content(text, kind)


def content(text: str, kind: str) -> dict[str, Any]:
    """What `write_arrays` was given as header."""
    fields = Fields(parsed(text), "the header")
    version = fields.take("version", int)
    if version > VERSION:
        raise FileFormatError(
            f"it was written by a later microgrid: its format has version {version!r:.20}, and this one reads version "
            f"{VERSION}. Update microgrid, or save it with this one"
        )
    if version < 1:
        raise Damaged(f"the format has version {version!r:.20}")
    found = fields.take("kind", str)
    if found != kind:
        raise FileFormatError(f"it holds a {found:.60}, not a {kind}. Load it with what reads a {found:.60}")
    inner = fields.take("content", dict)
    fields.end()
    return dict(inner)


@contextlib.contextmanager
def naming(path: str | os.PathLike[str]) -> Iterator[None]:
    """Have the refusals inside say which file they are about."""
    try:
        yield
    except FileFormatError as error:
        advice = (
            ". The file is damaged, or microgrid did not write it: save it anew, or take another copy"
            if isinstance(error, Damaged)
            else ""
        )
        raise FileFormatError(f"{os.fspath(path)!r} cannot be read: {error}{advice}") from error.__cause__


def content_of(path: Path) -> bytes:
    """The bytes of an ordinary file; a pipe or a device, which may never end, is refused."""
    mode = path.stat().st_mode
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):  # opening a folder raises the error that fits
        raise FileFormatError("it is no ordinary file, but a pipe or a device")
    try:
        return path.read_bytes()
    except MemoryError:
        raise FileFormatError("it is larger than the memory of this machine") from None


def looks_like(data: bytes) -> str:
    """What a file is that safetensors does not read."""
    if not data:
        return "it is empty"
    for signature, found in SIGNATURES.items():
        if data.startswith(signature):
            return found
    return "it is no safetensors file, or one that was cut short"


def writable(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The array itself, or a copy where safetensors gives one that must not be changed."""
    return array if array.flags.writeable else array.copy()
