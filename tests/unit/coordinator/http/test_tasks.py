"""Test POST /coordinator/tasks from the point of view of an API user."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from seedcore.coordinator.http import body
from seedcore.core.task import failure

if TYPE_CHECKING:
    from tests.unit.coordinator.http.conftest import Serve, Until, View

PATH = "/coordinator/tasks"
JSON = {"Content-Type": "application/json"}
MIB = 1024 * 1024


async def test_a_task_arrives_and_its_answer_comes_back(client: httpx.AsyncClient, view: View) -> None:
    task = {"type": "echo", "params": {"text": "gr\u00fc\u00df dich \U0001f331", "n": [1, 2.5, None, True]}, "id": "a"}
    answer = await client.post(PATH, json=task)
    assert (answer.status_code, answer.json()) == (200, view.answer)
    assert answer.headers["content-type"] == "application/json"
    assert view.tasks == [task]


@pytest.mark.parametrize(
    ("error_type", "by_agent", "code"),
    [
        ("TaskError", False, 400),
        ("UnknownTaskTypeError", False, 404),
        ("PayloadTooLargeError", False, 413),
        ("OverloadedError", False, 429),
        ("OrganUnavailableError", False, 503),
        ("TimeoutError", False, 504),
        ("TimeoutError", True, 504),
        ("RayTaskError", False, 500),
        ("ValueError", True, 500),
        # An exception of an agent is the agent's failure, whatever its type.
        ("TaskError", True, 500),
        ("OverloadedError", True, 500),
        ("UnknownTaskTypeError", True, 500),
    ],
)
async def test_what_went_wrong_shows_in_the_status_code(
    client: httpx.AsyncClient, view: View, error_type: str, *, by_agent: bool, code: int
) -> None:
    extra: dict[str, Any] = {"agent_id": "a"} if by_agent else {}
    view.answer = failure("it went wrong", error_type=error_type, task_type="echo", **extra)
    answer = await client.post(PATH, json={"type": "echo"})
    assert (answer.status_code, answer.json()) == (code, view.answer)
    assert ("retry-after" in answer.headers) == (code == 429)


@pytest.mark.parametrize(("said", "sent"), [(0.2, "1"), (7.2, "8"), (None, "1"), (math.inf, "1"), ("soon", "1")])
async def test_retry_after_is_what_the_organ_said(client: httpx.AsyncClient, view: View, said: Any, sent: str) -> None:
    view.answer = failure("full", error_type="OverloadedError", retry_after_s=said)
    answer = await client.post(PATH, json={"type": "echo"})
    assert (answer.status_code, answer.headers["retry-after"]) == (429, sent)


async def test_a_task_while_initializing_is_503_with_retry_after(client: httpx.AsyncClient, view: View) -> None:
    view.initializing()
    view.answer = failure("the organism is initializing", error_type="OrganUnavailableError")
    answer = await client.post(PATH, json={"type": "echo"})
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"nonsense",
        b'{"type": "echo"} trailing',
        b'{"type": NaN}',
        b'{"type": -Infinity}',
        b'{"type": "\xff"}',
        rb'{"type": "\ud800"}',
        b"\xef\xbb\xbf{}",
        b"[" * 101 + b"]" * 101,
        b'{"a":' * 5000 + b"1" + b"}" * 5000,
        b"[" * 1_000_000,
        b"1" * 100_000,
    ],
)
async def test_what_is_not_json_is_400(client: httpx.AsyncClient, view: View, text: bytes) -> None:
    answer = await client.post(PATH, content=text, headers=JSON)
    assert answer.status_code == 400
    _assert_failure(answer, "TaskError")
    assert not view.tasks
    assert (await client.get("/livez")).status_code == 200


async def test_brackets_in_strings_are_text(client: httpx.AsyncClient, view: View) -> None:
    task = {"type": "echo", "params": {"text": '[{"\\' * 100_000, "ends": ["\\", '\\"', '"']}}
    answer = await client.post(PATH, content=json.dumps(task).encode(), headers=JSON)
    assert answer.status_code == 200
    assert view.tasks == [{**task, "id": answer.headers["x-request-id"]}]


async def test_anything_that_is_json_is_for_the_coordinator_to_judge(client: httpx.AsyncClient, view: View) -> None:
    values: list[Any] = [None, [], 1, "text", {"id": "mine"}]
    for value in values:
        await client.post(PATH, content=json.dumps(value), headers=JSON)
    assert view.tasks == values


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({"Content-Type": "application/json; charset=utf-8"}, 200),
        ({"Content-Type": "application/vnd.task+json"}, 200),
        ({"Content-Type": "text/plain"}, 415),
        ({"Content-Type": "application/x-www-form-urlencoded"}, 415),
        ({}, 415),
        ({**JSON, "Content-Encoding": "gzip"}, 415),
    ],
)
async def test_only_plain_json_is_taken(client: httpx.AsyncClient, headers: dict[str, str], code: int) -> None:
    answer = await client.post(PATH, content=b'{"type": "echo"}', headers=headers)
    assert answer.status_code == code
    assert answer.json()["success"] is (code == 200)


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_above_the_limit_is_413_and_never_held(
    client: httpx.AsyncClient, view: View, monkeypatch: pytest.MonkeyPatch, *, chunked: bool
) -> None:
    longest = 0
    feed = body.Gauge.feed

    def spy(self: body.Gauge, chunk: bytes) -> None:
        nonlocal longest
        longest += len(chunk)
        feed(self, chunk)

    monkeypatch.setattr(body.Gauge, "feed", spy)
    content = _text_of(20 * MIB)
    answer = await client.post(PATH, content=_in_chunks(content) if chunked else content, headers=JSON)
    assert answer.status_code == 413
    _assert_failure(answer, "PayloadTooLargeError")
    assert longest <= body.MAX_BODY_BYTES
    assert not view.tasks
    # The server discarded the rest of the body, and the connection is still usable.
    assert (await client.post(PATH, json={"type": "echo"})).status_code == 200


async def test_a_large_body_below_the_limit_arrives(client: httpx.AsyncClient, view: View) -> None:
    answer = await client.post(PATH, content=_in_chunks(_text_of(15 * MIB)), headers=JSON)
    assert answer.status_code == 200
    assert len(view.tasks[0]["params"]["text"]) > 14 * MIB


async def test_too_many_values_are_413(client: httpx.AsyncClient) -> None:
    answer = await client.post(PATH, content=b"[" + b"[]," * (4 * MIB) + b"[]]", headers=JSON)
    assert answer.status_code == 413
    _assert_failure(answer, "PayloadTooLargeError")


@pytest.mark.loop_limit(1.0)  # six MiB are parsed at once
async def test_the_loop_turns_while_a_huge_nested_body_comes_in(serve: Serve) -> None:
    client = await serve()
    finished = asyncio.Event()

    async def huge() -> httpx.Response:
        content = (
            b'{"type":"echo","params":{"a":[' + b'{"b":[1]},' * 60_000 + b'1],"text":"' + b"x" * (6 * MIB) + b'"}}'
        )
        answer = await client.post(PATH, content=_in_chunks(content), headers=JSON)
        finished.set()
        return answer

    post = asyncio.create_task(huge())
    answered = 0
    while not finished.is_set():
        assert (await client.get("/livez")).status_code == 200
        answered += 1
    assert (await post).status_code == 200
    assert answered > 5


async def test_what_all_bodies_hold_together_is_bounded(
    client: httpx.AsyncClient, view: View, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(body, "MAX_BODIES_BYTES", 3 * MIB)
    view.gate.clear()
    first = asyncio.create_task(client.post(PATH, content=_text_of(2 * MIB), headers=JSON))
    await until(lambda: view.tasks)
    refused = await client.post(PATH, content=_text_of(2 * MIB), headers=JSON)
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
    view.gate.set()
    assert (await first).status_code == 200
    # The memory is released, also by refused requests.
    assert (await client.post(PATH, content=_text_of(2 * MIB), headers=JSON)).status_code == 200


async def test_a_result_without_json_is_an_error_that_names_the_place(client: httpx.AsyncClient, view: View) -> None:
    view.answer = {**view.answer, "result": {"rows": [1, {"handle": object()}]}}
    answer = await client.post(PATH, json={"type": "Echo "})
    assert answer.status_code == 500
    _assert_failure(answer, "UnserializableResultError")
    assert "result.rows[1].handle" in answer.json()["error"]
    assert answer.json()["agent_id"] == "utility_organ_1_agent_0"


async def test_infinite_results_are_valid_json(client: httpx.AsyncClient, view: View) -> None:
    view.answer = {**view.answer, "result": [math.nan, math.inf, -math.inf, {1}, b"\x00\xff", "\ud800"]}
    answer = await client.post(PATH, json={"type": "echo"})
    assert answer.status_code == 200
    strict = json.loads(answer.content, parse_constant=_no_constant)
    assert strict["result"] == ["NaN", "Infinity", "-Infinity", [1], {"base64": "AP8="}, "\ud800"]


async def test_the_loop_turns_while_a_large_result_goes_out(
    client: httpx.AsyncClient, view: View, until: Until
) -> None:
    view.answer = {**view.answer, "result": [[i, str(i)] for i in range(600_000)]}
    post = asyncio.create_task(client.post(PATH, json={"type": "echo"}))
    await until(lambda: view.tasks)
    answered = 0
    while not post.done():
        await client.get("/livez")
        answered += 1
    assert (await post).json()["result"] == view.answer["result"]
    assert answered > 5


async def test_a_view_that_raises_is_500_and_says_nothing_about_itself(client: httpx.AsyncClient, view: View) -> None:
    for error in (RuntimeError("inside"), asyncio.CancelledError("inside")):
        view.answer = error
        answer = await client.post(PATH, json={"type": "echo"})
        assert answer.status_code == 500
        _assert_failure(answer, "InternalError")
        assert "inside" not in answer.text


@pytest.mark.parametrize(
    ("host", "origin", "code"),
    [
        (None, "http://evil.example", 403),
        ("evil.example:8700", "http://evil.example:8700", 403),
        ("127.0.0.1:1", "http://127.0.0.1:1", 200),
        ("localhost:1", "http://localhost:1", 200),
        (None, None, 200),
        (None, "null", 403),
    ],
)
async def test_without_authentication_no_foreign_page_may_ask(
    serve: Serve, view: View, host: str | None, origin: str | None, code: int
) -> None:
    client = await serve(token=None)
    headers = {name: value for name, value in (("Host", host), ("Origin", origin)) if value is not None}
    answer = await client.post(PATH, json={"type": "echo"}, headers=headers)
    assert answer.status_code == code
    assert len(view.tasks) == (code == 200)
    for path in ("/coordinator/status", "/metrics", "/"):
        assert (await client.get(path, headers=headers)).status_code == code
    assert (await client.get("/livez", headers=headers)).status_code == 200


async def test_a_name_that_somebody_points_here_reads_nothing(serve: Serve, token: str) -> None:
    rebound = {"Host": "evil.example:8700"}
    answer = await (await serve(token=None)).get("/coordinator/status", headers=rebound)
    assert answer.status_code == 403
    _assert_failure(answer, "Forbidden")
    # A client with the token may use any host name.
    assert (await (await serve(token=token)).get("/coordinator/status", headers=rebound)).status_code == 200


def _assert_failure(answer: httpx.Response, error_type: str) -> None:
    found = answer.json()
    assert (found["success"], found["error_type"]) == (False, error_type)
    assert found["error"]
    assert found["task_type"]
    assert "Traceback" not in answer.text


def _text_of(size: int) -> bytes:
    return b'{"type":"echo","params":{"text":"' + b"x" * size + b'"}}'


async def _in_chunks(content: bytes) -> AsyncIterator[bytes]:
    for start in _starts(content):
        yield content[start : start + 50_000]


def _starts(content: bytes) -> Iterator[int]:
    return iter(range(0, len(content), 50_000))


def _no_constant(name: str) -> None:
    raise AssertionError(f"{name} is not JSON")


LINES = {"Accept": "application/x-ndjson"}


async def test_who_accepts_lines_gets_each_answer_as_it_comes(client: httpx.AsyncClient, view: View) -> None:
    batch = {"type": "execute_many", "params": {"tasks": [{"type": "echo"}, {"type": "echo"}]}}
    answer = await client.post(PATH, json=batch, headers=LINES)

    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/x-ndjson")
    found = [json.loads(line) for line in answer.text.splitlines()]
    assert sorted(line["index"] for line in found) == [0, 1]
    assert [line["answer"] for line in found] == [view.answer, view.answer]


@pytest.mark.parametrize("tasks", [None, {}, [{"type": "execute_many"}], [{}] * 1001])
async def test_a_batch_that_is_none_is_refused_whole(client: httpx.AsyncClient, view: View, tasks: Any) -> None:
    answer = await client.post(PATH, json={"type": "execute_many", "params": {"tasks": tasks}}, headers=LINES)

    assert answer.status_code == 400
    _assert_failure(answer, "TaskError")
    assert not view.tasks


async def test_a_line_holds_one_fault_and_the_others_go_on(client: httpx.AsyncClient, view: View) -> None:
    for bad in (RuntimeError("inside"), {**view.answer, "result": object()}):
        view.answer = bad
        answer = await client.post(PATH, json={"type": "echo"}, headers=LINES)
        told = json.loads(answer.text)["answer"]
        assert told["error_type"] in {"InternalError", "UnserializableResultError"}
        assert "inside" not in answer.text
