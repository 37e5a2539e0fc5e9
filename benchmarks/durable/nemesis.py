"""Faults of the long test, drawn from a seed."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress

from benchmarks.durable.place import Place

LEAST_PAUSE_S, MOST_PAUSE_S = 5.0, 15.0


class Nemesis:
    """Strikes again and again, each time once the organism is healthy.

    Args:
        place: The cluster.
        seed: Seed of the draws.
        say: Called with one line for each fault.
    """

    def __init__(self, place: Place, *, seed: int, say: Callable[[str], None]) -> None:
        self._place = place
        self._draw = random.Random(seed)  # noqa: S311 - a choice, not a secret
        self._say = say
        self.deaths: Counter[str] = Counter()
        self.struck: Counter[str] = Counter()
        self.recoveries: dict[str, list[float]] = {}
        faults = [self.kill_coordinator, self.kill_organ, self.kill_both, self.stop_coordinator, self.reload]
        faults += [self.lose_head]
        if place.server:
            faults += [self.crash_database, self.end_sessions]
        self._faults = faults
        self._bag: list[Callable[[], None]] = []

    async def run(self, seconds: float) -> None:
        """Strike for so long."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            await asyncio.sleep(self._draw.uniform(LEAST_PAUSE_S, MOST_PAUSE_S))
            if not self._bag:
                # Every fault comes before any comes again.
                self._bag = self._draw.sample(self._faults, len(self._faults))
            fault = self._bag.pop()
            name = fault.__name__.replace("_", " ")
            self.struck[name] += 1
            began = time.monotonic()
            await asyncio.to_thread(fault)
            await asyncio.to_thread(self._place.wait_for_health)
            took = time.monotonic() - began
            self.recoveries.setdefault(name, []).append(took)
            self._say(f"{name}: healthy after {took:.1f} s")

    def kill_coordinator(self) -> None:
        """Kill the Coordinator's process."""
        self._kill("coordinator", self._coordinator())

    def kill_organ(self) -> None:
        """Kill the process of an organ."""
        self._kill("organ", self._draw.choice(self._organs()))

    def kill_both(self) -> None:
        """Kill the Coordinator and the process of an organ at once."""
        coordinator, organ = self._coordinator(), self._draw.choice(self._organs())
        self._kill("coordinator", coordinator)
        self._kill("organ", organ)

    def stop_coordinator(self) -> None:
        """Stop the Coordinator's process for a while; the supervisor may kill it meanwhile."""
        pid = self._coordinator()
        self.deaths["coordinator"] += 1
        os.kill(pid, signal.SIGSTOP)
        time.sleep(self._draw.uniform(1, 15))
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)

    def reload(self) -> None:
        """Reload the organism with another number of agents."""
        self._place.agent_count = 5 - self._place.agent_count
        self._place.bootstrap()

    def lose_head(self) -> None:
        """Kill every process of the host, and start Ray again."""
        self.deaths["head"] += 1
        self._place.restart_head()

    def crash_database(self) -> None:
        """Let the PostgreSQL server crash, and start it again after a while."""
        self.deaths["database"] += 1
        self._place.crash_database(self._draw.uniform(0, 10))

    def end_sessions(self) -> None:
        """Let the PostgreSQL server end all sessions."""
        self._place.end_sessions()

    def _kill(self, kind: str, pid: int) -> None:
        self.deaths[kind] += 1
        os.kill(pid, signal.SIGKILL)

    def _coordinator(self) -> int:
        return int(self._place.wait_for_health().coordinator["pid"])

    def _organs(self) -> list[int]:
        organs = self._place.wait_for_health().coordinator["organs"]
        return [replica["pid"] for organ in organs for replica in organ["replicas"]]
