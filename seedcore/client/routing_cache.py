"""The routing table of this process, kept up to date by one call to the Coordinator that is always open.

The Coordinator answers that call when its table changes. A task therefore uses a recent table without a request, even
while the Coordinator is away.
"""

from __future__ import annotations

import logging
import threading
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import RayError

from seedcore.core.errors import ClusterError, OrganUnavailableError, SeedCoreError
from seedcore.core.reason import Reason
from seedcore.core.settings import COORDINATOR_NAME
from seedcore.dispatch.routing import RoutingTable
from seedcore.dispatch.sender import is_down

logger = logging.getLogger(__name__)

WATCH_S = 30.0
RETRY_S = 0.5


@dataclass(frozen=True, slots=True)
class OrganEntry:
    """An organ in the table: its ready processes as ``(actor, capacity, epoch)``, or why there is none.

    Each task carries the epoch of its process, None for a process of an earlier release.
    """

    organ_id: str
    task_timeout_s: float
    why: str
    replicas: tuple[tuple[Any, int, str | None], ...]


class Table:
    """An immutable routing table.

    Attributes:
        organs: All organs by id.
    """

    def __init__(self, body: Mapping[str, Any]) -> None:
        self.epoch: str = body["epoch"]
        self._state: str = body["state"]
        self._why: str = body["why"]
        self._routing = RoutingTable.from_dict(body)
        self.organs = {
            organ_id: OrganEntry(
                organ_id,
                entry["task_timeout_s"],
                entry["why"],
                tuple((each["handle"], each["capacity"], each.get("epoch")) for each in entry["replicas"]),
            )
            for organ_id, entry in body["organs"].items()
        }

    def route(self, kind: str, domain: str | None) -> OrganEntry:
        """Return the organ for a task, with at least one process.

        Raises:
            UnknownTaskTypeError: No organ accepts it.
            OrganUnavailableError: The organism or the organ is not ready.
        """
        if self._state in {"starting", "stopped", "failed"}:
            wait = 1.0 if self._state == "starting" else None
            raise OrganUnavailableError(f"the organism is not running: {self._why}", retry_after_s=wait)
        organ = self.organs[self._routing.route(kind, domain)]
        if not organ.replicas:
            raise OrganUnavailableError(organ.why, retry_after_s=0.5)
        return organ


class Routes:
    """The present table of one namespace's Coordinator; safe to use from any thread.

    Args:
        namespace: Where the Coordinator is.

    Attributes:
        closed: Whether the table has no more users.
    """

    def __init__(self, namespace: str) -> None:
        self.namespace = namespace
        self.table: Table | None = None
        self._coordinator: Any = None
        self._error: SeedCoreError | None = None
        self.closed = False
        self._news = threading.Condition()
        self._listeners: list[Callable[[], None]] = []
        self._later(0.0)

    def coordinator(self) -> Any:
        """Return the Coordinator's actor; ask Ray's head if it is unknown or dead.

        Raises:
            ClusterError: There is no Coordinator.
        """
        handle = self._coordinator
        if handle is None or is_down(handle, restarting=False):
            try:
                handle = ray.get_actor(COORDINATOR_NAME, namespace=self.namespace)
            except ValueError as error:
                raise ClusterError(Reason.ABSENT, f"there is no Coordinator in namespace {self.namespace!r}") from error
            self._coordinator = handle
        return handle

    def current(self) -> Table:
        """Return the table.

        Raises:
            ClusterError: There is no table, and no Coordinator that could send one.
            OrganUnavailableError: There is no table yet.
        """
        if self.table is not None:
            return self.table
        if self._error is not None:
            raise self._error
        raise OrganUnavailableError("the Coordinator has not answered yet", retry_after_s=0.5)

    def wait(self, timeout_s: float, *, seen: Table | None) -> None:
        """Block until the table differs from ``seen``, or for ``timeout_s`` seconds."""
        with self._news:
            self._news.wait_for(
                lambda: self.table is not seen or (seen is None and self._error is not None) or self.closed, timeout_s
            )

    def listen(self, listener: Callable[[], None]) -> None:
        """Call a function, in some thread, whenever there may be a new table."""
        self._listeners.append(listener)

    def unlisten(self, listener: Callable[[], None]) -> None:
        """Stop calling it."""
        self._listeners.remove(listener)

    def close(self) -> None:
        """Close the call."""
        self.closed = True
        self._tell()

    def _later(self, delay_s: float) -> None:
        if not self.closed:
            # A weak reference, so that an unused client can be collected.
            timer = threading.Timer(delay_s, _ask_again, (weakref.ref(self),))
            timer.daemon = True
            timer.start()

    def ask(self) -> None:
        """Open the call that brings the next table."""
        try:
            self._watch(self.coordinator())
        except ClusterError as error:
            self._error = error
            self._tell()
            self._later(RETRY_S)
        except AttributeError as error:
            # The Coordinator's release has no routing table.
            self._error = ClusterError(Reason.WRONG_RELEASE, f"the Coordinator has another release: {error}")
            self._tell()
            self._later(RETRY_S)
        except Exception as error:
            # Ray is being shut down, or its head does not answer: the next submit reports it.
            logger.debug("no routing table: %s", error)
            if ray.is_initialized():
                self._later(RETRY_S)

    def _watch(self, coordinator: Any) -> None:
        epoch = None if self.table is None else self.table.epoch
        future = coordinator.watch_table.remote(epoch, WATCH_S).future()
        reference = weakref.ref(self)
        future.add_done_callback(lambda answer: _take(reference, answer, coordinator))

    def take(self, body: Mapping[str, Any]) -> None:
        """Store a table that the Coordinator has sent."""
        self._error = None
        if self.table is None or body["epoch"] != self.table.epoch:
            self.table = Table(body)
            self._tell()

    def took(self, answer: Any, coordinator: Any) -> None:
        """Handle the end of the open call, and open the next one."""
        if self.closed:
            return
        try:
            self.take(answer.result())
            self._watch(coordinator)
        except Exception as error:
            # The Coordinator is away, or its release has another kind of table: keep the present table.
            known = isinstance(error, RayError | RuntimeError)
            logger.log(logging.DEBUG if known else logging.WARNING, "the routing table is not renewed: %r", error)
            self._later(RETRY_S)

    def _tell(self) -> None:
        with self._news:
            self._news.notify_all()
        for listener in list(self._listeners):
            listener()


def _ask_again(reference: weakref.ref[Routes]) -> None:
    routes = reference()
    if routes is not None and not routes.closed:
        routes.ask()


def _take(reference: weakref.ref[Routes], answer: Any, coordinator: Any) -> None:
    routes = reference()
    if routes is not None:
        routes.took(answer, coordinator)
