# SPDX-License-Identifier: Apache-2.0
"""The controller's part of seedcore_status: run a wait as a job on the host and show its progress."""

from __future__ import annotations

from typing import Any

from ansible.plugins.action import ActionBase
from ansible_collections.seedcore.cluster.plugins.module_utils import cli, status
from ansible_collections.seedcore.cluster.plugins.plugin_utils.job import Job
from ansible_collections.seedcore.cluster.plugins.plugin_utils.progress import Progress

_WHERE = ("executable", "namespace", "address", "command_timeout")


class ActionModule(ActionBase):  # type: ignore[misc]  # Ansible is not typed
    """Run the module, a wait as a job with progress."""

    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Run the task."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        _validation, params = self.validate_argument_spec(argument_spec=status.ARGUMENT_SPEC)
        if wrong := status.faults(params):
            text = "; ".join(wrong)
            report = cli.unhealthy("usage", text)
            return {**result, **report, "failed": True, "changed": False, "msg": text, "elapsed": 0.0, "attempts": 0}
        # From here on, undefined values of the task have their defaults.
        self._task.args = {name: value for name, value in params.items() if value is not None}
        if not params["wait"]:
            return {**result, **self._execute_module(task_vars=task_vars)}
        progress = Progress(str((task_vars or {}).get("inventory_hostname", "host")))
        # What is healthy and stays so needs no job and no progress.
        watched = self._execute_module(module_args={**self._task.args, "while_healthy": True}, task_vars=task_vars)
        if watched.get("reason") != "usage":  # a release from before this option
            progress.show(watched, elapsed_s=watched.get("elapsed", 0.0))
        if watched.get("healthy"):
            return {**result, **watched}
        if watched.get("reason") == cli.NOT_INSTALLED:
            # On a host without a deployment, leave nothing behind, not even the directory of a job.
            return {**result, **status.failure(watched, elapsed_s=watched.get("elapsed", 0.0))}
        # Read only the present status. Checking the expectations may import the agents, so it is done once.
        look = {name: self._task.args[name] for name in _WHERE if name in self._task.args}
        look["seen"] = progress.said
        job = Job(self, task_vars, limit_s=params["wait_timeout"] + params["command_timeout"])
        return {**result, **job.run(look, lambda report, elapsed_s: progress.show(report, elapsed_s=elapsed_s))}
