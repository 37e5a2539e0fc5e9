"""Read a task from a request, with limits on bytes, values, depth and time that apply before anything is parsed.

A parser is one call that nothing can interrupt, and a small text can become large objects ("[[],[],[]..." grows twenty
times). The text is therefore measured chunk by chunk as it arrives, and rejected as soon as it exceeds a limit. This
never blocks the event loop for more than some tens of milliseconds, and limits the memory for all bodies together.
"""

from __future__ import annotations

import asyncio
from typing import Any

from pydantic_core import from_json
from starlette.requests import ClientDisconnect, Request

from seedcore.core.errors import PayloadTooLargeError, SeedCoreError
from seedcore.core.task import MAX_DEPTH, MAX_PAYLOAD_BYTES

MAX_BODY_BYTES = 16 * 1024 * 1024
# seedcore.core.task counts at least 16 bytes per value, so it would reject a task with more values anyway.
MAX_VALUES = MAX_PAYLOAD_BYTES // 16
MAX_BODIES_BYTES = 128 * 1024 * 1024
BODY_TIMEOUT_S = 60.0

_NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))


class RefusedError(SeedCoreError):
    """A request is rejected before it reaches the Coordinator.

    Attributes:
        status: HTTP status code.
        error_type: Error type of the answer.
        headers: Headers of the answer.
    """

    def __init__(self, status: int, error_type: str, message: str, headers: tuple[tuple[str, str], ...] = ()) -> None:
        super().__init__(status, error_type, message, headers)
        self.status = status
        self.error_type = error_type
        self.message = message
        self.headers = dict(headers)

    def __str__(self) -> str:
        return self.message


class Gauge:
    """Count values and depth of a JSON text that arrives in pieces; it does not check the grammar.

    Raises:
        RefusedError: From ``feed``, once a limit is exceeded.
    """

    def __init__(self, *, max_values: int = MAX_VALUES, max_depth: int = MAX_DEPTH) -> None:
        self._max_values = max_values
        self._max_depth = max_depth
        self._values = 0
        self._depth = 0
        self._in_string = False
        self._escaped = False

    def feed(self, chunk: bytes) -> None:
        """Take the next piece."""
        outside = self._outside_strings(chunk)
        opens = outside.count(b"[") + outside.count(b"{")
        self._values += opens + outside.count(b",") + outside.count(b":")
        if self._values > self._max_values:
            raise _too_large(f"the body has more than {self._max_values} values")
        if self._depth + opens <= self._max_depth:
            self._depth += opens - outside.count(b"]") - outside.count(b"}")
            return
        for bracket in outside.translate(None, _NOT_BRACKETS):
            # "[" and "{" are 0x5b and 0x7b, "]" and "}" are 0x5d and 0x7d.
            self._depth += 1 if bracket & 0x0F == 0x0B else -1  # noqa: PLR2004
            if self._depth > self._max_depth:
                raise RefusedError(400, "TaskError", f"the body is nested deeper than {self._max_depth} levels")

    def _outside_strings(self, chunk: bytes) -> bytes:
        """Cut everything out of ``chunk`` that is inside a string, and remember where it ends.

        No regular expression: one that meets many quotes and no end of a string takes quadratic time.
        """
        if self._escaped and chunk:
            chunk = chunk[1:]
            self._escaped = False
        # Escapes are of no interest here, only which quotes are not escaped; pairs of backslashes first.
        chunk = chunk.replace(b"\\\\", b"").replace(b'\\"', b"")
        if chunk.endswith(b"\\"):
            self._escaped = True
        parts = chunk.split(b'"')
        outside = b" ".join(parts[self._in_string :: 2])
        if len(parts) % 2 == 0:
            self._in_string = not self._in_string
        return outside


class Intake:
    """Read the bodies of all requests of one application, within a common limit in bytes."""

    def __init__(self, *, timeout_s: float = BODY_TIMEOUT_S) -> None:
        self._timeout_s = timeout_s
        self._held = 0

    async def read(self, request: Request) -> tuple[Any, int]:
        """Return the parsed body and its number of bytes, to :meth:`release` when the task is done.

        Raises:
            RefusedError: It is not a JSON text within the limits.
        """
        _check_headers(request)
        declared = request.headers.get("content-length", "")
        self._check_room(0, int(declared) if declared.isascii() and declared.isdigit() else 0)
        body = bytearray()
        gauge = Gauge()
        try:
            async with asyncio.timeout(self._timeout_s):
                async for chunk in request.stream():
                    self._check_room(len(body), len(chunk))
                    gauge.feed(chunk)
                    body += chunk
                    self._held += len(chunk)
            return _parse(body), len(body)
        except TimeoutError:
            self.release(len(body))
            raise RefusedError(
                408, "TimeoutError", f"the body did not arrive within {self._timeout_s:g} s", (("Connection", "close"),)
            ) from None
        except ClientDisconnect:
            self.release(len(body))
            raise RefusedError(400, "TaskError", "the client went away before the body was complete") from None
        except BaseException:
            self.release(len(body))
            raise

    def _check_room(self, read: int, more: int) -> None:
        if read + more > MAX_BODY_BYTES:
            raise _too_large(f"the body is larger than {MAX_BODY_BYTES} bytes")
        if self._held + more > MAX_BODIES_BYTES:
            raise RefusedError(429, "OverloadedError", "too much is being received at once", (("Retry-After", "1"),))

    def release(self, size: int) -> None:
        """Release the bytes that :meth:`read` has reserved."""
        self._held -= size


def _check_headers(request: Request) -> None:
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    # This also stops a page of another site from sending tasks if there is no authentication: a browser sends this
    # type across sites only after a preflight request.
    if media_type != "application/json" and not (
        media_type.startswith("application/") and media_type.endswith("+json")
    ):
        raise RefusedError(
            415,
            "TaskError",
            f"send the task as Content-Type: application/json, not {media_type[:80] or 'without a type'}",
        )
    if request.headers.get("content-encoding", "identity").strip().lower() not in {"", "identity"}:
        raise RefusedError(415, "TaskError", "send the body without a Content-Encoding")


def _parse(body: bytearray) -> Any:
    if not body:
        raise RefusedError(400, "TaskError", "the body is empty, send a task as JSON")
    try:
        return from_json(body, allow_inf_nan=False)
    except ValueError as error:
        raise RefusedError(400, "TaskError", f"the body is not JSON: {error}") from None
    except RecursionError:
        raise RefusedError(400, "TaskError", "the body is nested too deeply") from None


def _too_large(message: str) -> RefusedError:
    return RefusedError(413, PayloadTooLargeError.__name__, message)
