"""The organ's side of batches: answers go back as they are ready, so a slow task does not delay a quick one."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

# A reply waits this long for the next answer, and this long in total, counted from its first answer.
QUIET_S = 0.002
MAX_LINGER_S = 0.02
# An answer that is not fetched is dropped this long after its task's deadline.
UNCOLLECTED_S = 30.0
_DRAIN_POLL_S = 0.01

Answers = list[tuple[int, dict[str, Any]]]
"""Pairs of a task's place in the batch and its answer."""


class Batch:
    """Collect the answers of a batch's tasks.

    Args:
        size: Number of tasks.
    """

    def __init__(self, size: int) -> None:
        self.left = size
        self._answers: Answers = []
        self._some = asyncio.Event()
        self._all = asyncio.Event()

    def add(self, index: int, answer: dict[str, Any]) -> None:
        """Add the answer of one task."""
        self._answers.append((index, answer))
        self.left -= 1
        self._some.set()
        if not self.left:
            self._all.set()

    async def harvest(self, max_wait_s: float) -> Answers:
        """Return the new answers; wait for the first, and a moment for the others."""
        if self.left:
            await _wait(self._some, max_wait_s)
            deadline = asyncio.get_running_loop().time() + MAX_LINGER_S
            while self.left and self._answers and asyncio.get_running_loop().time() < deadline:
                before = len(self._answers)
                await _wait(self._all, QUIET_S)
                if len(self._answers) == before:
                    break
        answers, self._answers = self._answers, []
        self._some.clear()
        return answers


class Batches:
    """Batches with pending answers, by the id with which the caller fetches them."""

    def __init__(self) -> None:
        self._batches: dict[int, tuple[Batch, asyncio.TimerHandle]] = {}
        self._next_id = 1

    async def drain(self, timeout_s: float) -> None:
        """Wait until all ready answers have been fetched."""
        deadline = asyncio.get_running_loop().time() + timeout_s
        while self._batches and asyncio.get_running_loop().time() < deadline:  # noqa: ASYNC110 - seldom, and short
            await asyncio.sleep(_DRAIN_POLL_S)

    async def reply(self, batch: Batch, max_wait_s: float, *, lifetime_s: float) -> dict[str, Any]:
        """Wait for answers; the reply has the id for the rest, or None.

        Args:
            batch: The tasks.
            max_wait_s: Seconds to wait for the first answer.
            lifetime_s: Seconds until the last task is answered at the latest.
        """
        answers = await batch.harvest(max_wait_s)
        if not batch.left:
            return {"answers": answers, "rest": None}
        number, self._next_id = self._next_id, self._next_id + 1
        loop = asyncio.get_running_loop()
        expiry = loop.call_later(lifetime_s + UNCOLLECTED_S, self._batches.pop, number, None)
        self._batches[number] = (batch, expiry)
        return {"answers": answers, "rest": number}

    async def collect(self, number: int, max_wait_s: float) -> dict[str, Any]:
        """Wait for more answers of a batch; ``lost`` means that there is no such batch any more."""
        entry = self._batches.get(number)
        if entry is None:
            return {"answers": [], "rest": None, "lost": True}
        batch, expiry = entry
        answers = await batch.harvest(max_wait_s)
        if batch.left:
            return {"answers": answers, "rest": number}
        expiry.cancel()
        self._batches.pop(number, None)
        return {"answers": answers, "rest": None}


async def _wait(event: asyncio.Event, timeout_s: float) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(timeout_s):
            await event.wait()
