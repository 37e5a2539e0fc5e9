# SPDX-License-Identifier: Apache-2.0
"""The controller's part of deployment_record: skip the record of a partial run, and show differences on the screen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible import context
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

MAX_LINES = 10


class ActionModule(ActionBase):  # type: ignore[misc]  # Ansible is not typed
    """Run the module."""

    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Run the task."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        part = part_of_a_run(context.CLIARGS)
        if self._task.args.get("state") == "present" and part:
            return {**result, "changed": False, "recorded": False, "msg": f"nothing is recorded with {part}"}
        answer: dict[str, Any] = self._execute_module(task_vars=task_vars)
        host = str((task_vars or {}).get("inventory_hostname", "host"))
        different = answer.get("different") or []
        for line in different[:MAX_LINES]:
            Display().display(f"[{host}] not as wanted: {line}")
        if len(different) > MAX_LINES:
            Display().display(f"[{host}] and {len(different) - MAX_LINES} more")
        return {**result, **answer}


def part_of_a_run(arguments: Mapping[str, Any]) -> str:
    """Return the option that makes this run of ansible-playbook a partial one; empty for a full run."""
    options = {
        "--limit": arguments.get("subset"),
        "--start-at-task": arguments.get("start_at_task"),
        "--step": arguments.get("step"),
        "--tags": set(arguments.get("tags") or ()) - {"all"},
        "--skip-tags": arguments.get("skip_tags"),
    }
    return next((option for option, given in options.items() if given), "")
