"""Test a whole Coordinator in this process with real organs, HTTP and a client, without Ray."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from seedcore.client import AsyncClient, Client
from seedcore.coordinator.coordinator import STALE_AFTER_S, Coordinator
from seedcore.coordinator.organ_actors import organ_name
from seedcore.coordinator.placement import Node
from seedcore.core.held_socket import Address, take
from seedcore.core.reason import Reason
from seedcore.core.settings import Settings
from seedcore.core.spec import OrganismSpec, OrganSpec
from seedcore.core.task import Task
from seedcore.deployment.socket_holder import SocketHolder
from seedcore.organ.organ import Organ
from tests.support.ports import free_ports


class Method:
    """A remote method of an actor."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.remote = function


class Handle:
    """An actor in this process."""

    class _actor_id:  # noqa: N801 - Ray's name
        @staticmethod
        def hex() -> str:
            return "a1"

    def __init__(self, organ: Organ) -> None:
        self.organ = organ

    def _get_local_state(self) -> int:
        return 2

    def __getattr__(self, name: str) -> Method:
        return Method(getattr(self.organ, name))


class Runtime:
    """Starts organs as local objects."""

    def __init__(self) -> None:
        self.living: dict[str, Handle] = {}

    async def find(self, spec: OrganSpec, replica: int, *, generation: int) -> Handle | None:
        return self.living.get(organ_name(spec.id, replica, generation))

    async def ensure(
        self, spec: OrganSpec, replica: int, identity: str, *, generation: int, node_id: str | None
    ) -> Handle:
        name = organ_name(spec.id, replica, generation)
        if name not in self.living:
            organ = Organ.__new__(Organ)
            await organ.__init__(spec.to_dict(), replica, identity)  # type: ignore[misc]
            self.living[name] = Handle(organ)
        return self.living[name]

    async def kill(self, handle: Handle, *, restart: bool) -> None:
        self.living = {name: one for name, one in self.living.items() if one is not handle}

    async def row(self, handle: Handle) -> None:
        return None

    async def others(self, keep: set[str]) -> dict[str, Handle]:
        return {name: handle for name, handle in self.living.items() if name not in keep}

    async def places(self) -> list[Node]:
        return []

    async def ask_agents(self) -> dict[str, bool]:
        return {}

    async def nodes(self) -> list[dict[str, Any]]:
        return []


class Record:
    """Stores nothing."""

    async def read(self) -> None:
        return None

    async def write(self, data: Any) -> None:
        pass


def work(task: Task) -> str:
    """Execute a task like an agent."""
    if task.type == "fail":
        raise OSError("no such file")
    return task.type


@pytest.fixture
def runtime() -> Runtime:
    return Runtime()


@asynccontextmanager
async def make_coordinator(runtime: Runtime, **settings: Any) -> AsyncIterator[Coordinator]:
    organ = OrganSpec(id="one", type="Test", agent=f"{__name__}:work", task_types=("do", "fail"), agent_count=2)
    made = Coordinator.__new__(Coordinator)
    usual = {"namespace": "test", "http_host": "127.0.0.1", "http_port": 0, "dashboard_url": "http://127.0.0.1:1"}
    await made.__init__(  # type: ignore[misc]
        OrganismSpec(organs=(organ,)).to_dict(), usual | settings, runtime=runtime, record=Record()
    )
    yield made
    await made.shutdown()
    await made._http.stop()
    tasks = [made._beat, *made._watches]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


@pytest.fixture
async def coordinator(runtime: Runtime) -> AsyncIterator[Coordinator]:
    async with make_coordinator(runtime) as made:
        yield made


@pytest.fixture
async def client(coordinator: Coordinator) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(Settings(http_port=coordinator._http.port), transport="http") as made:
        yield made


