"""Output of commands: results to standard output, messages to standard error."""

from __future__ import annotations

import json
import os
import re
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TextIO

import click

from seedcore.cli.output import data

if TYPE_CHECKING:
    from seedcore.status.report import Report

BROKEN_PIPE = 141
_COLOURS = {
    **dict.fromkeys(("healthy", "ready"), "green"),
    **dict.fromkeys(("initializing", "starting", "degraded"), "yellow"),
    **dict.fromkeys(("unhealthy", "down"), "red"),
}
_STATUS_COLUMN = 2
_ESCAPE = re.compile("(\x1b\\[[0-9;]*m)")
_MINUTE, _HOUR, _DAY = 60, 3600, 86400


def out(text: str) -> None:
    """Write a result; if the reader has gone, end the command silently."""
    try:
        click.echo(text, file=data(), color=coloured(data()))
    except OSError as error:
        # Python flushes the stream at exit and would raise again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), data().fileno())
        if isinstance(error, BrokenPipeError):
            raise click.exceptions.Exit(BROKEN_PIPE) from None
        raise


def out_json(document: Any) -> None:
    """Write one indented JSON document, in ASCII if the output's encoding cannot represent it."""
    text = json.dumps(document, indent=2, ensure_ascii=False, default=str)
    try:
        text.encode(getattr(data(), "encoding", None) or "ascii")
    except UnicodeEncodeError:
        text = json.dumps(document, indent=2, default=str)
    out(text)


def say(text: str) -> None:
    """Write a message to standard error."""
    try:
        click.echo(text, err=True, color=coloured(sys.stderr))
    except OSError:
        # A closed standard error must not stop the command.
        return


def report_block(report: Report) -> str:
    """Format a report for people: the status, the Coordinator, then every organ."""
    own = report.coordinator
    lines = [f"{status_word(report.status)}  {report.reason}: {plain(report.message)}"]
    if own.get("release"):
        lines.append(f"release      {own['release']}")
    if own.get("agents"):
        lines.append(f"agents       {own['agents']}")
    if own.get("since"):
        lines.append(f"since        {own['since']}{ago(own['since'])}")
    if own.get("pid"):
        lines.append(f"coordinator  {_coordinator_line(own)}")
    listed = (own.get("nodes") or {}).get("list") or ()
    lines.append(f"nodes        {_nodes_line(report.nodes, listed)}")
    if isinstance(inbox := own.get("inbox"), Mapping) and isinstance(inbox.get("tasks"), Mapping):
        lines.append(f"inbox        {_inbox_line(inbox['tasks'])}")
    if report.case.remedy:
        lines.append(f"remedy       {report.case.remedy}")
    if report.help:
        lines.append(f"help         {report.help}")
    organs = own.get("organs")
    if isinstance(organs, Sequence) and organs:
        lines += ["", *table(organs, names={str(node["node_id"]): str(node["node_name"]) for node in listed})]
    lines += [f"evidence     {text}" for text in _evidence(report)]
    return "\n".join(lines)


def plain(text: Any) -> str:
    """Return one printable line: text from user code may hold control characters of a terminal."""
    return printable(" ".join(str(text).split()))


def printable(line: str) -> str:
    """Do the same, but keep blanks."""
    return "".join(char if char.isprintable() else "?" for char in line)


def _coordinator_line(own: Mapping[str, Any]) -> str:
    parts = [f"pid {own['pid']}"]
    if own.get("restarts") is not None:
        parts.append(f"restarts {own['restarts']}")
    if own.get("init_seconds") is not None:
        parts.append(f"initialized in {own['init_seconds']:.1f} s")
    return ", ".join(parts)


def _nodes_line(nodes: Mapping[str, Any], listed: Sequence[Mapping[str, Any]]) -> str:
    text = f"{nodes.get('alive', 0)} of {nodes.get('expected', 0)} alive"
    if names := nodes.get("names"):
        text += f" ({', '.join(map(plain, names))})"
    if leaving := [plain(node["node_name"]) for node in listed if node.get("draining")]:
        text += f", draining: {', '.join(leaving)}"
    if drained := [_drained(node) for node in listed if node.get("drained")]:
        text += f", drained: {', '.join(drained)}"
    if missing := nodes.get("missing"):
        text += f", missing {', '.join(map(plain, missing))}"
    return text


def _drained(node: Mapping[str, Any]) -> str:
    left = len(node.get("left") or ())
    return plain(node["node_name"]) + (f" ({left} processes left)" if left else "")


def _inbox_line(tasks: Mapping[str, Any]) -> str:
    waiting, held = (sum(int(tasks.get(state, 0)) for state in group) for group in (("ready", "later"), _HELD))
    text = f"{waiting} tasks wait, {tasks.get('leased', 0)} run"
    return f"{text}, {held} wait for your decision: seedcore tasks --parked" if held else text


