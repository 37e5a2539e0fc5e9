# SPDX-License-Identifier: Apache-2.0
"""Read the end of a log.

It uses only the standard library, because it is copied to the host inside the modules.
"""

from __future__ import annotations

import os
from pathlib import Path


def end_of(path: Path | str, *, max_bytes: int = 16384) -> str | None:
    """Return the last part of a file; None if it cannot be read."""
    try:
        # Opening a pipe without a writer would block.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as stream:
            stream.seek(0, os.SEEK_END)
            stream.seek(max(0, stream.tell() - max_bytes))
            return stream.read().decode("utf-8", "replace")
    except OSError:
        return None


def tail(path: str | None, lines: int = 20) -> list[str]:
    """Return the last lines of a log; none if it cannot be read."""
    return (end_of(path or os.devnull) or "").splitlines()[-lines:]
