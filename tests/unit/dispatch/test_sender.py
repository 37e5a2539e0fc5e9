"""Test the answer to a task whose call to the organ's process fails, and who is notified."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import pytest
from ray.exceptions import ActorDiedError, ActorUnavailableError, RayError, RayTaskError

from seedcore.core.task import Task
from seedcore.dispatch.sender import Call, Lane

UNAVAILABLE = "The actor is temporarily unavailable: "
WAITS, RESTARTING, DEAD = 2, 3, 4
task_error: Any = RayTaskError
Miss = tuple[str, bool, bool]

TABLE: dict[str, tuple[Any, int, str, str, list[Miss]]] = {
    "no process": (None, WAITS, "OrganUnavailableError", "no", [("pay", True, False)]),
    "Ray knows that it is restarting": ("done", RESTARTING, "OrganUnavailableError", "no", [("pay", True, False)]),
    "Ray knows that it is dead": ("done", DEAD, "OrganUnavailableError", "no", [("pay", True, False)]),
    "not sent: it is being restarted": (
        ActorUnavailableError(f"{UNAVAILABLE}IOError: The actor is restarting.", None),
        WAITS, "OrganUnavailableError", "no", [("pay", True, False)],
    ),
    "not sent: nobody listens": (
        ActorUnavailableError(f"{UNAVAILABLE}RpcError: Connection refused rpc_code: 14", None),
        WAITS, "OrganUnavailableError", "no", [("pay", True, False)],
    ),
    "it was restarted meanwhile": (
        ActorUnavailableError(f"{UNAVAILABLE}IOError: The actor was restarted.", None),
        WAITS, "OrganUnavailableError", "unknown", [("pay", True, True)],
    ),
    "the connection broke": (
        ActorUnavailableError(f"{UNAVAILABLE}RpcError: recvmsg:Connection reset by peer", None),
        WAITS, "OrganUnavailableError", "unknown", [("pay", True, True)],
    ),
    "it died for good": (ActorDiedError(), WAITS, "OrganUnavailableError", "unknown", [("pay", True, True)]),
    "no word in time": (TimeoutError(), WAITS, "TimeoutError", "unknown", [("pay", False, True)]),
    "Ray cannot read the answer": (RayError("bad bytes"), WAITS, "RayError", "unknown", []),
    "the call itself was cancelled": (
        task_error("Organ.call", "\x1b[36mray::Organ.call()\x1b[39m (pid=1)\n  File x\nCancelledError", OSError()),
        WAITS, "RayTaskError", "unknown", [],
    ),
    "it answers": ("done", WAITS, "", "", []),
}  # fmt: skip


class Handle:
    """An actor whose calls end as the test decides."""

    def __init__(self, outcome: Any, state: int) -> None:
        self.outcome, self.state = outcome, state
        self.call = self.call_many = self

    def _get_local_state(self) -> int:
        return self.state

    async def remote(self, order: Any) -> Any:
        await asyncio.sleep(0)
        if isinstance(self.outcome, Exception):
            raise self.outcome
        answer = {"success": True, "result": self.outcome}
        several = isinstance(order[0], list)
        return {"answers": list(enumerate([answer] * len(order[0]))), "rest": None} if several else answer


@pytest.mark.parametrize("together", [1, 3])
@pytest.mark.parametrize("name", TABLE)
async def test_what_a_lost_task_is_answered(name: str, together: int) -> None:
    outcome, state, error_type, executed, misses = TABLE[name]
    handle = None if outcome is None else Handle(outcome, state)
    told: list[Miss] = []
    lane = Lane(
        "organ",
        lambda: handle,
        on_miss=lambda kind, *, is_dead, may_have_run: told.append((kind, is_dead, may_have_run)),
    )
    answers: list[dict[str, Any]] = []
    for _ in range(together):
        lane.send(Call(Task(type="pay").to_dict(), 5.0, answers.append))
    async with asyncio.timeout(10):
        while lane.load:  # noqa: ASYNC110 - it has nothing to wait for
            await asyncio.sleep(0)

    assert [(answer.get("error_type", ""), answer.get("executed", "")) for answer in answers] == (
        [(error_type, executed)] * together
    )
    assert told == misses * together
    assert not [answer for answer in answers if re.search(r"[\n\x1b]", answer.get("error", ""))]
