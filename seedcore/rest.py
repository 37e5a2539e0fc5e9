"""JSON over HTTP with the standard library: enough to ask Ray's dashboard and the Coordinator, and quick to import.

Proxies of the environment are not used: both are on the cluster's own network.
"""

from __future__ import annotations

import http.client
import json
import time
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

MAX_BODY_BYTES = 64 * 1024 * 1024
_CHUNK = 256 * 1024


@dataclass(frozen=True, slots=True)
class Response:
    """Status code and parsed body; ``body`` is None where it is not JSON."""

    status: int
    body: Any


def request(
    url: str, *, method: str = "GET", token: str | None = None, body: Any = None, timeout_s: float = 3.0
) -> Response:
    """Send one request and read the whole answer within ``timeout_s`` seconds.

    Raises:
        OSError: No connection, or no (whole) answer in time (``TimeoutError``), or not HTTP.
    """
    deadline = time.monotonic() + timeout_s
    parts = urlsplit(url)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.hostname or "", parts.port, timeout=timeout_s)
    headers = {"Accept": "application/json"}
    if token is not None:
        headers["Authorization"] = f"Bearer {token}"
    payload = None
    if body is not None:
        payload = json.dumps(body).encode()
        headers["Content-Type"] = "application/json"
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    try:
        connection.request(method, target, body=payload, headers=headers)
        response = connection.getresponse()
        data = _read(response, connection, deadline)
    except http.client.HTTPException as error:
        raise ConnectionError(f"not an HTTP answer: {error!r}") from error
    finally:
        connection.close()
    try:
        return Response(response.status, json.loads(data))
    except (ValueError, RecursionError):
        return Response(response.status, None)


def _read(response: http.client.HTTPResponse, connection: http.client.HTTPConnection, deadline: float) -> bytes:
    """Read to the end; the deadline holds over all chunks, where a socket's own timeout starts anew with each."""
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
