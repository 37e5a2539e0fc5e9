"""Kill every process of Ray on this host at once, like a crash; the service starts Ray again."""  # noqa: INP001

import os
import signal
import sys
from pathlib import Path

TEMP_DIR = "/opt/seedcore/tmp"


def is_of_ray(words: list[str]) -> bool:
    """Return whether a command line belongs to a process of the node."""
    return words[0].startswith("ray::") or any(
        word in {f"--temp-dir={TEMP_DIR}", f"--temp_dir={TEMP_DIR}"} or f"{TEMP_DIR}/session_" in word for word in words
    )


killed = []
for entry in Path("/proc").iterdir():
    if entry.name.isdigit() and int(entry.name) != os.getpid():
        try:
            line = (entry / "cmdline").read_bytes().decode("utf-8", "replace").split("\0")
        except OSError:
            continue
        if is_of_ray(line):
            killed.append(int(entry.name))
for pid in killed:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        continue
print(f"{len(killed)} processes killed")  # noqa: T201
sys.exit(not killed)
