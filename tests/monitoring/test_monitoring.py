"""Test a real Prometheus on a real deployment, with one alert; promtool tests the others. The order matters."""

from __future__ import annotations

import contextlib
import json
import re
import ssl
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trustme
import yaml

from tests.deploy.conftest import ROOT, Deployment, issue
from tests.support.ports import free_ports
from tests.support.processes import kill
from tests.support.waiting import eventually

pytestmark = pytest.mark.timeout(900)

ROLE = ROOT / "roles" / "monitoring"
WORD = re.compile(r"\b(?:seedcore|ray)_[a-z_]+\b|\bup\b")
ORGANISM = """\
seedcore:
  organism:
    organ_types:
      - id: slow
        type: Test
        agent: seedcore.agents:utility
        options: {max_sleep_s: 300}
        task_types: [sleep]
        task_timeout_s: 300
        queue_limit: 4
      - {id: other, type: Test, agent: seedcore.agents:utility, task_types: [echo]}
    schedules:
      - {id: nightly, every: 1d, task: {type: echo, params: {text: x}}}
"""


class Watched:
    """Provide a deployment with the group ``monitoring``."""

    def __init__(self, deployment: Deployment) -> None:
        self.deployment = deployment
        self.prefix = Path(f"{deployment.prefix}-monitoring")
        self.grafana = deployment.directory / "grafana"
        self.authority = trustme.CA()
        issue(deployment.directory, self.authority)
        inventory = deployment.directory / "monitoring.yml"
        inventory.write_text("monitoring: {hosts: {localhost: }}\n")
        self.inventory = ["-i", str(ROOT / "inventory" / "local"), "-i", str(inventory)]
        for part in ("datasources", "dashboards"):
            (self.grafana / part).mkdir(parents=True)
        config = deployment.directory / "organism.yaml"
        config.write_text(ORGANISM)
        deployment.variables |= {
            "monitoring_port": free_ports(1)[0],
            "monitoring_scrape_interval": 1,
            # A prestarted worker costs a CPU-second, and actors with a separate environment do not use it.
            "ray_environment": {"RAY_prestart_worker_first_driver": "0"},
            "monitoring_grafana_provisioning": str(self.grafana),
            "monitoring_tls_server_name": "head.example",
            "seedcore_config": str(config),
            "seedcore_inbox": "sqlite",
            "seedcore_http_tls_certificate": str(deployment.directory / "server.pem"),
            "seedcore_http_tls_key": str(deployment.directory / "server.key"),
        }

    def run(self, playbook: str, *arguments: str, **variables: Any) -> Any:
        return self.deployment.run(playbook, *self.inventory, *arguments, **variables)

    def ask(self, path: str, **query: str) -> Any:
        url = f"http://127.0.0.1:{self.deployment.variables['monitoring_port']}/api/v1/{path}"
        with urllib.request.urlopen(f"{url}?{urllib.parse.urlencode(query)}", timeout=10) as answer:
            return json.load(answer)["data"]

    def target(self, job: str) -> dict[str, Any]:
        targets = self.ask("targets", state="active")["activeTargets"]
        return next(dict(target) for target in targets if target["labels"]["job"] == job)

    def value(self, expression: str) -> float | None:
        found = self.ask("query", query=expression)["result"]
        return float(found[0]["value"][1]) if found else None

    def firing(self) -> set[str]:
        return {entry["labels"]["alertname"] for entry in self.ask("alerts")["alerts"] if entry["state"] == "firing"}

    def becomes(self, expression: str, value: float) -> None:
        """Wait until Prometheus has it."""
        eventually(lambda: self.value(expression) == value, timeout_s=120, interval_s=0.5, what=f"{expression} {value}")

    def pids(self) -> dict[str, int]:
        done = self.deployment.seedcore("status", "--json")
        own = json.loads(done.stdout)["coordinator"]
        organs = {organ["organ_id"]: organ["replicas"][0]["pid"] for organ in own.get("organs") or []}
        return {"coordinator": own.get("pid"), **organs}

    def replaced(self, organ: str) -> None:
        """Kill an organ's process and wait for its successor."""
        before = self.pids()[organ]
        kill(before)
        eventually(lambda: self.pids().get(organ) not in {before, None}, timeout_s=120, what=f"another {organ}")


