"""Test `seedcore dev` like a user: start, edit, break, repair, Ctrl-C."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.ports import free_ports
from tests.support.waiting import eventually

pytestmark = pytest.mark.timeout(600)


class Session:
    """A running `seedcore dev`."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.log = directory / "dev.log"
        (self.port,) = free_ports(1)
        environment = {key: value for key, value in os.environ.items() if not key.startswith(("RAY_", "SEEDCORE_"))}
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "seedcore", "dev", "--port", str(self.port)],
                cwd=directory, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip

    def says(self, pattern: str, *, count: int = 1) -> list[str]:
        """Wait until the output has contained a text this often."""

        def said() -> list[str] | None:
            found = re.findall(pattern, self.log.read_text(errors="replace"))
            assert self.process.poll() is None, self.log.read_text(errors="replace")
            return found if len(found) >= count else None

        return eventually(said, timeout_s=240, what=f"{pattern} in {self.log}")

    def ask(self, kind: str) -> dict[str, Any]:
        """Submit a task over HTTP."""
        (token,) = self.says(r"the token is in (\S+)\)")
        answer: dict[str, Any] = httpx.post(
            f"http://127.0.0.1:{self.port}/coordinator/tasks",
            json={"type": kind},
            headers={"Authorization": f"Bearer {Path(token).read_text()}"},
            timeout=30,
        ).json()
        return answer


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str], None]:
    def write(version: str) -> None:
        (tmp_path / "greeting.py").write_text(f"def greet(task):\n    print('asked')\n    return {version}\n")

    organs = [{"id": "greeter", "type": "T", "agent": "greeting:greet", "task_types": ["greet"]}]
    (tmp_path / "organism.yaml").write_text(json.dumps({"seedcore": {"organism": {"organ_types": organs}}}))
    return write


@pytest.fixture
def session(tmp_path: Path, write: Callable[[str], None]) -> Iterator[Session]:
    write("1")
    running = Session(tmp_path)
    yield running
    running.process.kill()
    running.process.wait()


def left(directory: str) -> list[str]:
    """Return the processes whose command line names a directory."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            text = path.read_bytes().decode(errors="replace")
        except OSError:
            continue
        if directory in text:
            found.append(text)
    return found


def test_an_edit_is_answered_a_broken_one_changes_nothing_and_ctrl_c_leaves_nothing(
    session: Session, write: Callable[[str], None]
) -> None:
    session.says(r"started in [\d.]+ s: ready: 1 of 1 organs ready")
    assert session.ask("greet")["result"] == 1
    session.says(r"\[greeter/0\] asked")

    write("2")
    session.says(r"reloaded in [\d.]+ s: ready")
    assert session.ask("greet")["result"] == 2

    write("3 +")
    session.says(r"organism\.yaml:\d+:\d+: .*SyntaxError")
    session.says(r"the organism stays as it is until a file changes")
    assert session.ask("greet")["result"] == 2

    write("4")
    session.says(r"reloaded in [\d.]+ s: ready", count=2)
    assert session.ask("greet")["result"] == 4

    (directory,) = {match.rpartition("/")[0] for match in session.says(r"the token is in (\S+)\)")}
    assert left(directory)
    session.process.send_signal(signal.SIGINT)
    assert session.process.wait(timeout=60) == 0
    assert not Path(directory).exists()
    assert left(directory) == []


def test_what_is_killed_leaves_no_process(session: Session) -> None:
    (directory,) = {match.rpartition("/")[0] for match in session.says(r"the token is in (\S+)\)")}

    session.process.kill()

    eventually(lambda: not left(directory), timeout_s=60, what="its processes have ended")
    # No process was left to remove it.
    shutil.rmtree(directory)


def test_a_file_with_a_fault_starts_nothing(tmp_path: Path) -> None:
    (tmp_path / "organism.yaml").write_text("seedcore: 1\n")

    done = subprocess.run(
        [sys.executable, "-m", "seedcore", "dev"], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60
    )

    assert done.returncode == 2
    assert "organism.yaml:1:11: " in done.stderr
