"""Test TLS with a private certificate authority: trusted and untrusted servers, and the renewal of a certificate."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest
import trustme

from seedcore.coordinator.http import HttpServer
from seedcore.coordinator.http.tls import Certificate
from seedcore.core.errors import ConfigError
from seedcore.status.http_client import CannotAskError, Response, request

if TYPE_CHECKING:
    from tests.unit.coordinator.http.conftest import Until

    Start = Callable[..., Awaitable[HttpServer]]


class Files:
    """A certificate authority, and the files of its certificates."""

    def __init__(self, directory: Path) -> None:
        self.authority = trustme.CA()
        self.certificate, self.key = directory / "server.pem", directory / "server.key"
        self.issue()

    def issue(self, name: str = "coordinator.example") -> None:
        issued = self.authority.issue_cert(name)
        chain = b"".join(blob.bytes() for blob in issued.cert_chain_pems) + self.authority.cert_pem.bytes()
        self.certificate.write_bytes(chain)
        self.key.write_bytes(issued.private_key_pem.bytes())

    def server(self) -> Certificate:
        return Certificate(self.certificate, self.key)


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


async def ask(server: HttpServer, certificate: Path | None) -> Response:
    url = f"https://127.0.0.1:{server.port}/livez"
    return await asyncio.to_thread(request, url, certificate=certificate, timeout_s=20)


async def test_who_has_the_certificate_believes_it_at_any_address(start: Start, files: Files) -> None:
    server = await start(certificate=files.server())

    assert (await ask(server, files.certificate)).status == 200


async def test_who_has_the_authority_believes_it_by_its_name(start: Start, files: Files) -> None:
    server = await start(certificate=files.server())
    context = ssl.create_default_context()
    files.authority.configure_trust(context)

    async with httpx.AsyncClient(verify=context, timeout=20) as client:
        url = f"https://127.0.0.1:{server.port}/livez"
        answer = await client.get(url, extensions={"sni_hostname": "coordinator.example"})
        assert answer.status_code == 200
    async with httpx.AsyncClient(verify=context, timeout=20) as client:
        with pytest.raises(httpx.ConnectError, match="certificate is not valid for"):
            await client.get(url)


async def test_another_certificate_is_not_believed_not_even_of_the_same_authority(
    start: Start, files: Files, tmp_path: Path
) -> None:
    server = await start(certificate=files.server())
    other = Files(tmp_path)
    other.authority, other.certificate, other.key = files.authority, tmp_path / "other.pem", tmp_path / "other.key"
    other.issue()

    for believed in (other.certificate, None):
        # The client is at fault: a supervisor that took this for a hang would kill a healthy Coordinator.
        with pytest.raises(CannotAskError, match="is not trusted: certificate verify failed") as caught:
            await ask(server, believed)
        assert caught.value.untrusted


async def test_plain_http_gets_no_answer(start: Start, files: Files) -> None:
    server = await start(certificate=files.server())

    with pytest.raises(OSError, match=r"."):
        await asyncio.to_thread(request, f"http://127.0.0.1:{server.port}/livez")


async def test_old_versions_are_refused(start: Start, files: Files) -> None:
    server = await start(certificate=files.server())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        context.maximum_version = ssl.TLSVersion.TLSv1_1

    with pytest.raises((ssl.SSLError, ConnectionError)):
        await asyncio.open_connection("127.0.0.1", server.port, ssl=context)


async def test_a_client_that_does_not_shake_hands_is_let_go(start: Start, files: Files) -> None:
    server = await start(certificate=files.server(), header_timeout_s=0.2)
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    async with asyncio.timeout(30):
        await reader.read(-1)
    writer.close()

    assert (await ask(server, files.certificate)).status == 200


async def test_a_renewed_certificate_is_taken_without_a_restart(
    start: Start, files: Files, until: Until, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("seedcore.coordinator.http.server.RENEW_INTERVAL_S", 0.05)
    server = await start(certificate=files.server())
    old = files.certificate.read_bytes()

    tries: list[None] = []
    renew = Certificate.renew

    def count(self: Certificate) -> bool:
        tries.append(None)
        return renew(self)

    monkeypatch.setattr(Certificate, "renew", count)
    files.key.write_text("not a key")
    await until(lambda: "cannot be renewed" in caplog.text)
    seen = len(tries)
    await until(lambda: len(tries) > seen + 3)
    assert caplog.text.count("cannot be renewed") == 1
    assert (await ask(server, files.certificate)).status == 200
    files.issue("renewed.example")

    async def renewed() -> bool:
        try:
            return (await ask(server, files.certificate)).status == 200
        except OSError:
            return False

    async with asyncio.timeout(60):
        while not await renewed():  # noqa: ASYNC110 - nobody announces it
            await asyncio.sleep(0.05)
    assert files.certificate.read_bytes() != old


@pytest.mark.parametrize("spoil", ["missing", "no certificate", "key of another"])
async def test_what_is_no_certificate_is_named_before_anything_listens(
    start: Start, files: Files, tmp_path: Path, spoil: str
) -> None:
    if spoil == "missing":
        files.certificate.unlink()
    elif spoil == "no certificate":
        files.certificate.write_text("hello")
    else:
        files.key.write_bytes(trustme.CA().issue_cert("a.example").private_key_pem.bytes())

    with pytest.raises(ConfigError, match="expected a certificate and its key without a password") as caught:
        await start(certificate=files.server())
    assert str(files.certificate) in str(caught.value)


async def test_a_file_without_a_certificate_is_named_by_who_asks(tmp_path: Path) -> None:
    empty = tmp_path / "empty.pem"
    empty.write_text("")

    for path, word in ((empty, "the file contains no certificate"), (tmp_path / "none.pem", "No such file")):
        with pytest.raises(OSError, match=word):
            await asyncio.to_thread(request, "https://127.0.0.1:1/", certificate=path)
