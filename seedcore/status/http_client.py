"""A small JSON client over HTTP from the standard library, for Ray's dashboard and the Coordinator; quick to import.

It ignores proxies in the environment, because both servers are in the cluster's own network.
"""

from __future__ import annotations

import contextlib
import errno
import http.client
import json
import os
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, urlsplit

from seedcore.core.errors import ClusterError
from seedcore.core.held_socket import Address, is_abandoned
from seedcore.core.reason import Reason

if TYPE_CHECKING:
    import ssl
    from pathlib import Path

    from seedcore.core.settings import Settings

MAX_BODY_BYTES = 64 * 1024 * 1024
_CHUNK = 256 * 1024


@dataclass(frozen=True, slots=True)
class Response:
    """Status code and parsed body; ``body`` is None if it is not JSON."""

    status: int
    body: Any


class NotSentError(ConnectionError):
    """There was no connection, so nothing of the request was sent."""


class NotSentInTimeError(NotSentError, TimeoutError):
    """There was no connection in time."""


class CannotAskError(NotSentError):
    """This host cannot send the request: a local file cannot be read, or the server's certificate is not trusted.

    ``untrusted`` tells that it is the second case.
    """

    def __init__(self, message: str, *, untrusted: bool = False) -> None:
        super().__init__(message)
        self.untrusted = untrusted


def request(
    url: str,
    *,
    method: str = "GET",
    token: str | None = None,
    body: Any = None,
    timeout_s: float = 3.0,
    certificate: Path | None = None,
) -> Response:
    """Send one request and read the whole answer within ``timeout_s`` seconds.

    Args:
        url: The URL; https trusts only ``certificate`` if it is given, else the system's authorities.
        method: HTTP method.
        token: Sent as a bearer token.
        body: Sent as JSON.
        timeout_s: Time limit for everything, in seconds.
        certificate: PEM file; the server must have its first certificate.

    Raises:
        NotSentError: There was no connection in time, so nothing was sent.
        OSError: There was no complete answer in time (``TimeoutError``), or it was not HTTP.
    """
    deadline = time.monotonic() + timeout_s
    parts = urlsplit(url)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    headers = {"Accept": "application/json"}
    if token is not None:
        headers["Authorization"] = f"Bearer {token}"
    payload = None
    if body is not None:
        payload = json.dumps(body).encode()
        headers["Content-Type"] = "application/json"
    connection = _connected(parts, certificate, timeout_s)
    try:
        connection.request(method, target, body=payload, headers=headers)
        # A response that ends with its connection owns the socket: closing the connection would leave it open.
        with connection.getresponse() as response:
            data = _read(response, connection, deadline)
    except http.client.HTTPException as error:
        raise ConnectionError(f"not an HTTP answer: {error!r}") from error
    finally:
        connection.close()
    try:
        return Response(response.status, json.loads(data))
    except (ValueError, RecursionError):
        return Response(response.status, None)


def ask_coordinator(
    settings: Settings, path: str, *, method: str = "GET", body: Any = None, timeout_s: float
) -> Response:
    """Send one request to the Coordinator; see :func:`request`.

    Raises:
        ConfigError: The token cannot be read.
    """
    if method == "GET" and is_abandoned(settings.state_dir, Address(settings.http_host, settings.http_port)):
        # The connection would wait for the next Coordinator; a question about the present one needs its answer now.
        raise NotSentError(errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED))
    return request(
        settings.http_url + path,
        method=method,
        token=settings.token(),
        body=body,
        timeout_s=timeout_s,
        certificate=settings.http_tls_cert,
    )


def coordinator_status(settings: Settings, *, timeout_s: float) -> dict[str, Any]:
    """Return the body of ``GET /coordinator/status``, even while the Coordinator starts.

    Raises:
        OSError: The Coordinator does not answer in time.
        ClusterError: The Coordinator rejects this caller, or another program listens there.
    """
    response = ask_coordinator(settings, "/coordinator/status", timeout_s=timeout_s)
    check_refusal(f"the Coordinator at {settings.http_url}", response.status)
    if not isinstance(response.body, Mapping) or "status" not in response.body:
        raise stranger(settings.http_url, response.status, response.body)
    return dict(response.body)


