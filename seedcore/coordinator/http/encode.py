"""Encode any result of an agent as JSON.

:mod:`json` encodes plain data in C. Large data is encoded in slices, so that the event loop is not blocked. JSON has
fewer types than Python; other values are encoded as follows:

=====================================  ==============================================
NaN, infinities                        the strings "NaN", "Infinity", "-Infinity"
bytes, bytearray, memoryview           {"base64": "..."}
tuple, set, frozenset, NumPy array     array (a set has no order)
datetime, date, time                   ISO 8601 string
Decimal, Fraction, UUID, path          string
NumPy scalar                           the Python value it stands for
key that is a number, bool or None     string, as ``json`` does
anything else                          UnserializableResultError, which names the place
=====================================  ==============================================
"""

from __future__ import annotations

import asyncio
import base64
import datetime as dt
import decimal
import fractions
import json
import math
import pathlib
import time
import uuid
from collections.abc import Iterator
from typing import Any

from pydantic_core import to_json

from seedcore.core.errors import SeedCoreError

MAX_RESPONSE_BYTES = 128 * 1024 * 1024
# Deeper than any useful document, and within the limits of common parsers; it also ends a cycle.
MAX_RESPONSE_DEPTH = 200
# A value with at most this many entries, and no longer text, is encoded in one call.
_SMALL_ENTRIES = 100
_SMALL_CHARS = 64 * 1024
# A large list is encoded in slices of about this length.
_PIECE_CHARS = 64 * 1024
_SLICE_S = 0.005
_encoder = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))


class UnserializableResultError(SeedCoreError):
    """A result contains a value that JSON cannot represent, or is too large or too deep."""


def encode_own(value: Any) -> bytes:
    """Return the Coordinator's own plain data as JSON in UTF-8."""
    return to_json(value, inf_nan_mode="strings")


async def encode(value: Any) -> bytes:
    """Return ``value`` as JSON in UTF-8.

    Raises:
        UnserializableResultError: JSON cannot represent a value in it; the message names its place.
    """
    if _is_small(value):
        return _bytes(_text(value, ""))
    body = bytearray()
    began = time.monotonic()
    for piece in _pieces(value, "", 0):
        body += _bytes(piece)
        if len(body) > MAX_RESPONSE_BYTES:
            raise UnserializableResultError(f"as JSON it is larger than {MAX_RESPONSE_BYTES} bytes")
        if time.monotonic() - began > _SLICE_S:
            await asyncio.sleep(0)
            began = time.monotonic()
    return bytes(body)


def _is_small(value: Any) -> bool:
    """Return whether a value is certainly small, after looking at some entries only."""
    entries = 0
    stack: list[Any] = [(value,)]
    while stack:
        items = stack.pop()
        entries += len(items)
        if entries > _SMALL_ENTRIES:
            return False
        for item in items:
            kind = type(item)
            if kind is dict:
                stack.append(item.values())
            elif kind is list or kind is tuple:
                stack.append(item)
            elif kind is str and len(item) > _SMALL_CHARS:
                return False
    return True


def _bytes(text: str) -> bytes:
    # A lone surrogate has no UTF-8; its backslash escape is also its JSON escape, and it can only be inside a string.
    return text.encode("utf-8", "backslashreplace")


def _pieces(value: Any, where: str, depth: int) -> Iterator[str]:
    """Yield a large document in pieces that each take only a moment."""
    if type(value) is list and not _is_small(value):
        _check_depth(depth)
        yield from _list_pieces(value, where, depth)
    elif type(value) is dict and not _is_small(value):
        _check_depth(depth)
        yield "{"
        for number, (key, item) in enumerate(value.items()):
            name = _key(key)
            yield f"{',' if number else ''}{_encoder.encode(name)}:"
            yield from _pieces(item, f"{where}.{name[:80]}", depth + 1)
        yield "}"
    else:
        yield _text(value, where)


def _list_pieces(value: list[Any], where: str, depth: int) -> Iterator[str]:
    yield "["
    start, many = 0, 1
    while start < len(value):
        if start:
            yield ","
        if many == 1:
            # Encode the first item, and every large one, separately.
            length = 0
            for piece in _pieces(value[start], f"{where}[{start}]", depth + 1):
                length += len(piece)
                yield piece
        else:
            text = _text(value[start : start + many], where, start)[1:-1]
            length = len(text)
            yield text
        start += many
        many = max(1, min(2 * many, many * _PIECE_CHARS // (length + 1)))
    yield "]"


def _text(value: Any, where: str, start: int = 0) -> str:
    try:
        return _encoder.encode(value)
    except Exception:
        # Not all values are plain: look at each one, and name the place of a value without a JSON form.
        return _encoder.encode(_plain(value, where, 0, start))


def _plain(value: Any, where: str, depth: int, start: int = 0) -> Any:
    """Convert a value to JSON types; messages count the items of ``value`` from ``start``."""
    _check_depth(depth)
    # Use the iterators of the base classes: those of a subclass are user code.
    if isinstance(value, dict):
        named = ((_key(key), item) for key, item in dict.items(value))
        return {key: _plain(item, f"{where}.{key[:80]}", depth + 1) for key, item in named}
    for kind in (list, tuple, set, frozenset):
        if isinstance(value, kind):
            iterate: Any = kind.__iter__
            items = enumerate(iterate(value), start)
            return [_plain(item, f"{where}[{index}]", depth + 1) for index, item in items]
    if _is_numpy(value) and value.ndim:
        return _plain(value.tolist(), where, depth)
    try:
        return _scalar(value)
    except Exception as error:
        # User classes may define str() and isinstance() as they like; the place is reliable.
        raise UnserializableResultError(f"at {where or 'the value itself'}: {_explain(value, error)}") from error


def _check_depth(depth: int) -> None:
    if depth >= MAX_RESPONSE_DEPTH:
        raise UnserializableResultError(f"it is nested deeper than {MAX_RESPONSE_DEPTH} levels")


def _scalar(item: Any) -> Any:  # noqa: PLR0911 - a table
    if item is None or isinstance(item, bool | str):
        return item
    if isinstance(item, int):
        int.__repr__(item)  # raises for an integer with too many digits
        return item
    if isinstance(item, float):
        return item if math.isfinite(item) else "NaN" if math.isnan(item) else f"{'' if item > 0 else '-'}Infinity"
    if isinstance(item, bytes | bytearray | memoryview):
        return {"base64": base64.b64encode(item).decode("ascii")}
    if isinstance(item, dt.date | dt.time):
        return item.isoformat()
    if isinstance(item, decimal.Decimal | fractions.Fraction | uuid.UUID | pathlib.PurePath):
        return str(item)
    if _is_numpy(item) and not _is_numpy(value := item.item()):
        return _scalar(value)
    raise TypeError


def _key(key: Any) -> str:
    if isinstance(key, str):
        return key
    if key is None or isinstance(key, bool | int | float):
        return str(_encoder.encode(_scalar(key))).strip('"')
    raise UnserializableResultError(f"a key is a {_name(key)}, expected a string")


def _is_numpy(item: Any) -> bool:
    return type(item).__module__ == "numpy" and hasattr(item, "item") and hasattr(item, "ndim")


def _explain(item: Any, error: Exception) -> str:
    if isinstance(error, UnserializableResultError | ValueError | OverflowError):
        return f"a {_name(item)} cannot be written: {error}"
    return f"JSON cannot represent a {_name(item)}"


def _name(item: Any) -> str:
    kind = type(item)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
