"""Gather what comes up, hand it to the writer thread as one turn, and tell the results once they are on disk.

While one turn is in the thread, the next one gathers. So the number of transactions does not grow with the load, only
their size.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol, TypeVar

from seedcore.coordinator.inbox.messages import Claimed, Conflict, Ending, NewTask, Refused, Room, Told, Turn, Turned
from seedcore.coordinator.inbox.planning import Lateness
from seedcore.coordinator.inbox.schedules import Schedules
from seedcore.coordinator.inbox.schema import now_ms
from seedcore.coordinator.inbox.writer import Writer
from seedcore.core.errors import Executed, InboxUnavailableError, TaskError

T = TypeVar("T")
MOST_AT_ONCE = 500
BEAT_S = 5.0
"""Without anything else to do, a turn renews the ownership this often."""
TIDY_S = 60.0
LOOK_S = 10.0
RETRY_AFTER_S = 1.0


class Store(Protocol):
    """What the pump needs of a store; all of it is called in the writer thread."""

    def turn(self, turn: Turn, /) -> Turned:
        """Do everything of one turn, durably."""

    def ready_since(self) -> dict[str, int]:
        """Return since when the oldest ready task of each queue has waited, in milliseconds since 1970."""

    def tidy(self) -> int:
        """Delete some of what has ended long ago; return how much."""

    def on_schedules(self, work: Callable[[Schedules, int], Any], /) -> Any:
        """Do something with the schedules, durably."""


class Floor(Protocol):
    """Where the work is done."""

    def rooms(self, lanes: frozenset[str], /) -> list[Room]:
        """Return the organ processes that can take tasks of these queues now."""

    def take(self, room: Room, claimed: list[Claimed], /) -> None:
        """Begin tasks that an organ process has got."""

    def cancel(self, task_id: int, /) -> None:
        """Ask the process that has a task to cancel it."""

    def recorded(self, ending: Ending, /) -> None:
        """Learn that the outcome of an attempt is on disk, or that it does not count any more."""


class Pump:
    """The turns of one epoch.

    Args:
        writer: The thread.
        store: The store, which is open.
        floor: Where the work is done.
        lanes: Queues that have ready tasks.
        told: Called for each change of a task that somebody may wait for.
        clock: Gives the milliseconds since 1970.
    """

    def __init__(
        self,
        writer: Writer,
        store: Store,
        floor: Floor,
        *,
        lanes: frozenset[str],
        told: Callable[[Told], None],
        clock: Callable[[], int] = now_ms,
    ) -> None:
        self._writer = writer
        self._store = store
        self._floor = floor
        self._told = told
        self._clock = clock
        self._wake = asyncio.Event()
        self._new: deque[tuple[NewTask, asyncio.Future[Told | Conflict]]] = deque()
        self._endings: deque[tuple[Ending, asyncio.Future[Told | Refused | None] | None]] = deque()
        self._works: deque[tuple[Callable[[Schedules, int], Any], asyncio.Future[Any]]] = deque()
        self._due_ms: int | None = None
        self.is_closed = False
        self.lanes = set(lanes)
        self.idle_since: dict[str, float] = dict.fromkeys(lanes, time.monotonic())
        """Since when each queue with ready tasks has given none to an organ; monotonic."""
        self.ready_since: Mapping[str, int] = {}
        """Since when the oldest ready task of each queue has waited; milliseconds since 1970, at most LOOK_S old."""
        self.late: list[Lateness] = []
        """How late each schedule is; at most LOOK_S old."""
        self.last: Turned | None = None
        self.busy_since: float | None = None
        """When the turn that is in the thread has begun, or the oldest one that should have; monotonic."""

    def add(self, task: NewTask) -> asyncio.Future[Told | Conflict]:
        """Store a task; the future has a result when it is on disk."""
        future: asyncio.Future[Told | Conflict] = asyncio.get_running_loop().create_future()
        self._check_open()
        self._new.append((task, future))
        self._wake.set()
        return future

    def end(self, ending: Ending) -> None:
        """Record what has happened to a task."""
        if not self.is_closed:
            self._endings.append((ending, None))
            self._wake.set()

    def order(self, ending: Ending) -> asyncio.Future[Told | Refused | None]:
        """Record what a person has decided; the future has a result when it is on disk."""
        future: asyncio.Future[Told | Refused | None] = asyncio.get_running_loop().create_future()
        self._check_open()
        self._endings.append((ending, future))
        self._wake.set()
        return future

    def on_schedules(self, work: Callable[[Schedules, int], T]) -> asyncio.Future[T]:
        """Do something with the schedules between two turns; the future has a result when it is on disk."""
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._check_open()
        self._works.append((work, future))
        self._wake.set()
        return future

    def look(self) -> None:
        """Look whether an organ has got room."""
        if self.lanes:
            self._wake.set()

    async def run(self) -> None:
        """Make turns until one fails.

        Raises:
            FencedError: Another process has taken over.
            Exception: The store cannot be relied on any more.
        """
        next_look = asyncio.get_running_loop().time()
        next_tidy = next_look + TIDY_S
        try:
            while True:
                is_due = await self._pause()
                has_changed = await self._work()
                await self._turn(is_due=is_due or has_changed)
                if asyncio.get_running_loop().time() >= next_look:
                    self.ready_since = await self._writer.call(self._store.ready_since) if self.lanes else {}
                    self.late = await self._writer.call(self._store.on_schedules, Schedules.late)
                    next_look = asyncio.get_running_loop().time() + LOOK_S
                if asyncio.get_running_loop().time() >= next_tidy and not (self._new or self._endings):
                    deleted = await self._writer.call(self._store.tidy)
                    next_tidy = asyncio.get_running_loop().time() + (0.0 if deleted else TIDY_S)
        finally:
            self._close()

    async def _pause(self) -> bool:
        """Wait until there is something to do, and until all that comes up in this turn of the loop is there.

        Returns:
            Whether a turn is due, even if nothing has come up.
        """
        wait_s = BEAT_S
        if self._due_ms is not None:
            wait_s = min(wait_s, max(0.0, (self._due_ms - self._clock()) / 1000 + 0.001))
        is_due = True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                await self._wake.wait()
                is_due = False
        self._wake.clear()
        await asyncio.sleep(0)
        return is_due

    async def _work(self) -> bool:
        """Do what somebody asks of the schedules; return whether there was anything."""
        has_changed = bool(self._works)
        while self._works:
            work, future = self._works.popleft()
            try:
                result = await self._writer.call(self._store.on_schedules, work)
            except TaskError as error:
                # It is refused, and nothing was done.
                if not future.done():
                    future.set_exception(error)
            except BaseException:
                _fail([(work, future)], "unknown")
                raise
            else:
                _settle(future, result)
        return has_changed

    async def _turn(self, *, is_due: bool) -> None:
        new = [self._new.popleft() for _ in range(min(MOST_AT_ONCE, len(self._new)))]
        endings = [self._endings.popleft() for _ in range(min(MOST_AT_ONCE, len(self._endings)))]
        lanes = self.lanes | {task.lane for task, _ in new}
        rooms = self._floor.rooms(frozenset(lanes)) if lanes else []
        if not (new or endings or rooms or is_due):
            return
        turn = Turn([task for task, _ in new], [ending for ending, _ in endings], rooms)
        self.busy_since = time.monotonic()
        try:
            turned = await self._writer.call(self._store.turn, turn)
        except BaseException:
            _fail((*new, *endings), "unknown")
            raise
        self.busy_since = None
        self.last, self._due_ms = turned, turned.next_due_ms
        self.lanes |= turned.lanes
        for room, claimed in zip(rooms, turned.claimed, strict=True):
            if len(claimed) < room.tasks:
                self.lanes.difference_update(room.lanes)
        self._note_idle(rooms, turned)
        self._tell(new, endings, turned)
        for task_id in turned.cancelling:
            self._floor.cancel(task_id)
        for room, claimed in zip(rooms, turned.claimed, strict=True):
            if claimed:
                self._floor.take(room, claimed)
        if self._new or self._endings or self._works or turned.lanes - lanes:
            self._wake.set()

    def _tell(
        self,
        new: list[tuple[NewTask, asyncio.Future[Told | Conflict]]],
        endings: list[tuple[Ending, asyncio.Future[Told | Refused | None] | None]],
        turned: Turned,
    ) -> None:
        for (_, accepted), answer in zip(new, turned.accepted, strict=True):
            _settle(accepted, answer)
        for (ending, ordered), outcome in zip(endings, turned.ended, strict=True):
            if ordered is None:
                self._floor.recorded(ending)
            else:
                _settle(ordered, outcome)
            if isinstance(outcome, Told):
                self._told(outcome)
        for told in turned.expired:
            self._told(told)

    def _note_idle(self, rooms: list[Room], turned: Turned) -> None:
        now = time.monotonic()
        moving = {lane for room, claimed in zip(rooms, turned.claimed, strict=True) if claimed for lane in room.lanes}
        before = self.idle_since
        self.idle_since = {lane: now if lane in moving else before.get(lane, now) for lane in self.lanes}

    def _check_open(self) -> None:
        if self.is_closed:
            raise InboxUnavailableError(_ENDED, "no", RETRY_AFTER_S)

    def _close(self) -> None:
        self.is_closed = True
        _fail((*self._new, *self._endings, *self._works), "no")
        self._works.clear()
        self._new.clear()
        self._endings.clear()


_ENDED = "the inbox has just stopped working, it is being opened again"


def _fail(waiting: Iterable[tuple[object, asyncio.Future[Any] | None]], executed: Executed) -> None:
    for _, future in waiting:
        if future is not None and not future.done():
            future.set_exception(InboxUnavailableError(_ENDED, executed, RETRY_AFTER_S))


def _settle(future: asyncio.Future[Any], result: Any) -> None:
    if not future.done():
        future.set_result(result)
