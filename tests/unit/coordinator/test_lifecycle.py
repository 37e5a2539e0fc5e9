"""Test the organism's life cycle: the effect of each event in each phase, and the state saved for the next process."""

from __future__ import annotations

import asyncio
import hashlib
import json
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import fields
from inspect import isfunction, signature
from typing import Any

import pytest

from seedcore.coordinator import lifecycle, record
from seedcore.coordinator.lifecycle import Lifecycle, Phase
from seedcore.coordinator.organism_manager import OrganismManager
from seedcore.coordinator.record import ActorRecord
from seedcore.core.backoff import Backoff
from seedcore.core.errors import InitializationError, OrganUnavailableError
from seedcore.core.organ_snapshot import ORGAN_PROTOCOL, Snapshot
from seedcore.core.spec import OrganismSpec, OrganSpec
from seedcore.core.task import Task
from seedcore.organ.organ import Organ
from tests.support.fake_ray import FakeCluster
from tests.support.virtual_time import run_virtual

OLD = OrganismSpec(organs=(OrganSpec(id="old", type="T", agent="a:b"),), source="old.yaml")
NEW = OrganismSpec(organs=(OrganSpec(id="new", type="T", agent="a:b"),), source="new.yaml")


class Manager:
    """Fake organism; ``gate`` blocks the calls that the test chooses, ``faults`` are raised one by one."""

    made: list[Manager]
    faults: list[Exception]
    gate: asyncio.Event
    stage, progress = "0 of 1 organs ready", {"organs_ready": 0}

    def __init__(self, spec: OrganismSpec, *, generations: Mapping[str, int] | None = None, **_: Any) -> None:
        self.spec = spec
        self.generations = dict(generations or {})
        self.events: list[str] = []
        self.made.append(self)

    async def initialize(self) -> None:
        await self._does("initialize")

    async def reload(
        self, spec: OrganismSpec, *, commit: Callable[[Mapping[str, int]], Awaitable[None]], timeout_s: float, **_: Any
    ) -> dict[str, list[str]]:
        async with asyncio.timeout(timeout_s):
            await self._does("reload")
            await commit({})
        return {"added": [organ.id for organ in spec.organs]}

    async def shutdown(self) -> None:
        await self._does("shutdown")

    def missing(self) -> tuple[list[str], list[str]]:
        return [], []

    def paused(self) -> tuple[list[str], list[str]]:
        return [], []

    async def _does(self, what: str) -> None:
        self.events.append(what)
        await self.gate.wait()
        if self.faults:
            raise self.faults.pop(0)
        self.events.append(f"{what} ended")


class Record:
    def __init__(self) -> None:
        self.kept: Mapping[str, Any] | None = None

    async def read(self) -> Mapping[str, Any] | None:
        return self.kept

    async def write(self, data: Mapping[str, Any]) -> None:
        self.kept = data


@pytest.fixture
def life(monkeypatch: pytest.MonkeyPatch) -> Lifecycle:
    Manager.made, Manager.faults, Manager.gate = [], [], asyncio.Event()
    Manager.gate.set()
    monkeypatch.setattr(lifecycle, "OrganismManager", Manager)
    return new_life(Record())


def new_life(kept: Any) -> Lifecycle:
    runtime: Any = None
    return Lifecycle(OLD, release="r", runtime=runtime, record=kept, attempt=1, on_change=lambda: None)


async def settled(life: Lifecycle) -> None:
    if life._work is not None:
        await asyncio.wait({life._work})


async def bring_to(life: Lifecycle, phase: Phase) -> None:
    """Return a life cycle in ``phase``, with only the work in progress that the phase implies."""
    if phase is Phase.STARTING:
        Manager.gate.clear()
        life._work = asyncio.create_task(life.start())
    else:
        await life.start()
    if phase is Phase.RELOADING:
        Manager.gate.clear()
        reload = asyncio.create_task(life.reload(NEW, timeout_s=60))
        # The first caller is also told about a shutdown; another test covers that.
        reload.add_done_callback(lambda done: done.exception())
    elif phase is Phase.FAILED:
        Manager.faults = [ValueError("no")]
        life.start_again()
        await settled(life)
    elif phase is Phase.STOPPED:
        await life.shutdown()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert life.phase is phase


