"""The Coordinator: a plain class that ``actors.py`` turns into the detached Ray actor ``seedcore_coordinator``.

Its ``async __init__`` awaits the whole initialisation of the organism, so that Ray records a failed creation. Ray runs
no method of an actor before ``__init__`` is over; therefore the HTTP server starts first, on the same event loop, and
reports the progress.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime
from typing import Any

from seedcore.coordinator.activity import Activity
from seedcore.coordinator.bake import Bake
from seedcore.coordinator.builtin_tasks import BUILTINS, Answer, succeeded
from seedcore.coordinator.disks import Disks
from seedcore.coordinator.http.app import create_app
from seedcore.coordinator.http.named_tokens import NamedTokens
from seedcore.coordinator.http.server import HttpServer
from seedcore.coordinator.http.tls import Certificate
from seedcore.coordinator.inbox_view import combine, inbox_of
from seedcore.coordinator.lifecycle import Lifecycle, Phase, Record
from seedcore.coordinator.nodes import NodeList
from seedcore.coordinator.operations import Operations
from seedcore.coordinator.orders import Orders
from seedcore.coordinator.organ_actors import OrganRuntime
from seedcore.core import logs, release
from seedcore.core.errors import AgentStartError, OrganUnavailableError, OverloadedError, TaskError
from seedcore.core.moved import ActorClass
from seedcore.core.reason import Reason, Status
from seedcore.core.settings import Settings
from seedcore.core.spec import OrganismSpec
from seedcore.core.task import BUILTIN_TASK_TYPES, Task, describe, failure, task_type_of
from seedcore.core.task_counters import TaskCounts
from seedcore.core.watchdog import end_process_with_this_loop, run_for_ever
from seedcore.dispatch.routing_table import TableNews

logger = logging.getLogger(__name__)

MAX_IN_FLIGHT = 2_000
BEAT_S = 0.5
# If the event loop has been blocked for this long, its data is stale.
STALE_AFTER_S = 5.0
BIND_TIMEOUT_S = 15.0
NODES_INTERVAL_S = 5.0
NODES_TIMEOUT_S = 10.0
# How long a Coordinator keeps refusing tasks if its planned replacement does not happen.
QUIET_S = 10.0
ANSWERS_LEAVE_S = 0.2
# How long tasks wait for the organs of a Coordinator that has just been restarted or replaced.
STARTS_WITHIN_S = 15.0
REPLACED_WITHIN_S = 5.0
# Built-in task types that are executed by an organ.
_WORK = frozenset({"execute_on_organ", "execute_on_random_organ"})
_COORDINATOR_WORD = {"healthy": "available", "initializing": "unavailable", "unhealthy": "error"}


class Coordinator(metaclass=ActorClass):
    """Entry point of the organism: accept tasks, keep the organs alive, report the status.

    Args:
        spec: ``OrganismSpec.to_dict()``.
        settings: ``Settings.to_dict()``.
        runtime: Runs the organs.
        record: State that outlives the actor's process.
        attempt: Number of attempts of bootstrap to create the Coordinator, this one included.
        restarted: Whether Ray has restarted the actor's process.
        predecessor: The record of the Coordinator that this one replaces, None if it replaces none.

    Raises:
        RuntimeError: ``Coordinator initialization failed: ...``; the cause is attached, nothing is left running.
    """

    async def __init__(  # type: ignore[misc]  # an async __init__ is Ray's idea
        self,
        spec: Mapping[str, Any],
        settings: Mapping[str, Any],
        *,
        runtime: OrganRuntime,
        record: Record,
        attempt: int = 1,
        restarted: bool = False,
        predecessor: Record | None = None,
    ) -> None:
        end_process_with_this_loop()
        logs.configure()
        logger.info("initializing: attempt=%d restarted=%s pid=%d", attempt, restarted, os.getpid())
        self._release = release.release_id()
        self._restarts = int(restarted)
        self._born = time.monotonic()
        self._in_flight = 0
        self._idle = asyncio.Event()
        self._closed_until = 0.0
        self._runtime = runtime
        self._counts = TaskCounts()
        self._table = TableNews()
        self._activity = Activity()
        self._nodes = NodeList()
        own = Settings.from_dict(settings)
        self._orders = Orders(own.state_dir)
        self._disks = Disks(own)
        self._named_tokens = NamedTokens(own.state_dir, own.token)
        self.inbox = inbox_of(own, runtime, lambda: self._life.organism, lambda: self._life.is_settled)
        self._said: tuple[str, str] = ("", "")
        self._since = _now()
        self._life = Lifecycle(
            OrganismSpec.from_dict(spec),
            release=self._release,
            runtime=runtime,
            record=record,
            attempt=attempt,
            on_change=self._renew,
            predecessor=predecessor,
            orders=self._orders,
        )
        self.operations = Operations(self._life, self._nodes, self._orders)
        self._snapshot, self._snapshot_born = self.status(), time.monotonic()
        self._beat = run_for_ever(self._keep_beating(), name="beat")
        self._watches = [
            run_for_ever(self._watch_nodes(), name="nodes"),
            run_for_ever(self._disks.watch(), name="disks"),
            run_for_ever(self._named_tokens.watch(), name="tokens"),
            run_for_ever(self.operations.watch(), name="operations"),
            run_for_ever(self.inbox.watch(), name="canary"),
        ]
        http: HttpServer | None = None
        try:
            # Failing to bind or to read the token is a failed creation as well.
            http = await self._start_http(own)
            await self._orders.load()
            # Organs of another configuration or release are replaced; before that, ask them about durable tasks.
            await self.inbox.begin()
            await self._life.start()
        except Exception as error:
            logger.exception("initialization failed")
            for watch in (self._beat, *self._watches):
                watch.cancel()
            await self.inbox.close()
            if http is not None:
                await http.stop()
            raise RuntimeError(f"Coordinator initialization failed: {error}") from error
        logger.info("initialized: phase=%s seconds=%s", self._life.phase, self._life.init_seconds)

    async def ping(self) -> str:
        """Return ``pong``, whatever state the organs are in."""
        return "pong"

    async def get_status(self) -> dict[str, Any]:
        """Return the last snapshot, at most BEAT_S old, without waiting; never raise.

        It runs on a separate loop, so it can report that the main loop hangs (``stale``).
        """
        snapshot = self._snapshot
        age = time.monotonic() - self._snapshot_born
        if age <= STALE_AFTER_S:
            return {**snapshot, "age_s": round(age, 3)}
        message = f"the Coordinator's event loop has been blocked for {age:.0f} s"
        return {
            **snapshot,
            "age_s": round(age, 3),
            "status": Status.UNHEALTHY.value,
            "reason": Reason.STALE.value,
            "remedy": Reason.STALE.remedy,
            "coordinator": "error",
            "message": message,
            "error": message,
        }

    async def handle(self, task: Any) -> dict[str, Any]:
        """Execute one task; always answer in the documented shape, never raise.

        The Coordinator executes built-in types itself and routes any other task to an organ.
        """
        started = time.monotonic()
        kind = task_type_of(task)
        self._in_flight += 1
        try:
            parsed = Task.parse(task)
            kind = parsed.type
            if _is_durable(task):
                # It is counted where it is executed; its waiter is no work of this process.
                self._answered()
                try:
                    return await self.inbox.submit(task, parsed)
                finally:
                    self._in_flight += 1
            builtin = BUILTINS.get(kind)
            if builtin is None or kind in _WORK:
                await _started(self._life, self._http, parsed)
            if builtin is None:
                # Built-in types have no limit, so that an overloaded Coordinator can still be monitored.
                self._require_room()
                answer = await self._life.organism.dispatch(parsed)
            else:
                result = await builtin(self, self._life, parsed)
                answer = result if isinstance(result, Answer) else succeeded(result, kind, started)
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            # An error must affect only its own task.
            answer = failure(error, task_type=kind)
        finally:
            self._answered()
        self._count(kind, answer, time.monotonic() - started)
        logger.debug("task answered: type=%s success=%s error=%s", kind, answer["success"], answer.get("error_type"))
        return dict(answer)

    async def stream(self, task: Any) -> AsyncIterator[dict[str, Any]]:
        """Execute one task whose agent is a generator; yield ``{"item": ...}`` for each item, then the answer.

        The answer comes last and has the documented shape, with the number of items as ``result``. A task of another
        agent or of a built-in type yields only its answer.
        """
        started = time.monotonic()
        kind = task_type_of(task)
        if kind in BUILTIN_TASK_TYPES:
            yield await self.handle(task)
            return
        answer: dict[str, Any] | None = None
        self._in_flight += 1
        try:
            parsed = Task.parse(task)
            kind = parsed.type
            if _is_durable(task):
                raise TaskError("a durable task cannot be streamed")  # noqa: TRY301 - one fence
            await _started(self._life, self._http, parsed)
            self._require_room()
            async for part in self._life.organism.stream(parsed):
                if "success" in part:
                    answer = part
                else:
                    yield part
        except (asyncio.CancelledError, GeneratorExit):
            raise
        except BaseException as error:
            answer = failure(error, task_type=kind)
        finally:
            self._answered()
        if answer is None:
            answer = failure("the stream ended without an answer", error_type="OrganUnavailableError", task_type=kind)
        self._count(kind, answer, time.monotonic() - started)
        yield answer

    async def reload(
        self, spec: Mapping[str, Any], timeout_s: float, bake: Mapping[str, float] | None = None
    ) -> dict[str, Any]:
        """Change to another organism in place: replace only organs whose spec has changed.

        If the new organs do not start or are worse, everything is undone; else Ray restarts this process with the new.

        Args:
            spec: ``OrganismSpec.to_dict()``.
            timeout_s: Time limit in seconds for the new organs to start.
            bake: ``seconds`` and ``tolerance`` of the comparison with the old organs, None for none.

        Returns:
            ``success`` with the result of :meth:`OrganismManager.reload`, or ``{"success": false, "error",
            "error_type", "traceback"}`` if the organism was not changed.
        """
        try:
            new = OrganismSpec.from_dict(spec)
            changes = await self._life.reload(new, timeout_s=timeout_s, bake=Bake(**(bake or {})))
        except Exception as error:
            cause = error.__cause__
            text = cause.traceback_text if isinstance(cause, AgentStartError) else ""
            return failure(error, task_type="reload", traceback=text)
        return {"success": True, **changes}

    async def moves(self) -> dict[str, Any]:
        """Plan the moves after which every replica is on the node that a new start would choose.

        Returns:
            ``{"success": true, "moves": [{"organ_id", "replica", "from", "to"}]}``, with names of nodes, or
            ``{"success": false, "error", "error_type"}``.
        """
        return await self.operations.moves()

    async def move(self, organ_id: str, replica: int, timeout_s: float) -> dict[str, Any]:
        """Replace one replica by a process on the node that a new start would choose.

        Returns:
            ``{"success": true, "to": name of its node}`` once it is ready there, or
            ``{"success": false, "error", "error_type"}``.
        """
        return await self.operations.move(organ_id, replica, timeout_s)

    async def quiesce(self, timeout_s: float) -> bool:
        """Accept no more tasks, and wait until those in flight are answered; return False after ``timeout_s``.

        A caller that is about to replace this process uses it. Where the supervisor holds the socket, requests over
        HTTP wait for the next Coordinator. Without a replacement, tasks are accepted again after a while.
        """
        deadline = time.monotonic() + timeout_s
        if self._http.is_held:
            await self._http.pause(resume_after_s=timeout_s + QUIET_S)
        self._closed_until = time.monotonic() + timeout_s + QUIET_S
        self.inbox.hold(timeout_s + QUIET_S)
        await self._life.organism.send_back()
        self._idle.clear()
        if self._in_flight:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._idle.wait(), max(0.0, deadline - time.monotonic()))
        # The last answers are still being sent.
        await asyncio.sleep(ANSWERS_LEAVE_S)
        return not self._in_flight

    async def watch_table(self, epoch: str | None, max_wait_s: float) -> dict[str, Any]:
        """Return the routing table once its epoch differs from ``epoch``, or after ``max_wait_s``: see TableNews."""
        return await self._table.wait(epoch, max_wait_s)

    async def shutdown(self) -> bool:
        """Stop every organ, after its tasks; the caller then ends this process."""
        await self._life.shutdown()
        return True

    def require_open(self) -> None:
        """Raise OrganUnavailableError if no task can be accepted now."""
        self._life.require_running()
        if time.monotonic() < self._closed_until:
            raise OrganUnavailableError("the Coordinator is being replaced", retry_after_s=REPLACED_WITHIN_S)

    def status(self) -> dict[str, Any]:
        """Return the present status in the documented shape, from memory."""
        life = self._life
        judged = life.judge(restarted=bool(self._restarts))
        status, reason, message, degraded = combine(judged, self.inbox.judge())
        if (status, reason) != self._said:
            self._said, self._since = (status, reason), _now()
        body: dict[str, Any] = {
            # Plain strings, because clients of other releases read them.
            "status": status.value,
            "reason": reason.value,
            "message": message,
            "remedy": reason.remedy,
            "organism_initialized": life.phase in {Phase.RUNNING, Phase.RELOADING},
            "coordinator": _COORDINATOR_WORD[status],
            "degraded": bool(degraded),
            "missing": degraded,
            "release": self._release,
            "agents": life.spec.agents(),
            "fingerprint": life.fingerprint,
            "config": life.spec.source,
            "since": self._since,
            "stage": life.organism.stage,
            "progress": life.organism.progress,
            "init_seconds": life.init_seconds,
            "init_attempts": life.attempts,
            # How long no progress is normal: the supervisor must not kill an agent that loads for an hour.
            "start_timeout_s": max((organ.start_timeout_s for organ in life.spec.organs), default=0.0),
            "restarts": self._restarts,
            "reloads": life.reloads,
            "uptime_s": round(time.monotonic() - self._born, 3),
            "pid": os.getpid(),
            "in_flight": self._in_flight,
            "nodes": self.operations.nodes(),
            "organs": self._life.organism.organ_reports(brief=True),
            "unplaced": self._life.organism.unplaced(),
            # For people; age_s tells the age, independent of changes of the clock.
            "snapshot_at": time.time(),
            "age_s": 0.0,
        }
        if (inbox := self.inbox.summary()) is not None:
            body["inbox"] = inbox
        if status == "unhealthy":
            body["error"] = message
        return body

    def organism(self) -> list[dict[str, Any]]:
        """Return the description of every organ (``get_organism_status``)."""
        return self._life.organism.organ_reports()

    def activity(self) -> dict[str, Any]:
        """Return the last ten minutes and the last failures (``GET /coordinator/activity``)."""
        return self._activity.to_dict()

    def metrics(self) -> dict[str, Any]:
        """Return counts and states for ``get_metrics`` and ``GET /metrics``, from live state."""
        return {
            "tasks": self._counts.to_list(),
            "in_flight": self._in_flight,
            "init_seconds": self._life.init_seconds,
            "init_attempts": self._life.attempts,
            "restarts": self._restarts,
            "reloads": self._life.reloads,
            "uptime_s": round(time.monotonic() - self._born, 3),
            "organs": self._life.organism.organ_metrics(),
            "disks": self._disks.to_list(),
            "inbox": self.inbox.figures(),
            "inbox_oldest_s": self.inbox.oldest_s(),
            "inbox_canary_s": self.inbox.canary_s(),
            "schedules_late": self.inbox.late_schedules(),
        }

    def _answered(self) -> None:
        self._in_flight -= 1
        if not self._in_flight:
            self._idle.set()

    def _require_room(self) -> None:
        """Raise if one more task for an organ cannot be accepted now."""
        # Tasks that wait in a paused organ must not keep others out; its queue has a limit of its own.
        if self._in_flight > MAX_IN_FLIGHT and self._in_flight - self._life.organism.held() > MAX_IN_FLIGHT:
            raise OverloadedError(f"{MAX_IN_FLIGHT} tasks are already in flight")
        self.require_open()

    def _renew(self) -> None:
        # During construction the manager may report before there is a status.
        if hasattr(self, "operations"):
            self._snapshot, self._snapshot_born = self.status(), time.monotonic()
            runs = self._life.phase in {Phase.RUNNING, Phase.RELOADING}
            why = "" if runs else self._snapshot["message"]
            self._table.publish({"state": str(self._life.phase), "why": why, **self._life.organism.table()})
            self.inbox.look()
            if self._life.has_read:
                self.inbox.follow(self._life.organism.spec)
            self._activity.organs(self._snapshot["organs"])
            if not all(self._activity.knows(organ["organ_id"]) for organ in self._snapshot["organs"]):
                # Start as soon as an organ exists, so that its activity counts from then on.
                self._count_work()

    def _count_work(self) -> None:
        for organ_id, tasks in self._life.organism.task_counts():
            self._activity.counted(organ_id, tasks)

    async def _keep_beating(self) -> None:
        while True:
            self._renew()
            organs = self._snapshot["organs"]
            self._count_work()
            self._activity.tick(
                in_flight=sum(organ["in_flight"] for organ in organs), queued=sum(organ["queued"] for organ in organs)
            )
            await asyncio.sleep(BEAT_S)

    async def _watch_nodes(self) -> None:
        """Keep the list of nodes up to date; while the head is away, the last list stays, with its age."""
        while True:
            asking = asyncio.ensure_future(self._runtime.nodes())
            # A call that hangs holds a thread: wait for it and do not start a second one.
            while not (await asyncio.wait({asking}, timeout=NODES_TIMEOUT_S))[0]:
                logger.warning("no node list from Ray's head yet, still waiting")
            try:
                self._nodes.update(asking.result())
                self._life.organism.leave(self._nodes.draining)
            except Exception as error:
                # A missing list of nodes, whatever the error, is no reason to exit.
                logger.warning("cannot read the nodes of the cluster: %s", describe(error))
            await asyncio.sleep(NODES_INTERVAL_S)

    async def _start_http(self, settings: Settings) -> HttpServer:
        token = await asyncio.to_thread(settings.token)
        await self._named_tokens.refresh()
        app = create_app(self, token=token, named=self._named_tokens.access)
        # A predecessor may be exiting: wait for its port.
        certificate = Certificate(settings.http_tls_cert, settings.http_tls_key) if settings.http_tls_cert else None
        server = HttpServer(
            app, settings.http_host, settings.http_port, certificate=certificate, state_dir=settings.state_dir
        )
        self._http = server
        await server.start(timeout_s=BIND_TIMEOUT_S)
        self._http_watch = asyncio.create_task(_end_process_with(server))
        return server

    def _count(self, kind: str, answer: Mapping[str, Any], seconds: float) -> None:
        builtin = kind in BUILTIN_TASK_TYPES
        # Only known types become labels: callers must not be able to fill the memory with names.
        known = BUILTIN_TASK_TYPES if builtin else self._life.organism.known_types
        self._counts.add(kind, answer, seconds, known=known)
        is_work = not builtin or kind in _WORK
        self._activity.task(kind if kind in known else "unknown", answer, is_work=is_work)


async def _started(life: Lifecycle, http: HttpServer, task: Task) -> None:
    """Let callers wait for the organs of a new process if they have waited for the process itself."""
    if life.phase is Phase.STARTING and http.is_held:
        await life.until_started(min(STARTS_WITHIN_S, task.timeout_s or STARTS_WITHIN_S))


async def _end_process_with(server: HttpServer) -> None:
    """End the process when its HTTP server ends, because nobody could read its status; Ray restarts it."""
    error = await server.wait_failed()
    if error is not None:
        logger.critical("the http server has ended, ending the process: %s", error)
        os._exit(1)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _is_durable(task: Mapping[str, Any]) -> bool:
    """Return whether a task is for the inbox; that refuses any value that is neither true nor false."""
    durable = task.get("durable")
    return durable is not None and durable is not False
