"""Schedules: durable tasks that are planned again and again, or once at a moment.

:func:`problems` checks the plain data of a schedule, from organism.yaml or from HTTP, and :func:`read` makes the
specification of it. :func:`next_after` and :func:`latest` compute its planned moments: milliseconds since 1970, always
whole seconds.
"""

from __future__ import annotations

import difflib
import json
import re
import zoneinfo
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime, timedelta
from itertools import takewhile
from typing import TYPE_CHECKING, Any

from seedcore.core.errors import SeedCoreError
from seedcore.core.task import Task, describe
from seedcore.core.wish import Wish

if TYPE_CHECKING:
    from cronsim import CronSim

MOST_AT_ONCE = 100
"""Largest number of planned moments that are made up for at once."""
MAX_SCHEDULES = 1000
MAX_TASK_BYTES = 64 * 1024
_MAX_EVERY_S = 10 * 365 * 86_400
_MAX_GRACE_S = 7 * 86_400
_YEARS = range(1970, 2200)
_FIRST_WINDOW_MS = 2 * 3_600_000
_ID = re.compile(r"[A-Za-z0-9_.-]{1,100}")
_EVERY = re.compile(r"([0-9]{1,12})(s|m|h|d)")
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_CRON_FIELDS = {
    "minute": "0 to 59",
    "hour": "0 to 23",
    "day-of-month": "1 to 31, or L for the last day",
    "month": "1 to 12, or JAN to DEC",
    "day-of-week": "0 to 7 (0 and 7 are Sunday), or SUN to SAT",
}
_TASK_KEYS = {
    "type": "string", "params": "object", "domain": "string", "description": "string", "drift_score": "number",
    "timeout_s": "number", "priority": "integer", "deadline_s": "number", "repeatable": "boolean",
}  # fmt: skip
MISFIRES, OVERLAPS = ("skip", "once", "all"), ("allow", "forbid", "replace")


