from __future__ import annotations

import json
import os
import subprocess
import sys
import venv
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.seedcore.cluster.plugins.module_utils.layers import packages

Run = Callable[..., dict[str, Any]]
UV = Path(sys.executable).parent / "uv"


class Place:
    """A deployment with an environment at its bottom, and wheels to install."""

    def __init__(self, prefix: Path, run: Run) -> None:
        self.prefix, self.run = prefix, run
        self.ray = prefix / "ray" / "abc"
        venv.create(self.ray, symlinks=True)
        (packages(self.ray) / "ray.py").write_text("VERSION = '2.60.0'\n")
        (prefix / "cache").mkdir()

    def incoming(self, name: str, source: str) -> Path:
        """Write a wheel to where a run copies what it installs."""
        directory = self.prefix / "cache" / "incoming"
        directory.mkdir()
        info = f"{name}-1.0.dist-info"
        with zipfile.ZipFile(directory / f"{name}-1.0-py3-none-any.whl", "w") as archive:
            archive.writestr(f"{name}.py", source)
            archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
            archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
            archive.writestr(f"{info}/RECORD", "")
        return directory

    def install(
        self, path: str, below: Path, incoming: Path, *, check_mode: bool = False, **more: Any
    ) -> dict[str, Any]:
        """Install a layer from the only wheel in a directory."""
        return self.run(
            "seedcore_layer",
            **{
                "_ansible_check_mode": check_mode,
                "path": str(self.prefix / path),
                "below": str(below),
                "python": sys.executable,
                "uv": str(UV),
                "incoming": str(incoming),
                "installs": [["--no-deps", "--offline", next(incoming.iterdir()).name]],
                "document": {"release": "1", "below": str(below.relative_to(self.prefix))},
                "uv_cache": str(self.prefix / "cache" / "uv"),
                **more,
            },
        )

    def python(self, path: str, code: str) -> str:
        """Run code with the Python of a layer."""
        command = [str(self.prefix / path / "bin" / "python"), "-c", code]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture
def place(tmp_path: Path, run: Run) -> Place:
    return Place(tmp_path, run)


LIBRARY = "def main():\n    import ray\n    print(ray.VERSION)\n"


def test_a_layer_has_its_own_packages_and_sees_those_below(place: Place) -> None:
    library = place.install("releases/1", place.ray, place.incoming("library", LIBRARY))
    assert library["changed"], library
    agents = place.install(
        "agents/1.a", place.prefix / "releases" / "1", place.incoming("agents", "import library, ray"),
        commands={"library": "library:main"}, verify=["bin/library"], files={"extra.txt": "what it was made from"},
    )  # fmt: skip
    assert agents["changed"], agents

    assert place.python("agents/1.a", "import agents, library; library.main()") == "2.60.0"
    assert place.python("releases/1", "import importlib.util; print(importlib.util.find_spec('agents'))") == "None"
    directory = place.prefix / "agents" / "1.a"
    assert json.loads((directory / "release.json").read_text()) == {"release": "1", "below": "releases/1"}
    names = sorted(path.name for path in (directory / "share" / "seedcore").iterdir())
    assert names == ["agents-1.0-py3-none-any.whl", "extra.txt"]
    assert list((place.prefix / "cache").glob("incoming")) == []


def test_everybody_may_read_what_was_installed(place: Place) -> None:
    os.umask(0o077)
    try:
        incoming = place.incoming("library", LIBRARY)
        place.install("releases/1", place.ray, incoming, commands={"more": "library:main"}, files={"a.txt": ""})
    finally:
        os.umask(0o022)

    paths = [place.prefix / "releases", *(place.prefix / "releases").rglob("*")]
    assert [path for path in paths if not path.is_symlink() and path.stat().st_mode & 0o044 != 0o044] == []


def test_a_layer_that_does_not_work_is_not_complete(place: Place) -> None:
    incoming = place.incoming("library", "def main():\n    raise SystemExit('it is broken')\n")
    broken = place.install("releases/1", place.ray, incoming, commands={"x": "library:main"}, verify=["bin/x"])

    assert "bin/x has failed: it is broken" in broken["msg"]
    assert not (place.prefix / "releases" / "1" / "release.json").exists()


def test_what_cannot_be_installed_is_told_with_the_cause(place: Place) -> None:
    incoming = place.incoming("library", LIBRARY)
    failed = place.install("releases/1", place.ray, incoming, installs=[["--offline", "no-such-package"]])
    assert "--offline no-such-package has failed: " in failed["msg"]
    assert "no-such-package" in failed["msg"].partition("has failed")[2]


def test_a_complete_layer_is_made_anew_and_check_mode_makes_nothing(place: Place) -> None:
    incoming = place.incoming("library", LIBRARY)
    assert place.install("releases/1", place.ray, incoming, check_mode=True)["changed"] is True
    assert not (place.prefix / "releases").exists()

    place.install("releases/1", place.ray, incoming)
    (packages(place.prefix / "releases" / "1") / "library.py").unlink()
    assert place.install("releases/1", place.ray, place.incoming("library", LIBRARY))["changed"] is True
    assert place.python("releases/1", "import library; library.main()") == "2.60.0"
