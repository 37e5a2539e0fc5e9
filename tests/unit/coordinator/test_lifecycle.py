"""Test the organism's life cycle: the effect of each event in each phase, and the state saved for the next process."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import pytest

from seedcore.coordinator import lifecycle, record
from seedcore.coordinator.lifecycle import Lifecycle, Phase
from seedcore.coordinator.organism_manager import OrganismManager
from seedcore.coordinator.record import ActorRecord
from seedcore.core.backoff import Backoff
from seedcore.core.errors import InitializationError, OrganUnavailableError
from seedcore.core.spec import OrganismSpec, OrganSpec

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
        self, spec: OrganismSpec, *, timeout_s: float, commit: Callable[[Mapping[str, int]], Awaitable[None]]
    ) -> dict[str, list[str]]:
        async with asyncio.timeout(timeout_s):
            await self._does("reload")
            await commit({})
        return {"added": [organ.id for organ in spec.organs]}

    async def shutdown(self) -> None:
        await self._does("shutdown")

    def missing(self) -> tuple[list[str], list[str]]:
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
        (Phase.RUNNING, "start_again, fails", Phase.FAILED, None),
        (Phase.RUNNING, "reload", Phase.RUNNING, ("new.yaml", False)),
        (Phase.RUNNING, "reload, fails", Phase.RUNNING, None),
        (Phase.RUNNING, "shutdown", Phase.STOPPED, ("old.yaml", True)),
        (Phase.FAILED, "start_again", Phase.RUNNING, ("old.yaml", False)),
        (Phase.FAILED, "reload", OrganUnavailableError, None),
        (Phase.FAILED, "shutdown", Phase.STOPPED, ("old.yaml", True)),
        (Phase.STOPPED, "start_again", Phase.RUNNING, ("old.yaml", False)),
        (Phase.STOPPED, "reload", OrganUnavailableError, ("old.yaml", True)),
        (Phase.STOPPED, "shutdown", Phase.STOPPED, ("old.yaml", True)),
        (Phase.STARTING, "start_again", Phase.RUNNING, None),
        (Phase.STARTING, "reload", OrganUnavailableError, None),
        (Phase.RELOADING, "start_again", Phase.RUNNING, ("new.yaml", False)),
        (Phase.RELOADING, "reload", OrganUnavailableError, ("new.yaml", False)),
        (Phase.RELOADING, "shutdown", Phase.STOPPED, ("old.yaml", True)),
    ],
)
async def test_what_each_event_does_in_each_phase(
    life: Lifecycle, phase: Phase, event: str, then: Any, kept: tuple[str, bool] | None
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
    found = await life._record.read()
    assert (found and (found["spec"]["source"], found["stopped"])) == kept


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
    """Fake key-value store of Ray; the head does not answer for ``slow_s`` seconds."""

    def __init__(self) -> None:
        self.kept: dict[bytes, bytes] = {}
        self.slow_s = 0.0

    def _internal_kv_get(self, key: bytes, namespace: bytes) -> bytes | None:
        return self.kept.get(key)

    def _internal_kv_put(self, key: bytes, value: bytes, *, overwrite: bool, namespace: bytes) -> None:
        time.sleep(self.slow_s)
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
    store.slow_s = 0.3
    with pytest.raises(TimeoutError):
        await one.write({"spec": 1})
    store.slow_s = 0.0
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
