"""Show the known state of an organism, from the views of its replicas, without a call to any of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from seedcore.coordinator import organ_reports
from seedcore.coordinator.orders import Orders
from seedcore.coordinator.placement import Occupant
from seedcore.coordinator.replica_supervisor import Replica
from seedcore.core.organ_snapshot import ReplicaState
from seedcore.core.spec import OrganismSpec, OrganSpec
from seedcore.core.task_counters import merge
from seedcore.dispatch.routing import RoutingTable


class OrganismView:
    """The state of one organism, read from memory.

    Args:
        spec: The organism.
        orders: What operators have ordered.
    """

    def __init__(self, spec: OrganismSpec, orders: Orders) -> None:
        self.spec = spec
        self.initialized = False
        self._orders = orders
        self._routes = RoutingTable(spec.organs)
        self._organs: dict[str, OrganSpec] = {organ.id: organ for organ in spec.organs}
        self._replicas: dict[str, list[Replica]] = {}
        # Processes that start beside those that they will replace.
        self._coming: dict[str, list[Replica]] = {}
        # Organs whose old processes had to end first, so that their tasks wait for the new ones.
        self._away: frozenset[str] = frozenset()
        # New processes that take their share of the tasks beside the old ones, by organ.
        self._baking: dict[str, Replica] = {}
        # Processes that finish their last tasks, and the counts of those that are gone.
        self._retiring: list[Replica] = []
        self._past_tasks: dict[str, list[dict[str, Any]]] = {}

    @property
    def stage(self) -> str:
        """Return the progress of the organs, for people: ``2 of 3 organs ready; starting: utility_organ_1``.

        If more processes start than may at a time: ``...; 36 processes wait for their turn to start``.
        """
        states = {organ_id: self._state(organ_id) for organ_id in self._organs}
        # During a reload, not all new processes have started, whatever the state of the old ones.
        coming = [key for key, ones in self._coming.items() if not all(one.settled for one in ones)]
        text = organ_reports.stage(states, coming, waits=sum(replica.waits for replica in self._all()))
        return f"{text}; comparing old and new: {', '.join(self._baking)}" if self._baking else text

    @property
    def progress(self) -> dict[str, int]:
        """Return the numbers of ready and configured organs and agents."""
        return {
            "organs_ready": sum(self._state(i) in {ReplicaState.READY, ReplicaState.DEGRADED} for i in self._organs),
            "organs": len(self._organs),
            "agents_ready": sum(replica.started_agents for replica in self._current()),
            "agents": sum(organ.agent_count for organ in self._organs.values()),
        }

    def usable(self) -> list[Replica]:
        """Return the processes that may begin tasks now."""
        without = self._away | self._orders.paused.keys()
        return [one for key in self._organs if key not in without for one in self._replicas[key] if one.usable]

    def places(self) -> dict[tuple[str, int], str | None]:
        """Return the node of each process, by organ and index; the planned one until it runs."""
        return {(one.spec.id, one.index): one.place for one in self._current()}

    def ending(self) -> dict[tuple[str, int], str | None]:
        """Return the node of each process that was replaced and ends its last tasks, like :meth:`places`."""
        return {(one.spec.id, one.index): one.place for one in self._retiring}

    def unplaced(self) -> list[str]:
        """Return the names of the actors that were created although no node had room for them."""
        return [replica.name for replica in self._all() if replica.is_unplaced]

    def organ_reports(self, *, brief: bool = False) -> list[dict[str, Any]]:
        """Return every organ as plain data (``get_organism_status``); the brief form omits constant data.

        A status that is read every second must not contain ten thousand agent ids.
        """
        reports = [
            organ_reports.report(organ, self._replicas[key], self._state(key)) for key, organ in self._organs.items()
        ]
        for report in reports:
            order = self._orders.paused.get(report["organ_id"])
            report["paused"] = None if order is None else asdict(order)
        if not brief:
            for report, organ in zip(reports, self._organs.values(), strict=True):
                report.update(organ_reports.constants(organ))
        return reports

    def organ_metrics(self) -> list[dict[str, Any]]:
        """Return every organ with its figures: ``agents`` by state, ``stuck`` slots, ``tasks`` counts."""
        reports = self.organ_reports()
        for report in reports:
            report.update(organ_reports.figures(self._replicas[report["organ_id"]], report["agent_count"]))
            report["tasks"] = self._tasks(report["organ_id"])
        return reports

    def task_counts(self) -> Iterator[tuple[str, list[dict[str, Any]]]]:
        """Yield the id of every organ with complete reports, with its total task counts."""
        for organ_id, replicas in self._replicas.items():
            if all(replica.snapshot for replica in replicas):
                yield organ_id, self._tasks(organ_id)

    def routes(self) -> dict[str, Any]:
        """Return the routing table as plain data."""
        return self._routes.to_dict()

    def table(self) -> dict[str, Any]:
        """Return the routing table for clients: see :class:`seedcore.dispatch.routing_table.TableNews`."""
        organs = {
            key: organ_reports.route(organ, self._taking(key), self._state(key)) for key, organ in self._organs.items()
        }
        return {**self._routes.to_dict(), "organs": organs}

    def missing(self) -> tuple[list[str], list[str]]:
        """Return the missing parts: (required organs below their minimum, everything else)."""
        return organ_reports.missing((organ, self._replicas[key]) for key, organ in self._organs.items())

    def paused(self) -> tuple[list[str], list[str]]:
        """Return the paused organs, for people: (required ones, optional ones)."""
        texts: dict[bool, list[str]] = {True: [], False: []}
        for key, order in self._orders.paused.items():
            if key in self._organs:
                texts[self._organs[key].required].append(f"{key} is paused {order}, its tasks wait")
        return texts[True], texts[False]

    def held(self) -> int:
        """Return the number of tasks from the Coordinator that are in paused organs."""
        return sum(one.in_flight for one in self._current() if one.spec.id in self._orders.paused)

    def _taking(self, organ_id: str) -> list[Replica]:
        """Return the processes among which the tasks of an organ are spread."""
        new = self._baking.get(organ_id)
        return self._replicas[organ_id] if new is None else [*self._replicas[organ_id], new]

    def _tasks(self, organ_id: str) -> list[dict[str, Any]]:
        counting = [*self._replicas[organ_id], *(one for one in self._retiring if one.spec.id == organ_id)]
        return merge([self._past_tasks.get(organ_id, ()), *(one.tasks() for one in counting)])

    def _state(self, organ_id: str) -> ReplicaState:
        return organ_reports.state(self._replicas[organ_id], is_starting=not self.initialized)

    def _occupants(self) -> list[Occupant]:
        new = [replica for replicas in self._coming.values() for replica in replicas]
        replaced = {(replica.spec.id, replica.index) for replica in new}
        return [
            Occupant(
                spec=one.spec, index=one.index, node_id=one.place,
                is_leaving=one not in new and (one.spec.id, one.index) in replaced,
            )
            for one in self._all()
            if one.place is not None
        ]  # fmt: skip

    def _current(self) -> list[Replica]:
        return [replica for replicas in self._replicas.values() for replica in replicas]

    def _all(self) -> list[Replica]:
        # Those that will replace others are supervised, too.
        return [*self._current(), *(replica for replicas in self._coming.values() for replica in replicas)]
