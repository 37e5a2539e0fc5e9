"""Test stacked virtual environments: what one imports, and from where."""

from __future__ import annotations

import subprocess
import venv
from pathlib import Path

import pytest

PROGRAM = Path(__file__).parents[3] / "roles" / "seedcore" / "files" / "put_on_top.py"


def packages(environment: Path) -> Path:
    """Return the directory of an environment's packages."""
    return next(environment.glob("lib/python*/site-packages"))


def run(environment: Path, *arguments: str) -> str:
    """Run the Python of an environment."""
    command = [str(environment / "bin" / "python"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.strip()


@pytest.fixture
def layers(tmp_path: Path) -> list[Path]:
    """Provide three environments, the lowest first, each with its own module and one that all have."""
    made: list[Path] = []
    for name in ("ray", "release", "agents"):
        environment = tmp_path / f"{name}'s"
        venv.create(environment, symlinks=True)
        (packages(environment) / f"of_{name}.py").touch()
        (packages(environment) / "everywhere.py").write_text(f"HERE = {name!r}")
        if made:
            run(environment, "-c", PROGRAM.read_text(), str(made[-1]))
        made.append(environment)
    return made


def test_an_environment_sees_what_is_below_it_and_its_own_comes_first(layers: list[Path]) -> None:
    ray, release, agents = layers

    assert run(agents, "-c", "import of_ray, of_release, of_agents, everywhere; print(everywhere.HERE)") == "agents"
    assert run(release, "-c", "import of_ray, everywhere; print(everywhere.HERE)") == "release"
    assert run(ray, "-c", "import everywhere; print(everywhere.HERE)") == "ray"
    for environment, module in ((ray, "of_release"), (release, "of_agents")):
        code = f"import importlib.util; print(importlib.util.find_spec({module!r}))"
        assert run(environment, "-c", code) == "None"


def test_what_a_layer_tells_python_at_its_start_holds_above_it_too(layers: list[Path]) -> None:
    ray, _, agents = layers
    (packages(ray) / "starts.pth").write_text("import sys; sys.started = True\n")

    assert run(agents, "-c", "import sys; print(sys.started)") == "True"


def test_the_packages_below_are_found_by_their_metadata(layers: list[Path]) -> None:
    ray, _, agents = layers
    information = packages(ray) / "ray-2.60.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: ray\nVersion: 2.60.0\n")

    assert run(agents, "-c", "from importlib.metadata import version; print(version('ray'))") == "2.60.0"


def test_it_may_be_said_twice(layers: list[Path]) -> None:
    _, release, agents = layers
    before = run(agents, "-c", "import sys; print(sys.path)")

    run(agents, "-c", PROGRAM.read_text(), str(release))

    assert run(agents, "-c", "import sys; print(sys.path)") == before
