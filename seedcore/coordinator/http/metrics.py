"""Declare every metric once: ``GET /metrics``, docs/reference and the Grafana dashboard are made from the list.

A scrape reads the Coordinator's live state, so no counter can be forgotten.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, InfoMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from seedcore.core.reason import Reason, Status
from seedcore.core.task_counters import BUCKETS_S

if TYPE_CHECKING:
    from prometheus_client import Metric as Family

    from seedcore.coordinator.http.view import CoordinatorView

ORGAN_STATUSES = ("ready", "starting", "degraded", "down", "stopped")
# The label values of a sample, and its value; that of a histogram is an entry of TaskCounts.
Samples = list[tuple[tuple[object, ...], Any]]
Values = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Panel:
    """A panel of the Grafana dashboard.

    Attributes:
        kind: ``stat``, ``state-timeline`` or ``timeseries``.
        row: Title of its row.
        title: Its own title.
        width: Columns of 24.
        queries: Maps PromQL to the legend of its lines.
        unit: Unit by Grafana's name.
    """

    kind: str
    row: str
    title: str
    width: int
    queries: Mapping[str, str]
    unit: str = "none"


@dataclass(frozen=True, slots=True)
class Source:
    """The samples of a metric.

    Attributes:
        labels: Names of their labels.
        samples: Returns them from ``CoordinatorView.metrics()`` with the body of ``status()`` as ``status``.
    """

    labels: tuple[str, ...]
    samples: Callable[[Values], Samples]


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric; if it has a unit, its name ends in it.

    Attributes:
        type: ``counter``, ``gauge``, ``histogram`` or ``info``.
        name: Its name, without the suffix that its type adds.
        help: Its description.
        source: Its samples.
        panels: Its panels in the dashboard.
    """

    type: str
    name: str
    help: str
    source: Source
    panels: Sequence[Panel] = ()

    def family(self, figures: Values) -> Family:
        """Return the metric with its samples, in the form of prometheus_client."""
        labels = self.source.labels
        family: Any = _FAMILIES[self.type](self.name, self.help, labels=() if self.type == "info" else labels)
        for values, value in self.source.samples(figures):
            texts = list(map(str, values))
            if self.type == "info":
                family.add_metric([], dict(zip(labels, texts, strict=True)))
            elif self.type == "histogram":
                family.add_metric(texts, _cumulative(value["buckets"]), value["seconds_sum"])
            else:
                family.add_metric(texts, float(value))
        return family  # type: ignore[no-any-return]


_FAMILIES: Mapping[str, Callable[..., Family]] = {
    "counter": CounterMetricFamily,
    "gauge": GaugeMetricFamily,
    "histogram": HistogramMetricFamily,
    "info": InfoMetricFamily,
}


def _cumulative(buckets: Iterable[int]) -> list[tuple[str, float]]:
    bounds = [*map(str, BUCKETS_S), "+Inf"]
    return list(zip(bounds, itertools.accumulate(map(float, buckets)), strict=True))


def _status(key: str, names: Iterable[str]) -> Source:
    return Source((key,), lambda figures: [((name,), figures["status"].get(key) == name) for name in names])


def _figure(key: str) -> Source:
    return Source((), lambda figures: [] if figures.get(key) is None else [((), figures[key])])


def _disks(key: str) -> Source:
    labels = ("node_name", "path")
    return Source(labels, lambda figures: [((disk["node_name"], disk["path"]), disk[key]) for disk in figures["disks"]])


def _organs(samples: Callable[[Values], Samples], *labels: str) -> Source:
    """Return samples of every organ; its id and type are the first labels."""
    return Source(
        ("organ_id", "organ_type", *labels),
        lambda figures: [
            ((organ["organ_id"], organ.get("organ_type", ""), *values), value)
            for organ in figures["organs"]
            for values, value in samples(organ)
        ],
    )


def _organ(key: str) -> Source:
    return _organs(lambda organ: [((), organ.get(key) or 0)])


def _tasks(holder: Values) -> Samples:
    return [((entry["task_type"], entry["outcome"]), entry) for entry in holder.get("tasks") or ()]


def _task_counts(holder: Values) -> Samples:
    return [(values, entry["count"]) for values, entry in _tasks(holder)]


def _replicas(organ: Values) -> Samples:
    states = [replica.get("state") for replica in organ.get("replicas") or ()]
    return [((state,), states.count(state)) for state in ORGAN_STATUSES]


def _restarts(organ: Values) -> Samples:
    return [((), sum(replica.get("restarts") or 0 for replica in organ.get("replicas") or ()))]


