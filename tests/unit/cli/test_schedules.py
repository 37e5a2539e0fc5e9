"""Test the commands for schedules against a fake Coordinator."""

from __future__ import annotations

import json
from typing import Any

import pytest

from seedcore.cli.app import cli
from seedcore.status.http_client import Response

SCHEDULE = {
    "id": "nightly", "when": "cron 30 2 * * * Europe/Berlin", "source": "file", "next": "2026-11-28T02:30:00+01:00",
    "last_planned": "2026-11-27T02:30:00+01:00", "last_task": {"id": "1000000", "state": "done"}, "paused": False,
    "missed": 1, "overlapped": 2, "spec": {},
}  # fmt: skip
OVER = {**SCHEDULE, "id": "once", "next": None, "last_planned": None, "last_task": None}


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """Return the requests that the Coordinator got."""
    seen: list[tuple[str, str]] = []

    def ask(_: Any, path: str, *, method: str = "GET", timeout_s: float) -> Response:
        seen.append((method, path))
        if "missing" in path:
            return Response(404, {"success": False, "error": "there is no schedule 'missing'"})
        return Response(200, [SCHEDULE, OVER, {**OVER, "paused": True}] if method == "GET" else SCHEDULE)

    monkeypatch.setattr("seedcore.status.http_client.ask_coordinator", ask)
    return seen


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        cli.main(list(arguments))
    return int(ended.value.code or 0)


def test_schedules_are_listed(asked: list[tuple[str, str]], capfd: pytest.CaptureFixture[str]) -> None:
    assert run("schedules") == 0
    assert asked == [("GET", "/coordinator/schedules")]
    head, nightly, once, paused = capfd.readouterr().out.splitlines()
    assert head.split()[:3] == ["ID", "WHEN", "FROM"]
    assert "cron 30 2 * * * Europe/Berlin" in nightly
    assert nightly.split()[-8:] == [
        "2026-11-28", "02:30:00+01:00", "2026-11-27", "02:30:00+01:00", "1000000", "done", "1", "2"
    ]  # fmt: skip
    assert " over " in once
    assert " paused " in paused


def test_schedules_are_listed_for_programs(asked: list[tuple[str, str]], capfd: pytest.CaptureFixture[str]) -> None:
    assert run("schedules", "--json") == 0
    assert json.loads(capfd.readouterr().out)[0] == SCHEDULE


@pytest.mark.parametrize("verb", ["pause", "resume", "run"])
def test_an_order_is_sent(asked: list[tuple[str, str]], verb: str) -> None:
    assert run("schedule", verb, "nightly") == 0
    assert asked == [("POST", f"/coordinator/schedules/nightly/{verb}")]


def test_one_is_deleted(asked: list[tuple[str, str]]) -> None:
    assert run("schedule", "delete", "a/b") == 0
    assert asked == [("DELETE", "/coordinator/schedules/a%2Fb")]


def test_one_that_is_not_there_is_exit_code_1(asked: list[tuple[str, str]], capfd: pytest.CaptureFixture[str]) -> None:
    assert run("schedule", "run", "missing") == 1
    assert capfd.readouterr().err == "error: there is no schedule 'missing'\n"
