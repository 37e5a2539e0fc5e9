"""Print the pid, the start time and the name of every process of the deployment, one a line.

Usage: process_starts.py [PREFIX]
"""  # noqa: INP001

import sys
from pathlib import Path

PREFIX = f"{(sys.argv[1:] or ['/opt/seedcore'])[0]}/"


def line(directory: Path) -> str:
    """Return the line of one process; empty if it has ended or is not of the deployment."""
    try:
        words = (directory / "cmdline").read_bytes().decode("utf-8", "replace").split("\0")
        fields = (directory / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return ""
    name = words[0]
    if name.startswith("ray::"):
        # The name of an actor's process contains the running method; idle workers start and end by themselves.
        name = name.split(".")[0]
    mine = name.startswith(PREFIX) or (name.startswith("ray::") and name != "ray::IDLE")
    return f"{directory.name} {fields[19]} {name}" if mine else ""


print("\n".join(sorted(filter(None, map(line, (path for path in Path("/proc").iterdir() if path.name.isdigit()))))))  # noqa: T201
