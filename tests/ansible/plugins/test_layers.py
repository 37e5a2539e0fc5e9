"""Environments on top of each other: what one of them imports, and from where; and which of them are kept."""

from __future__ import annotations

import json
import subprocess
import venv
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.seedcore.cluster.plugins.module_utils import layers as layers_of
from ansible_collections.seedcore.cluster.plugins.module_utils.layers import Layer, packages, put_on_top


def run(environment: Path, *arguments: str) -> str:
    """Run the Python of an environment."""
    command = [str(environment / "bin" / "python"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.strip()


@pytest.fixture
def layers(tmp_path: Path) -> list[Path]:
    """Three environments, the lowest first, each with a module of its own and one that all of them have."""
    made: list[Path] = []
    for name in ("ray", "release", "agents"):
        environment = tmp_path / f"{name}'s"
        venv.create(environment, symlinks=True)
        (packages(environment) / f"of_{name}.py").touch()
        (packages(environment) / "everywhere.py").write_text(f"HERE = {name!r}")
        if made:
            put_on_top(environment, made[-1])
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

    put_on_top(agents, release)

    assert run(agents, "-c", "import sys; print(sys.path)") == before


def test_without_an_environment_below_nothing_is_put_on_top(tmp_path: Path, layers: list[Path]) -> None:
    with pytest.raises(FileNotFoundError, match="no virtual environment"):
        put_on_top(layers[2], tmp_path / "nowhere")


def layer(path: str, below: str = "", *, made: float = 1.0, complete: bool = True) -> Layer:
    return Layer(path, {"release": "r", "below": below} if complete else {}, made, "")


# Two releases of the library, agents on both, and a release from before there were layers.
KNOWN = [
    layer("releases/0", made=1),
    layer("releases/1", "ray/old", made=2),
    layer("agents/1.a", "releases/1", made=3),
    layer("releases/2", "ray/new", made=4),
    layer("agents/2.a", "releases/2", made=5),
    layer("agents/2.b", "releases/2", made=6),
    layer("releases/half", complete=False, made=7),
    layer("agents/2.half", "releases/2", complete=False, made=8),
]


@pytest.mark.parametrize(
    ("active", "count", "kept"),
    [
        ("agents/2.b", 1, {"agents/2.b", "releases/2", "ray/new"}),
        ("agents/2.a", 1, {"agents/2.a", "releases/2", "ray/new"}),
        ("agents/2.b", 2, {"agents/2.b", "agents/2.a", "releases/2", "ray/new"}),
        ("agents/2.b", 3, {"agents/2.b", "agents/2.a", "releases/2", "ray/new", "agents/1.a", "releases/1", "ray/old"}),
        ("releases/0", 2, {"releases/0", "agents/2.b", "releases/2", "ray/new"}),
        ("releases/2", 1, {"releases/2", "ray/new"}),
    ],
)
def test_what_a_kept_layer_sees_is_kept_and_everything_else_is_not(active: str, count: int, kept: set[str]) -> None:
    assert layers_of.kept(KNOWN, active, count) == kept


def test_only_what_no_other_layer_sees_can_be_active() -> None:
    assert [one.path for one in layers_of.tops(KNOWN)] == ["agents/2.b", "agents/2.a", "agents/1.a", "releases/0"]


def test_environments_are_kept_with_the_agents_that_name_them_and_are_never_active_alone(tmp_path: Path) -> None:
    def write(path: str, **document: Any) -> None:
        (tmp_path / path).mkdir(parents=True)
        (tmp_path / path / "release.json").write_text(json.dumps({"release": "1", **document}))

    write("releases/1", below="ray/a")
    for name in ("vision-1", "vision-2", "nobodys-1"):
        write(f"environments/{name}", below="releases/1")
    for name, vision in (("1.a", "vision-1"), ("1.b", "vision-2"), ("1.c", "vision-gone")):
        python = str(tmp_path / "environments" / vision / "bin" / "python")
        write(f"agents/{name}", below="releases/1", environments={"vision": python})

    found = layers_of.read(tmp_path)

    assert {one.path for one in layers_of.tops(found)} == {"agents/1.a", "agents/1.b"}, "1.c is not complete"
    assert layers_of.kept(found, "agents/1.b", 1) == {"agents/1.b", "environments/vision-2", "releases/1", "ray/a"}
    assert next(one.environments for one in found if one.path == "agents/1.a") == {"vision": "vision-1"}
    # What an active layer sees is kept, even if a part of it is gone.
    assert layers_of.kept(found, "agents/1.c", 1) >= {"agents/1.c", "releases/1", "ray/a"}
    with pytest.raises(layers_of.NoReleaseError):
        layers_of.choose(found, "agents/1.b", "ray/a", "1.c")


def test_the_layers_of_a_deployment_are_read_with_what_they_say(tmp_path: Path) -> None:
    for path, text in (
        ("releases/1", '{"below": "ray/a"}'),
        ("releases/2", "{"),
        ("agents/1.a", "[]"),
        ("ray/a", "{}"),
    ):
        (tmp_path / path).mkdir(parents=True)
        (tmp_path / path / "release.json").write_text(text)
    (tmp_path / "releases" / "1" / "green").write_text("2026-11-27T10:00:00Z\n")
    (tmp_path / "current").symlink_to("releases/1")
    (tmp_path / "releases" / "link").symlink_to("1")

    found = {one.path: one for one in layers_of.read(tmp_path)}

    assert sorted(found) == ["agents/1.a", "releases/1", "releases/2"]
    assert (found["releases/1"].below, found["releases/1"].green) == ("ray/a", "2026-11-27T10:00:00Z")
    assert [found[path].document for path in ("releases/2", "agents/1.a")] == [{}, {}]
    assert layers_of.active(tmp_path) == "releases/1"
    assert layers_of.active(tmp_path / "nowhere") == ""
