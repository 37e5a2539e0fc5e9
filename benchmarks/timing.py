"""Measure contestants in turn: their ratio is stable when the machine's speed drifts, seconds are not."""

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
        what: What SeedCore does.
        against: What it is compared with.
        ratios: Ours / theirs of each round; the median is the figure.
        goal: Lower (``>=``) or upper (``<=``) bound of the median; empty if there is none.
        ours: Median of ours in ``unit``, on this machine, for orientation.
        theirs: Median of theirs in ``unit``.
        unit: Unit of ``ours`` and ``theirs``.
        note: A remark for the reader.
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
        """Return True if the goal is met; None without a goal."""
        if not self.goal:
            return None
        sign, bound = self.goal.split()[:2]
        return self.ratio >= float(bound) if sign == ">=" else self.ratio <= float(bound)


class Round:
    """Several contestants, measured in turn in every round, with a list of values for each."""

    def __init__(self, contestants: dict[str, Callable[[], float]]) -> None:
        self.contestants = contestants
        self.values: dict[str, list[float]] = {name: [] for name in contestants}

    def run(self, rounds: int) -> None:
        """Measure every contestant in each round; the order rotates from round to round."""
        names = list(self.contestants)
        for index in range(rounds):
            shift = index % len(names)
            for name in names[shift:] + names[:shift]:
                self.values[name].append(self.contestants[name]())

    def row(self, what: str, ours: str, theirs: str, *, against: str, goal: str, unit: str, **more: Any) -> Row:
        """Return the comparison of two contestants."""
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
    """Return calls per second with all of them in flight at once."""
    started = time.perf_counter()
    ray.get([call() for _ in range(count)], timeout=TIMEOUT_S)
    return count / (time.perf_counter() - started)


def cpu_us(run: Callable[[], Any], count: int, pids: Sequence[int]) -> float:
    """Return the CPU microseconds per task of all given processes: the figure is stable on a shared machine."""
    before = sum(map(_cpu_s, pids))
    run()
    return (sum(map(_cpu_s, pids)) - before) / count * 1e6


def _cpu_s(pid: int) -> float:
    # The process name, in parentheses, may contain blanks; user and system time are fields 12 and 13 after it.
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def gathered(call: Callable[[], Awaitable[Any]], count: int) -> float:
    """Return calls per second like :func:`pipelined`, for calls on the event loop."""
    started = time.perf_counter()
    await asyncio.gather(*(call() for _ in range(count)))
    return count / (time.perf_counter() - started)


def median_ms(call: Callable[[], Any], count: int) -> float:
    """Return the median milliseconds of sequential calls."""
    times = []
    for _ in range(count):
        started = time.perf_counter()
        call()
        times.append(time.perf_counter() - started)
    return statistics.median(times) * 1000


async def median_ms_async(call: Callable[[], Awaitable[Any]], count: int) -> float:
    """Return the median milliseconds like :func:`median_ms`, for calls on the event loop."""
    times = []
    for _ in range(count):
        started = time.perf_counter()
        await call()
        times.append(time.perf_counter() - started)
    return statistics.median(times) * 1000
