"""Submit many tasks from JSON lines, yield one outcome per line, and read no further ahead than needed."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from seedcore.cli.params import parse_object
from seedcore.client.background import Background
from seedcore.client.http_transport import HttpEngine, NoAnswer
from seedcore.core.errors import ClusterError
from seedcore.core.task import failure
from seedcore.status.http_client import NotSentError
from seedcore.status.probing import why_silent

if TYPE_CHECKING:
    from seedcore.core.settings import Settings

# Outcomes held back until an earlier one is printed, per task in flight.
_AHEAD = 64
_LOOK_S = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The outcome of one input line.

    Attributes:
        place: Index among the tasks, from 0; empty lines are not counted.
        line: Number of the line, from 1.
        answer: The answer in the documented shape.
        trouble: Why the Coordinator does not answer; reading has stopped.
    """

    place: int
    line: int
    answer: dict[str, Any]
    trouble: ClusterError | None = None


@dataclass(slots=True)
class _Shared:
    """State shared by the reader, the client's thread and the writer."""

    in_flight: threading.Semaphore
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
    """Submit the tasks of ``lines`` (one JSON object each; empty lines are skipped) and yield an outcome for each.

    A task that certainly has not begun (connection refused, organ not ready yet, queue full) is retried for up to
    ``patience_s`` seconds. A task whose connection broke is not retried, because it may have been executed.

    Args:
        settings: Settings of the Coordinator.
        lines: The input; it is read no faster than tasks are executed.
        in_flight: Largest number of tasks in flight.
        patience_s: Seconds to wait for a Coordinator that is away; after that, reading and sending stop.
        defaults: Keys for tasks that do not set them.
        ordered: Whether to yield outcomes in the order of the lines, else as soon as they arrive.

    Raises:
        OSError: The input cannot be read to its end.
    """
    shared = _Shared(threading.Semaphore(in_flight), threading.Semaphore(in_flight * _AHEAD))
    engine = Background(partial(HttpEngine, settings, patience_s=patience_s))
    threading.Thread(target=_read, args=(shared, engine, lines, defaults), daemon=True).start()
    trouble: ClusterError | None = None
    try:
        for outcome in _in_order(_outcomes(shared)) if ordered else _outcomes(shared):
            shared.room.release()
            if isinstance(outcome.answer, NoAnswer):
                if shared.stop.is_set() and trouble is None:
                    trouble = why_silent(settings, outcome.answer.error)
                yield _unanswered(outcome, outcome.answer, trouble)
            else:
                yield outcome
    finally:
        shared.stop.set()
        engine.close()
    if shared.fault:
        raise shared.fault[0]


def _read(shared: _Shared, engine: Background, lines: Iterable[bytes], defaults: Mapping[str, Any]) -> None:
    try:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            shared.room.acquire()
            shared.in_flight.acquire()
            if shared.stop.is_set():
                break
            take = partial(_take, shared, shared.read, number)
            shared.read += 1
            try:
                task = {**defaults, **parse_object(line.decode("utf-8-sig"))}
            except ValueError as error:
                take(failure(f"line {number}: {error}", error_type="TaskError"))
            else:
                engine.add(task, None, take)
    except Exception as error:
        # The input cannot be read to its end: raise this after the tasks that were read are done.
        shared.fault.append(error)
    finally:
        shared.ended.set()


def _take(shared: _Shared, place: int, line: int, answer: dict[str, Any]) -> None:
    """Take the answer of one task, in any thread."""
    if isinstance(answer, NoAnswer) and isinstance(answer.error, NotSentError | ClusterError):
        # No Coordinator answers, or another program does: the next task would fail as well.
        shared.stop.set()
    shared.done.put(Outcome(place=place, line=line, answer=answer))
    shared.in_flight.release()


def _unanswered(outcome: Outcome, answer: NoAnswer, trouble: ClusterError | None) -> Outcome:
    executed, kind = answer["executed"], answer["task_type"]
    if executed == "no" and trouble is not None:
        told = failure(f"not sent: {trouble}", error_type=trouble.reason, task_type=kind, executed="no")
    elif executed == "no":
        told = dict(answer)
    else:
        text = f"{answer['error']}; the task may have been executed"
        told = failure(text, error_type="ConnectionError", task_type=kind, executed=executed)
    return Outcome(place=outcome.place, line=outcome.line, answer=told, trouble=trouble)


def _outcomes(shared: _Shared) -> Iterator[Outcome]:
    given = 0
    while not (shared.ended.is_set() and given == shared.read):
        try:
            outcome = shared.done.get(timeout=_LOOK_S)
        except queue.Empty:
            if shared.stop.is_set() and given == shared.read:
                # The reader may wait for input for ever; it must not delay the end.
                return
            continue
        given += 1
        yield outcome


def _in_order(outcomes: Iterator[Outcome]) -> Iterator[Outcome]:
    """Hold back outcomes that arrive before their turn."""
    waiting: dict[int, Outcome] = {}
    turn = 0
    for outcome in outcomes:
        waiting[outcome.place] = outcome
        while turn in waiting:
            yield waiting.pop(turn)
            turn += 1
