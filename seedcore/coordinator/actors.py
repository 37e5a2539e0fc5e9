"""Turn plain classes into Ray actors, with their options; no other module does.

It relies on these facts (measured on Ray 2.60): children of an actor are created in the job's namespace by default;
they inherit ``py_executable`` of the actor's runtime environment; ``.remote()`` of a named actor and
``ray.get_actor`` call the GCS synchronously, so inside an actor they run in a thread; methods of a concurrency group
of an async actor run on their own loop and thread, so they answer while the main loop is busy.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
from collections.abc import AsyncIterator, Collection
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import ray
from ray.actor import ActorHandle
from ray.core.generated import common_pb2, gcs_pb2
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from seedcore.coordinator.coordinator import Coordinator
from seedcore.coordinator.node_silence import agent_answers
from seedcore.coordinator.organ_actors import organ_name
from seedcore.coordinator.placement import HEAD_RESOURCE, Node
from seedcore.coordinator.record import ActorRecord
from seedcore.coordinator.replica_state import Row
from seedcore.coordinator.replica_supervisor import STREAM_AHEAD
from seedcore.core import logs, release
from seedcore.core.settings import COORDINATOR_NAME, ORGAN_NAME_PREFIX
from seedcore.core.spec import OrganSpec
from seedcore.organ.organ import Organ

logger = logging.getLogger(__name__)

# A key beside the settings: the arguments of the creation stay the same for every release.
PREDECESSOR = "predecessor"
# A resource that only the head node has, so that the Coordinator's address is fixed; soft node affinity does not pin.
_HEAD = {HEAD_RESOURCE: 0.001}
# Above this number, Ray queues the methods of an async actor; our own limits (queues, tasks in flight) are lower.
_MAX_CALLS = 20_000
# These names are created at import, so type checkers do not see them.
_common: Any = common_pb2
_gcs: Any = gcs_pb2
# Three times the measured time of a node that is only slow.
_AGENT_TIMEOUT_S = 3.0
_MEMORY = re.compile(r"was ([\d.]+ ?GB) used / ([\d.]+ ?GB)")


def coordinator_handle(namespace: str) -> ActorHandle[Any] | None:
    """Return the Coordinator by its name, or None."""
    return _find(COORDINATOR_NAME, namespace)


def create_coordinator(
    spec: dict[str, Any], settings: dict[str, Any], *, namespace: str, attempt: int, predecessor: str = ""
) -> ActorHandle[Any]:
    """Create the Coordinator, or return the one that another caller has just created.

    Args:
        spec: ``OrganismSpec.to_dict()``.
        settings: ``Settings.to_dict()``.
        namespace: Ray namespace.
        attempt: Number of attempts, this one included.
        predecessor: Actor id of the Coordinator that it replaces and whose organs it may adopt.
    """
    with_groups: Any = ray.remote
    actor_class = with_groups(concurrency_groups={"control": 100})(CoordinatorActor)
    handle: ActorHandle[Any] = actor_class.options(
        name=COORDINATOR_NAME,
        namespace=namespace,
        lifetime="detached",
        get_if_exists=True,
        num_cpus=0.1,
        max_restarts=-1,
        max_task_retries=0,
        max_concurrency=_MAX_CALLS,
        resources=_HEAD,
        runtime_env=runtime_env(),
    ).remote(spec, {**settings, PREDECESSOR: predecessor}, attempt)
    return handle


def runtime_env(python: str = "") -> dict[str, Any]:
    """Make an actor run with an interpreter, by default that of this release; from a checkout, with Ray's own."""
    python = python or (release.python() if release.is_deployed() else "")
    env: dict[str, Any] = {"py_executable": python} if python else {}
    if variables := logs.inherited():
        env["env_vars"] = variables
    return env


def create_on_node(plain: type, node_id: str) -> ActorHandle[Any]:
    """Create an actor of a plain class on exactly one node; it ends with its handle."""
    actor_class: Any = ray.remote(plain)
    handle: ActorHandle[Any] = actor_class.options(
        num_cpus=0,
        max_restarts=0,
        scheduling_strategy=NodeAffinitySchedulingStrategy(node_id, soft=False),
        runtime_env=runtime_env(),
    ).remote()
    return handle


