"""Run a module as a job on the host, and poll its progress."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from ansible.errors import AnsibleActionFail

INTERVAL_S = 1.0
# Extra time for the host's job beyond the deadlines of its module: the start of Python, the end of the job.
MARGIN_S = 30
_OF_THE_JOB = frozenset(
    {
        "ansible_job_id",
        "results_file",
        "started",
        "finished",
        "erased",
        "stdout",
        "stderr",
        "stdout_lines",
        "stderr_lines",
    }
)


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

    def run(self, meanwhile: Callable[[float], None]) -> dict[str, Any]:
        """Return the module's result; call ``meanwhile`` each second with the seconds that have passed.

        Raises:
            AnsibleActionFail: The job did not end in time.
        """
        task = self._plugin._task.copy()  # noqa: SLF001 - as all action plugins do
        task.async_val = self._limit_s
        job: dict[str, Any] = self._action("ansible.legacy.normal", task).run(task_vars=self._vars)
        if "ansible_job_id" not in job:
            return job
        try:
            done = self._end(job["ansible_job_id"], meanwhile)
        finally:
            self._ask(job["ansible_job_id"], "cleanup")
        return {key: value for key, value in done.items() if key not in _OF_THE_JOB}

    def _end(self, jid: str, meanwhile: Callable[[float], None]) -> dict[str, Any]:
        started = time.monotonic()
        while (elapsed := time.monotonic() - started) < self._limit_s:
            time.sleep(INTERVAL_S)
            job = self._ask(jid, "status")
            if job.get("finished"):
                return job
            meanwhile(elapsed)
        raise AnsibleActionFail(f"the job of {self._plugin._task.action} did not end within {self._limit_s} s")  # noqa: SLF001

    def _ask(self, jid: str, mode: str) -> dict[str, Any]:
        task = self._plugin._task.copy()  # noqa: SLF001
        task.action = "ansible.legacy.async_status"
        task.args = {"jid": jid, "mode": mode}
        answer: dict[str, Any] = self._action(task.action, task).run(task_vars=self._vars)
        return answer

    def _action(self, name: str, task: Any) -> Any:
        plugin = self._plugin
        return plugin._shared_loader_obj.action_loader.get(  # noqa: SLF001
            name,
            task=task,
            connection=plugin._connection,  # noqa: SLF001
            play_context=plugin._play_context,  # noqa: SLF001
            loader=plugin._loader,  # noqa: SLF001
            templar=plugin._templar,  # noqa: SLF001
            shared_loader_obj=plugin._shared_loader_obj,  # noqa: SLF001
        )
