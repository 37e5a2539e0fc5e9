"""Simulate Ray's actors with real organs in this process, without threads."""

from __future__ import annotations

import asyncio
import itertools
import math
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any

from ray.exceptions import ActorDiedError, ActorUnavailableError

from seedcore.coordinator.organ_actors import KILL_TIMEOUT_S, organ_name
from seedcore.coordinator.placement import HEAD_RESOURCE, Node
from seedcore.coordinator.replica_state import Row
from seedcore.core.spec import OrganSpec
from seedcore.core.task import Task
from seedcore.organ.organ import Organ

# Seconds until Ray tells a caller that a process is unreachable.
TOLD_AFTER_S = 1.0
AGENT_TIMEOUT_S = 3.0
_STATES = {"PENDING_CREATION": 1, "ALIVE": 2, "RESTARTING": 3, "DEAD": 4}
_ids = itertools.count(1)


class FakeOrgan(Organ):
    """An organ whose agents are one coroutine function."""

    work: Callable[[Task], Any]
    process: FakeProcess

    async def _load(self) -> Any:
        return self.work

    @staticmethod
    def _is_supervised() -> bool:
        return True

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()

    def _keep_lease(self) -> None:
        # The timers of a suspended process do not run either.
        if self.process.runs.is_set() and not self.process.died.is_set():
            super()._keep_lease()
        elif not self.process.died.is_set():
            asyncio.get_running_loop().call_later(1.0, self._keep_lease)

    def _ask_head(self) -> asyncio.Future[bool | None]:
        return asyncio.ensure_future(self.process.ask_head())

    def _go_on(self, life: asyncio.Task[None]) -> None:
        # A loop that ends cancels all tasks. A new one would be collected in the middle of another test, and fail that.
        pass

    def _leave(self) -> None:  # type: ignore[override]
        self.process.end()


class FakeProcess:
    """One process of an actor: it works, hangs, or is dead.

    ``is_fenced`` is True if Ray was told to kill it while its node could not receive that order.
    """

    def __init__(self, cluster: FakeCluster, actor: FakeActor) -> None:
        self.cluster, self.actor = cluster, actor
        self.runs = asyncio.Event()
        self.runs.set()
        self.died = asyncio.Event()
        # The process keeps it, so that a dead process's tasks are not collected in the middle of another test.
        self._never = asyncio.Event()
        self.was_well = False
        self.is_fenced = self.is_frozen = self.is_to_die = False
        self.node_id = actor.node_id
        self.frozen_at = self.stood_still_s = 0.0
        self.runs_since = -math.inf
        self.organ = FakeOrgan.__new__(FakeOrgan)
        self.organ.work = self._work
        self.organ.process = self

    async def ask_head(self) -> bool | None:
        await self.cluster._head()
        return not self.is_fenced

    async def begin(self) -> None:
        spec, replica, identity = self.actor.arguments
        await self.organ.__init__(spec.to_dict(), replica, identity)  # type: ignore[misc]
        self.organ._node_id = self.actor.node_id

    async def _work(self, task: Task) -> str:
        if self.is_fenced and self.stood_still_s >= self.organ._spec.lease_s:
            self.cluster.fenced_work.append(str(task.id))
        self.cluster.began[str(task.id)] += 1
        await asyncio.sleep(float(task.params.get("seconds", 0.0)))
        await self.runs.wait()
        if self.died.is_set():
            await self._never.wait()
        self.cluster.done[str(task.id)] += 1
        return "done"

    def end(self) -> None:
        self.died.set()
        self.organ._stopping = True
        for task in (self.organ._life, *self.organ._background):
            task.cancel()


def _unasked(work: Coroutine[Any, Any, Any]) -> asyncio.Future[Any]:
    """Start a call; as with Ray, its result need not be retrieved."""
    future: asyncio.Future[Any] = asyncio.ensure_future(work)
    future.add_done_callback(lambda done: done.cancelled() or done.exception())
    return future


class _Method:
    def __init__(self, call: Callable[..., Any]) -> None:
        self._call = call

    def remote(self, *arguments: Any) -> asyncio.Future[Any]:
        return _unasked(self._call(*arguments))