@pytest.fixture(scope="module")
def watched(make_deployment: Callable[..., Deployment]) -> Watched:
    one = Watched(make_deployment())
    assert one.run("monitoring", "--check").check().recap["changed"] > 0
    assert not one.prefix.exists()
    one.run("deploy").check()
    return one


def test_it_scrapes_the_coordinator_and_every_node(watched: Watched) -> None:
    targets = watched.ask("targets", state="active")["activeTargets"]

    assert {target["labels"]["job"] for target in targets} == {"seedcore", "ray", "ray-head"}
    assert {target["health"] for target in targets} == {"up"}, targets
    assert watched.value('seedcore_coordinator_status{status="healthy"}') == 1


def test_every_metric_of_an_alert_or_a_panel_is_there(watched: Watched) -> None:
    assert watched.deployment.seedcore("submit", "echo", "--params", '{"text": "x"}').returncode == 0
    durable = watched.deployment.seedcore("submit", "echo", "--params", '{"text": "x"}', "--durable", "--wait")
    assert durable.returncode == 0, durable.stderr
    rules = yaml.safe_load((ROLE / "files" / "rules.yml").read_text())["groups"][0]["rules"]
    panels = json.loads((ROLE / "files" / "seedcore.json").read_text())["panels"]
    expressions = [rule["expr"] for rule in rules]
    expressions += [target["expr"] for panel in panels for target in panel.get("targets", [])]
    named = {word for expression in expressions for word in WORD.findall(re.sub(r"\{[^}]*\}", "", expression))}
    assert len(named) > 15

    def missing() -> set[str]:
        return named - set(watched.ask("label/__name__/values"))

    with contextlib.suppress(AssertionError):
        eventually(lambda: not missing(), timeout_s=60)
    assert missing() == set()


def test_every_metric_of_ours_is_in_the_reference(watched: Watched) -> None:
    written = set(re.findall(r"`(seedcore_\w+)`", (ROOT / "docs" / "reference" / "metrics.md").read_text()))
    real = {name for name in watched.ask("label/__name__/values") if name.startswith("seedcore_")}

    parts = re.compile(r"_(?:sum|count|bucket|created)$")
    assert {name for name in real if name not in written and parts.sub("", name) not in written} == set()


