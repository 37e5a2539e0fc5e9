"""Run the long test on one store, and print what it has shown."""

from __future__ import annotations

import asyncio
import json
import statistics
import time
from collections import Counter
from contextlib import suppress
from functools import partial
from typing import Any

from benchmarks.durable.clients import Clients
from benchmarks.durable.nemesis import Nemesis
from benchmarks.durable.place import Place, place
from benchmarks.durable.verdict import ENDED, SHOWN, Seen, judge, judge_moments
from tests.support.postgres import binaries
from tests.support.waiting import eventually

STORES = ("sqlite", "postgresql")
BEAT = "schedule:beat:"
BEAT_S = 5.0
LOOK_S = 1.0
QUIET_S = 240.0


def run(store: str, *, minutes: float, seed: int) -> bool:
    """Run it on one store; return True if every accepted task is accounted for."""
    if store == "postgresql" and binaries() is None:
        print("postgresql: NOT RUN, there is no PostgreSQL (Debian: apt-get install postgresql, as root)")
        return True
    figures = measure(store, minutes=minutes, seed=seed)
    print(json.dumps(figures, indent=2), flush=True)
    return not figures["faults"]


def measure(store: str, *, minutes: float, seed: int) -> dict[str, Any]:
    """Run it on one store and return its figures; ``faults`` is empty if every accepted task is accounted for."""
    with place(store) as cluster:
        return {"store": store, "seed": seed, "minutes": minutes, **asyncio.run(_run(cluster, minutes, seed))}


async def _run(cluster: Place, minutes: float, seed: int) -> dict[str, Any]:
    began = time.monotonic()

    def say(text: str) -> None:
        print(f"{time.monotonic() - began:6.0f} s  {text}", flush=True)

    clients = Clients(cluster.settings, cluster.kinds, seed=seed)
    nemesis = Nemesis(cluster, seed=seed, say=say)
    seen: list[Seen] = []
    looking = asyncio.create_task(_look(cluster, clients, began, seen))
    calling = asyncio.create_task(clients.run())
    try:
        await nemesis.run(60 * minutes)
    finally:
        clients.stop()
        await calling
    say("no more faults and no more tasks")
    # What has not ended by then is in the verdict.
    with suppress(AssertionError):
        quiet = partial(eventually, cluster.is_quiet, timeout_s=QUIET_S, interval_s=0.5, what="every task to end")
        await asyncio.to_thread(quiet)
    looking.cancel()
    cluster.stop()
    rows = cluster.rows()
    moments = [key for key in rows if key.startswith(BEAT)]
    # The schedule goes on: its last tasks may still be under way.
    stored = {key: row for key, row in rows.items() if key not in moments or row.state in ENDED}
    effects = {key: count for key, count in cluster.effects().items() if key in stored or key not in moments}
    faults = judge(clients.told, stored, effects, nemesis.deaths, seen) + judge_moments(moments, BEAT_S)
    if (told := cluster.integrity()) != "ok":
        faults.append(f"the store says {told}")
    healthy = sum(look.healthy for look in seen)
    return {
        "tasks": len(stored),
        "states": dict(Counter(row.state for row in stored.values())),
        "parked": dict(Counter(row.kind for row in stored.values() if row.state == "parked")),
        "more_than_one_attempt": sum(row.attempt > 1 for row in stored.values()),
        "not_accepted": clients.refused,
        "faults_struck": dict(nemesis.struck),
        "deaths": dict(nemesis.deaths),
        "healthy_again_s": {name: round(statistics.median(each), 1) for name, each in nemesis.recoveries.items()},
        "looks": {"healthy": healthy, "not": len(seen) - healthy},
        "moments": len(moments),
        "faults": faults[:SHOWN],
    }


async def _look(cluster: Place, clients: Clients, began: float, seen: list[Seen]) -> None:
    """Look once a second whether the status is healthy, and how long a client has waited since it last was not."""
    ill_at = began
    while True:
        report = await asyncio.to_thread(cluster.report)
        now = time.monotonic()
        if not report.healthy:
            ill_at = now
        waited_s = max((now - max(since, ill_at) for since in clients.waiting.values()), default=0.0)
        seen.append(Seen(now - began, report.healthy, waited_s))
        await asyncio.sleep(LOOK_S)
