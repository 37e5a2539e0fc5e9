"""Run the playbooks against this machine, each deployment in its own directory and on its own ports.

The tests of ``checkout`` run in order on one deployment, and so do those of ``installed``; the two may run in parallel.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import trustme

from tests.support.ports import deployment_ports, free_range
from tests.support.ray_head import NODE_IP

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
# The files that a deployment is built from; copied once, so that editing them does not change the release's name.
PACKAGE_FILES = ("pyproject.toml", "galaxy.yml", "README.md", "LICENSE")
INTERRUPTED_S = 30.0
RUN_TIMEOUT_S = 900
HERE = Path(__file__).parent
# The playbook and arguments of every run of ansible-playbook, and its seconds.
_runs: list[tuple[str, float]] = []
# The first failed test of each chain, by the chain's path.
_broken: dict[Path, str] = {}


def _chain(item: pytest.Item) -> Path | None:
    """Return the chain of a test: its directory below this one, or else its file."""
    if "make_deployment" not in getattr(item, "fixturenames", ()):
        return None
    return item.path.parent if item.path.parent.parent == HERE else item.path


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Fail the rest of a chain without running it after a failure, which would only have consequences there."""
    if (chain := _chain(item)) and (broken := _broken.get(chain)):
        pytest.fail(f"not run: {broken} has failed, and this test starts from what that one leaves", pytrace=False)


def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> None:
    """Remember the first failure of each chain."""
    if (chain := _chain(item)) and call.excinfo is not None and not call.excinfo.errisinstance(pytest.skip.Exception):
        _broken.setdefault(chain, item.nodeid)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the total time of the playbooks, and with -v the seconds of each run."""
    if not _runs:
        return
    terminalreporter.section("ansible-playbook")
    if terminalreporter.verbosity > 0:
        for command, seconds in _runs:
            terminalreporter.write_line(f"{seconds:6.1f} s {command}")
    blank = sum("from blank" in command for command, _ in _runs)
    total = sum(seconds for _, seconds in _runs)
    terminalreporter.write_line(f"{len(_runs)} runs, {blank} of them deployments from blank, in {total:.0f} s")


def issue(directory: Path, authority: trustme.CA) -> None:
    """Write ``server.pem`` and ``server.key``; the certificate is for ``head.example``."""
    issued = authority.issue_cert("head.example")
    (directory / "server.pem").write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
    (directory / "server.key").write_bytes(issued.private_key_pem.bytes())


@dataclass(frozen=True)
class Run:
    """One run of ansible-playbook.

    Attributes:
        returncode: Exit code.
        lines: Lines of output, each with the monotonic time at which it was printed.
    """

    returncode: int
    lines: Sequence[tuple[float, str]]

    @property
    def output(self) -> str:
        """Return everything that was printed."""
        return "".join(line for _, line in self.lines)

    def printed_at(self, pattern: str) -> float:
        """Return the monotonic time of the first line with the pattern."""
        found = next((at for at, line in self.lines if re.search(pattern, line)), None)
        assert found is not None, (pattern, self.output[-8000:])
        return found

    @property
    def recap(self) -> dict[str, int]:
        """Return the recap's counts for localhost: ok, changed, failed, ..."""
        lines = re.findall(r"^localhost\s+: (.*)$", self.output, re.MULTILINE)
        assert lines, self.output
        return {name: int(count) for name, count in re.findall(r"(\w+)=(\d+)", lines[-1])}

    @property
    def changed_tasks(self) -> list[str]:
        """Return the names of the tasks that changed something."""
        names, task = [], ""
        for line in self.output.splitlines():
            if found := re.match(r"TASK \[(.*)\]", line):
                task = found[1]
            elif line.startswith("changed: "):
                names.append(task)
        return names

    @property
    def last_lines(self) -> list[str]:
        """Return the lines below the recap."""
        return self.output.rstrip().rpartition("PLAY RECAP")[2].splitlines()

    @property
    def failed_after_s(self) -> int:
        """Return the seconds that the failed step had taken, from its error line."""
        found = re.findall(r"\(after (\d+) s\)", self.output)
        assert found, self.output[-8000:]
        return int(found[-1])

    def check(self) -> Run:
        """Return the run; fail if it was not successful."""
        assert self.returncode == 0, self.output[-8000:]
        return self


