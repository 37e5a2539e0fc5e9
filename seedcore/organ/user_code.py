"""Call user code, and turn everything that it raises or returns into plain data.

There are two reasons (measured on Ray 2.60): a ``SystemExit`` or ``KeyboardInterrupt`` from an async actor method stops
the actor's loop for ever while Ray reports it ALIVE, and an exception or a result that cannot be pickled kills the
worker process.
"""

from __future__ import annotations

import asyncio
import inspect
import traceback
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any

from seedcore.config.agent_import import check_agent, load_agent
from seedcore.core.errors import PayloadTooLargeError
from seedcore.core.spec import OrganSpec
from seedcore.core.task import describe, is_plain, payload_bytes
from seedcore.organ.threads import in_thread

MAX_RESULT_BYTES = 64 * 1024 * 1024
MAX_TRACEBACK_CHARS = 20_000
_INLINE_CHECK_BYTES = 64 * 1024
# A value with at most this many items of this many characters is far below the limit above.
_FEW, _SHORT = 16, 512
_NUMBERS = frozenset({type(None), bool, int, float})


@dataclass(frozen=True, slots=True)
class Raised:
    """An exception as plain text."""

    error: str
    error_type: str
    traceback_text: str

    @classmethod
    def of(cls, error: BaseException) -> Raised:
        """Convert an exception; never raise."""
        try:
            text = "".join(traceback.format_exception(error))
        except BaseException:
            # Formatting calls the exception's __str__, which may be user code.
            text = type(error).__name__
        return cls(describe(error), type(error).__name__, text[-MAX_TRACEBACK_CHARS:])


async def call(
    function: Callable[..., Any],
    *args: Any,
    executor: Executor,
    interrupt: bool = True,
    on_loop: bool | None = None,
) -> Any | Raised:
    """Call user code, async on the loop or sync in a thread; return its result or a :class:`Raised`.

    A cancellation from outside is re-raised when the code has ended, everything else is returned. A caller that knows
    the result of :func:`is_async` passes it as ``on_loop``.
    """
    try:
        if is_async(function) if on_loop is None else on_loop:
            return await function(*args)
        result = await in_thread(lambda: _call_in_thread(function, args), executor=executor, interrupt=interrupt)
        if inspect.isawaitable(result):
            return await result
    except asyncio.CancelledError as error:
        if _being_cancelled():
            raise
        return Raised.of(error)
    except BaseException as error:
        # This includes SystemExit and KeyboardInterrupt: see the module's docstring.
        return Raised.of(error)
    return result


def is_async(function: Callable[..., Any]) -> bool:
    """Return whether ``function`` returns a coroutine (including methods and objects with an async ``__call__``)."""
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(type(function).__call__)


async def check_result(result: Any, *, executor: Executor) -> Raised | None:
    """Return why a result cannot be sent to another process, or None if it can.

    It checks small plain data, the usual case, at once; anything else is pickled in a thread.
    """
    if is_small_and_plain(result):
        return None
    return await asyncio.get_running_loop().run_in_executor(executor, _check_thoroughly, result)


def is_small_and_plain(value: Any) -> bool:
    """Return whether a value needs no thorough check."""
    if type(value) is dict and len(value) <= _FEW:
        # The usual answer; the general way takes as long as the rest of a small task.
        for key, item in value.items():
            if type(key) is not str or len(key) > _SHORT or not (type(item) in _NUMBERS or _is_short_text(item)):
                break
        else:
            return True
    try:
        return payload_bytes(value, limit=_INLINE_CHECK_BYTES) <= _INLINE_CHECK_BYTES and is_plain(value)
    except BaseException:
        # Nested too deeply, or a user's container that raises when it is inspected.
        return False


def _is_short_text(value: Any) -> bool:
    return type(value) is str and len(value) <= _SHORT


def _check_thoroughly(value: Any) -> Raised | None:
    """Measure and pickle a result, in a thread, because both may take long.

    Check size and depth first: Ray packs lists and dicts itself, and one that contains itself aborts the process.
    """
    from ray import cloudpickle  # noqa: PLC0415 - only organs come here, and they have Ray loaded already

    kind = type(value).__name__
    try:
        size = payload_bytes(value, limit=MAX_RESULT_BYTES)
        if size <= MAX_RESULT_BYTES:
            size = len(cloudpickle.dumps(value))  # type: ignore[no-untyped-call]
    except PayloadTooLargeError:
        return Raised(f"the agent returned a {kind} that is nested too deeply", "ResultTooLargeError", "")
    except BaseException as error:
        # Pickling may run user code.
        raised = Raised.of(error)
        text = f"the agent returned a {kind} that cannot be serialized: {raised.error}"
        return Raised(text, "UnserializableResultError", raised.traceback_text)
    if size > MAX_RESULT_BYTES:
        return Raised(f"the agent returned more than {MAX_RESULT_BYTES} bytes", "ResultTooLargeError", "")
    return None


def _call_in_thread(function: Callable[..., Any], args: tuple[Any, ...]) -> Any | Raised:
    # Catch it here and not in the future: before Python 3.12 a StopIteration would leave the awaiting side waiting
    # for ever.
    try:
        return function(*args)
    except BaseException as error:
        return Raised.of(error)


def _being_cancelled() -> bool:
    current = asyncio.current_task()
    return current is not None and current.cancelling() > 0


def load_fenced(spec: OrganSpec) -> Any | Raised:
    """Import an organ's agent; return what went wrong as plain data."""
    try:
        target = load_agent(spec.agent)
        problem = check_agent(target, spec.options)
    except BaseException as error:
        # An import runs user code.
        return Raised.of(error)
    return target if problem is None else Raised(f"{spec.agent}: {problem}", "AgentStartError", "")
