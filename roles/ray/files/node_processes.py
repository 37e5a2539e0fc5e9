"""Find the processes of one Ray node on this host by the directory that they were started with."""  # noqa: INP001

import os
import signal
import time
from pathlib import Path


def parent(pid: int) -> int:
    """Return the parent's pid, 0 if the process is gone or dead."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return 0
    state, above = stat[stat.rindex(")") + 2 :].split()[:2]
    return 0 if state in "ZX" else int(above)


def words(pid: int) -> list[str]:
    """Return the command line of a process, empty if it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode("utf-8", "replace").split("\0")
    except OSError:
        return []


def of_node(temp_dir: str) -> list[int]:
    """Return this user's processes that were started with ``temp_dir``, except this one and its ancestors."""
    above, pid = set(), os.getpid()
    while pid:
        above.add(pid)
        pid = parent(pid)
    marks = {f"--temp-dir={temp_dir}", f"--temp_dir={temp_dir}"}
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) in above:
            continue
        try:
            own = entry.stat().st_uid == os.getuid()
        except OSError:
            continue
        if own and any(word in marks or f"{temp_dir}/session_" in word for word in words(int(entry.name))):
            found.append(int(entry.name))
    return found


def launcher(temp_dir: str) -> int:
    """Return the pid of ``ray start --block`` for this directory, 0 if it does not run."""
    for pid in of_node(temp_dir):
        line = words(pid)
        if "start" in line and "--block" in line and f"--temp-dir={temp_dir}" in line:
            return pid
    return 0


def kill_all(temp_dir: str, *, timeout_s: float) -> list[int]:
    """Send SIGKILL until no process is left; return those still alive after ``timeout_s`` seconds."""
    deadline = time.monotonic() + timeout_s
    while (pids := of_node(temp_dir)) and time.monotonic() < deadline:
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        time.sleep(0.05)
    return pids
