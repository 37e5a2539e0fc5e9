# SPDX-License-Identifier: Apache-2.0
"""Speak with a supervisord on its socket.

Standard library only: this travels to the host inside the modules.
"""

from __future__ import annotations

import http.client
import socket
import xmlrpc.client
from typing import Any

CALL_TIMEOUT_S = 10.0
# The fault code of supervisor's XML-RPC interface for a program that it does not know.
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
        """Call ``supervisor.<method>``; raises OSError where nobody answers, Fault where it says no."""
        proxy = xmlrpc.client.ServerProxy("http://localhost/RPC2", transport=_Transport(self._path))
        with proxy:
            return getattr(proxy.supervisor, method)(*args)

    def pid(self) -> int | None:
        """Return its pid, or None where none answers."""
        try:
            return int(self.call("getPID"))
        except (OSError, http.client.HTTPException):
            return None

    def info(self, name: str) -> dict[str, Any] | None:
        """Return what it knows of a program, or None if it does not know it."""
        try:
            found = self.call("getProcessInfo", name)
        except xmlrpc.client.Fault as fault:
            if fault.faultCode == BAD_NAME:
                return None
            raise
        return dict(found)
