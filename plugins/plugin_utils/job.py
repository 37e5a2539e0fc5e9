"""Run a module as a job on the host, and follow its progress."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from ansible.errors import AnsibleActionFail

FOLLOW = "seedcore.cluster.seedcore_job"
# Extra time for the host's job beyond the deadlines of its module: the start of Python, the end of the job.
MARGIN_S = 30


class Job:
    """The task of an action plugin as a job.

    Args:
        action: The action plugin.
        task_vars: Variables of the task.
        limit_s: Time limit of the module in seconds.
    """

    def __init__(self, action: Any, task_vars: dict[str, Any] | None, *, limit_s: int) -> None:
        self._plugin = action
        self._vars = task_vars
        self._limit_s = limit_s + MARGIN_S

    def run(self, look: Mapping[str, Any], show: Callable[[dict[str, Any], float], None]) -> dict[str, Any]:
        """Return the module's result; call ``show`` with each new status report and the seconds that have passed.

        Args:
            look: Options of the module seedcore_job that tell whose status to read.
            show: Receives the reports.

        Raises:
            AnsibleActionFail: The job did not end in time.
        """
        task = self._plugin._task.copy()  # noqa: SLF001 - as all action plugins do
        task.async_val = self._limit_s
        job: dict[str, Any] = self._plugin._shared_loader_obj.action_loader.get(  # noqa: SLF001
            "ansible.legacy.normal",
            task=task,
            connection=self._plugin._connection,  # noqa: SLF001
            play_context=self._plugin._play_context,  # noqa: SLF001
            loader=self._plugin._loader,  # noqa: SLF001
            templar=self._plugin._templar,  # noqa: SLF001
            shared_loader_obj=self._plugin._shared_loader_obj,  # noqa: SLF001
        ).run(task_vars=self._vars)
        if "ansible_job_id" not in job:
            return job
        return self._end({**look, "path": job["results_file"]}, show)

    def _end(self, options: dict[str, Any], show: Callable[[dict[str, Any], float], None]) -> dict[str, Any]:
        started = time.monotonic()
        while (elapsed_s := time.monotonic() - started) < self._limit_s:
            answer = self._plugin._execute_module(module_name=FOLLOW, module_args=options, task_vars=self._vars)  # noqa: SLF001
            if answer.get("failed"):
                return dict(answer)
            if answer["finished"]:
                return dict(answer["result"])
            if report := answer["report"]:
                options["seen"] = answer["seen"]
                show(report, elapsed_s)
        raise AnsibleActionFail(f"the job of {self._plugin._task.action} did not end within {self._limit_s} s")  # noqa: SLF001
