"""JSON out of whatever an agent returned, without blocking the loop.

``json.dumps`` of a large result is one call into C that nothing can interrupt, it recurses, and it writes ``NaN``,
which is not JSON. This encoder walks with a stack of its own and lets the loop run every few milliseconds.

JSON has fewer types than Python; what it lacks is written like this:

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
import math
import pathlib
import time
import uuid
from collections.abc import Iterator
from json.encoder import encode_basestring
from typing import Any

from seedcore.errors import SeedCoreError

MAX_RESPONSE_BYTES = 128 * 1024 * 1024
# Deeper than any document meant to be read, and within what common parsers take; a loop of containers ends here too.
MAX_RESPONSE_DEPTH = 200
_SLICE_S = 0.005
_PIECES_PER_LOOK = 256
# A multiple of 3, so that the base64 of slices can be joined.
_TEXT_SLICE = 3 * 256 * 1024


class UnserializableResultError(SeedCoreError):
    """A result holds something that JSON cannot carry, or is too large or too deep."""


async def encode(value: Any) -> bytes:
    """Return ``value`` as JSON in UTF-8, letting the loop run every few milliseconds.

    Raises:
        UnserializableResultError: Something in it has no form in JSON; the message says what and where.
    """
    body = bytearray()
    pieces: list[str] = []
    began = time.monotonic()
    for piece in _pieces(value):
        pieces.append(piece)
        if len(pieces) < _PIECES_PER_LOOK and len(piece) < _TEXT_SLICE // 2:
            continue
        _flush(pieces, body)
        if time.monotonic() - began > _SLICE_S:
            await asyncio.sleep(0)
            began = time.monotonic()
    _flush(pieces, body)
    return bytes(body)


def _flush(pieces: list[str], body: bytearray) -> None:
    # A lone surrogate has no UTF-8; its backslash escape is also its JSON escape, and it can only be inside a string.
    body += "".join(pieces).encode("utf-8", "backslashreplace")
    pieces.clear()
    if len(body) > MAX_RESPONSE_BYTES:
        raise UnserializableResultError(f"as JSON it is larger than the {MAX_RESPONSE_BYTES} bytes allowed")


def _pieces(root: Any) -> Iterator[str]:
    """Yield the document in pieces; the stack holds one (iterator, closing bracket, key) for each open container."""
    stack: list[tuple[Iterator[Any], str]] = []
    path: list[str] = []
    item = root
    while True:
        opened = _open(item)
        if opened is not None:
            if len(stack) >= MAX_RESPONSE_DEPTH:
                raise UnserializableResultError(f"it is nested deeper than {MAX_RESPONSE_DEPTH} levels")
            yield "{" if opened[1] == "}" else "["
            stack.append(opened)
            path.append("")
        else:
            try:
                yield from _scalar(item)
            except Exception as error:
                # User classes have their own ideas of str() and isinstance(); the place is what helps.
                where = "".join(path) or "the value itself"
                raise UnserializableResultError(f"at {where}: {_explain(item, error)}") from error
        while stack:
            iterator, closing = stack[-1]
            try:
                entry = next(iterator)
            except StopIteration:
                yield closing
                stack.pop()
                path.pop()
                continue
            comma = "," if path[-1] else ""
            if closing == "}":
                key = _key(entry[0])
                path[-1] = f".{key[:80]}"
                yield f"{comma}{encode_basestring(key)}:"
                item = entry[1]
            else:
                path[-1] = f"[{int(path[-1][1:-1]) + 1}]" if comma else "[0]"
                if comma:
                    yield comma
                item = entry
            break
        else:
            return


def _open(item: Any) -> tuple[Iterator[Any], str] | None:
    # The base classes' own iterators: a subclass's are user code.
    if isinstance(item, dict):
        return iter(dict.items(item)), "}"
    for kind in (list, tuple, set, frozenset):
        if isinstance(item, kind):
            iterate: Any = kind.__iter__
            return iterate(item), "]"
    if _is_numpy(item) and item.ndim:
        return iter(item), "]"
    return None


def _scalar(item: Any) -> Iterator[str]:
    if isinstance(item, str):
        yield from _text(item)
    elif item is None:
        yield "null"
    elif isinstance(item, bool):
        yield "true" if item else "false"
    elif isinstance(item, int):
        yield int.__repr__(item)
    elif isinstance(item, float):
        yield _number(item)
    elif isinstance(item, bytes | bytearray | memoryview):
        yield from _binary(item)
    elif isinstance(item, dt.date | dt.time):
        yield encode_basestring(item.isoformat())
    elif isinstance(item, decimal.Decimal | fractions.Fraction | uuid.UUID | pathlib.PurePath):
        yield encode_basestring(str(item))
    elif _is_numpy(item) and not _is_numpy(value := item.item()):
        yield from _scalar(value)
    else:
        raise TypeError


def _text(item: str) -> Iterator[str]:
    if len(item) <= _TEXT_SLICE:
        yield encode_basestring(item)
        return
    yield '"'
    for start in range(0, len(item), _TEXT_SLICE):
        yield encode_basestring(item[start : start + _TEXT_SLICE])[1:-1]
    yield '"'


def _binary(item: bytes | bytearray | memoryview) -> Iterator[str]:
    data = memoryview(item).cast("B")
    yield '{"base64":"'
    for start in range(0, len(data), _TEXT_SLICE):
        yield base64.b64encode(data[start : start + _TEXT_SLICE]).decode("ascii")
    yield '"}'


def _number(value: float) -> str:
    if math.isfinite(value):
        return float.__repr__(value)
    return '"NaN"' if math.isnan(value) else '"Infinity"' if value > 0 else '"-Infinity"'


def _key(key: Any) -> str:
    if isinstance(key, str):
        return key
    if key is None or isinstance(key, bool | int | float):
        text = "".join(_scalar(key))
        return text.strip('"')
    raise UnserializableResultError(f"a key is a {_name(key)}; keys in JSON are strings")


def _is_numpy(item: Any) -> bool:
    return type(item).__module__ == "numpy" and hasattr(item, "item") and hasattr(item, "ndim")


def _explain(item: Any, error: Exception) -> str:
    if isinstance(error, UnserializableResultError | ValueError | OverflowError):
        return f"a {_name(item)} cannot be written: {error}"
    return f"JSON has no form for a {_name(item)}"


def _name(item: Any) -> str:
    kind = type(item)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
