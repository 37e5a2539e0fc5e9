"""Test that an epoch identifies one routing table, and that waiters get the next table at once."""

from __future__ import annotations

import asyncio

import pytest

from seedcore.client import routing_cache as client_routes
from seedcore.client.routing_cache import Routes, Table
from seedcore.core.errors import OrganUnavailableError, UnknownTaskTypeError
from seedcore.dispatch.routing_table import TableNews


def table(state: str = "running", **organs: list[str]) -> dict[str, object]:
    return {
        "state": state,
        "why": "it is being tested",
        "by_type": {"dig": "garden"},
        "by_domain": {"sea": {"dig": "boat"}},
        "organs": {
            name: {
                "task_timeout_s": 5.0,
                "why": "" if actors else f"organ {name} is down",
                "replicas": [{"handle": actor, "capacity": 3} for actor in actors],
            }
            for name, actors in organs.items()
        },
    }


async def test_only_another_table_is_news() -> None:
    news = TableNews()
    news.publish(table(garden=["one"]))
    known = await news.wait(None, 10.0)
    waiting = asyncio.create_task(news.wait(known["epoch"], 60.0))
    await asyncio.sleep(0)

    news.publish(table(garden=["one"]))
    await asyncio.sleep(0)
    assert not waiting.done()
    assert (await news.wait(known["epoch"], 0.0))["epoch"] == known["epoch"]

    news.publish(table(garden=["two"]))
    assert (await asyncio.wait_for(waiting, 10))["organs"]["garden"]["replicas"][0]["handle"] == "two"


async def test_two_coordinators_never_have_the_same_epoch() -> None:
    first, second = TableNews(), TableNews()
    first.publish(table(garden=["one"]))
    second.publish(table(garden=["one"]))

    assert first.epoch != second.epoch


def test_a_task_finds_its_organ_or_the_reason_why_not() -> None:
    routes = Table({"epoch": "a.1", **table(garden=["one", "two"], boat=[])})

    assert [handle for handle, *_ in routes.route("dig", None).replicas] == ["one", "two"]
    with pytest.raises(OrganUnavailableError, match="organ boat is down") as down:
        routes.route("dig", "sea")
    assert down.value.retry_after_s
    with pytest.raises(UnknownTaskTypeError, match="known types are: dig"):
        routes.route("cook", None)


@pytest.mark.parametrize(("state", "passes"), [("starting", True), ("stopped", False), ("failed", False)])
def test_an_organism_that_does_not_run_takes_nothing(state: str, *, passes: bool) -> None:
    routes = Table({"epoch": "a.1", **table(state, garden=["one"])})

    with pytest.raises(OrganUnavailableError, match="it is being tested") as caught:
        routes.route("dig", None)
    assert (caught.value.retry_after_s is not None) is passes
    assert caught.value.executed == "no"


class _Answer:
    def __init__(self, body: object) -> None:
        self.body = body

    def result(self) -> object:
        return self.body


def test_a_table_of_another_shape_leaves_the_old_one_and_is_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    again: list[float] = []
    monkeypatch.setattr(Routes, "_later", lambda _, delay_s: again.append(delay_s))
    routes = Routes("test")
    routes.take({"epoch": "a.1", **table(garden=["one"])})
    before = routes.table

    routes.took(_Answer({"epoch": "b.1", "organs": "other"}), None)

    assert routes.table is before
    assert again == [0.0, client_routes.RETRY_S]
