"""The client's side of a connection that is kept, against the real server."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import pytest

from seedcore.http import HttpServer
from seedcore.rest import Connection, NotSentError, NotSentInTimeError

if TYPE_CHECKING:
    Start = Callable[..., Awaitable[HttpServer]]


async def test_many_requests_share_one_connection(start: Start, token: str) -> None:
    server = await start()
    connection = Connection(f"http://127.0.0.1:{server.port}")

    def ask() -> list[int]:
        bodies = [{"type": "echo", "params": {"n": number}} for number in range(20)]
        return [
            connection.request("/coordinator/tasks", method="POST", token=token, body=body, timeout_s=30).status
            for body in bodies
        ]

    assert await asyncio.to_thread(ask) == [200] * 20
    assert server._server is not None
    assert len(server._server.server_state.connections) == 1
    connection.close()


async def test_a_connection_that_has_been_idle_is_made_anew(
    start: Start, token: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("seedcore.rest.MAX_IDLE_S", 0.0)
    server = await start()
    connection = Connection(f"http://127.0.0.1:{server.port}")

    for _ in range(3):
        answer = await asyncio.to_thread(connection.request, "/coordinator/status", token=token, timeout_s=30)
        assert answer.status == 200
    connection.close()


async def test_nobody_listens_is_another_error_than_nobody_answers(start: Start) -> None:
    server = await start()
    await server.stop()
    connection = Connection(f"http://127.0.0.1:{server.port}")

    with pytest.raises(NotSentError):
        await asyncio.to_thread(connection.request, "/livez")
    assert issubclass(NotSentInTimeError, TimeoutError)
