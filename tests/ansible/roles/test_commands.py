"""Run the rendered commands of a deployment's directory bin."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def prefix(tmp_path: Path, variable: Callable[..., Any]) -> Path:
    """Provide a deployment whose programs print their environment."""
    (tmp_path / "current" / "bin").mkdir(parents=True)
    (tmp_path / "ray" / "current" / "bin").mkdir(parents=True)
    for program in ("current/bin/python", "current/bin/seedcore", "ray/current/bin/ray"):
        (tmp_path / program).write_text("#!/bin/sh\nexec env\n")
        (tmp_path / program).chmod(0o755)
    given = {"ray_prefix": str(tmp_path), "ray_become": False, "seedcore_namespace": "team-a"}
    for role in ("seedcore", "ray"):
        for entry in variable(f"__{role}_files", role, **given):
            if "content" in entry:
                path = Path(entry["path"])
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(entry["content"])
                path.chmod(0o755)
    return tmp_path


@pytest.mark.parametrize("command", ["seedcore", "python", "ray"])
def test_a_command_takes_its_settings_from_the_deployment_alone(prefix: Path, command: str) -> None:
    shell = {"PYTHONPATH": "/elsewhere", "PYTHONHOME": "/elsewhere", "RAY_ADDRESS": "other:1", "no_proxy": "intern"}
    done = subprocess.run(
        [prefix / "bin" / command],
        env={"PATH": os.environ["PATH"], "http_proxy": "http://127.0.0.1:9", **shell},
        capture_output=True,
        text=True,
        check=True,
    )
    seen = dict(line.split("=", 1) for line in done.stdout.splitlines())

    assert "PYTHONPATH" not in seen
    assert "PYTHONHOME" not in seen
    assert seen["RAY_ADDRESS"] == "10.0.0.1:6379"
    assert seen["http_proxy"] == "http://127.0.0.1:9"
    assert {"127.0.0.1", "localhost", "10.0.0.1", "intern"} == set(seen["no_proxy"].split(","))


def test_a_shell_has_the_programs_of_the_release_and_those_of_ray(prefix: Path) -> None:
    (prefix / "ray" / "current" / "bin" / "python").write_text("#!/bin/sh\necho another\n")
    found = subprocess.run(
        ["sh", "-c", f". {prefix}/bin/activate && for name in python seedcore ray; do command -v $name; done"],
        env={"PATH": os.environ["PATH"]}, capture_output=True, text=True, check=True,
    )  # fmt: skip

    places = ["current/bin/python", "current/bin/seedcore", "ray/current/bin/ray"]
    assert found.stdout.splitlines() == [f"{prefix}/{place}" for place in places]
