#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Ansible module: list or end the processes that run from a directory."""

from __future__ import annotations

DOCUMENTATION = r"""
module: prefix_processes
short_description: List or end the processes that run from a directory
version_added: 0.1.0
description:
  - A process belongs to O(prefix) if its executable, its first argument or any code it has mapped is under it; the
    processes that it started belong to it, too. A shell that only has its working directory or variables there does
    not.
  - Never touches the play itself and its parents.
options:
  prefix:
    description: The directory.
    type: path
    required: true
  state:
    description:
      - V(listed) only returns what runs.
      - V(absent) waits until no process is left, and sends SIGKILL to the rest at the deadline.
    type: str
    choices: [listed, absent]
    default: listed
  also:
    description: Processes that an earlier call returned, to end as well, even if they no longer match.
    type: list
    elements: dict
    default: []
  timeout:
    description: Seconds to wait for processes to end by themselves.
    type: float
    default: 60
author:
  - SeedCore maintainers (@seedcore)
attributes:
  check_mode: {support: full, description: Waits for nothing and ends nothing.}
"""

EXAMPLES = r"""
- name: List the processes of the deployment
  seedcore.cluster.prefix_processes:
    prefix: /opt/seedcore
  register: running

- name: End the processes of the deployment
  seedcore.cluster.prefix_processes:
    prefix: /opt/seedcore
    state: absent
    also: "{{ running.processes }}"
    timeout: 30
"""

RETURN = r"""
processes:
  description: Processes that run, or that had to be ended.
  returned: always
  type: list
  elements: dict
  contains:
    pid: {description: Process id., type: int}
    started: {description: Start time in clock ticks since boot., type: int}
    name: {description: Name of the process., type: str}
    command: {description: Its command line., type: str}
"""

import os
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.seedcore.cluster.plugins.module_utils import processes, status

KILL_TIMEOUT_S = 10.0


def _row(process: processes.Process) -> dict[str, Any]:
    command = " ".join(process.argv)[:200]
    return {"pid": process.pid, "started": process.started, "name": process.name, "command": command}


def _find(prefix: str, also: list[dict[str, Any]]) -> list[processes.Process]:
    running = processes.everything()
    pids = processes.belonging(prefix, running)
    pids |= {row["pid"] for row in also if row["pid"] in running and running[row["pid"]].started == row["started"]}
    return [running[pid] for pid in sorted(pids - processes.ancestors(os.getpid(), running))]


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "prefix": {"type": "path", "required": True},
            "state": {"type": "str", "choices": ["listed", "absent"], "default": "listed"},
            "also": {"type": "list", "elements": "dict", "default": []},
            "timeout": {"type": "float", "default": 60.0},
        },
        supports_check_mode=True,
    )
    if wrong := status.minimum_faults(module.params, {"timeout": 0}):
        module.fail_json(msg="; ".join(wrong))
    prefix, also = module.params["prefix"], module.params["also"]
    found = _find(prefix, also)
    if module.params["state"] == "listed":
        module.exit_json(changed=False, processes=[_row(process) for process in found])
    if module.check_mode:
        module.exit_json(changed=bool(found), processes=[_row(process) for process in found])
    left = processes.wait_gone(found, timeout_s=module.params["timeout"])
    # More may have started while the others ended: list them again.
    left = sorted({*left, *_find(prefix, also)}, key=lambda process: process.pid)
    try:
        stuck = processes.end(left, timeout_s=KILL_TIMEOUT_S)
    except PermissionError:
        module.fail_json(
            msg=f"somebody else's process runs from {prefix}", processes=[_row(process) for process in left]
        )
    if stuck:
        names = ", ".join(f"{process.name} (pid {process.pid})" for process in stuck)
        module.fail_json(msg=f"still there after SIGKILL: {names}", processes=[_row(process) for process in stuck])
    module.exit_json(changed=bool(left), processes=[_row(process) for process in left])


if __name__ == "__main__":
    main()
