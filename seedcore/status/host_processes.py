"""Check and kill actor processes on this host, without ever killing another process.

A pid may be reused: between the row that names it and the signal, the process may have ended and another process may
have its pid. A pidfd refers to one process; data that is read from /proc after it was opened belongs to that process.
"""

from __future__ import annotations

import os
import select
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TITLE = b"ray::"
_NODE_ID = b"--node_id="
# Actor processes are children of their raylet; a wrapper or two may be in between.
MAX_ANCESTORS = 4
DEATH_TIMEOUT_S = 0.5
_PROC = Path("/proc")
_DEAD_STATES = frozenset({"Z", "X"})


@dataclass(frozen=True, slots=True)
class Result:
    """The result of a kill.

    Attributes:
        outcome: ``killed``; ``gone`` if there is no such process; ``refused`` if it is not the actor's process.
        detail: For people: the state it was in, or why it was not killed.
    """

    outcome: str
    detail: str


@dataclass(frozen=True, slots=True)
class _Stat:
    state: str
    parent: int
    started: int


def start_ticks(pid: Any) -> int | None:
    """Return when a living process started, in clock ticks since boot: together with the pid it is unique."""
    if not isinstance(pid, int) or pid <= 1:
        return None
    try:
        stat = _stat(pid)
    except (OSError, ValueError, IndexError):
        return None
    return None if stat.state in _DEAD_STATES else stat.started


def is_living_actor(pid: Any) -> bool:
    """Return whether this host has a living actor process with this pid (a zombie is not alive)."""
    if not isinstance(pid, int) or pid <= 1:
        return False
    try:
        titled = (_PROC / str(pid) / "cmdline").read_bytes().startswith(TITLE)
        return titled and _stat(pid).state not in _DEAD_STATES
    except (OSError, ValueError, IndexError):
        return False


def is_actor_of(pid: Any, *, node_id: Any) -> bool:
    """Return whether the actor process ``pid`` of this node is alive on this host, below the node's raylet."""
    try:
        return is_living_actor(pid) and _raylet_above(pid) == str(node_id)
    except (OSError, ValueError, IndexError):
        return False  # an ancestor ended in between


def has_lost_its_raylet(pid: Any) -> bool:
    """Return whether an actor process is alive on this host without a raylet above it: it is about to end.

    An actor of another host may have the same pid as an actor on this host, which has its own raylet.
    """
    try:
        return is_living_actor(pid) and not _raylet_above(pid)
    except (OSError, ValueError, IndexError):
        return is_living_actor(pid)  # the ancestor ended in between


def kill_actor(pid: Any, *, node_id: Any, started: int | None) -> Result:
    """Kill the process ``pid`` if it is the actor's process, runs on this host, and belongs to this user.

    Args:
        pid: Pid in the actor's row.
        node_id: Node in the actor's row; the raylet above the process must belong to it.
        started: :func:`start_ticks` of the process when the pid was first seen; None if it was never seen.
    """
    if not isinstance(pid, int) or pid <= 1:
        return Result("gone", f"pid {pid!r} is not a process id")
    try:
        handle = os.pidfd_open(pid)
        try:
            state, doubt = _examine(pid, str(node_id), started)
            if state in _DEAD_STATES:
                return Result("gone", f"process {pid} is already dead")
            return Result("refused", doubt) if doubt else _end(handle, state)
        finally:
            os.close(handle)
    except (FileNotFoundError, ProcessLookupError):
        return Result("gone", f"there is no process {pid}")
    except (OSError, ValueError, IndexError) as error:
        return Result("refused", f"process {pid} cannot be inspected: {error}")


def _end(handle: int, state: str) -> Result:
    signal.pidfd_send_signal(handle, signal.SIGKILL)
    poller = select.poll()
    poller.register(handle, select.POLLIN)
    ended = bool(poller.poll(DEATH_TIMEOUT_S * 1000))
    return Result("killed", f"it was in state {state}" + ("" if ended else ", and is not dead yet"))


def _examine(pid: int, node_id: str, started: int | None) -> tuple[str, str]:
    """Return the state of the process, and why it must not be killed ("" if it may)."""
    stat = _stat(pid)
    if started is None or stat.started != started:
        return stat.state, f"pid {pid} now belongs to another process"
    return stat.state, _not_the_actor(pid, node_id)


def _not_the_actor(pid: int, node_id: str) -> str:
    """Return why the process is not an actor of that node and this user; "" if it is."""
    directory = _PROC / str(pid)
    owner = directory.stat().st_uid
    if owner != os.geteuid():
        return f"process {pid} belongs to user {owner}"
    if not (directory / "cmdline").read_bytes().startswith(TITLE):
        return f"process {pid} is not an actor process"
    return "" if _raylet_above(pid) == node_id else f"process {pid} is not a child of node {node_id}"


def _raylet_above(pid: int) -> str:
    """Return the node id of the raylet that the process is a child of; "" if there is none."""
    ancestor = pid
    for _ in range(MAX_ANCESTORS):
        ancestor = _stat(ancestor).parent
        if ancestor <= 1:
            break
        for argument in (_PROC / str(ancestor) / "cmdline").read_bytes().split(b"\0"):
            if argument.startswith(_NODE_ID):
                return argument.removeprefix(_NODE_ID).decode(errors="replace")
    return ""


def _stat(pid: int) -> _Stat:
    # The name, in parentheses, may contain any character; only numbers follow the last parenthesis.
    fields = (_PROC / str(pid) / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    return _Stat(state=fields[0], parent=int(fields[1]), started=int(fields[19]))
