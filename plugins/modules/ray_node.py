#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Ansible module: wait until a Ray node is up."""

from __future__ import annotations

DOCUMENTATION = r"""
module: ray_node
short_description: Wait until a Ray node serves requests and the head lists it as alive
version_added: 0.1.0
description:
  - Uses HTTP and never joins Ray. With O(agent_url), the node's own agent must report itself healthy.
    With O(dashboard_url), the head must list a living node named O(node_name).
options:
  node_name:
    description: Name of the node.
    type: str
    required: true
  agent_url:
    description: URL of the node's dashboard agent.
    type: str
  dashboard_url:
    description: URL of the dashboard on the head.
    type: str
  token_path:
    description: File with the token of the cluster, on this host.
    type: path
  log:
    description: Log file whose end is shown if the node does not start.
    type: path
  unit:
    description: The systemd unit whose journal is shown if O(log) does not exist.
    type: str
  timeout:
    description: Deadline in seconds; the module polls at least once.
    type: float
    default: 120
  interval:
    description: Seconds between polls.
    type: float
    default: 1
author:
  - SeedCore maintainers (@seedcore)
attributes:
  check_mode: {support: full, description: Changes nothing.}
"""

EXAMPLES = r"""
- name: Wait until the node is up
  seedcore.cluster.ray_node:
    node_name: head-1
    agent_url: http://127.0.0.1:52365
    dashboard_url: http://127.0.0.1:8265
    token_path: /opt/seedcore/etc/token
    timeout: 120
"""

RETURN = r"""
elapsed:
  description: Seconds of the wait.
  returned: always
  type: float
attempts:
  description: Number of polls.
  returned: always
  type: int
node_id:
  description: Ray's id of the node.
  returned: with O(dashboard_url)
  type: str
"""

import json
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.seedcore.cluster.plugins.module_utils import logs, status

REQUEST_TIMEOUT_S = 5.0
UNAUTHORIZED = (401, 403)


class NotYetError(Exception):
    """The node is not up yet; the text tells why."""


class WrongError(Exception):
    """Waiting does not help; the text tells why."""


def get(url: str, *, token: str | None, timeout_s: float) -> str:
    """Return the body of ``url``.

    Raises:
        NotYetError: There is no answer, or an error.
        WrongError: The token is rejected.
    """
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    request = urllib.request.Request(url, headers=headers)  # noqa: S310 - a URL of the deployment's own
    # Ignore proxies of the environment.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=timeout_s) as response:
            return str(response.read().decode("utf-8", "replace"))
    except urllib.error.HTTPError as error:
        if error.code in UNAUTHORIZED:
            raise WrongError(f"{url} rejects the token ({error.code}): another Ray answers there") from error
        raise NotYetError(f"{url} answers {error.code}") from error
    except OSError as error:
        raise NotYetError(f"{url} does not answer: {getattr(error, 'reason', error)}") from error


def living_node(document: str, name: str) -> str:
    """Return the id of the living node ``name`` in an answer of ``/api/v0/nodes``.

    Raises:
        NotYetError: There is none; the text names the living nodes.
    """
    try:
        rows = json.loads(document)["data"]["result"]["result"]
        nodes = {row["node_name"]: row["node_id"] for row in rows if row["state"] == "ALIVE"}
    except (ValueError, KeyError, TypeError) as error:
        raise NotYetError("the dashboard did not answer with a list of nodes") from error
    if name not in nodes:
        raise NotYetError(f"no living node {name}; living nodes: {', '.join(sorted(nodes)) or 'none'}")
    return str(nodes[name])


def wait(look: Callable[[float], str], *, timeout_s: float, interval_s: float) -> tuple[str, int, float]:
    """Poll until it succeeds; return the result, the number of polls and the seconds that passed.

    Raises:
        NotYetError: The deadline has passed; the text is that of the last poll.
    """
    begun = time.monotonic()
    attempts = 0
    while True:
        attempts += 1
        remaining = timeout_s - (time.monotonic() - begun)
        try:
            found = look(max(0.5, min(REQUEST_TIMEOUT_S, remaining)))
        except NotYetError:
            remaining = timeout_s - (time.monotonic() - begun)
            if remaining <= 0:
                raise
            time.sleep(min(interval_s, remaining))
        else:
            return found, attempts, time.monotonic() - begun


def journal(unit: str | None, lines: int = 20) -> list[str]:
    """Return the end of a unit's journal; empty if there is none."""
    if not unit:
        return []
    argv = ["journalctl", "--no-pager", "--quiet", "--output=short-iso", f"--lines={lines}", f"--unit={unit}"]
    argv.append(f"--user-unit={unit}")
    try:
        # The command is found by name: hosts keep it in different places.
        done = subprocess.run(argv, capture_output=True, check=False, timeout=10)  # noqa: S603
    except (OSError, subprocess.TimeoutExpired):
        return []
    return done.stdout.decode("utf-8", "replace").splitlines()


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "node_name": {"type": "str", "required": True},
            "agent_url": {"type": "str"},
            "dashboard_url": {"type": "str"},
            "token_path": {"type": "path", "no_log": False},
            "log": {"type": "path"},
            "unit": {"type": "str"},
            "timeout": {"type": "float", "default": 120.0},
            "interval": {"type": "float", "default": 1.0},
        },
        required_one_of=[("agent_url", "dashboard_url")],
        supports_check_mode=True,
    )
    params: dict[str, Any] = module.params
    if wrong := status.minimum_faults(params, {"timeout": 0, "interval": 0}):
        module.fail_json(msg="; ".join(wrong))
    begun = time.monotonic()

    def look(timeout_s: float) -> str:
        token = Path(params["token_path"]).read_text(encoding="ascii").strip() if params["token_path"] else None
        if params["agent_url"]:
            get(f"{params['agent_url']}/api/healthz", token=token, timeout_s=timeout_s)
        if not params["dashboard_url"]:
            return ""
        url = f"{params['dashboard_url']}/api/v0/nodes?detail=1&limit=10000"
        return living_node(get(url, token=token, timeout_s=timeout_s), params["node_name"])

    try:
        node_id, attempts, elapsed = wait(look, timeout_s=params["timeout"], interval_s=params["interval"])
    except (NotYetError, WrongError, OSError, ValueError) as error:
        elapsed = time.monotonic() - begun
        module.fail_json(
            msg=f"node {params['node_name']} is not up: {error} (after {elapsed:.0f} s)",
            elapsed=elapsed,
            log=logs.tail(params["log"]) or journal(params["unit"]),
        )
    module.exit_json(changed=False, node_id=node_id, attempts=attempts, elapsed=round(elapsed, 2))


if __name__ == "__main__":
    main()
