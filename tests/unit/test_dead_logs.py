"""Test the limits for logs of dead processes; other logs, and those behind links, are left alone."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest

from tests.support.programs import FILES, dead_logs

SESSION = "session_2026-11-26_10-00-00_000000_1"
# No process has this pid, which is above Linux's maximum.
GONE = 4_194_305


@pytest.fixture
def logs(tmp_path: Path) -> Path:
    directory = tmp_path / SESSION / "logs"
    (directory / "old").mkdir(parents=True)
    (tmp_path / "session_latest").symlink_to(SESSION)
    return directory


@pytest.fixture
def processes() -> Iterator[list[subprocess.Popen[bytes]]]:
    started: list[subprocess.Popen[bytes]] = []
    yield started
    for process in started:
        process.kill()
        process.communicate()


def write(directory: Path, name: str, *, age_s: float, size: int = 100) -> Path:
    path = directory / name
    path.write_bytes(b"x" * size)
    then = time.time() - age_s
    os.utime(path, (then, then))
    return path


def worker(directory: Path, number: int, *, age_s: float, pid: int = GONE, size: int = 100) -> list[Path]:
    """Create the three log files of one worker."""
    name = f"worker-{number:056x}-01000000-{pid}"
    return [
        write(directory, f"{name}.out", age_s=age_s, size=size),
        write(directory, f"{name}.err", age_s=age_s + 30, size=size),
        write(directory, f"python-core-worker-{number:056x}_{pid}.log", age_s=age_s + 60, size=size),
    ]


def start(processes: list[subprocess.Popen[bytes]], stream: IO[bytes] | int) -> int:
    """Start a process that sleeps, and return its pid."""
    processes.append(subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], stdout=stream))
    return processes[-1].pid


def there(paths: list[Path]) -> list[bool]:
    return [path.exists() for path in paths]


def prune(logs: Path, *, max_bytes: int = 10**9, max_files: int = 10**6) -> tuple[int, int]:
    removed: tuple[int, int] = dead_logs.prune(str(logs.parents[1]), max_bytes=max_bytes, max_files=max_files)
    return removed


def test_the_oldest_go_first_and_those_of_one_process_together(logs: Path) -> None:
    old, middle = worker(logs / "old", 1, age_s=9000), worker(logs, 2, age_s=5000)
    new = worker(logs, 3, age_s=1000)

    assert prune(logs, max_bytes=600) == (3, 300)
    assert (there(old), there(middle), there(new)) == ([False] * 3, [True] * 3, [True] * 3)
    assert prune(logs, max_files=3) == (3, 300)
    assert (there(middle), there(new)) == ([False] * 3, [True] * 3)
    assert prune(logs, max_files=3, max_bytes=300) == (0, 0)


def test_rotated_files_and_those_of_drivers_and_of_earlier_sessions_count(logs: Path) -> None:
    earlier = logs.parents[1] / "session_2026-11-25_10-00-00_000000_1" / "logs"
    earlier.mkdir(parents=True)
    for name in ("events", "export_events"):
        (logs / name).mkdir()
    name = f"worker-{'a' * 56}-01000000-{GONE}"
    paths = [
        write(earlier, f"{name}.out", age_s=5000),
        write(logs, f"{name}.err.1", age_s=5000),
        write(logs, f"{name}.2.err", age_s=5000),
        write(logs, f"io_worker-{'a' * 56}-{GONE}.out", age_s=5000),
        write(logs, f"worker-{'a' * 56}-{GONE}.err", age_s=5000),
        write(logs / "events", f"event_CORE_WORKER_{GONE}.log", age_s=5000),
        write(logs / "export_events", f"event_EXPORT_TASK_{GONE}.log", age_s=5000),
        write(logs, f"python-core-driver-01000000ffff_{GONE}.log", age_s=5000),
        write(logs, f"python-core-worker-{'a' * 56}_{GONE}.1.log", age_s=5000),
    ]
    assert prune(logs, max_bytes=0) == (9, 900)
    assert there(paths) == [False] * 9


def test_what_a_living_process_writes_stays_with_all_that_it_has_rotated(
    logs: Path, processes: list[subprocess.Popen[bytes]]
) -> None:
    path = logs / "writes"
    with path.open("wb") as stream:
        pid = start(processes, stream)
    paths = worker(logs, 1, age_s=9000, pid=pid)
    paths[0].unlink()
    path.rename(paths[0])
    os.utime(paths[0], (0, 0))
    rotated = write(logs, f"{paths[0].name}.1", age_s=90_000)
    # Another process had the same pid before.
    before = worker(logs, 2, age_s=20_000, pid=pid)

    assert prune(logs, max_bytes=0) == (3, 300)
    assert (there([*paths, rotated]), there(before)) == ([True] * 4, [False] * 3)

    processes[0].kill()
    # A zombie, which its parent has not waited for, writes no more.
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert prune(logs, max_bytes=0)[0] == 4


def test_where_the_files_of_a_process_are_hidden_its_age_tells(logs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def hidden(pid: int) -> set[tuple[int, int]]:
        raise PermissionError(13, "Permission denied", f"/proc/{pid}/fd")

    monkeypatch.setattr(dead_logs, "_open_files", hidden)
    monkeypatch.setattr(dead_logs, "MIN_AGE_S", 0.0)
    before, since = worker(logs, 1, age_s=10**6, pid=os.getpid()), worker(logs, 2, age_s=0, pid=os.getpid())

    assert prune(logs, max_bytes=0)[0] == 3
    assert (there(before), there(since)) == ([False] * 3, [True] * 3)


def test_what_was_written_just_now_stays(logs: Path) -> None:
    paths = worker(logs, 1, age_s=5)
    assert prune(logs, max_bytes=0, max_files=0) == (0, 0)
    assert there(paths) == [True] * 3


def test_no_other_file_is_touched_and_no_link_followed(logs: Path, tmp_path: Path) -> None:
    outside = tmp_path / "elsewhere" / "logs"
    outside.mkdir(parents=True)
    kept = [
        *worker(outside, 1, age_s=9000),
        write(logs, "raylet.out", age_s=9000),
        write(logs, "gcs_server.out", age_s=9000),
        write(logs, "event_GCS.log", age_s=9000),
        write(logs, "runtime_env_setup-01000000.log", age_s=9000),
        write(logs, "worker-of-somebody.out", age_s=9000),
        write(logs, f"worker-{'b' * 56}-01000000-{GONE}.out.mine", age_s=9000),
    ]
    link = logs / f"worker-{'c' * 56}-01000000-{GONE}.out"
    link.symlink_to(kept[0])
    (tmp_path / "session_2026-11-24_10-00-00_000000_1").symlink_to(tmp_path / "elsewhere")
    linked = tmp_path / "session_2026-11-23_10-00-00_000000_1"
    linked.mkdir()
    (linked / "logs").symlink_to(outside)
    (logs / "old").rmdir()
    (logs / "old").symlink_to(outside)

    assert prune(logs, max_bytes=0, max_files=0) == (0, 0)
    assert there(kept) == [True] * len(kept)
    assert link.is_symlink()


def test_the_watchdog_of_a_node_removes_them(logs: Path, processes: list[subprocess.Popen[bytes]]) -> None:
    old, new = worker(logs, 1, age_s=9000), worker(logs, 2, age_s=1000)
    health, limits = "http://127.0.0.1:1/", ("300", "6")
    command = [
        sys.executable,
        str(FILES / "watch_ray_node.py"),
        health,
        str(logs.parents[1]),
        "120",
        "0",
        *limits,
    ]
    processes.append(subprocess.Popen(command, stdout=subprocess.PIPE))
    assert processes[0].stdout is not None
    lines = iter(processes[0].stdout.readline, b"")
    assert b"removed logs of processes that are gone: files=3 bytes=300\n" in lines
    assert (there(old), there(new)) == ([False] * 3, [True] * 3)


def test_a_directory_that_is_not_there_is_no_error(tmp_path: Path) -> None:
    assert dead_logs.prune(str(tmp_path / "nowhere"), max_bytes=0, max_files=0) == (0, 0)
