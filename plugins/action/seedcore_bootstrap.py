# SPDX-License-Identifier: Apache-2.0
"""The controller's part of seedcore_bootstrap: run it as a job on the host and show its progress."""

from __future__ import annotations

from typing import Any

from ansible.plugins.action import ActionBase
from ansible_collections.seedcore.cluster.plugins.module_utils import bootstrap, cli
from ansible_collections.seedcore.cluster.plugins.plugin_utils.job import Job
from ansible_collections.seedcore.cluster.plugins.plugin_utils.progress import Progress


class ActionModule(ActionBase):  # type: ignore[misc]  # Ansible is not typed
    """Run the module, outside of check mode as a job with progress."""

    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Run the task."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        _validation, params = self.validate_argument_spec(argument_spec=bootstrap.ARGUMENT_SPEC)
        if wrong := bootstrap.faults(params):
            text = "; ".join(wrong)
            outcome = bootstrap.outcome(None, cli.unhealthy("usage", text))
            return {**result, **outcome, "failed": True, "msg": text, "elapsed": 0.0}
        if self._task.check_mode:
            return {**result, **self._execute_module(task_vars=task_vars)}
        progress = Progress(str((task_vars or {}).get("inventory_hostname", "host")))
        look = {"executable": params["executable"], "command_timeout": params["command_timeout"]}

        def show(report: dict[str, Any], elapsed_s: float) -> None:
            if report["status"] == "initializing":
                # Other reports are outdated (no Coordinator, the old one), or the job is about to return the same.
                progress.show(report, elapsed_s=elapsed_s)

        job = Job(self, task_vars, limit_s=params["wait_timeout"] + params["bake_seconds"] + params["command_timeout"])
        return {**result, **job.run(look, show)}