@pytest.mark.parametrize(
    ("phase", "event", "then", "kept"),
    [
        (Phase.RUNNING, "start_again", Phase.RUNNING, ("old.yaml", False)),
        (Phase.RUNNING, "start_again, fails", Phase.FAILED, ("old.yaml", False)),
        (Phase.RUNNING, "reload", Phase.RUNNING, ("new.yaml", False)),
        (Phase.RUNNING, "reload, fails", Phase.RUNNING, ("old.yaml", False)),
        (Phase.RUNNING, "shutdown", Phase.STOPPED, ("old.yaml", True)),
        (Phase.FAILED, "start_again", Phase.RUNNING, ("old.yaml", False)),
        (Phase.FAILED, "reload", OrganUnavailableError, ("old.yaml", False)),
        (Phase.FAILED, "shutdown", Phase.STOPPED, ("old.yaml", True)),
        (Phase.STOPPED, "start_again", Phase.RUNNING, ("old.yaml", False)),
        (Phase.STOPPED, "reload", OrganUnavailableError, ("old.yaml", True)),
        (Phase.STOPPED, "shutdown", Phase.STOPPED, ("old.yaml", True)),
        (Phase.STARTING, "start_again", Phase.RUNNING, ("old.yaml", False)),
        (Phase.STARTING, "reload", OrganUnavailableError, ("old.yaml", False)),
        (Phase.RELOADING, "start_again", Phase.RUNNING, ("new.yaml", False)),
        (Phase.RELOADING, "reload", OrganUnavailableError, ("new.yaml", False)),
        (Phase.RELOADING, "shutdown", Phase.STOPPED, ("old.yaml", True)),
    ],
)
async def test_what_each_event_does_in_each_phase(
    life: Lifecycle, phase: Phase, event: str, then: Any, kept: tuple[str, bool]
) -> None:
    await bring_to(life, phase)
    if event.endswith("fails"):
        Manager.faults = [InitializationError("no")]
    refused: type[Exception] | None = None
    happening = asyncio.create_task(happens(life, event.partition(",")[0]))
    await asyncio.sleep(0)
    Manager.gate.set()
    try:
        await happening
    except (OrganUnavailableError, InitializationError) as error:
        refused = type(error)
    await settled(life)
    await asyncio.sleep(0)

    if isinstance(then, Phase):
        assert life.phase is then
        assert refused is (InitializationError if event == "reload, fails" else None)
    else:
        assert refused is then
    if life._putting_back is not None:
        await asyncio.wait({life._putting_back})
    found = await life._record.read()
    assert found is not None
    assert (found["spec"]["source"], found["stopped"]) == kept


async def happens(life: Lifecycle, event: str) -> None:
    if event == "start_again":
        life.start_again()
    elif event == "reload":
        await life.reload(NEW, timeout_s=60)
    else:
        await life.shutdown()


async def test_a_start_that_fails_at_its_very_beginning_can_be_asked_for_again(life: Lifecycle) -> None:
    await life.start()
    # The head is unreachable at the moment when the previous organs must be stopped.
    Manager.faults = [ConnectionError("the head is away")]
    life.start_again()
    await settled(life)

    assert life.judge(restarted=False)[:3] == (
        "unhealthy", "init_failed", "initialization failed: the head is away",
    )  # fmt: skip
    life.start_again()
    await settled(life)
    assert life.judge(restarted=False)[0] == "healthy"


async def test_a_start_that_was_asked_for_while_a_shutdown_drains_comes_after_it(life: Lifecycle) -> None:
    await life.start()
    Manager.gate.clear()
    down = asyncio.create_task(life.shutdown())
    await asyncio.sleep(0.01)
    life.start_again()
    await asyncio.sleep(0.01)
    assert len(Manager.made) == 1, "its organs would have the names of those that are about to be killed"

    Manager.gate.set()
    await down
    await settled(life)

    old, new = Manager.made
    assert old.events[2:] == ["shutdown", "shutdown ended", "shutdown", "shutdown ended"]
    assert new.events == ["initialize", "initialize ended"]
    assert life.phase is Phase.RUNNING


class Store:
    """Fake key-value store of Ray; the head does not answer for ``slow_s`` seconds, nor while ``away`` is locked."""

    def __init__(self) -> None:
        self.kept: dict[bytes, bytes] = {}
        self.slow_s = 0.0
        self.away = threading.Lock()

    def _internal_kv_get(self, key: bytes, namespace: bytes) -> bytes | None:
        return self.kept.get(key)

    def _internal_kv_put(self, key: bytes, value: bytes, *, overwrite: bool, namespace: bytes) -> None:
        time.sleep(self.slow_s)
        with self.away:
            self.kept[key] = value

    def _internal_kv_list(self, prefix: bytes, namespace: bytes) -> list[bytes]:
        return [key for key in self.kept if key.startswith(prefix)]

    def _internal_kv_del(self, key: bytes, namespace: bytes) -> None:
        self.kept.pop(key)


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Store:
    store = Store()
    monkeypatch.setattr(record, "internal_kv", store)
    monkeypatch.setattr(record, "_TIMEOUT_S", 0.1)
    return store


