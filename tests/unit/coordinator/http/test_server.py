"""Test uvicorn on a running event loop: its address, its shutdown, and its protection against clients."""

from __future__ import annotations

import asyncio
import http.client
import json
import logging
import pickle
import signal
import socket
import threading
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from seedcore.coordinator.http import HttpServer, ListenError, create_app
from seedcore.core.errors import SeedCoreError

if TYPE_CHECKING:
    from tests.unit.coordinator.http.conftest import Serve, Until, View

    Start = Callable[..., Awaitable[HttpServer]]


async def test_it_listens_when_start_returns_and_no_more_after_stop(view: View) -> None:
    server = HttpServer(create_app(view, token=None), "127.0.0.1", 0)
    await server.start()
    async with httpx.AsyncClient() as client:
        assert (await client.get(f"http://127.0.0.1:{server.port}/livez")).status_code == 200
    await server.stop()
    await server.stop()
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", server.port)


async def test_the_port_can_be_taken_again_at_once(view: View) -> None:
    app = create_app(view, token=None)
    first = HttpServer(app, "127.0.0.1", 0)
    await first.start()
    async with httpx.AsyncClient() as client:
        await client.get(f"http://127.0.0.1:{first.port}/livez")
        await first.stop()
        second = HttpServer(app, "127.0.0.1", first.port)
        await second.start(timeout_s=0)
        assert (await client.get(f"http://127.0.0.1:{first.port}/livez")).status_code == 200
        await second.stop()


async def test_a_busy_port_is_named_after_the_deadline(view: View) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        server = HttpServer(create_app(view, token=None), "127.0.0.1", port)
        with pytest.raises(ListenError, match=f"127.0.0.1:{port}: Address already in use") as error:
            await server.start(timeout_s=0.3)
    assert isinstance(error.value, SeedCoreError)
    assert str(pickle.loads(pickle.dumps(error.value))) == str(error.value)
    await server.stop()


async def test_a_busy_port_is_waited_for(view: View, caplog: pytest.LogCaptureFixture, until: Until) -> None:
    other = socket.create_server(("127.0.0.1", 0))
    server = HttpServer(create_app(view, token=None), "127.0.0.1", other.getsockname()[1])
    starting = asyncio.create_task(server.start(timeout_s=30))
    await until(lambda: "busy" in caplog.text)
    assert not starting.done()
    other.close()
    await starting
    await server.stop()


@pytest.mark.parametrize("host", ["127.0.0.1.example.invalid", "8.8.8.8"])
async def test_an_address_of_somebody_else_is_an_error(view: View, host: str) -> None:
    with pytest.raises(ListenError, match=host):
        await HttpServer(create_app(view, token=None), host, 0).start(timeout_s=0.2)


def test_it_runs_in_the_loop_of_another_thread_and_leaves_signals_alone(view: View) -> None:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        server = HttpServer(create_app(view, token=None), "127.0.0.1", 0)
        asyncio.run_coroutine_threadsafe(server.start(), loop).result(30)
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
        connection.request("GET", "/coordinator/status")
        assert json.loads(connection.getresponse().read()) == view.said
        connection.close()
        asyncio.run_coroutine_threadsafe(server.stop(), loop).result(30)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
    assert {number: signal.getsignal(number) for number in before} == before


async def test_signals_are_left_alone_in_the_main_thread(start: Start) -> None:
    before = signal.getsignal(signal.SIGTERM)
    await start()
    assert signal.getsignal(signal.SIGTERM) is before


async def test_the_owner_notices_when_the_server_ends_by_itself(start: Start) -> None:
    server = await start()
    watcher = asyncio.create_task(server.wait_failed())
    await asyncio.sleep(0)
    assert not watcher.done()
    assert server._server is not None
    server._server.should_exit = True
    assert isinstance(await watcher, ListenError)


async def test_a_stop_on_purpose_is_no_failure(start: Start) -> None:
    server = await start()
    watcher = asyncio.create_task(server.wait_failed())
    await server.stop()
    assert await watcher is None


async def test_a_request_that_does_not_end_gets_an_answer_when_the_server_stops(
    start: Start, view: View, until: Until
) -> None:
    server = await start(token=None, grace_s=0.2)
    view.gate.clear()
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{server.port}") as client:
        request = asyncio.create_task(client.post("/coordinator/tasks", json={"type": "echo"}))
        await until(lambda: view.tasks)
        await server.stop()
        answer = await request
    assert (answer.status_code, answer.json()["error_type"]) == (503, "StoppingError")


