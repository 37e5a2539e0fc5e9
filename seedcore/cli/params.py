"""Option types whose errors name the wrong value and the expected one."""

from __future__ import annotations

import json
import math
from typing import Any, NoReturn

import click

# Sockets and threads accept centuries, but such a value is always a mistake.
MAX_SECONDS = 365 * 24 * 3600


class Seconds(click.ParamType[float]):
    """A finite number of seconds, greater than 0, or at least 0 if ``zero`` is set."""

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
            text = f"got {value!r}, expected a number of seconds {least}, at most a year"
            self.fail(text, param, ctx)
        return number


class Share(click.ParamType[float]):
    """A finite number, 0 or more."""

    name = "share"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Parse ``value``."""
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        # nan is neither.
        if not 0 <= number < math.inf:
            self.fail(f"got {value!r}, expected a finite number, 0 or more", param, ctx)
        return number


class Text(click.ParamType[str]):
    """Text that is not empty."""

    name = "text"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Reject empty text."""
        text = str(value)
        if not text.strip():
            self.fail(f"got {text!r}, expected text that is not empty", param, ctx)
        return text


class JsonObject(click.ParamType[dict[str, Any]]):
    """One JSON object, given as text, or read from standard input if the text is ``-``."""

    name = "json"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> dict[str, Any]:
        """Parse ``value``; an error names line and column."""
        if isinstance(value, dict):
            return value
        try:
            return parse_object(read_stdin() if value == "-" else str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


def parse_object(text: str) -> dict[str, Any]:
    """Parse one JSON object.

    Raises:
        ValueError: It is not one; the message names the place and the expected form.
    """
    try:
        document = json.loads(text, parse_constant=_refuse, parse_float=_finite)
    except json.JSONDecodeError as error:
        raise ValueError(f"line {error.lineno} column {error.colno}: {error.msg}, expected one JSON object") from error
    except (ValueError, RecursionError) as error:
        detail = "the JSON is nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise ValueError(f"{detail}, expected one JSON object in UTF-8") from error
    if not isinstance(document, dict):
        raise ValueError(f"got {_json_name(document)}, expected one JSON object")  # noqa: TRY004 - a value of JSON
    return document


def read_stdin() -> str:
    """Read standard input to its end, as UTF-8.

    Raises:
        ValueError: It is not valid UTF-8.
    """
    with click.open_file("-", "rb") as stream:
        data = bytes(stream.read())
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"byte {error.start + 1} is not valid UTF-8, expected one JSON object in UTF-8") from error


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not a JSON number")


def _finite(text: str) -> float:
    number = float(text)
    return number if math.isfinite(number) else _refuse(text)


def _json_name(value: Any) -> str:
    if value is None:
        return "null"
    names = {list: "an array", str: "a string", bool: "a boolean"}
    return names.get(type(value), "a number")
