from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import httpx
import pytest

from seedcore.activity import Activity
from seedcore.counts import BUCKETS_S
from seedcore.http import HttpServer, create_app

TOKEN = "sesame-7f3a"


def _buckets(at_most_100_ms: int, *, above: int = 0) -> list[int]:
    counts = [0] * (len(BUCKETS_S) + 1)
    counts[BUCKETS_S.index(0.1)], counts[-1] = at_most_100_ms, above
    return counts


class View:
    """A Coordinator in memory: what it says is what the test has put there."""

    def __init__(self) -> None:
        self.said: dict[str, Any] = {
            "status": "healthy",
            "organism_initialized": True,
            "coordinator": "available",
            "reason": "ready",
            "message": "1 of 1 organs ready, all agents ready",
            "release": "0.1.0-abc",
            "degraded": False,
            "since": "2026-01-01T00:00:00.000+00:00",
            "organs": [],
            "init_seconds": 1.25,
            "init_attempts": 2,
            "restarts": 3,
        }
        self.organs: list[dict[str, Any]] = [
            {
                "organ_id": "utility_organ_1",
                "organ_type": "Utility",
                "agent_count": 3,
                "agent_ids": ["utility_organ_1_agent_0"],
                "status": "degraded",
                "ready": True,
                "ready_agents": 2,
                "required": True,
                "in_flight": 4,
                "queued": 5,
                "queue_limit": 20,
                "stuck": 1,
                "agents": {"ready": 2, "starting": 0, "failed": 1, "stopped": 0, "down": 0},
                "tasks": [
                    {
                        "task_type": "echo",
                        "outcome": "success",
                        "count": 9,
                        "seconds_sum": 0.25,
                        "buckets": _buckets(9),
                    },
                ],
                "replicas": [
                    {"replica": 0, "state": "ready", "restarts": 1},
                    {"replica": 1, "state": "down", "restarts": 2},
                ],
            }
        ]
        self.figures: dict[str, Any] = {
            "tasks": [
                {"task_type": "echo", "outcome": "success", "count": 7, "seconds_sum": 0.5, "buckets": _buckets(7)},
                {
                    "task_type": 'odd "name"\n\\',
                    "outcome": "TimeoutError",
                    "count": 2,
                    "seconds_sum": 120.0,
                    "buckets": _buckets(0, above=2),
                },
            ],
            "in_flight": 6,
            "init_seconds": 1.25,
            "init_attempts": 2,
            "restarts": 3,
            "reloads": 4,
            "uptime_s": 12.5,
        }
        self.disks = [{"node_name": "worker-1", "path": "/opt/seedcore/tmp", "free": 7, "size": 9}]
        self.lately = Activity(lambda: 1_795_555_924.0)
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

    def status(self) -> dict[str, Any]:
        return self.said

    def organism(self) -> list[dict[str, Any]]:
        return self.organs

    def activity(self) -> dict[str, Any]:
        return self.lately.to_dict()

    def metrics(self) -> dict[str, Any]:
        return {**self.figures, "organs": self.organs, "disks": self.disks}

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
    """Wait for a condition that nobody announces."""

    async def wait(condition: Callable[[], object]) -> None:
        async with asyncio.timeout(60):
            while not condition():  # noqa: ASYNC110
                await asyncio.sleep(0.005)

    return wait


@pytest.fixture
async def start(view: View) -> AsyncIterator[Callable[..., Awaitable[HttpServer]]]:
    """Start a real server on a free port of the loopback interface; stopped after the test."""
    async with AsyncExitStack() as stack:

        async def start_server(*, token: str | None = TOKEN, **options: Any) -> HttpServer:
            server = HttpServer(create_app(view, token=token), "127.0.0.1", 0, **options)
            await server.start()
            stack.push_async_callback(server.stop)
            return server

        yield start_server


@pytest.fixture
async def serve(start: Callable[..., Awaitable[HttpServer]]) -> AsyncIterator[Serve]:
    """Start a server and return a client of it, which knows the token."""
    async with AsyncExitStack() as stack:

        async def client_of_new_server(*, token: str | None = TOKEN, **options: Any) -> httpx.AsyncClient:
            server = await start(token=token, **options)
            headers = {} if token is None else {"Authorization": f"Bearer {token}"}
            client = httpx.AsyncClient(base_url=f"http://127.0.0.1:{server.port}", headers=headers, timeout=60)
            return await stack.enter_async_context(client)

        yield client_of_new_server


@pytest.fixture
async def client(serve: Serve) -> httpx.AsyncClient:
    return await serve()


@pytest.fixture
def token() -> str:
    return TOKEN
