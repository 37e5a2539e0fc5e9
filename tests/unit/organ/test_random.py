"""Test random organs, tasks and faults in one process: every task gets exactly one answer in the documented shape."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import Counter
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from seedcore.core.spec import OrganSpec
from seedcore.core.task import Task
from seedcore.organ.organ import Organ
from tests.support.examples import examples

DONE: Counter[str] = Counter()
RUNNING: Counter[str] = Counter()
MOST: Counter[str] = Counter()


class Anything:
    """Does what its task asks for, and records it."""

    def __init__(self, agent_id: str) -> None:
        self.agent_id = agent_id

    async def execute(self, task: Task) -> Any:
        RUNNING[self.agent_id] += 1
        MOST[self.agent_id] = max(MOST[self.agent_id], RUNNING[self.agent_id])
        try:
            return await self._do(task)
        finally:
            RUNNING[self.agent_id] -= 1
            DONE[str(task.id)] += 1

    async def _do(self, task: Task) -> Any:
        what = task.params["do"]
        await asyncio.sleep(task.params["seconds"])
        if what == "stubborn":
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(0.05)
            await asyncio.sleep(0.02)
        errors: dict[str, type[BaseException]] = {
            "raise": ValueError,
            "exit": SystemExit,
            "interrupt": KeyboardInterrupt,
            "cancelled": asyncio.CancelledError,
            "generator_exit": GeneratorExit,
        }
        if what in errors:
            raise errors[what](what)
        return {"garbage": threading.Lock(), "none": None, "failed": {"success": False, "error": "no"}}.get(what, what)


ACTIONS = ["fine", "none", "raise", "exit", "interrupt", "cancelled", "generator_exit", "garbage", "failed", "stubborn"]
TASKS = st.lists(
    st.tuples(
        st.sampled_from(ACTIONS),
        st.sampled_from([0.0, 0.0, 0.002, 0.03]),
        st.sampled_from([0.01, 0.05, 5.0]),
        st.sampled_from(["awaited", "awaited", "awaited", "dropped"]),
    ),
    min_size=1,
    max_size=30,
)
SHAPE = {"success", "task_type", "organ_id"}


@settings(deadline=None, max_examples=examples(60), suppress_health_check=[HealthCheck.too_slow])
@given(
    tasks=TASKS,
    agents=st.integers(1, 4),
    at_a_time=st.integers(1, 3),
    queue_limit=st.sampled_from([0, 1, 5, 100]),
    drain=st.sampled_from([0.0, 0.02, 5.0]),
    stop_after=st.none() | st.integers(0, 10),
)
async def test_every_task_has_one_answer(
    *,
    tasks: list[tuple[str, float, float, str]],
    agents: int,
    at_a_time: int,
    queue_limit: int,
    drain: float,
    stop_after: int | None,
) -> None:
    for counter in (DONE, RUNNING, MOST):
        counter.clear()
    spec = OrganSpec(
        id="organ",
        type="Test",
        agent=f"{__name__}:Anything",
        task_types=("work",),
        agent_count=agents,
        max_concurrency=at_a_time,
        queue_limit=queue_limit,
        drain_timeout_s=drain,
    )
    organ = Organ.__new__(Organ)
    await organ.__init__(spec.to_dict(), 0, "identity")  # type: ignore[misc]
    async with asyncio.timeout(60):
        while not organ.snapshot().first_round_over:  # noqa: ASYNC110 - it takes a few turns of the loop
            await asyncio.sleep(0)
        calls = []
        for number, (what, seconds, limit, caller) in enumerate(tasks):
            task = Task(type="work", id=str(number), params={"do": what, "seconds": seconds})
            call = asyncio.create_task(organ.execute(task.to_dict(), limit))
            calls.append(call)
            if caller == "dropped":
                asyncio.get_running_loop().call_later(seconds / 2, call.cancel)
            if stop_after == number:
                await asyncio.sleep(0)
                stopping = asyncio.create_task(organ.stop())
        answers = await asyncio.gather(*calls, return_exceptions=True)
        if stop_after is not None and stop_after < len(tasks):
            await stopping
        else:
            await organ.stop()

    answered = 0
    for number, ((what, _, _, caller), answer) in enumerate(zip(tasks, answers, strict=True)):
        if isinstance(answer, BaseException):
            assert caller == "dropped"
            assert isinstance(answer, asyncio.CancelledError)
            continue
        answered += 1
        assert set(answer) >= SHAPE
        if answer["success"]:
            assert what in {"fine", "none", "stubborn"}
            assert set(answer) == SHAPE | {"result", "agent_id", "duration_s"}
        else:
            assert isinstance(answer["error"], str)
            assert answer["error"]
            assert isinstance(answer["error_type"], str)
        times = {True: {1}, "yes": {1}, "no": {0}, "unknown": {0, 1}}[answer["success"] or answer["executed"]]
        assert DONE[str(number)] in times, answer
    assert max(MOST.values(), default=0) <= at_a_time
    snapshot = organ.snapshot()
    assert (snapshot.in_flight, snapshot.queued) == (0, 0)
    # A caller may give up in the same iteration of the loop in which its answer is created and counted.
    assert answered <= sum(entry["count"] for entry in snapshot.tasks) <= len(tasks)