async def test_a_request_may_finish_within_the_grace(start: Start, view: View, until: Until) -> None:
    server = await start(token=None, grace_s=30)
    view.gate.clear()
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{server.port}") as client:
        request = asyncio.create_task(client.post("/coordinator/tasks", json={"type": "echo"}))
        await until(lambda: view.tasks)
        stopping = asyncio.create_task(server.stop())
        await asyncio.sleep(0)
        view.gate.set()
        assert (await request).status_code == 200
        await stopping


@pytest.mark.parametrize("sent", [b"", b"GET /livez HT"])
async def test_a_client_that_says_nothing_or_half_is_let_go(start: Start, sent: bytes) -> None:
    server = await start(header_timeout_s=0.2)
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(sent)
    async with asyncio.timeout(30):
        await reader.read(-1)
    writer.close()
    await writer.wait_closed()


async def test_half_a_second_request_is_let_go_too(start: Start) -> None:
    server = await start(header_timeout_s=0.2)
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n")
    await reader.readuntil(b"}")
    for byte in b"GET /livez HTTP/1.1\r\nX":
        writer.write(bytes([byte]))
        await asyncio.sleep(0)
    async with asyncio.timeout(10):
        assert await reader.read(-1) == b""
    writer.close()
    await writer.wait_closed()


async def test_a_body_that_does_not_arrive_is_408(start: Start, view: View, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("seedcore.coordinator.http.routes.tasks.BODY_TIMEOUT_S", 0.2)
    server = await start(token=None)
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(
        b"POST /coordinator/tasks HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n{"
    )
    async with asyncio.timeout(30):
        answer = await reader.read(-1)
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert not view.tasks
    writer.close()
    await writer.wait_closed()


async def test_an_answer_that_nobody_reads_is_given_up(start: Start, view: View, until: Until) -> None:
    server = await start(token=None, stalled_s=0.2)
    view.organs = [{"organ_id": "x" * 8_000_000}]
    # A receive window so small that the answer does not fit into the buffers in between.
    reading = socket.socket()
    reading.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    reading.setblocking(False)
    await asyncio.get_running_loop().sock_connect(reading, ("127.0.0.1", server.port))
    reader, writer = await asyncio.open_connection(sock=reading, limit=1024)
    writer.write(b"GET /organism/status HTTP/1.1\r\nHost: a\r\n\r\n")
    assert (await reader.readline()).startswith(b"HTTP/1.1 200")
    assert server._server is not None
    connections = server._server.server_state.connections
    assert connections
    await until(lambda: not connections)
    writer.transport.abort()


async def test_whoever_watches_gets_through_a_crowd_of_idle_connections(start: Start) -> None:
    server = await start(max_connections=10)
    idle = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(40)]
    async with httpx.AsyncClient() as client:
        for _ in range(3):
            assert (await client.get(f"http://127.0.0.1:{server.port}/livez")).status_code == 200
    assert server._server is not None
    assert len(server._server.server_state.connections) <= 11
    for _, writer in idle:
        writer.transport.abort()


async def test_headers_are_bounded(start: Start) -> None:
    server = await start()
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(b"GET /livez HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 17_000)
    async with asyncio.timeout(5):
        assert (await reader.readline()).startswith(b"HTTP/1.1 400 ")
    writer.transport.abort()


async def test_loggers_are_left_alone_and_requests_are_not_logged(
    serve: Serve, caplog: pytest.LogCaptureFixture, token: str
) -> None:
    access = logging.getLogger("uvicorn.access")
    before = (access.propagate, list(access.handlers), access.level, list(logging.getLogger("uvicorn").handlers))
    with caplog.at_level(logging.DEBUG):
        client = await serve()
        await client.get("/livez?token=x")
    assert (
        access.propagate,
        list(access.handlers),
        access.level,
        list(logging.getLogger("uvicorn").handlers),
    ) == before
    assert not [record for record in caplog.records if record.name == "uvicorn.access"]
    assert token not in caplog.text


async def test_it_starts_only_once(start: Start) -> None:
    server: Any = await start()
    with pytest.raises(RuntimeError):
        await server.start()
