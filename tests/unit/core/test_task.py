from __future__ import annotations

import json
import math
import pickle
import time
import tracemalloc
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seedcore.core.errors import (
    OrganUnavailableError,
    OverloadedError,
    PayloadTooLargeError,
    TaskError,
    UnknownTaskTypeError,
)
from seedcore.core.task import (
    BUILTIN_TASK_TYPES,
    MAX_DEPTH,
    MAX_NAME_CHARS,
    Task,
    describe,
    failure,
    is_plain,
    payload_bytes,
    task_type_of,
)


class Anything:
    """Has every attribute that is looked up."""

    def __getattr__(self, name: str) -> object:
        return name


def test_the_built_in_types_are_those_of_the_coordinator() -> None:
    from seedcore.coordinator.builtin_tasks import BUILTINS  # noqa: PLC0415 - imports Ray, which the other tests do not need

    assert set(BUILTINS) == BUILTIN_TASK_TYPES


def test_a_type_is_enough() -> None:
    task = Task.parse({"type": " Think "})
    assert task == Task(type="think")
    assert (task.params, task.description, task.domain, task.drift_score) == ({}, "", None, 0.0)


def test_none_means_the_default_of_every_optional_key() -> None:
    keys = ("params", "description", "domain", "drift_score", "id", "timeout_s", "task_type")
    assert Task.parse({"type": "t", **dict.fromkeys(keys)}) == Task(type="t")


def test_every_key_arrives_and_unknown_ones_are_ignored() -> None:
    raw = {
        "type": None,
        "task_type": "T",
        "params": {"a": 1},
        "description": "d",
        "domain": " Law ",
        "drift_score": 1,
        "id": "7",
        "timeout_s": 2,
        "more": object(),
    }
    task = Task.parse(MappingProxyType(raw))
    assert task == Task(
        type="t", params={"a": 1}, description="d", domain="law", drift_score=1.0, id="7", timeout_s=2.0
    )
    assert Task.parse(task.to_dict()) == task
    assert pickle.loads(pickle.dumps(task)) == task


def test_a_domain_of_blanks_is_none() -> None:
    assert Task.parse({"type": "t", "domain": "  "}).domain is None


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (None, "a task must be a mapping with a 'type', got NoneType"),
        ([], "a task must be a mapping with a 'type', got list"),
        ("x", "a task must be a mapping with a 'type', got str"),
        ({}, f"task key 'type' is missing, expected a string of 1 to {MAX_NAME_CHARS} characters"),
        ({"type": 5}, f"task key 'type' is 5, expected a string of 1 to {MAX_NAME_CHARS} characters"),
        ({"type": " "}, f"task key 'type' is ' ', expected a string of 1 to {MAX_NAME_CHARS} characters"),
        (
            {"type": "x" * 201},
            "task key 'type' is 'xxxxxxxxxxxx...xxxxxxxxxxxxx', expected a string of 1 to 200 characters",
        ),
        ({"type": "t", "params": [1]}, "task key 'params' is [1], expected a mapping"),
        ({"type": "t", "params": {1: 2}}, "task key 'params' has the key 1, expected strings only"),
        ({"type": "t", "description": 1}, "task key 'description' is 1, expected a string"),
        ({"type": "t", "domain": 1}, "task key 'domain' is 1, expected a string"),
        ({"type": "t", "id": 1}, "task key 'id' is 1, expected a string"),
        ({"type": "t", "drift_score": "1"}, "task key 'drift_score' is '1', expected a finite number"),
        ({"type": "t", "drift_score": True}, "task key 'drift_score' is True, expected a finite number"),
        ({"type": "t", "timeout_s": math.nan}, "task key 'timeout_s' is nan, expected a finite number"),
        ({"type": "t", "timeout_s": math.inf}, "task key 'timeout_s' is inf, expected a finite number"),
        ({"type": "t", "timeout_s": 0}, "task key 'timeout_s' is 0.0, expected a number of seconds above 0"),
    ],
)
def test_a_task_of_another_shape_is_refused_with_the_reason(raw: Any, message: str) -> None:
    with pytest.raises(TaskError) as caught:
        Task.parse(raw)
    assert str(caught.value) == message


@pytest.mark.parametrize("key", ["drift_score", "timeout_s"])
def test_an_integer_too_large_for_a_float_is_refused(key: str) -> None:
    with pytest.raises(TaskError, match=f"task key '{key}' is .*, expected a finite number"):
        Task.parse({"type": "t", key: 10**400})


def test_a_domain_that_is_too_long_is_refused() -> None:
    with pytest.raises(TaskError, match=r"task key 'domain' is .* expected up to 200 characters"):
        Task.parse({"type": "t", "domain": "x" * 201})


