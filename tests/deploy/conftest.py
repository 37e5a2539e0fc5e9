"""The playbooks themselves, run against this machine: each deployment in a directory and on ports of its own."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import trustme

from tests.support.ray_head import NODE_IP, free_ports, free_range

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
# What a deployment is built from; frozen for the session, so that a release keeps its name while somebody edits.
PACKAGE_FILES = ("pyproject.toml", "galaxy.yml", "README.md", "LICENSE")
PORTS = (
    "ray_gcs_port",
    "ray_node_manager_port",
    "ray_object_manager_port",
    "ray_dashboard_agent_grpc_port",
    "ray_runtime_env_agent_port",
    "ray_dashboard_agent_listen_port",
    "ray_metrics_export_port",
    "ray_autoscaler_metric_port",
    "ray_dashboard_metric_port",
    "ray_client_server_port",
    "ray_dashboard_port",
    "seedcore_http_port",
)
RUN_TIMEOUT_S = 900


def issue(directory: Path, authority: trustme.CA) -> None:
    """Write ``server.pem`` and ``server.key``; the certificate is for ``head.example``."""
    issued = authority.issue_cert("head.example")
    (directory / "server.pem").write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
    (directory / "server.key").write_bytes(issued.private_key_pem.bytes())


@dataclass(frozen=True)
class Run:
    """One run of ansible-playbook."""

    returncode: int
    output: str

    @property
    def recap(self) -> dict[str, int]:
        """The last line's counts for localhost: ok, changed, failed, ..."""
        lines = re.findall(r"^localhost\s+: (.*)$", self.output, re.MULTILINE)
        assert lines, self.output
        return {name: int(count) for name, count in re.findall(r"(\w+)=(\d+)", lines[-1])}

    @property
    def changed_tasks(self) -> list[str]:
        """Names of the tasks that changed something."""
        names, task = [], ""
        for line in self.output.splitlines():
            if found := re.match(r"TASK \[(.*)\]", line):
                task = found[1]
            elif line.startswith("changed: "):
                names.append(task)
        return names

    def check(self) -> Run:
        """Return the run if it was green."""
        assert self.returncode == 0, self.output[-8000:]
        return self


