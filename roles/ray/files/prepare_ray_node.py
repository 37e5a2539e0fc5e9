"""Prepare for ``ray start``: end the processes of an earlier start, and remove old session directories.

A node that loses its supervisor leaves processes that hold its ports and its storage, and each start leaves a session
directory, so a crash loop would fill the disk. A head that is given its STORE moves it aside if the last GCS found it
corrupt. Usage: prepare_ray_node.py TEMP_DIR SESSIONS_TO_KEEP [STORE]
"""  # noqa: INP001

import shutil
import sys
from pathlib import Path

import damaged_store
import node_processes

DEADLINE_S = 10.0


def main() -> None:
    """Remove the leftovers of earlier starts; exit with an error if a process does not end."""
    temp_dir, keep = sys.argv[1], int(sys.argv[2])
    if pids := node_processes.kill_all(temp_dir, timeout_s=DEADLINE_S):
        sys.exit(f"processes of an earlier start do not end: {pids}")
    for store in sys.argv[3:]:
        if line := damaged_store.set_aside(Path(store), Path(temp_dir, "session_latest", "logs")):
            sys.stdout.write(f"{line}\n")
    sessions = [path for path in Path(temp_dir).glob("session_*") if path.is_dir() and not path.is_symlink()]
    sessions.sort(key=lambda path: path.stat().st_mtime, reverse=True)
    # A killed process cannot remove its own temporary files: Python's multiprocessing leaves these.
    for path in [*sessions[keep:], *Path(temp_dir).glob("pymp-*")]:
        shutil.rmtree(path, ignore_errors=True)


main()
