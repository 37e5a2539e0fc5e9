"""One agent inside an organ's process: a user's object or function, its state and its life."""

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
from seedcore.organ.user_code import Raised, call, check_result, is_async

STOP_TIMEOUT_S = 5.0
# An agent that was well for this long begins anew with the shortest pause.
WELL_AFTER_S = 60.0


@dataclass(frozen=True, slots=True)
class Kind:
    """What all agents of one process have in common.

    Attributes:
        target: A class (constructed as ``target(agent_id, **options)``) or a function (called as
            ``target(task, **options)``).
        options: The organ's options.
        interrupt: Whether a thread is interrupted at a task's deadline.
    """

    target: Callable[..., Any]
    options: Mapping[str, Any]
    interrupt: bool = True

    @property
    def is_class(self) -> bool:
        """Whether each agent is an object of its own."""
        return inspect.isclass(self.target)

    @property
    def is_sync(self) -> bool:
        """Whether tasks run in threads."""
        work = self.target.execute if inspect.isclass(self.target) else self.target  # type: ignore[attr-defined]
        return not (is_async(work) or inspect.isasyncgenfunction(work))


class AgentRunner:
    """Runs one agent; every call into user code goes through the fence.

    Args:
        agent_id: ``<organ_id>_agent_<i>``.
        kind: What it is.
        executor: Where sync user code runs that does tasks.
        care: Where its construction, start, health check and stop run, if they are sync: the same as ``executor`` for
            an agent that has a thread of its own.
        counts: Agents of the process by their state, kept up to date here.

    Attributes:
        place: Agents that share a thread have the same, and do one task at a time together.
        load: Tasks and health checks that it does now.
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
        # Bound here: an option may have any name, also one of the fence's own arguments.
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
        """Where it is in its life."""
        return self._state

    @property
    def has_thread(self) -> bool:
        """Whether everything of it runs in one thread."""
        return self._care is self._executor

    @property
    def has_health(self) -> bool:
        """Whether it can be asked how it is."""
        return self._instance is not None and getattr(self._instance, "check_health", None) is not None

    async def start(self, *, timeout_s: float) -> bool:
        """Construct and start the agent; True when it is ready, else :attr:`failure` says why."""
        self._enter(AgentState.STARTING)
        self.failure = None
        if self._kind.is_class:
            # The time of its start does not begin while the thread still does something for another agent.
            outcome = await self._within(timeout_s, self.prove()) if self.has_thread else None
            if not isinstance(outcome, Raised):
                outcome = await self._within(timeout_s, self._construct_and_start())
            if isinstance(outcome, Raised):
                self.fail(outcome)
                return False
        # Looked at here and not for each task: that costs as much as all the rest of a small one.
        self._on_loop, self._yields = is_async(self._function), is_generator(self._function)
        self._ready_since = time.monotonic()
        self._enter(AgentState.READY)
        return True

    async def prove(self) -> None:
        """Return when the agent's thread has taken a turn; at once if it works on the loop."""
        if self._kind.is_sync:
            await in_thread(_nothing, executor=self._executor)

    async def execute(self, task: Task, emit: Emit | None = None) -> Any | Raised:
        """Do one task; returns the agent's result, checked for serialization, or what it raised.

        The items of a generator go to ``emit`` one by one, and the result is how many they were; without ``emit`` the
        result is the list of them.
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
        if isinstance(result, Raised):
            return result
        return await check_result(result, executor=self._executor) or result

    async def check_health(self, *, timeout_s: float) -> Raised | None:
        """Ask the agent whether it is well: None if it is, or has no ``check_health``.

        It is not when the method raises, takes too long, or returns False.
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
        """Stop the agent; a stop that fails or hangs is not waited for longer than STOP_TIMEOUT_S."""
        self._enter(AgentState.STOPPED)
        method = getattr(self._instance, "stop", None)
        if method is not None:
            await self._within(STOP_TIMEOUT_S, self._call(method))
        self._instance = None
        self._function = self._bound

    def leave(self) -> None:
        """Note that a task or a health check of it has really ended."""
        self.load -= 1
        self._notice()

    @property
    def is_left_behind(self) -> bool:
        """Whether code of its start, health check or stop goes on that was given up on."""
        return bool(self._left_behind)

    async def ended(self, *, but: int = 0) -> None:
        """Return when no code of the agent runs any more, also none that was given up on; ``but`` is of its load."""
        while self.load > but or self._left_behind:
            self._changed = self._changed or asyncio.Event()
            await self._changed.wait()

    async def _construct_and_start(self) -> Raised | None:
        # The constructor may load a model for half a minute: never on the loop.
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
            # A property of the user's, which may raise anything.
            return Raised.of(error)
        return None

    async def _call(self, function: Callable[..., Any], *args: Any) -> Any | Raised:
        return await call(function, *args, executor=self._care, interrupt=self._kind.interrupt)

    async def _within(self, timeout_s: float, work: Awaitable[Any]) -> Any | Raised:
        """Wait for ``work`` at most ``timeout_s``; what ignores its cancellation is left behind."""
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
            task.exception()  # looked at, or asyncio complains
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
    """Take a turn of a thread."""


def _threaded(target: Callable[..., Any]) -> Callable[..., Any]:
    # A class whose metaclass or instances define an async __call__ must still be constructed in the thread.
    def construct(*args: Any, **kwargs: Any) -> Any:
        return target(*args, **kwargs)

    return construct
