#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Ansible module: find the processes that listen on the ports of a deployment."""

from __future__ import annotations

DOCUMENTATION = r"""
module: port_holders
short_description: Name the process that holds a TCP port
version_added: 0.1.0
description:
  - Reads only /proc, so it needs no package and no rights.
  - Without root the process of another user is not visible; the module then names its user.
options:
  ports:
    description: Ports by the name of the variable that sets them.
    type: dict
    required: true
  prefix:
    description: Holders that run from this directory are I(ours).
    type: path
    required: true
author:
  - SeedCore maintainers (@seedcore)
attributes:
  check_mode: {support: full, description: Changes nothing.}
"""

EXAMPLES = r"""
- name: Find the holders of the ports
  seedcore.cluster.port_holders:
    ports: {ray_gcs_port: 6379, ray_dashboard_port: 8265}
    prefix: /opt/seedcore
  register: holders
"""

RETURN = r"""
busy:
  description: One row for each port that something listens on.
  returned: always
  type: list
  elements: dict
  contains:
    port: {description: The port., type: int}
    purpose: {description: The variable that sets it., type: str}
    address: {description: Address of the listening socket., type: str}
    ours: {description: Whether the holder runs from O(prefix)., type: bool}
    pid: {description: The holder, type: int}
    holder: {description: "The holder for people, such as V(redis-server, pid 812, user redis)", type: str}
faults:
  description: One line for each port that another program holds.
  returned: always
  type: list
  elements: str
"""

import contextlib
import ipaddress
import pwd
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.seedcore.cluster.plugins.module_utils import processes

LISTEN = "0A"


@dataclass(frozen=True)
class Listener:
    """A listening socket."""

    address: str
    port: int
    uid: int
    inode: str


def parse_address(text: str) -> tuple[str, int]:
    """Return address and port of a ``/proc/net/tcp`` field: hexadecimal words in the byte order of the host."""
    words, _colon, port = text.partition(":")
    raw = b"".join(bytes.fromhex(words[i : i + 8])[::-1] for i in range(0, len(words), 8))
    return str(ipaddress.ip_address(raw)), int(port, 16)


def parse_listeners(table: str) -> list[Listener]:
    """Return the listening sockets of a ``/proc/net/tcp`` or ``tcp6`` table."""
    rows = (line.split() for line in table.splitlines()[1:])
    return [Listener(*parse_address(row[1]), int(row[7]), row[9]) for row in rows if row[3] == LISTEN]


def listeners() -> list[Listener]:
    """Return every listening TCP socket of this network namespace."""
    found: list[Listener] = []
    for name in ("tcp", "tcp6"):
        path = Path("/proc/net") / name
        if path.exists():
            found += parse_listeners(path.read_text(encoding="ascii"))
    return found


def holders(inodes: set[str]) -> dict[str, int]:
    """Return the pid that has each socket open, if it is visible."""
    wanted = {f"socket:[{inode}]": inode for inode in inodes}
    found: dict[str, int] = {}
    for directory in processes.PROC.iterdir():
        if not directory.name.isdigit() or len(found) == len(wanted):
            continue
        for target in open_files(directory):
            if target in wanted:
                found.setdefault(wanted[target], int(directory.name))
    return found


def open_files(process: Path) -> Iterator[str]:
    """Return what a process has open, as far as it may be seen; a busy process closes some of them meanwhile."""
    try:
        entries = list((process / "fd").iterdir())
    except OSError:
        return
    for entry in entries:
        with contextlib.suppress(OSError):
            yield str(entry.readlink())


def describe(process: processes.Process | None, uid: int) -> str:
    """Return the holder for people."""
    try:
        user = pwd.getpwuid(uid).pw_name
    except KeyError:
        user = str(uid)
    if process is None:
        return f"a process of user {user}"
    return f"{process.name}, pid {process.pid}, user {user}"


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "ports": {"type": "dict", "required": True},
            "prefix": {"type": "path", "required": True},
        },
        supports_check_mode=True,
    )
    wanted = {int(port): purpose for purpose, port in module.params["ports"].items()}
    listening = {listener.port: listener for listener in listeners() if listener.port in wanted}
    pids = holders({listener.inode for listener in listening.values()})
    running = processes.everything()
    ours = processes.belonging(module.params["prefix"], running)
    busy = []
    for port, listener in sorted(listening.items()):
        pid = pids.get(listener.inode)
        process = running.get(pid) if pid else None
        busy.append(
            {
                "port": port,
                "purpose": wanted[port],
                "address": listener.address,
                "ours": pid in ours,
                "pid": pid,
                "holder": describe(process, listener.uid),
            }
        )
    faults = [
        f"port {row['port']} is held by {row['holder']}: stop it, or set {row['purpose']}"
        for row in busy
        if not row["ours"]
    ]
    module.exit_json(changed=False, busy=busy, faults=faults)


if __name__ == "__main__":
    main()
