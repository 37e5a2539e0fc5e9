from __future__ import annotations

import contextlib
import itertools
import json
import os
import signal
import subprocess
import sys
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from seedcore.core.settings import Settings
from seedcore.status.probing import probe
from seedcore.status.report import Report
from seedcore.status.state_api import read_cluster
from tests.support.ray_head import RayHead
from tests.support.waiting import eventually

# A process that a shell starts in the background ignores Ctrl-C, and its children would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Without bytecode files each process compiles what it imports, and Ray needs twice the CPU to start.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

_numbers = itertools.count(1)
_FAILED = pytest.StashKey[bool]()

_UP = """
from pathlib import Path
from seedcore.deployment.bootstrap import bootstrap
from seedcore.config.organism_file import load_config
from seedcore.core.settings import Settings
outcome = bootstrap(Settings.from_env(), load_config(Path({path!r})), wait_timeout_s=120)
say([outcome.report.exit_code, outcome.to_dict()])
"""
_DOWN = """
from seedcore.deployment.bootstrap import shutdown
from seedcore.core.settings import Settings
say(shutdown(Settings.from_env()))
"""


@dataclass
class Organism:
    """One deployment on a test head.

    :meth:`run` and its callers use the real command line in a new process; :meth:`up`, :meth:`drive` and
    :meth:`close` use the library in the head's driver, which has already joined Ray.
    """

    head: RayHead
    settings: Settings
    directory: Path
    background: list[subprocess.Popen[str]] = field(default_factory=list)

    def config(self, *organs: dict[str, Any], name: str = "organism.yaml") -> Path:
        """Write an organism.yaml; each organ gets defaults for missing keys."""
        entries = [
            {
                "id": f"organ_{index}",
                "type": "Test",
                "agent": "helpers:echo",
                "task_types": [f"task_{index}"],
                **organ,
            }
            for index, organ in enumerate(organs, 1)
        ]
        path = self.directory / name
        path.write_text(json.dumps({"seedcore": {"organism": {"organ_types": entries}}}))
        return path

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start ``seedcore ...`` without waiting for it."""
        process = subprocess.Popen(
            [sys.executable, "-m", "seedcore", *arguments],
            env=self.head.env(self.settings),
            cwd=self.directory,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.background.append(process)
        return process

    def run(self, *arguments: str, timeout_s: float = 120) -> subprocess.CompletedProcess[str]:
        """Run ``seedcore ...`` and wait for its end."""
        process = self.start(*arguments)
        out, err = process.communicate(timeout=timeout_s)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def drive(self, code: str, *, timeout_s: float = 120) -> Any:
        """Run code in the head's driver and return the argument of its single call ``say(data)``."""
        return self.head.driver.ask(
            code, env=self.head.env(self.settings), directory=self.directory, timeout_s=timeout_s
        )

    def up(self, *organs: dict[str, Any]) -> None:
        """Bootstrap an organism, or reload a running one in place, and require that it is healthy."""
        code, outcome = self.drive(_UP.format(path=str(self.config(*organs))), timeout_s=150)
        assert code == 0, outcome

    def probe(self, **expectations: Any) -> Report:
        """Probe the status in this process."""
        return probe(self.settings, **expectations)

    def told(self) -> dict[str, Any]:
        """Return the Coordinator's status; retry if it did not answer in time on a busy machine."""

        def answer() -> dict[str, Any] | None:
            body = self.probe().coordinator
            return body if "organs" in body else None

        return eventually(answer, what="an answer of the Coordinator")

    def submit(self, kind: str, params: dict[str, Any] | None = None, *more: str) -> dict[str, Any]:
        """Submit one task with the command line."""
        done = self.run("submit", kind, "--params", json.dumps(params or {}), *more)
        assert done.stdout, done.stderr
        answer: dict[str, Any] = json.loads(done.stdout)
        return answer

    def actors(self) -> list[str]:
        """Return the names of this namespace's actors that are not dead."""
        state = read_cluster(self.settings, token=self.settings.token(), timeout_s=60)
        return sorted(str(row["name"]) for row in state.actors if row["state"] != "DEAD")

    def end_processes(self) -> None:
        """End the background processes."""
        for process in self.background:
            if process.poll() is None:
                process.kill()
            process.communicate()
        self.background.clear()

    def close(self) -> None:
        """End the background processes and remove all actors of the namespace."""
        self.end_processes()
        self.drive(_DOWN)
        assert self.actors() == []


def pytest_addoption(parser: pytest.Parser) -> None:
    """Register ``--keep-ray``."""
    parser.addoption(
        "--keep-ray", action="store_true", help="leave the Ray of a failed test running and print how to look at it"
    )


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Remember that a test failed, so that --keep-ray can keep its Ray."""
    report = yield
    item.stash[_FAILED] = report.failed or item.stash.get(_FAILED, False)
    return report


def pytest_configure() -> None:
    """Make a terminated run clean up like an interrupted one, so that it leaves no Ray behind."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)


_session_heads: list[RayHead] = []


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, Any, Any]:
    """Start the shared head before the first test's timeout begins: on a busy machine the start takes that long."""
    if not _session_heads and "head" in getattr(item, "fixturenames", ()):
        _session_heads.append(RayHead())
        # The fixture checks that the head runs.
        with contextlib.suppress(AssertionError):
            _session_heads[0].start()
    return (yield)


@pytest.fixture(scope="session")
def head() -> Iterator[RayHead]:
    """Provide a Ray head that the tests of a session or xdist worker share; no test may kill it."""
    (running,) = _session_heads
    try:
        assert running.alive(), "the head did not come up"
        yield running
    finally:
        if not running.kept:
            running.close()


@pytest.fixture
def organism(head: RayHead, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Organism]:
    """Provide a separate namespace on the shared head."""
    deployment = Organism(head, head.scope(f"test-{next(_numbers)}"), tmp_path)
    try:
        yield deployment
    finally:
        if not keep_ray(head, request, deployment.settings):
            deployment.close()


@pytest.fixture(scope="module")
def module_organisms(head: RayHead) -> Iterator[list[Organism]]:
    """Provide the list of organisms that :func:`shared` has created for this module: at most one."""
    made: list[Organism] = []
    try:
        yield made
    finally:
        for deployment in made:
            deployment.close()


@pytest.fixture
def shared(
    head: RayHead,
    module_organisms: list[Organism],
    tmp_path_factory: pytest.TempPathFactory,
    request: pytest.FixtureRequest,
) -> Iterator[Organism]:
    """Provide one namespace for a module's read-only tests; ``up`` reloads an organism that differs in place."""
    if not module_organisms:
        scope = head.scope(f"module-{next(_numbers)}")
        module_organisms.append(Organism(head, scope, tmp_path_factory.mktemp("module")))
    deployment = module_organisms[0]
    try:
        yield deployment
    finally:
        if keep_ray(head, request, deployment.settings):
            module_organisms.clear()
        else:
            deployment.end_processes()


def keep_ray(head: RayHead, request: pytest.FixtureRequest, settings: Settings) -> bool:
    """Keep the Ray of a failed test with ``--keep-ray``, and print how to inspect it."""
    if not (request.config.getoption("--keep-ray") and request.node.stash.get(_FAILED, False)):
        return False
    hint = head.keep(settings)
    with request.config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
        sys.stderr.write(f"\n{request.node.nodeid} failed; {hint}\n")
    return True
