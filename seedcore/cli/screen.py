"""Full-screen drawing that restores the terminal at the end."""

from __future__ import annotations

import contextlib
import os
import select
import sys
import time
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Any, Self

import click

from seedcore.cli.output import data
from seedcore.cli.render import coloured, cut, is_terminal

_ENTER, _LEAVE = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"
_HOME, _REST_OF_LINE, _BELOW = "\x1b[H", "\x1b[K", "\x1b[J"


class Screen:
    """The whole terminal; ``q`` or Ctrl-C ends the command."""

    def __init__(self) -> None:
        self._saved: Any = None

    @staticmethod
    def is_possible() -> bool:
        """Return whether standard output is a terminal."""
        return is_terminal(data())

    def __enter__(self) -> Self:
        """Save the terminal's state and clear it."""
        with contextlib.suppress(ImportError, OSError, ValueError):
            import termios  # noqa: PLC0415 - only here
            import tty  # noqa: PLC0415

            self._saved = termios.tcgetattr(sys.stdin.fileno())
            tty.setcbreak(sys.stdin.fileno())
        _write(_ENTER)
        return self

    def __exit__(self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None) -> None:
        """Restore the terminal."""
        _write(_LEAVE)
        if self._saved is not None:
            import termios  # noqa: PLC0415

            termios.tcsetattr(sys.stdin.fileno(), termios.TCSADRAIN, self._saved)

    def draw(self, lines: Sequence[str]) -> None:
        """Draw the lines, cut to the size of the terminal."""
        size = os.get_terminal_size(data().fileno())
        plain = not coloured(data())
        fitting = [click.unstyle(line) if plain else line for line in lines[: size.lines]]
        shown = [cut(line, size.columns) + _REST_OF_LINE for line in fitting]
        _write(_HOME + "\r\n".join(shown) + _BELOW)

    def wait(self, seconds: float) -> bool:
        """Wait; return True if the user has pressed ``q``."""
        if self._saved is None:
            time.sleep(seconds)
            return False
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            ready, _, _ = select.select([sys.stdin], [], [], left)
            if ready and os.read(sys.stdin.fileno(), 1) in {b"q", b"Q", b""}:
                return True
        return False


@contextlib.contextmanager
def leaving() -> Iterator[None]:
    """Treat Ctrl-C as a normal end, for commands that only the user ends."""
    with contextlib.suppress(KeyboardInterrupt):
        yield


def _write(text: str) -> None:
    data().write(text)
    data().flush()
