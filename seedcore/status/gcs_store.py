"""Detect from its log that the GCS cannot open its store; systemd reports the unit active meanwhile."""

from __future__ import annotations

import re
from pathlib import Path

LOG_NAME = "gcs_server.out"
_TAIL_BYTES = 64 * 1024
# The line that Ray 2.60 logs before it aborts. Each start has its own log.
_CANNOT_OPEN = re.compile(rb"rocksdb_store_client\.cc.*Check failed: open_status\.ok\(\)\s*(.*)")


def damage(logs: Path | None) -> str | None:
    """Return why the last GCS on this host could not open its store; None if it could, or if that is unknown.

    Args:
        logs: Directory of the logs of Ray's last session on this host.
    """
    if logs is None:
        return None
    try:
        with (logs / LOG_NAME).open("rb") as stream:
            size = stream.seek(0, 2)
            stream.seek(max(0, size - _TAIL_BYTES))
            found = _CANNOT_OPEN.findall(stream.read())
    except OSError:
        return None
    return found[-1].decode(errors="replace").strip() or "no cause in the log" if found else None
