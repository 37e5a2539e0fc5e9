"""Files in the state directory: locks between processes, and documents that are replaced atomically."""

from __future__ import annotations

import fcntl
import os
import tempfile
import time
from pathlib import Path

from seedcore.core.errors import ConfigError, Fault

_POLL_S = 0.05


def open_lock(path: Path) -> int:
    """Open a file for :func:`lock`, and create it and its directory; closing the descriptor releases the lock.

    Raises:
        ConfigError: The directory cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise _cannot_write(path, error) from error


def lock(descriptor: int, *, timeout_s: float = 0.0) -> bool:
    """Take the lock of an open file; return False if another process holds it for ``timeout_s`` seconds."""
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return False
            time.sleep(_POLL_S)
        else:
            return True


def replace_file(path: Path, text: str) -> None:
    """Replace a file and create its directory; the file is readable by its owner only, and survives a power cut.

    Raises:
        ConfigError: It cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor, beside = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
                stream.write(text)
                stream.flush()
                os.fsync(stream.fileno())
            Path(beside).replace(path)
        except BaseException:
            Path(beside).unlink(missing_ok=True)
            raise
        _sync(path.parent)
    except OSError as error:
        raise _cannot_write(path, error) from error


def _sync(directory: Path) -> None:
    """Make the rename itself survive a power cut."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _cannot_write(path: Path, error: OSError) -> ConfigError:
    return ConfigError((Fault(str(path), 0, 0, f"cannot be written: {error.strerror}"),))
