"""Test the listening socket that the supervisor holds: real sockets, real processes, and the Coordinator's server."""

from __future__ import annotations

import asyncio
import http.client
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
import trustme
from starlette.types import Receive, Scope, Send

from seedcore.coordinator.http import HttpServer
from seedcore.coordinator.http.tls import Certificate
from seedcore.core import held_socket
from seedcore.core.held_socket import Address, is_abandoned, keep, listen, take
from seedcore.deployment.socket_holder import Hold, SocketHolder, keep_for_successor
from seedcore.status.http_client import NotSentError, ask_coordinator, request
from seedcore.status.probing import probe
from tests.support.fake_cluster import FakeCluster
from tests.support.ports import free_ports
from tests.support.waiting import eventually

HOST = "127.0.0.1"
# Takes the socket, says so, and accepts nothing until it is killed.
TAKER = """
import sys, time
from pathlib import Path
from seedcore.core.held_socket import Address, take
taken = take(Path(sys.argv[1]), Address("127.0.0.1", int(sys.argv[2])))
print("taken" if taken else "nothing", flush=True)
time.sleep(600)
"""


async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
    """Answer every request with 200."""
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


class Site:
    """A state directory and an address, with a supervisor's holder that can be started again."""

    def __init__(self, directory: Path) -> None:
        (port,) = free_ports(1)
        self.directory = directory
        self.address = Address(HOST, port)
        self.wanted = True
        self._holder: SocketHolder | None = None

    def start(self, *, hold_s: float = 600.0, address: Address | None = None) -> SocketHolder:
        self.stop()
        asked = address or self.address
        holder = SocketHolder(self.directory, asked, is_wanted=lambda: self.wanted, hold=Hold(hold_s))
        self._holder = holder.__enter__()
        return holder

    def stop(self) -> None:
        if self._holder is not None:
            self._holder.__exit__(None, None, None)
            self._holder = None

    def connects(self) -> bool:
        try:
            socket.create_connection((self.address.host, self.address.port), timeout=10).close()
        except ConnectionRefusedError:
            return False
        return True

    def can_take(self) -> bool:
        for one in (taken := take(self.directory, self.address)) or ():
            one.close()
        return taken is not None

    def is_abandoned(self) -> bool:
        return is_abandoned(self.directory, self.address, timeout_s=10)

    def server(self) -> HttpServer:
        return HttpServer(app, self.address.host, self.address.port, state_dir=self.directory)

    async def get(self) -> httpx.Response:
        async with httpx.AsyncClient(timeout=60) as client:
            return await client.get(f"http://{HOST}:{self.address.port}/")


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path)
    yield made
    made.stop()


