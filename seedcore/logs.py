"""Log lines that nobody can forge: one event is one line of ASCII, whatever text callers and agents put into it."""

from __future__ import annotations

import logging
import re
from types import TracebackType

FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
MAX_CHARS = 10_000
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")

_Caught = tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]


def escaped(text: str) -> str:
    r"""Write everything that is not printable ASCII as an escape (``\n``, ``\x1b``, ``\u2028``), and cut long text."""
    cut = text if len(text) <= MAX_CHARS else text[:MAX_CHARS] + "..."
    return _CONTROL.sub(lambda found: repr(found[0])[1:-1], cut).encode("ascii", "backslashreplace").decode("ascii")


class Formatter(logging.Formatter):
    """Escapes the message; the lines of a traceback follow it, indented, so that none looks like an event."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        """Return the event as one line."""
        return escaped(super().formatMessage(record))

    def formatException(self, ei: _Caught) -> str:  # noqa: N802 - logging's name
        """Return the traceback."""
        return _indented(super().formatException(ei))

    def formatStack(self, stack_info: str) -> str:  # noqa: N802 - logging's name
        """Return the stack."""
        return _indented(super().formatStack(stack_info))


def configure() -> None:
    """Log to stderr from INFO on, unless somebody has configured logging already."""
    handler = logging.StreamHandler()
    handler.setFormatter(Formatter(FORMAT))
    logging.basicConfig(level=logging.INFO, handlers=[handler])


def protect_default() -> None:
    """Leave logging to the user's code, but protect the handler that Python uses where nobody has configured one."""
    if logging.lastResort is not None:
        logging.lastResort.setFormatter(Formatter())


def _indented(text: str) -> str:
    return "\n".join(f"    {escaped(line)}" for line in re.split(r"\r?\n", text))
