#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Wait until a job on this host ends or the status changes."""

from __future__ import annotations

DOCUMENTATION = r"""
module: seedcore_job
short_description: Wait until a job on the host ends or the SeedCore status changes
version_added: 0.1.0
description:
  - The action plugins of M(seedcore.cluster.seedcore_status) and M(seedcore.cluster.seedcore_bootstrap) use it to show
    the progress of their jobs. It answers as soon as there is something to show, so a quiet job costs few connections.
options:
  path:
    description: The results file of the job. It is removed when the job has ended.
    type: path
    required: true
  executable:
    description: The C(seedcore) whose status is read while the job runs.
    type: path
    required: true
  namespace:
    description: Ray namespace of the Coordinator; default is that of the executable's settings.
    type: str
  address:
    description: Address of the GCS, C(host:port); default is that of the executable's settings.
    type: str
  command_timeout:
    description: Seconds after which a call of the executable is killed with all its children.
    type: int
    default: 30
  seen:
    description: RV(seen) of the last answer; a report is returned only if it differs.
    type: str
    default: ""
  patience:
    description: Seconds after which it answers even if nothing has changed.
    type: int
    default: 20
attributes:
  check_mode:
    description: Runs the same in check mode.
    support: full
  diff_mode:
    description: Changes nothing.
    support: none
author:
  - SeedCore maintainers (@seedcore)
"""

EXAMPLES = r"""
- name: Follow a job until it ends or the status changes
  seedcore.cluster.seedcore_job:
    path: "{{ job.results_file }}"
    executable: /opt/seedcore/bin/seedcore
  register: progress
"""

RETURN = r"""
finished:
  description: Whether the job has ended.
  returned: success
  type: bool
result:
  description: The result of the job's module; empty if it has not ended.
  returned: success
  type: dict
report:
  description: The new status report, as M(seedcore.cluster.seedcore_status) returns it; empty if there is none.
  returned: success
  type: dict
seen:
  description: What tells this report from the next one.
  returned: success
  type: str
  sample: "initializing: 1 of 3 organs ready"
"""

import json
import time
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.seedcore.cluster.plugins.module_utils import cli

_JOB_INTERVAL_S = 0.2
_STATUS_INTERVAL_S = 1.0
# What the wrapper of the job adds to the result of its module.
_OF_THE_JOB = frozenset({"ansible_job_id", "results_file", "started", "finished", "stderr"})


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "executable": {"type": "path", "required": True},
            "namespace": {"type": "str"},
            "address": {"type": "str"},
            "command_timeout": {"type": "int", "default": 30},
            "seen": {"type": "str", "default": ""},
            "patience": {"type": "int", "default": 20},
        },
        supports_check_mode=True,
    )
    try:
        module.exit_json(changed=False, **follow(module.params))
    except OSError as error:
        module.fail_json(msg=f"the job {module.params['path']} is gone: {error.strerror}")


def follow(params: dict[str, Any]) -> dict[str, Any]:
    """Return the end of the job, a new report, or neither.

    Raises:
        OSError: There is no such job.
    """
    deadline = time.monotonic() + params["patience"]
    next_status = 0.0
    while True:
        if (result := ended(params["path"])) is not None:
            Path(params["path"]).unlink()
            return {"finished": True, "result": result, "report": {}, "seen": params["seen"]}
        now = time.monotonic()
        if now >= next_status:
            next_status = now + _STATUS_INTERVAL_S
            report = status(params)
            seen = f"{report['status']}: {report['message']}"
            if seen != params["seen"]:
                return {"finished": False, "result": {}, "report": report, "seen": seen}
        if now >= deadline:
            return {"finished": False, "result": {}, "report": {}, "seen": params["seen"]}
        time.sleep(_JOB_INTERVAL_S)


def ended(path: str) -> dict[str, Any] | None:
    """Return the result of a job that has ended, else None.

    Raises:
        OSError: There is no such job.
    """
    text = Path(path).read_text(encoding="utf-8")
    # An empty file belongs to a job that has just begun.
    written = json.loads(text) if text.strip() else {"started": True, "finished": False}
    if "started" in written and not written.get("finished"):
        return None
    return {key: value for key, value in written.items() if key not in _OF_THE_JOB}


def status(params: dict[str, Any]) -> dict[str, Any]:
    """Return the present status report."""
    answer = cli.run(
        [params["executable"], "status", "--json"],
        timeout_s=params["command_timeout"],
        environ=cli.overrides(params),
    )
    what = f"{params['executable']} status"
    try:
        report: dict[str, Any] = cli.report(
            cli.document(answer), answer, what=what, timeout_s=params["command_timeout"]
        )
    except cli.UsageError as error:
        report = cli.unhealthy("usage", str(error))
    return report


if __name__ == "__main__":
    main()
