"""Compare one new process of each changed organ with the old ones, while all of them take tasks."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import random
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from seedcore.core.errors import InitializationError
from seedcore.core.organ_snapshot import ReplicaState
from seedcore.core.task import describe
from seedcore.core.task_counters import BUCKETS_S

if TYPE_CHECKING:
    from seedcore.coordinator.replica_supervisor import Replica

logger = logging.getLogger(__name__)

# Differences that are no fault whatever the tolerance: a share of failed tasks, seconds per task, and bytes.
FAILED_SHARE = 0.01
SECONDS = 0.005
MEMORY = 64 * 2**20
# Means of fewer tasks say little.
MIN_TASKS = 10
# Reports of what a process has done may be this late.
STALL_S = 5.0
_POLL_S = 0.25
_CANARY_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Bake:
    """How long old and new processes are compared, and how much worse a new one may be.

    Attributes:
        seconds: Duration; 0 compares nothing.
        tolerance: Share by which a new process may be worse: with 0.5 its tasks may take 1.5 times as long.
    """

    seconds: float = 0.0
    tolerance: float = 0.5


NO_BAKE = Bake()


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What a process, or several, did in a time.

    Attributes:
        tasks: Answered tasks.
        failed: Those of them that failed.
        seconds: Sum of their durations.
        memory: Resident bytes of the largest process, 0 if that is unknown.
    """

    tasks: int = 0
    failed: int = 0
    seconds: float = 0.0
    memory: int = 0

    @property
    def mean_s(self) -> float:
        """Return the mean duration of a task in seconds."""
        return self.seconds / self.tasks if self.tasks else 0.0

    def __add__(self, other: Figures) -> Figures:
        """Return the figures of both."""
        return Figures(
            tasks=self.tasks + other.tasks,
            failed=self.failed + other.failed,
            seconds=self.seconds + other.seconds,
            memory=max(self.memory, other.memory),
        )


def figures(before: Iterable[Mapping[str, Any]], now: Iterable[Mapping[str, Any]], *, memory: int = 0) -> Figures:
    """Return what happened between two results of :meth:`seedcore.core.task_counters.TaskCounts.to_list`."""

    def total(entries: Iterable[Mapping[str, Any]]) -> tuple[int, int, float]:
        known = list(entries)
        failed = sum(entry["count"] for entry in known if entry["outcome"] != "success")
        return sum(entry["count"] for entry in known), failed, sum(entry["seconds_sum"] for entry in known)

    tasks, failed, seconds = (max(0, after - earlier) for earlier, after in zip(total(before), total(now), strict=True))
    return Figures(tasks=int(tasks), failed=int(failed), seconds=float(seconds), memory=memory)


def fault(new: Figures, old: Figures, tolerance: float) -> str:
    """Return what is worse than the tolerance allows, for people; "" if nothing is."""
    allowed = 1.0 + tolerance
    if new.failed and new.failed / new.tasks > (old.failed / old.tasks if old.tasks else 0.0) * allowed + FAILED_SHARE:
        return f"{new.failed:,} of {new.tasks:,} tasks failed (old: {old.failed:,} of {old.tasks:,})"
    if min(new.tasks, old.tasks) >= MIN_TASKS and new.mean_s > old.mean_s * allowed + SECONDS:
        return f"a task takes {new.mean_s * 1000:.0f} ms (old: {old.mean_s * 1000:.0f} ms)"
    if old.memory and new.memory > old.memory * allowed + MEMORY:
        return f"its process uses {new.memory / 2**20:.0f} MiB (old: {old.memory / 2**20:.0f} MiB)"
    return ""


def summary(seconds: float, new: Figures, old: Figures) -> str:
    """Return the result in one line: ``30 s, 412 tasks on new, 0 failed (old: 1 of 1,630)``."""
    return f"{seconds:.0f} s, {new.tasks:,} tasks on new, {new.failed:,} failed (old: {old.failed:,} of {old.tasks:,})"


def pick(usable: Sequence[Replica], new: Replica | None) -> Replica:
    """Return the process with the fewest tasks; of several, the new one gets its share."""
    replica = min(usable, key=lambda candidate: candidate.in_flight)
    if new is None or new.in_flight > replica.in_flight or new not in usable:
        return replica
    # Where all are idle, the first would take every task.
    return new if random.random() * len(usable) < 1.0 else replica  # noqa: S311 - a share, not a secret


