"""Let the tasks in flight end before Ray stops on the head."""

from __future__ import annotations

import time

from seedcore.core.errors import ClusterError
from seedcore.core.settings import Settings
from seedcore.deployment.driver import JOIN_TIMEOUT_S, Driver
from seedcore.status.probing import probe

POLL_S = 0.2
ASK_TIMEOUT_S = 5.0


def quiesce(settings: Settings, *, timeout_s: float) -> bool:
    """Make the Coordinator accept no more tasks for a moment; return True once those in flight have ended.

    Durable tasks in flight are waited for, too: an organ on the head ends with Ray. The Coordinator accepts tasks again
    10 s after ``timeout_s``, if its process has not ended.

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
        deadline = time.monotonic() + timeout_s
        answered = bool(driver.ask("quiesce", timeout_s, timeout_s=timeout_s))
        while answered and _durable_in_flight(driver):
            if time.monotonic() >= deadline:
                return False
            time.sleep(POLL_S)
        return answered
    finally:
        driver.leave()


def _durable_in_flight(driver: Driver) -> int:
    # Not over HTTP: requests wait for the next Coordinator.
    inbox = driver.ask("status", timeout_s=ASK_TIMEOUT_S).get("inbox") or {}
    return int(inbox.get("tasks", {}).get("leased", 0))
