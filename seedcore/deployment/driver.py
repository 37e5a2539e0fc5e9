"""Operations of bootstrap and shutdown as a driver of Ray: create, reload, quiesce, kill."""
# ruff: noqa: PLC0415 - the commands that need no Ray must not load it

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from seedcore.core.errors import ClusterError
from seedcore.core.reason import Reason
from seedcore.status.probing import probe

if TYPE_CHECKING:
    from seedcore.core.settings import Settings
    from seedcore.core.spec import OrganismSpec

JOIN_TIMEOUT_S = 30.0
_POLL_S = 0.25
# Time limit for an answer that is already there.
_FETCH_S = 5.0
# Extra time for the answer of a call that ends at its own time limit first.
_WAY_BACK_S = 2.0


class Driver:
    """A connection to Ray that is opened when it is first needed.

    Args:
        settings: Where the cluster is.
        remaining: Returns the seconds that are left.
    """

    def __init__(self, settings: Settings, remaining: Callable[[], float]) -> None:
        self._settings = settings
        self._remaining = remaining
        self._joined = False

    def join(self) -> None:
        """Join the cluster.

        Raises:
            ClusterError: Ray rejects this process, or does not answer in time.
        """
        import ray

        if ray.is_initialized():
            return
        failure: list[BaseException] = []

        def connect() -> None:
            try:
                ray.init(
                    address=self._settings.address or "auto",
                    namespace=self._settings.namespace,
                    logging_level=logging.DEBUG if self._settings.log_level == "DEBUG" else logging.ERROR,
                    log_to_driver=False,
                )
            except BaseException as error:
                # Pass any error to the caller's thread.
                failure.append(error)

        # Use a thread, because ray.init has no time limit: it blocks for 40 s if the GCS is away.
        thread = threading.Thread(target=connect, daemon=True)
        thread.start()
        thread.join(min(JOIN_TIMEOUT_S, self._remaining()))
        if thread.is_alive():
            raise ClusterError(Reason.UNREACHABLE, f"Ray at {self._settings.address} did not accept a driver in time")
        if failure:
            raise ClusterError(Reason.UNREACHABLE, f"cannot join Ray at {self._settings.address}: {failure[0]}")
        self._joined = True

    def leave(self) -> None:
        """Leave the cluster if this object has joined it."""
        if self._joined:
            import ray

            ray.shutdown()
            self._joined = False

    def create(self, spec: OrganismSpec, *, attempt: int, predecessor: str = "") -> str:
        """Create the Coordinator, or find the one that another caller has just created; return its actor id.

        It may adopt the organs of ``predecessor``, the actor id of the one that it replaces.
        """
        from seedcore.coordinator import actors

        settings = self._settings
        handle = actors.create_coordinator(
            spec.to_dict(), settings.to_dict(), namespace=settings.namespace, attempt=attempt, predecessor=predecessor
        )
        return str(handle._actor_id.hex())  # noqa: SLF001 - Ray has no public name for it

    def reload(
        self,
        spec: OrganismSpec,
        *,
        budget_s: float,
        meanwhile: Callable[[], None],
        bake: Mapping[str, float] | None = None,
    ) -> dict[str, Any] | None:
        """Reload the Coordinator with this organism; return its answer, None if it takes longer than the time left.

        Args:
            spec: The organism.
            budget_s: Seconds after which the Coordinator undoes everything, without those of the comparison.
            meanwhile: Called repeatedly while it works.
            bake: ``seconds`` and ``tolerance`` of the comparison of old and new processes, None for none.
        """
        import ray
        from ray.exceptions import RayError

        from seedcore.coordinator import actors

        handle = actors.coordinator_handle(self._settings.namespace)
        if handle is None:
            return {"success": False, "error": "there is no Coordinator any more"}
        deadline = time.monotonic() + max(1.0, self._remaining())
        try:
            reference: Any = handle.reload.remote(spec.to_dict(), budget_s, *([dict(bake)] if bake else []))
            while not ray.wait([reference], timeout=_POLL_S)[0]:
                if time.monotonic() >= deadline:
                    return None
                meanwhile()
            answer: dict[str, Any] = ray.get(reference, timeout=_FETCH_S)
        except RayError as error:
            return {"success": False, "error": f"the Coordinator died meanwhile: {str(error).splitlines()[0]}"}
        return answer

    def ask(self, method: str, *args: Any, timeout_s: float) -> Any:
        """Call a method of the Coordinator.

        Raises:
            ClusterError: There is no Coordinator, it has no such method, it died, or it did not answer in time.
        """
        import ray
        from ray.exceptions import RayError

        from seedcore.coordinator import actors

        handle = actors.coordinator_handle(self._settings.namespace)
        if handle is None:
            raise ClusterError(Reason.ABSENT, "there is no Coordinator any more")
        if not hasattr(handle, method):
            raise ClusterError(Reason.WRONG_RELEASE, "the Coordinator's release does not support this: deploy first")
        try:
            return ray.get(getattr(handle, method).remote(*args), timeout=max(0.1, timeout_s + _WAY_BACK_S))
        except (RayError, TimeoutError) as error:
            text = f"the Coordinator did not answer: {str(error).splitlines()[0]}"
            raise ClusterError(Reason.NOT_RESPONDING, text) from error

    def quiesce(self, timeout_s: float) -> bool:
        """Make the Coordinator accept no more tasks and answer those it has; return False if some are left."""
        with contextlib.suppress(ClusterError):
            return bool(self.ask("quiesce", timeout_s, timeout_s=timeout_s))
        return False

    def stop_organs(self, timeout_s: float) -> None:
        """Make the Coordinator stop its organs, after their tasks; one that hangs stops nothing."""
        with contextlib.suppress(ClusterError):
            self.ask("shutdown", timeout_s=timeout_s - _WAY_BACK_S)

    def kill_coordinator(self) -> bool:
        """End the Coordinator's process for good, which frees its name; return False if there is none."""
        import ray

        from seedcore.coordinator import actors

        handle = actors.coordinator_handle(self._settings.namespace)
        if handle is None:
            return False
        ray.kill(handle, no_restart=True)
        return True

    def kill_organs(self) -> list[str]:
        """Kill every organ of the namespace; return their names."""
        from seedcore.coordinator import actors

        return actors.kill_organs(self._settings.namespace)


@contextlib.contextmanager
def joined(settings: Settings, remaining: Callable[[], float]) -> Iterator[Driver]:
    """Join the cluster for as long as the context lasts, if the organism is up.

    Raises:
        ClusterError: The organism is not up, the Coordinator cannot be reached, or there is none.
        ConfigError: The token cannot be read.
    """
    report = probe(settings)
    if not report.coordinator.get("organism_initialized"):
        # It is absent, initializing, or unknown; the reason tells which.
        raise ClusterError(report.reason, report.message)
    driver = Driver(settings, remaining)
    try:
        driver.join()
        yield driver
    finally:
        driver.leave()
