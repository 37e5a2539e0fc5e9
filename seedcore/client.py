"""A typed client for drivers that have joined Ray: the Coordinator's methods with deadlines.

::

    ray.init()
    client = seedcore.Client()
    client.submit({"type": "summarize", "params": {"text": "..."}})
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import ray
from ray.actor import ActorHandle

from seedcore.errors import ClusterError, DeadlineError
from seedcore.settings import COORDINATOR_NAME, Settings

DEFAULT_TIMEOUT_S = 60.0


class Client:
    """Talks to the Coordinator of one namespace.

    Args:
        settings: Where it is; default: the environment's.
        timeout_s: Seconds that each call waits for its answer.

    Raises:
        ClusterError: There is no Coordinator in the namespace.
    """

    def __init__(self, settings: Settings | None = None, *, timeout_s: float = DEFAULT_TIMEOUT_S) -> None:
        namespace = (settings or Settings.from_env()).namespace
        self._timeout_s = timeout_s
        try:
            self._coordinator: ActorHandle[Any] = ray.get_actor(COORDINATOR_NAME, namespace=namespace)
        except ValueError as error:
            raise ClusterError("absent", f"there is no Coordinator in namespace {namespace!r}") from error

    def status(self) -> dict[str, Any]:
        """Return what the Coordinator says of itself (``get_status``)."""
        return dict(self._get(self._coordinator.get_status.remote()))

    def ping(self) -> str:
        """Return ``pong``."""
        return str(self._get(self._coordinator.ping.remote()))

    def submit(self, task: Mapping[str, Any]) -> dict[str, Any]:
        """Do one task; returns its answer in the documented shape.

        Raises:
            DeadlineError: No answer in time; the task may have been done.
            RayError: The process that held the answer died.
        """
        return dict(self._get(self._coordinator.handle.remote(dict(task))))

    def submit_many(self, tasks: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Do many tasks at once; answers in the order of the tasks, all within one deadline.

        Raises:
            DeadlineError: Some had no answer in time.
            RayError: The process that held an answer died.
        """
        references = [self._coordinator.handle.remote(dict(task)) for task in tasks]
        return list(self._get(references))

    def _get(self, references: Any) -> Any:
        try:
            return ray.get(references, timeout=self._timeout_s)
        except ray.exceptions.GetTimeoutError as error:
            raise DeadlineError(f"no answer within {self._timeout_s:g} s") from error
