"""Test the commands for durable tasks against a fake Coordinator."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Self

import pytest

from seedcore.cli.app import cli
from seedcore.coordinator.inbox.sqlite import SqliteStore
from seedcore.core.errors import ClusterError
from seedcore.core.task import STATES
from seedcore.status.http_client import Response

TASK = {
    "id": "a1", "state": "parked", "type": "pay", "key": "order-17", "created": "2026-11-27T10:00:00.000+00:00",
    "attempt": 1, "executed": "unknown", "error_type": "OrganUnavailableError", "error": "the process\x1b[31m died",
    "ended": "2026-11-27T10:00:04.000+00:00",
}  # fmt: skip


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """Return the requests that the Coordinator got."""
    seen: list[tuple[str, str]] = []

    def ask(_: Any, path: str, *, method: str = "GET", timeout_s: float) -> Response:
        seen.append((method, path))
        if "missing" in path:
            return Response(404, {"success": False, "error": "there is no durable task 'missing'"})
        if path == "/coordinator/inbox/copy":
            return Response(200, {"path": "/state/inbox/copy.sqlite3", "bytes": 1})
        if method == "POST":
            return Response(200, {"id": "a1", "state": "done", "executed": "unknown"})
        return Response(200, [TASK] if "?" in path and "/a1" not in path else TASK)

    monkeypatch.setattr("seedcore.status.http_client.ask_coordinator", ask)
    return seen


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        cli.main(list(arguments))
    return int(ended.value.code or 0)


def test_tasks_are_listed(asked: list[tuple[str, str]], capfd: pytest.CaptureFixture[str]) -> None:
    assert run("tasks", "--parked", "--type", "pay", "--since", "1d") == 0
    assert asked == [("GET", "/coordinator/tasks?state=parked%2Cfailed&type=pay&since_s=86400.0&limit=100")]
    lines = capfd.readouterr().out.splitlines()
    assert lines[1].split()[:4] == ["a1", "parked", "pay", "order-17"]
    assert "\x1b[31m" not in lines[1]


def test_tasks_are_listed_for_programs(asked: list[tuple[str, str]], capfd: pytest.CaptureFixture[str]) -> None:
    assert run("tasks", "--json") == 0
    assert json.loads(capfd.readouterr().out)[0]["id"] == "a1"


@pytest.mark.parametrize("verb", ["retry", "done", "discard", "cancel"])
def test_a_decision_is_sent(asked: list[tuple[str, str]], capfd: pytest.CaptureFixture[str], verb: str) -> None:
    assert run("task", verb, "a1") == 0
    assert asked == [("POST", f"/coordinator/tasks/a1/{verb}")]
    assert json.loads(capfd.readouterr().out)["state"] == "done"


def test_a_task_is_shown_once_it_has_ended(asked: list[tuple[str, str]], capfd: pytest.CaptureFixture[str]) -> None:
    assert run("task", "show", "a1", "--wait") == 0
    assert asked == [("GET", "/coordinator/tasks/a1?wait_s=30")]
    assert json.loads(capfd.readouterr().out)["key"] == "order-17"


def test_a_task_that_is_not_there_is_exit_code_1(
    asked: list[tuple[str, str]], capfd: pytest.CaptureFixture[str]
) -> None:
    assert run("task", "show", "missing") == 1
    assert capfd.readouterr().err == "error: there is no durable task 'missing'\n"


def test_a_coordinator_that_does_not_answer_is_exit_code_4(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: Any, **__: Any) -> Response:
        raise ConnectionRefusedError(111, "Connection refused")

    monkeypatch.setattr("seedcore.status.http_client.ask_coordinator", refuse)
    monkeypatch.setattr("seedcore.status.probing.why_silent", lambda *_: ClusterError("absent", "there is none"))
    assert run("tasks") == 4
    assert capfd.readouterr().err == "absent: there is none\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["submit", "pay", "--key", "k"], "--key requires --durable"),
        (["submit", "pay", "--wait"], "--wait requires --durable"),
        (["submit", "--jsonl", "-", "--durable"], "--jsonl excludes --durable"),
        (["tasks", "--state", "lost"], "'lost' is not one of"),
        (["task", "show"], "Missing argument 'ID'"),
    ],
)
def test_wrong_usage_is_told(arguments: list[str], said: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(*arguments) == 2
    assert said in capfd.readouterr().err


class FakeClient:
    """Answers as the client does."""

    answers: list[dict[str, Any]]
    asked: list[dict[str, Any]]

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def submit(self, task: dict[str, Any], **options: Any) -> dict[str, Any]:
        self.asked.append({**task, **options})
        return self.answers.pop(0)


ACCEPTED = {"success": None, "accepted": True, "id": "a1", "state": "ready", "duplicate": False}
DONE = {"success": True, "result": 1, "id": "a1", "state": "done"}


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> type[FakeClient]:
    monkeypatch.setattr("seedcore.client.Client", FakeClient)
    FakeClient.answers, FakeClient.asked = [], []
    return FakeClient


def test_a_durable_task_is_submitted_and_not_waited_for(
    client: type[FakeClient], capfd: pytest.CaptureFixture[str]
) -> None:
    client.answers = [ACCEPTED]
    assert run("submit", "pay", "--durable", "--key", "order-17", "--params", '{"a": 1}') == 0
    assert client.asked == [
        {
            "type": "pay", "params": {"a": 1}, "durable": True, "key": "order-17", "wait": False,
            "timeout_s": 30.0,
        }
    ]  # fmt: skip
    assert json.loads(capfd.readouterr().out) == ACCEPTED


def test_a_durable_task_is_waited_for_with_the_same_key(
    client: type[FakeClient], capfd: pytest.CaptureFixture[str]
) -> None:
    client.answers = [ACCEPTED, ACCEPTED, DONE]
    assert run("submit", "pay", "--durable", "--wait") == 0
    assert len({asked["key"] for asked in client.asked}) == 1
    captured = capfd.readouterr()
    assert json.loads(captured.out) == DONE
    assert captured.err == "accepted as task a1, waiting for its end\n"


def test_a_durable_task_that_is_refused_is_exit_code_1(
    client: type[FakeClient], capfd: pytest.CaptureFixture[str]
) -> None:
    client.answers = [{"success": False, "error": "no such type", "error_type": "UnknownTaskTypeError"}]
    assert run("submit", "pay", "--durable") == 1
    assert capfd.readouterr().err == "UnknownTaskTypeError: no such type\n"


def test_the_states_are_those_of_the_inbox() -> None:
    from seedcore.coordinator.inbox.decisions import State  # noqa: PLC0415 - other tests do without the inbox

    assert set(STATES) == {state.word for state in State}


def test_the_inbox_is_copied_by_the_coordinator(
    asked: list[tuple[str, str]], capfd: pytest.CaptureFixture[str]
) -> None:
    assert run("inbox", "copy") == 0
    assert asked == [("POST", "/coordinator/inbox/copy")]
    assert json.loads(capfd.readouterr().out)["path"] == "/state/inbox/copy.sqlite3"


def test_without_a_coordinator_the_inbox_is_copied_and_restored_by_the_command(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def refuse(*_: Any, **__: Any) -> Any:
        raise ConnectionRefusedError(111, "Connection refused")

    monkeypatch.setattr("seedcore.status.http_client.ask_coordinator", refuse)
    monkeypatch.setattr("seedcore.status.probing.why_silent", lambda *_: ClusterError("absent", "there is none"))
    monkeypatch.setenv("SEEDCORE_STATE_DIR", str(tmp_path))
    assert run("inbox", "copy") == 1
    assert "there is no inbox in" in capfd.readouterr().err

    opened = SqliteStore(tmp_path / "inbox", "test")
    opened.open()
    opened.close()
    assert run("inbox", "copy") == 0
    told = json.loads(capfd.readouterr().out)
    assert run("inbox", "restore", told["path"]) == 0
    assert json.loads(capfd.readouterr().out)["epoch"] == told["epoch"] + 1000
