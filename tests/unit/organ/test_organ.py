"""Test one organ in this process, without Ray: slots, queue, deadlines, agents that fail and recover."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any, ClassVar

import pytest

from seedcore.core.backoff import Backoff
from seedcore.core.organ_snapshot import Snapshot
from seedcore.core.spec import OrganSpec
from seedcore.core.task import Task
from seedcore.organ import organ as organ_module
from seedcore.organ import task_queue as work_module
from seedcore.organ.organ import Organ

started: list[str] = []
release: list[asyncio.Event] = []
let_go = threading.Event()


class Waits:
    """Works until the test releases it."""

    def __init__(self, agent_id: str) -> None:
        self.agent_id = agent_id

    async def execute(self, task: Task) -> str:
        started.append(self.agent_id)
        await release[0].wait()
        return self.agent_id


class Moody:
    """Healthy until the test makes it ill, and healthy again after a restart."""

    unwell = False

    def __init__(self, agent_id: str) -> None:
        type(self).unwell = False

    def check_health(self) -> bool:
        return not self.unwell

    def execute(self, task: Task) -> str:
        return "done"


class StartsSlowly:
    """Ill if the test says so; its restarts wait until the test releases them."""

    lives: ClassVar[dict[str, int]] = {}
    ill: ClassVar[set[str]] = set()

    def __init__(self, agent_id: str) -> None:
        self.agent_id = agent_id
        self.life = self.lives[agent_id] = self.lives.get(agent_id, 0) + 1

    async def start(self) -> None:
        if self.life > 1:
            await release[0].wait()

    async def check_health(self) -> bool:
        return self.agent_id not in self.ill

    async def execute(self, task: Task) -> str:
        return self.agent_id


class Threaded:
    """Records the thread of each of its methods; it is sync, like agents that use sqlite3 or Playwright."""

    threads: ClassVar[list[tuple[str, str, int]]] = []

    def __init__(self, agent_id: str) -> None:
        self.agent_id = agent_id
        self.note("init")

    def note(self, what: str) -> None:
        self.threads.append((self.agent_id, what, threading.get_ident()))

    def start(self) -> None:
        self.note("start")

    def check_health(self) -> None:
        self.note("check_health")

    def stop(self) -> None:
        self.note("stop")

    def execute(self, task: Task) -> str:
        self.note("execute")
        if task.params.get("hold"):
            let_go.wait()
        return self.agent_id


class AtWork:
    """Reports itself ill while it works, and records when it is stopped."""

    def __init__(self, agent_id: str) -> None:
        started.append("born")

    async def check_health(self) -> bool:
        return "working" not in started or "done" in started

    async def execute(self, task: Task) -> str:
        started.append("working")
        await release[0].wait()
        started.append("done")
        return "done"

    async def stop(self) -> None:
        started.append("stopped")


class Ends:
    """Raises SystemExit when its method is looked up."""

    def __init__(self, agent_id: str) -> None:
        pass

    def execute(self, task: Task) -> str:
        return "done"

    def __getattribute__(self, name: str) -> Any:
        if name == "execute":
            raise SystemExit("no licence")
        return super().__getattribute__(name)


class Plain:
    """Has no health check."""

    def __init__(self, agent_id: str) -> None:
        pass

    async def execute(self, task: Task) -> None:
        return None


def holds(task: Task) -> str:
    """Hangs like C code, which no exception can interrupt."""
    if task.params.get("hold"):
        let_go.wait()
    return "done"


def slow_in_python(task: Task) -> str:
    began = time.monotonic()
    while time.monotonic() - began < 0.5:
        pass
    started.append("came to its end")
    return "done"


def spins(task: Task) -> None:
    while True:
        pass


def counts_in_thread(task: Task) -> Iterator[int]:
    try:
        yield from range(task.params["count"])
    finally:
        started.append("closed")


async def counts(task: Task) -> AsyncIterator[int]:
    try:
        for number in range(task.params["count"]):
            if number == task.params.get("raise_at"):
                raise ValueError("no further")
            if number == task.params.get("wait_at"):
                await release[0].wait()
            yield number
    finally:
        started.append("closed")


def stop_iteration(task: Task) -> None:
    raise StopIteration("a sync agent may raise anything")


def takes_options(task: Task, **options: int) -> dict[str, int]:
    return options


def blocks(task: Task, *, seconds: float) -> str:
    time.sleep(seconds)  # a sync agent: this is a thread
    return "late"


@asynccontextmanager
async def running(agent: str, **spec: Any) -> AsyncIterator[Organ]:
    organ = Organ.__new__(Organ)
    values = {"id": "organ", "type": "Test", "agent": f"{__name__}:{agent}", "health_interval_s": 0.05, **spec}
    await organ.__init__(OrganSpec(**values).to_dict(), 0, "identity")  # type: ignore[misc]
    try:
        await until(organ, lambda snapshot: snapshot.first_round_over)
        yield organ
    finally:
        # The loop waits at its end for the threads of its tasks, even after a failed test.
        let_go.set()
        await organ.stop()


async def until(organ: Organ, check: Callable[[Snapshot], bool]) -> Snapshot:
    boot, version = "", -1
    async with asyncio.timeout(20):
        while True:
            # A change that triggers no report, such as the queue length, appears in the next one.
            snapshot = Snapshot.from_dict(await organ.watch(boot, version, 0.1))
            if check(snapshot):
                return snapshot
            boot, version = snapshot.boot, snapshot.version


async def ended(count: int) -> None:
    async with asyncio.timeout(20):
        while started != ["closed"] * count:  # noqa: ASYNC110 - a generator does not tell when it has ended
            await asyncio.sleep(0)


async def test_a_task_that_ends_when_it_is_cancelled_never_counts_as_stuck() -> None:
    async with running("Waits", agent_count=1) as organ:
        watched = asyncio.create_task(until(organ, lambda snapshot: snapshot.stuck_tasks > 0))
        for _ in range(3):
            assert (await organ.execute(task(), 0.05))["error_type"] == "TimeoutError"
        assert not watched.done()
        watched.cancel()


@pytest.fixture(autouse=True)
def _clean() -> Iterator[None]:
    for each in (started, Threaded.threads, StartsSlowly.lives, StartsSlowly.ill):
        each.clear()
    release[:] = [asyncio.Event()]
    let_go.clear()
    yield
    let_go.set()


def task(**more: Any) -> dict[str, Any]:
    return Task(type="work", **more).to_dict()


async def test_tasks_spread_over_all_agents_and_a_full_queue_refuses_at_once() -> None:
    async with running("Waits", agent_count=2, queue_limit=1) as organ:
        working = [asyncio.create_task(organ.execute(task(), 10.0)) for _ in range(3)]
        await until(organ, lambda snapshot: snapshot.queued == 1)
        assert sorted(started) == ["organ_agent_0", "organ_agent_1"]

        refused = await organ.execute(task(), 10.0)
        assert (refused["success"], refused["error_type"]) == (False, "OverloadedError")
        assert refused["retry_after_s"] > 0

        release[0].set()
        answers = await asyncio.gather(*working)
        assert [answer["success"] for answer in answers] == [True, True, True]


async def test_a_task_that_waits_too_long_is_answered_and_its_place_given_back() -> None:
    async with running("Waits", agent_count=1) as organ:
        first = asyncio.create_task(organ.execute(task(), 10.0))
        while not started:  # noqa: ASYNC110 - the organ does not tell when it hands a task to an agent
            await asyncio.sleep(0)
        answer = await organ.execute(task(), 0.1)
        assert (answer["error_type"], answer["error"]) == ("TimeoutError", "no agent was free within 0.1 s")
        release[0].set()
        assert (await first)["success"] is True
        assert (await organ.execute(task(), 10.0))["success"] is True


async def test_a_thread_that_does_not_end_keeps_its_slot_and_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(work_module, "STUCK_AFTER_S", 0.05)
    async with running("blocks", agent_count=2, options={"seconds": 1.0}) as organ:
        late = await organ.execute(task(), 0.1)
        assert (late["error_type"], late["agent_id"]) == ("TimeoutError", "organ_agent_0")
        snapshot = await until(organ, lambda snapshot: snapshot.stuck_tasks == 1)
        assert (snapshot.ready, snapshot.stuck, snapshot.state) == (1, 1, "degraded")
        assert (await organ.execute(task(), 5.0))["agent_id"] == "organ_agent_1"
        await until(organ, lambda snapshot: snapshot.stuck_tasks == 0)


async def test_an_agent_with_less_to_do_comes_first() -> None:
    async with running("Waits", agent_count=3, max_concurrency=4) as organ:
        working = [asyncio.create_task(organ.execute(task(), 10.0)) for _ in range(9)]
        while len(started) < 9:  # noqa: ASYNC110 - as above
            await asyncio.sleep(0)
        assert sorted(started) == sorted([f"organ_agent_{index}" for index in range(3)] * 3)
        release[0].set()
        await asyncio.gather(*working)


async def test_python_code_in_a_thread_ends_with_its_deadline() -> None:
    async with running("spins") as organ:
        assert (await organ.execute(task(), 0.2))["error_type"] == "TimeoutError"
        # Its only slot is free again, and so is its thread.
        second = await organ.execute(task(), 0.2)
        assert (second["error_type"], second["agent_id"]) == ("TimeoutError", "organ_agent_0")


async def test_c_code_in_a_thread_keeps_the_place_of_its_agent_until_it_ends() -> None:
    async with running("blocks", options={"seconds": 1.0}) as organ:
        assert (await organ.execute(task(), 0.1))["agent_id"] == "organ_agent_0"
        waits = await organ.execute(task(), 0.1)
        assert (waits["error_type"], waits["error"]) == ("TimeoutError", "no agent was free within 0.1 s")
        assert (await organ.execute(task(), 5.0))["success"] is True


async def test_an_organ_that_stops_lets_its_tasks_end_and_takes_no_more() -> None:
    async with running("Waits", agent_count=1) as organ:
        two = [asyncio.create_task(organ.execute(task(), 10.0)) for _ in range(2)]
        await until(organ, lambda snapshot: snapshot.queued == 1)
        stopping = asyncio.create_task(organ.stop())
        await until(organ, lambda snapshot: snapshot.stopping)
        refused = await organ.execute(task(), 10.0)
        assert (refused["error_type"], refused["error"]) == ("OrganUnavailableError", "organ organ is being stopped")
        assert not stopping.done()
        release[0].set()
        assert [(await each)["success"] for each in two] == [True, True]
        assert sum(entry["count"] for entry in await stopping) == 3


async def test_an_organ_that_has_to_stop_answers_what_has_not_ended() -> None:
    async with running("Waits", agent_count=1, drain_timeout_s=0.1) as organ:
        two = [asyncio.create_task(organ.execute(task(), 10.0)) for _ in range(2)]
        await until(organ, lambda snapshot: snapshot.queued == 1)
        assert [(entry["outcome"], entry["count"]) for entry in await organ.stop()] == [("OrganUnavailableError", 2)]
        errors = [
            (answer["error_type"], answer["error"], answer["executed"]) for answer in [await each for each in two]
        ]
        assert errors == [
            ("OrganUnavailableError", "organ organ was stopped before the task had ended", "unknown"),
            ("OrganUnavailableError", "organ organ is being stopped", "no"),
        ]


async def test_the_hint_of_a_refusal_grows_with_the_queue() -> None:
    async with running("blocks", queue_limit=20, options={"seconds": 0.2}) as organ:
        await organ.execute(task(), 5.0)
        waiting = [asyncio.create_task(organ.execute(task(), 0.5)) for _ in range(21)]
        while organ.snapshot().queued < 20:  # noqa: ASYNC110 - as above
            await asyncio.sleep(0)
        refused = await organ.execute(task(), 5.0)
        assert 1.5 < refused["retry_after_s"] < 4
        await asyncio.gather(*waiting)


async def test_a_stop_iteration_from_a_thread_does_not_hang_the_task() -> None:
    async with running("stop_iteration") as organ:
        answer = await organ.execute(task(), 5.0)
        assert (answer["error_type"], answer["agent_id"]) == ("StopIteration", "organ_agent_0")


async def test_an_agent_that_is_not_well_is_taken_out_and_started_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(organ_module, "RESTART_BACKOFF", Backoff((0.01,)))
    async with running("Moody") as organ:
        Moody.unwell = True
        snapshot = await until(organ, lambda snapshot: snapshot.ready == 0)
        assert snapshot.failed[0].error == "check_health returned False"
        await until(organ, lambda snapshot: snapshot.ready == 1)
        assert (await organ.execute(task(), 5.0))["success"] is True


async def test_an_agent_that_cancels_all_tasks_does_not_end_the_health_checks() -> None:
    async with running("StartsSlowly") as organ:
        for one in asyncio.all_tasks() - {asyncio.current_task()}:
            one.cancel()
        StartsSlowly.ill.add("organ_agent_0")
        snapshot = await until(organ, lambda snapshot: snapshot.ready == 0)
        assert snapshot.failed[0].error == "check_health returned False"


async def test_an_agent_that_is_started_again_takes_nobody_else_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(organ_module, "RESTART_BACKOFF", Backoff((0.01,)))
    async with running("StartsSlowly", agent_count=10, min_ready_agents=1) as organ:
        StartsSlowly.ill.add("organ_agent_0")
        snapshot = await until(organ, lambda snapshot: snapshot.starting == 1)
        assert (snapshot.state, snapshot.ready, snapshot.first_round_over) == ("degraded", 9, True)
        assert (await organ.execute(task(), 5.0))["success"] is True
        StartsSlowly.ill.clear()
        release[0].set()
        await until(organ, lambda snapshot: snapshot.state == "ready")


async def test_threads_that_all_hang_are_seen_and_a_new_process_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(work_module, "STUCK_AFTER_S", 0.05)
    async with running("holds", agent_count=100, drain_timeout_s=0) as organ:
        hanging = [asyncio.create_task(organ.execute(task(params={"hold": True}), 60.0)) for _ in range(64)]
        await until(organ, lambda snapshot: snapshot.in_flight == 64)
        assert (await organ.canary("n")).get("error") is None, "agents that are all busy work"
        waits = await organ.execute(task(), 0.05)
        assert (waits["error_type"], waits["executed"]) == ("TimeoutError", "no"), "it waits in the queue"
        for one in hanging:
            one.cancel()

        snapshot = await until(organ, lambda snapshot: snapshot.ready == 0)
        assert (snapshot.state, snapshot.stuck, snapshot.is_blocked) == ("down", 100, True)
        assert snapshot.cause == "100 of 100 agents are held by code that does not end"
        assert (await organ.canary("n"))["error"] == "no agent can take a task"

        let_go.set()
        await until(organ, lambda snapshot: snapshot.state == "ready")
        assert (await organ.execute(task(), 5.0))["success"] is True


async def test_agents_that_are_stuck_are_not_counted_as_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(work_module, "STUCK_AFTER_S", 0.05)
    async with running("holds", agent_count=3, drain_timeout_s=0) as organ:
        hanging = [asyncio.create_task(organ.execute(task(params={"hold": True}), 60.0)) for _ in range(2)]
        await until(organ, lambda snapshot: snapshot.in_flight == 2)
        for one in hanging:
            one.cancel()
        snapshot = await until(organ, lambda snapshot: snapshot.stuck == 2)
        assert (snapshot.state, snapshot.ready, snapshot.is_blocked) == ("degraded", 1, False)
        assert snapshot.agents == {"starting": 0, "ready": 1, "stuck": 2, "failed": 0}
        assert (await organ.execute(task(), 5.0))["success"] is True
        let_go.set()
        await until(organ, lambda snapshot: snapshot.state == "ready")


async def test_a_sync_agent_that_works_for_long_is_not_ill() -> None:
    async with running("Threaded", health_timeout_s=0.05, health_interval_s=0.02) as organ:
        working = asyncio.create_task(organ.execute(task(params={"hold": True}), 30.0))
        await until(organ, lambda snapshot: snapshot.in_flight == 1)
        seen = []
        for _ in range(20):
            await asyncio.sleep(0.02)  # ten times as long as a health check may take
            seen.append(organ.snapshot().ready)
        assert set(seen) == {1}
        let_go.set()
        assert (await working)["success"] is True
        checks = len([what for _, what, _ in Threaded.threads if what == "check_health"])
        await until(organ, lambda _: len([what for _, what, _ in Threaded.threads if what == "check_health"]) > checks)


@pytest.mark.parametrize("count", [3, 70])
async def test_a_sync_agent_has_one_thread_for_its_whole_life(count: int) -> None:
    async with running("Threaded", agent_count=count) as organ:
        await asyncio.gather(*(organ.execute(task(), 10.0) for _ in range(4 * count)))
        await until(organ, lambda _: len({who for who, what, _ in Threaded.threads if what == "check_health"}) == count)
    used: dict[str, set[int]] = {}
    for who, _, thread in Threaded.threads:
        used.setdefault(who, set()).add(thread)
    assert {len(threads) for threads in used.values()} == {1}
    assert len(set.union(*used.values())) == min(count, 64)
    assert {what for _, what, _ in Threaded.threads} == {"init", "start", "check_health", "execute", "stop"}


async def test_an_agent_that_is_ill_ends_its_tasks_before_it_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(organ_module, "RESTART_BACKOFF", Backoff((0.01,)))
    async with running("AtWork", start_timeout_s=0.05) as organ:
        working = asyncio.create_task(organ.execute(task(), 30.0))
        snapshot = await until(organ, lambda snapshot: snapshot.stuck == 1)
        assert (snapshot.ready, snapshot.failed[0].error) == (0, "check_health returned False")
        assert started == ["born", "working"]
        release[0].set()
        assert (await working)["success"] is True
        await until(organ, lambda snapshot: snapshot.ready == 1)
    assert started == ["born", "working", "done", "stopped", "born", "stopped"]


async def test_agents_without_a_health_check_cost_nothing_while_they_are_idle() -> None:
    loop = asyncio.get_running_loop()
    async with running("Plain", agent_count=3000, health_interval_s=0.01) as organ:
        made = 0

        def count(loop: asyncio.AbstractEventLoop, work: Any, **more: Any) -> asyncio.Task[Any]:
            nonlocal made
            made += 1
            return asyncio.Task(work, loop=loop, **more)

        loop.set_task_factory(count)
        try:
            await asyncio.sleep(0.2)
        finally:
            loop.set_task_factory(None)
        assert made < 100
        assert organ.snapshot().ready == 3000


@pytest.mark.parametrize(("interrupt", "ends"), [(True, []), (False, ["came to its end"])])
async def test_python_code_may_be_spared_the_interruption(*, interrupt: bool, ends: list[str]) -> None:
    async with running("slow_in_python", interrupt=interrupt) as organ:
        answer = await organ.execute(task(), 0.1)
        assert (answer["error_type"], answer["executed"]) == ("TimeoutError", "unknown")
        assert (await organ.execute(task(), 20.0))["success"] is True
    assert started == [*ends, "came to its end"]


async def test_an_agent_that_does_not_load_is_tried_again(
    monkeypatch: pytest.MonkeyPatch, module: Callable[[str], str]
) -> None:
    monkeypatch.setattr(organ_module, "RESTART_BACKOFF", Backoff((0.05,)))
    name = module("raise OSError('the share is not mounted')")
    organ = Organ.__new__(Organ)
    spec = OrganSpec(id="organ", type="Test", agent=f"{name}:work")
    await organ.__init__(spec.to_dict(), 0, "identity")  # type: ignore[misc]
    try:
        broken = await until(organ, lambda snapshot: snapshot.first_round_over)
        assert "the share is not mounted" in broken.failed[0].error
        module("def work(task):\n    return 'mended'\n")
        await until(organ, lambda snapshot: snapshot.ready == 1)
        assert (await organ.execute(task(), 5.0))["result"] == "mended"
    finally:
        await organ.stop()


async def test_an_option_may_have_any_name() -> None:
    async with running("takes_options", options={"executor": 1, "function": 2}) as organ:
        answer = await organ.execute(task(), 5.0)
        assert answer["result"] == {"executor": 1, "function": 2}


@pytest.mark.parametrize("agent", ["counts", "counts_in_thread"])
async def test_the_items_of_a_generator_come_one_by_one_or_all_together(agent: str) -> None:
    async with running(agent) as organ:
        parts = [part async for part in organ.stream(task(params={"count": 100}), 10.0)]
        assert parts[:-1] == [{"item": number} for number in range(100)]
        assert (parts[-1]["success"], parts[-1]["result"]) == (True, 100)
        assert (await organ.execute(task(params={"count": 3}), 10.0))["result"] == [0, 1, 2]
        (nothing,) = [part async for part in organ.stream(task(params={"count": 0}), 10.0)]
        assert nothing["result"] == 0
        assert started == ["closed"] * 3


async def test_a_stream_that_breaks_ends_with_the_reason() -> None:
    async with running("counts") as organ:
        parts = [part async for part in organ.stream(task(params={"count": 5, "raise_at": 2}), 10.0)]
        assert [part.get("item") for part in parts[:-1]] == [0, 1]
        assert (parts[-1]["success"], parts[-1]["error_type"], parts[-1]["error"]) == (
            False,
            "ValueError",
            "no further",
        )
        late = [part async for part in organ.stream(task(params={"count": 5, "wait_at": 1}), 0.2)]
        assert (late[0], late[1]["error_type"]) == ({"item": 0}, "TimeoutError")
        await ended(2)


async def test_a_generator_waits_for_a_caller_that_is_slow_and_ends_with_one_that_is_gone() -> None:
    async with running("counts") as organ:
        stream = organ.stream(task(params={"count": 10**9}), 30.0)
        assert [await anext(stream) for _ in range(3)] == [{"item": number} for number in range(3)]
        await stream.aclose()  # type: ignore[attr-defined]  # it is an async generator
        await ended(1)
        await until(organ, lambda snapshot: snapshot.in_flight == 0)
        assert (await organ.execute(task(params={"count": 10**9}), 0.5))["error_type"] == "TimeoutError"


async def test_an_agent_that_is_no_generator_has_an_answer_and_no_items() -> None:
    async with running("takes_options", options={"a": 1}) as organ:
        (answer,) = [part async for part in organ.stream(task(), 10.0)]
        assert answer["result"] == {"a": 1}


async def test_an_agent_that_cannot_be_loaded_is_told_with_its_traceback() -> None:
    async with running("no_such_agent") as organ:
        snapshot = organ.snapshot()
        assert snapshot.ready == 0
        assert "no_such_agent" in snapshot.failed[0].error
        assert "Traceback" in snapshot.failed[0].traceback


async def test_an_agent_whose_method_cannot_be_had_does_not_start_and_says_why() -> None:
    async with running("Ends") as organ:
        snapshot = organ.snapshot()
        assert snapshot.ready == 0
        assert "no licence" in snapshot.failed[0].error
