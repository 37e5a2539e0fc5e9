"""Test the client against a real server: batching, slow tasks beside quick ones, and answers after failures."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trustme

from seedcore.client import AsyncClient, Client
from seedcore.client import http_connection as wire
from seedcore.client import http_transport as client_http
from seedcore.coordinator.http import HttpServer
from seedcore.coordinator.http import answer_lines as lines
from seedcore.coordinator.http.tls import Certificate
from seedcore.core.settings import Settings
from seedcore.core.task import SENT_TOGETHER_BYTES, failure
from tests.unit.coordinator.http.conftest import View

if TYPE_CHECKING:
    from tests.unit.coordinator.http.conftest import Until

Start = Callable[..., Awaitable[HttpServer]]


class Worker(View):
    """Executes tasks: ``hold`` waits until the test releases it, any other task ends at once."""

    def __init__(self) -> None:
        super().__init__()
        self.gate.clear()
        self.refusals: list[dict[str, Any]] = []

    async def handle(self, task: Any, /) -> dict[str, Any]:
        self.tasks.append(task)
        if self.refusals:
            return self.refusals.pop()
        if task["type"] == "hold":
            await self.gate.wait()
        return {"success": True, "result": task.get("params", {}).get("n"), "task_type": task["type"]}


@pytest.fixture
def view() -> Worker:
    return Worker()


@pytest.fixture
def requests(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Return the bodies of the requests that clients have sent."""
    sent: list[bytes] = []
    post = wire.Wire.post

    async def spy(self: wire.Wire, path: str, body: bytes, **options: Any) -> int:
        sent.append(body)
        return await post(self, path, body, **options)

    monkeypatch.setattr(wire.Wire, "post", spy)
    return sent


@pytest.fixture
async def settings(start: Start, tmp_path: Path, token: str) -> Settings:
    return _settings(await start(), tmp_path, token)


def _settings(server: HttpServer, directory: Path, token: str, **more: Any) -> Settings:
    path = directory / "token"
    path.write_text(token)
    return Settings(http_port=server.port, auth_enabled=True, token_path=path, **more)


def echo(n: Any) -> dict[str, Any]:
    return {"type": "echo", "params": {"n": n}}


async def test_tasks_that_come_up_together_travel_together(settings: Settings, requests: list[bytes]) -> None:
    async with AsyncClient(settings, transport="http") as client:
        answers = await asyncio.gather(*(client.submit(echo(n)) for n in range(50)))

    assert [answer["result"] for answer in answers] == list(range(50))
    assert len(requests) == 1


async def test_a_slow_task_keeps_no_quick_one_waiting(settings: Settings, view: Worker, requests: list[bytes]) -> None:
    async with AsyncClient(settings, transport="http") as client:
        slow = asyncio.create_task(client.submit({"type": "hold"}))
        quick = await asyncio.gather(*(client.submit(echo(n)) for n in range(20)))

        assert [answer["result"] for answer in quick] == list(range(20))
        assert not slow.done()
        assert len(requests) == 1
        view.gate.set()
        assert (await slow)["success"]


async def test_many_slow_tasks_keep_no_quick_one_waiting(settings: Settings, view: Worker, until: Until) -> None:
    async with AsyncClient(settings, transport="http") as client:
        slow: list[asyncio.Task[dict[str, Any]]] = []
        while len(slow) < 10:
            slow.append(asyncio.create_task(client.submit({"type": "hold"})))
            await until(lambda: len(view.tasks) == len(slow))

        assert (await asyncio.wait_for(client.submit(echo(1)), 30))["result"] == 1
        view.gate.set()
        assert all(answer["success"] for answer in await asyncio.gather(*slow))


async def test_a_blocking_client_gets_answers_in_order(settings: Settings) -> None:
    def work() -> list[Any]:
        with Client(settings, transport="http", max_in_flight=30) as client:
            assert client.submit(echo("one"))["result"] == "one"
            return [answer["result"] for answer in client.map(echo(n) for n in range(200))]

    assert await asyncio.to_thread(work) == list(range(200))


async def test_only_a_limit_that_somebody_named_is_sent(settings: Settings, view: Worker) -> None:
    async with AsyncClient(settings, transport="http") as client:
        await client.submit(echo(1))
        await client.submit(echo(2), timeout_s=9)
        await client.submit({**echo(3), "timeout_s": 7, "note": "kept"}, timeout_s=9)

    limits = [task.get("timeout_s") for task in view.tasks]
    assert limits == [None, pytest.approx(9, abs=2), pytest.approx(7, abs=2)]
    assert view.tasks[2]["note"] == "kept"


