"""Test the built collection: install it into an empty path and deploy it without internet."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.deploy.conftest import Deployment, Run
from tests.deploy.installed.conftest import Installed, run

pytestmark = pytest.mark.timeout(2400)


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


def test_a_collection_without_the_library_says_so_before_anything_starts(installed: Installed) -> None:
    done = installed.deployment.run("preflight", seedcore_package=str(installed.collections))

    assert done.returncode != 0
    assert "is not a Python package" in done.output


def test_it_deploys_without_the_checkout(deployed: Deployment, first: Run) -> None:
    status = deployed.seedcore("status", "--json")

    assert status.returncode == 0, status.stderr
    assert json.loads(status.stdout)["healthy"] is True
    assert "healthy: 3 of 3 organs ready" in first.output
    assert len(list((deployed.prefix / "cache" / "wheelhouse").glob("ray-*.whl"))) == 1


def test_it_does_so_without_a_network(deployed: Deployment, network: Sequence[str]) -> None:
    if not network:
        pytest.skip("this machine lets nobody have a network of its own (unshare --net)")

    assert deployed.wrapper == network
    assert run(*network, "ip", "route").stdout == ""
    assert run(*network, "ip", "-oneline", "link").stdout.count("\n") == 1
