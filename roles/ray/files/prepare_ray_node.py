"""Make room for a start of ``ray start``: no process of an earlier one, and not too many of its directories.

A node that loses its supervisor leaves processes that hold its ports and its storage, and each start leaves a session
directory, so a crash loop would fill the disk. Usage: prepare_ray_node.py TEMP_DIR SESSIONS_TO_KEEP
"""  # noqa: INP001

import os
import shutil
import signal
import sys
import time
from pathlib import Path

DEADLINE_S = 10.0


def parent(pid: int) -> int:
    """Return the parent's pid, 0 if the process is gone or dead."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return 0
    state, above = stat[stat.rindex(")") + 2 :].split()[:2]
    return 0 if state in "ZX" else int(above)


def leftovers(temp_dir: str) -> list[int]:
    """Return the processes of this user that were started with ``temp_dir``, but for this one and those above it."""
    above, pid = set(), os.getpid()
    while pid:
        above.add(pid)
        pid = parent(pid)
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) in above:
            continue
        try:
            words = (entry / "cmdline").read_bytes().decode("utf-8", "replace").split("\0")
            own = entry.stat().st_uid == os.getuid()
        except OSError:
            continue
        marks = (f"--temp-dir={temp_dir}", f"--temp_dir={temp_dir}")
        if own and any(word in marks or f"{temp_dir}/session_" in word for word in words):
            found.append(int(entry.name))
    return found


def main() -> None:
    """Clear away what is left; fails if it does not go."""
    temp_dir, keep = sys.argv[1], int(sys.argv[2])
    deadline = time.monotonic() + DEADLINE_S
    while (pids := leftovers(temp_dir)) and time.monotonic() < deadline:
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        time.sleep(0.05)
    if pids:
        sys.exit(f"processes of an earlier start do not end: {pids}")
    sessions = [path for path in Path(temp_dir).glob("session_*") if path.is_dir() and not path.is_symlink()]
    sessions.sort(key=lambda path: path.stat().st_mtime, reverse=True)
    # A killed process cannot remove its own temporary files: Python's multiprocessing leaves these.
    for path in [*sessions[keep:], *Path(temp_dir).glob("pymp-*")]:
        shutil.rmtree(path, ignore_errors=True)


main()
