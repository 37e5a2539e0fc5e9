"""Progress on standard error while a command waits."""

from __future__ import annotations

import re
import sys
import threading
import time
from abc import ABC, abstractmethod
from types import TracebackType
from typing import Self

import click

from seedcore.cli.render import duration, is_terminal, plain, say, width

_REDRAW_S = 0.2
_BAR = 20
_SPINNER = "|/-\\"
_SHARE = re.compile(r"\b(\d+) of (\d+) organs ready")


class _Line(ABC):
    """One line of standard error that its own thread redraws; it draws nothing without a terminal."""

    def __init__(self) -> None:
        self.live = is_terminal(sys.stderr)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._keep_drawing, daemon=True)

    @abstractmethod
    def text(self) -> str:
        """Return the present text; "" for none."""

    def __enter__(self) -> Self:
        """Start to draw."""
        if self.live:
            self._thread.start()
        return self

    def __exit__(self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None) -> None:
        """Clear the line."""
        if self.live:
            self._ended.set()
            self._thread.join()
            click.echo("\r\x1b[K", nl=False, err=True, color=True)

    def _keep_drawing(self) -> None:
        while not self._ended.wait(_REDRAW_S):
            text = self.text()
            try:
                click.echo(f"\r\x1b[K{text[: max(20, width() - 1)]}", nl=False, err=True, color=True)
            except OSError:
                return


class Progress(_Line):
    """The progress of a wait: one line that changes on a terminal, one line per change elsewhere.

    Args:
        limit_s: Time limit of the wait in seconds.
    """

    def __init__(self, *, limit_s: float) -> None:
        super().__init__()
        self._limit_s = limit_s
        self._began = time.monotonic()
        self._last = ""

    def __call__(self, text: str) -> None:
        """Show ``text`` unless it is already shown."""
        text = plain(text)
        if text == self._last:
            return
        self._last = text
        if not self.live:
            say(text)

    def text(self) -> str:
        """Return the progress, with a bar if the text has counts."""
        elapsed = time.monotonic() - self._began
        clock = f"{duration(elapsed)} of {duration(self._limit_s)}"
        found = _SHARE.search(self._last)
        if found and int(found[2]):
            return f"{bar(int(found[1]) / int(found[2]))} {clock}  {self._last}"
        return f"{_SPINNER[int(elapsed / _REDRAW_S) % len(_SPINNER)]} {clock}  {self._last or 'waiting for an answer'}"


class TaskBar(_Line):
    """The progress of many tasks.

    Args:
        total: Number of tasks, None if unknown.
    """

    def __init__(self, total: int | None) -> None:
        super().__init__()
        self.done = 0
        self.failed = 0
        self.note = ""
        self._total = total
        self._began = time.monotonic()

    @property
    def elapsed_s(self) -> float:
        """Return the seconds since the beginning."""
        return time.monotonic() - self._began

    @property
    def per_s(self) -> float:
        """Return the tasks per second, from the beginning."""
        return self.done / max(1e-3, self.elapsed_s)

    def text(self) -> str:
        """Return counts, the rate, and the estimated time left."""
        parts = [f"{self.done} of {self._total}" if self._total is not None else f"{self.done} done"]
        if self.failed:
            parts.append(f"{self.failed} failed")
        parts.append(f"{self.per_s:.1f}/s")
        if self._total and self.done:
            parts.insert(0, bar(self.done / self._total))
            parts.append(f"{duration((self._total - self.done) / self.per_s)} left")
        return "  ".join([*parts, *([self.note] if self.note else [])])


def bar(share: float) -> str:
    """Draw a share from 0 to 1."""
    full = min(_BAR, int(share * _BAR))
    return f"[{'#' * full}{'.' * (_BAR - full)}]"