_counter, _gauge, _histogram = (partial(Metric, kind) for kind in ("counter", "gauge", "histogram"))
_stat, _timeline, _lines = (partial(Panel, kind) for kind in ("stat", "state-timeline", "timeseries"))
_TASK = ("task_type", "outcome")
_MEAN = "sum by (task_type) (rate(seedcore_task_duration_seconds_{}[$__rate_interval]))".format
METRICS = (
    _gauge(
        "seedcore_coordinator_status",
        "1 for the Coordinator's present status.",
        _status("status", Status),
        [
            _stat("The organism", "Healthy", 4, {'seedcore_coordinator_status{status="healthy"}': ""}, "bool_yes_no"),
            _timeline("The organism", "Status", 12, {"seedcore_coordinator_status": "{{status}}"}),
        ],
    ),
    _gauge(
        "seedcore_coordinator_reason", "1 for the reason of the status, see docs/status.md.", _status("reason", Reason)
    ),
    _gauge(
        "seedcore_coordinator_degraded",
        "1 if an optional part is missing.",
        Source((), lambda figures: [((), bool(figures["status"].get("degraded")))]),
    ),
    Metric(
        "info",
        "seedcore_release",
        "The release of the Coordinator.",
        Source(("release",), lambda figures: [((figures["status"].get("release") or "unknown",), 1)]),
        [_stat("The organism", "Release", 6, {"seedcore_release_info": "{{release}}"})],
    ),
    _counter(
        "seedcore_tasks",
        "Tasks that the Coordinator answered; outcome is success or the type of the error.",
        Source(_TASK, _task_counts),
        [
            _lines(
                "Tasks",
                "Tasks",
                12,
                {"sum by (outcome) (rate(seedcore_tasks_total[$__rate_interval]))": "{{outcome}}"},
                "ops",
            )
        ],
    ),
    _histogram(
        "seedcore_task_duration_seconds",
        "Seconds from a task's arrival at the Coordinator to its answer.",
        Source(_TASK, _tasks),
        [_lines("Tasks", "Mean duration", 12, {f"{_MEAN('sum')} / {_MEAN('count')}": "{{task_type}}"}, "s")],
    ),
    _gauge(
        "seedcore_tasks_in_flight",
        "Tasks accepted and not yet answered.",
        _figure("in_flight"),
        [
            _lines(
                "Tasks",
                "Under way",
                8,
                {"seedcore_tasks_in_flight": "all", "seedcore_organ_tasks_in_flight": "{{organ_id}}"},
            )
        ],
    ),
    _gauge(
        "seedcore_uptime_seconds",
        "Seconds since the Coordinator's process started.",
        _figure("uptime_s"),
        [_stat("The organism", "Up for", 4, {"seedcore_uptime_seconds": ""}, "s")],
    ),
    _gauge(
        "seedcore_init_seconds",
        "Duration of the last initialisation in seconds.",
        _figure("init_seconds"),
        [_stat("The organism", "Last start took", 4, {"seedcore_init_seconds": ""}, "s")],
    ),
    _gauge("seedcore_init_attempts", "Attempts until the organism was up.", _figure("init_attempts")),
    _counter(
        "seedcore_coordinator_restarts",
        "Times the Coordinator's process was replaced.",
        _figure("restarts"),
        [_stat("The organism", "Restarts in an hour", 6, {"increase(seedcore_coordinator_restarts_total[1h])": ""})],
    ),
    _counter("seedcore_reloads", "Reloads of the organism in place.", _figure("reloads")),
    _gauge(
        "seedcore_node_disk_free_bytes",
        "Free bytes on the disk of a path, for each living Ray node.",
        _disks("free"),
        [
            _lines(
                "The nodes",
                "Disk free",
                8,
                {"seedcore_node_disk_free_bytes / seedcore_node_disk_size_bytes": "{{node_name}} {{path}}"},
                "percentunit",
            )
        ],
    ),
    _gauge("seedcore_node_disk_size_bytes", "File system size without root's reserve, bytes.", _disks("size")),
    _gauge(
        "seedcore_inbox_tasks",
        "Durable tasks in the inbox by state; those that have ended are deleted after seven days.",
        Source(
            ("task_type", "state"),
            lambda figures: [((one["task_type"], one["state"]), one["count"]) for one in figures.get("inbox") or ()],
        ),
        [
            _lines(
                "Tasks",
                "Durable tasks that have not ended",
                8,
                {'sum by (state) (seedcore_inbox_tasks{state=~"ready|later|leased|parked|failed"})': "{{state}}"},
            )
        ],
    ),
    _gauge(
        "seedcore_inbox_oldest_ready_seconds",
        "Seconds for which the oldest durable task that is ready has waited for an organ.",
        _figure("inbox_oldest_s"),
        [_lines("Tasks", "Wait of the oldest durable task", 8, {"seedcore_inbox_oldest_ready_seconds": "oldest"}, "s")],
    ),
    _gauge(
        "seedcore_inbox_canary_seconds",
        "Duration of the inbox's own last task through every organ, from its acceptance until its end is recorded.",
        _figure("inbox_canary_s"),
    ),
    _gauge(
        "seedcore_inbox_schedule_late_seconds",
        "Seconds for which a schedule has waited until its task is planned and begins; 0 if nothing is due.",
        Source(
            ("schedule",),
            lambda figures: [((one["schedule"],), one["seconds"]) for one in figures.get("schedules_late") or ()],
        ),
    ),
    _gauge(
        "seedcore_organ_ready",
        "1 if the organ has its minimum of ready agents.",
        _organ("ready"),
        [_timeline("The organism", "Organs", 12, {"seedcore_organ_ready": "{{organ_id}}"})],
    ),
    _gauge("seedcore_organ_required", "1 if the organism is unhealthy without the organ.", _organ("required")),
    _gauge("seedcore_organ_tasks_in_flight", "Tasks sent to the organ and not yet answered.", _organ("in_flight")),
    _gauge(
        "seedcore_organ_tasks_queued",
        "Tasks that wait for a free agent.",
        _organ("queued"),
        [
            _lines(
                "Tasks",
                "Queued, as a share of the limit",
                8,
                {"seedcore_organ_tasks_queued / seedcore_organ_queue_limit": "{{organ_id}}"},
                "percentunit",
            )
        ],
    ),
    _gauge("seedcore_organ_queue_limit", "Largest number of waiting tasks; more are refused.", _organ("queue_limit")),
    _gauge(
        "seedcore_organ_places_stuck",
        "Slots held by tasks that do not end after their deadline.",
        _organ("stuck"),
    ),
    _gauge("seedcore_organ_agents", "Configured number of agents.", _organ("agent_count")),
    _gauge(
        "seedcore_organ_agents_ready",
        "Agents that are ready.",
        _organ("ready_agents"),
        [
            _lines(
                "Tasks",
                "Agents ready",
                8,
                {"seedcore_organ_agents_ready / seedcore_organ_agents": "{{organ_id}}"},
                "percentunit",
            )
        ],
    ),
    _gauge(
        "seedcore_organ_agent_states",
        "Agents by state.",
        _organs(lambda organ: [((state,), count) for state, count in (organ.get("agents") or {}).items()], "state"),
    ),
    _gauge(
        "seedcore_organ_status",
        "1 for the organ's present status.",
        _organs(lambda organ: [((state,), organ.get("status") == state) for state in ORGAN_STATUSES], "status"),
    ),
    _gauge("seedcore_organ_replicas", "Processes of the organ by state.", _organs(_replicas, "state")),
    _counter(
        "seedcore_organ_restarts",
        "Times a process of the organ was replaced.",
        _organs(_restarts),
        [
            _lines(
                "The nodes",
                "Processes replaced in an hour",
                8,
                {"increase(seedcore_organ_restarts_total[1h])": "{{organ_id}}"},
            )
        ],
    ),
    _counter(
        "seedcore_organ_tasks",
        "Tasks that the organ answered, from any sender; those of a process's last second may be missing.",
        _organs(_task_counts, *_TASK),
    ),
    _histogram(
        "seedcore_organ_task_duration_seconds",
        "Seconds from a task's arrival at the organ to its answer.",
        _organs(_tasks, *_TASK),
    ),
)


class MetricsPage(Collector):
    """The text of ``GET /metrics``, without other metrics of the process; it keeps no figures itself."""

    def __init__(self, view: CoordinatorView) -> None:
        self._view = view

    def collect(self) -> Iterable[Family]:
        """Yield every family."""
        figures = {**self._view.metrics(), "status": self._view.status()}
        return [metric.family(figures) for metric in METRICS]

    def render(self, accept: str) -> tuple[bytes, str]:
        """Return (body, content type) in the format that ``accept`` (a header) prefers."""
        try:
            encoder, content_type = choose_encoder(accept)
        except Exception:
            # The library raises for some malformed headers; answer those with the plain text format.
            encoder, content_type = choose_encoder("")
        return encoder(self), content_type
