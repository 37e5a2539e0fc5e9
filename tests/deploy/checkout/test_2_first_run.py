"""Test the first runs: a failure with its cause, then success, with their output and the state of the host."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from pathlib import Path

import pytest

from tests.deploy.checkout.conftest import Compared, Site
from tests.deploy.conftest import Run
from tests.support.waiting import eventually

pytestmark = pytest.mark.timeout(2400)

FAULT = "organ first: agent first_agent_0 did not start: FileNotFoundError"


@pytest.mark.smoke_deploy
def test_an_organ_that_does_not_start_is_red_with_its_cause(site: Site, red: Run) -> None:
    assert red.returncode != 0
    assert f"init_failed: Coordinator initialization failed: {FAULT}" in red.output
    assert red.last_lines[-1].endswith("Nothing was reverted: no other release was green with the Ray of the nodes")
    assert red.failed_after_s < 150, "long before the 300 s of the wait are over"
    evidence = site.deployment.directory / "evidence.txt"
    for text in (red.output, evidence.read_text()):
        assert "The agent's own traceback:" in text
        assert "self.text = self.model.read_text()" in text
    assert evidence.stat().st_mode & 0o777 == 0o600
    assert (site.deployment.prefix / "etc" / "token").read_text() not in evidence.read_text() + red.output
    # The supervisor retries from time to time, and leaves nothing behind either.
    eventually(lambda: site.living_actors() == [], timeout_s=300, what="nothing is left running")
    eventually(lambda: site.status()["reason"] == "init_failed", timeout_s=300, what="the status says why")


@pytest.mark.smoke_deploy
def test_the_next_run_is_green_and_keeps_as_many_releases_as_it_shall(deployed: Site) -> None:
    report = deployed.status()

    assert report["healthy"] is True
    assert report["nodes"]["alive"] == 1
    releases = deployed.deployment.prefix / "releases"
    assert [path.name for path in releases.iterdir()] == [report["release"]]
    agents = deployed.deployment.prefix / "agents"
    assert [path.name for path in agents.iterdir()] == [report["coordinator"]["agents"]]
    assert (deployed.deployment.prefix / "current").resolve() == agents / report["coordinator"]["agents"]
    # Ray is once on the host, and the release sees it there.
    assert {path.parents[4].name for path in deployed.deployment.prefix.glob("*/*/lib/*/site-packages/ray")} == {"ray"}
    assert deployed.deployment.seedcore("status").returncode == 0
    answer = deployed.deployment.seedcore("submit", "read")
    assert json.loads(answer.stdout)["result"] == {"model": "small"}


def test_the_last_lines_say_what_to_do_next(deployed: Site, first: Run) -> None:
    lines, deployment = first.last_lines, deployed.deployment

    start = lines.index("SeedCore is up, in namespace seedcore-dev.")
    named = dict(line.split(":", 1) for line in lines[start + 1 :])
    assert list(named) == ["Page", "Status", "Submit", "Shell"]
    port, token = deployment.variables["seedcore_http_port"], deployment.prefix / "etc" / "token"
    assert named["Page"].split() == [f"https://127.0.0.1:{port}/", "(the", "token", "is", "in", f"{token})"]
    for name in ("Status", "Submit"):
        done = subprocess.run(shlex.split(named[name]), capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr


def test_the_screen_is_quiet(first: Run) -> None:
    assert "\nok: " not in first.output
    assert "\nskipping: [" not in first.output
    assert "\nincluded: " not in first.output
    assert set(re.findall(r"^(\w+): \[", first.output, re.MULTILINE)) == {"changed"}
    plays = re.findall(r"^PLAY \[(.+?)\]", first.output, re.MULTILINE)
    assert plays, first.output
    assert len(plays) == len(set(plays)), "no play is shown twice"


def test_everything_speaks_tls(deployed: Site, red: Run, first: Run) -> None:
    status = deployed.deployment.seedcore("status", "--json")

    assert json.loads(status.stdout)["healthy"] is True
    key = deployed.deployment.prefix / "etc" / "http.key"
    assert key.stat().st_mode & 0o777 == 0o600
    assert key.read_text() not in red.output + first.output


def test_the_token_is_nobody_elses_to_see(deployed: Site, every_step: Compared) -> None:
    deployment = deployed.deployment
    path = deployment.prefix / "etc" / "token"
    token = path.read_text()

    assert path.stat().st_mode & 0o777 == 0o600
    assert len(token) == 64
    assert token not in every_step.run.output
    for pid in deployment.processes():
        for name in ("cmdline", "environ"):
            assert token.encode() not in Path(f"/proc/{pid}/{name}").read_bytes(), f"{pid} {name}"
    for path_of_file in (deployment.prefix / "etc").rglob("*"):
        if path_of_file.is_file() and path_of_file != path:
            assert token not in path_of_file.read_text(), path_of_file
