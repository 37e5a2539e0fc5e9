# SPDX-License-Identifier: Apache-2.0
"""Output of a run: the changes, and last the next steps or the cause of the failure."""

from __future__ import annotations

DOCUMENTATION = r"""
name: outcome
type: stdout
short_description: Ends the output of a run with the next steps, or with the cause of the failure
version_added: 0.1.0
author:
  - SeedCore maintainers (@seedcore)
description:
  - Prints the same as P(ansible.builtin.default#callback), except the names of included files and repeated plays.
  - After the recap it prints the outcome of the run (set with M(ansible.builtin.set_stats) as C(seedcore_outcome)) or,
    after a failure, the host, the task and the cause.
  - With C(display_ok_hosts=false) the output consists of changes, progress of waits, and these last lines.
extends_documentation_fragment:
  - default_callback
  - result_format_callback
requirements:
  - C(stdout_callback=seedcore.cluster.outcome) in the configuration of Ansible.
"""

from collections.abc import Mapping
from typing import Any

from ansible import constants
from ansible.playbook.task_include import TaskInclude
from ansible.plugins.callback.default import CallbackModule as Default

MAX_HOSTS = 10
# In roles/deployment/tasks/give_up.yml: ends a run after a rescue, repeats the message of the failure, may add text.
ENDING_TASK = "End a run that has failed"


class CallbackModule(Default):  # type: ignore[misc]  # Ansible is not typed
    """Ansible's default output, with the outcome after the recap."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "stdout"
    CALLBACK_NAME = "seedcore.cluster.outcome"

    def __init__(self) -> None:
        super().__init__()
        self._failed: dict[str, tuple[str, str]] = {}
        self._shown_plays: set[str] = set()

    def v2_playbook_on_play_start(self, play: Any) -> None:
        """Show the play; of plays that a run repeats, such as those of the lock, only the first one."""
        self._play = play
        if self.get_option("display_ok_hosts") or play.get_name() not in self._shown_plays:
            super().v2_playbook_on_play_start(play)
        self._shown_plays.add(play.get_name())

    def v2_runner_on_ok(self, result: Any) -> None:
        """Show the result, unless the task only includes a file."""
        if self.get_option("display_ok_hosts") or not isinstance(result.task, TaskInclude):
            super().v2_runner_on_ok(result)

    def v2_playbook_on_include(self, included_file: Any) -> None:
        """Show the name of an included file if ok hosts are shown."""
        if self.get_option("display_ok_hosts"):
            super().v2_playbook_on_include(included_file)

    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:  # noqa: FBT001, FBT002 - Ansible's
        """Show the result, and remember the last failure of the host."""
        failed = self._failed.get(result.host.get_name())
        if failed and result.task.get_name().endswith(ENDING_TASK):
            if (said := cause_of(result.result)).startswith(failed[1]):
                self._failed[result.host.get_name()] = (failed[0], said)
            return
        if not ignore_errors:
            self._remember(result)
        super().v2_runner_on_failed(result, ignore_errors)

    def v2_runner_on_unreachable(self, result: Any) -> None:
        """Show the result, and remember that the host was unreachable."""
        self._remember(result)
        super().v2_runner_on_unreachable(result)

    def v2_playbook_on_stats(self, stats: Any) -> None:
        """Print the recap, then the outcome; a cause comes last."""
        super().v2_playbook_on_stats(stats)
        red = {host: self._failed[host] for host in self._failed if stats.failures.get(host) or stats.dark.get(host)}
        if not red:
            for line in _lines(stats.custom.get("_run", {}).get("seedcore_outcome")):
                self._display.display(line, color=constants.COLOR_OK)
            return
        for host, (task, cause) in list(red.items())[:MAX_HOSTS]:
            self._display.display(f"\nRED on {host}, at: {task}", color=constants.COLOR_ERROR)
            for line in cause.splitlines():
                self._display.display(line, color=constants.COLOR_ERROR)

    def _remember(self, result: Any) -> None:
        self._failed[result.host.get_name()] = (result.task.get_name(), cause_of(result.result))


def cause_of(result: Mapping[str, Any]) -> str:
    """Return the text of a failure: its message, those of its failed items, or the last output of a command."""
    items = [item for item in result.get("results") or () if isinstance(item, Mapping) and item.get("failed")]
    if items:
        return "\n".join(dict.fromkeys(cause_of(item) for item in items))
    message = result.get("msg")
    text = "\n".join(map(str, message)) if isinstance(message, list) else str(message or "").strip()
    said = [
        line for line in str(result.get("stderr") or result.get("module_stderr") or "").splitlines() if line.strip()
    ]
    if text in {"", "non-zero return code", "MODULE FAILURE"} and said:
        return f"{text}: {said[-1].strip()}".removeprefix(": ")
    return text or "unknown cause"


def _lines(said: Any) -> list[str]:
    return ["", *map(str, said)] if isinstance(said, list) else []
