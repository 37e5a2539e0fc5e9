"""Test what an operator does, on a fake Ray, and what the next process of the Coordinator knows of it."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any

import pytest

from seedcore.coordinator.lifecycle import Lifecycle
from seedcore.coordinator.nodes import NodeList
from seedcore.coordinator.operations import Operations
from seedcore.coordinator.orders import FILE_NAME, Orders
from seedcore.core.errors import ConfigError, InitializationError, OrganUnavailableError, UnknownNameError
from seedcore.core.reason import Reason, Status
from seedcore.core.spec import OrganismSpec, OrganSpec
from seedcore.core.task import Task
from tests.support.fake_ray import FakeCluster
from tests.support.virtual_time import run_virtual

_numbers = itertools.count()


def organ(name: str, **more: Any) -> OrganSpec:
    return OrganSpec(**{"id": name, "type": "Test", "agent": "x:y", "task_types": (name,), **more})


class Record:
    """Keeps what the Coordinator has written for its next process."""

    def __init__(self) -> None:
        self.kept: Mapping[str, Any] | None = None

    async def read(self) -> Mapping[str, Any] | None:
        return self.kept

    async def write(self, data: Mapping[str, Any]) -> None:
        self.kept = dict(data)


class Core:
    """One process of a Coordinator."""

    def __init__(self, cluster: FakeCluster, record: Record, orders: Orders, *organs: OrganSpec) -> None:
        spec = OrganismSpec(organs=organs)
        self.cluster, self.record, self.orders = cluster, record, orders
        self.life = Lifecycle(
            spec, release="r", runtime=cluster, record=record, attempt=1, on_change=lambda: None, orders=orders
        )
        self.nodes = NodeList()
        self.operations = Operations(self.life, self.nodes, orders)
        self._watch = asyncio.create_task(self.operations.watch())

    async def start(self) -> Core:
        self.see_nodes()
        await self.life.start()
        return self

    def see_nodes(self) -> None:
        nodes = [{"node_id": one, "node_name": one, "alive": True, "head": False} for one in self.cluster.cpus]
        self.nodes.update(nodes)

    async def next(self) -> Core:
        """Let this process die, and start the next one, which adopts the organs."""
        self.crash()
        return await Core(self.cluster, self.record, self.orders, *self.life.spec.organs).start()

    def crash(self) -> None:
        self._watch.cancel()
        self.life.organism._watch.stop()
        for replica in self.life.organism._all():
            if replica._supervision is not None:
                replica._supervision.cancel()

    def do(self, kind: str, *, limit_s: float = 5.0, seconds: float = 0.0) -> asyncio.Task[dict[str, Any]]:
        task = Task(type=kind, timeout_s=limit_s, params={"seconds": seconds}, id=str(next(_numbers)))
        return asyncio.create_task(self.life.organism.dispatch(task))

    def judged(self) -> tuple[Status, Reason, str]:
        return self.life.judge(restarted=False)[:3]

    def where(self) -> list[str]:
        """Return the living actors and their nodes."""
        actors = self.cluster.actors.values()
        return sorted(f"{one.name.removeprefix('seedcore_organ.')} on {one.node_id}" for one in actors)


Body = Callable[[Core, FakeCluster], Coroutine[Any, Any, Core | None]]


def world(body: Body, *organs: OrganSpec) -> None:
    async def run() -> None:
        cluster = FakeCluster()
        core = await Core(cluster, Record(), Orders(), *organs).start()
        last = await body(core, cluster) or core
        last._watch.cancel()
        await last.life.shutdown()
        assert cluster.actors == {}

    run_virtual(run())


def test_a_paused_organ_keeps_its_queue_and_the_status_says_by_whom() -> None:
    async def body(core: Core, cluster: FakeCluster) -> None:
        runs = core.do("one", limit_s=60, seconds=10)
        await asyncio.sleep(0.1)
        paused = await core.operations.pause("one", by="anna")
        assert paused["paused"]["by"] == "anna"
        waits, is_late, other = core.do("one", limit_s=60), core.do("one", limit_s=3), core.do("two")
        assert (await other)["success"]
        late = await is_late
        assert (late["error_type"], late["error"], late["executed"]) == (
            "TimeoutError", "the organ was paused for 3 s", "no"
        )  # fmt: skip
        assert (await runs)["success"]
        await asyncio.sleep(5)
        assert not waits.done()
        status, reason, message = core.judged()
        assert (status, reason) == (Status.UNHEALTHY, Reason.ORGANS_PAUSED)
        assert message.startswith("one is paused by 'anna' since 2")
        # The inbox gives it no durable task either.
        assert [replica.spec.id for replica in core.life.organism.usable()] == ["two"]

        resumed = await core.operations.resume("one")
        assert resumed["paused"] is None
        assert (await waits)["success"]
        assert core.judged()[:2] == (Status.HEALTHY, Reason.READY)
        assert cluster.kills == []

    world(body, organ("one"), organ("two"))


def test_what_is_too_much_for_the_queue_of_a_paused_organ_is_refused() -> None:
    async def body(core: Core, _: FakeCluster) -> None:
        await core.operations.pause("one", by="anna")
        tasks = [core.do("one", limit_s=20) for _ in range(3)]
        answer = await tasks[2]
        assert (answer["error_type"], answer["executed"]) == ("OverloadedError", "no")
        await core.operations.resume("one")
        assert [(await one)["success"] for one in tasks[:2]] == [True, True]

    world(body, organ("one", queue_limit=2))


def test_a_paused_optional_organ_degrades() -> None:
    async def body(core: Core, _: FakeCluster) -> None:
        await core.operations.pause("two", by="anna")
        status, reason, message = core.judged()
        assert (status, reason) == (Status.HEALTHY, Reason.DEGRADED)
        assert message.startswith("two is paused by 'anna'")

    world(body, organ("one"), organ("two", required=False))


def test_new_processes_of_a_paused_organ_begin_nothing_whoever_starts_them() -> None:
    async def body(core: Core, cluster: FakeCluster) -> Core:
        await core.operations.pause("one", by="anna")
        cluster.actors["seedcore_organ.one.0"].die()
        await asyncio.sleep(10)
        first = core.do("one", limit_s=600)
        await asyncio.sleep(1)
        # The next process of the Coordinator knows the order, and so does a process that replaces another.
        after = await core.next()
        assert after.judged()[1] is Reason.ORGANS_PAUSED
        await after.operations.replace("one", 0, timeout_s=60)
        second = after.do("one", limit_s=600)
        await asyncio.sleep(30)
        assert cluster.began.total() == 0
        # Its Coordinator has gone.
        assert (await first)["executed"] == "no"
        assert not second.done()
        await after.operations.resume("one")
        assert (await second)["success"]
        return after

    world(body, organ("one"))


def test_a_process_that_the_last_coordinator_left_paused_goes_on_if_the_order_was_taken_back() -> None:
    async def body(core: Core, _: FakeCluster) -> Core:
        await core.operations.pause("one", by="anna")
        core.crash()
        # It died between the record and the word to the process.
        await core.orders.take_back(core.orders.paused, "one")
        after = await core.next()
        assert (await after.do("one"))["success"]
        return after

    world(body, organ("one"))


def test_an_organ_stays_spread_whichever_of_its_processes_are_replaced() -> None:
    async def body(core: Core, cluster: FakeCluster) -> None:
        for index in (0, 1, 1, 0, 0, 1):
            await core.operations.replace("one", index, timeout_s=60)
            assert len({line.partition(" on ")[2] for line in core.where()}) == 2, core.where()

    world(body, organ("one", replicas=2, agent_count=4))


def test_a_process_is_replaced_with_surge_and_no_task_is_lost() -> None:
    async def body(core: Core, cluster: FakeCluster) -> Core:
        tasks = []

        async def submit() -> None:
            for _ in range(200):
                tasks.append(core.do("one", seconds=0.5))
                await asyncio.sleep(0.05)

        load = asyncio.create_task(submit())
        await asyncio.sleep(1)
        replaced = await core.operations.replace("one", 1, timeout_s=60)
        assert (replaced["organ_id"], replaced["replica"]) == ("one", 1)
        assert replaced["seconds"] < 5
        await load
        assert all([(await one)["success"] for one in tasks])
        assert max(cluster.began.values()) == 1
        assert [name.partition(" ")[0] for name in core.where()] == ["one.0", "one.1~1"]
        assert (core.life.organism.missing(), cluster.kills) == (([], []), [])

        # The next process adopts both, and a reload afterwards finds free names.
        after = await core.next()
        assert [name.partition(" ")[0] for name in after.where()] == ["one.0", "one.1~1"]
        await after.life.reload(OrganismSpec(organs=(organ("one", replicas=2, agent_count=4),)), timeout_s=60)
        assert [name.partition(" ")[0] for name in after.where()] == ["one.0~1", "one.1"]
        await after.operations.replace("one", 0, timeout_s=60)
        assert [name.partition(" ")[0] for name in after.where()] == ["one.0", "one.1"]
        last = await after.next()
        assert (await last.do("one"))["success"]
        return last

    world(body, organ("one", replicas=2, agent_count=2, max_concurrency=50))


def test_without_room_for_both_the_old_process_ends_first_and_tasks_wait() -> None:
    async def body(core: Core, cluster: FakeCluster) -> None:
        cluster.cpus = {"node": 1.0}
        await asyncio.sleep(1.1)
        work = asyncio.create_task(core.operations.replace("one", 0, timeout_s=60))
        await asyncio.sleep(0.2)
        waits = core.do("one", limit_s=30)
        await work
        assert (await waits)["success"]
        assert core.where() == ["one.0 on node"]

    world(body, organ("one", num_cpus=1.0))


def test_a_new_process_that_does_not_start_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    async def body(core: Core, cluster: FakeCluster) -> None:
        before = core.where()
        cluster.start_s = 1000.0
        with pytest.raises(OrganUnavailableError, match="its new process was not ready within 20 s"):
            await core.operations.replace("one", 0, timeout_s=20)
        assert (await core.do("one"))["success"]
        cluster.start_s = 0.1
        await asyncio.sleep(40)
        assert core.where() == before

        async def no_head(_: Mapping[str, Any]) -> None:
            raise TimeoutError

        monkeypatch.setattr(core.record, "write", no_head)
        with pytest.raises(InitializationError, match="cannot record the new process"):
            await core.operations.replace("one", 0, timeout_s=20)
        monkeypatch.undo()
        assert core.where() == before
        assert core.judged()[:2] == (Status.HEALTHY, Reason.READY)

    world(body, organ("one"))


def test_a_shutdown_ends_a_replacement() -> None:
    async def body(core: Core, cluster: FakeCluster) -> None:
        cluster.start_s = 1000.0
        work = asyncio.create_task(core.operations.replace("one", 0, timeout_s=900))
        await asyncio.sleep(1)
        await core.life.shutdown()
        with pytest.raises(OrganUnavailableError, match="shut down meanwhile"):
            await work

    world(body, organ("one"))


def test_a_drained_node_is_left_one_process_after_the_other_and_not_used_again() -> None:
    async def body(core: Core, cluster: FakeCluster) -> Core:
        names = ("one", "two")
        failed: list[Any] = []

        async def submit() -> None:
            while True:
                tasks = [core.do(name) for name in names]
                failed.extend(answer for answer in await asyncio.gather(*tasks) if not answer["success"])
                await asyncio.sleep(0.05)

        load = asyncio.create_task(submit())
        await core.operations.undrain("a")
        drained = await core.operations.drain("a", by="anna")
        assert drained["drained"]["by"] == "anna"
        assert {one["organ_id"] for one in drained["left"]} == {"one", "two"}
        assert {one["why"] for one in drained["left"]} == {"it waits for its turn"}
        least = 9
        while (await core.operations.drain("a", by="eve"))["left"]:
            least = min(least, sum(one.usable for one in core.life.organism._current()))
            await asyncio.sleep(0.1)
        assert least == 4
        assert [name.partition(" on ")[2] for name in core.where()] == ["b"] * 4
        load.cancel()
        assert failed == []

        # Whoever starts a process, it does not come back; nor after a restart of the Coordinator.
        after = await core.next()
        cluster.actors.pop(next(iter(cluster.actors))).end()
        await asyncio.sleep(20)
        assert [name.partition(" on ")[2] for name in after.where()] == ["b"] * 4
        [node] = [one for one in after.operations.nodes()["list"] if one["node_name"] == "a"]
        assert (node["drained"]["by"], node["left"]) == ("anna", [])

        assert (await after.operations.undrain("a"))["drained"] is None
        done = await after.operations.rebalance(timeout_s=60, dry_run=True)
        assert (len(done["plan"]), done["moved"]) == (2, [])
        core, load = after, asyncio.create_task(submit())
        done = await after.operations.rebalance(timeout_s=60, dry_run=False)
        assert (len(done["moved"]), done["error"]) == (2, "")
        assert [move["to"] for move in done["moved"]] == [move["to"] for move in done["plan"]]
        load.cancel()
        assert failed == []
        assert sorted(name.partition(" on ")[2] for name in after.where()) == ["a", "a", "b", "b"]
        return after

    run_on({"a": 8.0, "b": 8.0}, body, organ("one", replicas=2, agent_count=2), organ("two", replicas=2, agent_count=2))


def run_on(cpus: dict[str, float], body: Body, *organs: OrganSpec) -> None:
    async def run() -> None:
        cluster = FakeCluster()
        cluster.cpus = cpus
        core = await Core(cluster, Record(), Orders(), *organs).start()
        last = await body(core, cluster) or core
        last._watch.cancel()
        await last.life.shutdown()

    run_virtual(run())


def test_what_no_other_node_can_hold_stays_and_the_reason_is_told() -> None:
    async def body(core: Core, cluster: FakeCluster) -> None:
        await core.operations.drain("only", by="anna")
        await asyncio.sleep(5)
        [left] = (await core.operations.undrain("only"))["left"] or [None]
        assert left is None
        await core.operations.drain("only", by="anna")
        await asyncio.sleep(5)
        [node] = core.operations.nodes()["list"]
        assert node["left"] == [{"organ_id": "one", "replica": 0, "why": "no other node can hold it"}]
        assert (await core.do("one"))["success"]
        # It leaves as soon as there is another node.
        cluster.cpus = {"only": 8.0, "new": 8.0}
        core.see_nodes()
        await asyncio.sleep(60)
        assert core.where() == ["one.0~1 on new"]

    run_on({"only": 8.0}, body, organ("one"))


def test_a_name_that_does_not_exist_is_refused_with_those_that_do() -> None:
    async def body(core: Core, _: FakeCluster) -> None:
        operations = core.operations
        for order, text in (
            (operations.pause("pay", by="anna"), "there is no organ 'pay', organs are: one"),
            (operations.resume("pay"), "there is no organ 'pay', organs are: one"),
            (operations.replace("pay", 0, timeout_s=1), "there is no organ 'pay', organs are: one"),
            (operations.replace("one", 1, timeout_s=1), "organ 'one' has no process 1; it has 1, counted from 0"),
            (operations.drain("moon", by="anna"), "there is no node 'moon', nodes are: node, other"),
            (operations.undrain("moon"), "there is no node 'moon', nodes are: node, other"),
        ):
            with pytest.raises(UnknownNameError) as caught:
                await order
            assert str(caught.value) == text
        assert (core.orders.paused, core.orders.drained) == ({}, {})

    world(body, organ("one"))


async def test_orders_are_on_disk_before_they_count(tmp_path: Path) -> None:
    orders = Orders(tmp_path)
    await orders.load()
    first = await orders.give(orders.paused, "one", by="anna")
    await orders.give(orders.drained, "worker-1", by="eve")
    assert await orders.give(orders.paused, "one", by="eve") == first

    again = Orders(tmp_path)
    await again.load()
    assert (again.paused, list(again.drained)) == ({"one": first}, ["worker-1"])
    assert (tmp_path / FILE_NAME).stat().st_mode & 0o777 == 0o600
    await again.take_back(again.paused, "one")
    assert await again.take_back(again.paused, "one") is None
    await orders.load()
    assert orders.paused == {}

    (tmp_path / FILE_NAME).unlink()
    (tmp_path / FILE_NAME).mkdir()
    with pytest.raises(ConfigError, match="cannot be written"):
        await orders.give(orders.paused, "two", by="anna")
    with pytest.raises(ConfigError, match="cannot be written"):
        await orders.take_back(orders.drained, "worker-1")
    assert (orders.paused, list(orders.drained)) == ({}, ["worker-1"])


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"paused": {"one": 1}, "drained": {}}'])
async def test_a_damaged_file_is_named_and_resumes_nothing(tmp_path: Path, text: str) -> None:
    (tmp_path / FILE_NAME).write_text(text)
    with pytest.raises(ConfigError, match=r"orders\.json: cannot be read .* unknown which organs are paused"):
        await Orders(tmp_path).load()
