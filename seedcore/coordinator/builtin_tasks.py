"""Execute the tasks that the Coordinator handles itself."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any

from seedcore.coordinator.lifecycle import Lifecycle, Phase
from seedcore.coordinator.organ_reports import CANARY_TIMEOUT_S
from seedcore.core.errors import OrganUnavailableError, TaskError
from seedcore.core.task import Task, failure, inner_tasks

if TYPE_CHECKING:
    from seedcore.coordinator.coordinator import Coordinator

_SUMMARY = ("status", "reason", "message", "release", "since", "degraded", "missing", "progress", "uptime_s", "organs")


class Answer(dict[str, Any]):
    """A complete answer; any other return value of a built-in task becomes the ``result`` of an answer."""


def succeeded(result: Any, kind: str, started: float) -> dict[str, Any]:
    """Return the answer with this result, for a task that started at ``started`` (monotonic)."""
    return {
        "success": True,
        "result": result,
        "organ_id": None,
        "agent_id": None,
        "task_type": kind,
        "duration_s": round(time.monotonic() - started, 6),
    }


async def _get_organism_status(core: Coordinator, _life: Lifecycle, _: Task) -> list[dict[str, Any]]:
    return core.organism()


async def _get_organism_summary(core: Coordinator, life: Lifecycle, _: Task) -> dict[str, Any]:
    status = core.status()
    return {**{key: status[key] for key in _SUMMARY}, "routes": life.organism.routes()}


async def _get_metrics(core: Coordinator, _life: Lifecycle, _: Task) -> dict[str, Any]:
    return core.metrics()


async def _get_routing_debug(_core: Coordinator, life: Lifecycle, _: Task) -> dict[str, Any]:
    return life.organism.routes()


async def _execute_on_organ(core: Coordinator, life: Lifecycle, task: Task) -> Answer:
    organ_id = task.params.get("organ_id")
    if not isinstance(organ_id, str):
        raise TaskError("params key 'organ_id' must be a string")
    return Answer(await life.organism.run_on(organ_id, _inner(core, task)))


async def _execute_on_random_organ(core: Coordinator, life: Lifecycle, task: Task) -> Answer:
    return Answer(await life.organism.run_on_any(_inner(core, task)))


async def _execute_many(core: Coordinator, _: Lifecycle, task: Task) -> list[dict[str, Any]]:
    """Execute the tasks in one ``execute_many``; the result has their answers, in their order."""
    return list(await asyncio.gather(*(core.handle(inner) for inner in inner_tasks(task))))


async def _initialize_organism(_core: Coordinator, life: Lifecycle, _: Task) -> dict[str, Any]:
    """Start the organism again, in the background; the status is ``initializing`` meanwhile."""
    life.start_again()
    return {"status": "initializing"}


async def _shutdown_organism(core: Coordinator, life: Lifecycle, _: Task) -> dict[str, Any]:
    if life.init_seconds is None and life.phase is Phase.STARTING:
        raise OrganUnavailableError(f"the organism is initializing: {life.organism.stage}")
    await core.shutdown()
    return {"stopped": [organ["organ_id"] for organ in core.organism()]}


async def _canary(core: Coordinator, life: Lifecycle, task: Task) -> Answer:
    nonce = task.params.get("nonce")
    if not isinstance(nonce, str) or not nonce:
        raise TaskError("params key 'nonce' must be a non-empty string")
    life.require_running()
    echoes, inbox = await asyncio.gather(life.organism.canary(nonce), core.inbox.prove(CANARY_TIMEOUT_S))
    lost = [f"{echo['organ_id']}[{echo['replica']}]" for echo in echoes if echo["missed"]]
    result = {"nonce": nonce, "replicas": echoes, **({} if inbox is None else {"inbox": inbox})}
    if lost:
        text = f"the nonce was not returned by {', '.join(lost)}"
        return Answer(failure(text, error_type="CanaryError", task_type=task.type, result=result))
    if inbox is not None and inbox["fault"]:
        text = f"the inbox accepts tasks and does not complete them: {inbox['fault']}"
        return Answer(failure(text, error_type="InboxStuckError", task_type=task.type, result=result))
    return Answer(succeeded(result, task.type, time.monotonic()))


def _inner(core: Coordinator, task: Task) -> Task:
    core.require_open()
    if "task_data" not in task.params:
        raise TaskError("params key 'task_data' is missing, expected the task to execute")
    return Task.parse(task.params["task_data"])


BUILTINS: Mapping[str, Callable[[Coordinator, Lifecycle, Task], Awaitable[Any]]] = {
    "get_organism_status": _get_organism_status,
    "get_organism_summary": _get_organism_summary,
    "execute_on_organ": _execute_on_organ,
    "execute_on_random_organ": _execute_on_random_organ,
    "execute_many": _execute_many,
    "initialize_organism": _initialize_organism,
    "shutdown_organism": _shutdown_organism,
    "get_metrics": _get_metrics,
    "get_routing_debug": _get_routing_debug,
    "canary": _canary,
}
"""Maps the types of ``BUILTIN_TASK_TYPES``, which clients and the loader use without this module, to functions."""
