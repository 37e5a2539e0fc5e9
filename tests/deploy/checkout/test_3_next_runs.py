"""Test further runs on a deployed host: no changes, check mode, and repairs."""

from __future__ import annotations

import re

import pytest

from tests.deploy.checkout.conftest import Compared, Site
from tests.deploy.conftest import issue
from tests.support.waiting import eventually

pytestmark = pytest.mark.timeout(2400)


@pytest.mark.smoke_deploy
def test_a_second_run_changes_nothing(second_run: Compared) -> None:
    assert second_run.run.changed_tasks == []
    assert second_run.run.recap["changed"] == 0
    assert second_run.after == second_run.before


def test_every_step_of_another_run_changes_nothing(second_run: Compared, every_step: Compared) -> None:
    few, all_of_them = second_run.run.recap["ok"], every_step.run.recap["ok"]

    assert few < all_of_them / 2, "a host that is as it was left needs few of them"
    assert every_step.run.changed_tasks == []
    assert every_step.after == every_step.before


def test_check_mode_on_a_live_host_changes_nothing(deployed: Site) -> None:
    before = deployed.seen()

    run = deployed.run("deploy", "--check").check()

    assert run.changed_tasks == []
    assert deployed.seen() == before


def test_check_mode_says_what_would_restart(deployed: Site) -> None:
    processes = deployed.deployment.processes()

    run = deployed.run("ray", "--check", ray_labels={"zone": "a"}).check()

    assert any("Write the program" in task for task in run.changed_tasks)
    assert deployed.deployment.processes() == processes


def test_what_was_changed_is_mended_and_a_renewed_certificate_taken_without_a_restart(deployed: Site) -> None:
    deployment = deployed.deployment
    processes, settings = deployment.processes(), deployment.prefix / "etc" / "ray.env"
    before = deployed.status()["coordinator"]["pid"]
    written = settings.read_text()
    settings.write_text("somebody's\n")

    preview = deployed.run("deploy", "--check", "--diff").check()
    assert "-somebody's" in preview.output
    assert len(preview.changed_tasks) == 1
    assert settings.read_text() == "somebody's\n"

    issue(deployment.directory, deployed.authority)
    run = deployed.run("deploy").check()

    of_tls = [task for task in run.changed_tasks if re.search("certificate|key", task)]
    assert (len(of_tls), len(run.changed_tasks)) == (2, 3)
    assert settings.read_text() == written
    assert deployment.processes() == processes
    eventually(lambda: deployment.seedcore("status").returncode == 0, what="healthy with the new certificate")
    assert deployed.status()["coordinator"]["pid"] == before


def test_what_is_asked_for_anew_is_made(deployed: Site, second_run: Compared) -> None:
    deployed.deployment.variables["seedcore_keep_releases"] = 2

    # The partial run skips the change, so the next full run must make it.
    deployed.run("deploy", "--skip-tags", "ray").check()
    run = deployed.run("deploy").check()

    assert run.changed_tasks == []
    assert run.recap["ok"] > 2 * second_run.run.recap["ok"]
