"""One agent in an organ's process: a user's object or function, its state and its life cycle."""

from __future__ import annotations

import asyncio
import functools
import inspect
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Hashable, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any

from seedcore.core.logs import current_agent
from seedcore.core.organ_snapshot import AgentState
from seedcore.core.task import Task
from seedcore.organ.stream import Emit, collector, each, is_generator
from seedcore.organ.threads import in_thread
from seedcore.organ.user_code import Raised, call, check_result, is_async, is_small_and_plain

STOP_TIMEOUT_S = 5.0
# After this long healthy time, an agent's next pause is the shortest again.
WELL_AFTER_S = 60.0


@dataclass(frozen=True, slots=True)
class Kind:
    """Shared properties of all agents of one process.

    Attributes:
        target: A class (constructed as ``target(agent_id, **options)``) or a function (called as
            ``target(task, **options)``).
        options: The organ's options.
        interrupt: Whether to interrupt a thread at a task's deadline.
    """

    target: Callable[..., Any]
    options: Mapping[str, Any]
    interrupt: bool = True

    @property
    def is_class(self) -> bool:
        """Return whether each agent is a separate object."""
        return inspect.isclass(self.target)

    @property
    def is_sync(self) -> bool:
        """Return whether tasks run in threads."""
        work = self.target.execute if inspect.isclass(self.target) else self.target  # type: ignore[attr-defined]
        return not (is_async(work) or inspect.isasyncgenfunction(work))