def test_its_own_configuration_is_well_and_the_token_is_its_owners(watched: Watched) -> None:
    done = subprocess.run(
        ["promtool", "check", "config", watched.prefix / "etc" / "prometheus.yml"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    token = watched.prefix / "etc" / "token"
    assert token.stat().st_mode & 0o777 == 0o400
    assert token.read_text() not in (watched.prefix / "etc" / "prometheus.yml").read_text()


def test_its_token_may_only_read(watched: Watched) -> None:
    token = (watched.prefix / "etc" / "token").read_text()
    port = watched.deployment.variables["seedcore_http_port"]

    def answer(path: str, body: bytes | None = None) -> int:
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        request = urllib.request.Request(f"https://127.0.0.1:{port}{path}", data=body, headers=headers)
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        try:
            with urllib.request.urlopen(request, timeout=10, context=context) as response:
                return int(response.status)
        except urllib.error.HTTPError as error:
            return error.code

    assert answer("/metrics") == 200
    assert answer("/coordinator/tasks", b'{"type": "echo"}') == 403
    assert token != (watched.deployment.prefix / "etc" / "token").read_text()


def test_a_token_that_was_revoked_is_made_anew(watched: Watched) -> None:
    old = (watched.prefix / "etc" / "token").read_text()
    (row,) = json.loads(watched.deployment.seedcore("token", "list", "--json").stdout)
    assert (row["name"], row["scope"]) == ("prometheus-localhost", "read")
    assert watched.deployment.seedcore("token", "revoke", row["name"]).returncode == 0

    assert watched.run("monitoring").check().changed_tasks

    assert (watched.prefix / "etc" / "token").read_text() != old


def test_grafana_finds_the_dashboard_and_its_source(watched: Watched) -> None:
    source = yaml.safe_load((watched.grafana / "datasources" / "seedcore.yml").read_text())["datasources"][0]
    provider = yaml.safe_load((watched.grafana / "dashboards" / "seedcore.yml").read_text())["providers"][0]

    assert source["url"].endswith(f":{watched.deployment.variables['monitoring_port']}")
    found = json.loads((Path(provider["options"]["path"]) / "seedcore.json").read_text())
    assert {panel["datasource"]["uid"] for panel in found["panels"] if "targets" in panel} == {source["uid"]}


def test_a_second_run_changes_nothing(watched: Watched) -> None:
    before = watched.value("process_start_time_seconds") or 0

    assert watched.run("monitoring").check().changed_tasks == []
    assert watched.run("monitoring", "--check").check().changed_tasks == []
    assert (watched.value("process_start_time_seconds") or 0) == before


def test_what_happens_to_the_cluster_is_counted(watched: Watched) -> None:
    assert watched.firing() == set()
    slow = {
        "queued": 'seedcore_organ_tasks_queued{organ_id="slow"}',
        "limit": 'seedcore_organ_queue_limit{organ_id="slow"}',
    }
    sleeping = [
        subprocess.Popen(
            [watched.deployment.prefix / "bin" / "seedcore", "submit", "sleep", "--params", '{"seconds": 250}'],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for _ in range(5)
    ]
    try:
        watched.becomes(slow["queued"], 4)
        assert watched.value(slow["limit"]) == 4
        watched.replaced("other")
        watched.becomes('seedcore_organ_restarts_total{organ_id="other"}', 1)
    finally:
        for process in sleeping:
            process.kill()
            process.wait()
    kill(watched.pids()["coordinator"])
    watched.becomes("seedcore_coordinator_restarts_total", 1)
    watched.becomes('seedcore_coordinator_status{status="healthy"}', 1)
    assert not watched.firing() & {"SeedCoreNotHealthy", "RayNodeMissing"}


def test_it_believes_the_certificate_of_the_coordinator_and_no_other(watched: Watched) -> None:
    target = watched.target("seedcore")
    assert (target["health"], target["scrapeUrl"].partition(":")[0]) == ("up", "https"), target

    issue(watched.deployment.directory, watched.authority)
    (watched.prefix / "etc" / "http.pem").write_bytes((watched.deployment.directory / "server.pem").read_bytes())

    eventually(lambda: "certificate" in watched.target("seedcore")["lastError"], what="a scrape that believes nobody")


def test_the_alert_of_a_coordinator_that_cannot_be_asked_fires_and_ends(watched: Watched) -> None:
    alert = "SeedCoreNotHealthy"
    eventually(lambda: alert in watched.firing(), timeout_s=150, interval_s=1, what=f"alert {alert}")
    assert "RayNodeMissing" not in watched.firing()

    watched.run("deploy").check()

    eventually(lambda: watched.target("seedcore")["health"] == "up", what="a scrape with the new certificate")
    eventually(lambda: alert not in watched.firing(), interval_s=1, what=f"the end of the alert {alert}")


def test_teardown_leaves_nothing(watched: Watched) -> None:
    watched.run("teardown", teardown_confirmed=True).check()

    assert not watched.prefix.exists()
    assert not list(watched.grafana.rglob("*.yml"))
    assert watched.run("teardown", teardown_confirmed=True).check().recap["changed"] == 0
