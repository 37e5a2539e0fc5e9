"""Tasks over the Coordinator's HTTP server, for a process that has not joined Ray."""

from __future__ import annotations

import queue
import threading
import time
from http import HTTPStatus
from typing import Any

from seedcore.client.attempts import Attempts, Sink, parse
from seedcore.errors import ClusterError, DeadlineError, OrganUnavailableError, SeedCoreError
from seedcore.rest import NotSentError, Response, request
from seedcore.settings import Settings
from seedcore.status import probe
from seedcore.task import Task, failure

WORKERS = 4
MAX_BATCH = 250
MAX_BATCH_BYTES = 1024 * 1024
# An answer that travels may come this much later than the Coordinator's own limit ends the task.
ANSWER_GRACE_S = 5.0
_REFUSALS: dict[int, str] = {HTTPStatus.UNAUTHORIZED: "wants a token", HTTPStatus.FORBIDDEN: "refuses this token"}


class HttpLink:
    """Talks to one Coordinator; safe to use from any thread.

    Args:
        settings: Where it is.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def submit(self, raw: Any, timeout_s: float | None) -> dict[str, Any]:
        """Do one task."""
        parsed = parse(raw)
        if isinstance(parsed, dict):
            return parsed
        task, _ = parsed
        attempts = Attempts(timeout_s, task.timeout_s)
        while True:
            answer = self._post([task], [attempts.remaining()])[0]
            pause = attempts.pause(answer)
            if pause is None:
                return answer
            time.sleep(pause)

    def submit_batch(self, entries: list[_Entry]) -> None:
        """Do many tasks, in as many requests as it takes."""
        while entries:
            answers = self._post([entry.task for entry in entries], [e.attempts.remaining() for e in entries])
            again, pause = [], 0.0
            for entry, answer in zip(entries, answers, strict=True):
                wanted = entry.attempts.pause(answer)
                if wanted is None:
                    entry.sink(answer)
                else:
                    again.append(entry)
                    pause = max(pause, wanted)
            entries = again
            time.sleep(pause)

    def status(self, timeout_s: float) -> dict[str, Any]:
        """Return the body of ``GET /coordinator/status``, also while the Coordinator starts.

        Raises:
            ClusterError: It does not answer, and why; or it refuses this caller.
        """
        try:
            response = self._request("GET", "/coordinator/status", None, timeout_s)
        except OSError as error:
            report = probe(self._settings)
            reason = "not_responding" if report.status == "healthy" else report.reason
            raise ClusterError(reason, report.message if report.status != "healthy" else _text(error)) from error
        if not isinstance(response.body, dict) or "status" not in response.body:
            raise _stranger(self._settings, response)
        return dict(response.body)

    def ping(self, timeout_s: float) -> str:
        """Return ``pong`` once the Coordinator is out of its start; raises what :meth:`status` does."""
        deadline = time.monotonic() + timeout_s
        while self.status(max(0.001, deadline - time.monotonic()))["status"] == "initializing":
            if time.monotonic() + _PAUSE_S > deadline:
                raise DeadlineError(f"the Coordinator is still initializing after {timeout_s:g} s")
            time.sleep(_PAUSE_S)
        return "pong"

    def _post(self, tasks: list[Task], timeouts_s: list[float]) -> list[dict[str, Any]]:
        documents = [
            {**task.to_dict(), "timeout_s": max(limit, 0.001)} for task, limit in zip(tasks, timeouts_s, strict=True)
        ]
        limit_s = max(timeouts_s) + ANSWER_GRACE_S
        document = documents[0] if len(tasks) == 1 else {"type": "execute_many", "params": {"tasks": documents}}
        try:
            response = self._request("POST", "/coordinator/tasks", document, limit_s)
            body = response.body if isinstance(response.body, dict) else {}
            if "success" not in body:
                raise _stranger(self._settings, response)
        except (TypeError, ValueError) as error:
            if len(tasks) > 1:
                # One of them is not JSON: let it spoil its own task only.
                return [self._post([task], [limit])[0] for task, limit in zip(tasks, timeouts_s, strict=True)]
            return [failure(f"the task is not JSON: {error}", error_type="TaskError", task_type=tasks[0].type)]
        except (OSError, SeedCoreError) as error:
            return [_lost(error, task, limit_s) for task in tasks]
        if len(tasks) == 1:
            return [body]
        if body["success"]:
            return list(body["result"])
        return [{**body, "task_type": task.type} for task in tasks]

    def _request(self, method: str, path: str, body: Any, timeout_s: float) -> Response:
        url = self._settings.http_url
        response = request(
            url + path,
            method=method,
            token=self._settings.token(),
            body=body,
            timeout_s=timeout_s,
            certificate=self._settings.http_tls_cert,
        )
        refusal = _REFUSALS.get(response.status)
        if refusal is not None:
            text = f"the Coordinator at {url} {refusal} (HTTP {response.status})"
            raise ClusterError("unauthorized", text)
        return response


class HttpEngine:
    """Does many tasks at once: some threads take what there is and send it as one request each.

    Args:
        link: The Coordinator.
    """

    def __init__(self, link: HttpLink) -> None:
        self._link = link
        self._inbox: queue.SimpleQueue[_Entry | None] = queue.SimpleQueue()
        self._threads = [
            threading.Thread(target=self._work, name="seedcore-client", daemon=True) for _ in range(WORKERS)
        ]
        for thread in self._threads:
            thread.start()

    def add(self, raw: Any, timeout_s: float | None, sink: Sink) -> None:
        """Begin one task."""
        parsed = parse(raw)
        if isinstance(parsed, dict):
            sink(parsed)
        else:
            self._inbox.put(_Entry(*parsed, timeout_s, sink))

    def close(self) -> None:
        """End the threads when everything that was given to them has its answer."""
        for _ in self._threads:
            self._inbox.put(None)
        for thread in self._threads:
            thread.join()

    def _work(self) -> None:
        while (entry := self._inbox.get()) is not None:
            batch, size = [entry], entry.size
            while len(batch) < MAX_BATCH and size < MAX_BATCH_BYTES:
                try:
                    entry = self._inbox.get_nowait()
                except queue.Empty:
                    break
                if entry is None:
                    self._inbox.put(None)
                    break
                batch.append(entry)
                size += entry.size
            self._link.submit_batch(batch)


class _Entry:
    __slots__ = ("attempts", "sink", "size", "task")

    def __init__(self, task: Task, size: int, timeout_s: float | None, sink: Sink) -> None:
        self.task = task
        self.size = size
        self.attempts = Attempts(timeout_s, task.timeout_s)
        self.sink = sink


_PAUSE_S = 0.1


def _lost(error: Exception, task: Task, limit_s: float) -> dict[str, Any]:
    if isinstance(error, NotSentError):
        nobody = OrganUnavailableError(f"the Coordinator is not reached: {_text(error)}", retry_after_s=0.5)
        return failure(nobody, task_type=task.type)
    if isinstance(error, TimeoutError):
        text = f"the Coordinator: no answer within {limit_s:g} s"
        return failure(text, error_type="TimeoutError", task_type=task.type, executed="unknown")
    if isinstance(error, ClusterError):
        return failure(error, task_type=task.type, executed="no" if error.reason == "unauthorized" else "unknown")
    if isinstance(error, SeedCoreError):
        return failure(error, task_type=task.type, executed="no")
    text = f"the connection to the Coordinator was lost: {_text(error)}"
    return failure(OrganUnavailableError(text, executed="unknown"), task_type=task.type)


def _stranger(settings: Settings, response: Response) -> ClusterError:
    text = f"{settings.http_url} answers HTTP {response.status}, which is not the answer of a Coordinator"
    return ClusterError("not_responding", text)


def _text(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
