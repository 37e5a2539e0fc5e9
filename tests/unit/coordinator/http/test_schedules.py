"""Schedules over HTTP."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import httpx
import pytest

from seedcore.coordinator.inbox_view import NoInbox
from seedcore.core.errors import InboxUnavailableError, NoTaskError, TaskError, UnknownTaskTypeError, WrongStateError

if TYPE_CHECKING:
    from tests.unit.coordinator.http.conftest import View

SPEC = {"id": "nightly", "cron": "30 2 * * *", "task": {"type": "report"}}


class Inbox(NoInbox):
    """Remembers what it was asked for."""

    def __init__(self) -> None:
        self.asked: list[Any] = []
        self.error: Exception | None = None

    async def schedules(self) -> list[dict[str, Any]]:
        return [{"id": "nightly"}]

    async def put_schedule(self, raw: Any, *, by: str) -> dict[str, Any]:
        self.asked.append((raw, by))
        self._fail()
        return {"id": raw["id"], "created": True}

    async def change_schedule(self, schedule_id: str, verb: str, *, by: str) -> dict[str, Any]:
        self.asked.append((schedule_id, verb, by))
        self._fail()
        return {"id": schedule_id}

    def _fail(self) -> None:
        if self.error is not None:
            raise self.error


@pytest.fixture
def inbox(view: View) -> Inbox:
    made = Inbox()
    view.inbox = made
    return made


async def test_schedules_are_listed_made_changed_and_deleted(client: httpx.AsyncClient, inbox: Inbox) -> None:
    assert (await client.get("/coordinator/schedules")).json() == [{"id": "nightly"}]
    put = await client.post("/coordinator/schedules", json=SPEC)
    assert (put.status_code, put.json()) == (200, {"id": "nightly", "created": True})
    for verb in ("pause", "resume", "run"):
        assert (await client.post(f"/coordinator/schedules/nightly/{verb}")).status_code == 200
    assert (await client.delete("/coordinator/schedules/nightly")).status_code == 200
    verbs = [("nightly", verb, "cluster") for verb in ("pause", "resume", "run", "delete")]
    assert inbox.asked == [(SPEC, "cluster"), *verbs]


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (TaskError("every is 0"), 400),
        (NoTaskError("there is no schedule 'nightly'"), 404),
        (UnknownTaskTypeError("no organ accepts task type 'report'"), 404),
        (WrongStateError("it is one of organism.yaml"), 409),
        (InboxUnavailableError("the inbox is not open: why", retry_after_s=1.0), 503),
    ],
)
async def test_what_is_refused_is_told(client: httpx.AsyncClient, inbox: Inbox, error: Exception, code: int) -> None:
    inbox.error = error
    for answer in (
        await client.post("/coordinator/schedules", json=SPEC),
        await client.delete("/coordinator/schedules/nightly"),
    ):
        assert (answer.status_code, answer.json()["error"], answer.json()["executed"]) == (code, str(error), "no")


async def test_without_an_inbox_that_is_told(client: httpx.AsyncClient) -> None:
    for answer in (
        await client.get("/coordinator/schedules"),
        await client.post("/coordinator/schedules", json=SPEC),
        await client.post("/coordinator/schedules/nightly/run"),
    ):
        assert answer.status_code == 404
        assert "SEEDCORE_INBOX=sqlite" in answer.json()["error"]


async def test_a_body_that_is_no_json_is_refused(client: httpx.AsyncClient, inbox: Inbox) -> None:
    headers = {"Content-Type": "application/json"}
    answer = await client.post("/coordinator/schedules", content=b"{", headers=headers)
    assert (answer.status_code, inbox.asked) == (400, [])
