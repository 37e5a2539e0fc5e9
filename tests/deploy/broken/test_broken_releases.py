"""Test that twelve releases that are broken in twelve ways leave the old agents in charge, and how soon."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import pytest

from seedcore import Client
from seedcore.core.settings import Settings
from tests.deploy.checkout.conftest import AGENTS, Site
from tests.deploy.conftest import Deployment, Run
from tests.support.waiting import eventually

pytestmark = pytest.mark.timeout(2400)

BAKE_S = 12
# From the moment when the cause is known to a healthy status of the old agents.
GOAL_S = 60
# Faults that only tasks can show, with some tasks that the new process failed.
COSTS_TASKS = ("it hangs after a while", "the answers are wrong, and checked", "it crashes after a while")
EXECUTE = '        return {"model": self.text}'


def _works(code: str) -> str:
    """Return the agents with other code for their tasks."""
    return AGENTS.replace(EXECUTE, "\n".join(f"        {line}" for line in code.splitlines()))


@dataclass(frozen=True)
class Fault:
    """A broken release.

    Attributes:
        name: What is broken.
        source: Source of the agents, None for that of the old ones.
        options: Options of the organ ``first``.
        dependencies: Requirements of the agents' package.
        says: Pattern that the last line of the run must have.
        variables: Further variables of the run.
    """

    name: str
    says: str
    source: str | None = None
    options: dict[str, Any] = field(default_factory=dict)
    dependencies: tuple[str, ...] = ()
    variables: dict[str, Any] = field(default_factory=dict)


_LATER = """import os, time
self.begun = getattr(self, "begun", time.monotonic())
if time.monotonic() - self.begun > 4:
    """
# Beside the tasks, because a task that allocates much is also slow, and would be refused for that.
_LEAK = """import threading, time
def leak():
    for _ in range(500):
        self.kept.append(b'x' * 1_000_000)
        time.sleep(0.02)
if not hasattr(self, "kept"):
    self.kept = []
    threading.Thread(target=leak, daemon=True).start()