@pytest.fixture
def taker(site: Site) -> Iterator[Callable[[], subprocess.Popen[str]]]:
    started: list[subprocess.Popen[str]] = []

    def start() -> subprocess.Popen[str]:
        command = [sys.executable, "-c", TAKER, str(site.directory), str(site.address.port)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "taken\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_it_is_held_while_a_process_accepts_and_then_for_some_time() -> None:
    hold = Hold(30.0)
    hold.opened(100.0)
    assert not hold.is_over(129.9, wanted=True)
    assert hold.is_over(130.0, wanted=True)

    hold.taken("a")
    hold.taken("b")
    assert (hold.accepting, hold.is_over(10_000.0, wanted=False)) == (2, False)

    hold.left("a", 10_000.0)
    hold.left("stranger", 20_000.0)
    assert not hold.is_over(20_000.0, wanted=True)
    hold.left("b", 20_000.0)
    assert not hold.is_over(20_029.9, wanted=True)
    assert hold.is_over(20_030.0, wanted=True)
    assert hold.is_over(20_000.0, wanted=False), "nobody wants a Coordinator"


def test_nothing_listens_before_the_first_coordinator(site: Site) -> None:
    site.start()

    assert not site.connects()
    assert not site.is_abandoned()


def test_only_its_user_can_ask(site: Site) -> None:
    site.start()

    mode = (site.directory / held_socket.FILE_NAME).stat().st_mode
    assert (stat.S_ISSOCK(mode), stat.S_IMODE(mode)) == (True, 0o600)


async def test_a_connection_that_arrives_between_two_coordinators_waits_for_the_next_one(
    site: Site, taker: Callable[[], subprocess.Popen[str]]
) -> None:
    site.start()
    first = taker()
    assert not site.is_abandoned()

    first.send_signal(signal.SIGKILL)
    first.wait()
    eventually(site.is_abandoned, what="the holder sees that its process is dead")
    waiting = asyncio.create_task(site.get())
    await asyncio.sleep(0.2)
    assert not waiting.done()
    second = site.server()
    await second.start()

    assert (await asyncio.wait_for(waiting, 60)).status_code == 200
    assert not site.is_abandoned()
    await second.stop()
    eventually(site.is_abandoned, what="the holder sees that its process accepts no more")
    assert site.connects(), "it is still held"


@pytest.mark.parametrize("wanted", [True, False])
def test_connections_are_refused_when_no_coordinator_comes_or_none_is_wanted(site: Site, *, wanted: bool) -> None:
    site.start(hold_s=0.0 if wanted else 600.0)
    taken = take(site.directory, site.address)
    assert taken is not None
    listener, link = taken
    assert site.connects()

    site.wanted = wanted
    listener.close()
    link.close()

    eventually(lambda: not site.connects(), what="it is closed")
    assert not site.is_abandoned()
    assert site.can_take(), "the next Coordinator has it opened again"


@pytest.mark.parametrize("reboots", [False, True])
async def test_a_request_that_has_waited_in_vain_is_told_that_it_was_not_executed(site: Site, *, reboots: bool) -> None:
    site.start()
    taken = take(site.directory, site.address)
    assert taken is not None
    waiting = asyncio.create_task(site.get())
    await asyncio.sleep(0.2)

    site.wanted = reboots
    for one in taken:
        one.close()
    if reboots:
        await _until(site.is_abandoned)
        await asyncio.to_thread(site.stop)
    answer = await asyncio.wait_for(waiting, 60)

    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
    assert answer.json().items() >= {"success": False, "error": "there is no Coordinator", "executed": "no"}.items()


async def test_a_supervisor_that_is_started_again_gets_the_socket_from_the_coordinator(site: Site) -> None:
    site.start()
    server = site.server()
    await server.start()

    site.stop()
    assert (await site.get()).status_code == 200, "the Coordinator does not need the supervisor"
    assert not site.is_abandoned()
    site.start()
    await _until(lambda: server.is_held)
    assert (await site.get()).status_code == 200
    await server.stop()

    assert site.connects(), "the supervisor has a copy again"
    eventually(site.is_abandoned)


async def test_a_coordinator_that_has_bound_for_itself_shares_its_socket_with_a_later_supervisor(site: Site) -> None:
    server = site.server()
    await server.start()
    assert not server.is_held

    site.start()
    await _until(lambda: server.is_held)
    await server.stop()

    assert site.connects()


async def test_a_coordinator_of_other_settings_is_left_alone(site: Site) -> None:
    (other,) = free_ports(1)
    site.start(address=Address(HOST, other))
    server = site.server()
    await server.start()
    assert (await site.get()).status_code == 200

    with listen(HOST, 0) as strange:
        assert keep(site.directory, site.address, strange) is None
        assert keep(site.directory, Address(HOST, other), strange) is None, "it listens at another port"
    await server.stop()
    assert not site.connects()


@pytest.mark.parametrize("keep_alive", [False, True])
async def test_no_request_fails_while_one_coordinator_follows_another(site: Site, *, keep_alive: bool) -> None:
    site.start()
    first, second = site.server(), site.server()
    await first.start()
    codes: list[int] = []

    async def ask() -> None:
        headers = {} if keep_alive else {"Connection": "close"}
        async with httpx.AsyncClient(timeout=60, headers=headers) as client:
            while not done.is_set():
                codes.append((await client.get(f"http://{HOST}:{site.address.port}/")).status_code)
                await asyncio.sleep(0.01)

    done = asyncio.Event()
    asking = [asyncio.create_task(ask()) for _ in range(4)]
    await _until(lambda: len(codes) > 20)
    await first.pause(resume_after_s=600.0, last_requests_s=0.3)
    assert site.is_abandoned()
    await first.stop()
    await asyncio.sleep(0.1)
    answered = len(codes)
    await asyncio.sleep(0.2)
    assert len(codes) == answered, "they wait"
    await second.start()
    await _until(lambda: len(codes) > answered + 20)
    done.set()
    await asyncio.gather(*asking)

    assert set(codes) == {200}
    await second.stop()


async def test_a_client_that_sends_its_first_request_late_is_answered_before_a_planned_end(site: Site) -> None:
    site.start()
    server = site.server()
    await server.start()
    reader, writer = await asyncio.open_connection(HOST, site.address.port)
    pausing = asyncio.create_task(server.pause(resume_after_s=600.0, last_requests_s=0.1))
    await asyncio.sleep(0.8)  # as a client on a busy machine

    writer.write(b"GET / HTTP/1.1\r\nHost: coordinator.example\r\n\r\n")

    assert b" 200 " in await reader.readline()
    writer.close()
    await pausing
    await server.stop()


async def test_a_handshake_waits_for_the_next_coordinator_too(site: Site) -> None:
    issued = trustme.CA().issue_cert("coordinator.example")
    pem, key = site.directory / "server.pem", site.directory / "server.key"
    pem.write_bytes(issued.cert_chain_pems[0].bytes())
    key.write_bytes(issued.private_key_pem.bytes())
    site.start()
    assert site.can_take()
    eventually(site.is_abandoned)
    waiting = asyncio.create_task(
        asyncio.to_thread(request, f"https://{HOST}:{site.address.port}/", certificate=pem, timeout_s=60)
    )
    await asyncio.sleep(0.2)
    server = HttpServer(app, HOST, site.address.port, state_dir=site.directory, certificate=Certificate(pem, key))
    await server.start()

    assert (await waiting).status == 200
    await server.stop()


async def test_a_client_is_told_to_open_another_connection_before_its_own_is_closed(site: Site) -> None:
    site.start()
    server = site.server()
    await server.start()
    async with httpx.AsyncClient(timeout=60) as client:
        before = await client.get(f"http://{HOST}:{site.address.port}/")
        pausing = asyncio.create_task(server.pause(resume_after_s=600.0, last_requests_s=60.0))
        await asyncio.sleep(0)
        last = await client.get(f"http://{HOST}:{site.address.port}/")
        await pausing

    assert ("connection" in before.headers, last.headers["connection"]) == (False, "close")
    await server.stop()


async def test_a_server_that_was_not_replaced_goes_on(site: Site) -> None:
    site.start()
    server = site.server()
    await server.start()
    await server.pause(resume_after_s=0.5, last_requests_s=0.0)

    answer = await site.get()

    await _until(lambda: server.is_held)
    assert (answer.status_code, "connection" in answer.headers, server.is_held) == (200, False, True)
    await server.stop()


def test_a_copy_outlives_the_change_to_the_next_release_of_the_supervisor(site: Site) -> None:
    holder = site.start()
    taken = take(site.directory, site.address)
    assert taken is not None
    for one in taken:
        one.close()

    holder.pass_on()
    site.stop()
    assert site.connects(), "a process keeps the socket"
    site.start()

    eventually(site.is_abandoned, what="the next supervisor has it")
    assert site.connects()


def test_a_copy_that_no_supervisor_takes_is_closed(site: Site) -> None:
    listener = listen(HOST, site.address.port)

    began = time.monotonic()
    assert not keep_for_successor(listener, site.directory, site.address, keep_s=0.3)

    assert time.monotonic() - began < 30
    listener.close()
    assert not site.connects()


def test_a_busy_port_is_not_offered(site: Site) -> None:
    site.start()
    with socket.create_server((HOST, site.address.port)):
        assert not site.can_take()
    assert not site.connects()


@pytest.mark.parametrize(
    "noise", [b"", b"\0", b"[]", b'{"protocol": 2}', b'{"protocol": 1, "order": "keep"}', b"x" * 10_000]
)
def test_noise_changes_nothing(site: Site, noise: bytes) -> None:
    site.start()
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
        connection.connect(str(site.directory / held_socket.FILE_NAME))
        connection.send(noise)

    assert site.can_take()


def test_a_long_path_is_no_obstacle(tmp_path: Path) -> None:
    directory = tmp_path / ("long" * 40)
    directory.mkdir()
    site = Site(directory)
    site.start()

    assert site.can_take()
    site.stop()


def test_a_directory_that_is_not_there_only_means_that_nobody_holds_the_socket(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    site = Site(tmp_path / "nowhere")

    assert not site.can_take()
    site.start()

    assert "cannot hold the Coordinator's socket" in caplog.text
    site.stop()


@pytest.mark.parametrize(
    ("state", "reason", "silence"), [("RESTARTING", "restarting", None), ("ALIVE", "not_responding", "nobody_listens")]
)
def test_a_socket_without_a_coordinator_is_no_coordinator_that_hangs(
    site: Site, cluster: FakeCluster, state: str, reason: str, silence: str | None
) -> None:
    site.start()
    taken = take(site.directory, site.address)
    assert taken is not None
    assert cluster.coordinator is not None
    cluster.coordinator |= {"state": state}
    settings = replace(cluster.settings, http_port=site.address.port, state_dir=site.directory)

    hangs = probe(settings, timeout_s=0.5)
    for one in taken:
        one.close()
    eventually(site.is_abandoned)
    began = time.monotonic()
    report = probe(settings, timeout_s=60)

    assert time.monotonic() - began < 30, "it does not wait for an answer"
    assert (report.reason, report.evidence.get("silence")) == (reason, silence)
    if state == "ALIVE":
        assert hangs.evidence.get("silence") == "no_answer", "a process has the socket and does not answer"
    with pytest.raises(NotSentError, match="Connection refused"):
        ask_coordinator(settings, "/coordinator/status", timeout_s=60)


def test_a_process_that_has_the_socket_and_stops_still_counts(
    site: Site, taker: Callable[[], subprocess.Popen[str]]
) -> None:
    site.start()
    process = taker()

    os.kill(process.pid, signal.SIGSTOP)

    assert not site.is_abandoned()
    connection = http.client.HTTPConnection(site.address.host, site.address.port, timeout=0.3)
    connection.request("GET", "/livez")
    with pytest.raises(TimeoutError):
        connection.getresponse()
    connection.close()


async def _until(check: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not check():  # noqa: ASYNC110
            await asyncio.sleep(0.02)
