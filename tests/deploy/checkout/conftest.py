"""Fixtures for one deployment from the checkout; the tests of this directory run in order, from install to teardown."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import trustme

from seedcore.core.settings import Settings
from seedcore.status.state_api import read_cluster
from tests.deploy.conftest import Deployment, Run, issue

# Directories that a run without changes must not touch; the others (state, log, run, tmp) belong to running processes.
WRITTEN = ("agents", "bin", "current", "environments", "etc", "libexec", "ray", "releases", "tools")
AGENTS = """
import asyncio
from pathlib import Path


class Careful:
    def __init__(self, agent_id, *, model, start_s=0):
        self.model = Path(model)
        self.start_s = start_s

    async def start(self):
        await asyncio.sleep(self.start_s)
        self.text = self.model.read_text()

    async def execute(self, task):
        return {"model": self.text}
"""
# A build backend that needs no package index.
_BACKEND = """
import zipfile
from pathlib import Path


def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
    with zipfile.ZipFile(Path(wheel_directory, "careful-1.0-py3-none-any.whl"), "w") as archive:
        archive.writestr("careful.py", Path("careful.py").read_text())
        info = "careful-1.0.dist-info"
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\\nName: careful\\nVersion: 1.0\\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        archive.writestr(f"{info}/RECORD", "")
    return "careful-1.0-py3-none-any.whl"
"""


# A package of which two organs see two versions.
LENS = "def look(task):\n    return {'version': '1'}\n"


def write_package(directory: Path, name: str, source: str) -> Path:
    """Write the source tree of a package with one module."""
    directory.mkdir()
    (directory / f"{name}.py").write_text(source)
    (directory / "backend.py").write_text(_BACKEND.replace("careful", name))
    (directory / "pyproject.toml").write_text(
        '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
        f'[project]\nname = "{name}"\nversion = "1.0"\n'
    )
    return directory


class Site:
    """A deployment with TLS and test agents; the organ ``first`` starts only if its model file exists."""

    def __init__(self, deployment: Deployment) -> None:
        self.deployment = deployment
        self.authority = trustme.CA()
        issue(deployment.directory, self.authority)
        self.model = deployment.directory / "model.txt"
        self.agents = write_package(deployment.directory / "agents", "careful", AGENTS)
        self.organism = self.write("organism.yaml")
        deployment.variables |= {
            "seedcore_config": str(self.organism),
            "seedcore_extra_requirements": [str(self.agents)],
            "seedcore_http_tls_certificate": str(deployment.directory / "server.pem"),
            "seedcore_http_tls_key": str(deployment.directory / "server.key"),
            "seedcore_keep_releases": 1,
            # A prestarted worker costs a CPU-second, and actors with a separate environment do not use it.
            "ray_environment": {"RAY_prestart_worker_first_driver": "0"},
        }

    def write(self, name: str, *, agent: str = "careful:Careful", **options: Any) -> Path:
        """Write an organism.yaml with the organ ``first`` and an echo organ."""
        first = {
            "id": "first",
            "type": "Test",
            "agent": agent,
            "task_types": ["read"],
            "options": {"model": str(self.model), **options},
        }
        other = {"id": "other", "type": "Test", "agent": "seedcore.agents:utility", "task_types": ["echo"]}
        path = self.deployment.directory / name
        path.write_text(json.dumps({"seedcore": {"organism": {"organ_types": [first, other]}}}, indent=1))
        return path

    def run(self, playbook: str, *arguments: str, organism: Path | None = None, **variables: Any) -> Run:
        """Run a playbook, with ``organism`` if it is given."""
        config = {"seedcore_config": str(organism)} if organism else {}
        return self.deployment.run(playbook, *arguments, **config, **variables)

    def status(self) -> dict[str, Any]:
        """Return the report of ``seedcore status``."""
        report: dict[str, Any] = json.loads(self.deployment.seedcore("status", "--json").stdout)
        return report

    def living_actors(self) -> list[str]:
        """Return the names of the actors that Ray does not list as dead."""
        lines = (self.deployment.prefix / "etc" / "seedcore.env").read_text().splitlines()
        settings = Settings.from_env(dict(line.split("=", 1) for line in lines if "=" in line))
        state = read_cluster(settings, token=settings.token(), timeout_s=10)
        return [str(row["name"]) for row in state.actors if row["state"] != "DEAD"]

    def seen(self) -> tuple[dict[str, tuple[int, int, str]], dict[int, str]]:
        """Return what a run without changes leaves alone: the files that it would write, and the processes."""
        return self.deployment.files(*WRITTEN), self.deployment.processes()


@dataclass(frozen=True)
class Compared:
    """A run, with the results of :meth:`Site.seen` before and after it."""

    run: Run
    before: tuple[dict[str, tuple[int, int, str]], dict[int, str]]
    after: tuple[dict[str, tuple[int, int, str]], dict[int, str]]


@pytest.fixture(scope="session")
def site(make_deployment: Callable[..., Deployment]) -> Site:
    """Provide the deployment of this directory, not yet installed."""
    return Site(make_deployment())


@pytest.fixture(scope="session")
def red(site: Site) -> Run:
    """Run the first deployment on a blank host, which fails because an organ does not start."""
    return site.run("deploy", seedcore_bootstrap_wait_timeout=300)


@pytest.fixture(scope="session")
def first(site: Site, red: Run) -> Run:
    """Run the first successful deployment: the cause of the failure is gone, and old releases await removal."""
    assert red.returncode != 0
    site.model.write_text("small")
    releases = site.deployment.prefix / "releases"
    (releases / "0.0.1-half").mkdir()
    old = releases / "0.0.1-aaaaaaaaaaaa"
    old.mkdir()
    (old / "release.json").write_text('{"release": "0.0.1-aaaaaaaaaaaa"}')
    return site.run("deploy").check()


@pytest.fixture(scope="session")
def deployed(site: Site, first: Run) -> Site:
    """Provide the running deployment."""
    assert first.returncode == 0
    return site


@pytest.fixture(scope="session")
def second_run(deployed: Site) -> Compared:
    """Run a deployment that has nothing to change."""
    before = deployed.seen()
    run = deployed.run("deploy").check()
    return Compared(run, before, deployed.seen())


@pytest.fixture(scope="session")
def every_step(deployed: Site, second_run: Compared) -> Compared:
    """Run every step, although there is nothing to change, with full output."""
    run = deployed.run("deploy", "-vvv", seedcore_every_step=True).check()
    return Compared(run, second_run.after, deployed.seen())
