"""Ids of durable tasks: a number for the store, and a short text for people and programs."""

from __future__ import annotations

# Base 32 without letters that look like a digit or each other.
_DIGITS = "0123456789abcdefghjkmnpqrstvwxyz"
_VALUES = {digit: value for value, digit in enumerate(_DIGITS)}
_BITS = 5
_PER_EPOCH = 32
_MAX_CHARS = 13


def make(epoch: int, number: int) -> int:
    """Return the id of the n-th task of an epoch; a later one is greater."""
    return epoch << _PER_EPOCH | number


def to_text(task_id: int) -> str:
    """Return an id as text."""
    text = ""
    while task_id:
        task_id, digit = task_id >> _BITS, task_id & (1 << _BITS) - 1
        text = _DIGITS[digit] + text
    return text or "0"


def parse(text: str) -> int | None:
    """Return the id that a text stands for; None if it stands for none."""
    text = text.strip().lower()
    if not 0 < len(text) <= _MAX_CHARS or any(digit not in _VALUES for digit in text):
        return None
    value = 0
    for digit in text:
        value = value << _BITS | _VALUES[digit]
    return value if value < 1 << 63 else None
