"""Inject faults one by one, in an order drawn from a seed, and judge the outcome."""

from __future__ import annotations

import json
import random
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.chaos.faults import Campaign, Fault
from benchmarks.chaos.oracle import (
    Injection,
    Verdict,
    false_healthy,
    recovery_s,
    unprovoked,
    wrong_answers,
)
from benchmarks.chaos.places import Place, ledger
from benchmarks.chaos.probes import Probes, until

ORGANS = {"steady": "steady", "pair": "pair", "plain": "plain"}
CALM_S = 5.0
# The campaign ends if a deployment has not recovered by then.
RECOVERY_DEADLINE_S = 240.0
# The probes notice a replaced process with a delay.
SLACK_S = 10.0


@dataclass(slots=True)
class Result:
    """The result of a campaign."""

    seed: int
    minutes: float
    injections: list[Injection] = field(default_factory=list)
    verdict: Verdict = field(default_factory=Verdict)
    tasks: int = 0
    statuses: int = 0
    cut_short: str = ""
    log: list[str] = field(default_factory=list)

    def late(self) -> list[str]:
        """Return a line for every kind of fault whose median recovery misses its goal."""
        lines = []
        for name, seconds, goal in self.recoveries():
            if goal is not None and statistics.median(seconds) > goal:
                lines.append(f"{name}: median {statistics.median(seconds):.1f} s, goal {goal:g} s")
        return lines

    def recoveries(self) -> list[tuple[str, list[float], float | None]]:
        """Return for each kind of fault its recovery times and its goal, in seconds."""
        names = dict.fromkeys(each.name for each in self.injections)
        return [
            (
                name,
                [each.recovered_s for each in self.injections if each.name == name and each.recovered_s is not None],
                next(each.goal_s for each in self.injections if each.name == name),
            )
            for name in names
            if any(each.name == name and each.recovered_s is not None for each in self.injections)
        ]

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for one line of the history."""
        return {
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
            "seed": self.seed,
            "minutes": self.minutes,
            "tasks": self.tasks,
            "statuses": self.statuses,
            "false_healthy": len(self.verdict.false_healthy),
            "tasks_without_one_true_answer": len(self.verdict.lost),
            "healthy_killed": len(self.verdict.killed),
            "recovery_s": {name: [round(each, 1) for each in seconds] for name, seconds, _ in self.recoveries()},
            "cut_short": self.cut_short,
        }


def run(
    place: Place,
    faults: Sequence[Fault],
    *,
    seed: int,
    minutes: float,
    ledger_path: str,
    say: Callable[[str], None] = print,
) -> Result:
    """Run a campaign on a healthy deployment."""
    rng = random.Random(seed)  # noqa: S311 - the order of faults, repeatable
    result = Result(seed, minutes)
    probes = Probes(place, ORGANS)
    on = Campaign(place, probes, rng)
    began = time.monotonic()

    def stamped(text: str) -> None:
        say(f"{time.monotonic() - began:7.1f} s  {text}")

    probes.start()
    try:
        drawn: list[Fault] = []
        while time.monotonic() - began < 60 * minutes:
            if not until(lambda: _calm(probes), deadline_s=RECOVERY_DEADLINE_S):
                result.cut_short = f"not calm within {RECOVERY_DEADLINE_S:g} s"
                break
            drawn = drawn or rng.sample(list(faults), len(faults))
            fault = drawn.pop()
            try:
                _one(on, fault, result, stamped)
            except Exception as error:
                # Keep the results so far, even though this fault could not be injected.
                result.cut_short = f"{fault.name} cannot be injected: {type(error).__name__}: {error}"
                break
    finally:
        probes.stop()
    record = probes.record
    result.tasks, result.statuses = len(record.sent), len(record.seen)
    plain = [task for task in record.asked if not task.organ.endswith("!")]
    result.verdict = Verdict(
        [
            f"{each.asked - began:.1f} s: {each.channel} said {each.reason}"
            for each in false_healthy(plain, record.seen)
        ],
        wrong_answers(record.asked, ledger(place, ledger_path), sent=record.sent),
        unprovoked(record.replaced, result.injections, slack_s=SLACK_S),
    )
    result.log = [line for each in result.verdict.killed for line in _log_of(place, each.partition(" ")[0])]
    return result


def _log_of(place: Place, what: str) -> list[str]:
    """Return the log lines of all Coordinators about a process, ordered by time."""
    organ, _, replica = what.partition("/")
    text = f"organ {organ}[{replica}]:"
    found = place.run(place.head, "grep", "-rhsF", "--include=worker-*", text, f"{place.prefix}/tmp", check=False)
    return sorted(set(found.splitlines()))


def _one(on: Campaign, fault: Fault, result: Result, say: Callable[[str], None]) -> None:
    began = time.monotonic()
    injected = fault.inject(on)
    since = injected.counted_from or began
    injection = Injection(
        name=fault.name,
        target=injected.target,
        goal_s=fault.goal_s,
        may_replace=injected.may_replace,
        began=began,
        counted_from=since,
        ended=float("inf"),
    )
    result.injections.append(injection)
    say(f"inject {fault.name}: {injected.target}")
    try:
        # Keep the fault up for hold_s: long enough for a lost host to be replaced, or for a short fault to be endured.
        until(lambda: time.monotonic() - began > injected.hold_s, deadline_s=injected.hold_s + 1)
    finally:
        injected.heal()
    # Wait until the effects of a slow fault show.
    until(lambda: time.monotonic() - began > CALM_S, deadline_s=CALM_S + 1)
    back = until(lambda: _calm(on.probes), deadline_s=RECOVERY_DEADLINE_S)
    injection.ended = time.monotonic()
    tasks = [task for task in list(on.probes.record.asked) if not task.organ.endswith("!")]
    injection.recovered_s = recovery_s(tasks, since=since, organs=ORGANS) if back else None
    if injection.recovered_s is None:
        say(f"  NOT RECOVERED within {injection.ended - since:.0f} s")
    else:
        goal = f" (goal {fault.goal_s:g} s)" if fault.goal_s is not None else ""
        well = f"all well after {injection.ended - since:.0f} s"
        say(f"  work gets done after {injection.recovered_s:.1f} s{goal}, {well}")


def _calm(probes: Probes) -> bool:
    """Return True if every organ has worked for CALM_S seconds and the last status of each channel is healthy."""
    now = time.monotonic()
    record = probes.record
    recent = [task for task in record.asked[-400:] if task.answered > now - CALM_S and not task.organ.endswith("!")]
    seen = [each for each in record.seen[-50:] if each.answered > now - CALM_S]
    statuses = {
        channel: next((each for each in reversed(seen) if each.channel == channel), None) for channel in ("http", "cli")
    }
    return (
        {task.organ for task in recent} == set(ORGANS)
        and all(task.done for task in recent)
        and all(each is not None and each.healthy for each in statuses.values())
    )


def remember(result: Result, history: Path) -> None:
    """Append the result to the history."""
    history.parent.mkdir(parents=True, exist_ok=True)
    with history.open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(result.to_dict()) + "\n")
