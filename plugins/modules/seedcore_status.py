#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Ask whether the Coordinator is healthy, and wait until it is."""

from __future__ import annotations

DOCUMENTATION = r"""
module: seedcore_status
short_description: Ask whether the SeedCore Coordinator is healthy, and wait until it is
version_added: 0.1.0
description:
  - Runs C(seedcore status --json) of the release on the host and returns what is true. It never joins the Ray cluster.
  - With O(wait=false) it never fails because something is down; RV(healthy) of the result says what is.
  - With O(wait=true) it fails at the deadline, or at once on a reason that waiting does not mend
    (V(init_failed), V(not_installed), V(unauthorized), V(wrong_release), V(wrong_configuration), and V(unschedulable)
    that lasts 15 seconds).
    While it waits, each new stage is shown on the controller's screen.
options:
  wait:
    description: Wait until the Coordinator is healthy, and fail if it does not become so.
    type: bool
    default: false
  wait_timeout:
    description: Seconds for the whole wait, 1 or more.
    type: int
    default: 300
  wait_sleep:
    description: Seconds between two looks during a wait, 1 or more.
    type: int
    default: 2
  stable_s:
    description:
      - Seconds that it must have been healthy at a stretch, in the same processes, before a wait ends well.
      - Less than O(wait_timeout). Without O(wait) it has no effect.
    type: int
    default: 0
  canary:
    description: Let a wait end well only after a nonce came back through every organ. Without O(wait) it has no effect.
    type: bool
    default: false
  expected_release:
    description: Id of the release that must answer; another one is V(wrong_release).
    type: str
  expected_fingerprint:
    description:
      - Fingerprint of the organism that must answer, as C(seedcore config check) prints it; another one is
        V(wrong_configuration).
      - V(config) means the organism that the deployment's own settings name.
    type: str
  expected_nodes:
    description: How many nodes must be alive, 1 or more; fewer is V(nodes_missing).
    type: int
  expected_node_names:
    description: Names of nodes that must be alive; one that is not is V(nodes_missing).
    type: list
    elements: str
  allow_degraded:
    description: Whether a Coordinator that misses optional organs or some agents is good enough.
    type: bool
    default: false
  executable:
    description:
      - The C(seedcore) to run, a path or a name to look for in C(PATH).
      - The deployment's own is C(<prefix>/bin/seedcore), which knows address, namespace and token.
    type: path
    default: seedcore
  namespace:
    description: Ray namespace of the Coordinator; default is what the executable is set up for.
    type: str
  address:
    description: The GCS, C(host:port); default is what the executable is set up for.
    type: str
  command_timeout:
    description: Seconds that one call of the executable may take before it is killed with all its children, 1 or more.
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
- name: What is true now
  seedcore.cluster.seedcore_status:
    executable: /opt/seedcore/bin/seedcore
  register: now

- name: Say it
  ansible.builtin.debug:
    msg: "{{ now.status }}: {{ now.message }}"

- name: The Coordinator is healthy on three nodes and stays so, or the play ends here
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
    - Which case it is. V(ready), V(degraded), V(starting), V(restarting), V(unschedulable), V(init_failed), V(absent),
      V(not_responding), V(organs_down), V(wrong_release), V(wrong_configuration), V(nodes_missing),
      V(unauthorized), V(unreachable) or V(not_installed).
    - V(cli_failed) if the executable itself hung or broke, V(usage) if it refused its options or its configuration.
  returned: always
  type: str
  sample: ready
message:
  description: One line for a person.
  returned: always
  type: str
  sample: 3 of 3 organs ready
degraded:
  description: Healthy, but not everything is there.
  returned: always
  type: bool
elapsed:
  description: Seconds it took.
  returned: always
  type: float
  sample: 4.21
attempts:
  description: How often it looked.
  returned: always
  type: int
  sample: 3
coordinator:
  description:
    - What the Coordinator says of itself, and its actor's C(actor_id), C(state), C(pid) and C(node_id). Empty if
      there is none.
  returned: always
  type: dict
nodes:
  description: The Ray nodes.
  returned: always
  type: dict
  contains:
    alive:
      description: How many are alive.
      type: int
    expected:
      description: How many are expected.
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
  description: What the judgement rests on where it is bad, such as a traceback.
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
    attempts = 0

    def result(report: dict[str, Any]) -> dict[str, Any]:
        return {**report, "changed": False, "elapsed": round(time.monotonic() - started, 2), "attempts": attempts}

    if wrong := status.faults(params):
        text = "; ".join(wrong)
        module.fail_json(msg=text, **result(cli.unhealthy("usage", text)))
    try:
        if not params["wait"]:
            attempts = 1
            module.exit_json(**result(look(params)))
        report, attempts = status.wait_for(
            lambda: look(params),
            timeout_s=params["wait_timeout"],
            sleep_s=params["wait_sleep"],
            allow_degraded=params["allow_degraded"],
        )
        if status.passes(report, allow_degraded=params["allow_degraded"]) and (params["stable_s"] or params["canary"]):
            remaining = params["wait_timeout"] - (time.monotonic() - started)
            report = confirm(params, timeout_s=max(remaining, 1.0))
            attempts += 1
    except cli.UsageError as error:
        module.fail_json(msg=str(error), **result(cli.unhealthy("usage", str(error))))
    if status.passes(report, allow_degraded=params["allow_degraded"]):
        module.exit_json(**result(report))
    module.fail_json(msg=status.failure_line(report, elapsed_s=time.monotonic() - started), **result(report))


def look(params: dict[str, Any]) -> dict[str, Any]:
    """Ask once."""
    return ask(params, [], timeout_s=params["command_timeout"])


def confirm(params: dict[str, Any], *, timeout_s: float) -> dict[str, Any]:
    """Let the executable watch it for a while and send the nonce, within ``timeout_s`` seconds."""
    options = ["--wait", "--timeout", f"{timeout_s:.1f}", "--stable", str(params["stable_s"])]
    if params["canary"]:
        options.append("--canary")
    return ask(params, options, timeout_s=timeout_s + params["command_timeout"])


def ask(params: dict[str, Any], options: list[str], *, timeout_s: float) -> dict[str, Any]:
    """Run ``seedcore status --json``; every failure of the executable becomes a report."""
    argv = [params["executable"], "status", "--json", *options]
    for option, value in (
        ("--expected-release", params["expected_release"]),
        ("--expected-fingerprint", params["expected_fingerprint"]),
        ("--expected-nodes", params["expected_nodes"]),
    ):
        if value is not None:
            argv += [option, str(value)]
    if params["allow_degraded"]:
        argv.append("--allow-degraded")
    answer = cli.run(argv, timeout_s=timeout_s, environ=cli.overrides(params))
    report = cli.report(cli.document(answer), answer, what=f"{params['executable']} status", timeout_s=timeout_s)
    judged: dict[str, Any] = status.with_node_names(report, params["expected_node_names"])
    return judged


if __name__ == "__main__":
    main()
