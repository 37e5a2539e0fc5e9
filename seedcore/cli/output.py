"""Standard output belongs to what a command itself says there; whatever else prints goes to standard error.

User code prints when it is imported, Ray prints warnings of its raylets to the standard output of every driver, and a
reader that expects one JSON document can do nothing with either. This module imports nothing heavy.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import TextIO

_OUT, _ERR = 1, 2
_reserved: list[TextIO] = []


def data() -> TextIO:
    """Return the stream for what the command itself says."""
    return _reserved[-1] if _reserved else sys.stdout


def keep_descriptor() -> None:
    """Move the real standard output to a descriptor that nobody else knows, and let 1 lead to standard error.

    Nothing is done where ``sys.stdout`` is not the real one (tests), or is closed.
    """
    stream = sys.__stdout__
    if stream is None or stream is not sys.stdout:
        return
    try:
        kept = os.dup(_OUT)
        stream.flush()
        os.dup2(_ERR, _OUT)
    except OSError:
        # One of them is closed: there is nothing to keep apart.
        return
    sys.stdout = os.fdopen(
        kept, "w", buffering=1 if stream.line_buffering else -1, encoding=stream.encoding, errors=stream.errors
    )


@contextlib.contextmanager
def reserved() -> Iterator[None]:
    """Keep standard output for :func:`data`; what prints to ``sys.stdout`` meanwhile prints to standard error."""
    _reserved.append(sys.stdout)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        _reserved.pop()
