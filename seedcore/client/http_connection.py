"""HTTP on an event loop: one request at a time on one connection, with a streamed answer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit

import h11

from seedcore.status.http_client import NotSentError, NotSentInTimeError, tls_context

CONNECT_TIMEOUT_S = 10.0
# A Coordinator sends a keep-alive every few seconds while it works on a request, see ``http/lines.py``.
SILENCE_S = 20.0
# A server closes an idle connection after a while and loses a request sent at that moment; close it earlier.
MAX_IDLE_S = 5.0
# Larger than any answer of a Coordinator.
MAX_ANSWER_BYTES = 160 * 1024 * 1024
_CHUNK = 256 * 1024


class Wire:
    """A connection to one server, created by :meth:`open`."""

    def __init__(self, host: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._host = host
        self._reader = reader
        self._writer = writer
        self._h11 = h11.Connection(h11.CLIENT)
        self._used = time.monotonic()
        self.retry_after: str | None = None
        self.content_type = ""

    @classmethod
    async def open(cls, url: str, *, certificate: Path | None) -> Wire:
        """Connect to the server of ``url``.

        Raises:
            NotSentError: No connection, or not in time.
        """
        parts = urlsplit(url)
        host = parts.hostname or ""
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                context = await asyncio.to_thread(tls_context, certificate) if parts.scheme == "https" else None
                streams = await asyncio.open_connection(host, parts.port, ssl=context)
        except TimeoutError as error:
            raise NotSentInTimeError("no connection in time") from error
        except OSError as error:
            raise NotSentError(error.errno, error.strerror or str(error)) from error
        return cls(parts.netloc, *streams)

    @property
    def is_usable(self) -> bool:
        """Return whether it can be used for another request: the server has not closed it and is not about to."""
        idle_s = time.monotonic() - self._used
        return self._h11.our_state is h11.IDLE and not self._reader.at_eof() and idle_s < MAX_IDLE_S

    async def post(self, path: str, body: bytes, *, token: str | None, accept: str) -> int:
        """Send a request with a JSON body; set ``content_type`` and ``retry_after`` and return the status code.

        Raises:
            OSError: The connection broke, or nothing arrived for too long.
        """
        headers = [("Accept", accept), ("Content-Type", "application/json"), ("Content-Length", str(len(body)))]
        if token is not None:
            headers.append(("Authorization", f"Bearer {token}"))
        return await self._send("POST", path, headers, body)

    async def check(self, path: str) -> None:
        """Request something that changes nothing; any answer shows that the server lives.

        Raises:
            NotSentError: There is no answer, so nothing else should be sent.
        """
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                await self._send("GET", path, [], b"")
                await self.whole()
            if not self.is_usable:
                raise ConnectionError("the server closes its connections")
        except TimeoutError as error:
            raise NotSentInTimeError("the server does not answer") from error
        except OSError as error:
            raise NotSentError(error.errno, error.strerror or str(error)) from error

    async def _send(self, method: str, path: str, headers: list[tuple[str, str]], body: bytes) -> int:
        request = h11.Request(method=method, target=path, headers=[("Host", self._host), *headers])
        parts = [self._h11.send(event) for event in (request, h11.Data(data=body), h11.EndOfMessage())]
        self._writer.write(b"".join(part for part in parts if part))
        while True:
            event = await self._next()
            if isinstance(event, h11.Response):
                break
            if not isinstance(event, h11.InformationalResponse):
                raise ConnectionError("the server closed the connection without an answer")
        found = {name.decode("ascii"): value.decode("latin-1") for name, value in event.headers}
        self.content_type = found.get("content-type", "").partition(";")[0].strip().lower()
        self.retry_after = found.get("retry-after")
        return int(event.status_code)

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield the body as it arrives.

        Raises:
            OSError: The body is incomplete.
        """
        while isinstance(event := await self._next(), h11.Data):
            yield bytes(event.data)
        if not isinstance(event, h11.EndOfMessage):
            raise ConnectionError("the answer ended early")
        if self._h11.our_state is h11.DONE and self._h11.their_state is h11.DONE:
            self._h11.start_next_cycle()
        self._used = time.monotonic()

    async def whole(self) -> bytes:
        """Return the body; raise the same errors as :meth:`lines`."""
        body = bytearray()
        async for chunk in self.chunks():
            _check_size(body)
            body += chunk
        return bytes(body)

    async def lines(self) -> AsyncIterator[bytes]:
        """Yield the lines of the body as they arrive, except empty ones.

        Raises:
            OSError: The body is incomplete, or a line is larger than any that a Coordinator sends.
        """
        rest = bytearray()
        async for chunk in self.chunks():
            _check_size(rest)
            rest += chunk
            if b"\n" in chunk:
                *whole, last = bytes(rest).split(b"\n")
                rest = bytearray(last)
                for line in whole:
                    if line.strip():
                        yield line

    def close(self) -> None:
        """Close the connection."""
        self._writer.close()

    async def _next(self) -> type[h11.NEED_DATA | h11.PAUSED] | h11.Event:
        try:
            while (event := self._h11.next_event()) is h11.NEED_DATA:
                async with asyncio.timeout(SILENCE_S):
                    # The request may be larger than the socket buffers; it is sent during this wait.
                    self._h11.receive_data(await self._reader.read(_CHUNK))
        except h11.RemoteProtocolError as error:
            raise ConnectionError(f"not an HTTP answer: {error}") from error
        except TimeoutError:
            raise TimeoutError(f"no sign of life for {SILENCE_S:g} s") from None
        return event


def _check_size(body: bytearray) -> None:
    if len(body) > MAX_ANSWER_BYTES:
        raise ConnectionError(f"the answer is larger than {MAX_ANSWER_BYTES} bytes")
