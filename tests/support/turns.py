"""Start one Ray head at a time: two concurrent starts on two cores may both exceed Ray's limit of 30 s."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PATH = Path(f"/tmp/seedcore-test-turn-{os.getuid()}")


@contextmanager
def turn(*, timeout_s: float = 300.0, path: Path = PATH) -> Iterator[None]:
    """Wait until no other test session or xdist worker of this machine is in the block; enter it after the timeout."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    deadline = time.monotonic() + timeout_s
    try:
        while time.monotonic() < deadline:
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            time.sleep(0.1)
        yield
    finally:
        os.close(descriptor)
