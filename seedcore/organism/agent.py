"""One agent inside an organ's process: a user's object or function, its state and its slots."""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import Executor
from enum import StrEnum
from typing import Any

from seedcore.organism.fence import Raised, call, check_result
from seedcore.organism.stream import Emit, collector, each, is_generator
from seedcore.task import Task

STOP_TIMEOUT_S = 5.0


class AgentState(StrEnum):
    """Where an agent is in its life."""

    STARTING = "starting"
    READY = "ready"
    FAILED = "failed"
    STOPPED = "stopped"


class AgentRunner:
    """Runs one agent; every call into user code goes through the fence.

    Args:
        agent_id: ``<organ_id>_agent_<i>``.
        target: A class (constructed as ``target(agent_id, **options)``) or a function (called as
            ``target(task, **options)``).
        options: The organ's options.
        executor: Where sync user code runs.
    """

    __slots__ = ("_bound", "_executor", "_instance", "_target", "agent_id", "failure", "restarts", "state")

    def __init__(
        self, agent_id: str, target: Callable[..., Any], *, options: Mapping[str, Any], executor: Executor
    ) -> None:
        self.agent_id = agent_id
        self.state = AgentState.STARTING
        self.failure: Raised | None = None
        self.restarts = 0
        self._target = target
        # Bound here: an option may have any name, also one of the fence's own arguments.
        self._bound = functools.partial(target, **options)
        self._executor = executor
        self._instance: Any = None

    async def start(self, *, timeout_s: float) -> bool:
        """Construct and start the agent; True when it is ready, else :attr:`failure` says why."""
        self.state, self.failure = AgentState.STARTING, None
        if inspect.isclass(self._target):
            outcome = await _within(timeout_s, self._construct_and_start())
            if isinstance(outcome, Raised):
                self.state, self.failure = AgentState.FAILED, outcome
                return False
        self.state = AgentState.READY
        return True

    async def execute(self, task: Task, emit: Emit | None = None) -> Any | Raised:
        """Do one task; returns the agent's result, checked for serialization, or what it raised.

        The items of a generator go to ``emit`` one by one, and the result is how many they were; without ``emit`` the
        result is the list of them.
        """
        function = self._instance.execute if inspect.isclass(self._target) else self._bound
        if is_generator(function):
            items: list[Any] = []
            emitted = await each(function, task, executor=self._executor, emit=emit or collector(items))
            result = emitted if emit is not None or isinstance(emitted, Raised) else items
        else:
            result = await call(function, task, executor=self._executor)
        if isinstance(result, Raised):
            return result
        return await check_result(result, executor=self._executor) or result

    async def check_health(self, *, timeout_s: float) -> Raised | None:
        """Ask the agent whether it is well: None if it is, or has no ``check_health``.

        It is not when the method raises, takes too long, or returns False.
        """
        method = getattr(self._instance, "check_health", None)
        if method is None:
            return None
        outcome = await _within(timeout_s, call(method, executor=self._executor))
        if isinstance(outcome, Raised):
            return outcome
        if outcome is False:
            return Raised("check_health returned False", "AgentUnhealthyError", "")
        return None

    def fail(self, failure: Raised) -> None:
        """Take the agent out of service."""
        self.state, self.failure = AgentState.FAILED, failure

    async def stop(self) -> None:
        """Stop the agent; a stop that fails or hangs is not waited for longer than STOP_TIMEOUT_S."""
        self.state = AgentState.STOPPED
        method = getattr(self._instance, "stop", None)
        if method is not None:
            await _within(STOP_TIMEOUT_S, call(method, executor=self._executor))
        self._instance = None

    async def _construct_and_start(self) -> Raised | None:
        # The constructor may load a model for half a minute: never on the loop.
        instance = await call(_threaded(self._bound), self.agent_id, executor=self._executor)
        if isinstance(instance, Raised):
            return instance
        self._instance = instance
        start = getattr(instance, "start", None)
        outcome = None if start is None else await call(start, executor=self._executor)
        return outcome if isinstance(outcome, Raised) else None


def _threaded(target: Callable[..., Any]) -> Callable[..., Any]:
    # A class whose metaclass or instances define an async __call__ must still be constructed in the thread.
    def construct(*args: Any, **kwargs: Any) -> Any:
        return target(*args, **kwargs)

    return construct


async def _within(timeout_s: float, work: Awaitable[Any]) -> Any | Raised:
    """Wait for ``work`` at most ``timeout_s``; what ignores its cancellation is left behind, not waited for."""
    task = asyncio.ensure_future(work)
    try:
        done, _ = await asyncio.wait({task}, timeout=timeout_s)
    except asyncio.CancelledError:
        task.cancel()
        raise
    if not done:
        task.cancel()
        return Raised(f"no answer within {timeout_s:g} s", "TimeoutError", "")
    return Raised("cancelled", "CancelledError", "") if task.cancelled() else task.result()
