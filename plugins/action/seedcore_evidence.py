# SPDX-License-Identifier: Apache-2.0
"""The controller's part of seedcore_evidence: show a summary, and keep everything in a file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase
from ansible.utils.display import Display
from ansible_collections.seedcore.cluster.plugins.plugin_utils import evidence


class ActionModule(ActionBase):  # type: ignore[misc]  # Ansible is not typed
    """Run the module, then write and show its result if ``path`` is given."""

    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Run the task."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        result.update(self._execute_module(task_vars=task_vars))
        path = self._task.args.get("path")
        if result.get("failed") or not path:
            return result
        report = self._task.args.get("report") or {}
        host = str((task_vars or {}).get("inventory_hostname", "host"))
        sections = result["sections"]
        target = Path(path).expanduser()
        text = evidence.whole(report, sections, host=host)
        try:
            _write(target, text)
        except OSError as error:
            # Do not fail because of this file: the cause of the failure must come last.
            Display().display(text)
            result["msg"] = (
                f"cannot write the evidence to {target} ({error.strerror}), it is printed above:"
                f" set seedcore_gate_evidence_path to another file"
            )
            Display().warning(result["msg"])
            return result
        Display().display(evidence.essence(report, sections, host=host, path=str(target)))
        result["path"] = str(target)
        return result


def _write(path: Path, text: str) -> None:
    """Replace the file atomically, readable by its owner only from the start."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
        stream.write(text)
    temporary.replace(path)
