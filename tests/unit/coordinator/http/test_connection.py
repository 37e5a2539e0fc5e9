"""Test the client's side of a connection against the real server."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from seedcore.client import AsyncClient
from seedcore.client import http_connection as wire
from seedcore.coordinator.http import HttpServer
from seedcore.core.settings import Settings
from seedcore.status.http_client import NotSentError, NotSentInTimeError, request

if TYPE_CHECKING:
    Start = Callable[..., Awaitable[HttpServer]]


def client_of(server: HttpServer, directory: Path, token: str) -> AsyncClient:
    (directory / "token").write_text(token)
    settings = Settings(http_port=server.port, auth_enabled=True, token_path=directory / "token")
    return AsyncClient(settings, transport="http")


async def test_many_requests_share_one_connection(start: Start, tmp_path: Path, token: str) -> None:
    server = await start()
    async with client_of(server, tmp_path, token) as client:
        for number in range(20):
            assert (await client.submit({"type": "echo", "params": {"n": number}}))["success"]
        assert server._server is not None
        assert len(server._server.server_state.connections) == 1


async def test_a_connection_that_has_been_idle_is_made_anew(
    start: Start, tmp_path: Path, token: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wire, "MAX_IDLE_S", 0.0)
    server = await start()
    async with client_of(server, tmp_path, token) as client:
        for _ in range(3):
            assert (await client.submit({"type": "echo"}))["success"]


async def test_a_connection_that_the_server_has_closed_is_made_anew(
    start: Start, tmp_path: Path, token: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = await start()
    async with client_of(server, tmp_path, token) as client:
        assert (await client.submit({"type": "echo"}))["success"]
        assert server._server is not None
        for connection in list(server._server.server_state.connections):
            connection.transport.close()
        async with asyncio.timeout(30):
            while server._server.server_state.connections:  # noqa: ASYNC110
                await asyncio.sleep(0.005)
        await asyncio.sleep(0)
        assert (await client.submit({"type": "echo"}))["success"]


async def test_nobody_listens_is_another_error_than_nobody_answers(start: Start) -> None:
    server = await start()
    await server.stop()

    with pytest.raises(NotSentError):
        await asyncio.to_thread(request, f"http://127.0.0.1:{server.port}/livez")
    assert issubclass(NotSentInTimeError, TimeoutError)
