# SPDX-License-Identifier: Apache-2.0
"""The controller's half of seedcore_status: a wait runs as a job on the host, and each new stage is shown meanwhile."""

from __future__ import annotations

from typing import Any

from ansible.plugins.action import ActionBase
from ansible_collections.seedcore.cluster.plugins.module_utils import cli, status
from ansible_collections.seedcore.cluster.plugins.plugin_utils.job import Job
from ansible_collections.seedcore.cluster.plugins.plugin_utils.progress import Progress

_WHERE = ("executable", "namespace", "address", "command_timeout")


class ActionModule(ActionBase):  # type: ignore[misc]  # Ansible is not typed
    """Runs the module; a wait as a job, whose progress it shows."""

    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Run the task."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        _validation, params = self.validate_argument_spec(argument_spec=status.ARGUMENT_SPEC)
        if wrong := status.faults(params):
            text = "; ".join(wrong)
            report = cli.unhealthy("usage", text)
            return {**result, **report, "failed": True, "changed": False, "msg": text, "elapsed": 0.0, "attempts": 0}
        # Undefined values of the task are defaults now.
        self._task.args = {name: value for name, value in params.items() if value is not None}
        if not params["wait"]:
            return {**result, **self._execute_module(task_vars=task_vars)}
        progress = Progress(str((task_vars or {}).get("inventory_hostname", "host")))
        # Only what is true now. What is expected is judged once: it may import an organism's agents each time.
        now = {name: self._task.args[name] for name in _WHERE if name in self._task.args}

        def show(elapsed_s: float) -> None:
            progress.show(self._execute_module(module_args=now, task_vars=task_vars), elapsed_s=elapsed_s)

        first = self._execute_module(module_args=now, task_vars=task_vars)
        if first.get("failed") or first.get("reason") == cli.NOT_INSTALLED:
            # Nothing is to be left on a host without a deployment, not even the directory of a job.
            return {**result, **status.failure(first, elapsed_s=first.get("elapsed", 0.0))}
        progress.show(first, elapsed_s=0.0)
        job = Job(self, task_vars, limit_s=params["wait_timeout"] + params["command_timeout"])
        return {**result, **job.run(show)}
