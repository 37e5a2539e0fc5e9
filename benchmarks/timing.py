"""Pairs that are measured in turn: a ratio holds when the machine's speed drifts, seconds do not."""

from __future__ import annotations

import asyncio
import os
import statistics
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ray

TIMEOUT_S = 300.0


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table.

    Attributes:
        what: Ours.
        against: Theirs.
        ratios: Ours / theirs of each round, as ``unit`` says; the median is the figure.
        goal: The least (``>=``) or the most (``<=``) that the median may be; empty if there is none.
        ours: Median of ours, in ``unit`` (of this machine, for orientation).
        theirs: Median of theirs.
        unit: Of ``ours`` and ``theirs``.
        note: What else is to be known.
    """

    what: str
    against: str
    ratios: Sequence[float]
    goal: str
    ours: float
    theirs: float
    unit: str
    note: str = ""
    ratio: float = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "ratio", statistics.median(self.ratios))

    @property
    def met(self) -> bool | None:
        """Whether the goal is met; None without a goal."""
        if not self.goal:
            return None
        sign, bound = self.goal.split()[:2]
        return self.ratio >= float(bound) if sign == ">=" else self.ratio <= float(bound)


class Round:
    """Values of several contestants, one list each, measured in turn in every round."""

    def __init__(self, contestants: dict[str, Callable[[], float]]) -> None:
        self.contestants = contestants
        self.values: dict[str, list[float]] = {name: [] for name in contestants}

    def run(self, rounds: int) -> None:
        """Measure; who goes first changes from round to round."""
        names = list(self.contestants)
        for index in range(rounds):
            shift = index % len(names)
            for name in names[shift:] + names[:shift]:
                self.values[name].append(self.contestants[name]())

    def row(self, what: str, ours: str, theirs: str, *, against: str, goal: str, unit: str, **more: Any) -> Row:
        """Compare two of them."""
        pairs = list(zip(self.values[ours], self.values[theirs], strict=True))
        return Row(
            what=what,
            against=against,
            ratios=[own / other for own, other in pairs],
            goal=goal,
            ours=statistics.median(own for own, _ in pairs),
            theirs=statistics.median(other for _, other in pairs),
            unit=unit,
            **more,
        )


def pipelined(call: Callable[[], Any], count: int) -> float:
    """Calls per second with all of them under way at once."""
    started = time.perf_counter()
    ray.get([call() for _ in range(count)], timeout=TIMEOUT_S)
    return count / (time.perf_counter() - started)


def cpu_us(run: Callable[[], Any], count: int, pids: Sequence[int]) -> float:
    """CPU microseconds per task in some processes together: they hold on a machine that others load too."""
    before = sum(map(_cpu_s, pids))
    run()
    return (sum(map(_cpu_s, pids)) - before) / count * 1e6


def _cpu_s(pid: int) -> float:
    # The name of a process, in parentheses, may have blanks in it; user and system time are the 12th and 13th after it.
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def gathered(call: Callable[[], Awaitable[Any]], count: int) -> float:
    """Do as :func:`pipelined`, in a driver with an event loop."""
    started = time.perf_counter()
    await asyncio.gather(*(call() for _ in range(count)))
    return count / (time.perf_counter() - started)


def median_ms(call: Callable[[], Any], count: int) -> float:
    """Median milliseconds of a call that is over before the next begins."""
    times = []
    for _ in range(count):
        started = time.perf_counter()
        call()
        times.append(time.perf_counter() - started)
    return statistics.median(times) * 1000


async def median_ms_async(call: Callable[[], Awaitable[Any]], count: int) -> float:
    """Do as :func:`median_ms` on an event loop."""
    times = []
    for _ in range(count):
        started = time.perf_counter()
        await call()
        times.append(time.perf_counter() - started)
    return statistics.median(times) * 1000
