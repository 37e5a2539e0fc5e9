"""Define where a campaign runs: on this machine without root, or on container hosts with systemd."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import trustme

from tests.support.ports import deployment_ports, free_range

if TYPE_CHECKING:
    from docker.models.containers import Container

ROOT = Path(__file__).parents[2]
AGENTS = Path(__file__).parent / "agents"
BIN = Path(sys.executable).parent
# A host's Python runs this; it prints the pids whose command line contains every argument.
_LOOKS, _LOOK_AGAIN_S = 5, 1.0
_FIND = """
import os, sys
for entry in os.listdir("/proc"):
    if entry.isdigit() and int(entry) != os.getpid():
        try:
            words = open(f"/proc/{entry}/cmdline", "rb").read().decode("utf-8", "replace").split("\\0")
            place = os.readlink(f"/proc/{entry}/cwd") if "ray::" in words[0] else ""
        except OSError:
            continue
        text = " ".join([*words, place])
        if all(part in text for part in sys.argv[1:]):
            print(entry)
"""


def find(place: Place, host: str, *parts: str) -> list[int]:
    """Return the pids on a host whose command line contains all ``parts``; at least one.

    Raises:
        LookupError: There is no such process.
    """
    # Docker may lose the output of a command that exits before its reader attaches, so try more than once.
    for _ in range(_LOOKS):
        if found := place.run(host, "python3", "-c", _FIND, *parts).split():
            return [int(word) for word in found]
        time.sleep(_LOOK_AGAIN_S)
    raise LookupError(f"{host}: no process with {' and '.join(parts)}")


def ledger(place: Place, path: str) -> Counter[int]:
    """Return how often the agents on all hosts have done each task, by its number."""
    done: Counter[int] = Counter()
    for host in (place.head, *place.workers):
        done.update(int(word) for word in place.read(host, path).split())
    return done


def journal(place: Place) -> list[dict[str, Any]]:
    """Return the events in the supervisor's journal."""
    text = place.read(place.head, f"{place.prefix}/state/seedcore/supervisor.jsonl")
    return [json.loads(line) for line in text.splitlines()]


def organism(path: str) -> dict[str, Any]:
    """Return the organism of the campaign, whose agents write into the ledger ``path``: see ``organism.json``."""
    document: dict[str, Any] = json.loads((Path(__file__).parent / "organism.json").read_text())
    for organ in document["seedcore"]["organism"]["organ_types"]:
        organ["options"] = {"path": path}
    return document


