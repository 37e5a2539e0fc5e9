"""Specifications of an organism and its organs: frozen values that are sent between processes.

``config.py`` makes them from organism.yaml; the manager, the organs and the fingerprint read them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields, replace
from pathlib import PurePath
from typing import Any

from seedcore.core.schedule import ScheduleSpec

LIBRARY = __name__.partition(".")[0]
MAX_SECONDS = 7 * 86_400
# Share of silence_s; the rest covers a question in transit.
LEASE_SHARE = 0.8


@dataclass(frozen=True, slots=True)
class Option:
    """Describes a key of organism.yaml, except its default.

    Attributes:
        help: Its meaning.
        kind: The allowed values: a key of ``config.KINDS``.
        bounds: Limits of a number: ``ge``, ``gt`` and ``le``.
    """

    help: str
    kind: str
    bounds: Mapping[str, float]


def _option(text: str, kind: str, default: Any = MISSING, **bounds: float) -> Any:
    metadata = {"option": Option(text, kind, bounds)}
    return (
        field(default_factory=dict, metadata=metadata) if default is dict else field(default=default, metadata=metadata)
    )


def _count(text: str, default: int, *, ge: int = 1, le: int) -> Any:
    return _option(text, "count", default, ge=ge, le=le)


def _seconds(text: str, default: float) -> Any:
    return _option(text, "seconds", default, gt=0, le=MAX_SECONDS)


@dataclass(frozen=True, slots=True, kw_only=True)
class OrganSpec:
    """One organ; each attribute but ``python`` is a key of an entry of ``organ_types`` in organism.yaml.

    This is the only list of the keys: the loader, its messages, the JSON schema and the reference come from it.
    """

    id: str = _option(
        "Unique in the organism; part of the names of its agents (``<id>_agent_<i>``) and of its actors "
        "(``seedcore_organ.<id>.<replica>``, with ``~1`` at the end after every other replacement).", "id",
    )  # fmt: skip
    type: str = _option("Kind of the organ, for people.", "name")
    agent: str = _option("Import path ``package.module:name`` of an agent class or function.", "agent")
    description: str = _option("For people.", "text", "")
    options: Mapping[str, Any] = _option(
        "Keyword arguments of the agent class, or of each call of the function; plain data.", "mapping", dict
    )
    environment: str = _option(
        "Name of an environment of the deployment (``seedcore_environments``): the organ's processes see its packages, "
        "and not those of the other agents. Without a deployment it has no effect.", "environment", "",
    )  # fmt: skip
    agent_count: int = _count("Agents in the whole organ, spread over its replicas.", 1, le=100_000)
    task_types: tuple[str, ...] = _option(
        "Task types that the organ accepts in every domain that no organ claims (normalised: stripped, lower case).",
        "names", (),
    )  # fmt: skip
    domains: Mapping[str, tuple[str, ...]] = _option(
        "Maps a domain to the task types accepted in it; preferred over ``task_types`` (normalised as well).",
        "domains", dict,
    )  # fmt: skip
    replicas: int = _count("Actor processes, at most ``agent_count``.", 1, le=1_000)
    required: bool = _option("Whether the organism is unhealthy without this organ.", "flag", default=True)
    min_ready_agents: int = _option(
        "With fewer ready agents the organ is down. Default: ``agent_count``.", "ready", 0, ge=1, le=100_000
    )
    max_concurrency: int = _count("Tasks that one agent executes at the same time.", 1, le=10_000)
    queue_limit: int = _count("Tasks that may wait in a replica whose agents are all busy.", 1000, ge=0, le=1_000_000)
    task_timeout_s: float = _seconds("Seconds that a task may take, waiting included; a task may set less.", 60.0)
    start_timeout_s: float = _seconds("Time limit in seconds for an agent's constructor and ``start``.", 60.0)
    health_interval_s: float = _seconds(
        "Seconds between two reports of a replica without news, and between two calls of ``check_health`` of an "
        "agent.", 1.0,
    )  # fmt: skip
    health_timeout_s: float = _seconds("Seconds after which a report or a ``check_health`` is overdue.", 3.0)
    failure_threshold: int = _count("Missed reports in a row until the replica's process is replaced.", 2, le=1_000)
    node_silence_s: float = _seconds(
        "Seconds after which a replica is started on another node if neither its process nor its node's agent answers; "
        "at least the time that it takes to detect a process that hangs.", 15.0,
    )  # fmt: skip
    drain_timeout_s: float = _option(
        "Seconds that an organ waits for its tasks in flight when it is stopped or replaced.",
        "seconds_or_none", 10.0, ge=0, le=MAX_SECONDS,
    )  # fmt: skip
    repeatable: bool = _option(
        "Whether a durable task may run again when nobody knows whether it ran, because its process died. Set it to "
        "true only for tasks that may run twice.", "flag", default=False,
    )  # fmt: skip
    interrupt: bool = _option(
        "Whether to interrupt Python code in a thread at its task's deadline. Set it to false for an agent whose "
        "code must not get an exception at an arbitrary line; it then keeps its slot until it returns.",
        "flag", default=True,
    )  # fmt: skip
    num_cpus: float = _option("CPUs that Ray reserves for each replica.", "quantity", 0.1)
    num_gpus: float = _option("GPUs that Ray reserves for each replica.", "gpus", 0.0)
    resources: Mapping[str, float] = _option(
        "Custom resources that Ray reserves for each replica, such as ``{ssd: 1}``.", "resources", dict
    )
    labels: Mapping[str, str] = _option(
        "Labels that a replica's node must have, as Ray's label selectors: ``value``, ``!value``, ``in(a,b)`` or "
        "``!in(a,b)``; such as ``{zone: a}``.", "labels", dict,
    )  # fmt: skip

    revision: str = _option(
        "Any text. A changed one replaces the organ's processes although nothing else of it has changed; "
        "``seedcore dev`` sets it to a digest of the agents' code.", "text", "",
    )  # fmt: skip

    # The interpreter of its processes; empty: that of the Coordinator. ``OrganismSpec.with_python`` sets it.
    python: str = ""

    def __post_init__(self) -> None:
        if not self.min_ready_agents:
            # 0 stands for the default, which depends on another attribute; a frozen instance is changed this way.
            object.__setattr__(self, "min_ready_agents", self.agent_count)

    def agent_ids(self, replica: int | None = None) -> list[str]:
        """Return the ids of all agents, or of those in one replica (agent i is in replica i modulo replicas)."""
        chosen = range(self.agent_count) if replica is None else range(replica, self.agent_count, self.replicas)
        return [f"{self.id}_agent_{index}" for index in chosen]

    @property
    def silence_s(self) -> float:
        """Return the seconds of silence after which to give up a replica's node, never sooner than a slow process."""
        hang_s = max(2, self.failure_threshold) * (self.health_interval_s + self.health_timeout_s)
        return max(self.node_silence_s, hang_s)

    @property
    def lease_s(self) -> float:
        """Return the seconds for which a process may accept tasks without a confirmation; less than ``silence_s``."""
        return self.silence_s * LEASE_SHARE

    def all_task_types(self) -> frozenset[str]:
        """Return the task types that the organ accepts in some domain or without one."""
        return frozenset({*self.task_types, *(kind for kinds in self.domains.values() for kind in kinds)})

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, the inverse of :meth:`from_dict`."""
        return _plain(asdict(self))  # type: ignore[no-any-return]

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> OrganSpec:
        """Build it from the result of :meth:`to_dict`."""
        values = dict(data)
        values["task_types"] = tuple(values.get("task_types", ()))
        values["domains"] = {key: tuple(types) for key, types in values.get("domains", {}).items()}
        return cls(**values)

    @classmethod
    def described(cls) -> dict[str, Option]:
        """Return the description of every key."""
        return {one.name: one.metadata["option"] for one in fields(cls) if "option" in one.metadata}

    @classmethod
    def defaults(cls) -> dict[str, Any]:
        """Return the default of every key that has one."""
        known = cls(id="", type="", agent="").to_dict()
        return {name: value for name, value in known.items() if name not in {"id", "type", "agent"}}

    def fingerprint(self) -> str:
        """Return a digest of the whole content: equal specs have equal fingerprints."""
        return _digest(self.to_dict())


@dataclass(frozen=True, slots=True, kw_only=True)
class OrganismSpec:
    """All organs and schedules, and their file (``source`` is for people and not part of the fingerprint)."""

    organs: tuple[OrganSpec, ...]
    source: str = ""
    schedules: tuple[ScheduleSpec, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, the inverse of :meth:`from_dict`."""
        schedules = [schedule.to_dict() for schedule in self.schedules]
        return {"organs": [organ.to_dict() for organ in self.organs], "source": self.source, "schedules": schedules}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> OrganismSpec:
        """Build it from the result of :meth:`to_dict`."""
        return cls(
            organs=tuple(OrganSpec.from_dict(organ) for organ in data["organs"]),
            source=str(data.get("source", "")),
            # A release before this one has written none.
            schedules=tuple(ScheduleSpec.from_dict(schedule) for schedule in data.get("schedules", ())),
        )

    def with_python(self, python: str, environments: Mapping[str, str] | None = None) -> OrganismSpec:
        """Let the organs run with this interpreter, or with that of the environment that they name.

        An organ without an environment whose agent the library itself has runs with the Coordinator's.
        """
        known = environments or {}
        return replace(self, organs=tuple(_with_python(organ, python, known) for organ in self.organs))

    def agents(self) -> str:
        """Return the ids of the layers above the release from which organs run, joined by commas; may be empty."""
        return ",".join(sorted({PurePath(organ.python).parents[1].name for organ in self.organs if organ.python}))

    def fingerprint(self) -> str:
        """Return a digest of all organs and schedules, in order; without schedules that of earlier releases."""
        organs = [organ.to_dict() for organ in self.organs]
        schedules = [schedule.to_dict() for schedule in self.schedules]
        return _digest([organs, schedules] if schedules else organs)


def _with_python(organ: OrganSpec, python: str, environments: Mapping[str, str]) -> OrganSpec:
    if organ.environment in environments:
        return replace(organ, python=environments[organ.environment])
    return organ if organ.agent.partition(":")[0].partition(".")[0] == LIBRARY else replace(organ, python=python)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


def _digest(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
