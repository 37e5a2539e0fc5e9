"""Test that GET /metrics exports the view's values in both text formats."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import httpx
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from seedcore.coordinator.http.metrics import METRICS, Metric

if TYPE_CHECKING:
    from tests.unit.coordinator.http.conftest import View

OPENMETRICS = "application/openmetrics-text;version=1.0.0"
Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


@pytest.mark.parametrize("accept", ["*/*", OPENMETRICS])
async def test_values_are_those_of_the_view(client: httpx.AsyncClient, view: View, accept: str) -> None:
    samples = await _scrape(client, accept)
    figures, organ = view.figures, view.organs[0]
    for entry in figures["tasks"]:
        labels = {"task_type": entry["task_type"], "outcome": entry["outcome"]}
        assert samples[_key("seedcore_tasks_total", **labels)] == entry["count"]
        assert samples[_key("seedcore_task_duration_seconds_count", **labels)] == entry["count"]
        assert samples[_key("seedcore_task_duration_seconds_sum", **labels)] == entry["seconds_sum"]
        for bound in ("0.05", "0.1", "60.0", "+Inf"):
            quick = entry["outcome"] == "success" and bound != "0.05"
            expected_count = entry["count"] if quick or bound == "+Inf" else 0
            assert samples[_key("seedcore_task_duration_seconds_bucket", le=bound, **labels)] == expected_count
    assert samples[_key("seedcore_tasks_in_flight")] == 6
    assert samples[_key("seedcore_reloads_total")] == 4
    assert samples[_key("seedcore_init_seconds")] == 1.25
    assert samples[_key("seedcore_init_attempts")] == 2
    assert samples[_key("seedcore_coordinator_restarts_total")] == 3
    assert samples[_key("seedcore_uptime_seconds")] == 12.5
    assert samples[_key("seedcore_release_info", release="0.1.0-abc")] == 1
    assert samples[_key("seedcore_coordinator_degraded")] == 0
    statuses = {
        s: samples[_key("seedcore_coordinator_status", status=s)] for s in ("healthy", "initializing", "unhealthy")
    }
    assert statuses == {"healthy": 1, "initializing": 0, "unhealthy": 0}
    place = {"node_name": "worker-1", "path": "/opt/seedcore/tmp"}
    assert samples[_key("seedcore_node_disk_free_bytes", **place)] == 7
    assert samples[_key("seedcore_node_disk_size_bytes", **place)] == 9
    assert samples[_key("seedcore_inbox_tasks", task_type="echo", state="parked")] == 8
    assert samples[_key("seedcore_inbox_oldest_ready_seconds")] == 2.5
    assert samples[_key("seedcore_inbox_schedule_late_seconds", schedule="nightly")] == 1.5
    labels = {"organ_id": organ["organ_id"], "organ_type": organ["organ_type"]}
    expected = {
        "seedcore_organ_ready": 1,
        "seedcore_organ_required": 1,
        "seedcore_organ_agents": 3,
        "seedcore_organ_agents_ready": 2,
        "seedcore_organ_tasks_in_flight": 4,
        "seedcore_organ_tasks_queued": 5,
        "seedcore_organ_restarts_total": 3,
        "seedcore_organ_queue_limit": 20,
        "seedcore_organ_places_stuck": 1,
    }
    assert {name: samples[_key(name, **labels)] for name in expected} == expected
    assert samples[_key("seedcore_organ_status", status="degraded", **labels)] == 1
    assert samples[_key("seedcore_organ_status", status="ready", **labels)] == 0
    assert samples[_key("seedcore_organ_replicas", state="ready", **labels)] == 1
    assert samples[_key("seedcore_organ_replicas", state="down", **labels)] == 1
    assert samples[_key("seedcore_organ_agent_states", state="failed", **labels)] == 1
    done = {**labels, "task_type": "echo", "outcome": "success"}
    assert samples[_key("seedcore_organ_tasks_total", **done)] == 9
    assert samples[_key("seedcore_organ_task_duration_seconds_bucket", le="0.05", **done)] == 0
    assert samples[_key("seedcore_organ_task_duration_seconds_bucket", le="0.1", **done)] == 9
    assert samples[_key("seedcore_organ_task_duration_seconds_sum", **done)] == 0.25
    assert all(name.startswith("seedcore_") for name, _ in samples)


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
async def test_a_sample_has_the_labels_that_the_reference_names(client: httpx.AsyncClient, metric: Metric) -> None:
    suffixes = {"counter": ["_total"], "info": ["_info"], "histogram": ["_bucket", "_sum", "_count"]}
    names = {f"{metric.name}{suffix}" for suffix in suffixes.get(metric.type, [""])}
    found = [{*dict(labels)} - {"le"} for name, labels in await _scrape(client) if name in names]
    assert all(labels == {*metric.source.labels} for labels in found)


async def test_every_panel_of_the_dashboard_asks_for_metrics_that_exist(client: httpx.AsyncClient) -> None:
    exposed = {name for name, _ in await _scrape(client)}
    queries = [query for metric in METRICS for panel in metric.panels for query in panel.queries]
    assert queries
    assert {name for query in queries for name in re.findall(r"seedcore_\w+", query)} <= exposed


async def test_a_scrape_sees_what_has_changed_since_the_last(client: httpx.AsyncClient, view: View) -> None:
    before = await _scrape(client)
    view.figures["tasks"][0]["count"] += 1
    view.initializing()
    after = await _scrape(client)
    key = _key("seedcore_tasks_total", task_type="echo", outcome="success")
    assert after[key] == before[key] + 1
    assert after[_key("seedcore_coordinator_status", status="initializing")] == 1


async def test_before_the_first_initialisation_there_is_no_figure_for_it(client: httpx.AsyncClient, view: View) -> None:
    view.figures |= {"init_seconds": None, "tasks": []}
    view.organs = []
    samples = await _scrape(client)
    assert _key("seedcore_init_seconds") not in samples
    assert samples[_key("seedcore_uptime_seconds")] == 12.5


@pytest.mark.parametrize(
    "accept", ["", "garbage", "application/openmetrics-text; version=x", "a/b;q=z, ;;=", "text/plain;v=\u00ff"]
)
async def test_any_accept_header_gets_metrics(client: httpx.AsyncClient, accept: str) -> None:
    answer = await client.get("/metrics", headers={b"Accept": accept.encode("latin-1")})
    assert answer.status_code == 200
    assert "seedcore_uptime_seconds" in answer.text


async def _scrape(client: httpx.AsyncClient, accept: str = "*/*") -> Samples:
    answer = await client.get("/metrics", headers={"Accept": accept})
    assert answer.status_code == 200
    is_openmetrics = answer.headers["content-type"].startswith("application/openmetrics-text")
    assert is_openmetrics == (accept == OPENMETRICS)
    families = (parse_openmetrics if is_openmetrics else parse_text)(answer.text)
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in families
        for sample in family.samples
    }


def _key(name: str, **labels: str) -> tuple[str, frozenset[tuple[str, str]]]:
    return name, frozenset(labels.items())