@dataclass
class Deployment:
    """One deployment in one directory; ``run`` is the command that a user would type.

    Attributes:
        directory: Holds all of its files.
        package: Value of ``seedcore_package``.
        variables: Extra variables of each run.
        collections: Where the collection is installed; None for this checkout.
        wrapper: Command prefix of each run.
        umask: Umask of the command; -1 for that of the tests.
    """

    directory: Path
    package: Path
    variables: dict[str, Any] = field(default_factory=dict)
    collections: Path | None = None
    wrapper: Sequence[str] = ()
    umask: int = -1

    def __post_init__(self) -> None:
        first, last = free_range(300)
        self.variables = {
            "ray_prefix": str(self.prefix),
            **deployment_ports(),
            "ray_min_worker_port": first,
            "ray_max_worker_port": last,
            "ray_object_store_memory": 200_000_000,
            "seedcore_package": str(self.package),
            # Reuse the packages that this machine has already downloaded.
            "seedcore_uv_cache": _uv_cache(),
            "seedcore_gate_evidence_path": str(self.directory / "evidence.txt"),
            **self.variables,
        }

    @property
    def prefix(self) -> Path:
        """Return the prefix of the deployment."""
        return self.directory / "sc"

    def run(self, playbook: str, *arguments: str, interrupt_at: str = "", **extra_vars: Any) -> Run:
        """Run ``playbooks/<playbook>.yml`` and wait for its end; Ctrl-C comes at a line with ``interrupt_at``."""
        variables = self.directory / "variables.json"
        variables.write_text(json.dumps({**self.variables, **extra_vars}))
        environment = {key: value for key, value in os.environ.items() if not key.startswith(("RAY_", "SEEDCORE_"))}
        command, here = self._command(playbook)
        begun, blank = time.monotonic(), not self.prefix.exists()
        process = subprocess.Popen(
            [*self.wrapper, *command, "-e", f"@{variables}", *arguments],
            cwd=self.directory if self.collections else ROOT,
            env={
                **environment,
                **here,
                "PATH": f"{BIN}:{os.environ['PATH']}",
                "ANSIBLE_HOME": str(self.directory / "ansible"),
                "ANSIBLE_NOCOLOR": "1",
                # With -vvv, print the result of every host and task.
                **({"ANSIBLE_DISPLAY_OK_HOSTS": "1"} if "-vvv" in arguments else {}),
            },
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            umask=self.umask,
        )
        limit = threading.Timer(RUN_TIMEOUT_S, process.kill)
        limit.start()
        # Ansible may then wait for ever for the lock of a worker that it has killed; a person presses Ctrl-C again.
        again = threading.Timer(INTERRUPTED_S, process.send_signal, [signal.SIGINT])
        assert process.stdout is not None
        try:
            lines: list[tuple[float, str]] = []
            for line in process.stdout:
                lines.append((time.monotonic(), line))
                if interrupt_at and re.search(interrupt_at, line):
                    process.send_signal(signal.SIGINT)
                    again.start()
                    interrupt_at = ""
        except BaseException:
            process.kill()
            raise
        finally:
            limit.cancel()
            again.cancel()
            process.wait()
            process.stdout.close()
        asked = " ".join([playbook, *arguments, *extra_vars])
        made = " (from blank)" if blank and self.prefix.exists() else ""
        _runs.append((asked + made, time.monotonic() - begun))
        return Run(process.returncode, lines)

    def _command(self, playbook: str) -> tuple[list[str], dict[str, str]]:
        """Return argv and environment to run a playbook of the checkout or of the installed collection."""
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
            [*self.wrapper, self.prefix / "bin" / "seedcore", *arguments],
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
            cwd=self.directory,
        )

    def processes(self) -> dict[int, str]:
        """Return the processes that run from the directory or have mapped code from it, as pid to name."""
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
        """Return the files under ``prefix/part`` for each part: path to mode, change time and link target."""
        found = {}
        for part in parts:
            top = self.prefix / part
            for path in [top, *top.rglob("*")]:
                state = path.lstat()
                link = str(path.readlink()) if path.is_symlink() else ""
                found[str(path)] = (state.st_mode, state.st_mtime_ns, link)
        return found

    def remove(self) -> None:
        """Tear down the deployment if that has not been done, and remove all files."""
        if self.prefix.exists():
            # An interrupted run still holds its lock.
            self.run("teardown", teardown_confirmed=True, ray_take_lock=True).check()
        if self.directory.exists():
            shutil.rmtree(self.directory)


def _uv_cache() -> str:
    done = subprocess.run([BIN / "uv", "cache", "dir"], capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture(scope="session")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Provide a copy of the library's source from the beginning of the session."""
    copy = tmp_path_factory.mktemp("package")
    for name in PACKAGE_FILES:
        shutil.copy(ROOT / name, copy / name)
    shutil.copytree(ROOT / "seedcore", copy / "seedcore", ignore=shutil.ignore_patterns("__pycache__"))
    return copy


@pytest.fixture(scope="session")
def make_deployment(package: Path) -> Iterator[Callable[..., Deployment]]:
    """Provide a function that creates deployments, which are always torn down; keyword arguments are variables."""
    with contextlib.ExitStack() as made:

        def make(**variables: Any) -> Deployment:
            # A short path, because socket paths are limited.
            deployment = Deployment(Path(tempfile.mkdtemp(prefix="scd-", dir="/tmp")), package, variables)
            made.callback(deployment.remove)
            return deployment

        yield make


__all__ = ["NODE_IP", "Deployment", "Run"]
