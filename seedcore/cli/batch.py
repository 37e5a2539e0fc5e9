"""Many tasks from lines of JSON: read no faster than they get done, one outcome for each line."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from seedcore.cli import coordinator_http as ask
from seedcore.cli.params import parse_object
from seedcore.client.background import Background
from seedcore.client.http_transport import HttpEngine, NoAnswer
from seedcore.core.errors import ClusterError
from seedcore.core.task import failure
from seedcore.status.http_client import NotSentError

if TYPE_CHECKING:
    from seedcore.core.settings import Settings

# Outcomes that wait for an earlier one to be printed, for each task in flight.
_AHEAD = 64
_LOOK_S = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of one line of input.

    Attributes:
        place: Its place among the tasks, from 0; empty lines have none.
        line: Its line, from 1.
        answer: In the documented shape.
        trouble: Why nobody answers; nothing is read after it.
    """

    place: int
    line: int
    answer: dict[str, Any]
    trouble: ClusterError | None = None


@dataclass(slots=True)
class _Shared:
    """What the reader, the client's thread and the writer have in common."""

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
    shared = _Shared(threading.Semaphore(in_flight), threading.Semaphore(in_flight * _AHEAD))
    engine = Background(partial(HttpEngine, settings, patience_s=patience_s))
    threading.Thread(target=_read, args=(shared, engine, lines, defaults), daemon=True).start()
    trouble: ClusterError | None = None
    try:
        for outcome in _in_order(_outcomes(shared)) if ordered else _outcomes(shared):
            shared.room.release()
            if isinstance(outcome.answer, NoAnswer):
                if shared.stop.is_set() and trouble is None:
                    trouble = ask.explain(settings, outcome.answer.error)
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
        # A file that cannot be read to its end: told when what was read is done.
        shared.fault.append(error)
    finally:
        shared.ended.set()


def _take(shared: _Shared, place: int, line: int, answer: dict[str, Any]) -> None:
    """Take the answer of one task, in whatever thread it comes."""
    if isinstance(answer, NoAnswer) and isinstance(answer.error, NotSentError | ClusterError):
        # Nobody is there, or another program: the next task would fare no better.
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
        text = f"{answer['error']}; the task may have been done"
        told = failure(text, error_type="ConnectionError", task_type=kind, executed=executed)
    return Outcome(place=outcome.place, line=outcome.line, answer=told, trouble=trouble)


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
