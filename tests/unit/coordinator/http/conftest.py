from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import httpx
import pytest

from scripts.example_coordinator import ExampleCoordinator
from seedcore.coordinator.http import HttpServer, create_app

TOKEN = "sesame-7f3a"


class View(ExampleCoordinator):
    """An in-memory Coordinator that answers with the values that the test has set."""

    def __init__(self) -> None:
        super().__init__()
        self.tasks: list[Any] = []
        self.answer: Any = {
            "success": True,
            "result": "done",
            "organ_id": "utility_organ_1",
            "agent_id": "utility_organ_1_agent_0",
            "task_type": "echo",
            "duration_s": 0.01,
        }
        self.gate = asyncio.Event()
        self.gate.set()

    def initializing(self) -> None:
        self.said |= {"status": "initializing", "organism_initialized": False, "coordinator": "unavailable"}

    async def handle(self, task: Any, /) -> dict[str, Any]:
        self.tasks.append(task)
        await self.gate.wait()
        if isinstance(self.answer, BaseException):
            raise self.answer
        return self.answer  # type: ignore[no-any-return]


Until = Callable[[Callable[[], object]], Awaitable[None]]
Serve = Callable[..., Awaitable[httpx.AsyncClient]]


@pytest.fixture
def view() -> View:
    return View()


@pytest.fixture
def until() -> Until:
    """Provide a function that polls a condition without an event."""

    async def wait(condition: Callable[[], object]) -> None:
        async with asyncio.timeout(60):
            while not condition():  # noqa: ASYNC110
                await asyncio.sleep(0.005)

    return wait


@pytest.fixture
async def start(view: View) -> AsyncIterator[Callable[..., Awaitable[HttpServer]]]:
    """Provide a function that starts a real server on a free loopback port; the server stops after the test."""
    async with AsyncExitStack() as stack:

        async def start_server(*, token: str | None = TOKEN, **options: Any) -> HttpServer:
            server = HttpServer(create_app(view, token=token), "127.0.0.1", 0, **options)
            await server.start()
            stack.push_async_callback(server.stop)
            return server

        yield start_server


@pytest.fixture
async def serve(start: Callable[..., Awaitable[HttpServer]]) -> AsyncIterator[Serve]:
    """Provide a function that starts a server and returns a client with its token."""
    async with AsyncExitStack() as stack:

        async def client_of_new_server(*, token: str | None = TOKEN, **options: Any) -> httpx.AsyncClient:
            server = await start(token=token, **options)
            headers = {} if token is None else {"Authorization": f"Bearer {token}"}
            # Plain HTTP without TLS: loading the system's certificates takes longer than most of these tests.
            url = f"http://127.0.0.1:{server.port}"
            client = httpx.AsyncClient(base_url=url, headers=headers, timeout=60, verify=False)
            return await stack.enter_async_context(client)

        yield client_of_new_server


@pytest.fixture
async def client(serve: Serve) -> httpx.AsyncClient:
    return await serve()


@pytest.fixture
def token() -> str:
    return TOKEN