class FakeActor:
    """A detached actor with ``max_restarts=-1``, and its handle."""

    def __init__(
        self, cluster: FakeCluster, name: str, arguments: tuple[OrganSpec, int, str], node_id: str | None
    ) -> None:
        self.cluster, self.name, self.arguments = cluster, name, arguments
        self.state = "PENDING_CREATION"
        self.restarts = 0
        self.node_id = cluster.place(node_id)
        self.process: FakeProcess | None = None
        self._changed = asyncio.Event()
        self._dead = asyncio.Event()
        identity = f"{next(_ids):04x}"
        self._actor_id = type("Id", (), {"hex": staticmethod(lambda: identity)})
        self._starting = asyncio.create_task(self._start())

    def __getattr__(self, method: str) -> _Method:
        if method.startswith("__"):
            raise AttributeError(method)
        return _Method(lambda *arguments: self._call(method, arguments))

    def _get_local_state(self) -> int:
        return _STATES[self.state]

    def die(self) -> None:
        """Let the process die; Ray starts another one."""
        if self.process is not None:
            self.process.end()
            self.process = None
            self.restarts += 1
            self._enter("RESTARTING")
            self._starting = asyncio.create_task(self._start())

    def end(self) -> None:
        """Kill the actor for good."""
        self._starting.cancel()
        process, self.process = self.process, None
        if process is not None and self.node_id in self.cluster.frozen:
            process.is_fenced = True
        elif process is not None:
            process.end()
        self._enter("DEAD")

    def hang(self) -> None:
        if self.process is not None:
            self.process.runs.clear()

    def go_on(self) -> None:
        if self.process is not None and not self.process.is_frozen and not self.process.runs.is_set():
            self.process.runs_since = asyncio.get_running_loop().time()
            self.process.runs.set()

    async def _start(self) -> None:
        while not self.cluster.head_is_up or not self.cluster.has_room:
            await self.cluster.changed.wait()
        if self.node_id in self.cluster.draining:
            self.node_id = self.cluster.place()
        await asyncio.sleep(self.cluster.start_s)
        while self.node_id in self.cluster.frozen:
            await self.cluster.changed.wait()
        process = FakeProcess(self.cluster, self)
        await process.begin()
        self.process = process
        self.cluster.processes.append(process)
        self._enter("ALIVE")
        if self.cluster.dies_after_s is not None:
            asyncio.get_running_loop().call_later(self.cluster.dies_after_s, self._die_if, process)

    def _die_if(self, process: FakeProcess) -> None:
        if self.process is process:
            self.die()

    def _enter(self, state: str) -> None:
        self.state = state
        if state == "DEAD":
            self._dead.set()
        self._changed.set()
        self._changed = asyncio.Event()

    async def _call(self, method: str, arguments: tuple[Any, ...]) -> Any:
        if self.state == "RESTARTING":
            await asyncio.sleep(TOLD_AFTER_S)
            raise ActorUnavailableError("IOError: The actor is restarting.", None)
        while self.state == "PENDING_CREATION":
            await self._changed.wait()
        if self.state == "DEAD" or self.process is None:
            raise ActorDiedError
        process = self.process
        work = _unasked(self._answer(process, method, arguments))
        died = asyncio.ensure_future(process.died.wait())
        dead = asyncio.ensure_future(self._dead.wait())
        await asyncio.wait({work, died, dead}, return_when=asyncio.FIRST_COMPLETED)
        died.cancel()
        dead.cancel()
        if process.is_fenced and not work.done():
            # A call in flight arrives when the host is back, although its caller got an error long before.
            raise ActorDiedError
        if work.done() and not process.died.is_set():
            return work.result()
        work.cancel()
        await asyncio.sleep(TOLD_AFTER_S)
        if self.state == "DEAD":
            raise ActorDiedError
        raise ActorUnavailableError("IOError: The actor was restarted.", None)

    @staticmethod
    async def _answer(process: FakeProcess, method: str, arguments: tuple[Any, ...]) -> Any:
        await process.runs.wait()
        if process.died.is_set():
            raise ActorDiedError
        answer = await getattr(process.organ, method)(*arguments)
        await process.runs.wait()
        process.was_well = process.was_well or (method == "watch" and answer["ready"] == answer["agent_count"])
        return answer


