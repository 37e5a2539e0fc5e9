# SPDX-License-Identifier: Apache-2.0
"""Call supervisord on its socket.

It uses only the standard library, because it is copied to the host inside the modules.
"""

from __future__ import annotations

import http.client
import socket
import xmlrpc.client
from typing import Any

CALL_TIMEOUT_S = 10.0
# Fault code of supervisor's XML-RPC interface for an unknown program.
BAD_NAME = 10


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=CALL_TIMEOUT_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class _Transport(xmlrpc.client.Transport):
    def __init__(self, path: str) -> None:
        super().__init__()
        self._path = path

    def make_connection(self, _host: Any) -> http.client.HTTPConnection:
        return _Connection(self._path)


class Supervisord:
    """The supervisord behind one socket."""

    def __init__(self, path: str) -> None:
        self._path = path

    def call(self, method: str, *args: Any) -> Any:
        """Call ``supervisor.<method>``; raise OSError without an answer, Fault for an error."""
        proxy = xmlrpc.client.ServerProxy("http://localhost/RPC2", transport=_Transport(self._path))
        with proxy:
            return getattr(proxy.supervisor, method)(*args)

    def pid(self) -> int | None:
        """Return its pid, or None if it does not answer."""
        try:
            return int(self.call("getPID"))
        except (OSError, http.client.HTTPException):
            return None

    def info(self, name: str) -> dict[str, Any] | None:
        """Return the state of a program, or None for an unknown one."""
        try:
            found = self.call("getProcessInfo", name)
        except xmlrpc.client.Fault as fault:
            if fault.faultCode == BAD_NAME:
                return None
            raise
        return dict(found)