async def until(check: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not check():  # noqa: ASYNC110 - it has no event
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("timeout_s", [60.0, 0.05], ids=["the record's time is over", "the reload's time is over"])
async def test_a_reload_that_was_undone_is_not_written_down_later(
    life: Lifecycle, store: Store, monkeypatch: pytest.MonkeyPatch, timeout_s: float
) -> None:
    monkeypatch.setattr(lifecycle, "PUT_BACK", Backoff((0.05,)))
    life = new_life(ActorRecord(namespace="n", actor_id="a"))
    await life.start()
    store.slow_s = 0.5

    with pytest.raises((InitializationError, TimeoutError)):
        await life.reload(NEW, timeout_s=timeout_s)

    assert (life.phase, life.spec.source) == (Phase.RUNNING, "old.yaml")
    await until(lambda: b"new.yaml" in store.kept.get(b"n\na", b""))  # the head is back
    store.slow_s = 0.0
    monkeypatch.setattr(record, "_TIMEOUT_S", 60.0)  # a busy machine may be slow, too
    await until(lambda: b"old.yaml" in store.kept[b"n\na"])
    kept = await ActorRecord(namespace="n", actor_id="a").read()
    assert kept is not None
    assert (kept["spec"]["source"], kept["stopped"]) == ("old.yaml", False)


async def test_what_is_written_last_stays(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    one = ActorRecord(namespace="n", actor_id="a")
    with store.away:
        with pytest.raises(TimeoutError):
            await one.write({"spec": 1})
        with pytest.raises(TimeoutError):
            await one.write({"spec": 2})

    monkeypatch.setattr(record, "_TIMEOUT_S", 60.0)
    await until(lambda: store.kept.get(b"n\na") == b'{"spec":2}')
    await asyncio.sleep(0.1)
    assert await one.read() == {"spec": 2}


class Nowhere:
    """A runtime whose head is unreachable."""

    async def others(self, keep: set[str]) -> dict[str, Any]:
        raise ConnectionError("the head is away")


async def test_a_start_in_which_ray_does_not_answer_is_a_failed_one() -> None:
    runtime: Any = Nowhere()
    manager = OrganismManager(OrganismSpec(organs=()), release="r", runtime=runtime, on_change=lambda: None)

    with pytest.raises(InitializationError, match="the head is away"):
        await manager.initialize()

    assert not manager.initialized


def organ(name: str, **more: Any) -> OrganSpec:
    return OrganSpec(**{"id": name, "type": "T", "agent": "x:y", "task_types": (name,), **more})


BEFORE = OrganismSpec(organs=(organ("one"), organ("two")), source="old.yaml")
AFTER = OrganismSpec(organs=(organ("one"), organ("two", queue_limit=7)), source="new.yaml")


def release_of(cluster: FakeCluster) -> set[str]:
    return {actor.arguments[2].rpartition("@")[2] for actor in cluster.actors.values()}


async def succeeds(life: Lifecycle, kind: str) -> bool:
    answer = await life.organism.dispatch(Task(type=kind, timeout_s=5.0))
    return bool(answer["success"])


class Succession:
    """Coordinators of different releases, one after the other, on one fake Ray."""

    def __init__(self) -> None:
        self.cluster = FakeCluster()
        self.record: Record | None = None

    async def start(self, release: str, spec: OrganismSpec, *, record: Record | None = None) -> Lifecycle:
        before, self.record = self.record, record or Record()
        life = Lifecycle(
            spec, release=release, runtime=self.cluster, record=self.record, attempt=1, on_change=lambda: None,
            predecessor=before,
        )  # fmt: skip
        await life.start()
        return life

    async def settle(self, life: Lifecycle) -> None:
        await settled(life)
        if life._putting_back is not None:
            await asyncio.wait({life._putting_back})

    async def crash(self, life: Lifecycle) -> None:
        """End the Coordinator's process; its organs go on."""
        for task in (life._work, life._putting_back):
            if task is not None:
                task.cancel()
        life.organism._watch.stop()
        for replica in life.organism._all():
            if replica._supervision is not None:
                replica._supervision.cancel()
        await asyncio.sleep(0)


def played(body: Callable[[Succession], Coroutine[Any, Any, None]]) -> None:
    run_virtual(body(Succession()))


@pytest.mark.parametrize("spec", [BEFORE, AFTER], ids=["same organism", "another organism"])
def test_the_organs_of_another_release_do_the_tasks_until_the_own_ones_are_ready(spec: OrganismSpec) -> None:
    async def body(world: Succession) -> None:
        old = await world.start("a", BEFORE)
        await world.settle(old)
        await world.crash(old)
        began = asyncio.get_running_loop().time()

        new = await world.start("b", spec)

        assert asyncio.get_running_loop().time() - began < world.cluster.start_s, "it waits for no process"
        assert (new.phase, release_of(world.cluster)) == (Phase.RELOADING, {"a"})
        new.require_running()
        assert await succeeds(new, "one")
        await world.settle(new)
        assert (new.phase, release_of(world.cluster)) == (Phase.RUNNING, {"b"})
        assert (new.judge(restarted=False)[0], new.spec.source) == ("healthy", spec.source)
        assert await succeeds(new, "two")
        # And so for the next one.
        await world.crash(new)
        newest = await world.start("c", BEFORE)
        await world.settle(newest)
        assert release_of(world.cluster) == {"c"}
        await newest.shutdown()
        assert world.cluster.actors == {}

    played(body)


@pytest.mark.parametrize("lost", [False, True], ids=["all live", "one has died"])
def test_a_process_that_is_restarted_in_the_middle_of_that_goes_on_with_it(*, lost: bool) -> None:
    async def body(world: Succession) -> None:
        old = await world.start("a", BEFORE)
        await world.settle(old)
        await world.crash(old)
        first = await world.start("b", AFTER)
        await asyncio.sleep(0.01)
        assert first.phase is Phase.RELOADING
        record = world.record
        await world.crash(first)
        if lost:
            world.cluster.actors.pop("seedcore_organ.one.0")

        second = await world.start("b", AFTER, record=record)
        await world.settle(second)

        assert (second.phase, second.spec.source, release_of(world.cluster)) == (Phase.RUNNING, "new.yaml", {"b"})
        await second.shutdown()

    played(body)


def test_organs_that_do_not_start_in_the_new_release_leave_the_old_ones_at_work_and_the_status_says_so() -> None:
    async def body(world: Succession) -> None:
        old = await world.start("a", BEFORE)
        await world.settle(old)
        await world.crash(old)
        world.cluster.change(dies_after_s=0.0)
        processes = {name: actor.process for name, actor in world.cluster.actors.items()}

        new = await world.start("b", BEFORE)
        await world.settle(new)

        status, reason, message, _ = new.judge(restarted=False)
        assert (status, reason) == ("unhealthy", "init_failed")
        assert message.startswith("the organs of release a were kept: organ ")
        assert {name: actor.process for name, actor in world.cluster.actors.items()} == processes
        assert await succeeds(new, "one")
        # Back to the old release.
        await world.crash(new)
        again = await world.start("a", BEFORE)
        assert (again.phase, again.judge(restarted=False)[0]) == (Phase.RUNNING, "healthy")
        assert {name: actor.process for name, actor in world.cluster.actors.items()} == processes
        await world.settle(again)
        await again.shutdown()

    played(body)


@pytest.mark.parametrize("left", ["another protocol", "a record of 0.1", "a dead process", "a hung process", "nothing"])
def test_organs_that_cannot_be_adopted_are_replaced_before_tasks_are_accepted(
    left: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def body(world: Succession) -> None:
        old = await world.start("a", BEFORE)
        await world.settle(old)
        await world.crash(old)
        assert world.record is not None
        assert world.record.kept is not None
        if left == "another protocol":
            world.record.kept = {**world.record.kept, "protocol": ORGAN_PROTOCOL + 1}
        elif left == "a record of 0.1":
            world.record.kept = {"spec": BEFORE.to_dict(), "stopped": False, "generations": {}}
        elif left == "a dead process":
            world.cluster.actors.popitem()
        elif left == "a hung process":
            hung = world.cluster.actors["seedcore_organ.two.0"].process
            assert hung is not None
            hung.runs.clear()
        else:
            world.record = None

        new = await world.start("b", AFTER)

        assert (new.phase, new.spec.source, release_of(world.cluster)) == (Phase.RUNNING, "new.yaml", {"b"})
        await world.settle(new)
        await new.shutdown()

    played(body)
    if left == "another protocol":
        assert "not adopting the organs of release a: they speak protocol 2, not 1" in caplog.text


def test_after_a_failed_change_of_the_release_the_organism_can_be_started_anew() -> None:
    async def body(world: Succession) -> None:
        old = await world.start("a", BEFORE)
        await world.settle(old)
        await world.crash(old)
        world.cluster.change(dies_after_s=0.0)
        new = await world.start("b", AFTER)
        await world.settle(new)
        world.cluster.change(dies_after_s=None)

        new.start_again()
        await world.settle(new)

        assert (new.judge(restarted=False)[0], new.spec.source) == ("healthy", "new.yaml")
        assert release_of(world.cluster) == {"b"}
        await new.shutdown()

    played(body)


def test_the_protocol_of_the_organs_is_raised_when_it_changes() -> None:
    methods = {
        name: str(signature(method)) for name, method in vars(Organ).items()
        if isfunction(method) and not name.startswith("_")
    }  # fmt: skip
    words = json.dumps([methods, [one.name for one in fields(Snapshot)]], sort_keys=True)
    seen = hashlib.sha256(words.encode()).hexdigest()[:12]

    assert (ORGAN_PROTOCOL, seen) == (1, "f3c4b5285552"), (
        "decide whether releases before and after this change work together"
    )
