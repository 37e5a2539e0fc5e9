"""What an operator does, over HTTP."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from scripts.example_coordinator import ExampleOperations
from seedcore.core.errors import ConfigError, Fault, InitializationError, OrganUnavailableError, UnknownNameError

if TYPE_CHECKING:
    from tests.unit.coordinator.http.conftest import View

ORDERS = [
    "organs/pay/pause", "organs/pay/resume", "organs/pay/replicas/1/replace?timeout_s=7", "rebalance?dry_run=true",
    "nodes/worker-1/drain", "nodes/worker-1/undrain",
]  # fmt: skip


class Refuses(ExampleOperations):
    def __init__(self, error: Exception) -> None:
        self.error = error

    async def pause(self, organ_id: str, *, by: str) -> dict[str, Any]:
        raise self.error

    async def rebalance(self, *, timeout_s: float, dry_run: bool) -> dict[str, Any]:
        raise AssertionError


@pytest.mark.parametrize("order", ORDERS)
async def test_each_order_is_done_and_writes_one_line(
    client: httpx.AsyncClient, caplog: pytest.LogCaptureFixture, order: str
) -> None:
    with caplog.at_level(logging.INFO):
        answer = await client.post(f"/coordinator/{order}")
    assert answer.status_code == 200, answer.text
    lines = [record.getMessage() for record in caplog.records if "audit: " in record.getMessage()]
    assert len(lines) == 1
    *_, name, verb = ["", *order.partition("?")[0].split("/")]
    assert lines[0].startswith(f"audit: token='cluster' order={verb}")
    if verb in {"pause", "resume", "replace"}:
        assert "organ='pay'" in lines[0]
    if "drain" in verb:
        assert f"node={name!r}" in lines[0]


async def test_who_gives_an_order_and_its_limits_are_passed_on(client: httpx.AsyncClient) -> None:
    paused = (await client.post("/coordinator/organs/pay/pause")).json()
    assert (paused["organ_id"], paused["paused"]["by"]) == ("pay", "cluster")
    replaced = (await client.post("/coordinator/organs/pay/replicas/3/replace?timeout_s=7")).json()
    assert (replaced["organ_id"], replaced["replica"], replaced["seconds"]) == ("pay", 3, 7.0)
    assert (await client.get("/coordinator/access")).json() == {"name": "cluster", "scope": "operate"}


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UnknownNameError("there is no organ 'pay', organs are: one"), 404),
        (OrganUnavailableError("the organism is being reloaded"), 503),
        (InitializationError("its new process is not ready"), 503),
        (ConfigError((Fault("orders.json", 0, 0, "cannot be written: No space left on device"),)), 503),
    ],
)
async def test_what_is_refused_is_told(client: httpx.AsyncClient, view: View, error: Exception, code: int) -> None:
    view.operations = Refuses(error)
    answer = await client.post("/coordinator/organs/pay/pause")
    assert (answer.status_code, answer.json()["error"], answer.json()["executed"]) == (code, str(error), "no")
    assert ("Retry-After" in answer.headers) is (code == 503)


@pytest.mark.parametrize(
    ("order", "text"),
    [
        ("rebalance?dry_run=yes", "dry_run is 'yes', expected true or false"),
        ("rebalance?timeout_s=0", "timeout_s is '0', expected a number of seconds above 0"),
        ("rebalance?timeout_s=soon", "timeout_s is 'soon', expected a number of seconds above 0"),
        ("organs/pay/replicas/last/replace", "the process is 'last', expected its number, from 0"),
    ],
)
async def test_a_wrong_parameter_is_named(client: httpx.AsyncClient, view: View, order: str, text: str) -> None:
    view.operations = Refuses(AssertionError())
    answer = await client.post(f"/coordinator/{order}")
    assert (answer.status_code, answer.json()["error"]) == (400, text)
