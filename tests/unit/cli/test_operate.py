"""Test the commands of an operator against a fake Coordinator."""

from __future__ import annotations

import json
from typing import Any

import pytest

from seedcore.cli import operate
from seedcore.cli.app import cli
from seedcore.status.http_client import Response

ORDER = {"since": "2026-11-27T21:31:56+00:00", "by": "anna"}
LEFT = [{"organ_id": "pay", "replica": 0, "why": "it waits for its turn"}]


class Fake:
    """A Coordinator with an organ of two processes, and a node that its organs leave one question later."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.left = [LEFT, []]

    def ask(self, _: Any, path: str, *, method: str = "GET", timeout_s: float) -> Response:
        self.asked.append(f"{method} {path}")
        assert timeout_s > 0
        if "missing" in path:
            return Response(404, {"success": False, "error": "there is no organ 'missing', organs are: pay"})
        if path == "/coordinator/status":
            organs = [{"organ_id": "pay", "replicas": [{"replica": 0}, {"replica": 1}]}]
            left = self.left.pop(0) if len(self.left) > 1 else self.left[0]
            nodes = {"list": [{"node_name": "worker-1", "drained": ORDER, "left": left}]}
            return Response(503, {"organs": organs, "nodes": nodes, "status": "unhealthy"})
        if path.endswith("drain"):
            return Response(200, {"node": "worker-1", "drained": ORDER, "left": LEFT})
        if "/replace" in path:
            own = {"organ_id": "pay", "replica": 0, "from": "head", "to": "worker-1", "pid": 7, "seconds": 2.12}
            return Response(200, own)
        paused = ORDER if path.endswith("pause") else None
        return Response(200, {"organ_id": "pay", "paused": paused, "in_flight": 3, "queued": 2})


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Fake:
    made = Fake()
    monkeypatch.setattr("seedcore.status.http_client.ask_coordinator", made.ask)
    monkeypatch.setattr(operate, "_POLL_S", 0.01)
    return made


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        cli.main(list(arguments))
    return int(ended.value.code or 0)


@pytest.mark.parametrize(
    ("verb", "text"),
    [
        ("pause", "pay is paused by 'anna' since 2026-11-27T21:31:56+00:00: 1 tasks run, 2 wait\n"),
        ("resume", "pay is not paused: 1 tasks run, 2 wait\n"),
    ],
)
def test_an_organ_is_paused_and_resumed(fake: Fake, capfd: pytest.CaptureFixture[str], verb: str, text: str) -> None:
    assert run(verb, "pay") == 0
    assert fake.asked == [f"POST /coordinator/organs/pay/{verb}"]
    assert capfd.readouterr().out == text
    assert run(verb, "pay", "--json") == 0
    assert json.loads(capfd.readouterr().out)["queued"] == 2


@pytest.mark.parametrize("verb", ["pause", "resume", "replace", "drain", "undrain"])
def test_a_name_that_does_not_exist_is_exit_code_1(fake: Fake, capfd: pytest.CaptureFixture[str], verb: str) -> None:
    assert run(verb, "missing") == 1
    assert "there is no organ 'missing', organs are: pay" in capfd.readouterr().err


def test_the_processes_of_an_organ_are_replaced_one_by_one(fake: Fake, capfd: pytest.CaptureFixture[str]) -> None:
    assert run("replace", "pay", "--timeout", "60") == 0
    path = "POST /coordinator/organs/pay/replicas/{}/replace?timeout_s=60"
    assert fake.asked == ["GET /coordinator/status", path.format(0), path.format(1)]
    assert capfd.readouterr().out.splitlines() == [
        f"replaced pay[{number}] on head to worker-1 (pid 7, 2.1 s)" for number in (0, 1)
    ]
    assert run("replace", "pay/1", "--json") == 0
    assert json.loads(capfd.readouterr().out)[0]["seconds"] == 2.12
    assert fake.asked[3:] == ["POST /coordinator/organs/pay/replicas/1/replace?timeout_s=300"]


@pytest.mark.parametrize("index", ["", "x", "-1", "\u00b2"])
def test_a_wrong_index_is_named_and_nothing_is_asked(fake: Fake, capfd: pytest.CaptureFixture[str], index: str) -> None:
    assert run("replace", f"pay/{index}") == 2
    assert "expected an index from 0, as in pay/0" in capfd.readouterr().err
    assert fake.asked == []


def test_a_drain_waits_until_no_organ_is_left(fake: Fake, capfd: pytest.CaptureFixture[str]) -> None:
    assert run("drain", "worker-1") == 0
    printed = capfd.readouterr()
    assert printed.out == "worker-1 is drained: no organ is left there\n"
    assert printed.err == "left on worker-1: pay[0] (it waits for its turn)\n"
    assert fake.asked == ["POST /coordinator/nodes/worker-1/drain", *["GET /coordinator/status"] * 2]


def test_a_drain_that_takes_too_long_says_what_is_left(fake: Fake, capfd: pytest.CaptureFixture[str]) -> None:
    fake.left = [LEFT]
    assert run("drain", "worker-1", "--timeout", "0.05") == 1
    assert "pay[0] (it waits for its turn); the Coordinator goes on" in capfd.readouterr().err
    assert run("drain", "worker-1", "--no-wait", "--json") == 0
    assert json.loads(capfd.readouterr().out) == {"node": "worker-1", "drained": ORDER, "left": LEFT}


def test_a_node_is_undrained(fake: Fake, capfd: pytest.CaptureFixture[str]) -> None:
    assert run("undrain", "worker-1") == 0
    assert fake.asked == ["POST /coordinator/nodes/worker-1/undrain"]
    assert "`seedcore rebalance` moves them back" in capfd.readouterr().out
