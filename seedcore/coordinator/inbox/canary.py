"""Prove again and again that the inbox completes what it accepts.

A canary is a durable task of our own: it is stored, claimed, sent to an organ, taken to the thread of an agent (but not
to its code), answered, and recorded. Then its row is deleted. It needs no free agent, so a busy organ is no fault.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
from collections.abc import Callable, Iterable

from seedcore.coordinator.inbox.decisions import State
from seedcore.coordinator.inbox.messages import Conflict, NewTask, lane_of
from seedcore.coordinator.inbox.schema import now_ms
from seedcore.coordinator.inbox.session import Session
from seedcore.core.errors import InboxUnavailableError
from seedcore.core.task import CANARY

logger = logging.getLogger(__name__)

FIRST_S = 2.0
EVERY_S = 30.0
AGAIN_S = 5.0
"""After one that has not come back."""
WITHIN_S = 20.0


class Canary:
    """Send canaries, and remember whether the last ones came back.

    Args:
        session: Returns the open session, None if there is none.
        organs: Returns the ids of the organs that can begin tasks now.
        is_settled: Tells whether the organs are those of this release; others do not know what a canary is.

    Attributes:
        fault: Why the last ones have not come back, empty if they have.
        seconds: How long the slowest of the last ones took; None if there was none.
    """

    def __init__(
        self,
        session: Callable[[], Session | None],
        organs: Callable[[], Iterable[str]],
        is_settled: Callable[[], bool],
    ) -> None:
        self._session = session
        self._organs = organs
        self._is_settled = is_settled
        self.fault = ""
        self.seconds: float | None = None

    async def watch(self) -> None:
        """Send one through every organ, for ever."""
        pause_s = FIRST_S
        while True:
            await asyncio.sleep(pause_s)
            session = self._session()
            if session is None or not self._is_settled():
                # The status says what is wrong, or that it is changing.
                self.fault, pause_s = "", FIRST_S
                continue
            with contextlib.suppress(InboxUnavailableError):
                await self.send(session, WITHIN_S)
            pause_s = AGAIN_S if self.fault else EVERY_S

    async def send(self, session: Session, timeout_s: float) -> dict[str, float]:
        """Send one through every organ that can begin tasks, and note whether they come back.

        Returns:
            The seconds of each that has come back, by organ.

        Raises:
            InboxUnavailableError: The inbox was closed meanwhile.
        """
        if not self._is_settled():
            return {}
        if any(kind == CANARY for kind, _ in session.counts):
            # The last process has died with them.
            session.counts = {key: count for key, count in session.counts.items() if key[0] != CANARY}
            session.forget(await session.writer.call(session.store.ids_of, CANARY))
        ids = {organ_id: session.next_id() for organ_id in self._organs()}
        try:
            took = await asyncio.gather(*(_one(session, *pair, timeout_s) for pair in ids.items()))
        finally:
            session.forget(list(ids.values()))
        # One that was paused, or whose process has died meanwhile, is told elsewhere.
        still = set(self._organs())
        results = dict(zip(ids, took, strict=True))
        lost = sorted(organ_id for organ_id, seconds in results.items() if seconds is None and organ_id in still)
        done = {organ_id: seconds for organ_id, seconds in results.items() if seconds is not None}
        before, self.fault = self.fault, ""
        if lost:
            self.fault = f"organ {', '.join(lost)} has not done the inbox's own task within {timeout_s:g} s"
        if self.fault and not before:
            logger.error("the inbox accepts tasks and does not complete them: %s", self.fault)
        self.seconds = max(done.values(), default=None)
        return done


async def _one(session: Session, organ_id: str, task_id: int, timeout_s: float) -> float | None:
    """Send one; return how long it took, None if it has not come back in time."""
    began, limit_ms = asyncio.get_running_loop().time(), int(timeout_s * 1000)
    task = NewTask(
        id=task_id,
        key=None,
        digest=hashlib.sha256(CANARY.encode()).digest(),
        type=CANARY,
        lane=lane_of(CANARY, organ_id),
        domain=organ_id,
        body=b'{"params":{}}',
        repeatable=True,
        deadline=now_ms() + limit_ms,
        timeout_ms=limit_ms,
    )
    try:
        async with asyncio.timeout(timeout_s):
            accepted = await session.pump.add(task)
            told = None if isinstance(accepted, Conflict) else await session.wait(task_id, timeout_s, now=accepted)
    except TimeoutError:
        return None
    is_done = told is not None and told.state is State.DONE
    return round(asyncio.get_running_loop().time() - began, 4) if is_done else None
