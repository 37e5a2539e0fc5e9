"""Define the agents: a class that reads logs on its node, and a function that merges the results of several readers."""

from __future__ import annotations

import gzip
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .lines import LEVELS, Line, parse

if TYPE_CHECKING:
    from seedcore import Task

SAMPLES = Path(__file__).with_name("sample_logs")
_MAX_LINE_CHARS = 10_000


class LogReader:
    """Reads the log files of one directory of its node.

    Task types:
        ``list_logs``: no params; gives ``directory`` and ``files``, a list of ``{file, bytes}``.

        ``triage_log``: params ``file: str, min_level: str = "WARNING", top: int = 50``; gives ``file, lines, levels``
        (lines of each level), ``first`` and ``last`` (times), ``truncated`` and ``groups``, the worst first: a list of
        ``{pattern, level, count, first, last, example, line}``.

    Args:
        agent_id: The agent's own id.
        directory: Directory of the logs; "" means the samples in this package.
        pattern: Pattern of the names of log files; files ending in ``.gz`` are decompressed.
        max_megabytes: Upper limit of the data read from a file, after decompression.
    """

    def __init__(
        self, agent_id: str, *, directory: str = "", pattern: str = "*.log", max_megabytes: float = 64
    ) -> None:
        self.agent_id = agent_id
        self.directory = Path(directory) if directory else SAMPLES
        self.pattern = pattern
        self.max_chars = int(max_megabytes * 1024 * 1024)

    def start(self) -> None:
        """Check the directory, so that a wrong one fails the start and not every task."""
        if not os.access(self.directory, os.R_OK | os.X_OK):
            raise FileNotFoundError(f"{self.agent_id} cannot read the directory {self.directory}")

    def check_health(self) -> bool:
        """Return whether the logs can still be read."""
        return os.access(self.directory, os.R_OK | os.X_OK)

    def execute(self, task: Task) -> dict[str, Any]:
        """Execute one task; it reads files, so it is sync and runs in a thread."""
        if task.type == "list_logs":
            files = [{"file": path.name, "bytes": path.stat().st_size} for path in self._logs()]
            return {"directory": str(self.directory), "files": files}
        level = str(task.params.get("min_level", "WARNING")).upper()
        if level not in LEVELS:
            raise ValueError(f"min_level must be one of {', '.join(LEVELS)}, got {level!r}")
        top = task.params.get("top", 50)
        if not isinstance(top, int) or top < 1:
            raise ValueError(f"top must be an integer of at least 1, got {top!r}")
        return self._triage(self._log(task.params.get("file")), LEVELS[LEVELS.index(level) :], top)

    def _logs(self) -> list[Path]:
        return sorted(path for path in self.directory.glob(self.pattern) if path.is_file())

    def _log(self, name: Any) -> Path:
        # Compare names instead of joining paths, so that a task can read only the logs of this directory.
        for path in self._logs():
            if path.name == name:
                return path
        raise FileNotFoundError(f"there is no log {name!r} in {self.directory}")

    def _triage(self, path: Path, wanted: tuple[str, ...], top: int) -> dict[str, Any]:
        levels: Counter[str] = Counter()
        groups: dict[tuple[str, str], dict[str, Any]] = {}
        times: list[str] = []
        number, left = 0, self.max_chars
        for number, (text, line) in enumerate(self._lines(path), start=1):
            left -= len(text) + 1
            levels[line.level] += 1
            if line.time is not None:
                times = [times[0] if times else line.time, line.time]
            if line.level in wanted:
                group = groups.setdefault(
                    (line.level, line.pattern),
                    {"count": 0, "first": line.time, "example": text[:300], "line": number},
                )
                group["count"] += 1
                group["last"] = line.time
            if left <= 0:
                break
        found = [{"pattern": pattern, "level": level, **group} for (level, pattern), group in groups.items()]
        return {
            "file": path.name,
            "lines": number,
            "levels": dict(levels),
            "first": times[0] if times else None,
            "last": times[-1] if times else None,
            "truncated": left <= 0,
            "groups": sorted(found, key=_worst_first)[:top],
        }

    def _lines(self, path: Path) -> Iterator[tuple[str, Line]]:
        opener = gzip.open if path.suffix == ".gz" else open
        with opener(path, "rt", encoding="utf-8", errors="replace") as file:
            while text := file.readline(_MAX_LINE_CHARS):
                text = text.rstrip()
                if text:
                    yield text, parse(text)


def report(task: Task, *, top: int = 10) -> dict[str, Any]:
    """Merge the results of several readers.

    Task types:
        ``report_logs``: params ``parts`` (a list of answers of ``triage_log``); gives ``files, lines, levels, groups``
        (as there, with ``files`` in place of ``line``) and ``text``, a table for people.

    Args:
        task: What to do.
        top: Groups in the report.
    """
    parts = task.params.get("parts")
    if not isinstance(parts, list) or not all(isinstance(part, dict) and "groups" in part for part in parts):
        raise ValueError("params key 'parts' must be a list of answers of triage_log")
    levels: Counter[str] = Counter()
    merged: dict[tuple[str, str], dict[str, Any]] = {}
    for part in parts:
        levels.update(part["levels"])
        for found in part["groups"]:
            empty = {**{key: found[key] for key in ("pattern", "level", "example")}, "count": 0, "files": []}
            group = merged.setdefault((found["level"], found["pattern"]), empty)
            group["count"] += found["count"]
            group["files"].append(part["file"])
    groups = sorted(merged.values(), key=_worst_first)[:top]
    rows = [f"{g['count']:>6}  {g['level']:<8}  {g['pattern']}  ({', '.join(g['files'])})" for g in groups]
    lines = sum(part["lines"] for part in parts)
    counts = ", ".join(f"{levels[level]} {level}" for level in reversed(LEVELS) if levels[level])
    return {
        "files": len(parts),
        "lines": lines,
        "levels": dict(levels),
        "groups": groups,
        "text": "\n".join([f"{lines} lines in {len(parts)} files: {counts}", *rows]),
    }


def _worst_first(group: dict[str, Any]) -> tuple[int, int, str]:
    return -LEVELS.index(group["level"]), -group["count"], group["pattern"]
