"""Format evidence as text: everything for a file, a summary for a screen. Pure functions without Ansible."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
# From here on, Ray repeats the same traceback.
_AGAIN = "During handling of the above exception, another exception occurred"
# Lines that Ray writes into the logs of its workers for its own use.
_MARK = re.compile(r":(job_id|actor_name|task_name):")
_TEXTS = ("traceback", "cause")
# Keys of Ansible, and keys that are formatted separately.
_NOT_STATUS = frozenset({"changed", "failed", "msg", "exception", "evidence", "cause", "invocation"})
SCREEN_TRACEBACK_LINES = 30
SCREEN_LOG_LINES = 6


def whole(report: Mapping[str, Any], sections: Iterable[Mapping[str, str]], *, host: str) -> str:
    """Return the full text, for a file."""
    status = {key: value for key, value in report.items() if key not in _NOT_STATUS}
    parts = [headline(report), f"host: {host}"]
    parts += _titled("the last status", json.dumps(status, indent=2, default=str))
    for title, text in _tracebacks(report):
        parts += _titled(title, text)
    others = {key: value for key, value in (report.get("evidence") or {}).items() if key not in _TEXTS}
    if others:
        parts += _titled("facts behind the status", json.dumps(others, indent=2, default=str))
    for section in sections:
        parts += _titled(section["title"], section["text"])
    return _COLOUR.sub("", "\n".join(parts)) + "\n"


def essence(report: Mapping[str, Any], sections: Iterable[Mapping[str, str]], *, host: str, path: str) -> str:
    """Return the summary, for a screen."""
    parts = [f"host: {host}"]
    for title, text in _tracebacks(report)[:1]:
        lines = [line for line in text.split(_AGAIN)[0].splitlines() if line.strip()]
        parts += _titled(title, "\n".join(_shortened(lines, SCREEN_TRACEBACK_LINES)))
    said: set[str] = set()
    for section in sections:
        lines = [line for line in section["text"].splitlines() if line.strip() and not _MARK.match(line)]
        text = "\n".join(lines[-SCREEN_LOG_LINES:])
        if text and text not in said:
            said.add(text)
            parts += _titled(section["title"], text)
    parts += ["", f"Full evidence: {path} on the controller", headline(report)]
    return _COLOUR.sub("", "\n".join(parts))


def headline(report: Mapping[str, Any]) -> str:
    """Return the cause in one line."""
    return f"{report.get('reason')}: {report.get('message')}"


def _tracebacks(report: Mapping[str, Any]) -> list[tuple[str, str]]:
    died = str((report.get("evidence") or {}).get("traceback") or "")
    cause = str(report.get("cause") or "")
    found = [("why the Coordinator's actor died", died), ("why the last creation failed", cause)]
    return [(title, text.strip()) for title, text in (found if cause != died else found[:1]) if text.strip()]


def _shortened(lines: list[str], count: int) -> list[str]:
    """Keep the beginning and the end, with the agent's own error and its consequence."""
    if len(lines) <= count:
        return lines
    return [*lines[: count // 2], f"  ... {len(lines) - count} lines more ...", *lines[-count // 2 :]]


def _titled(title: str, text: str) -> list[str]:
    return ["", f"==> {title}", text]
