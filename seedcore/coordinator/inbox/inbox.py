"""The inbox of one Coordinator: open it, open it again when something has failed, and answer its callers."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

from seedcore.coordinator.inbox import documents, ids
from seedcore.coordinator.inbox.canary import Canary
from seedcore.coordinator.inbox.decisions import ENDED, Order, State
from seedcore.coordinator.inbox.floor import canary_lane, lanes_of
from seedcore.coordinator.inbox.health import Condition, judge
from seedcore.coordinator.inbox.messages import Conflict, Ending, Refused
from seedcore.coordinator.inbox.place import InUseError
from seedcore.coordinator.inbox.schema import now_ms
from seedcore.coordinator.inbox.session import Session
from seedcore.coordinator.inbox.store import FencedError, Store
from seedcore.coordinator.inbox.wish import new_task
from seedcore.coordinator.inbox.writer import Writer
from seedcore.coordinator.organ_actors import OrganRuntime
from seedcore.coordinator.organism_manager import OrganismManager
from seedcore.core.errors import (
    InboxUnavailableError,
    KeyConflictError,
    NoTaskError,
    OverloadedError,
    SeedCoreError,
    TaskError,
    WrongStateError,
)
from seedcore.core.reason import Reason
from seedcore.core.schedule import is_over, problems
from seedcore.core.schedule import read as read_schedule
from seedcore.core.spec import OrganismSpec
from seedcore.core.task import CANARY, Task, describe, payload_bytes
from seedcore.core.watchdog import run_for_ever
from seedcore.core.wish import MAX_WAIT_S, Wish

logger = logging.getLogger(__name__)

FIRST_ADOPTION_S = 5.0
REOPEN_AFTER_S = 2.0
FENCED_FOR_S = 30.0
RETRY_AFTER_S = 1.0
MAX_LISTED = 1000
# Above this size, a task is encoded in a thread.
_SMALL_BYTES = 64 * 1024


class Inbox:
    """Accept durable tasks, tell about them, and let people decide about them.

    Ids are text; a document is the plain data that HTTP clients get.

    Args:
        make_store: Makes a store, each time that the inbox is opened.
        place: Where the inbox is, for people.
        runtime: Runs the organs.
        organism: Returns the present organism.
        is_settled: Tells whether the organs are those of this release, and not being changed.
    """

    def __init__(
        self,
        make_store: Callable[[], Store],
        place: str = "sqlite",
        *,
        runtime: OrganRuntime,
        organism: Callable[[], OrganismManager],
        is_settled: Callable[[], bool] = lambda: True,
    ) -> None:
        self._make_store = make_store
        self._place = place
        self._runtime = runtime
        self._organism = organism
        self._session: Session | None = None
        self._life: asyncio.Task[None] | None = None
        self._fault = "it is being opened"
        self._is_in_use = False
        self._held_until = 0.0
        self._spec: OrganismSpec | None = None
        self._canary = Canary(self._unheld_session, lambda: {one.spec.id for one in organism().usable()}, is_settled)

    async def begin(self) -> None:
        """Open it; return when the organs that answer have told what became of their tasks, or after a time."""
        adopted = asyncio.Event()
        self._life = run_for_ever(self._live(adopted.set), name="inbox")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FIRST_ADOPTION_S):
                await adopted.wait()

    async def close(self) -> None:
        """Close it in good order."""
        if self._life is not None:
            self._life.cancel()
            await asyncio.wait({self._life})

    async def watch(self) -> None:
        """Prove again and again that it completes what it accepts, for ever; :meth:`judge` has the result."""
        await self._canary.watch()

    async def prove(self, timeout_s: float) -> dict[str, Any]:
        """Send a task of our own through it and every organ that can begin tasks.

        Returns:
            ``{"seconds": {organ id: float}, "fault": str}``; the fault is empty if all came back.

        Raises:
            InboxUnavailableError: It is not open.
        """
        seconds = await self._canary.send(self._open_session(), timeout_s)
        return {"seconds": seconds, "fault": self._canary.fault}

    async def submit(self, raw: Mapping[str, Any], task: Task) -> dict[str, Any]:
        """Accept a task.

        Raises:
            TaskError | KeyConflictError | OverloadedError | InboxUnavailableError: It was not accepted, or, if the
                error says ``executed: unknown``, nobody knows.
        """
        wish = Wish.parse(raw, task)
        session = self._open_session()
        if asyncio.get_running_loop().time() < self._held_until:
            raise InboxUnavailableError("the Coordinator is being replaced", retry_after_s=RETRY_AFTER_S)
        last = session.pump.last
        if last is not None and last.is_full:
            raise OverloadedError(f"the inbox is full: {last.is_full}", retry_after_s=10.0)
        organ_id = self._organism().route(task.type, task.domain)
        spec = next(organ for organ in self._organism().spec.organs if organ.id == organ_id)
        in_domain = task.domain is not None and task.type in spec.domains.get(task.domain, ())
        is_small = payload_bytes(task.params, limit=_SMALL_BYTES) <= _SMALL_BYTES
        values: dict[str, Any] = {
            "task_id": session.next_id(), "in_domain": in_domain, "repeatable": spec.repeatable, "now": now_ms()
        }  # fmt: skip
        new = new_task(task, wish, **values) if is_small else await asyncio.to_thread(new_task, task, wish, **values)
        told = await session.pump.add(new)
        if isinstance(told, Conflict):
            text = f"the key {wish.key!r} belongs to task {ids.to_text(told.id)}"
            raise KeyConflictError(f"{text}, which has another type, domain or params")
        if wish.wait_s is None:
            return documents.acceptance(told)
        if told.state not in ENDED:
            known = None if told.duplicate else told
            later = await session.wait(told.id, min(wish.wait_s, MAX_WAIT_S), now=known)
            if later is None or later.state not in ENDED:
                return documents.acceptance(told)
            told = later
        return documents.answer(told, task_type=task.type)

    async def show(self, task_id: str, wait_s: float = 0.0) -> dict[str, Any] | None:
        """Return everything about a task once it has ended or after ``wait_s``; None if there is none."""
        session = self._open_session()
        number = ids.parse(task_id)
        if number is None:
            return None
        if wait_s > 0:
            await session.wait(number, min(wait_s, MAX_WAIT_S))
        row = await session.writer.call(session.store.read, number)
        return None if row is None else documents.shown(row)

    async def find(
        self, *, states: Sequence[str] = (), kind: str | None = None, since_s: float | None = None, limit: int = 100
    ) -> list[dict[str, Any]]:
        """Return the newest tasks in these states (all, if there are none), without their content."""
        session = self._open_session()
        words = {state.word: state for state in State}
        chosen = [words[word] for word in states] or list(State)
        since = 0 if since_s is None else now_ms() - int(since_s * 1000)
        limit = max(1, min(limit, MAX_LISTED))
        rows = await session.writer.call(session.store.find, chosen, kind, since, limit)
        return [documents.listed(row) for row in rows]

    async def decide(self, task_id: str, verb: str, *, by: str) -> dict[str, Any]:
        """Let a person decide about a task.

        Raises:
            TaskError: There is no such task, or its state does not allow it.
        """
        session = self._open_session()
        number = ids.parse(task_id)
        outcome = None
        if number is not None:
            outcome = await session.pump.order(Ending(number, Order(cast("Any", verb)), by=by))
        if number is None or outcome is None or (isinstance(outcome, Refused) and outcome.state is None):
            raise NoTaskError(f"there is no durable task {task_id!r}")
        if isinstance(outcome, Refused):
            state = cast("State", outcome.state).word
            raise WrongStateError(f"task {task_id} is {state}; {verb} {_NEEDS[verb]}")
        logger.info("task %s is %s after %s by %r", ids.to_text(outcome.id), outcome.state.word, verb, by)
        if outcome.state is State.LEASED:
            session.floor.cancel(number)
        return {"id": task_id, "state": outcome.state.word, "executed": outcome.executed}

    async def schedules(self) -> list[dict[str, Any]]:
        """Return all schedules."""
        session = self._open_session()
        rows = await session.pump.on_schedules(lambda table, _: table.all())
        return [documents.schedule(row) for row in rows]

    async def put_schedule(self, raw: Any, *, by: str) -> dict[str, Any]:
        """Make or change a schedule.

        Raises:
            TaskError: It is wrong, or belongs to organism.yaml.
        """
        session = self._open_session()
        found = await asyncio.to_thread(problems, raw)
        if found:
            raise TaskError("; ".join(problem.text for problem in found))
        spec = read_schedule(raw)
        if spec.at is not None and is_over(spec, now_ms()):
            raise TaskError(f"at is {spec.at!r}, which is in the past; expected a moment that is to come")
        task = Task.parse(spec.task)
        self._organism().route(task.type, task.domain)
        is_new = await session.pump.on_schedules(lambda table, now: table.put(spec, now))
        logger.info("schedule %s is %s by %r", spec.id, "made" if is_new else "changed", by)
        return {**await self._schedule(session, spec.id), "created": is_new}

    async def change_schedule(self, schedule_id: str, verb: str, *, by: str) -> dict[str, Any]:
        """Pause, resume, delete or run a schedule.

        Raises:
            TaskError: There is no such schedule, or that is not allowed.
        """
        session = self._open_session()
        before = await self._schedule(session, schedule_id)
        task = Task.parse(before["spec"]["task"])
        if verb == "run":
            self._organism().route(task.type, task.domain)
        told = await session.pump.on_schedules(lambda table, now: table.change(schedule_id, verb, now, by))
        logger.info("schedule %s: %s by %r", schedule_id, verb, by)
        if told is not None:
            return documents.acceptance(told)
        return before if verb == "delete" else await self._schedule(session, schedule_id)

    async def _schedule(self, session: Session, schedule_id: str) -> dict[str, Any]:
        rows = await session.pump.on_schedules(lambda table, _: table.all())
        for row in rows:
            if row["id"] == schedule_id:
                return documents.schedule(row)
        raise NoTaskError(f"there is no schedule {schedule_id[:100]!r}")

    async def copy(self) -> dict[str, Any]:
        """Copy it into one file beside it; return the path, the size and the number of tasks by state."""
        session = self._open_session()
        if not hasattr(session.store, "copy"):
            raise TaskError("the inbox is in PostgreSQL: back it up with pg_dump")
        told: dict[str, Any] = await session.writer.call(session.store.copy)
        return told

    def look(self) -> None:
        """Notice that an organ may have got room."""
        if self._session is not None:
            self._session.pump.look()

    def follow(self, spec: OrganismSpec) -> None:
        """Take over the schedules of the organism in use; before the first call, none of them plans a task."""
        self._spec = spec
        if self._session is not None:
            self._session.sync(spec)

    def hold(self, seconds: float) -> None:
        """Accept and begin nothing for a time; who waits is told to ask the next Coordinator."""
        self._held_until = asyncio.get_running_loop().time() + seconds
        if self._session is not None:
            self._session.held_until = self._held_until
            self._session.release_waiters()

    def judge(self) -> tuple[Reason, str] | None:
        """Return what is wrong, if anything is."""
        return judge(self._condition())

    def summary(self) -> dict[str, Any]:
        """Return the part of the status about it."""
        counts: dict[str, int] = {}
        for (_, state), count in self._counts().items():
            counts[state.word] = counts.get(state.word, 0) + count
        session = self._session
        return {
            "store": self._place,
            "is_open": session is not None,
            "epoch": session.epoch if session else None,
            "tasks": {state.word: counts.get(state.word, 0) for state in State},
        }

    def figures(self) -> list[dict[str, Any]]:
        """Return the number of tasks by type and state."""
        return [
            {"task_type": kind, "state": state.word, "count": count}
            for (kind, state), count in sorted(self._counts().items())
        ]

    def late_schedules(self) -> list[dict[str, Any]]:
        """Return for how many seconds each schedule has waited to begin what is due."""
        late = self._session.pump.late if self._session is not None else []
        return [{"schedule": one.id, "seconds": one.seconds} for one in late]

    def canary_s(self) -> float | None:
        """Return how long the slowest of the last canaries took; None if there was none."""
        return self._canary.seconds

    def oldest_s(self) -> float | None:
        """Return for how many seconds the oldest ready task has waited, 0 if none waits; None if it is not open."""
        return None if self._session is None else max(self._waits_s(self._session).values(), default=0.0)

    def _waits_s(self, session: Session) -> dict[str, float]:
        """Return, by queue, for how many seconds its oldest ready task has waited."""
        now = now_ms()
        return {lane: max(0.0, (now - since) / 1000) for lane, since in session.pump.ready_since.items()}

    async def _live(self, adopted: Callable[[], None]) -> None:
        """Keep it open."""
        while True:
            try:
                store = self._make_store()
            except SeedCoreError as error:
                self._note(error)
                adopted()
                await asyncio.sleep(REOPEN_AFTER_S)
                continue
            writer, pause_s = Writer(), REOPEN_AFTER_S
            try:
                opened = await writer.call(store.open)
            except store.faults as error:
                self._is_in_use = isinstance(error, InUseError)
                self._note(error)
                adopted()
                writer.end()
            except asyncio.CancelledError:
                # The thread goes on: what it opens must not stay locked.
                writer.call(store.close)
                writer.end()
                raise
            else:
                self._session = session = Session(
                    writer, store, opened, runtime=self._runtime, replicas=lambda: self._organism().usable()
                )
                session.held_until = self._held_until
                if self._spec is not None:
                    session.sync(self._spec)
                logger.info("the inbox is open: epoch=%d leased=%d", opened.epoch, len(opened.leased))
                self._fault, self._is_in_use = "", False
                try:
                    await session.run(adopted=adopted)
                except Exception as error:
                    # Whatever it is, the database must not be used any more on this connection.
                    self._is_in_use = isinstance(error, FencedError)
                    self._note(error)
                    # Two Coordinators must not take the inbox from each other all the time.
                    pause_s = FENCED_FOR_S if self._is_in_use else REOPEN_AFTER_S
                finally:
                    self._session = None
                    closing = writer.call(store.close)
                    writer.end()
                    with contextlib.suppress(*store.faults):
                        await asyncio.shield(closing)
            await asyncio.sleep(pause_s)

    def _note(self, error: BaseException) -> None:
        text = describe(error)
        if text != self._fault:
            logger.error("the inbox is not open: %s: %s", type(error).__name__, text)
        self._fault = text

    def _unheld_session(self) -> Session | None:
        """Return the session, unless it begins nothing because the Coordinator is being replaced."""
        return None if asyncio.get_running_loop().time() < self._held_until else self._session

    def _open_session(self) -> Session:
        if self._session is None:
            raise InboxUnavailableError(f"the inbox is not open: {self._fault}", retry_after_s=RETRY_AFTER_S)
        return self._session

    def _counts(self) -> Mapping[tuple[str, State], int]:
        session = self._session
        if session is None:
            return {}
        counts = session.pump.last.counts if session.pump.last is not None else session.counts
        return {key: count for key, count in counts.items() if key[0] != CANARY}

    def _condition(self) -> Condition:
        session = self._session
        if session is None:
            return Condition(fault=self._fault, is_in_use=self._is_in_use)
        pump = session.pump
        now = time.monotonic()
        recovering: dict[str, int] = {}
        for (organ, _), count in session.recovering.items():
            recovering[organ] = recovering.get(organ, 0) + count
        known = {lane for organ in self._organism().spec.organs for lane in (*lanes_of(organ), canary_lane(organ))}
        with_room = {lane for room in session.floor.rooms(frozenset(pump.lanes)) for lane in room.lanes}
        return Condition(
            place="the disk of the inbox" if self._place == "sqlite" else f"the database {self._place}",
            busy_s=0.0 if pump.busy_since is None else now - pump.busy_since,
            idle_s={lane: now - since for lane, since in pump.idle_since.items()},
            with_room=with_room,
            known=known,
            recovering=recovering,
            canary=self._canary.fault,
            full=pump.last.is_full if pump.last is not None else "",
            oldest_s=self._waits_s(session),
            late={one.id: one.seconds for one in pump.late if one.is_over_grace},
            parked={kind: count for (kind, state), count in self._counts().items() if state is State.PARKED},
        )


_NEEDS = {
    "retry": "needs one that is parked or failed",
    "done": "needs one that is parked or failed",
    "discard": "needs one that is parked or failed; to end one that waits, cancel it",
    "cancel": "needs one that waits or runs; to end one that is parked or failed, discard it",
}
