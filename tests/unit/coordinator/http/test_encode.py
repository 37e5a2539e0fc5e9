"""Test the encoding of results: equal to the json module where it accepts a value, and marked where it does not."""

from __future__ import annotations

import asyncio
import datetime as dt
import decimal
import json
import math
import uuid
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from seedcore.coordinator.http import encode as encoding
from seedcore.coordinator.http.encode import UnserializableResultError, encode

KEYS = ["1", "null", "false", "2.5", "NaN"]
TREES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=30,
)


@given(TREES)
def test_plain_data_survives(value: Any) -> None:
    assert json.loads(_encode(value)) == value


@pytest.mark.parametrize(
    ("value", "seen"),
    [
        ((1, [2, ()]), [1, [2, []]]),
        (frozenset({7}), [7]),
        ({1: "a", None: "b", False: "c", 2.5: "d", math.nan: "e"}, dict(zip(KEYS, "abcde", strict=True))),
        (bytearray(b"abc"), {"base64": "YWJj"}),
        (memoryview(b""), {"base64": ""}),
        (dt.datetime(2026, 1, 2, 3, tzinfo=dt.UTC), "2026-01-02T03:00:00+00:00"),
        (dt.date(2026, 1, 2), "2026-01-02"),
        (decimal.Decimal("1.10"), "1.10"),
        (uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (PurePosixPath("/a"), "/a"),
        ('\ud800 \u2028 \x00 "', '\ud800 \u2028 \x00 "'),
        (2**80, 2**80),
        ("", ""),
        ({}, {}),
    ],
)
def test_what_json_lacks_has_a_documented_form(value: Any, seen: Any) -> None:
    assert json.loads(_encode(value)) == seen


def test_numpy_values_are_the_python_values_they_stand_for() -> None:
    value = {"a": np.arange(6).reshape(2, 3), "b": np.float32(0.5), "c": np.int64(3), "d": np.array(1.5)}
    assert json.loads(_encode(value)) == {"a": [[0, 1, 2], [3, 4, 5]], "b": 0.5, "c": 3, "d": 1.5}
    with pytest.raises(UnserializableResultError, match="longdouble"):
        _encode(np.longdouble(1))


class _Hostile:
    def __repr__(self) -> str:
        raise AssertionError("repr is user code")


class _HostileDict(dict[str, int]):
    def items(self) -> Any:
        raise AssertionError("items is user code")


def test_methods_of_subclasses_are_not_called() -> None:
    assert json.loads(_encode([_HostileDict(a=1)])) == [{"a": 1}]


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({"a": [0, {"b": _Hostile()}]}, r"at \.a\[1\]\.b: .*_Hostile"),
        (lambda: 0, "at the value itself: .*function"),
        ({(1, 2): 3}, "a key is a tuple"),
        ([10**5000], r"at \[0\]: .*int"),
    ],
)
def test_anything_else_is_refused_with_its_place(value: Any, said: str) -> None:
    with pytest.raises(UnserializableResultError, match=said):
        _encode(value)


def test_loops_and_bombs_end() -> None:
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(UnserializableResultError, match="deeper"):
        _encode(loop)
    with pytest.raises(UnserializableResultError, match="deeper"):
        _encode(_nested(5000))
    assert json.loads(_encode(_nested(150))) == _nested(150)


def test_what_is_small_in_memory_and_large_as_text_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoding, "MAX_RESPONSE_BYTES", 100_000)
    bomb: Any = "x" * 100
    for _ in range(9):
        bomb = [bomb] * 10
    with pytest.raises(UnserializableResultError, match="larger"):
        _encode(bomb)


@pytest.mark.parametrize("size", [0, 1, encoding._SMALL_CHARS - 1, encoding._SMALL_CHARS, 1_000_001])
def test_long_texts_and_bytes_are_whole(size: int) -> None:
    text = ('"\u00e9\\\n' * size)[:size]
    assert json.loads(_encode({"a": text})) == {"a": text}
    found = json.loads(_encode(b"\x01" * size))["base64"]
    assert len(found) == (size + 2) // 3 * 4
    assert "=" not in found[:-2]


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(TREES, min_size=1, max_size=3), st.integers(1, 500))
def test_large_data_survives_in_slices(some: Any, at_once: int) -> None:
    value = {"rows": some * 100, "wide": {"a": some, "b": some}}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(encoding, "_SMALL_ENTRIES", 3)
        patch.setattr(encoding, "_PIECE_CHARS", at_once)
        assert json.loads(_encode(value)) == value


def test_a_place_in_a_large_list_is_named() -> None:
    rows: list[Any] = [{"text": "x" * 100, "nan": math.nan} for _ in range(5000)]
    assert json.loads(_encode(rows))[4999]["nan"] == "NaN"
    rows[4321]["handle"] = object()
    with pytest.raises(UnserializableResultError, match=r"at \[4321\]\.handle: JSON cannot represent a object"):
        _encode(rows)


def _encode(value: Any) -> bytes:
    return asyncio.run(encode(value))


def _nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value
