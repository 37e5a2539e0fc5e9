"""Remove the oldest logs of dead processes: Ray rotates logs, but keeps those of every process for ever.

It removes only files that Ray has created for one worker or driver, in ``session_*/logs`` below Ray's own directory,
and follows no link there. A process is dead if no process has its pid, or if the one that has it does not write these
files.
"""  # noqa: INP001

from __future__ import annotations

import contextlib
import os
import re
import stat
import time
from pathlib import Path
from typing import NamedTuple

# Rotated files have a number before or after their extension.
_OURS = re.compile(
    r"(?:(?:io_)?worker-(?P<worker>[0-9a-f]+)(?:-[0-9a-f]+)?-(?P<pid>[0-9]+)(?:\.[0-9]+)?\.(?:out|err)"
    r"|python-core-(?:worker|driver)-(?P<core>[0-9a-f]+)_(?P<core_pid>[0-9]+)(?:\.[0-9]+)?\.log"
    r"|event_(?:CORE_WORKER|EXPORT_TASK)_(?P<event_pid>[0-9]+)(?:\.[0-9]+)?\.log)(?:\.[0-9]+)?"
)
_SESSION = re.compile(r"session_[0-9][0-9_-]*")
_DIRECTORIES = ("logs", "logs/old", "logs/events", "logs/export_events")
# A file written this recently may belong to a process that is starting; clocks are not exact either.
MIN_AGE_S = 60.0


class _File(NamedTuple):
    path: str
    process: tuple[str, int]
    identity: tuple[int, int]
    size: int
    written: float


def prune(temp_dir: str, *, max_bytes: int, max_files: int) -> tuple[int, int]:
    """Remove logs of dead processes, the oldest first, until the rest is within the limits.

    Args:
        temp_dir: Ray's directory, which contains the sessions.
        max_bytes: Limit of the total size of the logs of dead processes.
        max_files: Limit of their number.

    Returns:
        The numbers of removed files and bytes.
    """
    processes: dict[tuple[str, int], list[_File]] = {}
    for file in _files(temp_dir):
        processes.setdefault(file.process, []).append(file)
    dead = [files for process, files in processes.items() if not _writes(process[1], files)]
    dead.sort(key=lambda files: max(file.written for file in files), reverse=True)
    size = count = 0
    removed = [0, 0]
    for files in dead:
        size += sum(file.size for file in files)
        count += len(files)
        if size <= max_bytes and count <= max_files:
            continue
        for file in files:
            if _remove(temp_dir, file):
                removed[0] += 1
                removed[1] += file.size
    return removed[0], removed[1]


def _files(temp_dir: str) -> list[_File]:
    found: list[_File] = []
    with contextlib.suppress(OSError), os.scandir(temp_dir) as entries:
        for session in [entry.name for entry in entries if _SESSION.fullmatch(entry.name)]:
            for directory in _DIRECTORIES:
                found += _files_in(temp_dir, f"{session}/{directory}")
    return found


def _files_in(temp_dir: str, directory: str) -> list[_File]:
    found = []
    with contextlib.suppress(OSError), _opened(temp_dir, directory) as opened:
        for entry in os.scandir(opened):
            match = _OURS.fullmatch(entry.name)
            if match is None:
                continue
            with contextlib.suppress(FileNotFoundError):
                one = entry.stat(follow_symlinks=False)
                if stat.S_ISREG(one.st_mode) and one.st_uid == os.geteuid():
                    pid = int(match["pid"] or match["core_pid"] or match["event_pid"])
                    process = (match["worker"] or match["core"] or "", pid)
                    path = f"{directory}/{entry.name}"
                    found.append(_File(path, process, (one.st_dev, one.st_ino), one.st_size, one.st_mtime))
    return found


@contextlib.contextmanager
def _opened(temp_dir: str, directory: str):  # noqa: ANN202 - an iterator of one descriptor
    """Open a directory below ``temp_dir``, part by part, so that no part of the path is a link."""
    opened = os.open(temp_dir, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for part in filter(None, directory.split("/")):
            flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
            below = os.open(part, flags, dir_fd=opened)
            os.close(opened)
            opened = below
        yield opened
    finally:
        os.close(opened)


def _remove(temp_dir: str, file: _File) -> bool:
    directory, name = file.path.rsplit("/", 1)
    # It is already gone, or Ray has moved it.
    with contextlib.suppress(OSError), _opened(temp_dir, directory) as opened:
        now = os.stat(name, dir_fd=opened, follow_symlinks=False)
        if (now.st_dev, now.st_ino) == file.identity:
            os.unlink(name, dir_fd=opened)
            return True
    return False


def _writes(pid: int, files: list[_File]) -> bool:
    """Return whether the process of these files may live."""
    written = max(file.written for file in files)
    if time.time() - written < MIN_AGE_S:
        return True
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return False
    if fields[0] in "ZX":
        return False
    try:
        return not {file.identity for file in files}.isdisjoint(_open_files(pid))
    except OSError:
        # The process hides its open files. If it started after the last write, it is not the writer.
        return _started(int(fields[19])) <= written + MIN_AGE_S


def _open_files(pid: int) -> set[tuple[int, int]]:
    found = set()
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            one = descriptor.stat()
            found.add((one.st_dev, one.st_ino))
    return found


def _started(ticks: int) -> float:
    """Return when a process started, by the clock of files."""
    up_s = float(Path("/proc/uptime").read_text(encoding="ascii").split()[0])
    return time.time() - up_s + ticks / os.sysconf("SC_CLK_TCK")
