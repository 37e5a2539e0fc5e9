"""What is on the screen at the end of a run, and a deployment that speaks TLS. The tests run in this order."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from collections.abc import Callable

import pytest
import trustme

from tests.deploy.conftest import Deployment, Run, issue
from tests.support.waiting import eventually

pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def secure(make_deployment: Callable[..., Deployment], authority: trustme.CA) -> Deployment:
    """A deployment with a certificate, not yet made."""
    deployment = make_deployment()
    issue(deployment.directory, authority)
    deployment.variables |= {
        "seedcore_http_tls_certificate": str(deployment.directory / "server.pem"),
        "seedcore_http_tls_key": str(deployment.directory / "server.key"),
    }
    return deployment


@pytest.fixture(scope="module")
def first(secure: Deployment) -> Run:
    """Its first run."""
    return secure.run("deploy").check()


def last_lines(run: Run) -> list[str]:
    return run.output.rstrip().rpartition("PLAY RECAP")[2].splitlines()


def test_half_of_a_certificate_is_refused_before_anything_is_done(secure: Deployment) -> None:
    run = secure.run("deploy", seedcore_http_tls_key="", seedcore_http_tls_certificate="/no/such.pem")

    assert run.returncode != 0
    assert run.recap["changed"] == 0
    assert "only one is given, allowed is both or none" in last_lines(run)[-2]
    assert last_lines(run)[-1].endswith("there is no file /no/such.pem on the controller")


def test_the_last_lines_say_what_to_do_next(secure: Deployment, first: Run) -> None:
    lines = last_lines(first)

    start = lines.index("SeedCore is up, in namespace seedcore-dev.")
    named = dict(line.split(":", 1) for line in lines[start + 1 :])
    assert list(named) == ["Page", "Look", "Ask", "Shell"]
    port, token = secure.variables["seedcore_http_port"], secure.prefix / "etc" / "token"
    assert named["Page"].split() == [f"https://127.0.0.1:{port}/", "(the", "token", "is", "in", f"{token})"]
    for name in ("Look", "Ask"):
        done = subprocess.run(shlex.split(named[name]), capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr


def test_the_screen_is_quiet(first: Run) -> None:
    assert "\nok: " not in first.output
    assert "\nskipping: [" not in first.output
    assert "\nincluded: " not in first.output
    assert re.search(r"^  \[localhost\] initializing: ", first.output, re.MULTILINE), "what is waited for is shown"
    assert set(re.findall(r"^(\w+): \[", first.output, re.MULTILINE)) == {"changed"}


def test_everything_speaks_tls(secure: Deployment, first: Run) -> None:
    status = secure.seedcore("status", "--json")

    assert json.loads(status.stdout)["healthy"] is True
    key = secure.prefix / "etc" / "http.key"
    assert key.stat().st_mode & 0o777 == 0o600
    assert key.read_text() not in first.output


def test_a_renewed_certificate_is_taken_without_a_restart(secure: Deployment, authority: trustme.CA) -> None:
    before = json.loads(secure.seedcore("status", "--json").stdout)["coordinator"]["pid"]
    issue(secure.directory, authority)

    run = secure.run("deploy").check()

    assert len(run.changed_tasks) == 2
    assert all(re.search("certificate|key", task) for task in run.changed_tasks)
    eventually(lambda: secure.seedcore("status").returncode == 0, what="healthy with the new certificate")
    assert json.loads(secure.seedcore("status", "--json").stdout)["coordinator"]["pid"] == before


def test_the_cause_is_the_last_thing_on_a_red_screen(secure: Deployment) -> None:
    run = secure.run("status", seedcore_gate_timeout=8, seedcore_node_names=["localhost", "worker-9"])

    assert run.returncode != 0
    lines = last_lines(run)
    assert re.match(r"RED on localhost, at: .*The Coordinator is healthy", lines[-2]), run.output[-3000:]
    assert re.match(r"nodes_missing: .*worker-9.* \(after \d+ s\)$", lines[-1])


def test_a_green_status_says_so_in_one_line(secure: Deployment) -> None:
    run = secure.run("status").check()

    assert last_lines(run)[-1].startswith("healthy: 3 of 3 organs ready")


def test_without_the_variables_it_is_plain_again(secure: Deployment) -> None:
    run = secure.run("deploy", seedcore_http_tls_certificate="", seedcore_http_tls_key="").check()

    assert any("http://127.0.0.1:" in line for line in last_lines(run))
    assert not (secure.prefix / "etc" / "http.key").exists()
    assert secure.seedcore("status").returncode == 0
