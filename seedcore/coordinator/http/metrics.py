"""Prometheus metrics, read from the Coordinator's live state when they are asked for: no counters to forget."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, InfoMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector, CollectorRegistry

from seedcore.core.reason import Reason, Status
from seedcore.core.task_counters import BUCKETS_S

if TYPE_CHECKING:
    from prometheus_client import Metric

    from seedcore.coordinator.http.view import CoordinatorView

ORGAN_STATUSES = ("ready", "starting", "degraded", "down", "stopped")


class CoordinatorCollector(Collector):
    """Turns what a view says into metric families; holds no figures of its own."""

    def __init__(self, view: CoordinatorView) -> None:
        self._view = view

    def collect(self) -> Iterable[Metric]:
        """Yield every family."""
        yield from _status(self._view.status())
        figures = self._view.metrics()
        yield from _tasks(figures)
        yield from _life(figures)
        organs = figures.get("organs") or []
        yield from _organs(organs)
        yield from _organ_tasks(organs)
        yield from _disks(figures.get("disks") or [])


class MetricsPage:
    """The text of ``GET /metrics``, from a registry of its own: what else runs in the process is not in it."""

    def __init__(self, view: CoordinatorView) -> None:
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(CoordinatorCollector(view))

    def render(self, accept: str) -> tuple[bytes, str]:
        """Return (body, content type) in the format that ``accept`` (a header) prefers."""
        try:
            encoder, content_type = choose_encoder(accept)
        except Exception:
            # It trips over some headers that make no sense; whoever sends one gets the plain text.
            encoder, content_type = choose_encoder("")
        return encoder(self._registry), content_type


def _status(status: Mapping[str, Any]) -> Iterator[Metric]:
    family = GaugeMetricFamily(
        "seedcore_coordinator_status", "1 for the status that the Coordinator has.", labels=["status"]
    )
    for name in Status:
        family.add_metric([name.value], float(status.get("status") == name))
    yield family
    family = GaugeMetricFamily(
        "seedcore_coordinator_reason", "1 for the reason of the status, see docs/status.md.", labels=["reason"]
    )
    for reason in Reason:
        family.add_metric([reason.value], float(status.get("reason") == reason))
    yield family
    yield GaugeMetricFamily(
        "seedcore_coordinator_degraded",
        "1 if something that is not required is missing.",
        value=float(bool(status.get("degraded"))),
    )
    yield InfoMetricFamily(
        "seedcore_release", "The release that answers.", value={"release": str(status.get("release") or "unknown")}
    )


def _tasks(figures: Mapping[str, Any]) -> Iterator[Metric]:
    labels = ["task_type", "outcome"]
    total = CounterMetricFamily(
        "seedcore_tasks",
        "Tasks that the Coordinator answered; outcome is success or the type of the error.",
        labels=labels,
    )
    seconds = HistogramMetricFamily(
        "seedcore_task_duration_seconds",
        "Seconds from a task's arrival at the Coordinator to its answer.",
        labels=labels,
    )
    for entry in figures.get("tasks") or []:
        values = [str(entry["task_type"]), str(entry["outcome"])]
        total.add_metric(values, entry["count"])
        seconds.add_metric(values, _cumulative(entry["buckets"]), entry["seconds_sum"])
    yield total
    yield seconds
    yield GaugeMetricFamily(
        "seedcore_tasks_in_flight", "Tasks accepted and not yet answered.", value=figures["in_flight"]
    )


def _organ_tasks(organs: list[Mapping[str, Any]]) -> Iterator[Metric]:
    labels = ["organ_id", "organ_type", "task_type", "outcome"]
    total = CounterMetricFamily(
        "seedcore_organ_tasks",
        "Tasks that the organ answered, whoever sent them; what a process did in its last second may be missing.",
        labels=labels,
    )
    seconds = HistogramMetricFamily(
        "seedcore_organ_task_duration_seconds",
        "Seconds from a task's arrival at the organ to its answer.",
        labels=labels,
    )
    for organ in organs:
        for entry in organ.get("tasks") or []:
            values = [*_labels(organ), str(entry["task_type"]), str(entry["outcome"])]
            total.add_metric(values, entry["count"])
            seconds.add_metric(values, _cumulative(entry["buckets"]), entry["seconds_sum"])
    yield total
    yield seconds


def _cumulative(buckets: Sequence[int]) -> list[tuple[str, float]]:
    bounds = [*map(str, BUCKETS_S), "+Inf"]
    return list(zip(bounds, itertools.accumulate(map(float, buckets)), strict=True))


def _life(figures: Mapping[str, Any]) -> Iterator[Metric]:
    if figures.get("init_seconds") is not None:
        yield GaugeMetricFamily(
            "seedcore_init_seconds", "Seconds the last initialisation took.", value=figures["init_seconds"]
        )
    yield GaugeMetricFamily(
        "seedcore_init_attempts", "Attempts until the organism came up.", value=figures["init_attempts"]
    )
    yield CounterMetricFamily(
        "seedcore_coordinator_restarts", "Times the Coordinator's process was replaced.", value=figures["restarts"]
    )
    yield CounterMetricFamily(
        "seedcore_reloads", "Times the organism was changed in place.", value=figures.get("reloads") or 0
    )
    yield GaugeMetricFamily(
        "seedcore_uptime_seconds", "Seconds since the Coordinator's process started.", value=figures["uptime_s"]
    )


def _disks(disks: list[Mapping[str, Any]]) -> Iterator[Metric]:
    labels = ["node_name", "path"]
    free = GaugeMetricFamily(
        "seedcore_node_disk_free_bytes", "Room on the disk of a path, of each living Ray node.", labels=labels
    )
    size = GaugeMetricFamily(
        "seedcore_node_disk_size_bytes", "What of the disk may be used, whether it is or not.", labels=labels
    )
    for disk in disks:
        place = [str(disk["node_name"]), str(disk["path"])]
        free.add_metric(place, float(disk["free"]))
        size.add_metric(place, float(disk["size"]))
    yield free
    yield size


def _organs(organs: list[Mapping[str, Any]]) -> Iterator[Metric]:
    labels = ["organ_id", "organ_type"]
    gauges = {
        "seedcore_organ_ready": ("1 if the organ has its minimum of ready agents.", "ready"),
        "seedcore_organ_required": ("1 if the organism is not healthy without the organ.", "required"),
        "seedcore_organ_agents": ("Agents that the organ is to have.", "agent_count"),
        "seedcore_organ_agents_ready": ("Agents that can work now.", "ready_agents"),
        "seedcore_organ_tasks_in_flight": ("Tasks given to the organ and not yet answered.", "in_flight"),
        "seedcore_organ_tasks_queued": ("Tasks that wait for a free agent.", "queued"),
        "seedcore_organ_queue_limit": ("Tasks that may wait; more are refused.", "queue_limit"),
        "seedcore_organ_places_stuck": ("Places held by tasks that were given up and do not end.", "stuck"),
    }
    for name, (text, key) in gauges.items():
        family = GaugeMetricFamily(name, text, labels=labels)
        for organ in organs:
            family.add_metric(_labels(organ), float(organ.get(key) or 0))
        yield family
    states = GaugeMetricFamily(
        "seedcore_organ_status", "1 for the status that the organ has.", labels=[*labels, "status"]
    )
    replicas = GaugeMetricFamily(
        "seedcore_organ_replicas", "Processes of the organ by their state.", labels=[*labels, "state"]
    )
    restarts = CounterMetricFamily(
        "seedcore_organ_restarts", "Times a process of the organ was replaced.", labels=labels
    )
    agents = GaugeMetricFamily("seedcore_organ_agent_states", "Agents by their state.", labels=[*labels, "state"])
    for organ in organs:
        for state, count in (organ.get("agents") or {}).items():
            agents.add_metric([*_labels(organ), str(state)], float(count))
        processes = organ.get("replicas") or []
        for state in ORGAN_STATUSES:
            states.add_metric([*_labels(organ), state], float(organ.get("status") == state))
            replicas.add_metric([*_labels(organ), state], sum(entry.get("state") == state for entry in processes))
        restarts.add_metric(_labels(organ), sum(entry.get("restarts") or 0 for entry in processes))
    yield agents
    yield states
    yield replicas
    yield restarts


def _labels(organ: Mapping[str, Any]) -> list[str]:
    return [str(organ["organ_id"]), str(organ.get("organ_type", ""))]
