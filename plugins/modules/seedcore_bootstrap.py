#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Start or converge the Coordinator."""

from __future__ import annotations

DOCUMENTATION = r"""
module: seedcore_bootstrap
short_description: Start or converge the SeedCore Coordinator
version_added: 0.1.0
description:
  - Runs C(seedcore bootstrap --json) of the release on the host. It leaves alone a Coordinator that already has this
    release and configuration, and replaces any other; a failed start leaves no actor behind.
  - While it waits, it shows the progress on the controller's screen.
options:
  wait_timeout:
    description: Time limit in seconds for the Coordinator to become healthy, retries included, 1 or more.
    type: int
    default: 60
  retries:
    description: Retries after a failed start, 0 or more.
    type: int
    default: 2
  replace:
    description: Replace a running Coordinator even if nothing has changed.
    type: bool
    default: false
  expected_release:
    description:
      - Id of the release that is about to be active.
      - In check mode the executable may still be that of the old release, or missing; with this option the module
        still predicts that the Coordinator would be replaced.
    type: str
  expected_agents:
    description: >-
      Ids of the agents' layer that is about to be active and of its environments, with commas between them; with it,
      check mode predicts a reload.
    type: str
  bake_seconds:
    description:
      - When organs are replaced in a running organism, one new process of each takes its share of the tasks for this
        many seconds, beyond O(wait_timeout), and is compared with the old ones; 0 or more.
      - If it is worse, the old organs are kept and the module fails.
    type: int
    default: 0
  bake_tolerance:
    description: Share by which a new process may be slower, larger, or fail more often, 0 or more.
    type: float
    default: 0.5
  config:
    description: Path of organism.yaml on the host; default is that of the executable's settings.
    type: path
  executable:
    description: The C(seedcore) to run, a path or a name to look for in C(PATH).
    type: path
    default: seedcore
  command_timeout:
    description:
      - Seconds beyond O(wait_timeout) after which the executable is killed with all its children, 1 or more.
    type: int
    default: 30
attributes:
  check_mode:
    description: Predicts the action, even on a host without a release.
    support: full
  diff_mode:
    description: Has no files to show.
    support: none
author:
  - SeedCore maintainers (@seedcore)
"""

EXAMPLES = r"""
- name: Bootstrap the Coordinator of the active release
  seedcore.cluster.seedcore_bootstrap:
    executable: /opt/seedcore/bin/seedcore
    wait_timeout: 60
"""

RETURN = r"""
action:
  description:
    - V(none), V(create), V(replace), or V(reload) - the Coordinator stays and adopts another organism.
    - In check mode, the predicted action.
  returned: always
  type: str
  sample: create
creations:
  description: Number of creations that were tried.
  returned: always
  type: int
cause:
  description: Traceback of the last failed creation, empty if none failed.
  returned: always
  type: str
baked:
  description: Result of the comparison in one line, empty if there was none.
  returned: always
  type: str
  sample: "30 s, 412 tasks on new, 0 failed (old: 1 of 1,630)"
healthy:
  description: Whether the Coordinator is healthy.
  returned: always
  type: bool
status:
  description: V(healthy), V(initializing) or V(unhealthy).
  returned: always
  type: str
  sample: healthy
reason:
  description: The reason of the status, as in M(seedcore.cluster.seedcore_status).
  returned: always
  type: str
  sample: ready
message:
  description: One line for people.
  returned: always
  type: str
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
coordinator:
  description: The Coordinator's own status.
  returned: always
  type: dict
nodes:
  description: The Ray nodes, as in M(seedcore.cluster.seedcore_status).
  returned: always
  type: dict
evidence:
  description: The facts behind a bad status.
  returned: always
  type: dict
elapsed:
  description: Seconds that it took.
  returned: always
  type: float
msg:
  description: The cause of the failure, C(<reason>:) C(<message>) C((after N s)).
  returned: failure
  type: str
"""

import time
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.seedcore.cluster.plugins.module_utils import bootstrap, cli, status


def main() -> None:
    """Run the module."""
    module = AnsibleModule(argument_spec=bootstrap.ARGUMENT_SPEC, supports_check_mode=True)
    params = module.params
    started = time.monotonic()

    def result(outcome: dict[str, Any]) -> dict[str, Any]:
        return {**outcome, "elapsed": round(time.monotonic() - started, 2)}

    if wrong := bootstrap.faults(params):
        text = "; ".join(wrong)
        module.fail_json(msg=text, **result(bootstrap.outcome(None, cli.unhealthy("usage", text))))
    timeout_s = params["wait_timeout"] + params["bake_seconds"] + params["command_timeout"]
    answer = cli.run(bootstrap.argv(params, dry_run=module.check_mode), timeout_s=timeout_s)
    try:
        document = cli.document(answer)
    except cli.UsageError as error:
        module.fail_json(msg=str(error), **result(bootstrap.outcome(None, cli.unhealthy("usage", str(error)))))
    report = cli.report(
        (document or {}).get("status"), answer, what=f"{params['executable']} bootstrap", timeout_s=timeout_s
    )
    outcome = bootstrap.outcome(document, report)
    if module.check_mode:
        module.exit_json(**result(bootstrap.prediction(outcome, params["expected_release"], params["expected_agents"])))
    if not outcome["healthy"]:
        line = status.failure_line(report, elapsed_s=time.monotonic() - started)
        module.fail_json(msg=line, **result(outcome))
    module.exit_json(**result(outcome))


if __name__ == "__main__":
    main()
