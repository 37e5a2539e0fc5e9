"""Test the library without Ansible: `python -m build`, install, and start an organism on a separate Ray."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.ray_head import RayHead

pytestmark = pytest.mark.timeout(600)

ROOT = Path(__file__).parents[2]
UV = Path(sys.executable).parent / "uv"


def run(*command: str | Path, **environ: str) -> subprocess.CompletedProcess[str]:
    foreign = ("RAY_", "SEEDCORE_", "PYTHON", "VIRTUAL_ENV")
    environment = {key: value for key, value in os.environ.items() if not key.startswith(foreign)}
    return subprocess.run(
        command,
        cwd="/",
        env={**environment, **environ},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the source distribution, and the wheel from it, like a user."""
    out = tmp_path_factory.mktemp("dist")
    done = run(sys.executable, "-m", "build", "--no-isolation", "--outdir", out, ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(list(out.glob("seedcore-*.tar.gz"))) == 1
    (built,) = out.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def bin_directory(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Provide a virtual environment with only the wheel and its dependencies."""
    venv = tmp_path_factory.mktemp("venv") / "it"
    lock = ROOT / "roles" / "seedcore" / "files" / "requirements.txt"
    install: list[str | Path] = [UV, "pip", "install", "--quiet", "--python", venv / "bin" / "python"]
    commands: list[list[str | Path]] = [
        [UV, "venv", "--quiet", "--no-project", "--python", sys.executable, venv],
        [*install, "--require-hashes", "--requirement", lock],
        [*install, "--no-deps", wheel],
        # All declared dependencies of the wheel are installed.
        [UV, "pip", "check", "--python", venv / "bin" / "python"],
    ]
    for command in commands:
        done = run(*command)
        assert done.returncode == 0, done.stderr
    return venv / "bin"


@pytest.fixture
def ray(bin_directory: Path) -> Iterator[RayHead]:
    head = RayHead(num_cpus=2, python=str(bin_directory / "python"))
    try:
        head.start()
        yield head
    finally:
        head.close()


def test_it_needs_no_ansible(bin_directory: Path) -> None:
    listed = run(UV, "pip", "list", "--python", bin_directory / "python")

    assert "seedcore" in listed.stdout
    assert "ansible" not in listed.stdout
    assert run(bin_directory / "seedcore", "config", "check").returncode == 0


def test_an_organism_runs_from_it(bin_directory: Path, ray: RayHead) -> None:
    def seedcore(*arguments: str) -> subprocess.CompletedProcess[str]:
        wanted = ("RAY_", "SEEDCORE_", "TMPDIR")
        return run(
            bin_directory / "seedcore",
            *arguments,
            **{key: value for key, value in ray.env().items() if key.startswith(wanted)},
        )

    started = seedcore("bootstrap", "--wait-timeout", "120")
    assert started.returncode == 0, started.stderr
    answer = seedcore("submit", "echo", "--params", '{"text": "hello"}')
    assert answer.returncode == 0, answer.stderr
    assert json.loads(answer.stdout)["success"] is True
    assert seedcore("status").returncode == 0
