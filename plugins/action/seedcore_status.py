# SPDX-License-Identifier: Apache-2.0
"""The controller's half of seedcore_status: it looks from here during a wait, so that each new stage is shown."""

from __future__ import annotations

import time
from typing import Any

from ansible.plugins.action import ActionBase
from ansible_collections.seedcore.cluster.plugins.module_utils import cli, status
from ansible_collections.seedcore.cluster.plugins.plugin_utils.progress import Progress


class ActionModule(ActionBase):  # type: ignore[misc]  # Ansible is not typed
    """Runs the module once, or again and again until its report passes, is terminal, or the time is over."""

    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Run the task."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        _validation, params = self.validate_argument_spec(argument_spec=status.ARGUMENT_SPEC)
        if wrong := status.faults(params):
            text = "; ".join(wrong)
            return {**result, **_failure(cli.unhealthy("usage", text), text, elapsed_s=0.0, attempts=0)}
        module_args = {name: value for name, value in params.items() if value is not None}
        if not params["wait"]:
            return {**result, **self._execute_module(module_args=module_args, task_vars=task_vars)}
        return {**result, **self._wait(module_args, params, task_vars)}

    def _wait(
        self, module_args: dict[str, Any], params: dict[str, Any], task_vars: dict[str, Any] | None
    ) -> dict[str, Any]:
        started = time.monotonic()
        progress = Progress(str((task_vars or {}).get("inventory_hostname", "host")))

        def look() -> dict[str, Any]:
            report: dict[str, Any] = self._execute_module(
                module_args={**module_args, "wait": False}, task_vars=task_vars
            )
            progress.show(report, elapsed_s=time.monotonic() - started)
            return report

        report: dict[str, Any]
        report, attempts = status.wait_for(
            look,
            timeout_s=params["wait_timeout"],
            sleep_s=params["wait_sleep"],
            allow_degraded=params["allow_degraded"],
        )
        if report.get("failed"):
            return report
        elapsed = time.monotonic() - started
        passed = status.passes(report, allow_degraded=params["allow_degraded"])
        if passed and (params["stable_s"] or params["canary"]):
            # On the host, where it can be watched without a gap; the module does the whole wait of what is left.
            left = max(params["wait_timeout"] - int(elapsed), params["stable_s"] + 1)
            report = self._execute_module(module_args={**module_args, "wait_timeout": left}, task_vars=task_vars)
            attempts += report.get("attempts", 1)
            elapsed = time.monotonic() - started
            passed = not report.get("failed")
        if "reason" not in report:
            return report
        if passed:
            return {**report, "elapsed": round(elapsed, 2), "attempts": attempts}
        line = status.failure_line(report, elapsed_s=elapsed)
        return {**report, **_failure(report, line, elapsed_s=elapsed, attempts=attempts)}


def _failure(report: dict[str, Any], msg: str, *, elapsed_s: float, attempts: int) -> dict[str, Any]:
    return {
        **report,
        "failed": True,
        "changed": False,
        "msg": msg,
        "elapsed": round(elapsed_s, 2),
        "attempts": attempts,
    }
