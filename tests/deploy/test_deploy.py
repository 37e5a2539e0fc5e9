"""The life of a deployment: first run, second run, check mode, repair, teardown. The tests run in this order."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.deploy.conftest import Deployment
from tests.support.processes import marked
from tests.support.ray_head import RayHead

pytestmark = pytest.mark.timeout(900)

# What no run may touch that changes nothing; the rest (state, log, run, tmp) belongs to what is running.
WRITTEN = ("bin", "current", "etc", "libexec", "ray", "releases", "tools")


@pytest.fixture
def foreign() -> Iterator[RayHead]:
    """Somebody else's Ray on the same machine."""
    head = RayHead(num_cpus=1)
    head.start()
    yield head
    head.close()


def test_it_ends_healthy(deployed: Deployment) -> None:
    status = deployed.seedcore("status", "--json")

    assert status.returncode == 0, status.stderr
    report = json.loads(status.stdout)
    assert report["healthy"] is True
    assert report["nodes"]["alive"] == 1


def test_the_token_is_nobody_elses_to_see(deployed: Deployment) -> None:
    path = deployed.prefix / "etc" / "token"
    token = path.read_text()
    run = deployed.run("ray", "-vvv").check()

    assert path.stat().st_mode & 0o777 == 0o600
    assert len(token) == 64
    assert token not in run.output
    for pid in deployed.processes():
        for name in ("cmdline", "environ"):
            assert token.encode() not in Path(f"/proc/{pid}/{name}").read_bytes(), f"{pid} {name}"
    for path_of_file in (deployed.prefix / "etc").rglob("*"):
        if path_of_file.is_file() and path_of_file != path:
            assert token not in path_of_file.read_text(), path_of_file


def test_a_second_run_changes_nothing(deployed: Deployment) -> None:
    files, processes = deployed.files(*WRITTEN), deployed.processes()

    run = deployed.run("deploy").check()

    assert run.changed_tasks == []
    assert run.recap["changed"] == 0
    assert deployed.files(*WRITTEN) == files
    assert deployed.processes() == processes


def test_every_step_of_another_run_changes_nothing(deployed: Deployment) -> None:
    files, processes = deployed.files(*WRITTEN), deployed.processes()

    short, run = deployed.run("deploy").check(), deployed.run("deploy", seedcore_every_step=True).check()

    assert short.recap["ok"] < run.recap["ok"] / 2, "a host that is as it was left needs few of them"
    assert run.changed_tasks == []
    assert deployed.files(*WRITTEN) == files
    assert deployed.processes() == processes


def test_what_is_not_as_it_was_left_is_mended(deployed: Deployment) -> None:
    processes, settings = deployed.processes(), deployed.prefix / "etc" / "ray.env"
    written = settings.read_text()
    settings.write_text("somebody's\n")

    preview = deployed.run("deploy", "--check", "--diff").check()
    assert "-somebody's" in preview.output
    assert settings.read_text() == "somebody's\n"

    run = deployed.run("deploy").check()
    assert len(run.changed_tasks) == 1
    assert settings.read_text() == written
    assert deployed.processes() == processes


def test_what_is_asked_for_anew_is_made(deployed: Deployment) -> None:
    # Of what it leaves out nothing is made, so the next one has to.
    deployed.run("deploy", "--skip-tags", "ray", seedcore_keep_releases=2).check()
    run = deployed.run("deploy", seedcore_keep_releases=2).check()
    again = deployed.run("deploy", seedcore_keep_releases=2).check()

    assert (run.changed_tasks, again.changed_tasks) == ([], [])
    assert run.recap["ok"] > 2 * again.recap["ok"]


def test_check_mode_on_a_live_host_changes_nothing(deployed: Deployment) -> None:
    files, processes = deployed.files(*WRITTEN), deployed.processes()

    run = deployed.run("deploy", "--check").check()

    assert run.changed_tasks == []
    assert deployed.files(*WRITTEN) == files
    assert deployed.processes() == processes


def test_check_mode_says_what_would_restart(deployed: Deployment) -> None:
    processes = deployed.processes()

    run = deployed.run("ray", "--check", ray_labels={"zone": "a"}).check()

    assert any("The program is configured" in task for task in run.changed_tasks)
    assert deployed.processes() == processes


def test_a_run_repairs_what_a_killed_supervisord_has_left(deployed: Deployment) -> None:
    before = deployed.processes()
    supervisord = int((deployed.prefix / "run" / "supervisord.pid").read_text())
    os.kill(supervisord, signal.SIGKILL)

    run = deployed.run("deploy").check()

    assert run.recap["changed"] > 0
    after = deployed.processes()
    assert not before.keys() & after.keys()
    assert sorted(after.values()).count("raylet") == 1
    assert deployed.seedcore("status").returncode == 0
    assert deployed.run("deploy").check().changed_tasks == []


def test_teardown_wants_to_be_meant(deployed: Deployment) -> None:
    run = deployed.run("teardown")

    assert run.returncode != 0
    assert "Nothing was removed" in run.output
    assert deployed.seedcore("status").returncode == 0


def test_teardown_leaves_nothing_and_touches_nobody_else(deployed: Deployment, foreign: RayHead) -> None:
    others = marked(foreign.mark)
    assert deployed.run("teardown", "--check", teardown_confirmed=True).check().recap["changed"] > 0
    assert deployed.prefix.exists()

    deployed.run("teardown", teardown_confirmed=True).check()

    assert not deployed.prefix.exists()
    assert not deployed.processes()
    assert others.items() <= marked(foreign.mark).items()
    assert foreign.process.poll() is None
    again = deployed.run("teardown", teardown_confirmed=True).check()
    assert again.recap["changed"] == 0