class FakeCluster:
    """The cluster that organs run on.

    Attributes:
        began: How often each task has reached an agent, by task id.
        done: How often each task was done, by task id.
        cpus: The nodes and their numbers of CPUs.
        head: The node of Ray's head, None if it is another host.
        frozen: Nodes that are frozen with all their processes.
        agents_are_blocked: True if no dashboard agent can be reached although its node is healthy.
        fenced_work: Ids of tasks that a process began after Ray was told to kill it during a long freeze.
        kills_arrive: True if an abandoned process is killed when its node is back; else it must find out by itself.
        kills: Names of actors whose process was killed although it was healthy and had not been told to stop.
    """

    def __init__(self) -> None:
        self.actors: dict[str, FakeActor] = {}
        self.processes: list[FakeProcess] = []
        self.began: Counter[str] = Counter()
        self.done: Counter[str] = Counter()
        self.kills: list[str] = []
        self.draining: frozenset[str] = frozenset()
        self.cpus = {"node": 8.0, "other": 8.0}
        self.head: str | None = None
        self.frozen: frozenset[str] = frozenset()
        self.agents_are_blocked = False
        self.fenced_work: list[str] = []
        self.kills_arrive = True
        self.start_s = 1.0
        self.dies_after_s: float | None = None
        self.has_room = True
        self.head_is_up = True
        self.changed = asyncio.Event()

    def change(self, **values: Any) -> None:
        for key, value in values.items():
            setattr(self, key, value)
        self.changed.set()
        self.changed = asyncio.Event()

    def freeze(self, *nodes: str) -> None:
        """Freeze these nodes and unfreeze all others."""
        self.change(frozen=frozenset(nodes))
        for process in self.processes:
            now = asyncio.get_running_loop().time()
            if process.node_id in nodes:
                process.frozen_at = process.frozen_at if process.is_frozen else now
                process.is_frozen = True
                process.runs.clear()
            elif process.is_frozen:
                process.is_frozen, process.stood_still_s, process.runs_since = False, now - process.frozen_at, now
                process.runs.set()
                if process.is_fenced and self.kills_arrive:
                    process.end()
                elif process.is_to_die:
                    process.actor.die()

    def place(self, wanted: str | None = None) -> str:
        return next(node for node in (wanted, *self.cpus) if node and node not in self.draining)

    async def find(self, spec: OrganSpec, replica: int, *, generation: int) -> FakeActor | None:
        await self._head()
        return self.actors.get(organ_name(spec.id, replica, generation))

    async def ensure(
        self, spec: OrganSpec, replica: int, identity: str, *, generation: int, node_id: str | None
    ) -> FakeActor:
        await self._head()
        name = organ_name(spec.id, replica, generation)
        if name not in self.actors:
            self.actors[name] = FakeActor(self, name, (spec, replica, identity), node_id)
        return self.actors[name]

    async def ask_agents(self) -> dict[str, bool]:
        await self._head()
        await asyncio.sleep(AGENT_TIMEOUT_S if self.frozen or self.agents_are_blocked else 0.0)
        return {node: node not in self.frozen and not self.agents_are_blocked for node in self.cpus}

    async def kill(self, handle: FakeActor, *, restart: bool) -> None:
        await self._head()
        process = handle.process
        now = asyncio.get_running_loop().time()
        # An order given during the freeze may arrive just after it.
        is_well = process is not None and process.runs.is_set() and now - process.runs_since > KILL_TIMEOUT_S
        if process is not None and is_well and process.was_well and not process.organ._stopping:
            self.kills.append(handle.name)
        if restart and process is not None and process.is_frozen:
            process.is_to_die = True
        elif restart:
            handle.die()
        else:
            handle.end()
            if self.actors.get(handle.name) is handle:
                del self.actors[handle.name]

    async def row(self, handle: FakeActor) -> Row | None:
        await self._head()
        return Row(state=handle.state, restarts=handle.restarts, node_id=handle.node_id)

    async def others(self, keep: set[str]) -> dict[str, FakeActor]:
        await self._head()
        return {name: actor for name, actor in self.actors.items() if name not in keep}

    async def places(self) -> list[Node]:
        await self._head()
        return [
            Node(
                node_id=name, name=name, resources={"CPU": cpus, **({HEAD_RESOURCE: 1.0} if name == self.head else {})}
            )
            for name, cpus in self.cpus.items()
            if name not in self.draining
        ]

    async def nodes(self) -> list[dict[str, Any]]:
        return []

    async def close(self) -> None:
        for actor in list(self.actors.values()):
            actor.end()
        for process in self.processes:
            process.end()
        # Nothing else ends the tasks of a dead process, and nothing holds them when the cluster has gone.
        for task in asyncio.all_tasks():
            if "AgentRunner.execute" in repr(task.get_coro()):
                task.cancel()
        await asyncio.sleep(0)

    async def _head(self) -> None:
        while not self.head_is_up:
            await self.changed.wait()
