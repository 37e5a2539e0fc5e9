"""Parse a line of a log: its time, its level, and its text without the parts that vary from line to line."""

from __future__ import annotations

import re
from dataclasses import dataclass

LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
"""Levels in ascending severity."""

_SAME_LEVEL = {"TRACE": "DEBUG", "NOTICE": "INFO", "WARN": "WARNING", "ERR": "ERROR", "FATAL": "CRITICAL"}
_TIME = re.compile(
    r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:[.,]\d{1,9})?(?:Z|[+-]\d\d:?\d\d)?"  # ISO 8601, Python's logging
    r"|\d\d/[A-Z][a-z]{2}/\d{4}:\d\d:\d\d:\d\d [+-]\d{4}"  # access logs
    r"|(?<!\S)[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d"  # syslog
)
_LEVEL = re.compile(rf"\b({'|'.join((*LEVELS, *_SAME_LEVEL))})\b", re.IGNORECASE)
_ACCESS = re.compile(r'"(?P<request>[A-Z]{3,7} \S+)[^"]*" (?P<status>[1-5]\d\d)\b')
# A level stands at the beginning; later the same word is part of the message.
_HEAD_CHARS = 80
_CLIENT_ERROR, _SERVER_ERROR = 400, 500
# The order matters: match addresses before numbers, and UUIDs before hexadecimal numbers.
_MASKS = (
    (re.compile(r"\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b", re.IGNORECASE), "<uuid>"),
    (re.compile(r"\b(?:\d{1,3}\.){3}\d{1,3}(?::\d+)?\b"), "<ip>"),
    (re.compile(r"\b(?:0x[0-9a-f]+|(?=[a-f]*\d)(?=\d*[a-f])[0-9a-f]{8,})\b", re.IGNORECASE), "<hex>"),
    (re.compile(r'"[^"]{0,500}"'), '"<text>"'),
    (re.compile(r"(?<![A-Za-z<])\d+(?:\.\d+)?"), "<n>"),
)


@dataclass(frozen=True, slots=True)
class Line:
    """A parsed line; lines that differ only in numbers, addresses, ids and quoted text have the same ``pattern``."""

    time: str | None
    level: str
    pattern: str


def parse(text: str) -> Line:
    """Parse one line of any common format; a line without a level counts as INFO, a traceback's end as ERROR."""
    found = _TIME.search(text[:_HEAD_CHARS])
    time = found[0] if found else None
    rest = text[: found.start()] + text[found.end() :] if found else text
    access = _ACCESS.search(rest)
    if access:
        status = int(access["status"])
        level = "ERROR" if status >= _SERVER_ERROR else "WARNING" if status >= _CLIENT_ERROR else "INFO"
        path = access["request"].partition("?")[0]
        return Line(time, level, f"{_mask(path)} -> {status}")
    named = _LEVEL.search(rest[:_HEAD_CHARS])
    if named is None:
        level = "ERROR" if re.match(r"\w[\w.]*(?:Error|Exception)\b", rest) else "INFO"
        return Line(time, level, _mask(rest))
    level = named[0].upper()
    message = rest[named.end() :].lstrip(" ]:-|\t")
    return Line(time, _SAME_LEVEL.get(level, level), _mask(message))


def _mask(text: str) -> str:
    for pattern, mask in _MASKS:
        text = pattern.sub(mask, text)
    return " ".join(text.split())[:300]
