"""Test the repair of a broken deployment, and its removal."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from tests.deploy.checkout.conftest import Site
from tests.support.processes import marked
from tests.support.ray_head import RayHead

pytestmark = pytest.mark.timeout(2400)


@pytest.fixture
def foreign() -> Iterator[RayHead]:
    """Provide another user's Ray on the same machine."""
    head = RayHead(num_cpus=1)
    head.start()
    yield head
    head.close()


def test_a_run_repairs_what_a_killed_supervisord_has_left(deployed: Site) -> None:
    deployment = deployed.deployment
    before = deployment.processes()
    supervisord = int((deployment.prefix / "run" / "supervisord.pid").read_text())
    os.kill(supervisord, signal.SIGKILL)

    run = deployed.run("deploy").check()

    assert run.recap["changed"] > 0
    after = deployment.processes()
    assert not before.keys() & after.keys()
    assert sorted(after.values()).count("raylet") == 1
    assert deployment.seedcore("status").returncode == 0
    again = deployed.run("deploy").check()
    assert again.changed_tasks == []
    assert run.recap["ok"] > 2 * again.recap["ok"]


def test_teardown_wants_to_be_meant(deployed: Site) -> None:
    run = deployed.run("teardown")

    assert run.returncode != 0
    assert "Nothing was removed" in run.output
    assert deployed.deployment.seedcore("status").returncode == 0


@pytest.mark.smoke_deploy
def test_teardown_leaves_nothing_and_touches_nobody_else(deployed: Site, foreign: RayHead) -> None:
    deployment, young = deployed.deployment, marked(foreign.mark)
    assert deployed.run("teardown", "--check", teardown_confirmed=True).check().recap["changed"] > 0
    assert deployment.prefix.exists()
    # Ray itself ends some processes soon after it has started them.
    others = young.keys() & marked(foreign.mark).keys()
    assert others

    deployed.run("teardown", teardown_confirmed=True).check()

    assert not deployment.prefix.exists()
    assert not deployment.processes()
    assert others <= marked(foreign.mark).keys()
    assert foreign.process.poll() is None
    again = deployed.run("teardown", teardown_confirmed=True).check()
    assert again.recap["changed"] == 0