class CoordinatorActor(Coordinator):
    """The Coordinator as a Ray actor: ``ping`` and ``get_status`` answer even if its main loop is blocked."""

    async def __init__(  # type: ignore[misc]  # an async __init__ is Ray's idea
        self, spec: dict[str, Any], settings: dict[str, Any], attempt: int
    ) -> None:
        namespace = ray.get_runtime_context().namespace
        runtime = RayOrganRuntime(namespace=settings.get("namespace") or namespace)
        record = ActorRecord(namespace=namespace, actor_id=str(ray.get_runtime_context().get_actor_id()))
        before = settings.get(PREDECESSOR)
        predecessor = ActorRecord(namespace=namespace, actor_id=before) if before else None
        was_restarted = bool(ray.get_runtime_context().was_current_actor_reconstructed)
        await Coordinator.__init__(
            self, spec, settings, runtime=runtime, record=record, attempt=attempt, restarted=was_restarted,
            predecessor=predecessor,
        )  # fmt: skip

    @ray.method(concurrency_group="control")
    async def ping(self) -> str:  # type: ignore[override]  # Ray types it as a method of its own kind
        """Answer ``pong``."""
        return await super().ping()

    @ray.method(concurrency_group="control")
    async def get_status(self) -> dict[str, Any]:  # type: ignore[override]
        """Answer from the last snapshot."""
        return await super().get_status()

    @ray.method(_generator_backpressure_num_objects=STREAM_AHEAD)
    async def stream(self, task: Any) -> AsyncIterator[dict[str, Any]]:  # type: ignore[override]
        """Execute one task whose agent is a generator; see :meth:`Coordinator.stream`."""
        async for part in super().stream(task):
            yield part


class RayOrganRuntime:
    """Create, find and kill the actors of organs; every call to the GCS runs in a thread."""

    def __init__(self, *, namespace: str) -> None:
        self._namespace = namespace
        # A separate thread pool: while the head is away these calls hang, and must not block others.
        self._rows = ThreadPoolExecutor(2, thread_name_prefix="rows")

    async def find(self, spec: OrganSpec, replica: int, *, generation: int) -> ActorHandle[Any] | None:
        """Return the replica's actor if it exists, else None; the caller checks its identity."""
        return await asyncio.to_thread(_find, organ_name(spec.id, replica, generation), self._namespace)

    async def ensure(
        self, spec: OrganSpec, replica: int, identity: str, *, generation: int, node_id: str | None
    ) -> ActorHandle[Any]:
        """Return the replica's actor, created if it does not exist; the caller checks its identity.

        Args:
            spec: The organ.
            replica: Index of the replica, from 0.
            identity: Digest of spec and release.
            generation: Part of its name.
            node_id: The preferred node; without room, Ray chooses another one. None leaves the choice to Ray.
        """
        return await asyncio.to_thread(self._create, spec, replica, identity, generation, node_id)

    async def kill(self, handle: ActorHandle[Any], *, restart: bool) -> None:
        """End the replica's process; with ``restart`` Ray restarts it, else its name is free at once."""
        await asyncio.to_thread(ray.kill, handle, no_restart=not restart)

    async def row(self, handle: ActorHandle[Any]) -> Row | None:
        """Return the GCS's row of the replica's actor, None if there is none."""
        return await asyncio.get_running_loop().run_in_executor(self._rows, _row, handle)

    async def others(self, keep: set[str]) -> dict[str, ActorHandle[Any]]:
        """Return every organ of this namespace whose actor name is not in ``keep``: name to handle."""
        return await asyncio.to_thread(_organs, self._namespace, keep)

    async def places(self) -> list[Node]:
        """Return the nodes on which a replica may be placed."""
        return await asyncio.to_thread(_places)

    async def nodes(self) -> list[dict[str, Any]]:
        """Return the cluster's nodes, including the dead ones that Ray remembers."""
        return await asyncio.to_thread(_nodes)

    async def ask_agents(self) -> dict[str, bool]:
        """Ask the agent of each living node except this one; return node id to whether it has answered."""
        agents = await asyncio.get_running_loop().run_in_executor(self._rows, _agents)
        asked = (agent_answers(*address, timeout_s=_AGENT_TIMEOUT_S) for address in agents.values())
        answers = await asyncio.gather(*asked)
        return dict(zip(agents, answers, strict=True))

    def _create(
        self, spec: OrganSpec, replica: int, identity: str, generation: int, node_id: str | None
    ) -> ActorHandle[Any]:
        actor_class: Any = ray.remote(Organ)
        handle: ActorHandle[Any] = actor_class.options(
            name=organ_name(spec.id, replica, generation),
            namespace=self._namespace,
            lifetime="detached",
            get_if_exists=True,
            num_cpus=spec.num_cpus,
            num_gpus=spec.num_gpus or None,
            resources=dict(spec.resources) or None,
            label_selector=dict(spec.labels) or None,
            scheduling_strategy=_placement(node_id),
            max_restarts=-1,
            # A retry of a task that kills its process would cause a crash loop.
            max_task_retries=0,
            max_concurrency=_MAX_CALLS,
            runtime_env=runtime_env(spec.python),
        ).remote(spec.to_dict(), replica, identity)
        return handle


def _row(handle: ActorHandle[Any]) -> Row | None:
    accessor = ray._private.state.state._connect_and_get_accessor()  # noqa: SLF001
    found = accessor.get_actor_info(handle._actor_id)  # noqa: SLF001 - Ray has no public names for these
    if found is None:
        return None
    actor = _gcs.ActorTableData.FromString(found)
    cause = death_cause(actor.death_cause)
    if cause is None and actor.previous_incarnations:
        cause = _last_exit(accessor, actor.previous_incarnations[-1].worker_id)
    state = _gcs.ActorTableData.ActorState.Name(actor.state)
    return Row(state=state, restarts=actor.num_restarts, cause=cause, node_id=actor.address.node_id.hex() or None)


