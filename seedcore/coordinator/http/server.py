"""uvicorn on the running event loop, with limits that uvicorn does not have.

The Coordinator's loop runs in a thread of Ray's worker process, so this module installs no signal handlers and creates
no loop. uvicorn provides (0.54): at most 16 KiB of header, a keep-alive timeout between requests, 503 above a number of
connections, and paused reading at 64 KiB of unread data. This module adds:

- a deadline for the header of a request: a silent client, or one that sends a byte a minute, would stay for ever;
- the same deadline for a TLS handshake;
- a deadline for an answer that nobody reads;
- a place for a new connection when idle ones have used up the limit, so that monitoring always gets through.

The deadline for a body is the application's (``body.py``).
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import resource
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from typing import Any

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from seedcore.coordinator.http.tls import Certificate
from seedcore.core.errors import ConfigError, SeedCoreError

logger = logging.getLogger(__name__)

MAX_CONNECTIONS = 4000
KEEP_ALIVE_S = 15
HEADER_TIMEOUT_S = 10.0
STALLED_S = 30.0
# Shorter than the time after which the supervisor gives up a Coordinator that does not show its new certificate.
RENEW_INTERVAL_S = 3.0
_BIND_RETRY_S = 0.1
_WORTH_RETRYING = frozenset({errno.EADDRINUSE, errno.EADDRNOTAVAIL})
_ABORT_S = 1.0
_READ_BYTES = 16 * 1024


class ListenError(SeedCoreError):
    """The HTTP server cannot listen; the message names host and port."""

    def __init__(self, host: str, port: int, detail: str) -> None:
        super().__init__(host, port, detail)
        self.host = host
        self.port = port
        self.detail = detail

    def __str__(self) -> str:
        return f"cannot listen on {self.host}:{self.port}: {self.detail}"


class HttpServer:
    """Serve an application on the running loop.

    Args:
        app: The application.
        host: Address to listen on.
        port: Port; 0 takes a free one, see :attr:`port`.
        grace_s: Seconds for requests to finish when the server stops.
        header_timeout_s: Time limit in seconds for the header of a request to arrive.
        stalled_s: Seconds without progress after which an answer that nobody reads is dropped.
        max_connections: Limit of connections; above it the oldest idle one is closed, or 503 is sent if all are busy.
            None means half of the process's open files limit, at most MAX_CONNECTIONS.
        certificate: Certificate for TLS; renewed files are loaded again.
    """

    def __init__(
        self,
        app: ASGIApp,
        host: str,
        port: int,
        *,
        grace_s: float = 3.0,
        header_timeout_s: float = HEADER_TIMEOUT_S,
        stalled_s: float = STALLED_S,
        max_connections: int | None = None,
        certificate: Certificate | None = None,
    ) -> None:
        self._certificate = certificate
        self._renewing: asyncio.Task[None] | None = None
        self.host = host
        self.port = port
        self._app = app
        self._grace_s = grace_s
        self._header_timeout_s = header_timeout_s
        self._stalled_s = stalled_s
        files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        self._max_connections = max_connections or min(MAX_CONNECTIONS, max(16, files // 2))
        self._server: _Server | None = None
        self._serving: asyncio.Task[None] | None = None
        self._stopping = False

    async def start(self, *, timeout_s: float = 15.0) -> None:
        """Listen; return when connections are accepted.

        Args:
            timeout_s: Seconds to wait for a busy port, because a predecessor may be exiting.

        Raises:
            ListenError: The address cannot be bound within the deadline.
            ConfigError: The files contain no certificate.
        """
        if self._serving is not None:
            raise RuntimeError("this server was started before")
        context = await asyncio.to_thread(self._certificate.context) if self._certificate else None
        listener = await self._bind(timeout_s)
        self.port = listener.getsockname()[1]
        config = _Config(
            self._app,
            header_timeout_s=self._header_timeout_s,
            stalled_s=self._stalled_s,
            max_connections=self._max_connections,
            ws="none",
            lifespan="off",
            loop="none",
            interface="asgi3",
            log_config=None,
            # X-Forwarded-For cannot be trusted, and nothing here depends on the client's address.
            proxy_headers=False,
            server_header=False,
            timeout_keep_alive=KEEP_ALIVE_S,
        )
        self._server = _Server(config, context)
        self._serving = asyncio.create_task(self._server.serve(sockets=[listener]), name="seedcore-http")
        listening = asyncio.create_task(self._server.listening.wait())
        await asyncio.wait({self._serving, listening}, return_when=asyncio.FIRST_COMPLETED)
        if not listening.done():
            listening.cancel()
            listener.close()
            cause = self._serving.exception()
            raise ListenError(self.host, self.port, f"the server ended at once: {cause}") from cause
        if self._certificate is not None:
            self._renewing = asyncio.create_task(self._keep_renewing(self._certificate))
        scheme = "https" if context else "http"
        logger.info("http server listens: address=%s:%d scheme=%s", self.host, self.port, scheme)

    async def stop(self) -> None:
        """Stop accepting, let requests finish within the grace, then end them; it can be called repeatedly."""
        if self._server is None or self._serving is None:
            return
        self._stopping = True
        if self._renewing is not None:
            self._renewing.cancel()
        self._server.should_exit = True
        await asyncio.wait({self._serving}, timeout=self._grace_s)
        state = self._server.server_state
        if not self._serving.done():
            for request in list(state.tasks):
                request.cancel()
            # A cancelled request still answers 503 (see Gate).
            await asyncio.wait({self._serving}, timeout=_ABORT_S)
        for connection in list(state.connections):
            connection.transport.abort()
        if not self._serving.done():
            await asyncio.wait({self._serving}, timeout=_ABORT_S)
        if not self._serving.done():
            self._serving.cancel()
            await asyncio.wait({self._serving})
        if not self._serving.cancelled() and (error := self._serving.exception()) is not None:
            logger.error("http server ended with an error: %s: %s", type(error).__name__, error)

    async def wait_failed(self) -> BaseException | None:
        """Wait until the server has ended.

        Returns:
            The error that ended it; None if it was stopped on purpose.
        """
        if self._serving is None:
            raise RuntimeError("the server was not started")
        await asyncio.wait({self._serving})
        if self._stopping:
            return None
        if self._serving.cancelled():
            return asyncio.CancelledError("the server's task was cancelled")
        return self._serving.exception() or ListenError(self.host, self.port, "the server ended by itself")

    async def _keep_renewing(self, certificate: Certificate) -> None:
        told = ""
        while True:
            await asyncio.sleep(RENEW_INTERVAL_S)
            try:
                if await asyncio.to_thread(certificate.renew):
                    logger.info("the certificate has been renewed: %s", certificate.certificate)
                told = ""
            except (ConfigError, OSError) as error:
                # Log each cause once: renewal is retried every few seconds.
                if str(error) != told:
                    told = str(error)
                    logger.warning("the certificate cannot be renewed, the old one stays: %s", error)

    async def _bind(self, timeout_s: float) -> socket.socket:
        deadline = time.monotonic() + timeout_s
        told = False
        while True:
            try:
                return await _listen(self.host, self.port)
            except OSError as error:
                if error.errno not in _WORTH_RETRYING or time.monotonic() >= deadline:
                    waited = f" (waited {timeout_s:g} s)" if error.errno in _WORTH_RETRYING else ""
                    detail = f"{error.strerror or error}{waited}"
                    raise ListenError(self.host, self.port, detail) from error
                if not told:
                    logger.warning("http port is busy, waiting: address=%s:%d: %s", self.host, self.port, error)
                    told = True
            await asyncio.sleep(min(_BIND_RETRY_S, max(0.0, deadline - time.monotonic())))


class _Config(uvicorn.Config):
    """uvicorn's configuration, with settings of our protocol; all connections share this object."""

    def __init__(
        self, app: ASGIApp, *, header_timeout_s: float, stalled_s: float, max_connections: int, **options: Any
    ) -> None:
        # uvicorn itself answers 503 when it has as many connections as the limit, the newest included.
        super().__init__(app, http=_Protocol, limit_concurrency=max_connections + 1, **options)
        self.header_timeout_s = header_timeout_s
        self.stalled_s = stalled_s
        self.max_connections = max_connections
        self.oldest_first: dict[_Protocol, None] = {}

    def configure_logging(self) -> None:
        """Do not touch the process's loggers: even without a log_config uvicorn would change some."""


