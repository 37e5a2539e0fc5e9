"""Find the processes of a deployment on this host, from /proc alone.

A process belongs to the directory from which it runs: its executable, its first argument (a script's interpreter) or
any mapped code is under it. Children of such a process belong to it, too. Environment and working directory do not
count, because a user's shell may have both.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")


@dataclass(frozen=True)
class Process:
    """One process; ``pid`` and ``started`` (clock ticks since boot) together are unique."""

    pid: int
    started: int
    parent: int
    name: str
    argv: tuple[str, ...]


def read(pid: int) -> Process | None:
    """Return the process, or None if it is gone (a zombie counts as gone: it holds no resources)."""
    try:
        stat = (PROC / str(pid) / "stat").read_text(encoding="utf-8", errors="replace")
        argv = (PROC / str(pid) / "cmdline").read_bytes().decode("utf-8", "replace")
    except OSError:
        return None
    name = stat[stat.index("(") + 1 : stat.rindex(")")]
    fields = stat[stat.rindex(")") + 2 :].split()
    if fields[0] in {"Z", "X"}:
        return None
    words = tuple(word for word in argv.split("\0") if word)
    return Process(pid, int(fields[19]), int(fields[1]), name, words)


def everything() -> dict[int, Process]:
    """Return every visible process of the host, by pid."""
    found = (read(int(entry.name)) for entry in PROC.iterdir() if entry.name.isdigit())
    return {process.pid: process for process in found if process is not None}


def ancestors(pid: int, processes: dict[int, Process]) -> set[int]:
    """Return ``pid`` and all of its ancestors."""
    above: set[int] = set()
    while pid in processes and pid not in above:
        above.add(pid)
        pid = processes[pid].parent
    return above


def belonging(prefix: str, processes: dict[int, Process]) -> set[int]:
    """Return the pids that run from ``prefix``, and their children; never this process or its ancestors."""
    roots = {f"{Path(prefix).absolute()}/", f"{Path(prefix).resolve()}/"}
    owned = {pid for pid, process in processes.items() if _runs_from(process, roots)}
    children: dict[int, list[int]] = {}
    for process in processes.values():
        children.setdefault(process.parent, []).append(process.pid)
    pending = list(owned)
    while pending:
        for child in children.get(pending.pop(), []):
            if child not in owned:
                owned.add(child)
                pending.append(child)
    return owned - ancestors(os.getpid(), processes)


def carrying(variable: str, processes: dict[int, Process]) -> set[int]:
    """Return the pids with ``variable`` (``NAME=value``) in their environment; never this process."""
    others = processes.keys() - ancestors(os.getpid(), processes)
    return {pid for pid in others if variable.encode() in environment(pid)}


def environment(pid: int) -> list[bytes]:
    """Return the variables of a process (``NAME=value``); none if it is gone or belongs to another user."""
    try:
        return (PROC / str(pid) / "environ").read_bytes().split(b"\0")
    except OSError:
        return []


def end(wanted: list[Process], *, timeout_s: float) -> list[Process]:
    """Send SIGKILL to each, and return those that are still alive after ``timeout_s`` seconds.

    Raises:
        PermissionError: A process belongs to another user.
    """
    for process in wanted:
        if alive(process):
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGKILL)
    return wait_gone(wanted, timeout_s=timeout_s)


def alive(process: Process) -> bool:
    """Return whether the same process still runs; another process with its pid does not count."""
    now = read(process.pid)
    return now is not None and now.started == process.started


def wait_gone(wanted: list[Process], *, timeout_s: float, interval_s: float = 0.1) -> list[Process]:
    """Wait until all are gone or ``timeout_s`` seconds have passed, and return the rest."""
    deadline = time.monotonic() + timeout_s
    left = [process for process in wanted if alive(process)]
    while left and (remaining := deadline - time.monotonic()) > 0:
        time.sleep(min(interval_s, remaining))
        left = [process for process in left if alive(process)]
    return left


def _runs_from(process: Process, roots: set[str]) -> bool:
    def under(path: str) -> bool:
        return any(path.startswith(root) for root in roots)

    if process.argv and under(process.argv[0]):
        return True
    directory = PROC / str(process.pid)
    try:
        if under(str((directory / "exe").readlink())):
            return True
        for line in (directory / "maps").read_text(encoding="utf-8", errors="replace").splitlines():
            words = line.split(None, 5)
            if len(words) > 5 and "x" in words[1] and under(words[5]):  # noqa: PLR2004
                return True
    except OSError:
        return False  # it is gone, or belongs to another user
    return False
