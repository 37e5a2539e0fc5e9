"""What commands write: data to standard output, words to standard error."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TextIO

import click

if TYPE_CHECKING:
    from seedcore.status import Report

BROKEN_PIPE = 141
_COLOURS = {"healthy": "green", "initializing": "yellow", "unhealthy": "red"}
_MINUTE, _HOUR, _DAY = 60, 3600, 86400


def out(text: str) -> None:
    """Write data; a reader that has gone away ends the command without a word."""
    try:
        click.echo(text, color=_coloured(sys.stdout))
    except BrokenPipeError:
        # Whatever else would be flushed at exit has to go somewhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise click.exceptions.Exit(BROKEN_PIPE) from None


def out_json(document: Any) -> None:
    """Write one JSON document, readable, in plain ASCII where the output takes nothing else."""
    text = json.dumps(document, indent=2, ensure_ascii=False, default=str)
    try:
        text.encode(getattr(sys.stdout, "encoding", None) or "ascii")
    except UnicodeEncodeError:
        text = json.dumps(document, indent=2, default=str)
    out(text)


def say(text: str) -> None:
    """Write a word to the person, or to the log that listens."""
    try:
        click.echo(text, err=True, color=_coloured(sys.stderr))
    except OSError:
        # Nobody listens any more. That is no reason to stop what was asked for.
        return


class Progress:
    """One line that changes on a terminal; a line for each change anywhere else."""

    def __init__(self) -> None:
        self._live = _is_terminal(sys.stderr)
        self._last = ""

    def __call__(self, text: str) -> None:
        """Show ``text`` unless it is shown already."""
        text = plain(text)
        if text == self._last:
            return
        self._last = text
        if self._live:
            width = max(20, _width() - 1)
            click.echo(f"\r\x1b[K{text[:width]}", nl=False, err=True, color=True)
        else:
            say(text)

    def done(self) -> None:
        """Clear the changing line."""
        if self._live and self._last:
            click.echo("\r\x1b[K", nl=False, err=True, color=True)
            self._last = ""


def report_block(report: Report) -> str:
    """Describe a report for a person: what is, then who, then every organ."""
    own = report.coordinator
    word = click.style(report.status, fg=_COLOURS.get(report.status), bold=True)
    lines = [f"{word}  {report.reason}: {plain(report.message)}"]
    if own.get("release"):
        lines.append(f"release      {own['release']}")
    if own.get("since"):
        lines.append(f"since        {own['since']}{_ago(own['since'])}")
    if own.get("pid"):
        lines.append(f"coordinator  {_coordinator_line(own)}")
    lines.append(f"nodes        {_nodes_line(report.nodes)}")
    organs = own.get("organs")
    if isinstance(organs, Sequence) and organs:
        lines += ["", *_organ_table(organs)]
    lines += [f"evidence     {text}" for text in _evidence(report)]
    return "\n".join(lines)


def plain(text: Any) -> str:
    """One printable line: what comes from user code may hold control characters of a terminal."""
    joined = " ".join(str(text).split())
    return "".join(char if char.isprintable() else "?" for char in joined)


def _coordinator_line(own: Mapping[str, Any]) -> str:
    parts = [f"pid {own['pid']}"]
    if own.get("restarts") is not None:
        parts.append(f"restarts {own['restarts']}")
    if own.get("init_seconds") is not None:
        parts.append(f"initialized in {own['init_seconds']:.1f} s")
    return ", ".join(parts)


def _nodes_line(nodes: Mapping[str, Any]) -> str:
    text = f"{nodes.get('alive', 0)} of {nodes.get('expected', 0)} alive"
    if names := nodes.get("names"):
        text += f" ({', '.join(map(plain, names))})"
    if missing := nodes.get("missing"):
        text += f", missing {', '.join(map(plain, missing))}"
    return text


def _organ_table(organs: Sequence[Mapping[str, Any]]) -> list[str]:
    head = ("ORGAN", "TYPE", "STATUS", "AGENTS", "REPLICAS", "IN FLIGHT", "QUEUED")
    rows = [head] + [
        (
            plain(organ.get("organ_id", "?")),
            plain(organ.get("organ_type", "?")),
            plain(organ.get("status", "?")),
            f"{organ.get('ready_agents', '?')}/{organ.get('agent_count', '?')}",
            _replicas(organ.get("replicas")),
            str(organ.get("in_flight", "?")),
            str(organ.get("queued", "?")),
        )
        for organ in organs
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _replicas(replicas: Any) -> str:
    if not isinstance(replicas, Sequence):
        return "?"
    ready = sum(1 for replica in replicas if replica.get("state") in {"ready", "degraded"})
    return f"{ready}/{len(replicas)}"


def _evidence(report: Report) -> list[str]:
    if report.status != "unhealthy":
        return []
    texts = []
    traceback_lines = [line for line in str(report.evidence.get("traceback") or "").splitlines() if line.strip()]
    if traceback_lines:
        texts.append(plain(traceback_lines[-1]))
    texts += [f"{key}: {plain(value)[:400]}" for key, value in report.evidence.items() if key != "traceback" and value]
    return texts


def _ago(since: Any) -> str:
    try:
        seconds = (datetime.now(UTC) - datetime.fromisoformat(str(since))).total_seconds()
    except (ValueError, TypeError):
        return ""
    for unit, name in ((_DAY, "d"), (_HOUR, "h"), (_MINUTE, "min")):
        if seconds >= unit:
            return f" ({seconds // unit:.0f} {name} ago)"
    return f" ({max(0.0, seconds):.0f} s ago)"


def _is_terminal(stream: TextIO | None) -> bool:
    return stream is not None and stream.isatty() and os.environ.get("TERM") != "dumb"


def _coloured(stream: TextIO | None) -> bool:
    # https://no-color.org: present and not empty, whatever its value.
    return _is_terminal(stream) and not os.environ.get("NO_COLOR")


def _width() -> int:
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns
    except (OSError, ValueError):
        return 80