def _last_exit(accessor: Any, worker_id: bytes) -> str | None:
    # A restarted actor has no death cause, but its last worker has one.
    try:
        worker = accessor.get_worker_info(ray.WorkerID(worker_id))
        return exit_cause(_gcs.WorkerTableData.FromString(worker)) if worker else None
    except Exception as error:
        # This reads Ray's internals; if it fails, only the cause of a death is missing.
        logger.warning("cannot read why a worker has exited: %s", error)
        return None


def death_cause(cause: Any) -> str | None:
    """Return in one line why an actor died, from the context that Ray has filled in; None if there is none."""
    texts = [str(getattr(context, "error_message", "")) for _, context in cause.ListFields()]
    return next((line.strip() for text in texts for line in text.splitlines() if line.strip()), None)


def exit_cause(worker: Any) -> str | None:
    """Return in one line why Ray's memory monitor has killed a worker; None if it has not."""
    if worker.exit_type != _common.WorkerExitType.NODE_OUT_OF_MEMORY:
        return None
    amounts = _MEMORY.search(worker.exit_detail)
    why = f": the node used {amounts[1]} of {amounts[2]}" if amounts else ""
    own = worker.memory_used_bytes_at_death / 1e9
    return f"Ray's memory monitor has killed its process{why}{f', the process {own:.1f}GB' if own else ''}"


def _nodes() -> list[dict[str, Any]]:
    draining = _draining()
    return [
        {
            "node_id": node["NodeID"],
            "node_name": node.get("NodeName") or node.get("NodeManagerHostname"),
            "alive": bool(node["Alive"]),
            "draining": node["NodeID"] in draining,
            "head": HEAD_RESOURCE in node.get("Resources", {}),
        }
        for node in ray.nodes()  # type: ignore[no-untyped-call]
    ]


def _draining() -> frozenset[str]:
    """Return the ids of draining nodes; Ray has no public name for this call."""
    return frozenset(ray._private.state.state.get_draining_nodes())  # noqa: SLF001


def _agents() -> dict[str, tuple[str, int]]:
    """Return the address of the agent of each living node except this one."""
    own = ray.get_runtime_context().get_node_id()
    worker: Any = ray._private.worker.global_worker  # noqa: SLF001 - Ray has no public name for it
    nodes = worker.gcs_client.get_all_node_info(timeout=_AGENT_TIMEOUT_S)
    return {
        node_id.hex(): (node.node_manager_address, node.dashboard_agent_listen_port)
        for node_id, node in nodes.items()
        if node.state == _gcs.GcsNodeInfo.ALIVE and node.dashboard_agent_listen_port > 0 and node_id.hex() != own
    }


def _places() -> list[Node]:
    draining, state = _draining(), ray._private.state.state  # noqa: SLF001 - Ray has no public name for it
    available = state.available_resources_per_node()  # type: ignore[no-untyped-call]
    return [
        Node(
            node_id=node["NodeID"],
            name=node.get("NodeName") or node.get("NodeManagerHostname"),
            resources=node.get("Resources") or {},
            available=available.get(node["NodeID"]),
            labels=node.get("Labels") or {},
        )
        for node in ray.nodes()  # type: ignore[no-untyped-call]
        if node["Alive"] and node["NodeID"] not in draining
    ]


def _placement(node_id: str | None) -> Any:
    """Return the preferred node of a new replica; without room, Ray chooses another one."""
    if node_id is None:
        return "SPREAD"
    return NodeAffinitySchedulingStrategy(node_id, soft=True, _spill_on_unavailable=True)


def _find(name: str, namespace: str) -> ActorHandle[Any] | None:
    try:
        return ray.get_actor(name, namespace=namespace)
    except ValueError:
        return None


def kill_organs(namespace: str) -> list[str]:
    """Kill all organs of a namespace and return their names; call the GCS synchronously."""
    killed = []
    for name, handle in _organs(namespace, frozenset()).items():
        with contextlib.suppress(ValueError, RayError):  # gone in the meantime
            ray.kill(handle, no_restart=True)
            killed.append(name)
    return killed


def _organs(namespace: str, but: Collection[str]) -> dict[str, ActorHandle[Any]]:
    names = [
        entry["name"]
        for entry in ray.util.list_named_actors(all_namespaces=True)
        if entry["namespace"] == namespace and entry["name"].startswith(ORGAN_NAME_PREFIX)
    ]
    found = {}
    for name in sorted(set(names) - set(but)):
        with contextlib.suppress(ValueError):  # gone in the meantime
            found[name] = ray.get_actor(name, namespace=namespace)
    return found
