"""Move a store aside that the GCS found corrupt."""  # noqa: INP001

from __future__ import annotations

import re
import shutil
import time
from pathlib import Path

KEPT_COPIES = 2
_TAIL_BYTES = 64 * 1024
# The line that Ray 2.60 logs before it aborts, with the words of RocksDB; the library's gcs_store.py reads it, too.
_CORRUPT = re.compile(rb"rocksdb_store_client\.cc.*Check failed: \w*status\.ok\(\)\s*(.*\bCorruption: .*)")


def set_aside(store: Path, logs: Path) -> str:
    """Rename a store that the last GCS found corrupt, so that the next one makes a new one; return a line that says so.

    A full disk, a lock or a permission that is missing is no corruption: the store stays where it is, and "" is
    returned. Of the stores that were moved aside, only the newest are kept. Ray must not run.

    Args:
        store: Directory of the store, ``RAY_gcs_storage_path``.
        logs: Directory of the logs of Ray's last session on this host.

    Raises:
        OSError: The store cannot be renamed.
    """
    found = _CORRUPT.findall(_last_log(logs))
    if not found or not store.is_dir():
        return ""
    place = store.with_name(f"{store.name}-damaged-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}")
    store.rename(place)
    for old in sorted(store.parent.glob(f"{store.name}-damaged-*"))[:-KEPT_COPIES]:
        shutil.rmtree(old, ignore_errors=True)
    cause = found[-1].decode(errors="replace").strip()
    return f"the store of the GCS is damaged, moved it to {place} and start with a new one: {cause}"


def _last_log(logs: Path) -> bytes:
    """Return the end of what the last GCS wrote: a head that starts again has the session of its stored state."""
    try:
        newest = max(logs.glob("gcs_server*.out"), key=lambda path: path.stat().st_mtime_ns)
        # A GCS that aborts may have written the line to one of its files only.
        return b"\n".join(
            path.read_bytes()[-_TAIL_BYTES:] for path in (newest, newest.with_suffix(".err")) if path.exists()
        )
    except (OSError, ValueError):
        return b""
