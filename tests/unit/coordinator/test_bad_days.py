"""Test a whole organism under random faults, with real organs on a fake Ray and in virtual time.

After every step: what is called healthy does its work; every task has one answer, and one that says it did not run did
not; supervision has killed no process that was well.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine, Mapping
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from seedcore.coordinator.organism_manager import OrganismManager
from seedcore.core.errors import InitializationError, OrganUnavailableError
from seedcore.core.spec import OrganismSpec, OrganSpec
from seedcore.core.task import Task
from tests.support.fake_ray import FakeActor, FakeCluster
from tests.support.virtual_time import VirtualLoop

ANSWER_S = 10.0


def spec(drain_timeout_s: float = 10.0) -> OrganismSpec:
    many: dict[str, Any] = {"type": "Test", "agent": "x:y", "max_concurrency": 1000}
    return OrganismSpec(
        organs=(
            OrganSpec(id="one", task_types=("one",), **many),
            OrganSpec(
                id="two", task_types=("two",), agent_count=4, replicas=2, min_ready_agents=1,
                drain_timeout_s=drain_timeout_s, **many,
            ),
            OrganSpec(id="three", task_types=("three",), required=False, **many),
        )
    )  # fmt: skip


class BadDays(RuleBasedStateMachine):
    """Deaths, hangs, slow starts, heads that are away, nodes that leave, reloads, and tasks all the while."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = VirtualLoop()
        self.unheard: list[dict[str, Any]] = []
        self.loop.set_exception_handler(lambda _, context: self.unheard.append(context))
        self.numbers = 0
        self.waiting: dict[str, tuple[asyncio.Task[dict[str, Any]], float]] = {}
        self.reload: asyncio.Task[Any] | None = None
        self.reloads = 0
        self.run(self.up())

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self.loop.run_until_complete(work)

    async def up(self) -> None:
        self.cluster = FakeCluster()
        self.cluster.cpus["third"] = 8.0
        self.manager = OrganismManager(spec(), release="r", runtime=self.cluster, on_change=lambda: None)
        await self.manager.initialize()
        assert self.manager.missing() == ([], [])

    def actor(self, number: int) -> FakeActor | None:
        actors = sorted(self.cluster.actors.items())
        return actors[number % len(actors)][1] if actors else None

    @rule(number=st.integers(0, 3))
    def a_process_dies(self, number: int) -> None:
        if actor := self.actor(number):
            self.run(self.do(actor.die))

    @rule(number=st.integers(0, 3))
    def a_process_hangs(self, number: int) -> None:
        if actor := self.actor(number):
            self.run(self.do(actor.hang))

    @rule(number=st.integers(0, 3))
    def a_process_goes_on(self, number: int) -> None:
        if actor := self.actor(number):
            self.run(self.do(actor.go_on))

    @rule(number=st.integers(0, 3))
    def an_actor_is_killed_for_good(self, number: int) -> None:
        if (actor := self.actor(number)) and self.cluster.head_is_up:
            del self.cluster.actors[actor.name]
            self.run(self.do(actor.end))

    @rule(start_s=st.sampled_from([0.5, 3.0, 40.0]), has_room=st.booleans())
    def starts_take_longer(self, *, start_s: float, has_room: bool) -> None:
        self.run(self.do(self.cluster.change, start_s=start_s, has_room=has_room or start_s < 3))

    @rule(is_up=st.booleans())
    def the_head_goes_or_comes(self, *, is_up: bool) -> None:
        self.run(self.do(self.cluster.change, head_is_up=is_up))

    @rule(leaving=st.sampled_from([frozenset(), frozenset({"node"}), frozenset({"other"})]))
    def a_node_leaves(self, leaving: frozenset[str]) -> None:
        self.cluster.draining = leaving
        self.manager.leave(leaving)

    @rule(
        nodes=st.sampled_from([(), (), ("node",), ("other",), ("node", "other", "third")]), kills_arrive=st.booleans()
    )
    def hosts_freeze_or_come_back(self, *, nodes: tuple[str, ...], kills_arrive: bool) -> None:
        self.cluster.kills_arrive = kills_arrive
        self.run(self.do(self.cluster.freeze, *nodes))

    @rule(blocked=st.sampled_from([False, False, True]))
    def agents_can_be_reached_or_not(self, *, blocked: bool) -> None:
        self.cluster.agents_are_blocked = blocked

    @rule()
    def the_organism_is_reloaded(self) -> None:
        if self.reload is None or self.reload.done():
            self.reloads += 1
            self.run(self.do(self._begin_reload))

    @rule(
        kind=st.sampled_from(["one", "two", "three"]),
        seconds=st.sampled_from([0.0, 2.0, 30.0]),
        limit=st.sampled_from([0.5, 5.0, 60.0]),
    )
    def a_task_comes(self, kind: str, seconds: float, limit: float) -> None:
        self.run(self.do(self.submit, kind, seconds, limit))

    @rule(seconds=st.sampled_from([0.1, 1.0, 5.0, 30.0, 70.0]))
    def time_passes(self, seconds: float) -> None:
        self.run(asyncio.sleep(seconds))

    @invariant()
    def what_is_healthy_works(self) -> None:
        self.run(self.check_health())

    @invariant()
    def every_task_has_one_answer(self) -> None:
        now = self.loop.time()
        for number, (task, deadline) in list(self.waiting.items()):
            assert task.done() or now < deadline, f"task {number} has no answer"
            if task.done():
                del self.waiting[number]
                self.check_answer(number, task.result())

    @invariant()
    def no_process_was_killed_that_was_well(self) -> None:
        assert self.cluster.kills == []

    @invariant()
    def no_work_was_begun_by_a_process_that_was_given_up(self) -> None:
        assert self.cluster.fenced_work == []

    async def do(self, what: Any, *arguments: Any, **more: Any) -> None:
        what(*arguments, **more)
        await asyncio.sleep(0)

    def submit(self, kind: str, seconds: float, limit: float) -> asyncio.Task[dict[str, Any]]:
        self.numbers += 1
        number = str(self.numbers)
        task = asyncio.ensure_future(self.answer(Task(type=kind, id=number, params={"seconds": seconds}), limit))
        self.waiting[number] = (task, self.loop.time() + limit + ANSWER_S)
        return task

    async def answer(self, task: Task, limit: float) -> dict[str, Any]:
        try:
            return await self.manager.dispatch(Task(type=task.type, id=task.id, params=task.params, timeout_s=limit))
        except OrganUnavailableError as error:
            return {
                "success": False,
                "executed": error.executed,
                "error_type": "OrganUnavailableError",
                "error": error.message,
            }

    def check_answer(self, number: str, answer: dict[str, Any]) -> None:
        began, done = self.cluster.began[number], self.cluster.done[number]
        if answer["success"]:
            assert (began, done) == (1, 1), answer
        elif answer["executed"] == "no":
            assert began == 0, answer
        else:
            assert began <= 1, answer

    async def check_health(self) -> None:
        """Check that the status after a failed task reflects the failure."""

        def ready(kind: str) -> list[str] | None:
            """Return the actor ids of an organ whose agents are all ready, else None."""
            report = next(organ for organ in self.manager.organ_reports() if organ["organ_id"] == kind)
            has_all = report["ready_agents"] == report["agent_count"]
            return [replica["actor_id"] for replica in report["replicas"]] if has_all else None

        async def check(kind: str) -> None:
            # After a refused task a process may just have come up, and after a task that died with its process a
            # reload may have started new ones.
            before = ready(kind)
            answer = await self.submit(kind, 0.0, 1.0)
            assert answer["success"] or before is None or before != ready(kind), answer

        await asyncio.gather(*(check(kind) for kind in ("one", "two", "three")))

    def _begin_reload(self) -> None:
        async def commit(_: Mapping[str, int]) -> None:
            return None

        async def reload() -> None:
            with contextlib.suppress(InitializationError):
                await self.manager.reload(spec(10.0 + self.reloads), timeout_s=120.0, commit=commit)

        self.reload = asyncio.ensure_future(reload())

    def teardown(self) -> None:
        """End all faults; the organism must then become healthy by itself and do its work."""
        try:
            self.run(self.recover())
        finally:
            for task in asyncio.all_tasks(self.loop):
                task.cancel()
            self.run(asyncio.sleep(0))
            self.loop.close()
        assert self.unheard == [], "an error that nobody has looked at"

    async def recover(self) -> None:
        self.manager.leave(frozenset())
        self.cluster.draining = frozenset()
        self.cluster.agents_are_blocked = False
        self.cluster.freeze()
        for actor in self.cluster.actors.values():
            actor.go_on()
        # If the head came back at once, it would still get kill orders for processes that are healthy by then.
        await asyncio.sleep(0.1)
        self.cluster.change(head_is_up=True, has_room=True, start_s=1.0)
        deadline = self.loop.time() + 600
        while self.manager.missing() != ([], []) or (self.reload and not self.reload.done()):
            assert self.loop.time() < deadline, self.manager.missing()
            await asyncio.sleep(1)
        for kind in ("one", "two", "three"):
            assert (await self.submit(kind, 0.0, 5.0))["success"]
        self.every_task_has_one_answer()
        await self.manager.shutdown()
        assert self.cluster.actors == {}
        assert (self.cluster.kills, self.cluster.fenced_work) == ([], [])
        await asyncio.sleep(30)
        assert [process for process in self.cluster.processes if not process.died.is_set()] == []


BadDays.TestCase.settings = settings(
    max_examples=20, stateful_step_count=20, deadline=None, suppress_health_check=list(HealthCheck)
)
TestBadDays = BadDays.TestCase