@pytest.mark.parametrize("bad", [object(), float("nan"), "\ud800", {1, 2}])
async def test_what_is_no_json_spoils_its_own_task_only(settings: Settings, requests: list[bytes], bad: Any) -> None:
    async with AsyncClient(settings, transport="http") as client:
        answers = await client.submit_many([echo(1), echo(bad), echo(2)])

    assert [answer["success"] for answer in answers] == [True, False, True]
    assert (answers[1]["error_type"], answers[1]["executed"]) == ("TaskError", "no")
    assert len(requests) == 1


async def test_what_is_too_deep_for_a_batch_spoils_its_own_task_only(settings: Settings) -> None:
    deep: Any = 1
    for _ in range(97):
        deep = [deep]
    async with AsyncClient(settings, transport="http") as client:
        answers = await client.submit_many([echo(1), echo(deep), echo(2)])

    assert [answer["success"] for answer in answers] == [True, True, True]


async def test_only_one_answer_has_a_bound_and_not_all_of_a_request(
    settings: Settings, requests: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wire, "MAX_ANSWER_BYTES", 300_000)
    async with AsyncClient(settings, transport="http") as client:
        answers = await client.submit_many([echo("x" * 10_000)] * 90)

    assert all(answer["success"] for answer in answers)
    assert len(requests) == 1


async def test_large_tasks_travel_in_requests_of_a_bounded_size(settings: Settings, requests: list[bytes]) -> None:
    async with AsyncClient(settings, transport="http") as client:
        answers = await client.submit_many([echo("x" * 400_000)] * 7)

    assert all(answer["success"] for answer in answers)
    assert max(map(len, requests)) < SENT_TOGETHER_BYTES


async def test_a_task_that_was_refused_is_sent_again_until_its_time_is_over(settings: Settings, view: Worker) -> None:
    refused = failure("full", error_type="OverloadedError", retry_after_s=0.01)
    view.refusals = [refused, refused]
    async with AsyncClient(settings, transport="http") as client:
        assert (await client.submit(echo(1)))["success"]
        assert len(view.tasks) == 3
        view.refusals = [refused] * 1000
        last = await client.submit(echo(1), timeout_s=0.2)
    assert (last["success"], last["executed"]) == (False, "no")


async def test_nobody_there_is_a_sure_no_within_the_time(settings: Settings) -> None:
    nobody = Settings(http_port=1)
    async with AsyncClient(nobody, transport="http") as client:
        answers = await client.submit_many([echo(1), echo(2)], timeout_s=0.2)

    assert {(answer["error_type"], answer["executed"]) for answer in answers} <= {
        ("OrganUnavailableError", "no"),
        ("TimeoutError", "no"),
    }


async def test_a_wrong_token_is_told_and_nothing_was_done(settings: Settings, view: Worker) -> None:
    assert settings.token_path is not None
    settings.token_path.write_text("wrong")
    async with AsyncClient(settings, transport="http") as client:
        answer = await client.submit(echo(1))

    assert (answer["error_type"], answer["executed"]) == ("ClusterError", "no")
    assert "rejects this token" in answer["error"]
    assert not view.tasks


