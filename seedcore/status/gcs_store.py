"""Detect from its log that the GCS cannot use its store; systemd reports the unit active meanwhile.

The program that runs before each start of Ray (``prepare_ray_node.py``) moves a corrupt store aside.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

# A node writes at least this much when it starts; a user other than root cannot use the blocks that are reserved.
FULL_BYTES = 1024 * 1024
_TAIL_BYTES = 64 * 1024
# The line that Ray 2.60 logs before it aborts, because it could not open, read or write.
_CHECK_FAILED = re.compile(rb"rocksdb_store_client\.cc.*Check failed: \w*status\.ok\(\)\s*(.*)")
_NO_SPACE = re.compile(r"No space left on device|Disk quota exceeded")


def damage(logs: Path | None) -> str | None:
    """Return why the last GCS on this host could not use its store; None if it could, or if that is unknown.

    Args:
        logs: Directory of the logs of Ray's last session on this host.
    """
    found = None if logs is None else _CHECK_FAILED.findall(_last_log(logs))
    return found[-1].decode(errors="replace").strip() or "no cause in the log" if found else None


def _last_log(logs: Path) -> bytes:
    """Return the end of what the last GCS wrote: a head that starts again has the session of its stored state."""
    try:
        newest = max(logs.glob("gcs_server*.out"), key=lambda path: path.stat().st_mtime_ns)
        # A GCS that aborts may have written the line to one of its files only.
        return b"\n".join(_end(path) for path in (newest, newest.with_suffix(".err")) if path.exists())
    except (OSError, ValueError):
        return b""


def _end(path: Path) -> bytes:
    with path.open("rb") as stream:
        size = stream.seek(0, 2)
        stream.seek(max(0, size - _TAIL_BYTES))
        return stream.read()


def full_disk(cause: str | None, *directories: Path | None) -> str | None:
    """Return what is known about a full disk: the cause that the store gave, or the directory whose disk is full."""
    if cause is not None and _NO_SPACE.search(cause):
        return cause
    for directory in directories:
        try:
            free = None if directory is None else shutil.disk_usage(directory).free
        except OSError:
            continue
        if free is not None and free < FULL_BYTES:
            return f"the disk of {directory} has {free} bytes free"
    return None
