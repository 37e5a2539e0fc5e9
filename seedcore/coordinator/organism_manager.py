"""Start the organs, route tasks to them, and combine their states."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from typing import Any

from seedcore.coordinator import organ_actors, organ_reports
from seedcore.coordinator.node_silence import NodeSilence
from seedcore.coordinator.node_watch import NodeWatch
from seedcore.coordinator.organ_actors import OrganRuntime, organ_name
from seedcore.coordinator.placement import Move, Occupant, plan
from seedcore.coordinator.replica_supervisor import Replica
from seedcore.coordinator.start_queue import Placer, Request
from seedcore.core.errors import InitializationError, OrganUnavailableError
from seedcore.core.organ_snapshot import ReplicaState
from seedcore.core.spec import OrganismSpec, OrganSpec
from seedcore.core.task import Task, describe
from seedcore.core.task_counters import merge
from seedcore.dispatch.routing import RoutingTable
from seedcore.dispatch.sender import ANSWER_GRACE_S

logger = logging.getLogger(__name__)

# Shortest remaining time with which a task is sent again; the organ would answer a shorter one as late.
MIN_TIMEOUT_S = 0.001
_SENT_BACK_PAUSE_S = 0.02


class OrganismManager:
    """All organs of one organism.

    Args:
        spec: The organism.
        release: Id of the release from which the organs must run.
        runtime: Runs the organs.
        on_change: Called on the event loop whenever the state of an organ changes.
        generations: Generation of the processes to adopt, by organ id, if it is not 0.
        identities: Identity of the processes to adopt, by organ id, if another release has computed it.

    Attributes:
        known_types: All task types that some organ accepts.
    """

    def __init__(
        self,
        spec: OrganismSpec,
        *,
        release: str,
        runtime: OrganRuntime,
        on_change: Callable[[], None],
        generations: Mapping[str, int] | None = None,
        identities: Mapping[str, str] | None = None,
    ) -> None:
        self.spec = spec
        self._identities = identities or {}
        self.generations = dict(generations or {})
        self._release = release
        self._runtime = runtime
        self._on_change = on_change
        self._changed = asyncio.Event()
        self._routes = RoutingTable(spec.organs)
        self.known_types = frozenset(self._routes.known_types)
        self._organs: dict[str, OrganSpec] = {organ.id: organ for organ in spec.organs}
        self._silence = NodeSilence()
        self._placer = Placer(runtime, self._occupants, avoid=lambda: self._leaving | self._silence.silent)
        self._replicas: dict[str, list[Replica]] = {organ.id: self._make(organ) for organ in spec.organs}
        # Processes of a reload that start beside those that they will replace.
        self._coming: dict[str, list[Replica]] = {}
        # Organs whose old processes had to end first, so that their tasks wait for the new ones.
        self._away: frozenset[str] = frozenset()
        # Processes that finish their last tasks, and the counts of those that are gone.
        self._retiring: list[Replica] = []
        self._past_tasks: dict[str, list[dict[str, Any]]] = {}
        self._leaving: frozenset[str] = frozenset()
        self._watch = NodeWatch(self._silence, runtime, self._placer, self._all)
        self.initialized = False

    @property
    def stage(self) -> str:
        """Return the progress of the organs, for people: ``2 of 3 organs ready; starting: utility_organ_1``.

        If more processes start than may at a time: ``...; 36 processes wait for their turn to start``.
        """
        states = {organ_id: self._state(organ_id) for organ_id in self._organs}
        # During a reload, not all new processes have started, whatever the state of the old ones.
        coming = [key for key, ones in self._coming.items() if not all(one.settled for one in ones)]
        return organ_reports.stage(states, coming, waits=sum(replica.waits for replica in self._all()))

    @property
    def progress(self) -> dict[str, int]:
        """Return the numbers of ready and configured organs and agents."""
        return {
            "organs_ready": sum(self._state(i) in {ReplicaState.READY, ReplicaState.DEGRADED} for i in self._organs),
            "organs": len(self._organs),
            "agents_ready": sum(replica.started_agents for replica in self._current()),
            "agents": sum(organ.agent_count for organ in self._organs.values()),
        }

    def leave(self, node_ids: frozenset[str]) -> None:
        """Move the replicas away from these draining nodes; each moves at its next report."""
        self._leaving = node_ids

    async def initialize(self) -> None:
        """Start every organ; return when enough of each is ready and the rest is settled or out of time.

        Living organs with the same configuration and release are adopted, others are replaced. Missing parts recover
        in the background.

        Raises:
            InitializationError: A required organ has fewer ready agents than its minimum; nothing of the
                organism is left running. The first failed agent's error is the cause.
        """
        await self._find_generations()
        names = organ_actors.actor_names(self.spec, self.generations)
        self._watch.start()
        strangers = asyncio.create_task(self._retire_others(names))
        try:
            await self._bring_up(self._replicas)
            await strangers
        except Exception as error:
            await asyncio.wait({strangers})
            try:
                await self.shutdown()
            except Exception:
                logger.exception("stopping the organs that have started")
            if isinstance(error, InitializationError):
                raise
            raise InitializationError(f"Ray's head did not answer: {describe(error)}") from error
        self.initialized = True
        self._on_change()

    async def reload(
        self,
        spec: OrganismSpec,
        *,
        timeout_s: float,
        commit: Callable[[Mapping[str, int]], Awaitable[None]],
        release: str | None = None,
    ) -> dict[str, list[str]]:
        """Change to another organism in place; organs with an unchanged spec and release are not touched.

        The processes of new and changed organs start beside the old ones. Without room for both, the old ones end
        first, and the organ's tasks wait for the new ones, within their deadlines. When all are ready, ``commit`` is
        awaited with the generations, the routes change, and the old processes end after their tasks. A failure before
        that is undone.

        Returns:
            Ids of the organs: ``{"kept": [...], "replaced": [...], "added": [...], "removed": [...]}``.

        Raises:
            InitializationError: The new organs did not start in time; the old organism is kept.
        """
        old, new = {organ.id: organ for organ in self.spec.organs}, {organ.id: organ for organ in spec.organs}
        before, self._release, self._identities = self._release, release or self._release, {}
        same = {key for key in new if key in old and new[key] == old[key] and before == self._release}
        changes = {
            "kept": [key for key in new if key in same],
            "replaced": [key for key in new if key in old and key not in same],
            "added": [key for key in new if key not in old],
            "removed": [key for key in old if key not in new],
        }
        try:
            async with asyncio.timeout(timeout_s):
                beside, first = await self._with_room([new[key] for key in (*changes["added"], *changes["replaced"])])
                generations = {key: self._next_generation(key) for key in beside if key in old}
                self._coming = {key: self._make(new[key], generations.get(key, 0)) for key in beside}
                await self._bring_up(self._coming)
                self._away = frozenset(first)
                await self._put(*(new[key] for key in first))
                await self._bring_up({key: self._replicas[key] for key in first})
                generations = {key: value for key, value in (self.generations | generations).items() if key in new}
                await commit({key: value for key, value in generations.items() if value})
        except Exception as error:
            began = {**self._coming, **{key: self._replicas[key] for key in self._away if key in self._replicas}}
            late = [key for key, ones in began.items() if any(one.state is not ReplicaState.READY for one in ones)]
            await self._undo(old)
            self._release = before
            if not isinstance(error, TimeoutError):
                raise
            names = ", ".join(late or began)
            raise InitializationError(f"organs {names} did not come up within {timeout_s:.1f} s") from error
        gone = self._switch(spec, generations)
        await asyncio.gather(*(replica.stop() for replica in gone))
        for replica in gone:
            self._retiring.remove(replica)
            self._count_past(replica)
        return changes

    def route(self, kind: str, domain: str | None) -> str:
        """Return the id of the organ for a task type and domain; raise UnknownTaskTypeError if there is none."""
        return self._routes.route(kind, domain)

    def usable(self) -> list[Replica]:
        """Return the processes to which tasks may be sent now."""
        return [one for key in self._organs if key not in self._away for one in self._replicas[key] if one.usable]

    def unplaced(self) -> list[str]:
        """Return the names of the actors that were created although no node had room for them."""
        return [replica.name for replica in self._all() if replica.is_unplaced]

    async def moves(self) -> list[Move]:
        """Plan the moves after which every replica is on the node that a new start would choose."""
        return plan(await self._placer.places(), self._occupants())

    async def move(self, organ_id: str, index: int, *, timeout_s: float) -> str | None:
        """Move a replica after its tasks; return the id of its new node once it is ready there.

        Raises:
            OrganUnavailableError: It is down, or another replica of the organ is, so nothing was done; or it did not
                come back in time, and is still being started.
        """
        replicas = self._replicas.get(organ_id, [])
        if index >= len(replicas):
            raise OrganUnavailableError(f"there is no replica {index} of organ {organ_id!r} any more")
        replica = replicas[index]
        if down := next((one for one in replicas if one.state is not ReplicaState.READY), None):
            why = down.error or f"it is {down.state}"
            raise OrganUnavailableError(f"{organ_id}[{index}] stays where it is: replica {down.index} is down ({why})")
        boot = replica.boot
        replica.move("it moves to another node")
        try:
            async with asyncio.timeout(timeout_s):
                while replica.boot == boot or replica.state is not ReplicaState.READY:
                    if replica not in self._replicas.get(organ_id, []):
                        raise OrganUnavailableError(f"organ {organ_id} was changed while {organ_id}[{index}] moved")
                    await self._changed.wait()
        except TimeoutError:
            text = f"{organ_id}[{index}] is not back within {timeout_s:.0f} s ({replica.error or replica.state})"
            raise OrganUnavailableError(text) from None
        return replica.place

    async def shutdown(self) -> None:
        """Stop every organ after its tasks, and end its process."""
        self.initialized = False
        self._watch.stop()
        await asyncio.gather(*(replica.stop() for replica in self._all()))
        await self._retire_others(set())

    async def dispatch(self, task: Task) -> dict[str, Any]:
        """Route and execute a task; raise the errors of :meth:`run_on` and of the routing."""
        return await self.run_on(self._routes.route(task.type, task.domain), task)

    async def run_on(self, organ_id: str, task: Task) -> dict[str, Any]:
        """Execute a task on one organ, on the usable replica with the fewest tasks.

        A task that a process sends back because it is being replaced goes to its successor.

        Raises:
            OrganUnavailableError: No replica is ready.
        """
        loop = asyncio.get_running_loop()
        began = loop.time()
        while True:
            await self._return(organ_id, task, began)
            replica, timeout_s = self._choose(organ_id, task)
            answer = await replica.execute(task.to_dict(), max(MIN_TIMEOUT_S, began + timeout_s - loop.time()))
            is_sent_back = answer.get("executed") == "no" and answer.get("error_type") == "OrganUnavailableError"
            if not is_sent_back or organ_id not in self._organs or loop.time() - began >= timeout_s:
                return answer
            if replica in self._replicas[organ_id] and organ_id not in self._away:
                return answer
            await asyncio.sleep(_SENT_BACK_PAUSE_S)

    async def _return(self, organ_id: str, task: Task, began: float) -> None:
        """Wait, within the task's time, for an organ whose old processes had to end before the new ones start."""
        while organ_id in self._away and not any(replica.usable for replica in self._replicas[organ_id]):
            left_s = began + self._limit_s(self._organs[organ_id], task) - asyncio.get_running_loop().time()
            try:
                async with asyncio.timeout(max(0.0, left_s)):
                    await self._changed.wait()
            except TimeoutError:
                return

    async def stream(self, task: Task) -> AsyncIterator[dict[str, Any]]:
        """Route and execute a task; yield and raise like :meth:`Replica.stream`, and raise errors of the routing."""
        organ_id = self._routes.route(task.type, task.domain)
        await self._return(organ_id, task, asyncio.get_running_loop().time())
        replica, timeout_s = self._choose(organ_id, task)
        async for part in replica.stream(task.to_dict(), timeout_s, grace_s=ANSWER_GRACE_S):
            yield part

    async def run_on_any(self, task: Task) -> dict[str, Any]:
        """Execute a task on any ready organ."""
        usable = [organ_id for organ_id in self._organs if any(r.usable for r in self._replicas[organ_id])]
        if not usable:
            raise OrganUnavailableError("no organ is ready")
        return await self.run_on(random.choice(usable), task)  # noqa: S311 - a choice, not a secret

    async def canary(self, nonce: str) -> list[dict[str, Any]]:
        """Send a nonce through every replica; return one entry each, with ``ok`` and, if not, ``error``.

        ``missed`` tells whether a missing nonce contradicts the status; it is False for a replica that is known to be
        down in an organism that is degraded.
        """
        asked = [organ_reports.canary(one, replicas, nonce) for replicas in self._replicas.values() for one in replicas]
        return list(await asyncio.gather(*asked))

    def organ_reports(self, *, brief: bool = False) -> list[dict[str, Any]]:
        """Return every organ as plain data (``get_organism_status``); the brief form omits constant data.

        A status that is read every second must not contain ten thousand agent ids.
        """
        reports = [
            organ_reports.report(organ, self._replicas[key], self._state(key)) for key, organ in self._organs.items()
        ]
        if not brief:
            for report, organ in zip(reports, self._organs.values(), strict=True):
                report.update(organ_reports.constants(organ))
        return reports

    def organ_metrics(self) -> list[dict[str, Any]]:
        """Return every organ with its figures: ``agents`` by state, ``stuck`` slots, ``tasks`` counts."""
        reports = self.organ_reports()
        for report in reports:
            report.update(organ_reports.figures(self._replicas[report["organ_id"]], report["agent_count"]))
            report["tasks"] = self._tasks(report["organ_id"])
        return reports

    def task_counts(self) -> Iterator[tuple[str, list[dict[str, Any]]]]:
        """Yield the id of every organ with complete reports, with its total task counts."""
        for organ_id, replicas in self._replicas.items():
            if all(replica.snapshot for replica in replicas):
                yield organ_id, self._tasks(organ_id)

    def routes(self) -> dict[str, Any]:
        """Return the routing table as plain data."""
        return self._routes.to_dict()

    def table(self) -> dict[str, Any]:
        """Return the routing table for clients: see :class:`seedcore.dispatch.routing_table.TableNews`."""
        organs = {
            key: organ_reports.route(organ, self._replicas[key], self._state(key))
            for key, organ in self._organs.items()
        }
        return {**self._routes.to_dict(), "organs": organs}

    def missing(self) -> tuple[list[str], list[str]]:
        """Return the missing parts: (required organs below their minimum, everything else)."""
        return organ_reports.missing((organ, self._replicas[key]) for key, organ in self._organs.items())

    async def _find_generations(self) -> None:
        """Adopt the processes of an earlier reload that the record does not mention.

        Raises:
            InitializationError: Ray's head did not answer.
        """
        living = await organ_actors.living_names(self._runtime)
        for organ in self.spec.organs:
            first, second = (organ_name(organ.id, 0, generation) in living for generation in (0, 1))
            if second and not first and organ.id not in self.generations:
                self.generations[organ.id] = 1
                self._replicas[organ.id] = self._make(organ)

    def _choose(self, organ_id: str, task: Task) -> tuple[Replica, float]:
        organ = self._organs.get(organ_id)
        if organ is None:
            raise OrganUnavailableError(f"there is no organ {organ_id!r}, organs are: {', '.join(self._organs)}")
        usable = [replica for replica in self._replicas[organ_id] if replica.usable]
        if not usable:
            why = organ_reports.why(organ, self._replicas[organ_id], self._state(organ_id))
            raise OrganUnavailableError(why, retry_after_s=0.5)
        replica = min(usable, key=lambda candidate: candidate.in_flight)
        return replica, self._limit_s(organ, task)

    @staticmethod
    def _limit_s(organ: OrganSpec, task: Task) -> float:
        return organ.task_timeout_s if task.timeout_s is None else min(task.timeout_s, organ.task_timeout_s)

    def _tasks(self, organ_id: str) -> list[dict[str, Any]]:
        counting = [*self._replicas[organ_id], *(one for one in self._retiring if one.spec.id == organ_id)]
        return merge([self._past_tasks.get(organ_id, ()), *(one.tasks() for one in counting)])

    def _count_past(self, replica: Replica) -> None:
        """Keep the counts of a process that has ended, if its organ still exists."""
        key = replica.spec.id
        if key in self._organs:
            self._past_tasks[key] = merge([self._past_tasks.get(key, ()), replica.tasks()])

    def _next_generation(self, organ_id: str) -> int:
        """Return the generation for processes beside the present ones; two generations alternate."""
        return 1 - self.generations.get(organ_id, 0)

    def _make(self, organ: OrganSpec, generation: int | None = None) -> list[Replica]:
        return [
            Replica(
                organ,
                index,
                identity=self._identities.get(organ.id) or organ_actors.organ_identity(organ, self._release),
                generation=self.generations.get(organ.id, 0) if generation is None else generation,
                runtime=self._runtime,
                placer=self._placer,
                is_leaving=lambda node_id: node_id in self._leaving,
                unreachable=lambda: self._silence.unreachable,
                on_change=self._notice,
            )
            for index in range(organ.replicas)
        ]

    async def _with_room(self, organs: list[OrganSpec]) -> tuple[list[str], list[str]]:
        """Split organs into those whose new processes have room beside the old ones, and those that must wait."""
        beside: list[OrganSpec] = []
        for organ in organs:
            wanted = [Request(one, index) for one in (*beside, organ) for index in range(one.replicas)]
            # End no old process for one that would have to wait all the same: nothing can hold it, or it is new.
            is_new, placer = organ.id not in self._replicas, self._placer
            if is_new or not await placer.fits(organ) or await placer.fits_now(wanted):
                beside.append(organ)
        if first := [organ.id for organ in organs if organ not in beside]:
            logger.info("no room for old and new processes at the same time, tasks wait: %s", ", ".join(first))
        return [organ.id for organ in beside], first

    async def _put(self, *organs: OrganSpec) -> None:
        """Replace organs with the same ids, which are stopped; start nothing."""
        before = [replica for organ in organs for replica in self._replicas[organ.id]]
        await asyncio.gather(*(replica.stop() for replica in before))
        for replica in before:
            self._count_past(replica)
        for organ in organs:
            self._organs[organ.id] = organ
            self._replicas[organ.id] = self._make(organ)

    def _switch(self, spec: OrganismSpec, generations: Mapping[str, int]) -> list[Replica]:
        """Route tasks to the new processes from now on; return the old ones, which must be stopped."""
        new = {organ.id: organ for organ in spec.organs}
        gone = [
            replica for key, ones in self._replicas.items() if key in self._coming or key not in new for replica in ones
        ]
        self._past_tasks = {key: counts for key, counts in self._past_tasks.items() if key in new}
        self._retiring += gone
        self._replicas = {key: self._coming.get(key) or self._replicas[key] for key in new}
        self.spec, self._organs, self.generations = spec, new, dict(generations)
        self._routes = RoutingTable(spec.organs)
        self.known_types = frozenset(self._routes.known_types)
        self._coming, self._away = {}, frozenset()
        self._notice()
        return gone

    async def _bring_up(self, organs: Mapping[str, list[Replica]]) -> None:
        """Start these processes and wait until enough of each organ is ready, and the rest is settled or out of time.

        Raises:
            InitializationError: A required organ cannot reach its minimum any more.
        """
        for replicas in organs.values():
            for replica in replicas:
                replica.start()
        began = asyncio.get_running_loop().time()
        while True:
            changed = self._changed
            for replicas in organs.values():
                organ_reports.check_possible(replicas)
            elapsed_s = asyncio.get_running_loop().time() - began
            if not any(organ_reports.is_awaited(replicas, elapsed_s) for replicas in organs.values()):
                return
            # Some organs are awaited only for a time, and no event marks its end.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1.0):
                    await changed.wait()

    async def _undo(self, old: Mapping[str, OrganSpec]) -> None:
        """End the processes of a failed reload; restart old processes that had to end, in the background."""
        gone = [replica for replicas in self._coming.values() for replica in replicas]
        back, self._coming = self._away, {}
        await asyncio.gather(*(replica.stop() for replica in gone), self._put(*(old[key] for key in back)))
        for replica in (replica for key in back for replica in self._replicas[key]):
            replica.start()
        self._away = frozenset()
        self._on_change()

    async def _retire_others(self, keep: set[str]) -> None:
        # Their time limits are unknown here; each organ itself cancels tasks that take too long.
        drain_s = max((organ.drain_timeout_s for organ in self.spec.organs), default=0.0)
        await organ_actors.retire_others(self._runtime, keep, drain_timeout_s=drain_s)

    def _state(self, organ_id: str) -> ReplicaState:
        return organ_reports.state(self._replicas[organ_id], is_starting=not self.initialized)

    def _occupants(self) -> list[Occupant]:
        return [
            Occupant(spec=replica.spec, index=replica.index, node_id=replica.place)
            for replica in self._all()
            if replica.place is not None
        ]

    def _current(self) -> list[Replica]:
        return [replica for replicas in self._replicas.values() for replica in replicas]

    def _all(self) -> list[Replica]:
        # Those that will replace others are supervised, too.
        return [*self._current(), *(replica for replicas in self._coming.values() for replica in replicas)]

    def _notice(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
        self._on_change()
