"""Many tasks over HTTP: bounded in flight, one outcome for each, whatever the Coordinator goes through meanwhile."""

from __future__ import annotations

import queue
import random
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from seedcore.cli import ask
from seedcore.cli.params import parse_object
from seedcore.errors import ClusterError
from seedcore.rest import Connection, NotSentError, Response
from seedcore.task import failure, task_type_of

if TYPE_CHECKING:
    from seedcore.settings import Settings

# Outcomes that wait for an earlier one to be printed, for each task in flight.
_AHEAD = 64
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.2, 5.0
_LOOK_S = 0.2
_MAY_CHANGE = frozenset({429, 503})


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of one line of input.

    Attributes:
        place: Its place among the tasks, from 0; empty lines have none.
        line: Its line, from 1.
        answer: In the documented shape.
        sent: Whether the task has left; if not, nothing of it was done.
        trouble: Why nobody answers any more; nothing is sent after it.
    """

    place: int
    line: int
    answer: dict[str, Any]
    sent: bool = True
    trouble: ClusterError | None = None


@dataclass(slots=True)
class _Shared:
    """What reader, workers and writer have in common."""

    todo: queue.Queue[tuple[int, int, bytes] | None]
    room: threading.Semaphore
    done: queue.Queue[Outcome] = field(default_factory=queue.Queue)
    stop: threading.Event = field(default_factory=threading.Event)
    ended: threading.Event = field(default_factory=threading.Event)
    read: int = 0
    fault: list[Exception] = field(default_factory=list)


def run(
    settings: Settings,
    lines: Iterable[bytes],
    *,
    in_flight: int,
    patience_s: float,
    defaults: Mapping[str, Any],
    ordered: bool = True,
) -> Iterator[Outcome]:
    """Do the tasks of ``lines`` (one JSON object each; empty lines are none) and yield an outcome for each.

    A task that has certainly not begun (the connection is refused, the organ is not there yet, a bound is reached) is
    sent again for up to ``patience_s`` seconds. One whose connection broke is not: it may have been done.

    Args:
        settings: Where the Coordinator is.
        lines: The input; read no faster than the tasks get done.
        in_flight: Tasks under way at once.
        patience_s: Seconds to wait for a Coordinator that is away; then nothing more is sent or read.
        defaults: Keys for tasks that do not have them.
        ordered: Whether outcomes come in the order of the lines, else as soon as they are there.

    Raises:
        OSError: The input cannot be read to its end.
    """
    shared = _Shared(queue.Queue(in_flight), threading.Semaphore(in_flight * _AHEAD))
    threading.Thread(target=_read, args=(shared, lines, in_flight), daemon=True).start()
    for _ in range(in_flight):
        worker = _Worker(settings, shared, patience_s=patience_s, defaults=defaults)
        threading.Thread(target=worker.work, daemon=True).start()
    try:
        for outcome in _in_order(_outcomes(shared)) if ordered else _outcomes(shared):
            shared.room.release()
            yield outcome
    finally:
        shared.stop.set()
    if shared.fault:
        raise shared.fault[0]


def _read(shared: _Shared, lines: Iterable[bytes], workers: int) -> None:
    try:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            shared.room.acquire()
            if shared.stop.is_set():
                break
            shared.todo.put((shared.read, number, line))
            shared.read += 1
    except Exception as error:
        # A file that cannot be read to its end: told when what was read is done.
        shared.fault.append(error)
    finally:
        shared.ended.set()
        for _ in range(workers):
            shared.todo.put(None)


def _outcomes(shared: _Shared) -> Iterator[Outcome]:
    given = 0
    while not (shared.ended.is_set() and given == shared.read):
        try:
            outcome = shared.done.get(timeout=_LOOK_S)
        except queue.Empty:
            if shared.stop.is_set() and given == shared.read:
                # A reader that waits for input that does not come must not hold up the end.
                return
            continue
        given += 1
        yield outcome


def _in_order(outcomes: Iterator[Outcome]) -> Iterator[Outcome]:
    """Hold back what came before its turn."""
    waiting: dict[int, Outcome] = {}
    turn = 0
    for outcome in outcomes:
        waiting[outcome.place] = outcome
        while turn in waiting:
            yield waiting.pop(turn)
            turn += 1


class _Worker:
    """One connection, one task at a time."""

    def __init__(self, settings: Settings, shared: _Shared, *, patience_s: float, defaults: Mapping[str, Any]) -> None:
        self._settings = settings
        self._shared = shared
        self._patience_s = patience_s
        self._defaults = defaults
        self._connection = Connection(settings.http_url, certificate=settings.http_tls_cert)

    def work(self) -> None:
        """Do tasks until there are no more."""
        while (item := self._shared.todo.get()) is not None:
            self._shared.done.put(self._one(*item))
        self._connection.close()

    def _one(self, place: int, line: int, text: bytes) -> Outcome:
        task: Any = None
        try:
            task = {**self._defaults, **parse_object(text.decode("utf-8-sig"))}
            answer = self._send(task)
            return Outcome(place=place, line=line, answer=answer)
        except ValueError as error:
            refusal = failure(f"line {line}: {error}", error_type="TaskError")
            return Outcome(place=place, line=line, answer=refusal, sent=False)
        except ClusterError as trouble:
            self._shared.stop.set()
            kind = task_type_of(task)
            refusal = failure(f"not sent: {trouble}", error_type=trouble.reason, task_type=kind, executed="no")
            return Outcome(place=place, line=line, answer=refusal, sent=False, trouble=trouble)
        except Exception as error:
            broken = f"the connection broke, the task may have been done: {error or type(error).__name__}"
            return Outcome(
                place=place,
                line=line,
                answer=failure(broken, error_type="ConnectionError", task_type=task_type_of(task), executed="unknown"),
            )

    def _send(self, task: dict[str, Any]) -> dict[str, Any]:
        """Send it until it has been taken.

        Raises:
            ClusterError: Nobody takes it.
            OSError: The connection broke once it was sent.
        """
        limit = task.get("timeout_s")
        timeout_s = limit + ask.MARGIN_S if isinstance(limit, int | float) and limit > 0 else ask.NO_LIMIT_S
        deadline = time.monotonic() + self._patience_s
        pause = _FIRST_PAUSE_S
        while True:
            if self._shared.stop.is_set():
                raise ClusterError("stopped", "another task found nobody to ask")
            asked: float | None = None
            try:
                response = self._connection.request(
                    "/coordinator/tasks", method="POST", token=self._settings.token(), body=task, timeout_s=timeout_s
                )
                asked = _try_again(response)
                if asked is None:
                    return ask.answer(self._settings, response)
                trouble = None
            except NotSentError as error:
                trouble = error
            if time.monotonic() >= deadline:
                if trouble is None:
                    return ask.answer(self._settings, response)
                raise ask.explain(self._settings, trouble) from trouble
            # Not all at the same moment, when it is back.
            time.sleep(min(max(pause, asked or 0.0), _LONGEST_PAUSE_S) * random.uniform(0.5, 1.0))  # noqa: S311
            pause = min(2 * pause, _LONGEST_PAUSE_S)


def _try_again(response: Response) -> float | None:
    """Return the seconds after which to try again, where nothing was done and that may change; else None."""
    body = response.body if isinstance(response.body, Mapping) else {}
    if response.status in _MAY_CHANGE and body.get("executed") == "no":
        return response.retry_after_s or 0.0
    return None