class _Server(uvicorn.Server):
    def __init__(self, config: _Config, context: ssl.SSLContext | None) -> None:
        super().__init__(config)
        self.listening = asyncio.Event()
        self._own_config = config
        self._context = context

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen like uvicorn, but with a time limit for TLS handshakes."""
        config, context = self._own_config, self._context

        def protocol() -> asyncio.Protocol:
            return _Protocol(config=config, server_state=self.server_state, app_state=self.lifespan.state)

        limits = {"ssl_handshake_timeout": config.header_timeout_s, "ssl_shutdown_timeout": _ABORT_S} if context else {}
        create = asyncio.get_running_loop().create_server
        self.servers = [
            await create(protocol, sock=one, ssl=context, backlog=config.backlog, **limits)  # type: ignore[call-overload]
            for one in sockets or []
        ]
        self.started = True
        self.listening.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Install no signal handlers: they belong to the owner of the process."""
        yield


async def _listen(host: str, port: int) -> socket.socket:
    addresses = await asyncio.get_running_loop().getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )
    family, kind, protocol, _, address = addresses[0]
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        # With SO_REUSEADDR a busy port may only be detected here.
        listener.listen(128)
        listener.setblocking(False)
    except BaseException:
        listener.close()
        raise
    return listener


class _Timer:
    """A deadline that can be set and cleared."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._handle: asyncio.TimerHandle | None = None

    @property
    def is_set(self) -> bool:
        return self._handle is not None

    def set(self, delay_s: float, late: Callable[[], None]) -> None:
        self.clear()
        self._handle = self._loop.call_later(delay_s, self._fire, late)

    def clear(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _fire(self, late: Callable[[], None]) -> None:
        self._handle = None
        late()


class _Protocol(H11Protocol):
    """uvicorn's protocol with two more deadlines; it closes the oldest idle connection to make room."""

    config: _Config

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.access_log = False
        self._header_deadline = _Timer(self.loop)
        self._write_deadline = _Timer(self.loop)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        # A body in chunks of one byte costs h11 some 10 us per byte, in one call for all data that was read at once.
        with contextlib.suppress(AttributeError):
            transport.max_size = _READ_BYTES  # type: ignore[attr-defined]  # asyncio's own loops have it, uvloop not
        oldest_first = self.config.oldest_first
        oldest_first[self] = None
        if len(oldest_first) >= self.config.max_connections:
            idle = next((one for one in oldest_first if not one.is_in_request() and one is not self), None)
            if idle is not None:
                idle.transport.abort()
                oldest_first.pop(idle)
        self._expect_header()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.is_in_request():
            self._header_deadline.clear()
        elif not self._header_deadline.is_set:
            # Count from the first byte of a header, so that a client that sends byte by byte is ended, too.
            self._expect_header()

    def connection_lost(self, exc: Exception | None) -> None:
        self.config.oldest_first.pop(self, None)
        self._header_deadline.clear()
        self._write_deadline.clear()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._expect_progress()

    def resume_writing(self) -> None:
        self._write_deadline.clear()
        super().resume_writing()

    def is_in_request(self) -> bool:
        """Return whether a request has arrived whose answer is not complete."""
        return self.cycle is not None and not self.cycle.response_complete

    def _expect_header(self) -> None:
        self._header_deadline.set(self.config.header_timeout_s, self._header_is_late)

    def _header_is_late(self) -> None:
        if not self.is_in_request() and not self.transport.is_closing():
            self.transport.close()

    def _expect_progress(self) -> None:
        left = self.transport.get_write_buffer_size()
        self._write_deadline.set(self.config.stalled_s, lambda: self._check_progress(left))

    def _check_progress(self, left_before: int) -> None:
        if self.transport.get_write_buffer_size() >= left_before:
            self.transport.abort()
        else:
            self._expect_progress()
