"""What an organism is made of: frozen values that travel between processes.

``config.py`` makes them from organism.yaml; the manager, the organs and the fingerprint read them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class OrganSpec:
    """One organ; each attribute is a key of an entry of ``organ_types`` in organism.yaml, with its default here.

    Attributes:
        id: Unique in the organism; part of the names of its actors (``seedcore_organ.<id>.<replica>``) and of its
            agents (``<id>_agent_<i>``).
        type: What kind of organ it is, for people.
        agent: Import path ``package.module:name`` of an agent class or function.
        description: For people.
        options: Keyword arguments of the agent class, or of each call of the function; plain data.
        agent_count: Agents in the whole organ, spread over its replicas.
        task_types: Task types the organ takes in any domain that no organ claims (normalised: stripped, lower case).
        domains: Domain to the task types taken in that domain; preferred over ``task_types`` (normalised as well).
        replicas: Actor processes, at most ``agent_count``.
        required: Without it the organism is not healthy.
        min_ready_agents: With fewer ready agents the organ counts as down. Default: ``agent_count``.
        max_concurrency: Tasks that one agent does at a time.
        queue_limit: Tasks that wait in one replica while all its agents are busy.
        task_timeout_s: Seconds a task may take, waiting included, unless the task names less.
        start_timeout_s: Seconds an agent may take to be constructed and to start.
        health_interval_s: Seconds between two reports of a replica that has nothing new to say, and between two
            ``check_health`` of an agent.
        health_timeout_s: Seconds after which a report or a ``check_health`` is overdue.
        failure_threshold: Reports missed in a row until the replica's process is replaced.
        drain_timeout_s: Seconds that an organ which is stopped or replaced leaves its tasks to end.
        interrupt: Whether Python code in a thread is interrupted at its task's deadline. Set it to false for an agent
            whose code must not get an exception between any two of its lines; it keeps its place until it returns.
        num_cpus: CPUs that Ray reserves per replica.
        num_gpus: GPUs that Ray reserves per replica.
        resources: Custom Ray resources reserved per replica.
        labels: Labels that a replica's node must have, as Ray's label selectors: ``value``, ``!value``,
            ``in(a,b)`` or ``!in(a,b)``.
    """

    id: str
    type: str
    agent: str
    description: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    agent_count: int = 1
    task_types: tuple[str, ...] = ()
    domains: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    replicas: int = 1
    required: bool = True
    min_ready_agents: int = 0
    max_concurrency: int = 1
    queue_limit: int = 1000
    task_timeout_s: float = 60.0
    start_timeout_s: float = 60.0
    health_interval_s: float = 1.0
    health_timeout_s: float = 3.0
    failure_threshold: int = 2
    drain_timeout_s: float = 10.0
    interrupt: bool = True
    num_cpus: float = 0.1
    num_gpus: float = 0.0
    resources: Mapping[str, float] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.min_ready_agents:
            # 0 is the default, which another attribute gives; frozen instances are set up this way.
            object.__setattr__(self, "min_ready_agents", self.agent_count)

    def agent_ids(self, replica: int | None = None) -> list[str]:
        """Ids of the organ's agents, or of those that live in one replica (agent i lives in i modulo replicas)."""
        chosen = range(self.agent_count) if replica is None else range(replica, self.agent_count, self.replicas)
        return [f"{self.id}_agent_{index}" for index in chosen]

    def all_task_types(self) -> frozenset[str]:
        """Task types that the organ takes in some domain or without one."""
        return frozenset({*self.task_types, *(kind for kinds in self.domains.values() for kind in kinds)})

    def to_dict(self) -> dict[str, Any]:
        """Plain data, the inverse of :meth:`from_dict`."""
        return _plain(asdict(self))  # type: ignore[no-any-return]

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> OrganSpec:
        """Build from what :meth:`to_dict` gave."""
        values = dict(data)
        values["task_types"] = tuple(values.get("task_types", ()))
        values["domains"] = {key: tuple(types) for key, types in values.get("domains", {}).items()}
        return cls(**values)

    def fingerprint(self) -> str:
        """Digest of the whole content: equal specs have equal fingerprints."""
        return _digest(self.to_dict())


@dataclass(frozen=True, slots=True, kw_only=True)
class OrganismSpec:
    """All organs, and the file they came from (``source`` is for people and takes no part in the fingerprint)."""

    organs: tuple[OrganSpec, ...]
    source: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Plain data, the inverse of :meth:`from_dict`."""
        return {"organs": [organ.to_dict() for organ in self.organs], "source": self.source}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> OrganismSpec:
        """Build from what :meth:`to_dict` gave."""
        return cls(
            organs=tuple(OrganSpec.from_dict(organ) for organ in data["organs"]),
            source=str(data.get("source", "")),
        )

    def fingerprint(self) -> str:
        """Digest of all organs, in order."""
        return _digest([organ.to_dict() for organ in self.organs])


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


def _digest(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
