#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Ansible module: let only one run at a time work on a deployment."""

from __future__ import annotations

DOCUMENTATION = r"""
module: deployment_lock
short_description: Let only one run at a time work on a deployment
version_added: 0.1.0
description:
  - Takes or renews a lock for the present run of C(ansible-playbook); fails if another run holds it.
  - A run that was interrupted does not release its lock. The next run from the same controller detects that it is
    dead. For a run from another controller, the lock expires O(lease) seconds after its last renewal.
options:
  prefix:
    description: Directory of the deployment; it need not exist.
    type: path
    required: true
  state:
    description: V(present) takes or renews the lock, V(absent) releases it.
    type: str
    choices: [present, absent]
    default: present
  lease:
    description: Seconds after which the lock expires unless it is renewed.
    type: int
    default: 1200
  take:
    description: Take the lock from another run.
    type: bool
    default: false
  run:
    description: The run. The controller fills it in and replaces any given value.
    type: dict
    default: {}
  dead:
    description: Key of a run that is dead. The controller fills it in and replaces any given value.
    type: str
    default: ""
author:
  - SeedCore maintainers (@seedcore)
attributes:
  check_mode: {support: full, description: "Takes no lock and waits for no other run."}
"""

EXAMPLES = r"""
- name: Take the lock
  seedcore.cluster.deployment_lock:
    prefix: /opt/seedcore

- name: Release the lock
  seedcore.cluster.deployment_lock:
    prefix: /opt/seedcore
    state: absent
"""

RETURN = r"""
path:
  description: The lock file.
  returned: always
  type: str
holder:
  description: The other run that holds the lock.
  returned: failure
  type: dict
"""

import json
import os
import time
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.seedcore.cluster.plugins.module_utils import lock

# Other runs hold the file only for milliseconds, while they read and write it.
OPEN_TIMEOUT_S = 10.0


def told(holder: dict[str, Any], now: float) -> str:
    """Return the holder of the lock, for people."""
    since, renewed = (now - float(holder.get(name, now)) for name in ("since", "renewed"))
    left = max(0.0, float(holder.get("lease", 0)) - renewed)
    who = (
        f"{holder.get('who')}, process {holder.get('pid')}, started {since:.0f} s ago, last renewed {renewed:.0f} s ago"
    )
    remedy = f"wait for it; if it has crashed, its lock expires in {left:.0f} s, or take it with -e ray_take_lock=true"
    return f"another run works on this deployment ({who}): {remedy}"


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "prefix": {"type": "path", "required": True},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "lease": {"type": "int", "default": 1200},
            "take": {"type": "bool", "default": False},
            "run": {"type": "dict", "default": {}},
            "dead": {"type": "str", "default": "", "no_log": False},
        },
        supports_check_mode=True,
    )
    params = module.params
    path = lock.path(params["prefix"])
    if module.check_mode:
        module.exit_json(changed=False, path=path)
    if params["lease"] < 1:
        module.fail_json(msg=f"lease is {params['lease']}, expected 1 or more seconds")
    key = str(params["run"].get("key", ""))
    try:
        descriptor = lock.opened(path, timeout_s=OPEN_TIMEOUT_S)
    except OSError as error:
        module.fail_json(msg=f"{path} cannot be opened: {error.strerror}", path=path)
    try:
        holder, now = lock.read(descriptor), time.time()
        foreign = lock.others(holder, key=key, dead=params["dead"], now=now) and not params["take"]
        if foreign and params["state"] == "present":
            module.fail_json(msg=told(holder, now), path=path, holder=holder)
        if params["state"] == "present":
            mine = holder if holder.get("key") == key else {**params["run"], "since": now}
            data = json.dumps({**mine, "renewed": now, "lease": params["lease"]}).encode()
            os.pwrite(descriptor, data, 0)
            os.ftruncate(descriptor, len(data))
        elif not foreign:
            lock.removed(path)
    finally:
        os.close(descriptor)
    # The lock is not part of the host's state, so taking it is not a change.
    module.exit_json(changed=False, path=path)


if __name__ == "__main__":
    main()
