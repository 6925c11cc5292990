"""Files that are there whole or not at all, whatever happens while they are written."""

from __future__ import annotations

import contextlib
import glob
import os
import uuid
from pathlib import Path


def write_whole(target: Path, data: bytes) -> None:
    """Write to a temporary file beside the target, then rename: a reader never sees half a file.

    The data is on the disk before the rename, so that a power cut leaves the older file or the new one.

    Raises
    ------
    OSError
        If the folder does not exist or cannot be written, or the disk is full; it names the target. No
        temporary file is left, and an older file stays as it was.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     target = Path(folder, "numbers")
    ...     write_whole(target, b"1 2 3")
    ...     target.read_bytes()
    b'1 2 3'
    """
    temporary = target.parent / f".{target.name[:40]}-{uuid.uuid4().hex}"
    try:
        with open(temporary, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except BaseException as error:
        with contextlib.suppress(OSError):  # the first failure is the one to tell
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise type(error)(error.errno, error.strerror or str(error), str(target)) from None
        raise
    settle(target.parent)


def remove_leftovers(target: Path) -> None:
    """Remove the temporary files that a process left which was killed while it wrote this target."""
    for left in target.parent.glob(f".{glob.escape(target.name[:40])}-{'[0-9a-f]' * 32}"):
        with contextlib.suppress(OSError):
            left.unlink()


def settle(folder: Path) -> None:
    """Have a rename in a folder outlive a power cut, where the platform can."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    with contextlib.suppress(OSError):  # some file systems refuse; the new file is whole in its place all the same
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
