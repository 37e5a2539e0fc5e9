"""Notify systemd of a service's state, if systemd runs it (protocol: man sd_notify)."""

from __future__ import annotations

import contextlib
import os
import socket


def notify(*lines: str) -> bool:
    """Send ``KEY=value`` lines to the socket in NOTIFY_SOCKET; return False if nobody listens."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return False
    # A name in the abstract namespace begins with a zero byte, which the environment cannot contain.
    target = "\0" + address[1:] if address.startswith("@") else address
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as end:
        end.setblocking(False)
        end.sendto("\n".join(line.replace("\n", " ") for line in lines).encode(), target)
        return True
    return False


def watchdog_s() -> float | None:
    """Return systemd's watchdog interval in seconds, None if this process has none."""
    usec, pid = os.environ.get("WATCHDOG_USEC", ""), os.environ.get("WATCHDOG_PID", "")
    if not usec.isdigit() or int(usec) == 0 or (pid and pid != str(os.getpid())):
        return None
    return int(usec) / 1e6
