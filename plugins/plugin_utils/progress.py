"""Show the progress of a wait on the controller's screen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible.utils.display import Display


class Progress:
    """Print a line for each report with a new message.

    Attributes:
        said: The status and message that were printed last.
    """

    def __init__(self, host: str) -> None:
        self._host = host
        self.said = ""

    def show(self, report: Mapping[str, Any], *, elapsed_s: float) -> None:
        """Print the report's stage unless it was the last one printed; a failed module has no stage."""
        if "reason" not in report:
            return
        line = f"{report['status']}: {report['message']}"
        if line != self.said:
            self.said = line
            Display().display(f"  [{self._host}] {line} ({elapsed_s:.0f} s)")
