"""Test durable tasks in one process: no attempt begins twice, and no answer is forgotten before it is recorded."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seedcore.core.spec import OrganSpec
from seedcore.core.task import Task
from seedcore.organ import durable
from seedcore.organ.durable import Ledger
from seedcore.organ.organ import Organ

BOOT = "boot"
DONE = {"success": True, "result": 1, "task_type": "t"}


def begun(*attempts: tuple[str, int], epoch: int = 1) -> Ledger:
    ledger = Ledger(BOOT)
    for task_id, attempt in attempts:
        assert ledger.begin(task_id, attempt, epoch=epoch, boot=BOOT) is None
    return ledger


def test_an_attempt_begins_once() -> None:
    ledger = begun(("a", 1))
    assert ledger.begin("a", 1, epoch=1, boot=BOOT) == ("the attempt has begun already", "unknown")
    ledger.end("a", 1, DONE)
    assert ledger.begin("a", 1, epoch=1, boot=BOOT) == ("the attempt has begun already", "unknown")
    assert ledger.begin("a", 2, epoch=1, boot=BOOT) is None


def test_an_older_coordinator_begins_nothing_more() -> None:
    ledger = begun(("a", 1), epoch=2)
    assert ledger.begin("b", 1, epoch=1, boot=BOOT) == ("another Coordinator has taken the inbox over", "no")
    assert ledger.about([("b", 1)]) == [["b", 1, "never", None]]


def test_a_task_for_an_earlier_process_does_not_begin() -> None:
    why = "the task was given to an earlier process of the organ"
    assert Ledger(BOOT).begin("a", 1, epoch=1, boot="before") == (why, "no")


def test_an_attempt_that_was_told_not_to_have_begun_never_begins() -> None:
    ledger = Ledger(BOOT)
    assert ledger.about([("a", 1)]) == [["a", 1, "never", None]]
    assert ledger.begin("a", 1, epoch=1, boot=BOOT) == ("the attempt was given back", "no")
    assert ledger.begin("a", 2, epoch=1, boot=BOOT) is None


def test_an_answer_is_kept_until_it_is_recorded() -> None:
    ledger = begun(("a", 3))
    assert ledger.about([("a", 3)]) == [["a", 3, "running", None]]
    assert ledger.end("a", 3, DONE) == {**DONE, "attempt": 3}
    assert ledger.about([("a", 3)]) == [["a", 3, "answered", {**DONE, "attempt": 3}]]
    ledger.forget([("a", 2)])
    assert ledger.about([("a", 3)])[0][2] == "answered"
    ledger.forget([("a", 3)])
    assert ledger.about([("a", 3)])[0][2] == "never"


def test_the_next_coordinator_keeps_only_what_it_asks_for() -> None:
    ledger = begun(("a", 1), ("b", 1), ("c", 1))
    ledger.end("a", 1, DONE)
    ledger.end("b", 1, DONE)
    ledger.keep_only([("a", 1)])
    assert [entry[2] for entry in ledger.about([("a", 1), ("b", 1)])] == ["answered", "never"]
    ledger.end("c", 1, DONE)
    assert list(ledger._held) == ["a"], "what nobody waits for is forgotten as soon as it has ended"


def test_too_many_answers_lose_their_results_but_not_whether_they_ran(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(durable, "KEPT_BYTES", 25_000)
    ledger = begun(*((str(number), 1) for number in range(4)))
    for number in range(3):
        ledger.end(str(number), 1, {**DONE, "result": "x" * 9_000})
    ledger.end("3", 1, {"success": False, "executed": "no", "task_type": "t", "error": "e", "error_type": "E"})

    kinds = [entry[3].get("error_type") for entry in ledger.about([(str(number), 1) for number in range(4)])]

    assert kinds == ["ResultLostError", "ResultLostError", None, "E"]
    assert ledger.about([("0", 1)])[0][3]["executed"] == "yes"
    assert ledger._bytes < 25_000


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["begin", "end", "forget", "about", "keep"]),
            st.sampled_from("abc"),
            st.integers(1, 3),
            st.integers(1, 2),
        ),
        max_size=60,
    )
)
def test_no_history_begins_an_attempt_twice(history: list[tuple[str, str, int, int]]) -> None:
    ledger = Ledger(BOOT)
    begun_pairs: set[tuple[str, int]] = set()
    given_back: set[tuple[str, int]] = set()
    acknowledged: set[tuple[str, int]] = set()
    for what, task_id, attempt, epoch in history:
        pair = (task_id, attempt)
        if what == "begin" and pair not in acknowledged:  # the store never sends what it has recorded
            if ledger.begin(task_id, attempt, epoch=epoch, boot=BOOT) is None:
                assert pair not in begun_pairs
                assert pair not in given_back
                begun_pairs.add(pair)
        elif what == "end" and pair in begun_pairs:
            ledger.end(task_id, attempt, DONE)
        elif what == "forget":
            ledger.forget([pair])
            acknowledged.add(pair)
        elif what == "keep":
            acknowledged |= begun_pairs - {pair}
            ledger.keep_only([pair])
        elif what == "about" and ledger.about([pair])[0][2] == "never":
            given_back.add(pair)
    assert ledger._bytes == sum(held.size for held in ledger._held.values())


GATE: dict[str, asyncio.Event] = {}


async def work(task: Task) -> Any:
    """Wait where the test says so; tell what an agent sees of a durable task."""
    if "gate" in task.params:
        await GATE[task.params["gate"]].wait()
    return [task.id, task.key, task.attempt]


@pytest.fixture
async def organ() -> AsyncIterator[Organ]:
    made = Organ.__new__(Organ)
    spec = OrganSpec(id="one", type="Test", agent=f"{__name__}:work", task_types=("t",))
    await made.__init__(spec.to_dict(), 0, "identity")  # type: ignore[misc]
    while made.snapshot().ready < 1:  # noqa: ASYNC110 - it has no event for that
        await asyncio.sleep(0.01)
    yield made
    await made.stop()


def order(organ: Organ, number: int = 1, *, attempt: int = 1, epoch: int = 1, **params: Any) -> dict[str, Any]:
    return {
        "type": "t", "params": params, "id": f"id{number}", "key": f"key{number}", "attempt": attempt,
        "ticket": [epoch, organ._boot],
    }  # fmt: skip


def question(organ: Organ, verb: str, *pairs: tuple[str, int], epoch: int = 1, wait_s: float = 0.0) -> tuple[Any, ...]:
    return (verb, epoch, organ._boot, list(pairs), wait_s)


async def test_a_durable_task_is_executed_and_its_answer_kept(organ: Organ) -> None:
    answer = await organ.call((order(organ), 5.0, False))
    assert (answer["success"], answer["result"], answer["attempt"]) == (True, ["id1", "key1", 1], 1)

    reply = await organ.call(question(organ, "adopt", ("id1", 1), epoch=2))

    assert reply == {"boot": organ._boot, "fenced": False, "entries": [["id1", 1, "answered", answer]]}
    late = await organ.call((order(organ, 2, epoch=1), 5.0, False))
    assert (late["success"], late["error_type"], "attempt" in late) == (False, "FencedError", False)
    assert (await organ.call(question(organ, "wait", epoch=1)))["fenced"]


async def test_a_task_goes_on_when_its_caller_has_gone(organ: Organ) -> None:
    GATE["one"] = asyncio.Event()
    call = asyncio.ensure_future(organ.call((order(organ, gate="one"), 5.0, False)))
    await asyncio.sleep(0)
    call.cancel()
    await asyncio.wait({call})
    waiting = asyncio.ensure_future(organ.call(question(organ, "wait", ("id1", 1), epoch=2, wait_s=30.0)))
    await asyncio.sleep(0)
    assert not waiting.done()

    GATE["one"].set()

    assert (await waiting)["entries"][0][2] == "answered"


async def test_tasks_of_a_batch_are_kept_as_well(organ: Organ) -> None:
    reply = await organ.call_many(([order(organ, 1), order(organ, 2)], [5.0, 5.0], 5.0, False))
    while reply["rest"] is not None:
        reply["answers"] += (await organ.collect(reply["rest"], 5.0))["answers"]
        reply["rest"] = None if len(reply["answers"]) == 2 else reply["rest"]
    assert sorted(answer["result"][0] for _, answer in reply["answers"]) == ["id1", "id2"]

    await organ.call(question(organ, "ack", ("id1", 1)))

    entries = (await organ.call(question(organ, "wait", ("id1", 1), ("id2", 1))))["entries"]
    assert [entry[2] for entry in entries] == ["never", "answered"]


async def test_a_question_for_an_earlier_process_is_answered_with_the_boot_of_this_one(organ: Organ) -> None:
    reply = await organ.call(("wait", 1, "before", [("id1", 1)], 0.0))
    assert reply == {"boot": organ._boot, "fenced": False, "entries": []}


async def test_a_waiting_task_is_cancelled_without_having_run_and_a_running_one_with_an_unknown_outcome(
    organ: Organ,
) -> None:
    GATE["two"] = asyncio.Event()
    running = asyncio.ensure_future(organ.call((order(organ, 1, gate="two"), 5.0, False)))
    waiting = asyncio.ensure_future(organ.call((order(organ, 2), 5.0, False)))
    while organ.snapshot().queued < 1:  # noqa: ASYNC110 - it has no event for that
        await asyncio.sleep(0)

    await organ.call(question(organ, "cancel", ("id1", 1), ("id2", 1)))

    assert [(await call)["executed"] for call in (running, waiting)] == ["unknown", "no"]
    assert (await running)["error_type"] == "CancelledError"
