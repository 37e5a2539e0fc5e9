#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Check whether the Coordinator is healthy, and optionally wait until it is."""

from __future__ import annotations

DOCUMENTATION = r"""
module: seedcore_status
short_description: Check whether the SeedCore Coordinator is healthy, and optionally wait until it is
version_added: 0.1.0
description:
  - Runs C(seedcore status --json) of the release on the host and returns the report. It never joins the Ray cluster.
  - With O(wait=false) it never fails because something is down; see RV(healthy) of the result.
  - With O(wait=true) it fails at the deadline, or at once on a terminal reason
    (V(init_failed), V(not_installed), V(unauthorized), V(wrong_release), V(wrong_configuration), and V(unschedulable)
    for 15 seconds where no node could ever hold the process).
    While it waits, it shows the progress on the controller's screen.
options:
  wait:
    description: Wait until the Coordinator is healthy, and fail if it does not become so.
    type: bool
    default: false
  wait_timeout:
    description: Time limit of the whole wait in seconds, 1 or more.
    type: int
    default: 300
  wait_sleep:
    description: Seconds between probes during a wait, 1 or more.
    type: int
    default: 2
  stable_s:
    description:
      - Seconds for which it must stay healthy, in the same processes, before a wait succeeds.
      - Less than O(wait_timeout). Without O(wait) it has no effect.
    type: int
    default: 0
  canary:
    description: Let a wait succeed only after every organ has returned a nonce. Without O(wait) it has no effect.
    type: bool
    default: false
  while_healthy:
    description: End a wait at the first report that is not healthy. Without O(wait) it has no effect.
    type: bool
    default: false
  expected_release:
    description: Id of the release that must run; another one is V(wrong_release).
    type: str
  expected_fingerprint:
    description:
      - Fingerprint of the organism that must run, as C(seedcore config check) prints it; another one is
        V(wrong_configuration).
      - V(config) means the organism of the deployment's own settings.
    type: str
  expected_nodes:
    description: Number of nodes that must be alive, 1 or more; fewer is V(nodes_missing).
    type: int
  expected_node_names:
    description: Names of nodes that must be alive; a missing one is V(nodes_missing).
    type: list
    elements: str
  allow_unexpected_nodes:
    description:
      - Pass even if nodes are alive that are not in O(expected_node_names). A node that was only removed from the
        inventory keeps running and accepts organs, but gets no new release; without this option it is
        V(nodes_unexpected).
    type: bool
    default: false
  allow_degraded:
    description: Whether to accept a Coordinator that lacks optional organs or some agents.
    type: bool
    default: false
  executable:
    description:
      - The C(seedcore) to run, a path or a name to look for in C(PATH).
      - The deployment's own is C(<prefix>/bin/seedcore), which has the address, the namespace and the token.
    type: path
    default: seedcore
  namespace:
    description: Ray namespace of the Coordinator; default is that of the executable's settings.
    type: str
  address:
    description: Address of the GCS, C(host:port); default is that of the executable's settings.
    type: str
  command_timeout:
    description: Seconds after which a call of the executable is killed with all its children, 1 or more.
    type: int
    default: 30
attributes:
  check_mode:
    description: Only reads, so it does the same in check mode.
    support: full
  diff_mode:
    description: Changes nothing.
    support: none
author:
  - SeedCore maintainers (@seedcore)
"""

EXAMPLES = r"""
- name: Read the status
  seedcore.cluster.seedcore_status:
    executable: /opt/seedcore/bin/seedcore
  register: now

- name: Print the status
  ansible.builtin.debug:
    msg: "{{ now.status }}: {{ now.message }}"

- name: Require that the Coordinator is healthy on three nodes and stays so
  seedcore.cluster.seedcore_status:
    executable: /opt/seedcore/bin/seedcore
    wait: true
    wait_timeout: 120
    stable_s: 5
    canary: true
    expected_nodes: 3
"""

