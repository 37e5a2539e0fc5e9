# SPDX-License-Identifier: Apache-2.0
"""The controller's half of seedcore_bootstrap: runs it as a job on the host and shows meanwhile what comes up."""

from __future__ import annotations

import time
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible_collections.seedcore.cluster.plugins.module_utils import bootstrap, cli
from ansible_collections.seedcore.cluster.plugins.plugin_utils.progress import Progress

STATUS_MODULE = "seedcore.cluster.seedcore_status"
INTERVAL_S = 1.0
# What the host's job may take beyond the deadlines of what it runs: the start of Python, the end of the job.
MARGIN_S = 30
_OF_THE_JOB = (
    "ansible_job_id",
    "results_file",
    "started",
    "finished",
    "erased",
    "stdout",
    "stderr",
    "stdout_lines",
    "stderr_lines",
)


class ActionModule(ActionBase):  # type: ignore[misc]  # Ansible is not typed
    """Runs the module; outside of check mode as a job, whose progress it shows."""

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
        limit = params["wait_timeout"] + params["command_timeout"] + MARGIN_S
        job = self._start(limit, task_vars)
        if "ansible_job_id" not in job:
            return {**result, **job}
        try:
            done = self._watch(job["ansible_job_id"], params, limit, task_vars)
        finally:
            self._job(job["ansible_job_id"], "cleanup", task_vars)
        return {**result, **{key: value for key, value in done.items() if key not in _OF_THE_JOB}}

    def _start(self, limit: int, task_vars: dict[str, Any] | None) -> dict[str, Any]:
        task = self._task.copy()
        task.async_val = limit
        started: dict[str, Any] = self._action("ansible.legacy.normal", task).run(task_vars=task_vars)
        return started

    def _watch(self, jid: str, params: dict[str, Any], limit: int, task_vars: dict[str, Any] | None) -> dict[str, Any]:
        """Return the job's result; meanwhile show each new stage."""
        started = time.monotonic()
        progress = Progress(str((task_vars or {}).get("inventory_hostname", "host")))
        look = {"executable": params["executable"], "command_timeout": params["command_timeout"]}
        while time.monotonic() - started < limit:
            time.sleep(INTERVAL_S)
            job = self._job(jid, "status", task_vars)
            if job.get("finished"):
                return job
            report = self._execute_module(module_name=STATUS_MODULE, module_args=look, task_vars=task_vars)
            if report.get("status") == "initializing":
                # Anything else is the past (none yet, the old one) or about to be the job's own result.
                progress.show(report, elapsed_s=time.monotonic() - started)
        raise AnsibleActionFail(f"the bootstrap's job did not end within {limit} s")

    def _job(self, jid: str, mode: str, task_vars: dict[str, Any] | None) -> dict[str, Any]:
        task = self._task.copy()
        task.action = "ansible.legacy.async_status"
        task.args = {"jid": jid, "mode": mode}
        answer: dict[str, Any] = self._action(task.action, task).run(task_vars=task_vars)
        return answer

    def _action(self, name: str, task: Any) -> Any:
        return self._shared_loader_obj.action_loader.get(
            name,
            task=task,
            connection=self._connection,
            play_context=self._play_context,
            loader=self._loader,
            templar=self._templar,
            shared_loader_obj=self._shared_loader_obj,
        )
