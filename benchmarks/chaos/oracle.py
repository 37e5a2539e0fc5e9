"""Judge the record of a campaign with pure functions; all times are seconds of one monotonic clock.

The oracle trusts neither the status nor the answers. It compares the status with the tasks that were sent at the same
time, the answers with a ledger that the agents wrote, and every replaced process with the fault that was injected at
that moment.
"""

from __future__ import annotations

import bisect
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

Executed = Literal["success", "yes", "no", "unknown"]
# A task that waits longer than this for its answer counts as not done.
STUCK_S = 10.0


@dataclass(frozen=True, slots=True)
class Asked:
    """One task that a probe sent.

    Attributes:
        nonce: Its number, which the agent writes into the ledger.
        organ: The organ that it was routed to.
        sent: When it was sent.
        answered: When its answer arrived.
        executed: ``success``, or what the answer said about its execution; a connection that broke is ``unknown``.
        error: The error's text.
    """

    nonce: int
    organ: str
    sent: float
    answered: float
    executed: Executed
    error: str = ""

    @property
    def done(self) -> bool:
        """Return True if the work was done."""
        return self.executed == "success"


@dataclass(frozen=True, slots=True)
class Seen:
    """One status answer: its channel, when it was asked and answered, and whether it was ``healthy``."""

    channel: str
    asked: float
    answered: float
    healthy: bool
    reason: str


@dataclass(frozen=True, slots=True)
class Replaced:
    """A process (``coordinator`` or ``organ/replica``) whose pid has changed, with its node."""

    at: float
    what: str
    node: str
    before: int
    after: int


@dataclass(slots=True, kw_only=True)
class Injection:
    """One fault: when it was injected and healed, and which processes may be replaced because of it.

    Attributes:
        name: The fault's name.
        goal_s: Maximum seconds until work is done again; None where work must not stop at all.
        may_replace: Process names that may be replaced; None allows any.
        began: When it was injected.
        counted_from: Start of the recovery time; for a rebooted host, its boot.
        ended: When the deployment had recovered.
    """

    name: str
    target: str
    goal_s: float | None
    may_replace: frozenset[str] | None
    began: float
    counted_from: float
    ended: float = 0.0
    recovered_s: float | None = None


@dataclass(slots=True)
class Verdict:
    """The findings of the oracle; each list holds one line per finding."""

    false_healthy: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    killed: list[str] = field(default_factory=list)

    @property
    def clean(self) -> bool:
        """Return True if there are no findings."""
        return not (self.false_healthy or self.lost or self.killed)


def false_healthy(asked: Iterable[Asked], seen: Iterable[Seen]) -> list[Seen]:
    """Return the answers that said ``healthy`` while an organ provably did no work.

    The proof is one of two: the organ's last answer before the status request was a failure, and the next task sent
    to it after the status answer failed too; or a task had been waiting longer than ``STUCK_S`` when the status
    answered, and failed in the end. A single failure proves nothing: the fault may have begun after the status.
    """
    by_organ: dict[str, list[Asked]] = defaultdict(list)
    for task in asked:
        by_organ[task.organ].append(task)
    lines = {
        organ: (sorted(tasks, key=lambda each: each.answered), sorted(tasks, key=lambda each: each.sent))
        for organ, tasks in by_organ.items()
    }
    answered_at = {organ: [task.answered for task in line[0]] for organ, line in lines.items()}
    sent_at = {organ: [task.sent for task in line[1]] for organ, line in lines.items()}
    found = []
    for status in seen:
        if not status.healthy:
            continue
        for organ, (answers, sent) in lines.items():
            last = bisect.bisect_right(answered_at[organ], status.asked) - 1
            after = bisect.bisect_left(sent_at[organ], status.answered)
            around = last >= 0 and not answers[last].done and after < len(sent) and not sent[after].done
            if around or _stuck(sent, sent_at[organ], status.answered):
                found.append(status)
                break
    return found


def _stuck(sent: Sequence[Asked], sent_at: Sequence[float], at: float) -> bool:
    old = bisect.bisect_left(sent_at, at - STUCK_S)
    # Tasks of the last minute suffice: each is answered, or its connection times out, long before that.
    first = bisect.bisect_left(sent_at, at - 60.0)
    return any(not task.done and task.answered > at for task in sent[first:old])


def wrong_answers(asked: Iterable[Asked], ledger: Mapping[int, int], *, sent: Iterable[int]) -> list[str]:
    """Return a line for every task that does not have exactly one true answer.

    Args:
        asked: The tasks that have an answer.
        ledger: How often the agents have done each number.
        sent: The numbers of all tasks that were sent.
    """
    answers: Counter[int] = Counter()
    found = []
    for task in asked:
        answers[task.nonce] += 1
        times = ledger.get(task.nonce, 0)
        allowed = {"success": {1}, "yes": {1}, "no": {0}, "unknown": {0, 1}}[task.executed]
        if times not in allowed:
            found.append(
                f"task {task.nonce} of {task.organ}: answer {task.executed!r} ({task.error}), done {times} times"
            )
    found += [f"task {nonce}: {answers[nonce]} answers" for nonce in sent if answers[nonce] != 1]
    return found


def unprovoked(replaced: Iterable[Replaced], injections: Sequence[Injection], *, slack_s: float) -> list[str]:
    """Return a line for every process that was replaced although no fault at that moment justifies it.

    Args:
        replaced: The replaced processes.
        injections: The faults, with their times.
        slack_s: Seconds after the recovery in which a replacement may still be noticed.
    """
    found = []
    for each in replaced:
        current = [one for one in injections if one.began <= each.at <= one.ended + slack_s]
        if any(one.may_replace is None or each.what in one.may_replace for one in current):
            continue
        during = ", ".join(one.name for one in current) or "no fault"
        found.append(f"{each.what} on {each.node}: pid {each.before} replaced by {each.after} during {during}")
    return found


def recovery_s(asked: Iterable[Asked], *, since: float, organs: Iterable[str]) -> float | None:
    """Return the seconds from ``since`` until every organ works again and keeps working.

    Returns 0 if no task answered after ``since`` failed, and None if an organ has not recovered.
    """
    latest = 0.0
    tasks = [task for task in asked if task.answered >= since]
    for organ in organs:
        own = [task for task in tasks if task.organ == organ]
        failed = [task.sent for task in own if not task.done]
        # A task sent before the last failure that succeeded late does not prove that the organ has recovered.
        good = [task.answered for task in own if task.done and (not failed or task.sent > max(failed))]
        if not good:
            return None
        if failed:
            latest = max(latest, min(good) - since)
    return latest
