"""Find callbacks that block their event loop.

Wall time would blame a callback for a busy machine. The guard therefore measures the CPU time of the loop's thread and
the time spent in blocking calls, which it wraps.
"""

from __future__ import annotations

import asyncio
import functools
import gc
import select
import socket
import subprocess
import threading
import time
from asyncio.events import Handle
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

LIMIT_S = 0.1
# Ignore fixtures, which pytest-asyncio runs in a separate coroutine, and the end of a loop, which starts a thread to
# join the others.
NOT_OURS = tuple(str(Path(file).parent) for file in (Path(__file__).parent, pytest_asyncio.__file__, asyncio.__file__))
WAITING: tuple[tuple[Any, str], ...] = (
    (time, "sleep"),
    (select, "select"),
    (threading.Condition, "wait"),  # of events, queues and futures, too
    (threading.Thread, "join"),
    (subprocess.Popen, "wait"),
    (subprocess.Popen, "communicate"),
    *((socket.socket, name) for name in ("accept", "connect", "recv", "recv_into", "sendall")),
)


class LoopGuard:
    """Callbacks that took longer than ``limit_s``, one sentence each."""

    def __init__(self, limit_s: float) -> None:
        self.limit_s = limit_s
        self.faults: list[str] = []
        self._local = threading.local()

    def run(self, original: Callable[[Handle], None], handle: Handle) -> None:
        """Run one callback of a loop and measure its cost."""
        # Ignore code of the test itself between two awaits.
        owner = _coroutine(handle)
        if owner is not None and owner.cr_code.co_filename.startswith(NOT_OURS):
            original(handle)
            return
        what = repr(handle) if owner is None else f"a step of {owner.__qualname__}"
        self._local.waited, self._local.calls, self._local.collecting = 0.0, [], 0.0
        begun = time.thread_time()
        try:
            original(handle)
        finally:
            cpu, waited = time.thread_time() - begun - self._local.collecting, self._local.waited
            if cpu + waited > self.limit_s:
                calls = f" in {', '.join(self._local.calls)}" if self._local.calls else ""
                self.faults.append(f"{what} blocks its loop: {cpu:.3f} s of CPU, {waited:.3f} s waiting{calls}")
            del self._local.waited

    def waiting(self, name: str, original: Callable[..., Any], *args: Any, **options: Any) -> Any:
        """Measure the time of a blocking call if a callback makes it."""
        if not hasattr(self._local, "waited"):
            return original(*args, **options)
        if args and isinstance(args[0], socket.socket) and args[0].gettimeout() == 0:
            return original(*args, **options)
        begun = time.monotonic()
        try:
            return original(*args, **options)
        finally:
            if hasattr(self._local, "waited"):
                self._local.waited += time.monotonic() - begun
                self._local.calls.append(name)

    def collecting(self, phase: str, _: object) -> None:
        """Exclude garbage collection, which also collects the garbage of earlier tests."""
        sign = -1 if phase == "start" else 1
        self._local.collecting = getattr(self._local, "collecting", 0.0) + sign * time.thread_time()

    def starting(self, original: Callable[..., Any], thread: threading.Thread) -> None:
        """Exclude the start of a new thread, whose time depends on the machine."""
        waited = self._local.__dict__.pop("waited", None)
        try:
            original(thread)
        finally:
            if waited is not None:
                self._local.waited = waited


@contextmanager
def guarded_loops(limit_s: float = LIMIT_S) -> Iterator[LoopGuard]:
    """Watch every event loop of this process for the duration of the block."""
    guard = LoopGuard(limit_s)
    with pytest.MonkeyPatch.context() as patch:
        for owner, name in WAITING:
            original = getattr(owner, name)
            label = f"{owner.__name__}.{name}"
            patch.setattr(owner, name, _wrapped(guard.waiting, label, original))
        start = threading.Thread.start
        patch.setattr(threading.Thread, "start", lambda thread: guard.starting(start, thread))
        run = Handle._run
        patch.setattr(Handle, "_run", lambda handle: guard.run(run, handle))
        gc.callbacks.append(guard.collecting)
        try:
            yield guard
        finally:
            gc.callbacks.remove(guard.collecting)


def _wrapped(count: Callable[..., Any], label: str, original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def call(*args: Any, **options: Any) -> Any:
        return count(label, original, *args, **options)

    return call


def _coroutine(handle: Handle) -> Any | None:
    task = getattr(handle._callback, "__self__", None)  # type: ignore[attr-defined]
    coroutine = task.get_coro() if isinstance(task, asyncio.Task) else None
    return coroutine if hasattr(coroutine, "cr_code") else None
