"""Let the tasks in flight end before Ray stops on the head."""

from __future__ import annotations

from seedcore.core.errors import ClusterError
from seedcore.core.settings import Settings
from seedcore.deployment.driver import JOIN_TIMEOUT_S, Driver
from seedcore.status.probing import probe


def quiesce(settings: Settings, *, timeout_s: float) -> bool:
    """Make the Coordinator accept no more tasks for a moment; return True once those in flight are answered.

    It accepts tasks again 10 s after ``timeout_s``, if its process has not ended.

    Raises:
        ClusterError: The Coordinator cannot be reached, or there is none.
        ConfigError: The token cannot be read.
    """
    report = probe(settings)
    if not report.coordinator.get("organism_initialized"):
        # It is absent, initializing, or unknown; the reason tells which.
        raise ClusterError(report.reason, report.message)
    driver = Driver(settings, lambda: JOIN_TIMEOUT_S)
    try:
        driver.join()
        return bool(driver.ask("quiesce", timeout_s, timeout_s=timeout_s))
    finally:
        driver.leave()
