"""When the inbox is unwell, and what that makes of the status."""

from __future__ import annotations

from typing import Any

import pytest

from seedcore.coordinator.inbox.health import Condition, judge
from seedcore.coordinator.inbox_view import Judgement, combine
from seedcore.core.reason import Reason, Status


@pytest.mark.parametrize(
    ("condition", "reason", "text"),
    [
        ({"fault": "no disk"}, Reason.INBOX_UNAVAILABLE, "the inbox is not open: no disk"),
        ({"fault": "of another", "is_in_use": True}, Reason.INBOX_IN_USE, "the inbox is not open: of another"),
        ({"busy_s": 5.0}, Reason.INBOX_UNAVAILABLE, "the disk of the inbox has not answered for 5 s"),
        (
            {"idle_s": {"pay\neu": 60.0}, "known": ["pay"]},
            Reason.INBOX_STUCK,
            "durable tasks of type pay in domain eu wait, and no organ accepts them",
        ),
        (
            {"idle_s": {"pay": 61.0}, "known": ["pay"], "with_room": ["pay"]},
            Reason.INBOX_STUCK,
            "durable tasks of type pay have waited for 61 s although their organ has room",
        ),
        (
            {"recovering": {"pay.0": 3, "a.1": 2}},
            Reason.INBOX_RECOVERING,
            "organs have yet to tell what became of durable tasks: a.1 (2), pay.0 (3)",
        ),
        ({"full": "why"}, Reason.INBOX_FULL, "the inbox accepts no more tasks: why"),
        (
            {"oldest_s": {"mail": 700.0, "pay\neu": 900.0}, "parked": {"pay": 1}},
            Reason.INBOX_LATE,
            "the oldest durable task of type pay in domain eu has waited for 900 s",
        ),
        (
            {"parked": {"mail": 1, "pay": 4}},
            Reason.INBOX_PARKED,
            "5 durable tasks wait for a decision: pay (4), mail (1)",
        ),
        ({"parked": {"pay": 1}}, Reason.INBOX_PARKED, "1 durable task waits for a decision: pay (1)"),
    ],
)
def test_what_is_wrong(condition: dict[str, Any], reason: Reason, text: str) -> None:
    assert judge(Condition(**condition)) == (reason, text)


@pytest.mark.parametrize(
    "condition",
    [
        {},
        {"busy_s": 4.9},
        {"idle_s": {"pay": 59.0}},  # it may have been removed a moment ago
        {"idle_s": {"pay": 900.0}, "known": ["pay"]},  # its organ is busy
        {"oldest_s": {"pay": 599.0}},
    ],
)
def test_what_is_not_wrong(condition: dict[str, Any]) -> None:
    assert judge(Condition(**condition)) is None


READY: Judgement = (Status.HEALTHY, Reason.READY, "all ready", [])
DEGRADED: Judgement = (Status.HEALTHY, Reason.DEGRADED, "one is missing", ["one"])
STARTING: Judgement = (Status.INITIALIZING, Reason.STARTING, "starting", [])
DOWN: Judgement = (Status.UNHEALTHY, Reason.ORGANS_DOWN, "down", ["down"])


@pytest.mark.parametrize(
    ("organism", "inbox", "status"),
    [
        (READY, None, READY),
        (
            READY,
            (Reason.INBOX_STUCK, "stuck"),
            (Status.UNHEALTHY, Reason.INBOX_STUCK, "stuck", ["stuck"]),
        ),
        (
            READY,
            (Reason.INBOX_RECOVERING, "asking"),
            (Status.HEALTHY, Reason.INBOX_RECOVERING, "asking", ["asking"]),
        ),
        (
            DEGRADED,
            (Reason.INBOX_FULL, "full"),
            (Status.HEALTHY, Reason.DEGRADED, "one is missing; full", ["one", "full"]),
        ),
        (
            DEGRADED,
            (Reason.INBOX_UNAVAILABLE, "gone"),
            (Status.UNHEALTHY, Reason.INBOX_UNAVAILABLE, "gone", ["gone", "one"]),
        ),
        # Not degraded: a deployment must not be refused because somebody has to decide about a task.
        (
            READY,
            (Reason.INBOX_PARKED, "1 task waits"),
            (Status.HEALTHY, Reason.INBOX_PARKED, "all ready; 1 task waits", []),
        ),
        (
            DEGRADED,
            (Reason.INBOX_LATE, "late"),
            (Status.HEALTHY, Reason.DEGRADED, "one is missing; late", ["one"]),
        ),
        (STARTING, (Reason.INBOX_UNAVAILABLE, "gone"), STARTING),
        (DOWN, (Reason.INBOX_UNAVAILABLE, "gone"), DOWN),
    ],
)
def test_the_worse_of_both_is_told(organism: Judgement, inbox: tuple[Reason, str] | None, status: Judgement) -> None:
    assert combine(organism, inbox) == status