RETURN = r"""
healthy:
  description: Whether a gate may pass.
  returned: always
  type: bool
  sample: true
status:
  description: V(healthy), V(initializing) or V(unhealthy).
  returned: always
  type: str
  sample: healthy
reason:
  description:
    - Which case it is, such as V(ready), V(degraded), V(starting) or V(organs_down); C(docs/status.md) has a section on
      each.
    - V(cli_failed) if the executable itself hung or broke, V(usage) if it refused its options or its configuration.
  returned: always
  type: str
  sample: ready
message:
  description: One line for people.
  returned: always
  type: str
  sample: 3 of 3 organs ready
remedy:
  description: What to do about it; empty if there is nothing to do.
  returned: always
  type: str
  sample: "Wait: seedcore status --wait."
help:
  description: The section of the documentation on the reason; empty if the reason is V(ready).
  returned: always
  type: str
  sample: docs/status.md#starting
degraded:
  description: Healthy, but incomplete.
  returned: always
  type: bool
elapsed:
  description: Seconds that it took.
  returned: always
  type: float
  sample: 4.21
attempts:
  description: Number of probes.
  returned: always
  type: int
  sample: 3
coordinator:
  description:
    - The Coordinator's own status, and its actor's C(actor_id), C(state), C(pid) and C(node_id). Empty if there is no
      Coordinator.
  returned: always
  type: dict
nodes:
  description: The Ray nodes.
  returned: always
  type: dict
  contains:
    alive:
      description: Number of living nodes.
      type: int
    expected:
      description: Number of expected nodes.
      type: int
    missing:
      description: Names of expected nodes that are not alive.
      type: list
      elements: str
    names:
      description: Names of the nodes that are alive.
      type: list
      elements: str
evidence:
  description: The facts behind a bad status, such as a traceback.
  returned: always
  type: dict
msg:
  description: The cause of the failure, C(<reason>:) C(<message>) C((after N s)).
  returned: failure
  type: str
  sample: "init_failed: Coordinator initialization failed: organ a: agent a_agent_0: no such file (after 4 s)"
"""

import time
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.seedcore.cluster.plugins.module_utils import cli, status


def main() -> None:
    """Run the module."""
    module = AnsibleModule(argument_spec=status.ARGUMENT_SPEC, supports_check_mode=True)
    params = module.params
    started = time.monotonic()

    def result(report: dict[str, Any], *, attempts: int) -> dict[str, Any]:
        return {**report, "changed": False, "elapsed": round(time.monotonic() - started, 2), "attempts": attempts}

    if wrong := status.faults(params):
        text = "; ".join(wrong)
        module.fail_json(msg=text, **result(cli.unhealthy("usage", text), attempts=0))
    what, timeout_s = (
        f"{params['executable']} status",
        params["command_timeout"] + params["wait"] * params["wait_timeout"],
    )
    answer = cli.run(argv(params), timeout_s=timeout_s, environ=cli.overrides(params))
    try:
        document = cli.document(answer)
    except cli.UsageError as error:
        module.fail_json(msg=str(error), **result(cli.unhealthy("usage", str(error)), attempts=1))
    attempts = int((document or {}).get("attempts") or 1)
    report = result(cli.report(document, answer, what=what, timeout_s=timeout_s), attempts=attempts)
    if params["wait"] and not report["healthy"]:
        module.fail_json(**status.failure(report, elapsed_s=time.monotonic() - started))
    module.exit_json(**report)


def argv(params: dict[str, Any]) -> list[str]:
    """Return the command, which does the waiting itself."""
    words = [params["executable"], "status", "--json"]
    if params["wait"]:
        words += ["--wait", "--timeout", str(params["wait_timeout"]), "--interval", str(params["wait_sleep"])]
        words += ["--stable", str(params["stable_s"])] * bool(params["stable_s"]) + ["--canary"] * params["canary"]
        words += ["--while-healthy"] * params["while_healthy"]
    for name in ("expected_release", "expected_fingerprint", "expected_nodes"):
        if params[name] is not None:
            words += [f"--{name.replace('_', '-')}", str(params[name])]
    for name in params["expected_node_names"] or ():
        words += ["--expected-node", name]
    words += ["--only-expected"] * bool(params["expected_node_names"] and not params["allow_unexpected_nodes"])
    return words + ["--allow-degraded"] * params["allow_degraded"]


if __name__ == "__main__":
    main()
