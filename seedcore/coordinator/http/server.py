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
import logging
import resource
import socket
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from seedcore.coordinator.http.listener import Listener, ListenError
from seedcore.coordinator.http.tls import Certificate
from seedcore.core.errors import ConfigError
from seedcore.core.held_socket import BACKLOG

logger = logging.getLogger(__name__)

MAX_CONNECTIONS = 4000
KEEP_ALIVE_S = 15
HEADER_TIMEOUT_S = 10.0
STALLED_S = 30.0
# Shorter than the time after which the supervisor gives up a Coordinator that does not show its new certificate.
RENEW_INTERVAL_S = 3.0
_ABORT_S = 1.0
# How long clients with open connections may take until their next request, before a planned end; nobody waits for it.
LAST_REQUESTS_S = 2.0
_FIRST_REQUEST_S = 0.3
# How long a connection may take until its first request, on a busy machine, before it is closed.
_LATE_REQUEST_S = 2.0
_LAST_BEGIN_S = 0.5
_POLL_S = 0.02
_CLOSE = (b"connection", b"close")
_READ_BYTES = 16 * 1024


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
        state_dir: Where a supervisor may hold the listening socket; None if nobody does.
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
        state_dir: Path | None = None,
    ) -> None:
        self._listener = Listener(host, port, directory=state_dir)
        self._certificate = certificate
        self._renewing: asyncio.Task[None] | None = None
        self._resuming: asyncio.Task[None] | None = None
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

    @property
    def is_held(self) -> bool:
        """Return whether connections wait, and are not refused, once this server has stopped."""
        return self._listener.is_held

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
        listener = await self._listener.open(timeout_s)
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
            backlog=BACKLOG,
            timeout_keep_alive=KEEP_ALIVE_S,
        )
        self._server = _Server(config, context)
        self._serving = asyncio.create_task(self._server.serve(sockets=[listener]), name="seedcore-http")
        listening = asyncio.create_task(self._server.listening.wait())
        await asyncio.wait({self._serving, listening}, return_when=asyncio.FIRST_COMPLETED)
        if not listening.done():
            listening.cancel()
            self._listener.close()
            cause = self._serving.exception()
            raise ListenError(self.host, self.port, f"the server ended at once: {cause}") from cause
        self._listener.share()
        if self._certificate is not None:
            self._renewing = asyncio.create_task(self._keep_renewing(self._certificate))
        scheme = "https" if context else "http"
        logger.info("http server listens: address=%s:%d scheme=%s", self.host, self.port, scheme)

    async def pause(self, *, resume_after_s: float, last_requests_s: float | None = None) -> None:
        """Accept no more connections, so that they wait for the next process, and close those without a request.

        If this process is still there after ``resume_after_s``, it accepts connections again.

        Before that, for at most ``last_requests_s`` (default: LAST_REQUESTS_S), each answer asks its client to open
        another connection, because a request on a connection that is being closed would be lost.
        """
        if self._server is None:
            return
        server, connections = self._server, self._server.server_state.connections
        server.end_keep_alive()
        await _until(lambda: not connections, LAST_REQUESTS_S if last_requests_s is None else last_requests_s)
        for one in server.servers:
            one.close()
        self._listener.close()
        # The last connections to be accepted are still sending their requests; the idle ones have had one.
        await _until(lambda: not connections, _FIRST_REQUEST_S)
        await _until(lambda: all(getattr(one, "cycle", one) for one in connections), _LATE_REQUEST_S)
        for connection in list(connections):
            connection.shutdown()
        # Requests that have just arrived begin before the caller refuses others.
        await _until(lambda: not connections, _LAST_BEGIN_S)
        self._resuming = asyncio.create_task(self._resume(server, resume_after_s))

    async def stop(self) -> None:
        """Stop accepting, let requests finish within the grace, then end them; it can be called repeatedly."""
        if self._server is None or self._serving is None:
            return
        self._stopping = True
        for task in (self._renewing, self._resuming):
            if task is not None:
                task.cancel()
        self._server.should_exit = True
        self._listener.stop_sharing()
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
        self._listener.close()
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

    async def _resume(self, server: _Server, after_s: float) -> None:
        await asyncio.sleep(after_s)
        logger.warning("this process was not replaced, it accepts connections again")
        await server.listen(await self._listener.open(0.0))
        self._listener.share()

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
        for one in sockets or []:
            await self.listen(one)
        self.started = True
        self.listening.set()

    async def listen(self, listener: socket.socket) -> None:
        """Accept connections; only of this socket."""
        config, context = self._own_config, self._context

        def protocol() -> asyncio.Protocol:
            return _Protocol(config=config, server_state=self.server_state, app_state=self.lifespan.state)

        limits = {"ssl_handshake_timeout": config.header_timeout_s, "ssl_shutdown_timeout": _ABORT_S} if context else {}
        create = asyncio.get_running_loop().create_server
        server = await create(  # type: ignore[call-overload]
            protocol, sock=listener, ssl=context, backlog=config.backlog, **limits
        )
        self.servers = [server]
        self._keep_alive(True)

    def end_keep_alive(self) -> None:
        """Let each answer from now on be the last one of its connection."""
        self._keep_alive(False)

    def _keep_alive(self, wanted: bool) -> None:  # noqa: FBT001
        headers = self._own_config.encoded_headers
        headers[:] = [one for one in headers if one != _CLOSE] + ([] if wanted else [_CLOSE])
        # uvicorn makes these anew each second, from the others.
        others = [one for one in self.server_state.default_headers if one != _CLOSE]
        self.server_state.default_headers = others + ([] if wanted else [_CLOSE])

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Install no signal handlers: they belong to the owner of the process."""
        yield


async def _until(check: Callable[[], bool], timeout_s: float) -> None:
    """Wait for a condition without an event, or for the time to be over."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout_s
    while not check() and loop.time() < deadline:  # noqa: ASYNC110 - uvicorn has no event for it
        await asyncio.sleep(_POLL_S)


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
