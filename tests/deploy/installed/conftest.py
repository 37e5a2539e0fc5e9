"""Fixtures for one deployment from the built collection, on a network without internet, for this directory's tests."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.deploy.conftest import BIN, ROOT, Deployment, Run

# Enter a network namespace with only loopback; without root also a user namespace.
ROOTLESS = os.geteuid() != 0
ALONE = ["unshare", "--net", *(["--map-root-user"] if ROOTLESS else [])]
ENTER = ["nsenter", "--net", *(["--user", "--preserve-credentials"] if ROOTLESS else [])]


def run(*command: str | Path, cwd: Path = ROOT, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a command and wait for its end; keyword arguments are environment variables."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("ANSIBLE_")}
    environment |= {"VENV": str(BIN.parent), **variables}
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False, timeout=600)


@pytest.fixture(scope="session")
def artefact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Provide the collection that `make collection` builds."""
    done = run(ROOT / ".ci" / "collection", tmp_path_factory.mktemp("dist"))
    assert done.returncode == 0, done.stderr
    return Path(done.stdout.strip())


@pytest.fixture(scope="session")
def wheelhouse(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Provide the archive that `make wheelhouse` collects."""
    out = tmp_path_factory.mktemp("wheelhouse")
    done = run(ROOT / ".ci" / "wheelhouse", out)
    assert done.returncode == 0, done.stderr
    return out / "wheelhouse.tar"


@pytest.fixture(scope="session")
def network() -> Iterator[Sequence[str]]:
    """Provide the command prefix that enters a network without internet; empty if this machine forbids that."""
    # The network lives as long as this process.
    command = [*ALONE, "sh", "-c", "ip link set lo up && echo up && exec cat"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as keeper:
        assert keeper.stdout is not None
        up = keeper.stdout.readline() == "up\n"
        yield [*ENTER, f"--target={keeper.pid}"] if up else []
        keeper.terminate()


@dataclass
class Installed:
    """A deployment and the collection that it comes from."""

    deployment: Deployment
    collections: Path


@pytest.fixture(scope="session")
def installed(
    make_deployment: Callable[..., Deployment], artefact: Path, wheelhouse: Path, network: Sequence[str]
) -> Iterator[Installed]:
    """Provide the collection installed from the artefact alone into an empty directory; nothing is deployed yet."""
    deployment = make_deployment(ray_wheelhouse=str(wheelhouse), ray_tls="own", seedcore_inbox="sqlite")
    collections = deployment.directory / "collections"
    done = run(
        *(BIN / "ansible-galaxy", "collection", "install", "--offline", "--collections-path", collections, artefact),
        # Outside the checkout, whose ansible.cfg names a directory with the collection.
        cwd=deployment.directory,
        ANSIBLE_HOME=str(deployment.directory / "ansible"),
    )
    assert done.returncode == 0, done.stderr
    deployment.collections, deployment.wrapper = collections, network
    del deployment.variables["seedcore_package"]
    # Use none of the packages that this machine has already downloaded.
    deployment.variables["seedcore_uv_cache"] = str(deployment.directory / "cache")
    yield Installed(deployment, collections)
    # Tear down while the network still exists.
    deployment.remove()


@pytest.fixture(scope="session")
def first(installed: Installed) -> Run:
    """Run the first deployment."""
    return installed.deployment.run("deploy").check()


@pytest.fixture(scope="session")
def deployed(installed: Installed, first: Run) -> Deployment:
    """Provide the running deployment."""
    assert first.returncode == 0
    return installed.deployment
