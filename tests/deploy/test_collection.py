"""The collection as others get it: built, installed into an empty path, and deployed from there."""

from __future__ import annotations

import json
import os
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.deploy.conftest import BIN, ROOT, Deployment

pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def artefact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    done = subprocess.run(
        [ROOT / ".ci" / "collection", tmp_path_factory.mktemp("dist")],
        env={**os.environ, "VENV": str(BIN.parent)},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return Path(done.stdout.strip())


@pytest.fixture(scope="module")
def installed(artefact: Path) -> Iterator[Deployment]:
    """A deployment from the artefact, which has nothing but what is in it."""
    directory = Path(tempfile.mkdtemp(prefix="scd-", dir="/tmp"))
    collections = directory / "collections"
    environment = {key: value for key, value in os.environ.items() if not key.startswith("ANSIBLE_")}
    done = subprocess.run(
        [BIN / "ansible-galaxy", "collection", "install", "--offline", "--collections-path", collections, artefact],
        cwd=directory,
        env={**environment, "ANSIBLE_HOME": str(directory / "ansible")},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    deployment = Deployment(directory, directory, collections=collections)
    del deployment.variables["seedcore_package"]
    yield deployment
    deployment.remove()


def test_it_has_what_it_needs_and_nothing_else(artefact: Path) -> None:
    with tarfile.open(artefact) as archive:
        names = archive.getnames()

    top = {name.split("/")[0] for name in names}
    assert top == {
        "CONTRIBUTING.md",
        "FILES.json",
        "LICENSE",
        "MANIFEST.json",
        "README.md",
        "changelogs",
        "docs",
        "examples",
        "inventory",
        "meta",
        "playbooks",
        "plugins",
        "roles",
    }
    assert [name for name in names if name.endswith(".whl")] == ["roles/seedcore/files/seedcore-0.1.0-py3-none-any.whl"]
    assert not [name for name in names if "__pycache__" in name]


def test_it_deploys_without_the_checkout(installed: Deployment) -> None:
    installed.run("deploy").check()

    status = installed.seedcore("status", "--json")
    assert status.returncode == 0, status.stderr
    assert json.loads(status.stdout)["healthy"] is True


def test_a_collection_without_the_library_says_so_before_anything_starts(installed: Deployment) -> None:
    run = installed.run("preflight", seedcore_package=str(installed.collections))

    assert run.returncode != 0
    assert "is no Python package" in run.output
