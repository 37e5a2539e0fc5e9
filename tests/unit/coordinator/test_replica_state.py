"""Test the decisions about an organ's process, as a table of events."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from seedcore.coordinator.replica_state import Action, Phase, Process, Row
from seedcore.core.organ_snapshot import AgentFailure, ReplicaState, Snapshot

Event = tuple[str, Any]

FAILED = AgentFailure(agent_id="a_0", error="no licence", error_type="OSError")


def report(boot: str = "A", *, ready: int = 2, **more: Any) -> Snapshot:
    values: dict[str, Any] = {
        "boot": boot, "version": 1, "identity": "i", "pid": 1, "node_id": "n", "agent_count": 2, "ready": ready,
        "stuck": 0, "starting": 0, "first_round_over": True, **more,
    }  # fmt: skip
    return Snapshot(**values)


class Story:
    """Feeds events to a replica's state, one second apart."""

    def __init__(self) -> None:
        self.process = process = Process()
        self.now = 0.0
        self.action: Action | None = None
        self._events: dict[str, Callable[[Any], Any]] = {
            "created": process.created,
            "answers": lambda snapshot: process.answered(snapshot, self.now),
            "leaves": lambda snapshot: process.answered(snapshot, self.now, leaving=True),
            "silent": lambda row: process.silent(row, self.now, threshold=2),
            "silent with its node": lambda row: process.silent(row, self.now, threshold=2, is_node_away=True),
            "given up": process.given_up,
            "lost": lambda row: process.lost(None, row, self.now),
            "fails": lambda text: process.lost(text, Row("ALIVE", 0), self.now),
            "dead": lambda cause: process.dead(cause, self.now),
        }

    def tell(self, *events: Event) -> None:
        for what, value in events:
            self.now += value if what == "passes" else 1.0
            if what in self._events:
                self.action = self._events[what](value)
            elif what == "task":
                self.process.missed_by_task("pay", is_dead=True, may_have_run=value)
            elif what == "unheard":
                self.process.missed_by_task("pay", is_dead=False, may_have_run=True)


P, A, S = Phase, Action, ReplicaState
ALIVE, PENDING, RESTARTING, DEAD = (Row(s, 0) for s in ("ALIVE", "PENDING_CREATION", "RESTARTING", "DEAD"))
UP = [("created", PENDING), ("answers", report())]
AGAIN = Row("RESTARTING", 1)

