"""End all processes that agents have spawned when their organ's process ends, even those in separate sessions.

The process marks its children with an environment variable, which programs inherit, and with an open file, which forks
inherit. A guard, a detached shell of 1 MB, waits on a pipe for the end of the process and then kills the marked
processes. This needs neither root nor cgroups, and no other process that would have to detect the death.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
import uuid
from pathlib import Path

logger = logging.getLogger(__name__)

MARK = "SEEDCORE_ORGAN_PROCESS"

# Stop after two scans without a match, because a process may fork during a scan.
_GUARD = r"""
exec 3<&0 </dev/null
(
    trap '' HUP INT TERM
    read -r _ <&3
    clean=0
    while [ "$clean" -lt 2 ]; do
        found=$(
            grep -lzxF -- "$1=$2" /proc/[0-9]*/environ
            find /proc/[0-9]*/fd -maxdepth 1 -lname "*memfd:$2*"
        )
        clean=$((clean + 1))
        for file in $found; do
            pid=${file#/proc/}
            kill -KILL "${pid%%/*}" && clean=0
        done
        sleep 0.1
    done
) &
"""


def end_children_with_this_process() -> str:
    """Make every process that this one starts end with it; return the value of the mark."""
    value = f"seedcore-{uuid.uuid4().hex}"
    environment = {key: text for key, text in os.environ.items() if key != MARK}
    end_of_guard, mine = os.pipe()
    command = ["/bin/sh", "-c", _GUARD, "seedcore-guard", MARK, value]
    nowhere = subprocess.DEVNULL
    subprocess.run(  # noqa: S603 - nothing in it comes from anybody else
        command,
        stdin=end_of_guard,
        stdout=nowhere,
        stderr=nowhere,
        env=environment,
        start_new_session=True,
        check=True,
    )
    os.close(end_of_guard)
    # Forks keep it open; executed programs close it, but have the variable.
    os.memfd_create(value)
    # A fork that kept the pipe open would hide the end from the guard.
    os.register_at_fork(after_in_child=lambda: os.close(mine))
    os.environ[MARK] = value
    return value


def kill_marked(value: str) -> int:
    """Kill the processes with a mark, without waiting for this process's end; return their number."""
    wanted, found = f"{MARK}={value}".encode(), 0
    for entry in Path("/proc").glob("[0-9]*"):
        # It has ended meanwhile, or belongs to another user.
        with contextlib.suppress(OSError):
            if wanted in (entry / "environ").read_bytes().split(b"\0"):
                os.kill(int(entry.name), signal.SIGKILL)
                found += 1
    return found


def guard_children() -> None:
    """Call :func:`end_children_with_this_process`, and only log that it is impossible."""
    try:
        end_children_with_this_process()
    except (OSError, subprocess.SubprocessError) as error:
        logger.warning("processes that agents spawn will outlive this process: %s", error)
