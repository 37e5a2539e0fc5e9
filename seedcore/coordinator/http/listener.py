"""The listening socket of the HTTP server: the supervisor's, or one of its own where no supervisor offers one."""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
import time
from pathlib import Path

from seedcore.core import held_socket
from seedcore.core.errors import SeedCoreError
from seedcore.core.held_socket import Address, Link

logger = logging.getLogger(__name__)

# How often a socket that the supervisor does not hold is offered to it.
SHARE_INTERVAL_S = 1.0
_RETRY_S = 0.1
_WORTH_RETRYING = frozenset({errno.EADDRINUSE, errno.EADDRNOTAVAIL})


class ListenError(SeedCoreError):
    """The HTTP server cannot listen; the message names host and port."""

    def __init__(self, host: str, port: int, detail: str) -> None:
        super().__init__(host, port, detail)
        self.host = host
        self.port = port
        self.detail = detail

    def __str__(self) -> str:
        return f"cannot listen on {self.host}:{self.port}: {self.detail}"


class Listener:
    """One listening socket.

    Args:
        host: Address to listen on.
        port: Port; 0 takes a free one.
        directory: The state directory, where a supervisor may offer the socket; None if nobody does.
    """

    def __init__(self, host: str, port: int, *, directory: Path | None) -> None:
        self._address = Address(host, port)
        self._directory = directory if port else None
        self._socket: socket.socket | None = None
        self._link: Link | None = None
        self._sharing: asyncio.Task[None] | None = None

    @property
    def is_held(self) -> bool:
        """Return whether the supervisor holds the socket, too, so that connections wait while no process accepts."""
        return self._link is not None and self._link.is_open

    async def open(self, timeout_s: float) -> socket.socket:
        """Take the socket from the supervisor, or bind it; wait for a busy port, because its holder may be exiting.

        Raises:
            ListenError: The address cannot be bound within the time.
        """
        deadline = time.monotonic() + timeout_s
        told = False
        host, port = self._address.host, self._address.port
        while True:
            try:
                opened = await self._take()
                if opened is None:
                    opened = await asyncio.to_thread(held_socket.listen, host, port)
            except OSError as error:
                if error.errno not in _WORTH_RETRYING or time.monotonic() >= deadline:
                    waited = f" (waited {timeout_s:g} s)" if error.errno in _WORTH_RETRYING else ""
                    raise ListenError(host, port, f"{error.strerror or error}{waited}") from error
                if not told:
                    logger.warning("http port is busy, waiting: address=%s:%d: %s", host, port, error)
                    told = True
            else:
                self._socket = opened
                return opened
            await asyncio.sleep(min(_RETRY_S, max(0.0, deadline - time.monotonic())))

    def share(self) -> None:
        """Offer the socket to the supervisor from now on, whenever it does not hold it: it may have been restarted."""
        if self._directory is not None:
            self._sharing = asyncio.create_task(self._keep_sharing(self._directory))

    def stop_sharing(self) -> None:
        """Offer the socket no more, because this process is about to close it."""
        if self._sharing is not None:
            self._sharing.cancel()

    def close(self) -> None:
        """Close this process's copy; the supervisor learns that this process accepts no more connections."""
        self.stop_sharing()
        if self._socket is not None:
            self._socket.close()
        self._release()

    def _release(self) -> None:
        if self._link is not None:
            self._link.close()
            self._link = None

    async def _take(self) -> socket.socket | None:
        if self._directory is None:
            return None
        taken = await asyncio.to_thread(held_socket.take, self._directory, self._address)
        if taken is None:
            return None
        listener, self._link = taken
        listener.setblocking(False)
        return listener

    async def _keep_sharing(self, directory: Path) -> None:
        while self._socket is not None and self._socket.fileno() >= 0:
            if not self.is_held:
                # A copy, because the server closes its own while a thread may be sending it.
                with self._socket.dup() as copy:
                    link = await asyncio.to_thread(held_socket.keep, directory, self._address, copy)
                if link is not None:
                    logger.info("the supervisor holds the socket, too: port=%d", self._address.port)
                    self._release()
                    self._link = link
            await asyncio.sleep(SHARE_INTERVAL_S)