@dataclass
class Deployment:
    """One deployment under one directory; ``run`` is the command that a user would type.

    Attributes:
        directory: Everything is in it.
        package: What ``seedcore_package`` is.
        variables: More variables, or other values.
        collections: Where the collection is installed; None means this checkout.
        wrapper: What the command is an argument of.
    """

    directory: Path
    package: Path
    variables: dict[str, Any] = field(default_factory=dict)
    collections: Path | None = None
    wrapper: Sequence[str] = ()

    def __post_init__(self) -> None:
        first, last = free_range(300)
        self.variables = {
            "ray_prefix": str(self.prefix),
            **dict(zip(PORTS, free_ports(len(PORTS)), strict=True)),
            "ray_min_worker_port": first,
            "ray_max_worker_port": last,
            "ray_object_store_memory": 200_000_000,
            "seedcore_package": str(self.package),
            # What the machine has downloaded before is not downloaded again.
            "seedcore_uv_cache": _uv_cache(),
            "seedcore_gate_evidence_path": str(self.directory / "evidence.txt"),
            **self.variables,
        }

    @property
    def prefix(self) -> Path:
        """Where everything of it is."""
        return self.directory / "sc"

    def run(self, playbook: str, *arguments: str, **extra_vars: Any) -> Run:
        """Run ``playbooks/<playbook>.yml`` to its end."""
        variables = self.directory / "variables.json"
        variables.write_text(json.dumps({**self.variables, **extra_vars}))
        environment = {key: value for key, value in os.environ.items() if not key.startswith(("RAY_", "SEEDCORE_"))}
        command, here = self._command(playbook)
        done = subprocess.run(
            [*self.wrapper, *command, "-e", f"@{variables}", *arguments],
            cwd=self.directory if self.collections else ROOT,
            env={
                **environment,
                **here,
                "PATH": f"{BIN}:{os.environ['PATH']}",
                "ANSIBLE_HOME": str(self.directory / "ansible"),
                "ANSIBLE_NOCOLOR": "1",
                # Who asks for more than usual gets all of it.
                **({"ANSIBLE_DISPLAY_OK_HOSTS": "1"} if "-vvv" in arguments else {}),
            },
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=RUN_TIMEOUT_S,
        )
        return Run(done.returncode, done.stdout)

    def _command(self, playbook: str) -> tuple[list[str], dict[str, str]]:
        """What runs a playbook of the checkout, or of the installed collection, and in which environment."""
        ansible = str(BIN / "ansible-playbook")
        if self.collections is None:
            return [ansible, f"playbooks/{playbook}.yml"], {"ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")}
        inventory = self.collections / "ansible_collections/seedcore/cluster/inventory/local"
        config = self.directory / "ansible.cfg"
        config.touch()
        environment = {"ANSIBLE_CONFIG": str(config), "ANSIBLE_COLLECTIONS_PATH": str(self.collections)}
        return [ansible, f"seedcore.cluster.{playbook}", "--inventory", str(inventory)], environment

    def seedcore(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run the deployed command line."""
        return subprocess.run(
            [self.prefix / "bin" / "seedcore", *arguments],
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
            cwd=self.directory,
        )

    def processes(self) -> dict[int, str]:
        """Everything that runs from the directory or has mapped code from it: pid to name."""
        mark = f"{self.prefix}/"
        found = {}
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            with contextlib.suppress(OSError):
                first = (entry / "cmdline").read_bytes().split(b"\0")[0].decode(errors="replace")
                if first and (first.startswith(mark) or mark in (entry / "maps").read_text(errors="replace")):
                    found[int(entry.name)] = (entry / "comm").read_text().strip()
        return found

    def files(self, *parts: str) -> dict[str, tuple[int, int, str]]:
        """What is on disk under ``prefix/part`` for each part: path to mode, time of change, target of a link."""
        found = {}
        for part in parts:
            top = self.prefix / part
            for path in [top, *top.rglob("*")]:
                state = path.lstat()
                link = str(path.readlink()) if path.is_symlink() else ""
                found[str(path)] = (state.st_mode, state.st_mtime_ns, link)
        return found

    def remove(self) -> None:
        """Tear it down, if that has not been done, and leave nothing."""
        if self.prefix.exists():
            self.run("teardown", teardown_confirmed=True).check()
        shutil.rmtree(self.directory)


def _uv_cache() -> str:
    done = subprocess.run([BIN / "uv", "cache", "dir"], capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture(scope="session")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library's source as it is when the session begins."""
    copy = tmp_path_factory.mktemp("package")
    for name in PACKAGE_FILES:
        shutil.copy(ROOT / name, copy / name)
    shutil.copytree(ROOT / "seedcore", copy / "seedcore", ignore=shutil.ignore_patterns("__pycache__"))
    return copy


@pytest.fixture(scope="module")
def make_deployment(package: Path) -> Iterator[Callable[..., Deployment]]:
    """Make deployments that are torn down at the end of the module; keyword arguments are variables."""
    made: list[Deployment] = []

    def make(**variables: Any) -> Deployment:
        # Short, so that sockets fit in it.
        deployment = Deployment(Path(tempfile.mkdtemp(prefix="scd-", dir="/tmp")), package, variables)
        made.append(deployment)
        return deployment

    yield make
    for deployment in made:
        deployment.remove()


@pytest.fixture(scope="module")
def blank(make_deployment: Callable[..., Deployment]) -> Deployment:
    """A deployment that has not been made yet."""
    return make_deployment()


@pytest.fixture(scope="module")
def deployed(make_deployment: Callable[..., Deployment]) -> Deployment:
    """A deployment that is up, made once for the module."""
    deployment = make_deployment()
    deployment.run("deploy").check()
    return deployment


__all__ = ["NODE_IP", "Deployment", "Run"]
