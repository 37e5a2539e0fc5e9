"""Log lines that cannot be forged: one event is one ASCII line, whatever text callers and agents put into it."""

from __future__ import annotations

import logging
import os
import re
from contextvars import ContextVar
from types import TracebackType
from typing import Any, TextIO

from seedcore.core.settings import DEFAULT_LOG_LEVEL, LOG_LEVEL, LOG_LEVELS

FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
AGENT_FORMAT = "%(asctime)s %(levelname)s %(agent_id)s %(name)s: %(message)s"
MAX_CHARS = 10_000
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")

current_agent: ContextVar[str] = ContextVar("current_agent", default="-")
"""Id of the agent whose code is running."""

_Caught = tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]


def escaped(text: str) -> str:
    r"""Escape everything that is not printable ASCII (``\n``, ``\x1b``, ``\u2028``), and cut long text."""
    cut = text if len(text) <= MAX_CHARS else text[:MAX_CHARS] + "..."
    return _CONTROL.sub(lambda found: repr(found[0])[1:-1], cut).encode("ascii", "backslashreplace").decode("ascii")


class Formatter(logging.Formatter):
    """Escape the message and indent the lines of a traceback, so that none of them looks like an event."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        """Return the event as one line."""
        return escaped(super().formatMessage(record))

    def formatException(self, ei: _Caught) -> str:  # noqa: N802 - logging's name
        """Return the traceback."""
        return _indented(super().formatException(ei))

    def formatStack(self, stack_info: str) -> str:  # noqa: N802 - logging's name
        """Return the stack."""
        return _indented(super().formatStack(stack_info))


def level() -> str:
    """Return the log level from the environment, or the default for a value that Settings would reject."""
    given = os.environ.get(LOG_LEVEL, "").upper()
    return given if given in LOG_LEVELS else DEFAULT_LOG_LEVEL


def inherited() -> dict[str, str]:
    """Return the variable for the actors that this process creates, unless it has the default value."""
    return {LOG_LEVEL: level()} if level() != DEFAULT_LOG_LEVEL else {}


def configure() -> None:
    """Log to stderr at the level of the environment, unless logging is already configured."""
    logging.basicConfig(level=level(), handlers=[_handler()])


def configure_library() -> None:
    """Configure only SeedCore's own logger, for an organ's process, whose other loggers belong to the user."""
    logger = logging.getLogger("seedcore")
    logger.setLevel(level())
    # An agent may configure the root logger, whose handlers would log every line twice.
    logger.propagate = False
    logger.handlers = [_handler()]


def configure_agents() -> None:
    """Log messages of agents with the time and the agent's id, unless they configure logging themselves."""
    handler = _handler(AGENT_FORMAT)
    handler.addFilter(_name_agent)
    root, basic_config = logging.getLogger(), logging.basicConfig
    root.addHandler(handler)
    root.setLevel(level())

    def configure(**given: Any) -> None:
        # basicConfig does nothing if there is a handler; `logging.info` calls it without arguments.
        if given and root.handlers == [handler]:
            root.removeHandler(handler)
        basic_config(**given)

    logging.basicConfig = configure


def protect_default() -> None:
    """Leave logging to the user's code, but protect the handler that Python uses if none is configured."""
    if logging.lastResort is not None:
        logging.lastResort.setFormatter(Formatter())


def _handler(text: str = FORMAT) -> logging.StreamHandler[TextIO]:
    handler = logging.StreamHandler()
    handler.setFormatter(Formatter(text))
    return handler


def _name_agent(record: logging.LogRecord) -> bool:
    record.agent_id = current_agent.get()
    return True


def _indented(text: str) -> str:
    return "\n".join(f"    {escaped(line)}" for line in re.split(r"\r?\n", text))