class AgentRunner:
    """Run one agent; every call into user code goes through :mod:`user_code`.

    Args:
        agent_id: ``<organ_id>_agent_<i>``.
        kind: Properties of all agents.
        executor: Runs the tasks of sync agents.
        care: Runs construction, start, health check and stop, if they are sync: the same as ``executor`` for an agent
            with its own thread.
        counts: Number of agents of the process by state, updated here.

    Attributes:
        place: The same for agents that share a thread; together they execute one task at a time.
        load: Number of its running tasks and health checks.
    """

    __slots__ = (
        "_bound",
        "_care",
        "_changed",
        "_counts",
        "_executor",
        "_function",
        "_instance",
        "_kind",
        "_left_behind",
        "_on_loop",
        "_ready_since",
        "_state",
        "_yields",
        "agent_id",
        "failure",
        "load",
        "place",
        "restarts",
    )

    def __init__(
        self,
        agent_id: str,
        kind: Kind,
        *,
        executor: Executor,
        care: Executor | None = None,
        counts: Counter[AgentState] | None = None,
    ) -> None:
        self.agent_id = agent_id
        self.failure: Raised | None = None
        self.restarts = 0
        self.load = 0
        self.place: Hashable = self if care is not None else executor
        self._kind = kind
        # Bind it here, because an option may have the same name as an argument of user_code.call.
        self._bound = functools.partial(kind.target, **kind.options)
        self._executor = executor
        self._care = care or executor
        self._instance: Any = None
        self._function: Callable[..., Any] = self._bound
        self._on_loop = self._yields = False
        self._left_behind: set[asyncio.Future[Any]] = set()
        self._changed: asyncio.Event | None = None
        self._ready_since = 0.0
        self._counts = Counter() if counts is None else counts
        self._state = AgentState.STARTING
        self._counts[self._state] += 1

    @property
    def state(self) -> AgentState:
        """Return the state of the agent."""
        return self._state

    @property
    def has_thread(self) -> bool:
        """Return whether all of its code runs in one thread."""
        return self._care is self._executor

    @property
    def has_health(self) -> bool:
        """Return whether it has a health check."""
        return self._instance is not None and getattr(self._instance, "check_health", None) is not None

    async def start(self, *, timeout_s: float) -> bool:
        """Construct and start the agent; return True if it is ready, else :attr:`failure` has the cause."""
        self._enter(AgentState.STARTING)
        self.failure = None
        if self._kind.is_class:
            # Its time limit does not start while the thread still works for another agent.
            outcome = await self._within(timeout_s, self.prove()) if self.has_thread else None
            if not isinstance(outcome, Raised):
                outcome = await self._within(timeout_s, self._construct_and_start())
            if isinstance(outcome, Raised):
                self.fail(outcome)
                return False
        # Look it up here and not for each task: that costs as much as the rest of a small task.
        self._on_loop, self._yields = is_async(self._function), is_generator(self._function)
        self._ready_since = time.monotonic()
        self._enter(AgentState.READY)
        return True

    async def prove(self) -> None:
        """Return when the agent's thread has run a call; at once if it runs on the loop."""
        if self._kind.is_sync:
            await in_thread(_nothing, executor=self._executor)

    async def execute(self, task: Task, emit: Emit | None = None) -> Any | Raised:
        """Execute one task; return the agent's result, checked for serialization, or its exception.

        The items of a generator go to ``emit`` one by one, and the result is their number; without ``emit`` the result
        is the list of the items.
        """
        current_agent.set(self.agent_id)
        function, interrupt = self._function, self._kind.interrupt
        if self._yields:
            items: list[Any] = []
            emitted = await each(
                function, task, executor=self._executor, emit=emit or collector(items), interrupt=interrupt
            )
            result = emitted if emit is not None or isinstance(emitted, Raised) else items
        else:
            result = await call(function, task, executor=self._executor, interrupt=interrupt, on_loop=self._on_loop)
        if isinstance(result, Raised) or is_small_and_plain(result):
            return result
        return await check_result(result, executor=self._executor) or result

    async def check_health(self, *, timeout_s: float) -> Raised | None:
        """Run the agent's ``check_health``; return None if it is healthy or has no such method.

        It is unhealthy if the method raises, takes too long, or returns False.
        """
        if not self.has_health:
            return None
        outcome = await self._within(timeout_s, self._call(self._instance.check_health))
        if isinstance(outcome, Raised):
            return outcome
        if outcome is False:
            return Raised("check_health returned False", "AgentUnhealthyError", "")
        return None

    def fail(self, failure: Raised) -> None:
        """Take the agent out of service."""
        if self._state is AgentState.READY and time.monotonic() - self._ready_since > WELL_AFTER_S:
            self.restarts = 0
        self.failure = failure
        self._enter(AgentState.FAILED)

    async def stop(self) -> None:
        """Stop the agent; wait at most STOP_TIMEOUT_S."""
        self._enter(AgentState.STOPPED)
        method = getattr(self._instance, "stop", None)
        if method is not None:
            await self._within(STOP_TIMEOUT_S, self._call(method))
        self._instance = None
        self._function = self._bound

    def leave(self) -> None:
        """Record that one of its tasks or health checks has really ended."""
        self.load -= 1
        self._notice()

    @property
    def is_left_behind(self) -> bool:
        """Return whether code of its start, health check or stop still runs after its time limit."""
        return bool(self._left_behind)

    async def ended(self, *, but: int = 0) -> None:
        """Return when none of the agent's code runs any more, ``but`` of its load excepted."""
        while self.load > but or self._left_behind:
            self._changed = self._changed or asyncio.Event()
            await self._changed.wait()

    async def _construct_and_start(self) -> Raised | None:
        # The constructor may load a model for half a minute, so never run it on the loop.
        instance = await self._call(_threaded(self._bound), self.agent_id)
        if isinstance(instance, Raised):
            return instance
        self._instance = instance
        start = getattr(instance, "start", None)
        outcome = None if start is None else await self._call(start)
        if isinstance(outcome, Raised):
            return outcome
        try:
            self._function = instance.execute
        except BaseException as error:
            # It may be a property of the user, which may raise anything.
            return Raised.of(error)
        return None

    async def _call(self, function: Callable[..., Any], *args: Any) -> Any | Raised:
        return await call(function, *args, executor=self._care, interrupt=self._kind.interrupt)

    async def _within(self, timeout_s: float, work: Awaitable[Any]) -> Any | Raised:
        """Wait for ``work`` at most ``timeout_s``; leave code behind that ignores its cancellation."""
        token = current_agent.set(self.agent_id)
        task = asyncio.ensure_future(work)
        current_agent.reset(token)
        try:
            done, _ = await asyncio.wait({task}, timeout=timeout_s)
        except asyncio.CancelledError:
            task.cancel()
            raise
        if not done:
            task.cancel()
            self._left_behind.add(task)
            task.add_done_callback(self._take_back)
            return Raised(f"no answer within {timeout_s:g} s", "TimeoutError", "")
        return Raised("cancelled", "CancelledError", "") if task.cancelled() else task.result()

    def _take_back(self, task: asyncio.Future[Any]) -> None:
        self._left_behind.discard(task)
        if not task.cancelled():
            task.exception()  # retrieve it, or asyncio complains
        self._notice()

    def _notice(self) -> None:
        if self._changed is not None:
            self._changed.set()
            self._changed = None

    def _enter(self, state: AgentState) -> None:
        self._counts[self._state] -= 1
        self._counts[state] += 1
        self._state = state


def _nothing() -> None:
    """Do nothing, in a thread."""


def _threaded(target: Callable[..., Any]) -> Callable[..., Any]:
    # A class with an async __call__ must still be constructed in the thread.
    def construct(*args: Any, **kwargs: Any) -> Any:
        return target(*args, **kwargs)

    return construct