class Localhost:
    """A deployment of the checkout on this machine, over TLS, in a temporary directory and on free ports.

    Attributes:
        url: The Coordinator's URL.
        token: The deployment's token.
        certificate: Path of its TLS certificate; None without TLS.
        head: Name of the head's host.
        workers: Names of the workers' hosts.
        prefix: The deployment's directory, the same on each host.
    """

    def __init__(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="sch-", dir="/tmp"))
        self.prefix = str(self.directory / "sc")
        self.head = "localhost"
        self.workers: tuple[str, ...] = ()
        self.ledger = str(self.directory / "ledger")
        issue_certificate(self.directory)
        self.certificate: Path | None = self.directory / "server.pem"
        config = self.directory / "organism.yaml"
        config.write_text(json.dumps(organism(self.ledger)))
        ports = deployment_ports()
        first, last = free_range(300)
        self.url = f"https://127.0.0.1:{ports['seedcore_http_port']}"
        self._variables = {
            "ray_prefix": self.prefix,
            **ports,
            "ray_min_worker_port": first,
            "ray_max_worker_port": last,
            "ray_object_store_memory": 200_000_000,
            "seedcore_config": str(config),
            "seedcore_extra_requirements": [str(AGENTS)],
            "seedcore_http_tls_certificate": str(self.directory / "server.pem"),
            "seedcore_http_tls_key": str(self.directory / "server.key"),
            "teardown_confirmed": "yes",
        }
        self.token = ""

    def open(self) -> None:
        """Deploy.

        Raises:
            SystemExit: The deployment failed; the message has the end of its output.
        """
        self._playbook("deploy")
        self.token = (Path(self.prefix) / "etc/token").read_text().strip()

    def close(self) -> None:
        """Tear down and remove the directory."""
        if Path(self.prefix).exists():
            self._playbook("teardown")
        shutil.rmtree(self.directory)

    def status_command(self) -> list[str]:
        """Return the command that a user types to see the status as JSON."""
        return [f"{self.prefix}/bin/seedcore", "status", "--json"]

    def run(self, host: str, *argv: str, check: bool = True) -> str:  # noqa: ARG002 - there is one host
        """Run a command on this machine."""
        done = subprocess.run(argv, capture_output=True, text=True, check=check, timeout=60)  # noqa: S603 - ours
        return done.stdout

    def read(self, host: str, path: str) -> str:  # noqa: ARG002 - there is one host
        """Return the content of a file; empty if there is none."""
        return Path(path).read_text() if Path(path).exists() else ""

    def _playbook(self, name: str) -> None:
        variables = self.directory / "variables.json"
        variables.write_text(json.dumps(self._variables))
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("RAY_", "SEEDCORE_", "ANSIBLE"))}
        done = subprocess.run(  # noqa: S603 - ours
            [str(BIN / "ansible-playbook"), f"playbooks/{name}.yml", "-e", f"@{variables}"],
            cwd=ROOT,
            env={**kept, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "PATH": f"{BIN}:{os.environ['PATH']}"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise SystemExit(f"{done.stdout[-3000:]}\nthe playbook {name} failed; its files are in {self.directory}")


class Containers:
    """The running, deployed hosts of a molecule scenario; each Docker container is one host.

    Args:
        scenario: Name of the scenario; its containers are ``seedcore-<scenario>-<host>``.
    """

    prefix = "/opt/seedcore"
    # In the service user's home, which the unit's sandbox leaves writable.
    ledger = "/opt/seedcore/state/home/chaos-ledger"

    def __init__(self, scenario: str) -> None:
        import docker  # noqa: PLC0415 - comes with the group molecule only

        self._client = docker.from_env()
        self._mark = f"seedcore-{scenario}-"
        found = self._client.containers.list(all=True, filters={"name": self._mark})
        names = sorted(str(each.name).removeprefix(self._mark) for each in found)
        if not names:
            raise SystemExit(f"there is no container {self._mark}*: converge the scenario {scenario} first")
        (self.head,) = [name for name in names if name.startswith("head")]
        self.workers = tuple(name for name in names if name != self.head)
        self.certificate: Path | None = None
        self.url = ""
        self.token = ""

    def open(self) -> None:
        """Read the Coordinator's address and token."""
        networks = self.container(self.head).attrs["NetworkSettings"]["Networks"]
        (network,) = networks.values()
        self.url = f"http://{network['IPAddress']}:8700"
        self.token = self.read(self.head, f"{self.prefix}/etc/token").strip()

    def close(self) -> None:
        """Close the Docker client; the scenario removes the hosts."""
        self._client.close()

    def container(self, host: str) -> Container:
        """Return a host's container with its current attributes."""
        return self._client.containers.get(f"{self._mark}{host}")

    def status_command(self) -> list[str]:
        """Return the command that prints the status as JSON on the head."""
        return ["docker", "exec", f"{self._mark}{self.head}", f"{self.prefix}/bin/seedcore", "status", "--json"]

    def run(self, host: str, *argv: str, check: bool = True) -> str:
        """Run a command on a host as root."""
        code, output = self.container(host).exec_run(list(argv))
        text = bytes(output).decode(errors="replace")
        if check and code:
            raise RuntimeError(f"{host}: {argv}: exit code {code}: {text}")
        return text

    def read(self, host: str, path: str) -> str:
        """Return the content of a file; empty if there is none."""
        return self.run(host, "sh", "-c", f"cat {path} 2>/dev/null || true")


Place: TypeAlias = Localhost | Containers
"""A deployment that a campaign may harm."""


def issue_certificate(directory: Path, names: Iterable[str] = ("head.example",)) -> None:
    """Write ``server.pem`` and ``server.key``, issued by a new certificate authority."""
    issued = trustme.CA().issue_cert(*names)
    (directory / "server.pem").write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
    (directory / "server.key").write_bytes(issued.private_key_pem.bytes())
