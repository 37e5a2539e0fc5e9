"""OrganismManager: brings the organs up, routes tasks to them, and rolls their state up into one truth."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Callable
from typing import Any

from seedcore.errors import AgentStartError, InitializationError, OrganUnavailableError
from seedcore.organism.replica import OrganRuntime, Replica, ReplicaState, organ_name
from seedcore.organism.routing import RoutingTable
from seedcore.spec import OrganismSpec, OrganSpec
from seedcore.task import Task, describe

logger = logging.getLogger(__name__)

# The organ keeps a task's deadline itself; this much later the Coordinator stops waiting for the organ.
ANSWER_GRACE_S = 2.0
CANARY_TIMEOUT_S = 5.0


class OrganismManager:
    """All organs of one organism.

    Args:
        spec: What to bring up.
        release: Id of the release that the organs must run from.
        runtime: Where organs run.
        on_change: Called, on the loop, whenever the state of an organ changes.
    """

    def __init__(
        self, spec: OrganismSpec, *, release: str, runtime: OrganRuntime, on_change: Callable[[], None]
    ) -> None:
        self.spec = spec
        self._runtime = runtime
        self._on_change = on_change
        self._changed = asyncio.Event()
        self._routes = RoutingTable(spec.organs)
        self._known_types = frozenset(self._routes.known_types)
        self._organs: dict[str, OrganSpec] = {organ.id: organ for organ in spec.organs}
        self._replicas: dict[str, list[Replica]] = {
            organ.id: [
                Replica(
                    organ,
                    index,
                    identity=f"{organ.fingerprint()}@{release}",
                    runtime=runtime,
                    on_change=self._notice,
                )
                for index in range(organ.replicas)
            ]
            for organ in spec.organs
        }
        self.initialized = False

    @property
    def stage(self) -> str:
        """How far the organs are, for people: ``2 of 3 organs ready; starting: utility_organ_1``."""
        entries = [(organ_id, self._state(organ_id)) for organ_id in self._organs]
        ready = sum(state in {ReplicaState.READY, ReplicaState.DEGRADED} for _, state in entries)
        text = f"{ready} of {len(entries)} organs ready"
        waiting = [organ_id for organ_id, state in entries if state is ReplicaState.STARTING]
        return f"{text}; starting: {', '.join(waiting[:5])}" if waiting else text

    @property
    def progress(self) -> dict[str, int]:
        """Ready organs and agents, and how many there are to be."""
        return {
            "organs_ready": sum(self._state(i) in {ReplicaState.READY, ReplicaState.DEGRADED} for i in self._organs),
            "organs": len(self._organs),
            "agents_ready": sum(replica.snapshot.get("ready_agents", 0) for replica in self._all()),
            "agents": sum(organ.agent_count for organ in self._organs.values()),
        }

    async def initialize(self) -> None:
        """Bring every organ up; returns when each has settled and enough of it is there.

        Living organs of the same configuration and release are adopted, others are replaced.

        Raises:
            InitializationError: A required organ has fewer ready agents than its minimum; nothing of the
                organism is left running. The first failed agent's error is the cause.
        """
        names = {organ_name(organ.id, index) for organ in self.spec.organs for index in range(organ.replicas)}
        killed = await self._runtime.kill_others(names)
        if killed:
            logger.info("removed organs that this organism does not have: %s", ", ".join(killed))
        for replica in self._all():
            replica.start()
        began = time.monotonic()
        while waiting := self._awaited(time.monotonic() - began):
            failed = self._first_failure()
            if failed is not None:
                await self._give_up(failed)
            changed = self._changed
            # Optional organs are awaited for a time only, and nothing else tells when it is over.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(None if any(replica.spec.required for replica in waiting) else 1.0):
                    await changed.wait()
        failed = self._first_failure()
        if failed is not None:
            await self._give_up(failed)
        self.initialized = True
        self._on_change()

    async def shutdown(self) -> None:
        """Stop every organ and end its process."""
        self.initialized = False
        await asyncio.gather(*(replica.stop() for replica in self._all()))
        await self._runtime.kill_others(set())

    async def dispatch(self, task: Task) -> dict[str, Any]:
        """Route a task and do it; raises what :meth:`run_on` and the routing raise."""
        return await self.run_on(self._routes.route(task.type, task.domain), task)

    async def run_on(self, organ_id: str, task: Task) -> dict[str, Any]:
        """Do a task on one organ, on the usable replica with the least to do.

        Raises:
            OrganUnavailableError: No replica can work now, or the one that had the task died with it.
            TimeoutError: The replica did not answer in time.
        """
        organ = self._organs.get(organ_id)
        if organ is None:
            raise OrganUnavailableError(f"there is no organ {organ_id!r}, organs are: {', '.join(self._organs)}")
        usable = [replica for replica in self._replicas[organ_id] if replica.usable]
        if not usable:
            raise OrganUnavailableError(f"organ {organ_id} cannot work now: {self._why(organ_id)}")
        replica = min(usable, key=lambda candidate: candidate.in_flight)
        timeout_s = organ.task_timeout_s if task.timeout_s is None else min(task.timeout_s, organ.task_timeout_s)
        return await replica.execute(task.to_dict(), timeout_s, grace_s=ANSWER_GRACE_S)

    async def run_on_any(self, task: Task) -> dict[str, Any]:
        """Do a task on some organ that can work now."""
        usable = [organ_id for organ_id in self._organs if any(r.usable for r in self._replicas[organ_id])]
        if not usable:
            raise OrganUnavailableError("no organ can work now")
        return await self.run_on(random.choice(usable), task)  # noqa: S311 - a choice, not a secret

    async def canary(self, nonce: str) -> list[dict[str, Any]]:
        """Send a nonce through every replica; one entry each, with ``ok`` and, if not, ``error``."""
        return list(await asyncio.gather(*(self._canary(replica, nonce) for replica in self._all())))

    def organ_reports(self, *, brief: bool = False) -> list[dict[str, Any]]:
        """Describe every organ as plain data (``get_organism_status``); in brief, without what never changes.

        Ten thousand agent ids have no place in a status that is asked for every second.
        """
        reports = [self._report(organ) for organ in self._organs.values()]
        if not brief:
            for report, organ in zip(reports, self._organs.values(), strict=True):
                report.update(_constants(organ))
        return reports

    @property
    def known_types(self) -> frozenset[str]:
        """All task types that some organ takes."""
        return self._known_types

    def routes(self) -> dict[str, Any]:
        """The routing table as plain data."""
        return self._routes.to_dict()

    def missing(self) -> tuple[list[str], list[str]]:
        """What is not as it should be: (required organs below their minimum, everything else that is missing)."""
        down: list[str] = []
        degraded: list[str] = []
        for organ in self._organs.values():
            ready = self._ready_agents(organ.id)
            if ready >= organ.agent_count:
                continue
            text = f"{organ.id}: {ready} of {organ.agent_count} agents ready{self._because(organ.id)}"
            enough = ready >= organ.min_ready_agents
            (degraded if enough or not organ.required else down).append(text)
        return down, degraded

    async def _canary(self, replica: Replica, nonce: str) -> dict[str, Any]:
        entry: dict[str, Any] = {"organ_id": replica.spec.id, "replica": replica.index, "ok": False}
        try:
            answer = await replica.canary(nonce, CANARY_TIMEOUT_S)
        except Exception as error:
            # Whatever Ray or the organ makes of it, a canary that does not return is a result, not a failure of ours.
            return {**entry, "error": describe(error).splitlines()[0]}
        return {**entry, "ok": answer.get("nonce") == nonce, "pid": answer.get("pid")}

    def _awaited(self, elapsed_s: float) -> list[Replica]:
        """Replicas that have not settled and that the initialisation still waits for."""
        return [
            replica
            for replica in self._all()
            if not replica.settled and (replica.spec.required or elapsed_s < replica.spec.start_timeout_s)
        ]

    def _first_failure(self) -> tuple[OrganSpec, dict[str, Any]] | None:
        """A required organ that cannot reach its minimum any more at this first start, and its first failed agent."""
        for organ in self._organs.values():
            replicas = self._replicas[organ.id]
            failures = [failed for replica in replicas for failed in replica.failures]
            lost = sum(replica.lost_agents for replica in replicas)
            if organ.required and failures and organ.agent_count - lost < organ.min_ready_agents:
                return organ, failures[0]
        return None

    async def _give_up(self, failure: tuple[OrganSpec, dict[str, Any]]) -> None:
        organ, failed = failure
        await self.shutdown()
        cause = AgentStartError(
            f"agent {failed['agent_id']} did not start: {failed['error_type']}: {failed['error']}",
            failed["traceback"],
        )
        cause.add_note(f"The agent's own traceback:\n{failed['traceback']}")
        raise InitializationError(f"organ {organ.id}: {cause.message}") from cause

    def _report(self, organ: OrganSpec) -> dict[str, Any]:
        replicas = self._replicas[organ.id]
        state = self._state(organ.id)
        ready = self._ready_agents(organ.id)
        return {
            "organ_id": organ.id,
            "organ_type": organ.type,
            "agent_count": organ.agent_count,
            "status": str(state),
            "ready": ready >= organ.min_ready_agents,
            "ready_agents": ready,
            "min_ready_agents": organ.min_ready_agents,
            "required": organ.required,
            "in_flight": sum(replica.in_flight for replica in replicas),
            "queued": sum(replica.snapshot.get("queued", 0) for replica in replicas if replica.usable),
            "replicas": [replica.report() for replica in replicas],
            "failed": [
                {"agent_id": failed["agent_id"], "error": f"{failed['error_type']}: {failed['error']}"}
                for replica in replicas
                for failed in replica.failures
            ],
        }

    def _state(self, organ_id: str) -> ReplicaState:
        states = {replica.state for replica in self._replicas[organ_id]}
        if len(states) == 1:
            return states.pop()
        if ReplicaState.STARTING in states and not self.initialized:
            return ReplicaState.STARTING
        return ReplicaState.DEGRADED if states & {ReplicaState.READY, ReplicaState.DEGRADED} else ReplicaState.DOWN

    def _ready_agents(self, organ_id: str) -> int:
        return sum(replica.ready_agents for replica in self._replicas[organ_id])

    def _why(self, organ_id: str) -> str:
        errors = [replica.error for replica in self._replicas[organ_id] if replica.error]
        return errors[0].splitlines()[0] if errors else f"it is {self._state(organ_id)}"

    def _because(self, organ_id: str) -> str:
        errors = [replica.error for replica in self._replicas[organ_id] if replica.error]
        return f" ({errors[0].splitlines()[0]})" if errors else ""

    def _all(self) -> list[Replica]:
        return [replica for replicas in self._replicas.values() for replica in replicas]

    def _notice(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
        self._on_change()


def _constants(organ: OrganSpec) -> dict[str, Any]:
    return {
        "description": organ.description,
        "agent_ids": organ.agent_ids(),
        "task_types": sorted({*organ.task_types, *(kind for kinds in organ.domains.values() for kind in kinds)}),
    }
