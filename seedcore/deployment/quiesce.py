"""Let the tasks in flight end before Ray stops on the head."""

from __future__ import annotations

import time

from seedcore.core.settings import Settings
from seedcore.deployment.driver import JOIN_TIMEOUT_S, Driver, joined

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
    with joined(settings, lambda: JOIN_TIMEOUT_S) as driver:
        deadline = time.monotonic() + timeout_s
        answered = bool(driver.ask("quiesce", timeout_s, timeout_s=timeout_s))
        while answered and _durable_in_flight(driver):
            if time.monotonic() >= deadline:
                return False
            time.sleep(POLL_S)
        return answered


def _durable_in_flight(driver: Driver) -> int:
    # Not over HTTP: requests wait for the next Coordinator.
    inbox = driver.ask("status", timeout_s=ASK_TIMEOUT_S).get("inbox") or {}
    return int(inbox.get("tasks", {}).get("leased", 0))
