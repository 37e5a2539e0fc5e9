"""What agents spawn ends with their organ's process, however that ends, also in a session of its own.

The process marks what it starts: by a variable of the environment, which programs inherit, and by an open file, which
forks inherit. A guard, a shell of 1 MB that is nobody's child, waits for the process's end on a pipe and then kills
what is marked. That needs neither root nor cgroups, and no other process that would have to notice the death.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import uuid
from pathlib import Path

MARK = "SEEDCORE_ORGAN_PROCESS"

# Twice nothing found: a process may fork while others are looked for.
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
    """From now on, everything that this process starts ends with it; returns the value of the mark."""
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
    # Stays open in forks; programs that are executed close it, and have the variable.
    os.memfd_create(value)
    # A fork that held the pipe would keep the guard from seeing the end.
    os.register_at_fork(after_in_child=lambda: os.close(mine))
    os.environ[MARK] = value
    return value


def kill_marked(value: str) -> int:
    """Kill what carries a mark, without waiting for this process's end; returns how many processes that were."""
    wanted, found = f"{MARK}={value}".encode(), 0
    for entry in Path("/proc").glob("[0-9]*"):
        # It has ended meanwhile, or it is somebody else's.
        with contextlib.suppress(OSError):
            if wanted in (entry / "environ").read_bytes().split(b"\0"):
                os.kill(int(entry.name), signal.SIGKILL)
                found += 1
    return found