_HELD = ("parked", "failed")


def status_word(status: str) -> str:
    """Return the status in its colour."""
    return click.style(status, fg=_COLOURS.get(status), bold=True)


def table(
    organs: Sequence[Mapping[str, Any]],
    *,
    names: Mapping[str, str] | None = None,
    more: Sequence[str] = (),
    extra: Callable[[Mapping[str, Any]], Sequence[str]] = lambda _: (),
) -> list[str]:
    """Return a table with one line per organ, below its header.

    Args:
        organs: Entries of a status.
        names: Node ids to names; with more than one node, a column shows the nodes of the processes.
        more: Headers of further columns.
        extra: Their values.
    """
    wide = names is not None and len(set(names.values())) > 1
    head = (
        "ORGAN",
        "TYPE",
        "STATUS",
        "AGENTS",
        "REPLICAS",
        "IN FLIGHT",
        "QUEUED",
        *more,
        *(("NODES",) if wide else ()),
    )
    rows = [
        (
            plain(organ.get("organ_id", "?")),
            plain(organ.get("organ_type", "?")),
            "paused" if organ.get("paused") else plain(organ.get("status", "?")),
            f"{organ.get('ready_agents', '?')}/{organ.get('agent_count', '?')}",
            _replicas(organ.get("replicas")),
            str(organ.get("in_flight", "?")),
            str(organ.get("queued", "?")),
            *extra(organ),
            *((_places(organ.get("replicas"), names or {}),) if wide else ()),
        )
        for organ in organs
    ]
    return aligned(head, rows, coloured=_STATUS_COLUMN)


def aligned(head: Sequence[str], rows: Sequence[Sequence[str]], *, coloured: int | None = None) -> list[str]:
    """Return lines of aligned columns below their header; a column with statuses may be coloured."""
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]

    def line(row: Sequence[str]) -> list[str]:
        return [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]

    lines = [click.style("  ".join(line(head)).rstrip(), bold=True)]
    for row in rows:
        cells = line(row)
        cells[-1] = cells[-1].rstrip()
        if coloured is not None:
            cells[coloured] = click.style(cells[coloured], fg=_COLOURS.get(row[coloured]))
        lines.append("  ".join(cells))
    return lines


def cut(line: str, columns: int) -> str:
    """Cut a line that may contain colours to ``columns`` columns."""
    kept, room = [], columns
    for part in _ESCAPE.split(line):
        if part.startswith("\x1b"):
            kept.append(part)
        else:
            kept.append(part[:room])
            room -= len(kept[-1])
    return "".join(kept)


def duration(seconds: float) -> str:
    """Format a duration for people."""
    seconds = max(0.0, seconds)
    if seconds < _MINUTE:
        return f"{seconds:.0f} s"
    if seconds < _HOUR:
        return f"{seconds // _MINUTE:.0f} min {seconds % _MINUTE:.0f} s"
    if seconds < _DAY:
        return f"{seconds // _HOUR:.0f} h {seconds % _HOUR // _MINUTE:.0f} min"
    return f"{seconds // _DAY:.0f} d {seconds % _DAY // _HOUR:.0f} h"


def _places(replicas: Any, names: Mapping[str, str]) -> str:
    """Return the nodes of an organ's processes: ``head, worker-1 x2``."""
    counts = Counter(names.get(str(one.get("node_id")), "?") for one in replicas or () if one.get("node_id"))
    return ", ".join(plain(name) + (f" x{count}" if count > 1 else "") for name, count in sorted(counts.items()))


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


def ago(since: Any) -> str:
    """Return `` (5 min ago)`` for an ISO 8601 text, "" for anything else."""
    try:
        seconds = (datetime.now(UTC) - datetime.fromisoformat(str(since))).total_seconds()
    except (ValueError, TypeError):
        return ""
    for unit, name in ((_DAY, "d"), (_HOUR, "h"), (_MINUTE, "min")):
        if seconds >= unit:
            return f" ({seconds // unit:.0f} {name} ago)"
    return f" ({max(0.0, seconds):.0f} s ago)"


def is_terminal(stream: TextIO | None) -> bool:
    """Return whether a stream is a terminal with escape sequences."""
    return stream is not None and stream.isatty() and os.environ.get("TERM") != "dumb"


def coloured(stream: TextIO | None) -> bool:
    """Return whether to use colours on a stream."""
    # https://no-color.org: any value that is not empty.
    return is_terminal(stream) and not os.environ.get("NO_COLOR")


def width() -> int:
    """Return the number of columns of the terminal at standard error."""
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns
    except (OSError, ValueError):
        return 80