def _key(text: str, allowed: str, schema: Mapping[str, Any], default: Any = None) -> Any:
    metadata = {"help": text, "allowed": allowed, "schema": {**schema, "default": default} if default else schema}
    return field(default=default, metadata=metadata)


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduleSpec:
    """One schedule; each attribute is a key of an entry of ``schedules`` in organism.yaml."""

    id: str = _key(
        "Unique in the deployment; part of the keys of its tasks (``schedule:ID:PLANNED``).",
        "1 to 100 of the characters A-Z a-z 0-9 _ . -", {"type": "string", "pattern": f"^{_ID.pattern}(?![\\s\\S])"},
    )  # fmt: skip
    task: Mapping[str, Any] = _key(
        "The durable task that is planned at each moment.",
        f"a mapping with 'type' and any of {', '.join(list(_TASK_KEYS)[1:])}",
        {
            "type": "object", "additionalProperties": False, "required": ["type"],
            "properties": {name: {"type": kind} for name, kind in _TASK_KEYS.items()},
        },
    )  # fmt: skip
    cron: str | None = _key(
        "Moments of the wall clock in ``timezone``. Exactly one of ``cron``, ``every`` and ``at`` is given.",
        "five fields: minute, hour, day of month, month, day of week", {"type": "string"},
    )  # fmt: skip
    every: int | str | None = _key(
        "Time between two moments; the first one is one interval after the schedule is made.",
        "a whole number of seconds of at least 1, or a text such as 90s, 15m, 12h or 1d",
        {"anyOf": [{"type": "integer", "minimum": 1}, {"type": "string", "pattern": f"^{_EVERY.pattern}(?![\\s\\S])"}]},
    )  # fmt: skip
    at: str | None = _key(
        "A single moment; without an offset, of the wall clock in ``timezone``.",
        "a moment such as 2027-01-31T08:00 or 2027-01-31T08:00:00+01:00", {"type": "string"},
    )  # fmt: skip
    timezone: str = _key(
        "Time zone of ``cron`` and ``at``.",
        "a name of the IANA time zone database, such as Europe/Berlin", {"type": "string"}, "UTC",
    )  # fmt: skip
    grace_s: float = _key(
        "A moment that is planned later than this has been missed; see ``misfire``.",
        f"a number of seconds from 0 to {_MAX_GRACE_S}",
        {"type": "number", "minimum": 0, "maximum": _MAX_GRACE_S}, 60.0,
    )  # fmt: skip
    misfire: str = _key(
        "What to plan when moments have been missed: none of them, one task for all, or one for each (the last 100).",
        "skip, once or all", {"enum": list(MISFIRES)}, "once",
    )  # fmt: skip
    overlap: str = _key(
        "Whether to plan a task while the previous one of the schedule has not ended; ``replace`` cancels that one.",
        "allow, forbid or replace", {"enum": list(OVERLAPS)}, "forbid",
    )  # fmt: skip

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, the inverse of :meth:`from_dict`; without keys that are not given."""
        return {key: value for key, value in asdict(self).items() if value is not None}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ScheduleSpec:
        """Build it from the result of :meth:`to_dict`; keys of a later release are ignored."""
        known = {one.name for one in fields(cls)}
        return cls(**{key: value for key, value in data.items() if key in known})

    @property
    def timing(self) -> tuple[Any, ...]:
        """Return what decides about its moments."""
        return self.cron, self.every, self.at, self.timezone

    @property
    def text(self) -> str:
        """Return its moments in short, for people."""
        zone = "" if self.timezone == "UTC" or self.every is not None else f" {self.timezone}"
        if self.cron is not None:
            return f"cron {' '.join(self.cron.split())}{zone}"
        return f"every {self.every}" if self.every is not None else f"at {self.at}{zone}"


@dataclass(frozen=True, slots=True)
class Problem:
    """One error in a schedule: the key or the path of keys that is wrong, and what is wrong with it."""

    path: tuple[str, ...]
    text: str


def schema() -> dict[str, Any]:
    """Return the JSON schema of a schedule."""
    properties = {}
    for one in fields(ScheduleSpec):
        about = one.metadata
        meaning = about["help"].replace("``", "`")
        properties[one.name] = {**about["schema"], "description": f"{meaning} Allowed: {about['allowed']}."}
    ways = [{"required": [way]} for way in ("cron", "every", "at")]
    return {
        "type": "object", "description": "One schedule.", "additionalProperties": False, "properties": properties,
        "required": ["id", "task"], "oneOf": ways,
    }  # fmt: skip


def read(raw: Mapping[str, Any]) -> ScheduleSpec:
    """Make a schedule of plain data that has no problems."""
    return ScheduleSpec.from_dict({key: value for key, value in raw.items() if value is not None})


def problems(raw: Any) -> list[Problem]:
    """Return every error in the plain data of a schedule; it may come from anybody."""
    if not isinstance(raw, Mapping):
        return [Problem((), f"a schedule is {_shown(raw)}, expected a mapping with the keys {_known()}")]
    found = list(_unknown_keys(raw))
    about = {one.name: one.metadata for one in fields(ScheduleSpec)}
    checks: dict[str, Callable[[Any], object]] = {
        "id": lambda value: isinstance(value, str) and _ID.fullmatch(value),
        "task": lambda value: isinstance(value, Mapping),
        "cron": lambda value: isinstance(value, str),
        "every": lambda value: _every_s(value) is not None,
        "at": lambda value: isinstance(value, str) and _at(value, UTC) is not None,
        "timezone": lambda value: isinstance(value, str) and _zone(value) is not None,
        "grace_s": lambda value: _is_number(value) and 0 <= value <= _MAX_GRACE_S,
        "misfire": lambda value: isinstance(value, str) and value in MISFIRES,
        "overlap": lambda value: isinstance(value, str) and value in OVERLAPS,
    }
    for key, is_valid in checks.items():
        value = raw.get(key)
        if value is None and key in {"id", "task"}:
            found.append(Problem((), f"a schedule lacks the key {key!r}, expected {about[key]['allowed']}"))
        elif value is not None and not is_valid(value):
            hint = _close_zone(value) if key == "timezone" else ""
            found.append(Problem((key,), f"{key} is {_shown(value)}, expected {about[key]['allowed']}{hint}"))
    ways = [key for key in ("cron", "every", "at") if raw.get(key) is not None]
    if len(ways) != 1:
        given = " and ".join(ways) or "none of them"
        place = (ways[1],) if ways else ()
        found.append(Problem(place, f"a schedule has {given}, expected exactly one of cron, every and at"))
    if isinstance(raw.get("cron"), str):
        found += _cron_problems(raw["cron"])
    if isinstance(raw.get("task"), Mapping):
        found += _task_problems(raw["task"])
    return found


def next_after(spec: ScheduleSpec, moment: int, *, phase: int) -> int | None:
    """Return the first planned moment after another moment; None if there is none.

    Args:
        spec: The schedule.
        moment: Milliseconds since 1970.
        phase: For ``every``: any planned moment.
    """
    if spec.every is not None:
        step = (_every_s(spec.every) or 1) * 1000
        return phase + ((moment - phase) // step + 1) * step
    zone = _zone(spec.timezone) or UTC
    if spec.at is not None:
        at = _at(spec.at, zone)
        return None if at is None or (found := _ms(at)) <= moment else found
    start = _utc(moment)
    if start.year not in _YEARS:
        return None
    # A wall clock shows some times twice, and the iterator may begin with the first one.
    for found in _moments(spec.cron or "", start.astimezone(zone)):
        if found > moment:
            return found
    return None


def latest(spec: ScheduleSpec, *, since: int, until: int) -> list[int]:
    """Return the last moments from ``since``, which is one, to ``until``, in order; at most MOST_AT_ONCE + 1."""
    if spec.at is not None:
        return [since] if since <= until else []
    if spec.every is not None:
        step = (_every_s(spec.every) or 1) * 1000
        last = since + (until - since) // step * step
        return [moment for k in range(MOST_AT_ONCE, -1, -1) if (moment := last - k * step) >= since]
    zone = _zone(spec.timezone) or UTC
    window = _FIRST_WINDOW_MS
    while True:
        # However long ago the first one is, only the last ones are computed.
        start = max(since, until - window) - 1
        moments = _moments(spec.cron or "", _utc(start).astimezone(zone))
        found = [one for one in takewhile(lambda one: one <= until, moments) if one > start]
        if start < since or len(found) > MOST_AT_ONCE:
            return found[-MOST_AT_ONCE - 1 :]
        window *= 4


def is_over(spec: ScheduleSpec, now: int) -> bool:
    """Return whether it has no moment after now."""
    return next_after(spec, now, phase=now) is None


def show_moment(moment: int, zone: str) -> str:
    """Return a moment in a time zone, as ISO 8601."""
    return _utc(moment).astimezone(_zone(zone) or UTC).isoformat(timespec="seconds")


def key_of(schedule_id: str, moment: int) -> str:
    """Return the idempotency key of the task of a planned moment."""
    return f"schedule:{schedule_id}:{_utc(moment):%Y-%m-%dT%H:%M:%SZ}"


def _moments(cron: str, start: datetime) -> Iterator[int]:
    """Yield the moments of a cron expression after a start, without repetitions."""
    last = None
    try:
        for one in _cronsim()(cron, start):
            if one.year not in _YEARS:
                return
            if (moment := _ms(one)) != last:
                yield moment
            last = moment
    except OverflowError:
        return


def _cronsim() -> type[CronSim]:
    # Nearly every process has no schedule.
    from cronsim import CronSim  # noqa: PLC0415

    return CronSim


def _cron_problems(cron: str) -> list[Problem]:
    parts = cron.upper().split()
    if len(parts) != len(_CRON_FIELDS):
        text = f"cron is {_shown(cron)} with {len(parts)} fields, expected five: {', '.join(_CRON_FIELDS)}"
        return [Problem(("cron",), text)]
    found = []
    for index, (name, allowed) in enumerate(_CRON_FIELDS.items()):
        alone = ["*"] * len(parts)
        alone[index] = parts[index]
        if not _is_cron(" ".join(alone)):
            text = f"cron is {_shown(cron)}: the field {name} is {_shown(parts[index])}, expected {allowed}"
            found.append(Problem(("cron",), f"{text}; with * - , and / as in crontab"))
    # Each field may be valid and no day match all of them, such as the 30th of February.
    if not found and (not _is_cron(cron) or next(_moments(cron, datetime(2024, 1, 1, tzinfo=UTC)), None) is None):
        found.append(Problem(("cron",), f"cron is {_shown(cron)}, which matches no day of any year"))
    return found


def _is_cron(cron: str) -> bool:
    from cronsim import CronSimError  # noqa: PLC0415 - as above

    if len(cron) > 1000:  # noqa: PLR2004 - generous for any real one
        return False
    try:
        _cronsim()(cron, datetime(2024, 1, 1, tzinfo=UTC))
    except (CronSimError, AssertionError, ValueError):
        return False
    return True


def _task_problems(task: Mapping[str, Any]) -> Iterator[Problem]:
    for key in task:
        if key not in _TASK_KEYS:
            yield Problem(("task", str(key)), f"unknown key {_shown(key)}, expected one of: {', '.join(_TASK_KEYS)}")
    raw = {**task, "durable": True}
    try:
        size = len(json.dumps(dict(task), allow_nan=False).encode())
        if size > MAX_TASK_BYTES:
            yield Problem(("task",), f"the task has {size} bytes, expected at most {MAX_TASK_BYTES}")
        Wish.parse(raw, Task.parse(raw))
    except (TypeError, ValueError, RecursionError) as error:
        yield Problem(("task",), f"the task cannot be written as JSON: {describe(error)}")
    except SeedCoreError as error:
        yield Problem(("task",), describe(error))


def _unknown_keys(raw: Mapping[str, Any]) -> Iterator[Problem]:
    known = [one.name for one in fields(ScheduleSpec)]
    for key in raw:
        if key not in known:
            close = difflib.get_close_matches(str(key), known, n=1)
            hint = f", did you mean {close[0]!r}?" if close else ","
            yield Problem((str(key),), f"unknown key {_shown(key)}{hint} expected one of: {', '.join(known)}")


def _known() -> str:
    return ", ".join(one.name for one in fields(ScheduleSpec))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _every_s(value: Any) -> int | None:
    """Return the seconds of ``every``; None if the value is wrong."""
    if isinstance(value, str) and (found := _EVERY.fullmatch(value)):
        value = int(found[1]) * _UNITS[found[2]]
    is_valid = isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= _MAX_EVERY_S
    return value if is_valid else None


def _at(text: str, zone: Any) -> datetime | None:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    if moment.year not in _YEARS:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=zone, microsecond=0)
        # The wall clock may never show it: take the next moment that it shows.
        while moment.astimezone(UTC).astimezone(zone).replace(tzinfo=None) != moment.replace(tzinfo=None):
            moment += timedelta(minutes=1)
    return moment.astimezone(UTC).replace(microsecond=0)


def _zone(name: str) -> zoneinfo.ZoneInfo | None:
    try:
        return zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        return None


def _close_zone(value: Any) -> str:
    close = difflib.get_close_matches(str(value), zoneinfo.available_timezones(), n=1)
    return f", did you mean {close[0]!r}?" if close else ""


def _utc(moment: int) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=moment)


def _ms(moment: datetime) -> int:
    return int(moment.timestamp()) * 1000


def _shown(value: Any) -> str:
    if isinstance(value, str):
        return repr(value if len(value) <= 80 else value[:77] + "...")  # noqa: PLR2004 - for one short line
    if value is None or isinstance(value, bool):
        return {None: "empty", True: "true", False: "false"}[value]
    return repr(value) if isinstance(value, int | float) else f"a {type(value).__name__}"
