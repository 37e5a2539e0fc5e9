"""Test that `seedcore new` writes a project whose test passes and whose organism.yaml is valid."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

FILES = ["my_agents/my_agents.py", "my_agents/test_my_agents.py", "my_agents/pyproject.toml", "organism.yaml"]


def new(directory: Path, name: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "seedcore", "new", name], cwd=directory, capture_output=True, text=True, check=False
    )


def test_the_files_are_written_and_work(tmp_path: Path) -> None:
    done = new(tmp_path, "my_agents")

    assert (done.returncode, done.stdout.splitlines()) == (0, FILES)
    tested = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"], cwd=tmp_path / "my_agents",
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert tested.returncode == 0, tested.stdout
    checked = subprocess.run(
        [sys.executable, "-m", "seedcore", "config", "check", "--config", "organism.yaml"], cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": "my_agents"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert checked.returncode == 0, checked.stderr


@pytest.mark.parametrize("there", FILES)
def test_a_file_that_exists_is_left_alone_and_nothing_is_written(tmp_path: Path, there: str) -> None:
    (tmp_path / there).parent.mkdir(exist_ok=True)
    (tmp_path / there).write_text("mine")

    done = new(tmp_path, "my_agents")

    assert done.returncode == 2
    assert f"{there} exists already" in done.stderr
    assert [path.read_text() for path in tmp_path.rglob("*") if path.is_file()] == ["mine"]


@pytest.mark.parametrize("name", ["my-agents", "class", "../up", "", "\u00fcber"])
def test_a_name_that_no_module_can_have_is_refused(tmp_path: Path, name: str) -> None:
    done = new(tmp_path, name)

    assert done.returncode == 2
    assert "expected a Python identifier" in done.stderr
    assert list(tmp_path.iterdir()) == []
