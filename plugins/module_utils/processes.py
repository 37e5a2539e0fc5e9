"""Which processes of this host belong to a deployment, read from /proc alone.

A process belongs to the directory it runs from: its executable, its first argument (a script's interpreter) or any code
that it has mapped lies under it. What such a process started belongs too. The environment and the working directory say
nothing: a person's shell may carry both.
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
    """One process; ``pid`` and ``started`` (clock ticks since boot) together never name another one."""

    pid: int
    started: int
    parent: int
    name: str
    argv: tuple[str, ...]


def read(pid: int) -> Process | None:
    """Return the process, or None if it is gone (a zombie is gone: it holds nothing)."""
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
    """Return every process of the host that can be seen, by pid."""
    found = (read(int(entry.name)) for entry in PROC.iterdir() if entry.name.isdigit())
    return {process.pid: process for process in found if process is not None}


def ancestors(pid: int, processes: dict[int, Process]) -> set[int]:
    """Return ``pid`` and everything above it."""
    above: set[int] = set()
    while pid in processes and pid not in above:
        above.add(pid)
        pid = processes[pid].parent
    return above


def belonging(prefix: str, processes: dict[int, Process]) -> set[int]:
    """Return the pids that run from ``prefix``, and those they started; never this process or one above it."""
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
    """Return the pids that were started with ``variable`` (``NAME=value``) in their environment; never this one."""
    wanted = variable.encode()
    found = set()
    for pid in processes.keys() - ancestors(os.getpid(), processes):
        try:
            environment = (PROC / str(pid) / "environ").read_bytes()
        except OSError:
            continue
        if wanted in environment.split(b"\0"):
            found.add(pid)
    return found


def end(wanted: list[Process], *, timeout_s: float) -> list[Process]:
    """Send SIGKILL to each, and return the ones that are there after ``timeout_s`` seconds.

    Raises:
        PermissionError: One belongs to somebody else.
    """
    for process in wanted:
        if alive(process):
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGKILL)
    return wait_gone(wanted, timeout_s=timeout_s)


def alive(process: Process) -> bool:
    """Say whether this very process still runs; its pid in the hands of another one does not count."""
    now = read(process.pid)
    return now is not None and now.started == process.started


def wait_gone(wanted: list[Process], *, timeout_s: float, interval_s: float = 0.1) -> list[Process]:
    """Wait until all are gone or ``timeout_s`` seconds have passed, and return the ones that are left."""
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
        return False  # gone meanwhile, or another user's, which is not ours
    return False
