"""Show on the controller's screen what a wait is waiting for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible.utils.display import Display


class Progress:
    """Prints a line for each report that says something new."""

    def __init__(self, host: str) -> None:
        self._host = host
        self._said = ""

    def show(self, report: Mapping[str, Any], *, elapsed_s: float) -> None:
        """Print the report's stage unless it has just been said; a report of a failed module has none."""
        if "reason" not in report:
            return
        line = f"{report['status']}: {report['message']}"
        if line != self._said:
            self._said = line
            Display().display(f"  [{self._host}] {line} ({elapsed_s:.0f} s)")
