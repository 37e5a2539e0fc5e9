"""Whether the GCS cannot open its own store: only its log says so, while systemd calls the unit active."""

from __future__ import annotations

import re
from pathlib import Path

LOG_NAME = "gcs_server.out"
_TAIL_BYTES = 64 * 1024
# What Ray 2.60 writes before it aborts. A newer start has a log of its own.
_CANNOT_OPEN = re.compile(rb"rocksdb_store_client\.cc.*Check failed: open_status\.ok\(\)\s*(.*)")


def damage(logs: Path | None) -> str | None:
    """Return why the GCS of the last start on this host could not open its store, None if it could or nobody knows.

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
    return found[-1].decode(errors="replace").strip() or "no cause is told" if found else None
