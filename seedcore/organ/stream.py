"""Run agents that are generators: their results are emitted item by item."""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import Executor
from typing import Any

from seedcore.core.task import payload_bytes
from seedcore.organ.user_code import MAX_RESULT_BYTES, Raised, call, check_result

Emit = Callable[[Any], Awaitable[None]]
"""Takes one item and returns when there is room for the next."""

_END = object()


def is_generator(function: Callable[..., Any]) -> bool:
    """Return whether ``function`` returns a generator, sync or async."""
    plain = function.func if isinstance(function, functools.partial) else function
    candidates = (plain, type(plain).__call__)
    return any(inspect.isgeneratorfunction(one) or inspect.isasyncgenfunction(one) for one in candidates)


async def each(
    function: Callable[..., Any], *args: Any, executor: Executor, emit: Emit, interrupt: bool = True
) -> int | Raised:
    """Emit each item of a user's generator; return the number of items, or the exception.

    An item that cannot be serialized ends it. An async generator runs on the loop, a sync one in threads; both are
    closed at the end, even after a cancellation.
    """
    made = function(*args)
    step = functools.partial(anext, made, _END) if inspect.isasyncgen(made) else functools.partial(next, made, _END)
    count = 0
    try:
        while True:
            item = await call(
                _awaited(step) if inspect.isasyncgen(made) else step, executor=executor, interrupt=interrupt
            )
            if item is _END:
                return count
            problem = item if isinstance(item, Raised) else await check_result(item, executor=executor)
            if problem is not None:
                return problem
            count += 1
            try:
                await emit(item)
            except ValueError as error:
                return Raised(str(error), "ResultTooLargeError", "")
            # A generator that never awaits must not block the loop, which enforces deadlines.
            await asyncio.sleep(0)
    finally:
        await _close(made, executor)


def collector(items: list[Any]) -> Emit:
    """Emit into a list, up to the size limit of a result."""
    room = MAX_RESULT_BYTES

    async def emit(item: Any) -> None:
        nonlocal room
        room -= payload_bytes(item, limit=room)
        if room < 0:
            raise ValueError(f"the agent yielded more than {MAX_RESULT_BYTES} bytes")
        items.append(item)

    return emit


def _awaited(step: Callable[[], Awaitable[Any]]) -> Callable[[], Any]:
    # anext with a default returns an awaitable that is not a coroutine; user_code needs a coroutine function.
    async def wait() -> Any:
        return await step()

    return wait


async def _close(made: AsyncIterator[Any] | Iterator[Any], executor: Executor) -> None:
    close = getattr(made, "aclose", None) or getattr(made, "close", None)
    if close is not None:
        await call(close, executor=executor)
