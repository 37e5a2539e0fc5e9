"""Reserve standard output for the results of a command, and send all other prints to standard error.

User code may print when it is imported, and Ray prints warnings of its raylets to the standard output of every driver.
Either would break a reader that expects one JSON document. This module imports nothing heavy.
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
    """Return the stream for the results of the command."""
    return _reserved[-1] if _reserved else sys.stdout


def keep_descriptor() -> None:
    """Move the real standard output to a private descriptor, and redirect descriptor 1 to standard error.

    It does nothing if ``sys.stdout`` is not the real one (tests), or is closed.
    """
    stream = sys.__stdout__
    if stream is None or stream is not sys.stdout:
        return
    try:
        kept = os.dup(_OUT)
        stream.flush()
        os.dup2(_ERR, _OUT)
    except OSError:
        # One of the two is closed: there is nothing to separate.
        return
    sys.stdout = os.fdopen(
        kept, "w", buffering=1 if stream.line_buffering else -1, encoding=stream.encoding, errors=stream.errors
    )


@contextlib.contextmanager
def reserved() -> Iterator[None]:
    """Reserve standard output for :func:`data`; redirect ``sys.stdout`` to standard error meanwhile."""
    _reserved.append(sys.stdout)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        _reserved.pop()
