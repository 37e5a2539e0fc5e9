"""Test the free space on the nodes' disks, from the data of Ray's head."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from seedcore.coordinator import disks
from seedcore.coordinator.disks import Disks
from tests.support.fake_cluster import FakeCluster


def node(name: str, *, state: str = "ALIVE", **paths: tuple[int, int]) -> dict[str, Any]:
    seen = {f"/{path}": {"total": 999, "free": free, "used": used} for path, (free, used) in paths.items()}
    return {"raylet": {"nodeName": name, "state": state}, "disk": seen}


@pytest.fixture
async def watched(cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Disks]:
    monkeypatch.setattr(disks, "INTERVAL_S", 0.02)
    one = Disks(cluster.settings)
    watch = asyncio.create_task(one.watch())
    yield one
    watch.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await watch


async def until(one: Disks, wanted: list[dict[str, Any]]) -> None:
    async with asyncio.timeout(10):
        while one.to_list() != wanted:  # noqa: ASYNC110 - it has no event
            await asyncio.sleep(0.02)


async def test_each_living_node_has_its_disks(watched: Disks, cluster: FakeCluster) -> None:
    cluster.summary = [
        node("head", opt=(4, 6)),
        node("gone", state="DEAD", opt=(1, 1)),
        # Its agent has not reported anything yet.
        {"raylet": {"nodeName": "new", "state": "ALIVE"}},
    ]
    entry = {"node_name": "head", "path": "/opt", "free": 4, "size": 10}
    await until(watched, [entry])

    cluster.summary = [node("head", opt=(1, 9), tmp=(2, 3))]
    await until(watched, [{**entry, "free": 1}, {"node_name": "head", "path": "/tmp", "free": 2, "size": 5}])


async def test_what_is_not_known_any_more_is_not_said(
    watched: Disks, cluster: FakeCluster, caplog: pytest.LogCaptureFixture
) -> None:
    cluster.summary = [node("head", opt=(4, 6))]
    await until(watched, [{"node_name": "head", "path": "/opt", "free": 4, "size": 10}])

    cluster.dashboard_code = 500
    await until(watched, [])
    asked = len(cluster.seen)
    async with asyncio.timeout(10):
        while len(cluster.seen) < asked + 3:  # noqa: ASYNC110 - it has no event
            await asyncio.sleep(0.02)
    cluster.dashboard_code = 200
    await until(watched, [{"node_name": "head", "path": "/opt", "free": 4, "size": 10}])

    said = [record.message for record in caplog.records if "disks" in record.message]
    assert len(said) == 1, "once, not each time"
    assert "HTTP 500" in said[0]


async def test_rows_of_another_shape_are_no_reason_to_go_on_saying_old_figures(
    watched: Disks, cluster: FakeCluster, caplog: pytest.LogCaptureFixture
) -> None:
    cluster.summary = [node("head", opt=(4, 6))]
    await until(watched, [{"node_name": "head", "path": "/opt", "free": 4, "size": 10}])

    cluster.summary = [{"raylet": {"nodeName": "head", "state": "ALIVE"}, "disk": {"/opt": {"free": 4}}}]
    await until(watched, [])
    cluster.summary = [node("head", opt=(4, 6))]
    await until(watched, [{"node_name": "head", "path": "/opt", "free": 4, "size": 10}])

    assert any("cannot read the disks of the nodes: KeyError" in record.message for record in caplog.records)
