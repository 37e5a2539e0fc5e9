"""Start the organs, route tasks to them, and combine their states."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

from seedcore.coordinator import organ_actors, organ_reports
from seedcore.coordinator.bake import NO_BAKE, Bake, compare, pick
from seedcore.coordinator.node_silence import NodeSilence
from seedcore.coordinator.node_watch import NodeWatch
from seedcore.coordinator.orders import Orders
from seedcore.coordinator.organ_actors import OrganRuntime, generation_of, next_generations, organ_name
from seedcore.coordinator.organism_view import OrganismView
from seedcore.coordinator.placement import Move, plan
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


class OrganismManager(OrganismView):
    """All organs of one organism.

    Args:
        spec: The organism.
        release: Id of the release from which the organs must run.
        runtime: Runs the organs.
        on_change: Called on the event loop whenever the state of an organ changes.
        generations: Generation of the processes to adopt, by organ id, if it is not 0.
        identities: Identity of the processes to adopt, by organ id, if another release has computed it.
        orders: What operators have ordered; default: nothing.

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
        orders: Orders | None = None,
    ) -> None:
        super().__init__(spec, orders or Orders())
        self._identities = identities or {}
        self.generations = dict(generations or {})
        self._release = release
        self._runtime = runtime
        self._on_change = on_change
        self._changed = asyncio.Event()
        self.known_types = frozenset(self._routes.known_types)
        self._silence = NodeSilence()
        self._placer = Placer(
            runtime, self._occupants, avoid=lambda: self._leaving | self._silence.silent | self._orders.drained.keys()
        )
        self._leaving: frozenset[str] = frozenset()
        self._replicas = {organ.id: self._make(organ) for organ in spec.organs}
        self._watch = NodeWatch(self._silence, runtime, self._placer, self._all)

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
        bake: Bake = NO_BAKE,
    ) -> dict[str, list[str]]:
        """Change to another organism in place; organs with an unchanged spec and release are not touched.

        The processes of new and changed organs start beside the old ones. Without room for both, the old ones end
        first, and the organ's tasks wait for the new ones, within their deadlines. When all are ready and no worse than
        the old ones, ``commit`` is awaited with the generations, the routes change, and the old processes end after
        their tasks. A failure before that is undone.

        Returns:
            Ids of the organs: ``{"kept": [...], "replaced": [...], "added": [...], "removed": [...]}``, and ``baked``
            with one line if processes were compared.

        Raises:
            InitializationError: The new organs did not start in time, or are worse; the old organism is kept.
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
            async with asyncio.timeout(timeout_s + bake.seconds):
                beside, first = await self._with_room([new[key] for key in (*changes["added"], *changes["replaced"])])
                generations = {**self.generations}
                for key in beside:
                    generations |= next_generations(self.generations, key) if key in old else {}
                self._coming = {key: self._make(new[key], generations) for key in beside}
                await self._bring_up(self._coming)
                if line := await self._bake(bake):
                    changes["baked"] = [line]
                self._away = frozenset(first)
                await self._put(*(new[key] for key in first))
                await self._bring_up({key: self._replicas[key] for key in first})
                generations = {key: value for key, value in generations.items() if key.partition("[")[0] in new}
                await commit(generations)
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

    async def _bake(self, bake: Bake) -> str:
        """Send tasks to one new process of each changed organ, too, and compare it; return one line, "" if none was."""
        old = {key: ones for key, ones in self._replicas.items() if key not in self._orders.paused}
        pairs = {key: (ones[0], tuple(old[key])) for key, ones in self._coming.items() if key in old}
        if not bake.seconds or not pairs:
            return ""
        self._baking = {key: new for key, (new, _) in pairs.items()}
        self._notice()
        try:
            return await compare(pairs, bake, changed=lambda: self._changed)
        finally:
            self._baking = {}
            self._notice()

    async def obey_pause(self, organ_id: str) -> None:
        """Let the processes of an organ begin no more tasks, or begin them again, as it is ordered.

        Raises:
            OrganUnavailableError: There is no such organ, or one of its processes has not confirmed that; it is told
                again before it counts as ready.
        """
        replicas = [one for one in self._all() if one.spec.id == organ_id and one.boot and one.usable]
        told = await asyncio.gather(*(one.obey_pause(str(one.boot)) for one in replicas), return_exceptions=True)
        self._notice()
        if late := next((error for error in told if isinstance(error, BaseException)), None):
            raise OrganUnavailableError(f"a process of organ {organ_id} has not confirmed that: {describe(late)}")

    async def send_back(self) -> None:
        """Refuse the tasks that wait in paused organs, with ``executed: no``, because this process is about to end."""
        await asyncio.gather(*(replica.send_back() for replica in self._current()))

    def route(self, kind: str, domain: str | None) -> str:
        """Return the id of the organ for a task type and domain; raise UnknownTaskTypeError if there is none."""
        return self._routes.route(kind, domain)

    async def fits(self, organ_id: str) -> bool:
        """Return whether a new process of an organ may be placed on any node."""
        return await self._placer.fits(self._organs[organ_id])

    async def moves(self) -> list[Move]:
        """Plan the moves after which every replica is on the node that a new start would choose."""
        return plan(await self._placer.places(), self._occupants())

    async def move(self, organ_id: str, index: int, *, timeout_s: float) -> str | None:
        """Move a replica after its tasks; return the id of its new node once it is ready there.

        Raises:
            OrganUnavailableError: It is down, or another replica of the organ is, so nothing was done; or it did not
                come back in time, and is still being started.
        """
        replica, replicas = self._replica(organ_id, index), self._replicas[organ_id]
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

    async def replace(
        self, organ_id: str, index: int, *, timeout_s: float, commit: Callable[[Mapping[str, int]], Awaitable[None]]
    ) -> Replica:
        """Replace a process and return the new one, which starts beside the old one; that ends after its tasks.

        Without room for both, the old one ends first; the tasks of an organ with one process wait, within their
        deadlines.

        Args:
            organ_id: The organ.
            index: Index of the replica, from 0.
            timeout_s: Time limit in seconds until the new process is ready.
            commit: Awaited with the generations before tasks are sent to the new process.

        Raises:
            OrganUnavailableError | InitializationError: The new process was not ready in time; the old one goes on, if
                it has not had to end.
        """
        old = self._replica(organ_id, index)
        organ = old.spec
        if not await self._placer.fits_now([Request(organ, index)]):
            self._away = frozenset({organ_id} if organ.replicas == 1 else ())
            try:
                await self.move(organ_id, index, timeout_s=timeout_s)
            finally:
                self._away = frozenset()
            return old
        new = self._make_one(organ, index, 1 - old.generation)
        self._coming = {organ_id: [new]}
        try:
            async with asyncio.timeout(timeout_s):
                await self._bring_up(self._coming)
                if new.state is not ReplicaState.READY:
                    raise InitializationError(f"its new process is not ready: {new.error or new.state}")  # noqa: TRY301
                generations = {**self.generations, f"{organ_id}[{index}]": new.generation}
                await commit(generations)
        except BaseException as error:
            self._coming = {}
            await new.stop()
            if isinstance(error, TimeoutError):
                text = f"{organ_id}[{index}]: its new process was not ready within {timeout_s:.0f} s"
                raise OrganUnavailableError(text) from None
            raise
        self.generations, self._coming = generations, {}
        self._replicas[organ_id] = [new if one is old else one for one in self._replicas[organ_id]]
        self._retiring.append(old)
        self._notice()
        await old.stop()
        self._retiring.remove(old)
        self._count_past(old)
        return new

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

    async def _find_generations(self) -> None:
        """Adopt the processes of an earlier reload that the record does not mention.

        Raises:
            InitializationError: Ray's head did not answer.
        """
        living = await organ_actors.living_names(self._runtime)
        for organ in self.spec.organs:
            first, second = (organ_name(organ.id, 0, generation) in living for generation in (0, 1))
            if second and not first and not generation_of(self.generations, organ.id, 0):
                self.generations[organ.id] = 1
                self._replicas[organ.id] = self._make(organ)

    def _replica(self, organ_id: str, index: int) -> Replica:
        replicas = self._replicas.get(organ_id, [])
        if not 0 <= index < len(replicas):
            raise OrganUnavailableError(f"there is no replica {index} of organ {organ_id!r} any more")
        return replicas[index]

    def _choose(self, organ_id: str, task: Task) -> tuple[Replica, float]:
        organ = self._organs.get(organ_id)
        if organ is None:
            raise OrganUnavailableError(f"there is no organ {organ_id!r}, organs are: {', '.join(self._organs)}")
        usable = [replica for replica in self._taking(organ_id) if replica.usable]
        if not usable:
            why = organ_reports.why(organ, self._replicas[organ_id], self._state(organ_id))
            raise OrganUnavailableError(why, retry_after_s=0.5)
        return pick(usable, self._baking.get(organ_id)), self._limit_s(organ, task)

    @staticmethod
    def _limit_s(organ: OrganSpec, task: Task) -> float:
        return organ.task_timeout_s if task.timeout_s is None else min(task.timeout_s, organ.task_timeout_s)

    def _count_past(self, replica: Replica) -> None:
        """Keep the counts of a process that has ended, if its organ still exists."""
        key = replica.spec.id
        if key in self._organs:
            self._past_tasks[key] = merge([self._past_tasks.get(key, ()), replica.tasks()])

    def _make(self, organ: OrganSpec, generations: Mapping[str, int] | None = None) -> list[Replica]:
        chosen = self.generations if generations is None else generations
        return [self._make_one(organ, index, generation_of(chosen, organ.id, index)) for index in range(organ.replicas)]

    def _make_one(self, organ: OrganSpec, index: int, generation: int) -> Replica:
        return Replica(
            organ,
            index,
            identity=self._identities.get(organ.id) or organ_actors.organ_identity(organ, self._release),
            generation=generation,
            runtime=self._runtime,
            placer=self._placer,
            is_leaving=lambda node_id: node_id in self._leaving,
            is_paused=lambda: organ.id in self._orders.paused,
            unreachable=lambda: self._silence.unreachable,
            on_change=self._notice,
        )

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

    def _notice(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
        self._on_change()
