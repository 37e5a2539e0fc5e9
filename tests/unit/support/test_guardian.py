from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.guardian import ROOT
from tests.support.processes import kill, marked
from tests.support.waiting import eventually

# A session with a head, which is one marked process. It reports that it is ready and waits.
SESSION = """
import os, subprocess, sys
from pathlib import Path
from tests.support.guardian import Guardian
from tests.support.processes import MARK
mark, directory = sys.argv[1:]
Path(directory).mkdir()
guardian = Guardian(mark, Path(directory))
subprocess.Popen(["sleep", "300"], env={**os.environ, MARK: mark}, stdout=subprocess.DEVNULL)
print("ready", flush=True)
if sys.stdin.readline() == "release\\n":
    guardian.release()
    print("released", flush=True)
"""


@pytest.fixture
def mark() -> str:
    return f"guardian-{os.getpid()}"


def session(mark: str, directory: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", SESSION, mark, str(directory)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def test_what_a_killed_session_leaves_is_ended(mark: str, tmp_path: Path) -> None:
    process = session(mark, tmp_path / "head")
    assert list(marked(mark).values()) == ["sleep 300"]

    process.kill()
    process.communicate()

    eventually(lambda: not marked(mark), timeout_s=30, what="the end of the marked process")
    eventually(lambda: not (tmp_path / "head").exists(), timeout_s=30, what="the end of the directory")


def test_what_is_released_is_left_alone(mark: str, tmp_path: Path) -> None:
    process = session(mark, tmp_path / "head")
    try:
        said, _ = process.communicate("release\n", timeout=60)

        assert said == "released\n"
        assert list(marked(mark).values()) == ["sleep 300"]
        assert (tmp_path / "head").exists()
    finally:
        for pid in marked(mark):
            kill(pid)