async def test_a_connection_that_breaks_leaves_only_unanswered_tasks_unknown(
    settings: Settings, view: Worker, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    wires: list[wire.Wire] = []
    opened = wire.Wire.open

    async def spy(url: str, **options: Any) -> wire.Wire:
        wires.append(await opened(url, **options))
        return wires[-1]

    monkeypatch.setattr(wire.Wire, "open", spy)
    async with AsyncClient(settings, transport="http") as client:
        slow = asyncio.create_task(client.submit({"type": "hold"}))
        assert (await client.submit(echo(1)))["success"]
        wires[0].close()
        answer = await slow
        assert (answer["success"], answer["executed"]) == (False, "unknown")
        # The next task uses a new connection.
        assert (await client.submit(echo(2)))["success"]
    assert sum(task["type"] == "hold" for task in view.tasks) == 1


async def test_signs_of_life_keep_a_long_task_and_their_absence_ends_it(
    settings: Settings, view: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wire, "SILENCE_S", 2.0)
    monkeypatch.setattr(lines, "SIGN_OF_LIFE_S", 0.05)
    async with AsyncClient(settings, transport="http") as client:
        slow = asyncio.create_task(client.submit({"type": "hold"}))
        assert not (await asyncio.wait({slow}, timeout=2.5))[0]
        view.gate.set()
        assert (await slow)["success"]

        view.gate.clear()
        monkeypatch.setattr(lines, "SIGN_OF_LIFE_S", 60.0)
        lost = await client.submit({"type": "hold"})
    assert (lost["error_type"], lost["executed"]) == ("TimeoutError", "unknown")
    assert "no sign of life" in lost["error"]


async def test_a_task_of_a_hung_coordinator_is_answered_when_its_time_is_over(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_http, "ANSWER_GRACE_S", 0.1)
    async with AsyncClient(settings, transport="http") as client:
        late = await client.submit({"type": "hold"}, timeout_s=0.1)

    assert (late["error_type"], late["executed"]) == ("TimeoutError", "unknown")


async def test_a_blocking_client_that_is_closed_ends_every_iteration(settings: Settings, view: Worker) -> None:
    client = Client(settings, transport="http", max_in_flight=5)

    def endless() -> Iterator[dict[str, Any]]:
        yield echo(0)
        for _ in range(50):
            yield {"type": "hold"}

    answers = client.map(endless())

    def first() -> dict[str, Any]:
        return next(answers)

    assert (await asyncio.to_thread(first))["result"] == 0
    await asyncio.to_thread(client.close)
    rest = await asyncio.wait_for(asyncio.to_thread(list, answers), 30)

    assert len(rest) == 50
    assert {answer["executed"] for answer in rest} == {"no", "unknown"}
    assert client.submit(echo(1))["error"] == "the client was closed"


async def test_the_certificate_of_the_settings_is_believed(start: Start, tmp_path: Path, token: str) -> None:
    issued = trustme.CA().issue_cert("coordinator.example")
    certificate, key = tmp_path / "server.pem", tmp_path / "server.key"
    certificate.write_bytes(issued.cert_chain_pems[0].bytes())
    key.write_bytes(issued.private_key_pem.bytes())
    server = await start(certificate=Certificate(certificate, key))
    believing = _settings(server, tmp_path, token, http_tls_cert=certificate)
    async with AsyncClient(believing, transport="http") as client:
        assert (await client.submit(echo(1)))["result"] == 1
        # On the existing connection.
        assert (await client.submit(echo(2)))["result"] == 2


@pytest.mark.parametrize(
    ("status", "body"), [(502, b"<html>bad gateway</html>"), (200, b"[]"), (504, b'{"detail": "late"}'), (200, b"{")]
)
async def test_an_answer_of_somebody_else_says_nothing_about_the_task(status: int, body: bytes) -> None:
    async def proxy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n%s" % (status, len(body), body))
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(proxy, "127.0.0.1", 0)
    async with server, AsyncClient(Settings(http_port=server.sockets[0].getsockname()[1]), transport="http") as client:
        answer = await client.submit(echo(1))

    assert (answer["error_type"], answer["executed"]) == ("ClusterError", "unknown")
    assert f"HTTP {status}" in answer["error"]


async def test_threads_may_share_a_blocking_client(settings: Settings) -> None:
    answers: list[Any] = []
    with Client(settings, transport="http") as client:

        def work(start: int) -> None:
            answers.extend(client.submit(echo(n))["result"] for n in range(start, start + 20))

        threads = [threading.Thread(target=work, args=(20 * number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            await asyncio.to_thread(thread.join)
    assert sorted(answers) == list(range(160))


async def test_after_a_lost_connection_nothing_is_sent_until_the_server_answers(
    tmp_path: Path, token: str, until: Until
) -> None:
    seen: list[str] = []
    open_connections: set[asyncio.StreamWriter] = set()
    is_dying = True

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # The kernel accepts connections for a process that is being killed, and resets them at its end.
        open_connections.add(writer)
        with suppress(asyncio.IncompleteReadError):
            while head := (await reader.readuntil(b"\r\n\r\n")).decode().lower():
                method = head.split()[0]
                seen.append(method)
                length = int(head.partition("content-length: ")[2].split()[0]) if method == "post" else 0
                await reader.readexactly(length)
                if is_dying:
                    break
                body = b'{"success": true, "result": 7, "task_type": "echo"}'
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n")
                writer.write(b"Content-Length: %d\r\n\r\n%s" % (len(body), body))
        writer.close()
        await writer.wait_closed()
        open_connections.discard(writer)

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        (tmp_path / "token").write_text(token)
        port = server.sockets[0].getsockname()[1]
        settings = Settings(http_port=port, auth_enabled=True, token_path=tmp_path / "token")
        async with AsyncClient(settings, transport="http") as client:
            lost = await client.submit(echo(0))
            later = asyncio.ensure_future(client.submit(echo(1), timeout_s=30))
            await until(lambda: seen.count("get") >= 3)
            assert seen.count("post") == 1, "the second task was not risked"
            is_dying = False
            answer = await later
        await until(lambda: not open_connections)

    assert (lost["success"], lost["executed"]) == (False, "unknown")
    assert (answer["success"], answer["result"]) == (True, 7)
