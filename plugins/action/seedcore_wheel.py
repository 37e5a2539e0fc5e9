# SPDX-License-Identifier: Apache-2.0
"""Build the wheels of a release on the controller, in a directory that lasts as long as the playbook."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

from ansible import constants
from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display
from ansible_collections.seedcore.cluster.plugins.module_utils import locking, wheels


def cache() -> Path:
    """Return the directory for wheels that were built before."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "seedcore", "wheels")


class ActionModule(ActionBase):  # type: ignore[misc]  # Ansible is not typed
    """Do the module's work in this process: it is the controller's, and a module would cost a second one."""

    _supports_check_mode = True
    _requires_connection = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Run the task.

        Raises:
            AnsibleActionFail: A package cannot be built; the text tells what is expected.
        """
        result: dict[str, Any] = super().run(tmp, task_vars)
        _validation, params = self.validate_argument_spec(argument_spec=wheels.ARGUMENT_SPEC)
        # ansible-playbook removes its temporary directory at its end, even if it is interrupted.
        params["dest"] = params["dest"] or tempfile.mkdtemp(prefix="wheels-", dir=constants.DEFAULT_LOCAL_TMP)
        params["cache"] = params["cache"] or str(cache())
        try:
            found, warnings = wheels.run(params)
        except (wheels.PackageError, locking.ResolutionError) as error:
            raise AnsibleActionFail(str(error)) from error
        for warning in warnings:
            Display().warning(warning)
        return {**result, **found, "changed": False, "dest": params["dest"]}
