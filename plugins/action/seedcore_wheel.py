# SPDX-License-Identifier: Apache-2.0
"""The controller's half of seedcore_wheel: a place for the wheels that is gone when the playbook ends."""

from __future__ import annotations

import json
import os
import tempfile
from typing import Any

from ansible import constants
from ansible.plugins.action import ActionBase

MODULE = "seedcore.cluster.seedcore_wheel"


class ActionModule(ActionBase):  # type: ignore[misc]  # Ansible is not typed
    """Runs the module."""

    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Run the task."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        arguments = dict(self._task.args)
        # ansible-playbook makes the directory above for itself, and removes it at its end, also when it is interrupted.
        arguments["dest"] = arguments.get("dest") or tempfile.mkdtemp(prefix="wheels-", dir=constants.DEFAULT_LOCAL_TMP)
        # An environment that Ansible passes on is on a command line, and what a module is given may be shown.
        environment = dict(arguments.pop("environment", None) or {})
        descriptor, arguments["environment_file"] = tempfile.mkstemp(
            prefix="environment-", dir=constants.DEFAULT_LOCAL_TMP
        )
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            json.dump({str(name): str(value) for name, value in environment.items()}, stream)
        answer = self._execute_module(module_name=MODULE, module_args=arguments, task_vars=task_vars)
        return {**result, **answer, "dest": arguments["dest"]}