def check_refusal(who: str, status: int) -> None:
    """Raise if a server rejects this caller; ``who`` is the server, for the message.

    Raises:
        ClusterError: ``unauthorized``.
    """
    refusal = {401: "requires a token", 403: "rejects this token"}.get(status)
    if refusal is not None:
        raise ClusterError(Reason.UNAUTHORIZED, f"{who} {refusal} (HTTP {status})")


def stranger(url: str, status: int, body: Any) -> ClusterError:
    """Return the error for an answer that does not come from a Coordinator."""
    said = body if isinstance(body, Mapping) else {}
    detail = said.get("message") or said.get("error") or said.get("detail")
    text = f"{url} answers HTTP {status}" + (f": {detail}" if detail else "")
    return ClusterError(Reason.NOT_RESPONDING, f"{text}, which is not the answer of a Coordinator")


def why(error: Exception) -> str:
    """Return in a few words why there is no answer."""
    told = error.strerror if isinstance(error, OSError) else None
    return "no answer in time" if isinstance(error, TimeoutError) else told or str(error)


def _connected(parts: SplitResult, certificate: Path | None, timeout_s: float) -> http.client.HTTPConnection:
    host, port = parts.hostname or "", parts.port
    connection: http.client.HTTPConnection
    if parts.scheme == "https":
        context = tls_context(certificate)
        connection = http.client.HTTPSConnection(host, port, timeout=timeout_s, context=context)
    else:
        connection = http.client.HTTPConnection(host, port, timeout=timeout_s)
    try:
        connection.connect()
    except TimeoutError as error:
        raise NotSentInTimeError("no connection in time") from error
    except OSError as error:
        # Only ssl's SSLCertVerificationError has it, and ssl takes its time to import.
        if (detail := getattr(error, "verify_message", None)) is not None:
            text = f"the certificate of {parts.netloc} is not trusted: certificate verify failed: {detail}"
            raise CannotAskError(text, untrusted=True) from error
        raise NotSentError(error.errno, error.strerror or str(error)) from error
    # Without this, the second half of a small request waits for an acknowledgement.
    with contextlib.suppress(OSError):
        connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def tls_context(certificate: Path | None) -> ssl.SSLContext:
    """Trust only the first certificate of the file, whatever name it is for; without a file, the system's authorities.

    The certificate identifies the server, so the server may listen at any address, and other certificates of the same
    authority are not accepted.
    """
    import ssl  # noqa: PLC0415 - takes its time, and most clusters speak plain HTTP to themselves

    if certificate is None:
        return ssl.create_default_context()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    end = "-----END CERTIFICATE-----"
    try:
        first, found, _ = certificate.read_text(encoding="ascii").partition(end)
        context.load_verify_locations(cadata=first[max(0, first.find("-----BEGIN CERTIFICATE-----")) :] + found)
    except (OSError, ValueError, ssl.SSLError) as error:
        detail = error.strerror if isinstance(error, OSError) and error.strerror else "the file contains no certificate"
        raise CannotAskError(f"cannot read the certificate {certificate}: {detail}") from error
    return context


def _read(response: http.client.HTTPResponse, connection: http.client.HTTPConnection, deadline: float) -> bytes:
    """Read to the end; the deadline covers all chunks, whereas a socket's timeout restarts with each chunk."""
    chunks: list[bytes] = []
    size = 0
    while True:
        remaining = deadline - time.monotonic()
        if remaining <= 0:
            raise TimeoutError("the answer did not end in time")
        if connection.sock is not None:
            connection.sock.settimeout(remaining)
        chunk = response.read1(_CHUNK)
        if not chunk:
            return b"".join(chunks)
        size += len(chunk)
        if size > MAX_BODY_BYTES:
            raise ConnectionError(f"the answer is larger than {MAX_BODY_BYTES} bytes")
        chunks.append(chunk)
