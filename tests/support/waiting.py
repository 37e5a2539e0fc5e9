"""Wait for a condition instead of a fixed time."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def eventually(check: Callable[[], T | None], *, timeout_s: float = 60.0, interval_s: float = 0.1, what: str = "") -> T:
    """Call ``check`` until it returns a true value, and return that; at the deadline fail with the last value."""
    deadline = time.monotonic() + timeout_s
    while True:
        answer = check()
        if answer:
            return answer
        if time.monotonic() >= deadline:
            raise AssertionError(f"not within {timeout_s:g} s: {what or check}: {answer!r}")
        time.sleep(interval_s)
