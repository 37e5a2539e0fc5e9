"""Test that --limit does not widen a destructive run, and that no run succeeds without a gate."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.deploy.conftest import Deployment

INVENTORY = """
all: {vars: {ansible_python_interpreter: "{{ ansible_playbook_python }}"}}
ray_head: {hosts: {localhost: {ansible_connection: local}}}
ray_workers: {hosts: {worker-1: {ansible_connection: local}, dead: {ansible_host: 127.0.0.1, ansible_port: 1}}}
monitoring:
"""
REMOVING = [("teardown", {"teardown_confirmed": True}), ("remove_node", {"node": "worker-1"})]


@pytest.fixture
def site(tmp_path: Path, package: Path) -> Iterator[Deployment]:
    """Provide a cluster without a deployment, one of whose hosts does not answer."""
    (tmp_path / "inventory.yml").write_text(INVENTORY)
    yield Deployment(tmp_path, package, {"ray_become": False})
    assert not (tmp_path / "sc").exists(), json.dumps([str(path) for path in tmp_path.iterdir()])


def last_line(output: str) -> str:
    return output.strip().splitlines()[-1]


def test_a_deployment_without_its_head_has_no_gate_and_is_red(site: Deployment) -> None:
    run = site.run("deploy", "-i", str(site.directory / "inventory.yml"), "--limit", "worker-1", "--tags", "gate")

    assert run.returncode != 0
    assert last_line(run.output).startswith("no gate ran: --limit leaves out the head localhost")


@pytest.mark.parametrize("limit", ["worker-1", "localhost", "!dead"])
@pytest.mark.parametrize(("playbook", "variables"), REMOVING)
def test_what_removes_takes_no_limit(site: Deployment, playbook: str, variables: dict[str, str], limit: str) -> None:
    run = site.run(playbook, "-i", str(site.directory / "inventory.yml"), "--limit", limit, **variables)

    assert run.returncode != 0
    assert f"{playbook} takes no --limit" in run.output
    assert "Lock |" not in run.output, "nothing else has run"


def test_a_node_that_is_no_worker_is_not_removed(site: Deployment) -> None:
    for node, said in {
        "": "There is no node to remove",
        "localhost": "localhost is the head",
        "worker-1,localhost": "localhost is the head",
        "worker-1, elsewhere": "elsewhere is not a worker of this inventory, nothing was touched. The workers are: ",
    }.items():
        run = site.run("remove_node", "-i", str(site.directory / "inventory.yml"), node=node)
        assert run.returncode != 0
        assert said in run.output


def test_a_teardown_names_the_host_that_does_not_answer(site: Deployment) -> None:
    run = site.run("teardown", "-i", str(site.directory / "inventory.yml"), teardown_confirmed=True)

    assert run.returncode != 0
    assert last_line(run.output).startswith(
        "not removed, because the host did not answer: dead. Everything else was removed."
    )
    assert run.recap["failed"] == 0 or run.recap["unreachable"] == 0


def test_a_worker_whose_host_is_gone_leaves_what_the_others_expect(site: Deployment) -> None:
    settings = site.prefix / "etc" / "seedcore.env"
    settings.parent.mkdir(parents=True)
    settings.write_text("SEEDCORE_EXPECTED_NODES=dead,localhost,worker-1\n")
    try:
        run = site.run(
            "remove_node", "-i", str(site.directory / "inventory.yml"), node="dead", seedcore_gate_network=False
        )

        assert settings.read_text() == "SEEDCORE_EXPECTED_NODES=localhost,worker-1\n"
        # Nothing is deployed here, so only the gate can fail.
        assert run.returncode != 0
        assert "RED on localhost, at: Require a healthy Coordinator" in run.output.replace(
            "seedcore.cluster.seedcore_gate : ", ""
        )
        assert "not_installed" in last_line(run.output)
        again = site.run(
            "remove_node", "-i", str(site.directory / "inventory.yml"), node="dead", seedcore_gate_network=False
        )
        assert "another run works on this deployment" not in again.output
    finally:
        shutil.rmtree(site.prefix)