def longest_s(counts: Iterable[Iterable[Mapping[str, Any]]]) -> float:
    """Return an upper limit of the longest task that was counted, infinity beyond the last bucket."""
    limits = (*BUCKETS_S, math.inf)
    used = (
        limit for entries in counts for one in entries for limit, n in zip(limits, one["buckets"], strict=True) if n
    )
    return max(used, default=0.0)


async def compare(
    pairs: Mapping[str, tuple[Replica, Sequence[Replica]]], bake: Bake, *, changed: Callable[[], asyncio.Event]
) -> str:
    """Let the time pass, compare, and return the summary.

    Args:
        pairs: The new process and the old ones, by organ id; tasks are sent to all of them.
        bake: Duration and tolerance.
        changed: Returns the event of the next change of any process.

    Raises:
        InitializationError: A new process died, does not answer, or is worse than the old ones.
    """
    loop = asyncio.get_running_loop()
    ends = loop.time() + bake.seconds
    comparisons = [_Comparison(key, new, old, bake.tolerance, loop.time()) for key, (new, old) in pairs.items()]
    while (left_s := ends - loop.time()) > 0:
        for one in comparisons:
            one.check(loop.time())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(min(_POLL_S, left_s)):
                await changed().wait()
    memory = await _memory([replica for new, old in pairs.values() for replica in (new, *old)])
    both = [one.judge(memory) for one in comparisons]
    new_all, old_all = (sum((pair[index] for pair in both), Figures()) for index in (0, 1))
    return summary(bake.seconds, new_all, old_all)


class _Comparison:
    """One new process and the old ones of its organ."""

    def __init__(self, key: str, new: Replica, old: Sequence[Replica], tolerance: float, now: float) -> None:
        self._key, self._new, self._old, self._tolerance = key, new, old, tolerance
        self._boot = new.boot
        self._began = {one: one.tasks() for one in (new, *old)}
        # How long tasks may be under way with none answered, and since when that is so.
        self._patience_s = STALL_S + (1.0 + tolerance) * longest_s(one.tasks() for one in old)
        self._moved = (0, now)

    def check(self, now: float) -> None:
        """Raise at once what would only become worse."""
        new, old = self._figures({})
        if self._new.state is not ReplicaState.READY or self._new.boot != self._boot:
            self._refuse(self._new.error or ("it died" if self._new.usable else f"it is {self._new.state}"))
        if new.tasks >= MIN_TASKS:
            self._refuse(fault(new, old, self._tolerance))
        if new.tasks != self._moved[0] or not self._new.in_flight or not old.tasks:
            self._moved = (new.tasks, now)
        elif now - self._moved[1] > self._patience_s:
            self._refuse(f"it has answered none of its {self._new.in_flight} tasks for {now - self._moved[1]:.0f} s")

    def judge(self, memory: Mapping[Replica, int]) -> tuple[Figures, Figures]:
        """Return the figures of the new process and of the old ones, unless it is worse."""
        new, old = self._figures(memory)
        self._refuse("" if self._new in memory else "it does not answer")
        self._refuse(fault(new, old, self._tolerance))
        return new, old

    def _figures(self, memory: Mapping[Replica, int]) -> tuple[Figures, Figures]:
        def done(one: Replica) -> Figures:
            return figures(self._began[one], one.tasks(), memory=memory.get(one, 0))

        return done(self._new), sum(map(done, self._old), Figures())

    def _refuse(self, why: str) -> None:
        if why:
            raise InitializationError(f"organ {self._key}: the new process is worse: {why}")


async def _memory(replicas: Sequence[Replica]) -> dict[Replica, int]:
    """Return the memory of the processes that answer a canary."""

    async def ask(replica: Replica) -> int | None:
        nonce = uuid.uuid4().hex
        try:
            answer = await replica.canary(nonce, _CANARY_S)
        except Exception as error:
            logger.info("organ %s does not answer: %s", replica.spec.id, describe(error))
            return None
        # An organ of an earlier release does not tell it.
        return int(answer.get("memory") or 0) if answer.get("nonce") == nonce and "error" not in answer else None

    answers = await asyncio.gather(*(ask(replica) for replica in replicas))
    return {replica: answer for replica, answer in zip(replicas, answers, strict=True) if answer is not None}
