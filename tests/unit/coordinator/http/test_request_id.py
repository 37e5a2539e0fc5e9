"""Test that a request id reaches the agent, the log and the answer."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import httpx
import pytest

if TYPE_CHECKING:
    from tests.unit.coordinator.http.conftest import View

NAME = "X-Request-ID"


async def test_the_id_that_was_sent_comes_back_on_every_answer(client: httpx.AsyncClient) -> None:
    for path in ("/livez", "/coordinator/status", "/", "/nothing-here", "/metrics"):
        answer = await client.get(path, headers={NAME: "order-17:3.a_b"})
        assert answer.headers.get_list(NAME) == ["order-17:3.a_b"]
    refused = await client.get("/coordinator/status", headers={NAME: "mine", "Authorization": "Bearer wrong"})
    assert (refused.status_code, refused.headers[NAME]) == (403, "mine")


@pytest.mark.parametrize("sent", ["", "two words", "x" * 129, "a\tb", "forged\x7f", 'id="1"'])
async def test_what_may_not_stand_in_a_log_is_replaced(client: httpx.AsyncClient, sent: str) -> None:
    given = (await client.get("/livez", headers={NAME.encode(): sent.encode()})).headers[NAME]

    assert given != sent
    assert len(given) == 32


async def test_ids_are_different(client: httpx.AsyncClient) -> None:
    assert (await client.get("/livez")).headers[NAME] != (await client.get("/livez")).headers[NAME]


async def test_a_task_has_the_id_of_its_request_unless_it_has_one(client: httpx.AsyncClient, view: View) -> None:
    for task in ({"type": "echo"}, {"type": "echo", "id": None}, {"type": "echo", "id": "own"}):
        await client.post("/coordinator/tasks", json=task, headers={NAME: "r-1"})

    assert [task["id"] for task in view.tasks] == ["r-1", "r-1", "own"]


async def test_it_stands_in_the_log_of_what_went_wrong(
    client: httpx.AsyncClient, view: View, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        await client.post("/coordinator/tasks", json={"type": "echo"}, headers={NAME: "fine"})
        await client.post("/coordinator/tasks", content=b"{", headers={NAME: "r-2", "Content-Type": "application/json"})
        view.answer = RuntimeError("a fault of ours")
        await client.post("/coordinator/tasks", json={"type": "echo"}, headers={NAME: "r-3"})

    assert "id=r-2 method=POST path='/coordinator/tasks' status=400" in caplog.text
    assert "request failed: id=r-3" in caplog.text
    assert "fine" not in caplog.text
