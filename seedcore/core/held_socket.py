"""Ask the supervisor for the Coordinator's listening socket, which it holds while no Coordinator runs.

The kernel accepts connections to a socket as long as any process has it open. The supervisor keeps a copy, so that a
connection that arrives while the Coordinator is restarted or replaced waits for the next process and is not refused.

Both sides talk over a Unix socket in the state directory, where only the service's user can create files. A question
and its answer are one message each, with the descriptor attached (SCM_RIGHTS). The connection of a process that accepts
connections stays open, so that the supervisor learns of the end of this process at once.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FILE_NAME = "http.sock"
PROTOCOL = 1
# At most this many connections wait for the next Coordinator; the kernel drops the packets of others, and they retry.
BACKLOG = 1024
TIMEOUT_S = 2.0
MAX_MESSAGE = 4096
# The limit is 107; a longer path is reached through the descriptor of its directory.
_MAX_PATH = 100
_CREDENTIALS = struct.Struct("3i")


@dataclass(frozen=True, slots=True)
class Address:
    """Host and port of the listening socket, as in the settings."""

    host: str
    port: int


class Link:
    """The open connection by which the supervisor knows a process that accepts connections."""

    def __init__(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        self._connection = connection

    @property
    def is_open(self) -> bool:
        """Return whether the supervisor still has its end."""
        try:
            return bool(self._connection.recv(1, socket.MSG_PEEK))
        except BlockingIOError:
            return True
        except OSError:
            return False

    def close(self) -> None:
        """Tell the supervisor that this process accepts no more connections."""
        self._connection.close()


def take(directory: Path, address: Address, *, timeout_s: float = TIMEOUT_S) -> tuple[socket.socket, Link] | None:
    """Return the listening socket for an address from the supervisor; None if it does not offer one."""
    with _asked("take", directory, address, timeout_s=timeout_s) as (connection, answer, descriptors):
        if connection is None or not answer.get("granted") or not descriptors:
            return None
        return socket.socket(fileno=os.dup(descriptors[0])), Link(connection.dup())


def keep(
    directory: Path, address: Address, listener: socket.socket, *, accepts: bool = True, timeout_s: float = TIMEOUT_S
) -> Link | None:
    """Give the supervisor a copy of a listening socket; None if there is no supervisor or it does not want it.

    Args:
        directory: The state directory.
        address: Address of the socket.
        listener: The socket.
        accepts: Whether this process accepts its connections, until the link is closed.
        timeout_s: Time limit in seconds.
    """
    asked = _asked("keep", directory, address, timeout_s=timeout_s, listener=listener, accepts=accepts)
    with asked as (connection, answer, _):
        return Link(connection.dup()) if connection is not None and answer.get("granted") else None


def is_abandoned(directory: Path, address: Address, *, timeout_s: float = 0.5) -> bool:
    """Return whether the supervisor holds the socket of an address and no process accepts its connections."""
    with _asked("ask", directory, address, timeout_s=timeout_s) as (_, answer, _):
        return bool(answer.get("granted")) and answer.get("accepting") == 0


def listen(host: str, port: int) -> socket.socket:
    """Return a listening socket that does not block.

    Raises:
        OSError: The address cannot be resolved or bound.
    """
    flags = socket.AI_PASSIVE
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=flags)[0]
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        # With SO_REUSEADDR a busy port may only be detected here.
        listener.listen(BACKLOG)
        listener.setblocking(False)
    except BaseException:
        listener.close()
        raise
    return listener


def is_listening(listener: socket.socket, port: int) -> bool:
    """Return whether it is a listening TCP socket on a port."""
    try:
        if listener.family not in {socket.AF_INET, socket.AF_INET6}:
            return False
        return bool(listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)) and listener.getsockname()[1] == port
    except OSError:
        return False


def peer(connection: socket.socket) -> tuple[int, int]:
    """Return pid and user id of the process at the other end of a Unix socket."""
    found = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, uid, _ = _CREDENTIALS.unpack(found)
    return pid, uid


@contextlib.contextmanager
def reachable(directory: Path) -> Iterator[str]:
    """Yield a path of the Unix socket that is short enough for the kernel.

    Raises:
        OSError: There is no such directory.
    """
    path = directory / FILE_NAME
    if len(os.fsencode(path)) <= _MAX_PATH:
        yield str(path)
        return
    descriptor = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{descriptor}/{FILE_NAME}"
    finally:
        os.close(descriptor)


def receive(connection: socket.socket) -> tuple[Mapping[str, Any] | None, list[int]]:
    """Receive one message with its descriptors, which the caller closes.

    Returns:
        The message; empty if it is not one of this protocol, None if the other side has closed the connection.
    """
    data, descriptors, _, _ = socket.recv_fds(connection, MAX_MESSAGE, 1, socket.MSG_CMSG_CLOEXEC)
    if not data:
        return None, descriptors
    try:
        message = json.loads(data)
    except ValueError:
        message = None
    is_ours = isinstance(message, dict) and message.get("protocol") == PROTOCOL
    return message if is_ours else {}, descriptors


def send(connection: socket.socket, message: Mapping[str, Any], listener: socket.socket | None = None) -> None:
    """Send one message, with a copy of a socket.

    Raises:
        OSError: It cannot be sent in time.
    """
    data = json.dumps({"protocol": PROTOCOL, **message}).encode()
    socket.send_fds(connection, [data], [] if listener is None else [listener.fileno()])


@contextlib.contextmanager
def _asked(
    order: str,
    directory: Path,
    address: Address,
    *,
    timeout_s: float,
    listener: socket.socket | None = None,
    accepts: bool = False,
) -> Iterator[tuple[socket.socket | None, Mapping[str, Any], list[int]]]:
    """Send one order to the supervisor; yield the connection, the answer and its descriptors, empty without one."""
    descriptors: list[int] = []
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
        answer: Mapping[str, Any] | None = None
        try:
            connection.settimeout(timeout_s)
            with reachable(directory) as path:
                connection.connect(path)
            # Only the owner of the directory can listen there.
            if peer(connection)[1] in {os.geteuid(), directory.stat().st_uid}:
                message = {"order": order, "host": address.host, "port": address.port, "accepts": accepts}
                send(connection, message, listener)
                answer, descriptors = receive(connection)
        except OSError:
            answer = None
        try:
            yield (connection if answer else None), answer or {}, descriptors
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