@pytest.mark.parametrize(
    "payload",
    [
        "x" * 2000,
        b"x" * 2000,
        bytearray(2000),
        "\u20ac" * 700,
        ["x"] * 200,
        {str(n): n for n in range(200)},
        set(range(200)),
        memoryview(bytes(2000)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_payload_above_the_limit_is_refused(payload: Any) -> None:
    with pytest.raises(PayloadTooLargeError, match="larger than 1000 bytes"):
        Task.parse({"type": "t", "params": {"x": payload}}, max_bytes=1000)


def test_the_size_is_checked_wherever_the_payload_hides() -> None:
    for raw in ({"type": "x" * 2000}, {"type": ["x" * 2000]}, {"type": "t", "more": "x" * 2000}, {"x" * 2000: 1}):
        with pytest.raises(PayloadTooLargeError):
            Task.parse(raw, max_bytes=1000)


def test_a_loop_of_containers_is_refused() -> None:
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(PayloadTooLargeError, match=f"nested deeper than {MAX_DEPTH} levels"):
        Task.parse({"type": "t", "params": {"x": loop}})


def test_measuring_a_huge_payload_is_quick_and_small() -> None:
    millions = [0] * 5_000_000
    tracemalloc.start()
    begun = time.process_time()
    try:
        assert payload_bytes({"x": [millions] * 10}, limit=10_000_000) > 10_000_000
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1_000_000
    assert time.process_time() - begun < 5


def test_an_object_that_lies_about_its_size_takes_nothing_off() -> None:
    class Liar:
        nbytes = -(10**9)

    assert payload_bytes([Liar(), "x" * 2000], limit=1000) > 1000


PAYLOADS = st.recursive(
    st.none() | st.integers() | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(PAYLOADS)
def test_the_estimate_is_no_less_than_the_text_in_it(value: Any) -> None:
    def text(part: Any) -> int:
        if isinstance(part, str):
            return len(part.encode("utf-8", "surrogatepass"))
        if isinstance(part, bytes):
            return len(part)
        if isinstance(part, Mapping):
            return sum(text(key) + text(entry) for key, entry in part.items())
        return sum(map(text, part)) if isinstance(part, list) else 0

    assert payload_bytes(value, limit=10**9) >= text(value)


def test_a_message_about_a_large_value_is_short() -> None:
    with pytest.raises(TaskError) as caught:
        Task.parse({"type": "t", "params": list(range(100_000))})
    assert len(str(caught.value)) < 200


class Hostile(Mapping[str, Any]):
    def __getitem__(self, key: str) -> Any:
        raise SystemExit(key)

    def __iter__(self) -> Iterator[str]:
        raise SystemExit

    def __len__(self) -> int:
        return 1


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ({"type": "Think"}, "Think"),
        ({"task_type": "Think"}, "Think"),
        ({"type": ""}, "unknown"),
        ({"type": 5}, "unknown"),
        ({"type": "x" * 1000}, "x" * MAX_NAME_CHARS),
        (None, "unknown"),
        ([], "unknown"),
        (Hostile(), "unknown"),
    ],
)
def test_the_type_of_anything_can_be_told(raw: Any, expected: str) -> None:
    assert task_type_of(raw) == expected


class SilentError(Exception):
    def __str__(self) -> str:
        raise SystemExit("even so")


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ValueError("why"), "why"),
        (ValueError(), "ValueError"),
        (SilentError(), "SilentError"),
        (ValueError("x" * 10_000), "x" * 4000),
        (FileNotFoundError(2, "No such file", "\udcff"), "[Errno 2] No such file: '\\udcff'"),
        (ValueError("\ud800"), "\\ud800"),
    ],
)
def test_the_text_of_an_error_is_never_empty_and_can_be_encoded(error: BaseException, text: str) -> None:
    assert describe(error) == text
    assert describe(error).encode()


def test_a_failure_has_the_documented_shape() -> None:
    assert failure(ValueError("no"), task_type="t", organ_id="o") == {
        "success": False,
        "error": "no",
        "error_type": "ValueError",
        "task_type": "t",
        "executed": "unknown",
        "organ_id": "o",
    }
    assert failure("no") == {
        "success": False,
        "error": "no",
        "error_type": "TaskError",
        "task_type": "unknown",
        "executed": "no",
    }
    assert failure("\ud800")["error"].encode()


@pytest.mark.parametrize(
    ("error", "executed"),
    [
        (OverloadedError("full"), "no"),
        (UnknownTaskTypeError("what?"), "no"),
        (OrganUnavailableError("not there"), "no"),
        (OrganUnavailableError("died with the task", executed="unknown"), "unknown"),
        (TimeoutError("late"), "unknown"),
    ],
)
def test_a_failure_says_whether_anything_was_done(error: Exception, executed: str) -> None:
    assert failure(error)["executed"] == executed


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.tuples(inner),
    max_leaves=10,
)


@given(PLAIN)
def test_plain_data_is_plain(value: Any) -> None:
    assert is_plain(value)


def test_what_is_not_plain() -> None:
    class Text(str):
        __slots__ = ()

    loop: list[Any] = []
    loop.append(loop)
    for value in (object(), Text("x"), {1, 2}, [Anything()], {("a",): 1}, loop, MappingProxyType({})):
        assert not is_plain(value)


@given(st.dictionaries(st.text(max_size=5) | st.sampled_from(["type", "params", "domain", "timeout_s"]), PLAIN))
def test_a_task_is_parsed_or_refused_and_then_travels_as_json(raw: dict[str, Any]) -> None:
    try:
        task = Task.parse(raw)
    except TaskError:
        return
    assert Task.parse(task.to_dict()) == task or "nan" in repr(task)
    json.dumps(task.to_dict(), default=repr)


def test_what_an_agent_calls_its_error_has_a_bound() -> None:
    answer = failure("it failed", error_type="E" * 1_000_000 + "\ud800")

    assert answer["error_type"] == "E" * 100
