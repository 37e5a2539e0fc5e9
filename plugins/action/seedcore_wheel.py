# SPDX-License-Identifier: Apache-2.0
"""The controller's part of seedcore_wheel: provide a directory for the wheels that lasts as long as the playbook."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

from ansible import constants
from ansible.plugins.action import ActionBase

MODULE = "seedcore.cluster.seedcore_wheel"


def cache() -> Path:
    """Return the directory for wheels that were built before."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "seedcore", "wheels")


class ActionModule(ActionBase):  # type: ignore[misc]  # Ansible is not typed
    """Run the module."""

    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Run the task."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        arguments = dict(self._task.args)
        # ansible-playbook removes its temporary directory at its end, even if it is interrupted.
        arguments["dest"] = arguments.get("dest") or tempfile.mkdtemp(prefix="wheels-", dir=constants.DEFAULT_LOCAL_TMP)
        arguments["cache"] = arguments.get("cache") or str(cache())
        # Ansible puts a task's environment on a command line and may show a module's arguments, so use a file.
        environment = dict(arguments.pop("environment", None) or {})
        descriptor, arguments["environment_file"] = tempfile.mkstemp(
            prefix="environment-", dir=constants.DEFAULT_LOCAL_TMP
        )
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            json.dump({str(name): str(value) for name, value in environment.items()}, stream)
        answer = self._execute_module(module_name=MODULE, module_args=arguments, task_vars=task_vars)
        return {**result, **answer, "dest": arguments["dest"]}
