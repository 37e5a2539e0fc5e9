"""Hold the Coordinator's listening socket in the supervisor, so that it outlives the Coordinator's process.

The holder opens the socket when the first Coordinator asks for it, and gives each Coordinator a copy. While no process
accepts connections, new ones wait; after a time, or if no Coordinator is wanted, the socket is closed and connections
are refused again. The Coordinator gives its copy back to a supervisor that has been restarted; between two releases of
the supervisor, a process of its own keeps the copy (:func:`pass_on`).
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import selectors
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from seedcore.core.held_socket import (
    BACKLOG,
    Address,
    is_listening,
    keep,
    listen,
    peer,
    reachable,
    receive,
    send,
)
from seedcore.core.task import failure

logger = logging.getLogger(__name__)

# How long connections wait for a Coordinator: Ray needs two seconds to restart one, on a busy host some more. It is
# shorter than the time after which our clients give up a silent connection, and then say that the outcome is unknown.
HOLD_S = 17.0
TICK_S = 0.5
# How long a copy is kept for the next release of the supervisor; shorter than a Coordinator waits for a busy port.
KEEP_S = 8.0
_KEEP_POLL_S = 0.1
_MAX_LINKS = 64
_SEND_TIMEOUT_S = 1.0
_REFUSAL = json.dumps(failure("there is no Coordinator", error_type="OrganUnavailableError", executed="no")).encode()
_REFUSED = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nContent-Length: %d\r\n"
    b"Cache-Control: no-store\r\nRetry-After: 5\r\nConnection: close\r\n\r\n%s" % (len(_REFUSAL), _REFUSAL)
)
_CHUNK = 64 * 1024


class Hold:
    """Decide how long to hold the socket: the processes that accept its connections, with the time passed in."""

    def __init__(self, hold_s: float = HOLD_S) -> None:
        self._hold_s = hold_s
        self._accepting: set[object] = set()
        self._abandoned_since = 0.0

    @property
    def accepting(self) -> int:
        """Return the number of processes that accept connections."""
        return len(self._accepting)

    def opened(self, now: float) -> None:
        """Record that there is a socket now, which nobody has taken yet."""
        self._accepting.clear()
        self._abandoned_since = now

    def taken(self, by: object) -> None:
        """Record that a process accepts connections."""
        self._accepting.add(by)

    def left(self, by: object, now: float) -> None:
        """Record that a process accepts no more connections."""
        if by in self._accepting:
            self._accepting.discard(by)
            self._abandoned_since = now

    def is_over(self, now: float, *, wanted: bool) -> bool:
        """Return whether to close the socket: nobody accepts its connections, or will soon."""
        return not self._accepting and (not wanted or now - self._abandoned_since >= self._hold_s)


class SocketHolder:
    """Hold at most one listening socket, and answer the questions of :mod:`seedcore.core.held_socket` in a thread.

    Args:
        directory: The state directory.
        address: Address of the Coordinator in the settings.
        is_wanted: Returns whether a Coordinator should run.
        speaks_tls: Whether the Coordinator speaks TLS; this process has no certificate to answer with.
        hold: Decides how long to hold the socket.
    """

    def __init__(
        self,
        directory: Path,
        address: Address,
        *,
        is_wanted: Callable[[], bool],
        speaks_tls: bool = False,
        hold: Hold | None = None,
    ) -> None:
        self._directory = directory
        self._address = address
        self._is_wanted = is_wanted
        self._speaks_tls = speaks_tls
        self._hold = hold or Hold()
        self._listener: socket.socket | None = None
        self._is_passed_on = False
        self._links: set[socket.socket] = set()
        self._selector = selectors.DefaultSelector()
        self._ends = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        """Start to answer; without the Unix socket, Coordinators bind for themselves."""
        try:
            asked = self._bind()
        except OSError as error:
            logger.warning("cannot hold the Coordinator's socket: %s: %s", self._directory, error.strerror or error)
            return self
        self._selector.register(asked, selectors.EVENT_READ)
        self._thread = threading.Thread(target=self._serve, args=(asked,), name="socket", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give up the socket; a Coordinator that accepts connections keeps its own copy.

        Without one, as before the host reboots, the connections that wait are refused.
        """
        is_abandoned = not self._hold.accepting and not self._is_passed_on
        self._end_answers()
        if self._listener is not None and is_abandoned:
            self._refuse_waiting(self._listener)
        self._close()
        self._selector.close()

    def pass_on(self) -> None:
        """Answer no more; let a process of its own keep the socket until the next release of the supervisor has it."""
        self._end_answers()
        listener = self._listener
        if listener is None:
            return
        self._is_passed_on = True
        with contextlib.suppress(OSError, ValueError):
            descriptor = os.dup(listener.fileno())
            try:
                arguments = [str(descriptor), str(self._directory), self._address.host, str(self._address.port)]
                subprocess.run(  # noqa: S603 - a list, no shell
                    [sys.executable, "-m", "seedcore.deployment.socket_holder", *arguments],
                    pass_fds=[descriptor], stdin=subprocess.DEVNULL, check=False, timeout=KEEP_S,
                )  # fmt: skip
            except subprocess.TimeoutExpired:
                logger.warning("no process keeps the Coordinator's socket for the next supervisor")
            finally:
                os.close(descriptor)

    def _end_answers(self) -> None:
        self._ends.set()
        if self._thread is not None:
            self._thread.join()
        for link in list(self._links):
            self._forget(link)

    def _bind(self) -> socket.socket:
        asked = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            with reachable(self._directory) as path:
                # The supervisor's lock is held, so a file that is there is a dead supervisor's.
                Path(path).unlink(missing_ok=True)
                asked.bind(path)
                Path(path).chmod(0o600)
            asked.listen(_MAX_LINKS)
            asked.setblocking(False)
        except BaseException:
            asked.close()
            raise
        return asked

    def _serve(self, asked: socket.socket) -> None:
        while not self._ends.is_set():
            try:
                for key, _ in self._selector.select(TICK_S):
                    if key.fileobj is asked:
                        self._accept(asked)
                    else:
                        self._answer(key.fileobj)  # type: ignore[arg-type]  # only sockets are registered
                self._close_if_over()
            except Exception:
                # Whatever a process sends must not end the thread.
                logger.exception("holding the Coordinator's socket failed, going on")
                self._ends.wait(TICK_S)
        asked.close()

    def _accept(self, asked: socket.socket) -> None:
        link, _ = asked.accept()
        if peer(link)[1] not in {os.geteuid(), 0} or len(self._links) >= _MAX_LINKS:
            link.close()
            return
        link.settimeout(_SEND_TIMEOUT_S)
        self._links.add(link)
        self._selector.register(link, selectors.EVENT_READ)

    def _answer(self, link: socket.socket) -> None:
        try:
            message, descriptors = receive(link)
        except OSError:
            message, descriptors = None, []
        if message is None:
            self._forget(link)
            return
        given = [socket.socket(fileno=descriptor) for descriptor in descriptors]
        try:
            answer, listener = self._decide(message, given, link)
            send(link, answer, listener)
        except OSError:
            self._forget(link)
        finally:
            for one in given:
                if one is not self._listener:
                    one.close()

    def _decide(
        self, message: Mapping[str, Any], given: list[socket.socket], link: socket.socket
    ) -> tuple[dict[str, Any], socket.socket | None]:
        if (message.get("host"), message.get("port")) != (self._address.host, self._address.port):
            # A Coordinator of other settings binds for itself.
            return {"granted": False}, None
        order = message.get("order")
        if order == "take":
            return self._offer(link)
        if order == "keep" and given:
            return {"granted": self._adopt(given[0], link, accepts=message.get("accepts") is True)}, None
        return {"granted": order == "ask" and self._listener is not None, "accepting": self._hold.accepting}, None

    def _offer(self, link: socket.socket) -> tuple[dict[str, Any], socket.socket | None]:
        """Give a Coordinator a copy; open the socket for the first one."""
        if self._listener is None:
            try:
                self._open(listen(self._address.host, self._address.port))
            except OSError as error:
                # The Coordinator tries it, too, and reports the error.
                return {"granted": False, "error": error.strerror or str(error)}, None
        self._hold.taken(link)
        logger.info("a Coordinator takes the socket: pid=%d port=%d", peer(link)[0], self._address.port)
        return {"granted": True}, self._listener

    def _adopt(self, listener: socket.socket, link: socket.socket, *, accepts: bool) -> bool:
        """Hold a socket that another process has opened or kept; return whether it is held now."""
        if self._listener is None:
            if not is_listening(listener, self._address.port):
                return False
            self._open(listener)
            logger.info("holding the socket that a process has given: pid=%d", peer(link)[0])
        elif not os.path.sameopenfile(listener.fileno(), self._listener.fileno()):
            return False
        if accepts:
            self._hold.taken(link)
        return True

    def _open(self, listener: socket.socket) -> None:
        self._listener = listener
        self._hold.opened(time.monotonic())

    def _close(self) -> None:
        if self._listener is not None:
            self._listener.close()
            self._listener = None

    def _close_if_over(self) -> None:
        if self._listener is None or self._hold.accepting:
            return
        wanted = self._is_wanted()
        if self._hold.is_over(time.monotonic(), wanted=wanted):
            why = "no Coordinator has taken it" if wanted else "no Coordinator is wanted"
            logger.warning("closing the Coordinator's socket, connections are refused from now on: %s", why)
            self._refuse_waiting(self._listener)
            self._close()

    def _refuse_waiting(self, listener: socket.socket) -> None:
        """Answer the connections that wait: their requests were not executed, which a reset would leave open."""
        if self._speaks_tls:
            return
        listener.setblocking(False)
        with contextlib.suppress(OSError):
            for _ in range(BACKLOG):
                waiting, _address = listener.accept()
                waiting.setblocking(False)
                with waiting, contextlib.suppress(OSError):
                    waiting.send(_REFUSED)
                    waiting.shutdown(socket.SHUT_WR)
                    # A connection that is closed with unread data is reset, and may lose the answer.
                    while waiting.recv(_CHUNK):
                        pass

    def _forget(self, link: socket.socket) -> None:
        self._links.discard(link)
        with contextlib.suppress(KeyError, ValueError):
            self._selector.unregister(link)
        link.close()
        self._hold.left(link, time.monotonic())


def keep_for_successor(listener: socket.socket, directory: Path, address: Address, *, keep_s: float = KEEP_S) -> bool:
    """Offer a listening socket until a supervisor takes it or the time is over; return whether one has taken it."""
    deadline = time.monotonic() + keep_s
    while time.monotonic() < deadline:
        if keep(directory, address, listener, accepts=False) is not None:
            return True
        time.sleep(_KEEP_POLL_S)
    return False


def _main(descriptor: str, directory: str, host: str, port: str) -> None:
    if os.fork():
        # The supervisor waits for this process; the other one outlives it and is nobody's child.
        os._exit(0)
    with socket.socket(fileno=int(descriptor)) as listener:
        keep_for_successor(listener, Path(directory), Address(host, int(port)))


if __name__ == "__main__":
    _main(*sys.argv[1:])