async def test_before_a_planned_end_callers_over_http_wait_for_the_next_coordinator_and_others_are_refused(
    runtime: Runtime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("seedcore.coordinator.http.server.LAST_REQUESTS_S", 0.2)
    monkeypatch.setattr("seedcore.coordinator.coordinator.QUIET_S", 0.5)
    (port,) = free_ports(1)
    with SocketHolder(tmp_path, Address("127.0.0.1", port), is_wanted=lambda: True):
        async with make_coordinator(runtime, http_port=port, state_dir=str(tmp_path)) as made:
            assert await made.quiesce(0.5)
            refused = await made.handle({"type": "do"})
            async with httpx.AsyncClient(timeout=60) as client:
                url = f"http://127.0.0.1:{port}/coordinator/tasks"
                # Nobody has replaced this one, so it goes on.
                answer = await client.post(url, json={"type": "do"})

    assert (refused["error"], refused["executed"]) == ("the Coordinator is being replaced", "no")
    assert answer.json()["success"] is True


async def test_before_a_planned_end_tasks_that_wait_in_a_paused_organ_are_given_back(
    runtime: Runtime, tmp_path: Path
) -> None:
    async with make_coordinator(runtime, state_dir=str(tmp_path)) as made:
        await made.operations.pause("one", by="anna")
        waits = asyncio.create_task(made.handle({"type": "do"}))
        [handle] = runtime.living.values()
        while not handle.organ._work.queued:  # noqa: ASYNC110 - it has no event for it
            await asyncio.sleep(0.01)
        assert await made.quiesce(30.0)
        answer = await waits
        assert (answer["executed"], answer["error"]) == (
            "no", "organ one is paused, and the Coordinator is being replaced"
        )  # fmt: skip
    # The next one knows the order.
    async with make_coordinator(Runtime(), state_dir=str(tmp_path)) as made:
        assert made.status()["reason"] == Reason.ORGANS_PAUSED
        waits = asyncio.create_task(made.handle({"type": "do"}))
        assert (await made.operations.resume("one"))["paused"] is None
        assert (await waits)["success"] is True


async def test_tasks_that_wait_in_a_paused_organ_keep_no_others_out(
    runtime: Runtime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("seedcore.coordinator.coordinator.MAX_IN_FLIGHT", 2)
    async with make_coordinator(runtime, state_dir=str(tmp_path)) as made:
        await made.operations.pause("one", by="anna")
        waits = [asyncio.create_task(made.handle({"type": "do"})) for _ in range(5)]
        await asyncio.sleep(0.2)
        assert not any(one.done() for one in waits)
        await made.operations.resume("one")
        assert [(await one)["success"] for one in waits] == [True] * 5


@pytest.mark.parametrize("held", [True, False])
async def test_a_task_waits_for_the_organs_of_a_new_coordinator_if_its_connection_has_waited_for_the_process(
    runtime: Runtime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, held: bool
) -> None:
    (port,) = free_ports(1)
    may_start, ensure = asyncio.Event(), runtime.ensure

    async def ensure_later(*args: Any, **options: Any) -> Any:
        await may_start.wait()
        return await ensure(*args, **options)

    monkeypatch.setattr(runtime, "ensure", ensure_later)

    async def submit() -> httpx.Response:
        async with make_coordinator(runtime, http_port=port, state_dir=str(tmp_path)):
            return await asyncio.wait_for(answer, 60)

    async with httpx.AsyncClient(timeout=60) as client:
        with SocketHolder(tmp_path, Address("127.0.0.1", port), is_wanted=lambda: held) as holder:
            if held:
                # An earlier Coordinator had the socket.
                for one in take(tmp_path, Address("127.0.0.1", port)) or ():
                    one.close()
            else:
                holder.__exit__(None, None, None)
            answer = asyncio.create_task(_posted(client, port))
            starting = asyncio.create_task(submit())
            await asyncio.wait({answer}, timeout=60 if not held else 1.0)
            assert answer.done() is not held
            may_start.set()
            response = await starting

    assert (response.status_code, response.json()["success"]) == ((200, True) if held else (503, False))


async def _posted(client: httpx.AsyncClient, port: int) -> httpx.Response:
    """Post a task as soon as something listens."""
    while True:
        with contextlib.suppress(httpx.ConnectError):
            return await client.post(f"http://127.0.0.1:{port}/coordinator/tasks", json={"type": "do"})
        await asyncio.sleep(0.02)


async def lately(coordinator: Coordinator, condition: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    """Wait until the activity meets a condition, and return it."""
    async with asyncio.timeout(60):
        while not condition(said := coordinator.activity()):  # noqa: ASYNC110 - nobody announces it
            await asyncio.sleep(0.05)
    return said


def per_s(said: dict[str, Any], column: str) -> float:
    return float(sum(said["samples"][column]))


async def test_each_task_is_counted_once_where_it_was_done(coordinator: Coordinator, client: AsyncClient) -> None:
    kinds = ["do"] * 5 + ["fail"] * 2 + ["unheard"] * 3 + ["get_metrics"]

    answers = await client.submit_many([{"type": kind} for kind in kinds])
    said = await lately(coordinator, lambda now: per_s(now, "failed_per_s") > 0.9 * per_s(now, "done_per_s") > 0)

    assert [answer["success"] for answer in answers] == [True] * 5 + [False] * 5 + [True]
    assert (said["organs"][0]["done"], said["organs"][0]["failed"]) == (5, 2)
    # Five tasks of each kind, also those without an organ, in an interval of two seconds or a little more.
    assert per_s(said, "failed_per_s") <= 2.5
    causes = {(one["error_type"], one["count"]) for one in said["failures"]}
    assert causes == {("OSError", 2), ("UnknownTaskTypeError", 3)}
    assert all("directly" not in one["error"] for one in said["failures"])


async def test_failures_of_tasks_that_came_directly_are_told(coordinator: Coordinator, runtime: Runtime) -> None:
    (handle,) = runtime.living.values()
    for kind in ("do", "fail"):
        await handle.organ.call((Task(type=kind).to_dict(), 30.0, True))

    said = await lately(coordinator, lambda now: now["failures"])

    assert (said["organs"][0]["done"], said["organs"][0]["failed"]) == (1, 1)
    (failure,) = said["failures"]
    assert (failure["count"], failure["error_type"]) == (1, "OSError")
    assert "directly" in failure["error"]


async def test_types_that_callers_invent_are_not_kept(coordinator: Coordinator) -> None:
    for number in range(300):
        inner = {"organ_id": "one", "task_data": {"type": f"type-{number}"}}
        assert (await coordinator.handle({"type": "execute_on_organ", "params": inner}))["success"]

    said = await lately(coordinator, lambda now: now["organs"] and now["organs"][0]["done"] == 300)
    assert said["organs"][0]["failed"] == 0
    assert len(coordinator._activity._counted["one"]) == 1
    assert len(coordinator.metrics()["organs"][0]["tasks"]) == 1


async def test_an_executed_batch_answers_in_order_for_who_wants_no_lines(coordinator: Coordinator) -> None:
    tasks = [{"type": "do"}, {"type": "fail"}, {"type": "do"}]
    answer = await coordinator.handle({"type": "execute_many", "params": {"tasks": tasks}})

    assert [one["success"] for one in answer["result"]] == [True, False, True]


async def test_moves_are_planned_and_made_one_at_a_time_and_refused_in_the_documented_shape(
    coordinator: Coordinator, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert await coordinator.moves() == {"success": True, "moves": []}
    moved, moving = asyncio.Event(), []

    async def replace(organ_id: str, index: int, *, timeout_s: float, commit: Any) -> SimpleNamespace:
        moving.append(index)
        await asyncio.wait_for(moved.wait(), timeout_s)
        return SimpleNamespace(place=f"node of {organ_id}[{index}]")

    monkeypatch.setattr(coordinator._life.organism, "replace", replace)
    moves = [asyncio.create_task(coordinator.move("one", index, 60.0)) for index in (0, 1)]
    await asyncio.sleep(0.05)
    assert moving == [0]
    moved.set()
    assert [await one for one in moves] == [{"success": True, "to": f"node of one[{index}]"} for index in (0, 1)]

    await coordinator.shutdown()
    refused = await coordinator.moves()
    assert (refused["success"], refused["error_type"]) == (False, "OrganUnavailableError")


@pytest.mark.parametrize("wall_clock_s", [-3600.0, 0.0, 30.0])
async def test_a_hung_loop_is_told_and_only_that_whatever_is_done_to_the_clock_of_the_host(
    wall_clock_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    coordinator = Coordinator.__new__(Coordinator)
    coordinator._snapshot, coordinator._snapshot_born = {"status": "healthy", "snapshot_at": time.time()}, 100.0
    now = 100.0 + STALE_AFTER_S
    clock = SimpleNamespace(monotonic=lambda: now, time=lambda: time.time() + wall_clock_s)
    monkeypatch.setattr("seedcore.coordinator.coordinator.time", clock)

    assert (await coordinator.get_status())["status"] == "healthy"
    now += 1.0
    hung = await coordinator.get_status()

    assert (hung["status"], hung["reason"], hung["age_s"]) == ("unhealthy", "stale", STALE_AFTER_S + 1.0)


IMPORTS = """
import asyncio, sys
from seedcore.coordinator import actors
from seedcore.coordinator.inbox_view import inbox_of
from seedcore.core.held_socket import Address, take
from seedcore.core.reason import Reason
from seedcore.core.settings import Settings
inbox_of(Settings(), None, None)
print(sorted(name for name in sys.modules if "sqlite" in name or name.startswith("seedcore.coordinator.inbox.")))
"""


def test_without_an_inbox_nothing_of_it_is_imported() -> None:
    done = subprocess.run([sys.executable, "-c", IMPORTS], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_an_inbox_in_sqlite_imports_no_other_database() -> None:
    chosen = IMPORTS.replace("Settings()", "Settings(inbox='sqlite')").replace('sqlite" in', 'psycopg" in')
    done = subprocess.run([sys.executable, "-c", chosen], capture_output=True, text=True, check=True)
    assert "seedcore.coordinator.inbox.stores" in done.stdout
    assert "psycopg" not in done.stdout
    assert "inbox.postgres" not in done.stdout


async def test_without_an_inbox_a_durable_task_is_refused(coordinator: Coordinator) -> None:
    answer = await coordinator.handle({"type": "do", "durable": True})
    assert (answer["success"], answer["executed"], answer["error_type"]) == (False, "no", "TaskError")
    assert "SEEDCORE_INBOX=sqlite" in answer["error"]
    assert "inbox" not in coordinator.status()


@pytest.fixture
async def durable(runtime: Runtime, tmp_path: Path) -> AsyncIterator[Coordinator]:
    organ = OrganSpec(id="one", type="Test", agent=f"{__name__}:work", task_types=("do", "fail"), agent_count=2)
    made = Coordinator.__new__(Coordinator)
    settings = {
        "namespace": "test", "http_host": "127.0.0.1", "http_port": 0, "dashboard_url": "http://127.0.0.1:1",
        "state_dir": str(tmp_path / "state"), "inbox": "sqlite",
    }  # fmt: skip
    await made.__init__(  # type: ignore[misc]
        OrganismSpec(organs=(organ,)).to_dict(), settings, runtime=runtime, record=Record()
    )
    yield made
    await made.shutdown()
    await made.inbox.close()
    await made._http.stop()
    tasks = [made._beat, *made._watches]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_a_durable_task_is_done_and_shown_in_the_status(durable: Coordinator) -> None:
    accepted = await durable.handle({"type": "do", "durable": True, "key": "k"})
    answer = await durable.handle({"type": "do", "durable": True, "key": "k", "wait_s": 60})
    failed = await durable.handle({"type": "fail", "durable": True, "wait_s": 60})

    assert (accepted["accepted"], answer["success"], answer["result"]) == (True, True, "do")
    assert answer["id"] == accepted["id"]
    assert (failed["success"], failed["state"], failed["executed"], failed["error_type"]) == (
        False, "failed", "yes", "OSError"
    )  # fmt: skip
    assert "no such file" in failed["error"]
    status = durable.status()
    assert (status["status"], status["reason"]) == ("healthy", "ready")
    assert (status["inbox"]["is_open"], status["inbox"]["tasks"]["done"], status["inbox"]["tasks"]["failed"]) == (
        True, 1, 1
    )  # fmt: skip


async def test_a_durable_task_cannot_be_streamed(durable: Coordinator) -> None:
    (answer,) = [part async for part in durable.stream({"type": "do", "durable": True})]
    assert (answer["executed"], answer["error"]) == ("no", "a durable task cannot be streamed")


async def test_an_inbox_that_cannot_be_opened_makes_the_status_unhealthy_and_spares_other_tasks(
    durable: Coordinator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(durable.inbox, "judge", lambda: (Reason.INBOX_UNAVAILABLE, "the inbox is not open: why"))
    status = durable.status()
    assert (status["status"], status["reason"], status["error"]) == (
        "unhealthy", "inbox_unavailable", "the inbox is not open: why"
    )  # fmt: skip
    assert (await durable.handle({"type": "do"}))["success"]


async def test_a_client_submits_durable_tasks_and_waits_for_them(durable: Coordinator) -> None:
    async with AsyncClient(Settings(http_port=durable._http.port), transport="http") as client:
        accepted = await client.submit({"type": "do"}, durable=True, key="one", wait=False)
        answer = await client.submit({"type": "do", "timeout_s": 5}, durable=True, key="one")
        many = await client.submit_many([{"type": "do"}] * 50, durable=True)
        refused = await client.submit({"type": "nope"}, durable=True)
        conflict = await client.submit({"type": "do", "params": {"other": 1}}, durable=True, key="one")

    assert (accepted["accepted"], answer["success"], answer["id"]) == (True, True, accepted["id"])
    assert all(one["success"] for one in many)
    assert len({one["id"] for one in many}) == 50
    assert (refused["error_type"], refused["executed"]) == ("UnknownTaskTypeError", "no")
    assert (conflict["error_type"], conflict["executed"]) == ("KeyConflictError", "no")


async def test_a_blocking_client_does_so_as_well(durable: Coordinator) -> None:
    def use() -> list[dict[str, Any]]:
        with Client(Settings(http_port=durable._http.port), transport="http") as client:
            return [
                client.submit({"type": "do"}, durable=True, key="two"),
                *client.submit_many([{"type": "do"}] * 5, durable=True, keys=[f"k{number}" for number in range(5)]),
                client.submit({"type": "fail"}, durable=True, timeout_s=30),
            ]

    answers = await asyncio.to_thread(use)

    assert [answer["success"] for answer in answers] == [True] * 6 + [False]
    assert answers[-1]["state"] == "failed"


async def test_a_durable_task_is_listed_shown_and_decided_over_http(durable: Coordinator) -> None:
    url = f"http://127.0.0.1:{durable._http.port}/coordinator/tasks"
    async with httpx.AsyncClient() as http:
        accepted = await http.post(url, json={"type": "fail", "durable": True, "key": "k"})
        task_id = accepted.json()["id"]
        shown = await http.get(f"{url}/{task_id}?wait_s=30")
        listed = await http.get(f"{url}?state=failed,parked")
        settled = await http.post(f"{url}/{task_id}/done")
        again = await http.post(f"{url}/{task_id}/retry")

    assert (accepted.status_code, shown.json()["state"], shown.json()["answer"]["error"][:12]) == (
        202, "failed", "no such file"
    )  # fmt: skip
    assert [task["id"] for task in listed.json()] == [task_id]
    assert (settled.json()["state"], again.status_code) == ("done", 409)
    assert durable.metrics()["inbox"] == [{"task_type": "fail", "state": "done", "count": 1}]
