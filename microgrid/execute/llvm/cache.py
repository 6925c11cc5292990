"""Machine code on disk, so that a program is compiled once per computer and not once per process.

An entry is a file that is run, so it counts only if nobody but this user can have written it, and only whole.
Whatever goes wrong here costs a compilation and is no error.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import re
import secrets
import stat
import struct
import sys
import time
from collections.abc import Callable
from pathlib import Path

FORMAT = 1
LIMIT = 256 * 2**20
"""Bytes of all entries together. Each is at most a 128th of it, and every 32 writes they are cut to three quarters."""

ENTRIES = 4096
"""How many are left when they are cut; to look at more of them would take as long as compiling."""

EVERY = 32

HEADER = struct.Struct("<8sI32sQ32s")
"""Magic, format, key, length and digest of the code that follows."""

MAGIC = b"microgrd"
ENTRY = re.compile(r"[0-9a-f]{64}\.code")
UNFINISHED = re.compile(r"[0-9a-f]{32}\.part")
ABANDONED = 3600.0
"""Seconds after which nobody is still writing a file."""

_writes = itertools.count()


def directory() -> Path | None:
    """Where entries are kept; None for nowhere.

    MICROGRID_CACHE_DIR names the place, empty for none; otherwise it is where programs of this system keep
    what they can make again.
    """
    chosen = os.environ.get("MICROGRID_CACHE_DIR")
    if chosen is not None:
        return Path(chosen) if chosen else None
    home = os.path.expanduser("~")
    if sys.platform == "win32":
        path = Path(os.environ.get("LOCALAPPDATA", ""), "microgrid", "Cache")
    elif sys.platform == "darwin":
        path = Path(home, "Library", "Caches", "microgrid")
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME", ""))
        path = (base if base.is_absolute() else Path(home, ".cache")) / "microgrid"
    return path if path.is_absolute() else None


def key(*parts: str) -> bytes:
    """A name for the code that these texts determine."""
    digest = hashlib.sha256()
    for part in (str(FORMAT), *parts):
        text = part.encode()
        digest.update(len(text).to_bytes(8, "little") + text)
    return digest.digest()


def read(key: bytes) -> bytes | None:
    """The code that was written under a key, if it is there and can be trusted."""
    with contextlib.suppress(OSError):
        folder = directory()
        if folder is None or not _only_ours(folder.stat(), stat.S_ISDIR):
            return None
        path = _path(folder, key)
        with open(path, "rb", opener=_without_following) as file:
            if not _only_ours(os.fstat(file.fileno()), stat.S_ISREG):
                return None
            entry = file.read()
        code = entry[HEADER.size :]
        if entry[: HEADER.size] == _header(key, code):
            with contextlib.suppress(OSError):
                os.utime(path)  # used just now
            return code
    return None


def write(key: bytes, code: bytes) -> None:
    """Keeps code under a key, and removes what was not used for longest where there is too much."""
    with contextlib.suppress(OSError):
        folder = directory()
        if folder is None or HEADER.size + len(code) > LIMIT // 128:
            return
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not _only_ours(folder.stat(), stat.S_ISDIR):
            return
        unfinished = folder / f"{secrets.token_hex(16)}.part"
        try:
            with open(unfinished, "xb", opener=_private) as file:
                file.write(_header(key, code) + code)
            os.replace(unfinished, _path(folder, key))
        finally:
            unfinished.unlink(missing_ok=True)
        if next(_writes) % EVERY == 0:
            _cut(folder)


def clear() -> int:
    """Removes all entries.

    Returns
    -------
    int
        How many there were.
    """
    removed = 0
    with contextlib.suppress(OSError):
        folder = directory()
        if folder is not None and _only_ours(folder.stat(), stat.S_ISDIR):
            for name in os.listdir(folder):
                if ENTRY.fullmatch(name) or UNFINISHED.fullmatch(name):
                    with contextlib.suppress(OSError):
                        (folder / name).unlink()
                        removed += bool(ENTRY.fullmatch(name))
    return removed


def _path(folder: Path, key: bytes) -> Path:
    return folder / f"{key.hex()}.code"


def _header(key: bytes, code: bytes) -> bytes:
    return HEADER.pack(MAGIC, FORMAT, key, len(code), hashlib.sha256(code).digest())


def _only_ours(status: os.stat_result, kind: Callable[[int], bool]) -> bool:
    """Whether something is of a kind, and only this user can have written it."""
    if sys.platform == "win32":
        return kind(status.st_mode)  # the place itself is the user's own
    others = status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    return kind(status.st_mode) and status.st_uid == os.geteuid() and not others


def _without_following(path: str, flags: int) -> int:
    """Opens a file that is no symbolic link, and does not wait should it be a pipe."""
    return os.open(path, flags | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _cut(folder: Path) -> None:
    """Removes the entries that were not used for longest, and what a process that ended early left."""
    entries = []
    with os.scandir(folder) as found:
        for file in found:
            with contextlib.suppress(OSError):  # another process may be faster
                status = file.stat(follow_symlinks=False)
                if ENTRY.fullmatch(file.name):
                    entries.append((status.st_mtime_ns, status.st_size, file.path))
                elif UNFINISHED.fullmatch(file.name) and status.st_mtime < time.time() - ABANDONED:
                    os.unlink(file.path)
    total = 0
    for i, (_, size, path) in enumerate(sorted(entries, reverse=True)):
        total += size
        if total > LIMIT * 3 // 4 or i >= ENTRIES:
            with contextlib.suppress(OSError):
                os.unlink(path)
