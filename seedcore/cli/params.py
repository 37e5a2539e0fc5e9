"""Types of options: each says what is wrong with a value and what is allowed."""

from __future__ import annotations

import json
import math
from typing import Any, NoReturn

import click

# The clocks of sockets and threads take centuries, but nobody means them.
MAX_SECONDS = 365 * 24 * 3600


class Seconds(click.ParamType[float]):
    """A finite number of seconds; above 0, or from 0 where ``zero`` is a meaningful answer."""

    name = "seconds"

    def __init__(self, *, zero: bool = False) -> None:
        self.zero = zero

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Parse ``value``."""
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        if not (number <= MAX_SECONDS and (number > 0 or (self.zero and number == 0))):
            least = "from 0" if self.zero else "above 0"
            text = f"{value!r} is not allowed, allowed is a number of seconds {least}, at most a year"
            self.fail(text, param, ctx)
        return number


class Text(click.ParamType[str]):
    """Text with something in it."""

    name = "text"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Refuse what is empty."""
        text = str(value)
        if not text.strip():
            self.fail(f"{text!r} is empty, allowed is any other text", param, ctx)
        return text


class JsonObject(click.ParamType[dict[str, Any]]):
    """One JSON object, given as text, or read from standard input where the text is ``-``."""

    name = "json"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> dict[str, Any]:
        """Parse ``value``; the place of a fault is told by line and column."""
        if isinstance(value, dict):
            return value
        try:
            text = _read_stdin() if value == "-" else str(value)
            document = json.loads(text, parse_constant=_refuse, parse_float=_finite)
        except json.JSONDecodeError as error:
            self.fail(
                f"line {error.lineno} column {error.colno}: {error.msg}, allowed is one JSON object",
                param,
                ctx,
            )
        except (ValueError, RecursionError) as error:
            detail = "it is nested too deep" if isinstance(error, RecursionError) else str(error)
            self.fail(f"{detail}, allowed is one JSON object in UTF-8", param, ctx)
        if not isinstance(document, dict):
            self.fail(f"it is {_json_name(document)}, allowed is one JSON object", param, ctx)
        return document


def _read_stdin() -> str:
    with click.open_file("-", "rb") as stream:
        return bytes(stream.read()).decode("utf-8-sig")


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no number of JSON")


def _finite(text: str) -> float:
    number = float(text)
    return number if math.isfinite(number) else _refuse(text)


def _json_name(value: Any) -> str:
    if value is None:
        return "null"
    names = {list: "an array", str: "a string", bool: "a boolean"}
    return names.get(type(value), "a number")
