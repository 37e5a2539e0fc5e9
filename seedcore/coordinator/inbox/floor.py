"""Give durable tasks to the processes of the organs, and find out what became of each.

An answer that has the number of its attempt is the organ's own. Any other one only says that a call has ended (the
process died, or did not answer in time); then the process itself is asked, and as long as it lives it knows.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from ray.exceptions import ActorDiedError

from seedcore.coordinator.http.encode import UnserializableResultError, encode
from seedcore.coordinator.inbox.decisions import Answer
from seedcore.coordinator.inbox.ids import to_text
from seedcore.coordinator.inbox.messages import Claimed, Ending, Leased, Room, lane_of
from seedcore.coordinator.inbox.store import FencedError
from seedcore.core.backoff import Backoff
from seedcore.core.errors import Executed
from seedcore.core.settings import ORGAN_NAME_PREFIX
from seedcore.core.spec import OrganSpec
from seedcore.core.task import CANARY, describe, failure
from seedcore.dispatch.sender import ANSWER_GRACE_S, Call, result

logger = logging.getLogger(__name__)

ASK_TIMEOUT_S = 5.0
_ASK_WAIT_S = 10.0
ASK_AGAIN = Backoff((0.05, 0.2, 1.0, 2.0))
ACK_AFTER_S = 0.5
FENCED = "an organ takes orders of another Coordinator's inbox"
# A task may wait in its organ only where tasks are so short that it does not lose its own time there.
_SHORT = 20.0
_MOST_AT_ONCE = 500

Pair = tuple[int, int]


class ReplicaLike(Protocol):
    """What the floor needs of a :class:`~seedcore.coordinator.replica_supervisor.Replica`."""

    spec: OrganSpec
    handle: Any

    @property
    def name(self) -> str: ...  # noqa: D102

    @property
    def boot(self) -> str | None: ...  # noqa: D102

    @property
    def ready_agents(self) -> int: ...  # noqa: D102

    @property
    def queued(self) -> int: ...  # noqa: D102

    def send(self, call: Call, /) -> None: ...  # noqa: D102


@dataclass(slots=True)
class _Attempt:
    type: str
    until: float  # of the loop's clock: when nobody asks any more
    hint: Executed = "unknown"
    is_asked_for: bool = False


class OrganProcess:
    """One process of an organ, and the attempts that it has.

    Args:
        organ: Name of its actor, without the prefix.
        boot: Identifies the process.
        handle: Its actor; a later process of it has another boot.
    """

    def __init__(self, organ: str, boot: str, handle: Any) -> None:
        self.organ, self.boot, self.handle = organ, boot, handle
        self.held: dict[Pair, _Attempt] = {}
        self.acks: list[Pair] = []
        self.attending: asyncio.Task[None] | None = None

    async def ask(self, verb: str, epoch: int, pairs: Iterable[Pair], wait_s: float = 0.0) -> dict[str, Any]:
        """Ask the process; see :meth:`seedcore.organ.durable.DurableTasks.serve`."""
        named = [(to_text(task_id), attempt) for task_id, attempt in pairs]
        async with asyncio.timeout(wait_s + ASK_TIMEOUT_S):
            reply = await result(self.handle.call.remote((verb, epoch, self.boot, named, wait_s)))
        # The process of an organ of an earlier release answers with something else: it knows of no durable task.
        return reply if isinstance(reply, dict) and "boot" in reply else {"boot": "", "fenced": False, "entries": []}

    async def tell(self, verb: str, epoch: int, pairs: Iterable[Pair]) -> None:
        """Ask without an answer; a failure changes nothing, because the process has gone, or will be told again."""
        try:
            await self.ask(verb, epoch, pairs)
        except Exception as error:
            logger.debug("an organ was not reached: %s", describe(error))


class WorkFloor:
    """All attempts of one epoch.

    Args:
        epoch: The epoch of the inbox.
        replicas: Returns the processes to which tasks may be sent now.
        end: Records an outcome; :meth:`recorded` is called when it is on disk.
        failed: Called with the error that ends the epoch: an organ knows of a newer one, or there is a bug.
    """

    def __init__(
        self,
        epoch: int,
        *,
        replicas: Callable[[], Iterable[ReplicaLike]],
        end: Callable[[Ending], None],
        failed: Callable[[BaseException], None],
    ) -> None:
        self.epoch = epoch
        self._replicas = replicas
        self._end = end
        self._failed = failed
        self._loop = asyncio.get_running_loop()
        self._processes: dict[tuple[str, str], OrganProcess] = {}
        self._by_task: dict[int, OrganProcess] = {}
        self._mean_s: dict[str, float] = {}
        self._acks: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        self._is_closed = False
        self.adopted = {"running": 0, "answered": 0, "never": 0, "unknown": 0}

    def rooms(self, lanes: frozenset[str]) -> list[Room]:
        """Return the processes that can take tasks of these queues now."""
        rooms = []
        for replica in self._replicas():
            spec, boot = replica.spec, replica.boot
            if boot is not None and replica.handle is not None and (own := canary_lane(spec)) in lanes:
                # It needs no seat.
                organ = replica.name.removeprefix(ORGAN_NAME_PREFIX)
                rooms.append(Room(organ, boot, (own,), 1, int(spec.task_timeout_s * 1000), replica))
            taken = tuple(lane for lane in lanes_of(spec) if lane in lanes)
            if not taken or boot is None or replica.handle is None:
                continue
            organ = replica.name.removeprefix(ORGAN_NAME_PREFIX)
            process = self._processes.get((organ, boot))
            seats = replica.ready_agents * spec.max_concurrency
            if self._mean_s.get(spec.id, spec.task_timeout_s) * _SHORT < spec.task_timeout_s:
                seats += max(0, min(seats, spec.queue_limit - replica.queued))
            room = min(_MOST_AT_ONCE, seats - (len(process.held) if process else 0))
            if room > 0:
                rooms.append(Room(organ, boot, taken, room, int(spec.task_timeout_s * 1000), replica))
        return rooms

    def take(self, room: Room, claimed: list[Claimed]) -> None:
        """Send tasks to the process that has got them."""
        replica: ReplicaLike = room.process
        process = self._process(room.organ, room.boot, replica.handle)
        for task in claimed:
            limit_s = task.timeout_ms / 1000
            until = self._loop.time() + limit_s + 2 * ANSWER_GRACE_S
            self._hold(process, (task.id, task.attempt), _Attempt(task.type, until))
            document = {
                **json.loads(task.body),
                "type": task.type,
                "domain": task.domain,
                "id": to_text(task.id),
                "timeout_s": None,
                "key": task.key,
                "attempt": task.attempt,
                "ticket": (self.epoch, room.boot),
            }
            replica.send(Call(document, limit_s, self._answered(process, replica.spec.id, task), size=len(task.body)))

    def adopt(self, process: OrganProcess, leased: Iterable[Leased], entries: Iterable[list[Any]], now_ms: int) -> None:
        """Take over the attempts of an earlier epoch in a process that has told what it knows of them."""
        process = self._processes.setdefault((process.organ, process.boot), process)
        for one in leased:
            until = self._loop.time() + max(0.0, (one.until - now_ms) / 1000)
            self._hold(process, (one.id, one.attempt), _Attempt("unknown", until))
        told = {(task_id, attempt) for task_id, attempt, *_ in entries}
        self._learn(process, entries, is_adoption=True)
        for one in leased:
            if (to_text(one.id), one.attempt) not in told:
                self.adopted["unknown"] += 1
                self._lose(process, (one.id, one.attempt))
        self._attend(process)

    def lose(self, leased: Iterable[Leased]) -> None:
        """Record that nobody knows what became of attempts, because their process has gone for good."""
        for one in leased:
            self.adopted["unknown"] += 1
            self._end(_lost(one.organ, (one.id, one.attempt), "unknown"))

    def cancel(self, task_id: int) -> None:
        """Ask the process that has a task to cancel it; the outcome is what it answers."""
        process = self._by_task.get(task_id)
        if process is not None:
            pairs = [pair for pair in process.held if pair[0] == task_id]
            self._spawn(process.tell("cancel", self.epoch, pairs))

    def recorded(self, ending: Ending) -> None:
        """Let the process forget an attempt whose outcome is on disk."""
        if not isinstance(ending.event, Answer):
            return
        process = self._by_task.get(ending.id)
        pair = (ending.id, ending.event.attempt)
        if process is None or pair not in process.held:
            return
        del process.held[pair], self._by_task[ending.id]
        process.acks.append(pair)
        if self._acks is None:
            self._acks = self._loop.call_later(ACK_AFTER_S, self._acknowledge)

    def close(self) -> None:
        """Ask nothing more; what is under way in the organs goes on there."""
        self._is_closed = True
        if self._acks is not None:
            self._acks.cancel()
        for task in self._tasks:
            task.cancel()

    def _answered(self, process: OrganProcess, organ_id: str, task: Claimed) -> Callable[[dict[str, Any]], None]:
        began = self._loop.time()
        pair = (task.id, task.attempt)

        def done(answer: dict[str, Any]) -> None:
            attempt = process.held.get(pair)
            if self._is_closed or attempt is None:
                return
            if answer.get("attempt") == task.attempt:
                if task.type != CANARY:
                    seconds = self._loop.time() - began
                    mean = self._mean_s.setdefault(organ_id, seconds)
                    self._mean_s[organ_id] = mean + (seconds - mean) / 16
                self._record(pair, answer)
                return
            attempt.hint, attempt.is_asked_for = answer.get("executed", "unknown"), True
            attempt.until = max(attempt.until, self._loop.time() + ASK_TIMEOUT_S)
            self._attend(process)

        return done

    def _record(self, pair: Pair, answer: Mapping[str, Any]) -> None:
        self._spawn(self._write(pair, answer))

    async def _write(self, pair: Pair, answer: Mapping[str, Any]) -> None:
        """Encode an answer, in slices if it is large, and record it."""
        try:
            text = await encode(answer)
        except UnserializableResultError as error:
            why = f"the task was executed, but its result cannot be stored as JSON: {error}"
            kept = {key: answer[key] for key in ("organ_id", "agent_id", "attempt") if key in answer}
            kind = str(answer.get("task_type"))
            answer = failure(why, error_type=type(error).__name__, task_type=kind, executed="yes", **kept)
            text = await encode(answer)
        self._end(_ending(pair, answer, text))

    def _attend(self, process: OrganProcess) -> None:
        waits = any(one.is_asked_for for one in process.held.values())
        if waits and (process.attending is None or process.attending.done()) and not self._is_closed:
            process.attending = self._spawn(self._ask(process))

    async def _ask(self, process: OrganProcess) -> None:
        """Ask a process about its attempts until the outcome of each is known."""
        failures = 0
        is_fresh = True
        while pairs := [pair for pair, one in process.held.items() if one.is_asked_for]:
            try:
                reply = await process.ask("wait", self.epoch, pairs, 0.0 if is_fresh else _ASK_WAIT_S)
            except ActorDiedError:
                # Others may have been added meanwhile, so the loop goes on.
                self._lose(process, *pairs)
                continue
            except Exception as error:
                # Whatever Ray raises: the process may be starting, or its node may be away.
                is_fresh = True
                failures += 1
                await asyncio.sleep(ASK_AGAIN.delay_s(failures))
                now = self._loop.time()
                late = [pair for pair in pairs if pair in process.held and process.held[pair].until <= now]
                if late:
                    logger.warning("organ %s does not answer: tasks=%d %s", process.organ, len(late), describe(error))
                    self._lose(process, *late)
                continue
            failures = 0
            if reply["fenced"]:
                raise FencedError(FENCED)
            if reply["boot"] != process.boot:
                self._lose(process, *pairs)
                continue
            # Ask for new ones at once: they may be known, though the others still run.
            is_fresh = any(pair not in pairs for pair, one in process.held.items() if one.is_asked_for)
            self._learn(process, reply["entries"])

    def _learn(self, process: OrganProcess, entries: Iterable[list[Any]], *, is_adoption: bool = False) -> None:
        known = {(to_text(task_id), attempt): (task_id, attempt) for task_id, attempt in process.held}
        for name, attempt, what, answer in entries:
            pair = known.get((name, attempt))
            if pair is None:
                continue
            if is_adoption:
                self.adopted[what] += 1
            held = process.held[pair]
            held.is_asked_for = what == "running"
            if what == "answered":
                self._record(pair, answer)
            elif what == "never":
                # At once if the Coordinator has just changed; a process that refuses tasks needs a pause.
                pause_ms = 0 if is_adoption else None
                self._end(Ending(pair[0], Answer(attempt, success=False, executed="no", pause_ms=pause_ms)))

    def _lose(self, process: OrganProcess, *pairs: Pair) -> None:
        for pair in pairs:
            if (held := process.held.get(pair)) is not None:
                held.is_asked_for = False
                self._end(_lost(process.organ, pair, held.hint))

    def _hold(self, process: OrganProcess, pair: Pair, attempt: _Attempt) -> None:
        process.held[pair] = attempt
        self._by_task[pair[0]] = process

    def _process(self, organ: str, boot: str, handle: Any) -> OrganProcess:
        found = self._processes.get((organ, boot))
        if found is None:
            found = self._processes[organ, boot] = OrganProcess(organ, boot, handle)
        return found

    def _acknowledge(self) -> None:
        self._acks = None
        for key, process in list(self._processes.items()):
            acks, process.acks = process.acks, []
            if acks:
                self._spawn(process.tell("ack", self.epoch, acks))
            elif not process.held:
                del self._processes[key]

    def _spawn(self, work: Any) -> asyncio.Task[None]:
        task: asyncio.Task[None] = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            # Without it, tasks would stay leased for ever. The next epoch asks the organs again.
            self._failed(error)


def lanes_of(spec: OrganSpec) -> list[str]:
    """Return the queues that an organ serves."""
    in_domains = [lane_of(kind, domain) for domain, kinds in spec.domains.items() for kind in kinds]
    return [*(lane_of(kind, None) for kind in spec.task_types), *in_domains]


def canary_lane(spec: OrganSpec) -> str:
    """Return the queue of an organ for the inbox's own tasks, see ``canary.py``."""
    return lane_of(CANARY, spec.id)


def _ending(pair: Pair, answer: Mapping[str, Any], text: bytes) -> Ending:
    task_id, attempt = pair
    success = answer.get("success") is True
    executed: Executed = "yes" if success else answer.get("executed", "unknown")
    pause = answer.get("retry_after_s")
    pause_ms = max(1, int(pause * 1000)) if isinstance(pause, int | float) else None
    error_type, error = ("", "") if success else (str(answer.get("error_type")), str(answer.get("error")))
    return Ending(task_id, Answer(attempt, success, executed, pause_ms), text, error_type, error)


def _lost(organ: str, pair: Pair, executed: Executed) -> Ending:
    """Return the end of an attempt whose process has gone."""
    task_id, attempt = pair
    if executed == "no":
        return Ending(task_id, Answer(attempt, success=False, executed="no"))
    text = f"the process of organ {organ} died with the task, so nobody knows whether it was executed"
    answer = failure(text, error_type="OrganUnavailableError", executed="unknown", attempt=attempt)
    event = Answer(attempt, success=False, executed="unknown")
    return Ending(task_id, event, json.dumps(answer).encode(), "OrganUnavailableError", text)
