"""The routing table that clients get: which organ takes what, and which living processes do its work."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Mapping
from typing import Any


class TableNews:
    """The table as it is now, and its next change for whoever waits for it.

    A table is ``{"state": str, "why": str, "by_type": {type: organ id}, "by_domain": {domain: {type: organ id}},
    "organs": {organ id: {"task_timeout_s": float, "why": str, "replicas": [{"handle", "capacity", "epoch"}]}}}``.
    ``replicas`` has those that can work now, ``why`` says why there is none.
    """

    def __init__(self) -> None:
        # Another Coordinator, or the next process of this one, must not seem to have the same table.
        self._boot = uuid.uuid4().hex[:12]
        self._number = 0
        self._table: Mapping[str, Any] = {}
        self._changed = asyncio.Event()

    @property
    def epoch(self) -> str:
        """Names the table: it is another one whenever the table is."""
        return f"{self._boot}.{self._number}"

    def publish(self, table: Mapping[str, Any]) -> None:
        """Set the table; whoever waits is told only if it is another one."""
        if table != self._table:
            self._table = table
            self._number += 1
            self._changed.set()
            self._changed = asyncio.Event()

    async def wait(self, epoch: str | None, max_wait_s: float) -> dict[str, Any]:
        """Return the table with its ``epoch``, as soon as that is not ``epoch``, or after ``max_wait_s`` seconds."""
        if epoch == self.epoch:
            changed = self._changed
            try:
                async with asyncio.timeout(max_wait_s):
                    await changed.wait()
            except TimeoutError:
                pass
        return {"epoch": self.epoch, **self._table}
