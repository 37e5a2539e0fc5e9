from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[3]
COLLECTIONS = ROOT / "collections"
# The plugins import each other by the collection's name, as under Ansible.
sys.path.insert(0, str(COLLECTIONS))

HEALTHY = {
    "healthy": True,
    "status": "healthy",
    "reason": "ready",
    "message": "3 of 3 organs ready",
    "degraded": False,
    "coordinator": {"pid": 42, "release": "1.0-abc"},
    "nodes": {"alive": 1, "expected": 1, "missing": [], "names": ["head"]},
    "evidence": {},
}
STARTING = {
    **HEALTHY,
    "healthy": False,
    "status": "initializing",
    "reason": "starting",
    "message": "1 of 3 organs ready",
}
FAILED = {
    **HEALTHY,
    "healthy": False,
    "status": "unhealthy",
    "reason": "init_failed",
    "message": "agent a_agent_0 did not start: no such file",
    "evidence": {"traceback": "Traceback: no such file"},
}

_SCRIPT = """
    import json, os, sys, time
    here = os.path.dirname(os.path.abspath(__file__))
    with open(os.path.join(here, "calls"), "a") as calls:
        environ = {key: value for key, value in os.environ.items() if key.startswith(("RAY_", "SEEDCORE_"))}
        print(json.dumps([sys.argv[1:], environ]), file=calls)
    number = sum(1 for _ in open(os.path.join(here, "calls")))
"""


@dataclass
class Executable:
    """A real executable in place of the seedcore command line that records its calls."""

    path: Path

    def write(self, body: str) -> None:
        """Set the code that it runs; ``number`` is 1 in the first call, 2 in the second."""
        source = textwrap.dedent(_SCRIPT) + textwrap.dedent(body)
        self.path.write_text(f"#!{sys.executable}\n{source}")
        self.path.chmod(0o755)

    def prints(self, *documents: Any, rc: int = 0) -> None:
        """Make each call print the next of these documents, and later calls the last one."""
        chosen = "documents[min(number, len(documents)) - 1]"
        self.write(f"documents = {documents!r}\nprint(json.dumps({chosen}))\nsys.exit({rc})\n")

    def calls(self) -> list[tuple[list[str], dict[str, str]]]:
        """Return arguments and environment of each call so far."""
        path = self.path.parent / "calls"
        return [tuple(json.loads(line)) for line in path.read_text().splitlines()] if path.exists() else []


@pytest.fixture
def executable(tmp_path: Path) -> Executable:
    directory = tmp_path / "bin"
    directory.mkdir()
    return Executable(directory / "seedcore")


@pytest.fixture
def common_place() -> Iterator[Path]:
    """Provide a directory of root that other users can enter."""
    if os.geteuid() != 0:
        pytest.skip("only root can act as another user, and this is not root")
    with tempfile.TemporaryDirectory() as directory:
        Path(directory).chmod(0o755)
        yield Path(directory)


@pytest.fixture
def run() -> Callable[..., dict[str, Any]]:
    """Provide a function that runs a module in a separate process, as Ansible does on a host."""

    def run_module(name: str, /, *, check: bool = False, **options: Any) -> dict[str, Any]:
        done = subprocess.run(
            [sys.executable, str(ROOT / "plugins" / "modules" / f"{name}.py")],
            input=json.dumps({"ANSIBLE_MODULE_ARGS": {"_ansible_check_mode": check, **options}}),
            env={**os.environ, "PYTHONPATH": str(COLLECTIONS)},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.stdout, done.stderr
        result: dict[str, Any] = json.loads(done.stdout)
        assert result.get("failed", False) == (done.returncode != 0)
        return result

    return run_module
