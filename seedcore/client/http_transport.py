"""Send tasks over the Coordinator's HTTP server, from a process that has not joined Ray."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from seedcore.client.http_connection import Wire
from seedcore.client.retry import Attempts, Sink, closed_answer, parse
from seedcore.core.errors import ClusterError, OrganUnavailableError, SeedCoreError
from seedcore.core.reason import Reason
from seedcore.core.settings import Settings
from seedcore.core.task import LINES_MEDIA_TYPE, SENT_TOGETHER, SENT_TOGETHER_BYTES, describe, failure
from seedcore.status.http_client import NotSentError, check_refusal, stranger

# Requests in flight. Below the first number a task is sent at once, above it tasks are collected for a moment.
QUICK_REQUESTS = 4
MAX_REQUESTS = 128
GATHER_S = 0.02
# Extra time for an answer to arrive after the Coordinator's own limit for the task.
ANSWER_GRACE_S = 5.0
_PATH = "/coordinator/tasks"
_HARMLESS_PATH = "/livez"
# A batch that is rejected with one of these may contain a single bad task.
_SPOILT = frozenset({HTTPStatus.BAD_REQUEST, HTTPStatus.REQUEST_ENTITY_TOO_LARGE})


class NoAnswer(dict[str, Any]):
    """The answer, in the documented shape, to a task that the Coordinator did not answer.

    Attributes:
        error: The cause: a NotSentError or a rejection (the task did not run), or the error that ended the wait.
    """

    def __init__(self, error: Exception, answer: Mapping[str, Any]) -> None:
        super().__init__(answer)
        self.error = error


class HttpEngine:
    """Submit many tasks at once, on one event loop; concurrent tasks travel as one request.

    It takes each answer as it arrives, so a slow task does not delay a quick one. Call the methods on the loop.

    Args:
        settings: Where the Coordinator is.
        patience_s: Seconds in which a task that has not begun is retried, whatever its own limit is; None to retry
            within the task's own limit, which then counts from :meth:`add`.
    """

    def __init__(self, settings: Settings, *, patience_s: float | None = None) -> None:
        self._settings = settings
        self._patience_s = patience_s
        self._loop = asyncio.get_running_loop()
        self._inbox: deque[_Entry] = deque()
        self._open: set[_Entry] = set()
        self._idle: list[Wire] = []
        # A connection was lost, and since then the server has answered nothing.
        self._in_doubt = False
        self._requests: set[asyncio.Task[None]] = set()
        self._flushing: asyncio.Handle | None = None
        self._closed = False

    def add(self, raw: Any, timeout_s: float | None, sink: Sink) -> None:
        """Start one task."""
        parsed = closed_answer(raw) if self._closed else parse(raw)
        if isinstance(parsed, dict):
            sink(parsed)
            return
        task, size = parsed
        is_durable = raw.get("durable") is True
        try:
            # The limit of a durable task is that of each attempt, and not of this request.
            document = _document(raw, without=frozenset() if is_durable else _LIMIT)
        except Exception as error:
            # A mapping of the caller may raise anything when it is read.
            text = f"the task is not JSON: {describe(error)}"
            sink(failure(text, error_type="TaskError", task_type=task.type, executed="no"))
            return
        attempts = Attempts(timeout_s, None if is_durable else task.timeout_s, patience_s=self._patience_s)
        entry = _Entry(task.type, document, size, attempts, sink)
        entry.is_whole = is_durable
        self._open.add(entry)
        self._watch(entry)
        self._queue(entry)

    def close(self) -> None:
        """Answer all open tasks, and send nothing more."""
        self._closed = True
        for entry in list(self._open):
            self._finish(entry, closed_answer(entry.type, executed="unknown" if entry.is_sent else "no"))
        for under_way in self._requests:
            under_way.cancel()
        for wire in self._idle:
            wire.close()
        self._idle.clear()

    def _queue(self, entry: _Entry) -> None:
        if entry in self._open:
            entry.is_sent = False
            self._inbox.append(entry)
            self._flush_soon()

    def _flush_soon(self) -> None:
        if self._flushing is None and len(self._requests) < MAX_REQUESTS:
            quick = len(self._requests) < QUICK_REQUESTS
            self._flushing = (
                self._loop.call_soon(self._flush) if quick else self._loop.call_later(GATHER_S, self._flush)
            )

    def _flush(self) -> None:
        self._flushing = None
        batch: list[_Entry] = []
        size = 0
        while self._inbox and len(batch) < SENT_TOGETHER:
            if batch and size + self._inbox[0].size > SENT_TOGETHER_BYTES:
                break
            entry = self._inbox.popleft()
            if entry in self._open:  # else its deadline passed in the queue
                batch.append(entry)
                size += entry.size
        if batch:
            self._start(batch)
        if self._inbox:
            self._flush_soon()

    def _start(self, batch: list[_Entry]) -> None:
        under_way = self._loop.create_task(self._request(batch))
        self._requests.add(under_way)
        under_way.add_done_callback(self._ended)

    def _ended(self, under_way: asyncio.Task[None]) -> None:
        self._requests.discard(under_way)
        if self._inbox and not self._closed:
            if self._flushing is not None:
                self._flushing.cancel()
            self._flush()

    async def _request(self, batch: list[_Entry]) -> None:
        pending = dict(enumerate(batch))
        error: Exception = ConnectionError("the answer ended early")
        try:
            await self._exchange(batch, pending)
        except Exception as caught:
            # Any error concerns only the tasks of this request, and each of them gets an answer.
            error = caught
            self._in_doubt |= isinstance(error, OSError) and not isinstance(error, NotSentError)
        for entry in pending.values():
            self._take(entry, _lost(error, entry))

    async def _exchange(self, batch: list[_Entry], pending: dict[int, _Entry]) -> None:
        """Send a batch and take answers as they arrive; an answered task leaves ``pending``."""
        token, url = self._settings.token(), self._settings.http_url
        wire = next((one for one in self._take_idle() if one.is_usable), None)
        if wire is None:
            wire = await Wire.open(url, certificate=self._settings.http_tls_cert)
        try:
            if self._in_doubt:
                # A dying process still accepts connections: do not send it tasks that would be lost, too.
                await wire.check(_HARMLESS_PATH)
                self._in_doubt = False
            documents = [self._send(entry) for entry in batch]
            body = documents[0] if len(batch) == 1 else _BATCH % b",".join(documents)
            status = await wire.post(_PATH, body, token=token, accept=f"{LINES_MEDIA_TYPE}, application/json")
            check_refusal(f"the Coordinator at {url}", status)
            if wire.content_type == LINES_MEDIA_TYPE:
                async for line in wire.lines():
                    part = json.loads(line)
                    if (entry := pending.pop(part["index"], None)) is not None:
                        self._take(entry, part["answer"])
            else:
                self._take_whole(status, wire.retry_after, await wire.whole(), pending)
        except BaseException:
            wire.close()
            raise
        if wire.is_usable and not self._closed:
            self._idle.append(wire)
        else:
            wire.close()

    def _take_whole(self, status: int, retry_after: str | None, text: bytes, pending: dict[int, _Entry]) -> None:
        """Take the answers from a single JSON document, which is mostly a rejection of the request."""
        body = _parsed(text)
        if not isinstance(body, dict) or "success" not in body:
            raise stranger(self._settings.http_url, status, body)
        if len(pending) > 1 and body["success"] is True:
            answers = list(body["result"])
        elif len(pending) > 1 and status in _SPOILT and body.get("executed") == "no":
            for entry in list(pending.values()):
                self._start([entry])
            pending.clear()
            return
        else:
            if body.get("executed") == "no" and retry_after is not None and retry_after.isdigit():
                body.setdefault("retry_after_s", float(retry_after))
            alone = len(pending) == 1
            answers = [body if alone else {**body, "task_type": entry.type} for entry in pending.values()]
        for index, answer in zip(list(pending), answers, strict=True):
            self._take(pending.pop(index), answer)

    def _take_idle(self) -> list[Wire]:
        found: list[Wire] = []
        while self._idle and not (found and found[-1].is_usable):
            found.append(self._idle.pop())
        for wire in found:
            if not wire.is_usable:
                wire.close()
        return found

    def _send(self, entry: _Entry) -> bytes:
        """Mark a task as sent; return it as JSON with its remaining time."""
        entry.is_sent = True
        self._watch(entry)
        if entry.limit_s is None or entry.is_whole:
            return entry.document
        return b'%s,"timeout_s":%s}' % (entry.document[:-1], repr(max(0.001, round(entry.limit_s, 3))).encode())

    def _watch(self, entry: _Entry) -> None:
        """Answer a task at its deadline, even without an answer to its request."""
        if entry.timer is not None:
            entry.timer.cancel()
            entry.timer = None
        if entry.is_sent or self._patience_s is None:
            entry.limit_s = entry.attempts.limit()
            if entry.limit_s is not None:
                grace_s = ANSWER_GRACE_S if entry.is_sent else 0.0
                entry.timer = self._loop.call_later(entry.limit_s + grace_s, self._is_late, entry)

    def _is_late(self, entry: _Entry) -> None:
        if entry.is_sent:
            error: Exception = TimeoutError(f"no answer within {entry.limit_s or 0.0:g} s")
            self._finish(entry, _lost(error, entry))
        else:
            text = "the Coordinator was not reached within the task's time"
            self._finish(entry, failure(text, error_type="TimeoutError", task_type=entry.type, executed="no"))

    def _take(self, entry: _Entry, answer: dict[str, Any]) -> None:
        pause = None if self._closed else entry.attempts.pause(answer)
        if pause is None:
            self._finish(entry, answer)
        else:
            entry.is_sent = False
            self._watch(entry)
            self._loop.call_later(pause, self._queue, entry)

    def _finish(self, entry: _Entry, answer: dict[str, Any]) -> None:
        if entry in self._open:  # else it was answered at its deadline, or the client was closed
            self._open.remove(entry)
            if entry.timer is not None:
                entry.timer.cancel()
            entry.sink(answer)


class _Entry:
    """One task in the engine."""

    __slots__ = ("attempts", "document", "is_sent", "is_whole", "limit_s", "sink", "size", "timer", "type")

    def __init__(self, kind: str, document: bytes, size: int, attempts: Attempts, sink: Sink) -> None:
        self.type = kind
        self.document = document
        self.size = size
        self.attempts = attempts
        self.sink = sink
        self.is_sent = self.is_whole = False
        self.limit_s: float | None = None
        self.timer: asyncio.TimerHandle | None = None


_BATCH = b'{"type":"execute_many","params":{"tasks":[%s]}}'


_LIMIT = frozenset({"timeout_s"})


def _document(raw: Mapping[str, Any], *, without: frozenset[str]) -> bytes:
    """Write a task as JSON, without ``timeout_s`` if that is computed when the task is sent."""
    kept = {key: value for key, value in raw.items() if key not in without}
    # Encode it now: half a surrogate pair has no UTF-8, and NaN is not JSON.
    return json.dumps(kept, allow_nan=False, ensure_ascii=False, separators=(",", ":")).encode()


def _lost(error: Exception, entry: _Entry) -> NoAnswer:
    answer: dict[str, Any]
    if isinstance(error, NotSentError):
        nobody = OrganUnavailableError(f"cannot reach the Coordinator: {_text(error)}", retry_after_s=0.5)
        answer = failure(nobody, task_type=entry.type)
    elif isinstance(error, TimeoutError):
        text = f"the Coordinator: {_text(error)}"
        answer = failure(text, error_type="TimeoutError", task_type=entry.type, executed="unknown")
    elif isinstance(error, ClusterError):
        executed: Any = "no" if error.reason == Reason.UNAUTHORIZED else "unknown"
        answer = failure(error, task_type=entry.type, executed=executed)
    elif isinstance(error, SeedCoreError):
        # The token cannot be read.
        answer = failure(error, task_type=entry.type, executed="no")
    else:
        text = f"the connection to the Coordinator was lost: {_text(error)}"
        answer = failure(OrganUnavailableError(text, executed="unknown"), task_type=entry.type)
    return NoAnswer(error, answer)


def _parsed(text: bytes) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _text(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
