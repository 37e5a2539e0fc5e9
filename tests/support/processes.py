"""Find and end a test's processes by a mark in their environment, which all processes of a Ray head inherit."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path

from tests.support.waiting import eventually

MARK = "SEEDCORE_TEST_MARK"


def marked(mark: str) -> dict[int, str]:
    """Return the processes that carry the mark, except zombies, as a mapping from pid to command line."""
    found = {}
    needle = f"{MARK}={mark}".encode()
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        with contextlib.suppress(OSError):
            if needle in (entry / "environ").read_bytes().split(b"\0"):
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
                if command:
                    found[int(entry.name)] = command
    return found


def children(parent: int) -> list[int]:
    """Return the pids of a process's children, including those whose title has overwritten their environment."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                after_name = (entry / "stat").read_text().rpartition(")")[2].split()
                if int(after_name[1]) == parent:
                    found.append(int(entry.name))
    return found


def kill(pid: int, sent: signal.Signals = signal.SIGKILL) -> None:
    """Send a signal to a process; do nothing if it no longer exists."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, sent)


def end_all(mark: str) -> None:
    """Kill all processes that carry the mark and wait until they are gone."""

    def gone() -> bool:
        left = marked(mark)
        for pid in left:
            kill(pid)
        return not left

    eventually(gone, timeout_s=30, what=f"end of the processes marked {mark}")
