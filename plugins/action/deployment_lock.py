# SPDX-License-Identifier: Apache-2.0
"""The controller's part of deployment_lock: identify this run, and detect whether the holder of the lock is dead."""

from __future__ import annotations

import getpass
import os
import socket
from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase
from ansible_collections.seedcore.cluster.plugins.module_utils import processes

MODULE = "seedcore.cluster.deployment_lock"


class ActionModule(ActionBase):  # type: ignore[misc]  # Ansible is not typed
    """Run the module for this run of ansible-playbook."""

    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Run the task."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        # A task runs in a child of ansible-playbook.
        pid = os.getppid()
        run = {"key": _key(pid), "who": f"{_user()} on {socket.gethostname()}", "pid": pid}
        arguments = {**self._task.args, "run": run, "dead": ""}
        answer: dict[str, Any] = self._execute_module(module_name=MODULE, module_args=arguments, task_vars=task_vars)
        holder = answer.get("holder") or {}
        if holder and _is_dead(str(holder.get("key", "")), int(holder.get("pid") or 0)):
            arguments["dead"] = holder["key"]
            answer = self._execute_module(module_name=MODULE, module_args=arguments, task_vars=task_vars)
        return {**result, **answer}


def _key(pid: int) -> str:
    """Return a unique key of a process on this machine: machine, boot, pid, and start time."""
    process = processes.read(pid)
    return f"{_machine()}/{pid}/{process.started if process else ''}"


def _is_dead(key: str, pid: int) -> bool:
    """Return whether the key belongs to a process of this machine that has ended; False for other machines."""
    if not key.startswith(f"{_machine()}/"):
        return False
    return key != _key(pid) or not _exists(pid)


def _machine() -> str:
    # Containers share the boot id but not the processes. A controller without Linux has neither file.
    return f"{socket.gethostname()}/{_boot()}/{_processes()}"


def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


def _processes() -> str:
    try:
        return str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return ""


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        # In a container the user may have no name.
        return f"user {os.getuid()}"


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