TABLE: dict[str, tuple[list[Event], Phase, Action | None, ReplicaState, int, str | None]] = {
    "not placed": ([("created", PENDING)], P.PLACING, None, S.STARTING, 0, None),
    "not placed for an hour": (
        [("created", PENDING), *[("silent", PENDING)] * 100], P.PLACING, A.WAIT, S.STARTING, 0, None,
    ),
    "the head does not answer": (
        [("created", None), *[("silent", None)] * 100], P.STARTING, A.WAIT, S.STARTING, 0, None,
    ),
    "just placed": ([("created", PENDING), ("silent", ALIVE)], P.PLACING, A.WAIT, S.STARTING, 0, None),
    "adopted and hanging": (
        [("created", ALIVE), ("silent", ALIVE), ("silent", ALIVE)],
        P.PLACING, A.DISPOSE, S.DOWN, 1, "its process did not answer",
    ),
    "all agents ready": (UP, P.ANSWERING, A.ASK, S.READY, 0, None),
    "none tried yet": (
        [("created", PENDING), ("answers", report(ready=0, starting=2, first_round_over=False))],
        P.ANSWERING, A.ASK, S.STARTING, 0, None,
    ),
    "one is started again": (
        [*UP, ("answers", report(ready=1, starting=1))], P.ANSWERING, A.ASK, S.DEGRADED, 0, None,
    ),
    "one has failed": (
        [*UP, ("answers", report(ready=1, failed=(FAILED,)))],
        P.ANSWERING, A.ASK, S.DEGRADED, 0, "a_0: no licence",
    ),
    "one is stuck": (
        [*UP, ("answers", report(ready=1, stuck=1))],
        P.ANSWERING, A.ASK, S.DEGRADED, 0, "1 of 2 agents are held by code that does not end",
    ),
    "one is stuck, the other comes": (
        [*UP, ("answers", report(ready=0, stuck=1, starting=1))],
        P.ANSWERING, A.ASK, S.DOWN, 0, "1 of 2 agents are held by code that does not end",
    ),
    "all are stuck": (
        [*UP, ("answers", report(ready=0, stuck=2))],
        P.RESTARTING, A.KILL, S.DOWN, 1, "every slot was held by a task that does not end",
    ),
    "all were stuck, and are well again": (
        [*UP, ("answers", report(ready=0, stuck=2)), ("lost", AGAIN), ("answers", report("B"))],
        P.ANSWERING, A.ASK, S.READY, 1, None,
    ),
    "one report late": ([*UP, ("silent", None)], P.OVERDUE, A.WAIT, S.DOWN, 0, "its report is overdue"),
    "late and back": ([*UP, ("silent", None), ("answers", report())], P.ANSWERING, A.ASK, S.READY, 0, None),
    "two reports late": (
        [*UP, ("silent", ALIVE), ("silent", ALIVE)],
        P.RESTARTING, A.KILL, S.DOWN, 1, "its process did not answer",
    ),
    "late while the head is away": (
        [*UP, *[("silent", None)] * 9], P.OVERDUE, A.WAIT, S.DOWN, 0, "its report is overdue",
    ),
    "late until the head is back": (
        [*UP, *[("silent", None)] * 9, ("silent", ALIVE)],
        P.RESTARTING, A.KILL, S.DOWN, 1, "its process did not answer",
    ),
    "a task is not answered": ([*UP, ("unheard", None)], P.OVERDUE, A.ASK, S.DOWN, 0, "its report is overdue"),
    "died": ([*UP, ("lost", AGAIN)], P.RESTARTING, A.ASK, S.DOWN, 1, "its process died"),
    "died once, and comes up slowly": (
        [*UP, *[("lost", AGAIN)] * 9, ("answers", report("B"))], P.ANSWERING, A.ASK, S.READY, 1, None,
    ),
    "died unseen": ([*UP, ("answers", report("B"))], P.ANSWERING, A.ASK, S.READY, 1, None),
    "died while the head was away": (
        [*UP, *[("lost", None)] * 5, ("answers", report("B")), ("lost", Row("RESTARTING", 2))],
        P.RESTARTING, A.ASK, S.DOWN, 2, "its process died",
    ),
    "not reached for a moment": (
        [*UP, ("lost", ALIVE)], P.RESTARTING, A.ASK, S.DOWN, 0, "its process does not answer",
    ),
    "its report raises": (
        [*UP, ("fails", "KeyError: 'x'")], P.RESTARTING, A.ASK, S.DOWN, 0, "KeyError: 'x'",
    ),
    "dead for good": ([*UP, ("dead", "killed")], P.PLACING, A.CREATE, S.DOWN, 1, "killed"),
    "dead for good, and a new actor": (
        [*UP, ("dead", "killed"), ("created", PENDING), ("answers", report("B"))],
        P.ANSWERING, A.ASK, S.READY, 1, None,
    ),
    "dead before its first answer": (
        [("created", PENDING), ("silent", DEAD)], P.PLACING, A.CREATE, S.DOWN, 1, "its process died",
    ),
    "killed by the memory monitor": (
        [*UP, ("lost", Row("RESTARTING", 1, "low on memory"))],
        P.RESTARTING, A.ASK, S.DOWN, 1, "low on memory",
    ),
    "died again and again without a word": (
        [*UP, ("lost", Row("RESTARTING", 5))],
        P.PAUSED, A.PAUSE, S.DOWN, 5,
        "crash loop: 5 deaths, last: its process died; next start in 5 s",
    ),
    "answers after the fifth death": (
        [*UP, *[("answers", report(boot)) for boot in "BCDEFG"]], P.ANSWERING, A.ASK, S.READY, 6, None,
    ),
    "five deaths in ten minutes": (
        [*UP, *[event for n in range(1, 6) for event in (("passes", 120.0), ("lost", Row("RESTARTING", n)))]],
        P.RESTARTING, A.ASK, S.DOWN, 1, "its process died",
    ),
    "a task finds nobody": ([*UP, ("task", False)], P.RESTARTING, A.ASK, S.DOWN, 0, "its process died"),
    "a task dies with it": (
        [*UP, ("task", True), ("lost", AGAIN)],
        P.RESTARTING, A.ASK, S.DOWN, 1, "its process died with a task of type 'pay'",
    ),
    "a task was wrong": (
        [*UP, ("task", True), ("answers", report())], P.ANSWERING, A.ASK, S.READY, 0, None,
    ),
    "its node leaves": (
        [*UP, ("leaves", report())],
        P.PLACING, A.RETIRE, S.DOWN, 0, "its node is draining, it moves",
    ),
    "somebody was stopping it": (
        [("created", ALIVE), ("answers", report(stopping=True))],
        P.PLACING, A.RETIRE, S.DOWN, 0, "it was being stopped",
    ),
    "its node is silent, too": (
        [*UP, *[("silent with its node", ALIVE)] * 9], P.OVERDUE, A.WAIT, S.DOWN, 0, "its report is overdue",
    ),
    "its node was silent, and it answers": (
        [*UP, *[("silent with its node", ALIVE)] * 9, ("answers", report())], P.ANSWERING, A.ASK, S.READY, 0, None,
    ),
    "its node was silent, and only it still is": (
        [*UP, *[("silent with its node", ALIVE)] * 9, ("silent", ALIVE)],
        P.RESTARTING, A.KILL, S.DOWN, 1, "its process did not answer",
    ),
    "adopted on a node that is silent": (
        [("created", ALIVE), *[("silent with its node", ALIVE)] * 9], P.STARTING, A.WAIT, S.STARTING, 0, None,
    ),
    "its node is given up": (
        [*UP, *[("silent with its node", ALIVE)] * 3, ("given up", 15.0)],
        P.PLACING, A.MOVE, S.DOWN, 0, "its node has been silent for 15 s, it is started elsewhere",
    ),
    "its node was given up, and it is up elsewhere": (
        [*UP, ("silent", ALIVE), ("given up", 15.0), ("created", PENDING), ("answers", report("B"))],
        P.ANSWERING, A.ASK, S.READY, 0, None,
    ),
    "moved": (
        [*UP, ("leaves", report()), ("created", PENDING), ("answers", report("B"))],
        P.ANSWERING, A.ASK, S.READY, 0, None,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", TABLE)
def test_what_happens_to_a_process(name: str) -> None:
    events, phase, action, state, deaths, error = TABLE[name]
    story = Story()
    story.tell(*events)
    process = story.process
    assert (process.phase, story.action, process.state, process.deaths, process.error) == (
        phase,
        action,
        state,
        deaths,
        error,
    )


def test_a_process_that_dies_three_times_before_it_was_ever_well_is_given_up() -> None:
    story = Story()
    story.tell(("created", PENDING))
    for deaths in (1, 2, 3):
        assert not story.process.has_given_up
        story.tell(("lost", Row("RESTARTING", deaths)))
    assert story.process.has_given_up
    story.tell(("answers", report()))
    assert not story.process.has_given_up
