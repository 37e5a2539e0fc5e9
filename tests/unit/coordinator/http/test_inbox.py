"""Durable tasks over HTTP, with a whole Coordinator's inbox behind it."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from seedcore.coordinator.inbox_view import NoInbox
from seedcore.core.errors import InboxUnavailableError, NoTaskError, WrongStateError

if TYPE_CHECKING:
    from tests.unit.coordinator.http.conftest import View


class Inbox(NoInbox):
    """Remembers what it was asked for."""

    def __init__(self) -> None:
        self.asked: list[Any] = []
        self.error: Exception | None = None

    async def show(self, task_id: str, wait_s: float = 0.0) -> dict[str, Any] | None:
        self.asked.append((task_id, wait_s))
        self._fail()
        return None if task_id == "nope" else {"id": task_id}

    async def find(self, **query: Any) -> list[dict[str, Any]]:
        self.asked.append(query)
        self._fail()
        return [{"id": "a1"}]

    async def decide(self, task_id: str, verb: str, *, by: str) -> dict[str, Any]:
        self.asked.append((task_id, verb, by))
        self._fail()
        return {"id": task_id, "state": "done", "executed": "unknown"}

    async def copy(self) -> dict[str, Any]:
        self.asked.append("copy")
        return {"path": "/state/inbox/copy.sqlite3", "bytes": 1}

    def _fail(self) -> None:
        if self.error is not None:
            raise self.error


@pytest.fixture
def inbox(view: View) -> Inbox:
    made = Inbox()
    view.inbox = made
    return made


async def test_tasks_are_listed_by_state_type_and_age(client: httpx.AsyncClient, inbox: Inbox) -> None:
    answer = await client.get("/coordinator/tasks?state=parked,failed&type=pay&since_s=60&limit=5")
    assert (answer.status_code, answer.json()) == (200, [{"id": "a1"}])
    assert (await client.get("/coordinator/tasks")).status_code == 200
    assert inbox.asked == [
        {"states": ["parked", "failed"], "kind": "pay", "since_s": 60.0, "limit": 5},
        {"states": [], "kind": None, "since_s": None, "limit": 100},
    ]


@pytest.mark.parametrize("query", ["state=lost", "limit=x", "since_s=-1", "since_s=nan", "limit=inf"])
async def test_a_wrong_parameter_is_400(client: httpx.AsyncClient, inbox: Inbox, query: str) -> None:
    answer = await client.get(f"/coordinator/tasks?{query}")
    assert (answer.status_code, answer.json()["error_type"]) == (400, "TaskError")
    assert query.partition("=")[0] in answer.json()["error"]
    assert inbox.asked == []


async def test_a_task_is_shown_and_waited_for(client: httpx.AsyncClient, inbox: Inbox) -> None:
    assert (await client.get("/coordinator/tasks/a1?wait_s=30")).json() == {"id": "a1"}
    missing = await client.get("/coordinator/tasks/nope")
    assert (missing.status_code, missing.json()["error"]) == (404, "there is no durable task 'nope'")
    assert inbox.asked == [("a1", 30.0), ("nope", 0.0)]


@pytest.mark.parametrize("verb", ["retry", "done", "discard", "cancel"])
async def test_a_decision_has_the_name_of_who_made_it(
    client: httpx.AsyncClient, inbox: Inbox, verb: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        answer = await client.post(f"/coordinator/tasks/a1/{verb}")
    assert f"audit: token='cluster' order={verb} task='a1'" in caplog.text
    assert (answer.status_code, answer.json()["state"]) == (200, "done")
    assert inbox.asked == [("a1", verb, "cluster")]


async def test_the_inbox_is_copied(client: httpx.AsyncClient, inbox: Inbox, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        answer = await client.post("/coordinator/inbox/copy")
    assert (answer.status_code, answer.json()["path"]) == (200, "/state/inbox/copy.sqlite3")
    assert "audit: token='cluster' order=copy" in caplog.text
    assert inbox.asked == ["copy"]


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (NoTaskError("there is no durable task 'a1'"), 404),
        (WrongStateError("task a1 is done"), 409),
        (InboxUnavailableError("the inbox is not open: why", retry_after_s=1.0), 503),
    ],
)
async def test_what_is_refused_is_told(client: httpx.AsyncClient, inbox: Inbox, error: Exception, code: int) -> None:
    inbox.error = error
    answer = await client.post("/coordinator/tasks/a1/retry")
    assert (answer.status_code, answer.json()["error"], answer.json()["executed"]) == (code, str(error), "no")


async def test_without_an_inbox_that_is_told(client: httpx.AsyncClient) -> None:
    for answer in (await client.get("/coordinator/tasks"), await client.post("/coordinator/tasks/a/retry")):
        assert answer.status_code == 404
        assert "SEEDCORE_INBOX=sqlite" in answer.json()["error"]


async def test_an_acceptance_is_202_and_a_key_of_another_task_409(client: httpx.AsyncClient, view: View) -> None:
    view.answer = {"success": None, "accepted": True, "id": "a1", "state": "ready", "duplicate": False}
    assert (await client.post("/coordinator/tasks", json={"type": "echo", "durable": True})).status_code == 202
    view.answer = {"success": False, "error": "x", "error_type": "KeyConflictError", "executed": "no"}
    assert (await client.post("/coordinator/tasks", json={"type": "echo", "durable": True})).status_code == 409


async def test_the_routes_import_no_database(tmp_path: Path) -> None:
    text = Path(__file__).parents[4].joinpath("seedcore/coordinator/http/routes/inbox.py").read_text()
    assert "seedcore.coordinator.inbox" not in text.replace("seedcore.coordinator.inbox_view", "")


async def test_a_wrong_method_is_told_all_methods_of_the_path(client: httpx.AsyncClient) -> None:
    answer = await client.request("OPTIONS", "/coordinator/tasks")
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD, POST")
