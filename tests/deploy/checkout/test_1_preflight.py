"""Test that preflight reports wrong input and missing requirements before anything starts, and leaves nothing."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.deploy.checkout.conftest import Site
from tests.deploy.conftest import Deployment

pytestmark = pytest.mark.timeout(2400)


@pytest.fixture
def blank(site: Site) -> Deployment:
    """Provide the deployment before its first run."""
    return site.deployment


def test_check_mode_on_a_blank_host_changes_nothing(blank: Deployment) -> None:
    run = blank.run("deploy", "--check").check()

    assert run.recap["failed"] == 0
    assert run.recap["changed"] > 0
    assert not blank.prefix.exists()
    assert not blank.processes()


def test_a_variable_may_be_made_of_facts(blank: Deployment) -> None:
    run = blank.run("preflight", ray_node_ip="{{ ansible_facts['lo']['ipv4']['address'] }}").check()

    assert run.recap["failed"] == 0


def test_every_fault_of_the_variables_is_said_at_once(blank: Deployment) -> None:
    run = blank.run(
        "deploy",
        ray_gcs_port=70000,
        ray_dashboard_port=blank.variables["seedcore_http_port"],
        ray_client_server_port=blank.variables["ray_min_worker_port"],
        ray_become="perhaps",
        ray_gcs_storage="redis",
        ray_version="2.1.0",
        ray_auth_token="verysecret",
        seedcore_namespace="two words",
        # A certificate without a key, whose file does not exist.
        seedcore_http_tls_key="",
        seedcore_http_tls_certificate="/no/such.pem",
    )

    assert run.returncode != 0
    for words in (
        "ray_gcs_port is 70000: give a port from 1024 to 65535",
        "ray_dashboard_port and seedcore_http_port are both",
        "lies among the worker ports",
        "'ray_become' is of type str",
        "ray_gcs_storage must be one of: rocksdb, memory",
        "ray_version is 2.1.0, but ray_requirements locks",
        "ray_auth_token must have at least 16",
        "seedcore_namespace is 'two words'",
    ):
        assert words in run.output, words
    assert "verysecret" not in run.output
    assert "Gathering Facts" not in run.output
    assert not blank.prefix.exists()
    assert run.recap["changed"] == 0
    assert any("only one is given, expected both or none" in line for line in run.last_lines)
    assert any(line.endswith("the controller has no file /no/such.pem") for line in run.last_lines)


def test_a_busy_port_is_named_with_the_process_that_holds_it(blank: Deployment) -> None:
    port = blank.variables["ray_dashboard_port"]
    with socket.create_server(("127.0.0.1", port)):
        run = blank.run("deploy")

    assert run.returncode != 0
    assert f"port {port} is held by" in run.output
    assert f"pid {os.getpid()}," in run.output
    assert "set ray_dashboard_port" in run.output
    assert not blank.prefix.exists()


@pytest.mark.parametrize(("heads", "workers"), [(["a", "b"], []), ([], ["a"]), (["a"], ["a"])])
def test_a_cluster_has_one_head(blank: Deployment, tmp_path: Path, heads: list[str], workers: list[str]) -> None:
    inventory = tmp_path / "hosts"
    inventory.write_text("\n".join(["[ray_head]", *heads, "[ray_workers]", *workers, ""]))

    run = blank.run("preflight", "-i", str(inventory))

    assert run.returncode != 0
    assert ("exactly one head" if len(heads) != 1 else "ray_head and ray_workers both contain a") in run.output


def test_a_directory_with_other_things_in_it_is_left_alone(make_deployment: Callable[..., Deployment]) -> None:
    deployment = make_deployment()
    deployment.prefix.mkdir()
    precious = deployment.prefix / "precious"
    precious.touch()

    deploy = deployment.run("deploy")
    teardown = deployment.run("teardown", teardown_confirmed=True)

    assert "contains files of something else" in deploy.output
    assert "has no mark of a deployment" in teardown.output
    assert deploy.returncode != 0
    assert teardown.returncode != 0
    assert precious.exists()
    precious.unlink()
    deployment.prefix.rmdir()
