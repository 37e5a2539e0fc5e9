"""The routing table for clients: the organ of each task type, and its ready processes."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import Mapping
from typing import Any


class TableNews:
    """The present table, and a way to wait for its next change.

    A table is ``{"state": str, "why": str, "by_type": {type: organ id}, "by_domain": {domain: {type: organ id}},
    "organs": {organ id: {"task_timeout_s": float, "why": str, "replicas": [{"handle", "capacity", "epoch"}]}}}``.
    ``replicas`` lists the ready ones, ``why`` tells why there is none.
    """

    def __init__(self) -> None:
        # A new Coordinator process must never use the epoch of an old one's table.
        self._boot = uuid.uuid4().hex[:12]
        self._number = 0
        self._table: Mapping[str, Any] = {}
        self._changed = asyncio.Event()

    @property
    def epoch(self) -> str:
        """Return the id of the table, which changes whenever the table does."""
        return f"{self._boot}.{self._number}"

    def publish(self, table: Mapping[str, Any]) -> None:
        """Set the table; wake waiters only if it has changed."""
        if table != self._table:
            self._table = table
            self._number += 1
            self._changed.set()
            self._changed = asyncio.Event()

    async def wait(self, epoch: str | None, max_wait_s: float) -> dict[str, Any]:
        """Return the table once its ``epoch`` differs from the given one, or after ``max_wait_s`` seconds."""
        if epoch == self.epoch:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max_wait_s):
                    await self._changed.wait()
        return {"epoch": self.epoch, **self._table}
