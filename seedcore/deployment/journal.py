"""The journal of the supervisor's actions and their reasons: one JSON document per line, limited in size."""

from __future__ import annotations

import json
import logging
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)

FILE_NAME = "supervisor.jsonl"
MAX_BYTES = 1024 * 1024


class Journal:
    """Append to ``supervisor.jsonl``; a full file is renamed to ``supervisor.jsonl.1``.

    Args:
        directory: An existing directory.
        max_bytes: Size limit of each of the two files.
    """

    def __init__(self, directory: Path, *, max_bytes: int = MAX_BYTES) -> None:
        self._path = directory / FILE_NAME
        self._max_bytes = max_bytes

    def write(self, event: str, **facts: Any) -> None:
        """Append one line; a write error does not stop the supervisor."""
        at = datetime.now(UTC).isoformat(timespec="milliseconds")
        line = json.dumps({"at": at, "event": event, **facts}, default=str).encode() + b"\n"
        try:
            self._rotate(len(line))
            descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            try:
                os.write(descriptor, line)
            finally:
                os.close(descriptor)
        except OSError as error:
            logger.warning("cannot write the journal: path=%s error=%s", self._path, error.strerror)

    def _rotate(self, more: int) -> None:
        try:
            size = self._path.stat().st_size
        except FileNotFoundError:
            return
        if size + more > self._max_bytes:
            self._path.replace(self._path.with_name(f"{FILE_NAME}.1"))