return {"model": self.text}"""
FAULTS = (
    Fault("an import fails", "No module named 'no_such'", source=f"import no_such\n{AGENTS}"),
    Fault(
        "the constructor raises",
        "RuntimeError: not with me",
        source=AGENTS.replace("self.start_s = start_s", 'raise RuntimeError("not with me")'),
    ),
    Fault(
        "the start takes too long",
        "organs first did not come up within",
        options={"start_s": 600},
        variables={"seedcore_bootstrap_wait_timeout": 30},
    ),
    Fault("it hangs after a while", "it has answered none of its", source=_works(f"{_LATER}await asyncio.sleep(3600)")),
    Fault(
        "the answers are wrong, and checked",
        r"\d+ of \d+ tasks failed \(old: 0 of \d+\)",
        source=_works("raise ValueError(f'{self.text!r} is no answer')"),
    ),
    Fault(
        "it leaks memory",
        r"its process uses \d+ MiB \(old: \d+ MiB\)",
        source=_works(_LEAK),
    ),
    Fault("it crashes after a while", "the new process is worse", source=_works(f"{_LATER}os._exit(3)")),
    Fault(
        "a resource is missing",
        r"organs first did not come up within .*; seedcore_organ.first.0~\d+ waits for .*nowhere: 1",
        options={"__resources": {"nowhere": 1}},
        variables={"seedcore_bootstrap_wait_timeout": 30},
    ),
    Fault("organism.yaml is wrong", "max_concurrency", options={"__max_concurrency": -1}),
    Fault("the dependencies conflict", "careful==1.0 depends on ray==2.9.0", dependencies=("ray==2.9.0",)),
)


class Load:
    """A client that sends twenty tasks a second for as long as the test runs."""

    def __init__(self, deployment: Deployment) -> None:
        self._deployment = deployment
        self.answers: list[dict[str, Any]] = []
        self._ended = threading.Event()
        self._threads = [threading.Thread(target=self._send) for _ in range(4)]

    def _send(self) -> None:
        lines = (self._deployment.prefix / "etc" / "seedcore.env").read_text().splitlines()
        pairs = (word.split("=", 1) for line in lines for word in shlex.split(line, comments=True))
        settings = Settings.from_env(dict(pairs))
        with Client(settings, transport="http") as client:
            while not self._ended.wait(0.2):
                self.answers.append(client.submit({"type": "read"}, timeout_s=20))

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()


@pytest.fixture(scope="module")
def green(make_deployment: Callable[..., Deployment]) -> Site:
    """Provide a deployment whose agents answer."""
    site = Site(make_deployment())
    site.model.write_text("small")
    site.deployment.variables |= {
        "seedcore_http_tls_certificate": "",
        "seedcore_http_tls_key": "",
        "seedcore_bake_seconds": BAKE_S,
        "seedcore_keep_releases": 3,
    }
    site.run("deploy").check()
    return site


@pytest.fixture(scope="module")
def load(green: Site) -> Iterator[Load]:
    """Provide a load on the deployment."""
    with Load(green.deployment) as load:
        eventually(lambda: len(load.answers) > 20, what="tasks are answered")
        yield load


def _release(site: Site, fault: Fault) -> Path:
    """Write the broken release, and return its organism.yaml."""
    (site.agents / "careful.py").write_text(fault.source or AGENTS)
    needs = json.dumps(list(fault.dependencies))
    project = site.agents / "pyproject.toml"
    project.write_text(project.read_text().split("dependencies")[0] + f"dependencies = {needs}\n")
    backend = site.agents / "backend.py"
    text = re.sub(r"\\nVersion: 1.0\\n.*\"", r'\\nVersion: 1.0\\n"', backend.read_text())
    requires = "".join(f"Requires-Dist: {one}\\n" for one in fault.dependencies)
    backend.write_text(text.replace('Version: 1.0\\n"', f'Version: 1.0\\n{requires}"'))
    options = {key: value for key, value in fault.options.items() if not key.startswith("__")}
    path = site.write("broken.yaml", **options)
    document = json.loads(path.read_text())
    organ = document["seedcore"]["organism"]["organ_types"][0]
    organ.update({key.removeprefix("__"): value for key, value in fault.options.items() if key.startswith("__")})
    path.write_text(json.dumps(document, indent=1))
    return path


@dataclass(frozen=True)
class Watch:
    """What was there before a broken release."""

    site: Site
    load: Load
    name: str
    before: dict[str, Any]
    since: int

    @classmethod
    def begin(cls, site: Site, load: Load, name: str) -> Self:
        """Require a healthy deployment, and remember it."""
        before = site.status()
        assert before["healthy"], before
        return cls(site, load, name, before, len(load.answers))

    def end(self, run: Run, verdict: str = r"^fatal: \[") -> None:
        """Require that the old agents are in charge again, soon after the line of the run that says why it is red."""
        eventually(self._back, timeout_s=120, what="the old agents are in charge, and healthy")
        after_s = time.monotonic() - run.printed_at(verdict)
        failed = [answer for answer in self.load.answers[self.since :] if answer.get("success") is not True]
        answered = len(self.load.answers) - self.since
        # With -s, the table of the operator's handbook.
        print(f"\n| {self.name} | {_cause(run)} | {after_s:.0f} s | {len(failed)} of {answered} |")  # noqa: T201
        assert (self.site.deployment.prefix / "current").resolve().name == self.before["coordinator"]["agents"]
        answer = json.loads(self.site.deployment.seedcore("submit", "read").stdout)
        assert answer["result"] == {"model": "small"}
        assert after_s < GOAL_S
        # What the gate finds costs no task; what only tasks can show costs those that the new process had.
        assert not failed or self.name in COSTS_TASKS, failed[:3]

    def _back(self) -> bool:
        report, old = self.site.status(), self.before["coordinator"]
        now = report["coordinator"] or {}
        return report["healthy"] and (now["agents"], now["pid"]) == (old["agents"], old["pid"])


def _cause(run: Run) -> str:
    """Return the line of the cause, which follows the one that names the host and the step."""
    lines = run.last_lines
    red = next((at for at, line in enumerate(lines) if line.startswith("RED on ")), -2)
    return lines[red + 1][:150]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name.replace(" ", "-"))
def test_a_broken_release_ends_on_the_old_one(green: Site, load: Load, fault: Fault) -> None:
    watch = Watch.begin(green, load, fault.name)

    run = green.run("deploy", organism=_release(green, fault), **fault.variables)

    assert run.returncode != 0, run.output[-4000:]
    assert re.search(fault.says, " ".join(run.last_lines)), "\n".join(run.last_lines)
    watch.end(run)


def test_an_interrupted_run_ends_on_the_old_one(green: Site, load: Load) -> None:
    watch = Watch.begin(green, load, "Ctrl-C")
    new_agents_start = r"\] initializing: "
    broken = _release(green, Fault("", "", options={"start_s": 600}))

    run = green.run("deploy", organism=broken, interrupt_at=new_agents_start)

    assert run.returncode != 0, run.output[-4000:]
    (green.agents / "careful.py").write_text(AGENTS)
    green.run("deploy").check()
    watch.end(run, new_agents_start)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small disk")
def test_a_full_disk_ends_on_the_old_one(green: Site, load: Load) -> None:
    watch = Watch.begin(green, load, "the disk is full")
    small = green.deployment.prefix / "agents"
    kept = green.deployment.directory / "kept"
    shutil.copytree(small, kept, symlinks=True)
    size = sum(path.lstat().st_blocks * 512 for path in kept.rglob("*"))
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size + 65536}", "tmpfs", small], check=True, timeout=60)
    try:
        shutil.copytree(kept, small, symlinks=True, dirs_exist_ok=True)
        fault = Fault("", "", source=f"{AGENTS}\nX = '{'x' * 400_000}'\n")
        run = green.run("deploy", organism=_release(green, fault))
        assert run.returncode != 0, run.output[-4000:]
        assert "No space left on device" in " ".join(run.last_lines), "\n".join(run.last_lines)
        watch.end(run)
    finally:
        subprocess.run(["umount", "--lazy", small], check=True, timeout=60)
