"""The moments of schedules across changes of the clock, and what is wrong with a schedule."""

from __future__ import annotations

from datetime import datetime
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seedcore.core.schedule import (
    MOST_AT_ONCE,
    ScheduleSpec,
    is_over,
    key_of,
    latest,
    next_after,
    problems,
    read,
    show_moment,
)
from tests.support.examples import examples

TASK = {"type": "report"}
BERLIN = "Europe/Berlin"
DAY = 86_400_000


def spec(**keys: Any) -> ScheduleSpec:
    return ScheduleSpec(id="s", task=TASK, **keys)


def ms(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp() * 1000)


def following(one: ScheduleSpec, start: str, count: int = 3) -> list[str]:
    moment, found = ms(start), []
    for _ in range(count):
        after = next_after(one, moment, phase=moment)
        assert after is not None
        moment = after
        found.append(show_moment(moment, one.timezone))
    return found


@pytest.mark.parametrize(
    ("cron", "start", "expected"),
    [
        # 02:00 to 03:00 does not exist on the 29th of March: the next moment that exists.
        ("30 2 * * *", "2026-03-28T12:00+01:00", ["2026-03-29T03:00:00+02:00", "2026-03-30T02:30:00+02:00"]),
        ("0,30 2 * * *", "2026-03-28T12:00+01:00", ["2026-03-29T03:00:00+02:00", "2026-03-30T02:00:00+02:00"]),
        # It exists twice on the 25th of October: the first one.
        ("30 2 * * *", "2026-10-24T12:00+02:00", ["2026-10-25T02:30:00+02:00", "2026-10-26T02:30:00+01:00"]),
        # Between the two, the first one is over.
        ("30 2 * * *", "2026-10-25T02:10+01:00", ["2026-10-26T02:30:00+01:00", "2026-10-27T02:30:00+01:00"]),
        ("30 2 * * *", "2026-10-25T02:40+02:00", ["2026-10-26T02:30:00+01:00", "2026-10-27T02:30:00+01:00"]),
        # What comes every hour goes on every hour of real time.
        ("0 * * * *", "2026-10-25T01:30+02:00", ["2026-10-25T02:00:00+02:00", "2026-10-25T02:00:00+01:00"]),
        ("0 * * * *", "2026-03-29T01:30+01:00", ["2026-03-29T03:00:00+02:00", "2026-03-29T04:00:00+02:00"]),
        ("0 9 * * MON-FRI", "2026-11-27T12:00+01:00", ["2026-11-30T09:00:00+01:00", "2026-12-01T09:00:00+01:00"]),
        ("0 0 L * *", "2026-02-01T00:00+01:00", ["2026-02-28T00:00:00+01:00", "2026-03-31T00:00:00+02:00"]),
    ],
)
def test_cron_follows_the_wall_clock_of_its_zone(cron: str, start: str, expected: list[str]) -> None:
    assert following(spec(cron=cron, timezone=BERLIN), start, len(expected)) == expected


def test_every_counts_from_a_planned_moment_and_does_not_drift() -> None:
    one = spec(every="15m")
    phase = ms("2026-01-01T00:07:00+00:00")
    late = ms("2026-01-01T01:03:11+00:00")
    assert show_moment(next_after(one, late, phase=phase) or 0, "UTC") == "2026-01-01T01:07:00+00:00"
    assert next_after(one, phase, phase=phase) == phase + 900_000
    assert next_after(one, phase - 1, phase=phase) == phase, "the clock has gone back"


@pytest.mark.parametrize(
    ("at", "expected"),
    [
        ("2027-01-31T08:00", "2027-01-31T08:00:00+01:00"),
        ("2027-01-31T08:00:00Z", "2027-01-31T09:00:00+01:00"),
        ("2026-03-29T02:30", "2026-03-29T03:00:00+02:00"),
        ("2026-10-25T02:30", "2026-10-25T02:30:00+02:00"),
    ],
)
def test_at_is_one_moment(at: str, expected: str) -> None:
    one = spec(at=at, timezone=BERLIN)
    assert following(one, "2026-01-01T00:00+00:00", 1) == [expected]
    assert is_over(one, ms(expected))
    assert not is_over(one, ms(expected) - 1)


def test_only_the_last_moments_are_made_up_for_however_many_there_were() -> None:
    until = ms("2026-11-27T12:00:30+00:00")
    for one, step in ((spec(cron="* * * * *"), 60_000), (spec(every=60), 60_000)):
        since = ms("2016-11-27T12:00:00+00:00")
        found = latest(one, since=since, until=until)
        assert found == [until - 30_000 - step * k for k in range(MOST_AT_ONCE, -1, -1)]


FIELD = st.sampled_from(["*", "*/7", "*/20", "3", "1-4", "2,5", "0"])
ZONES = st.sampled_from([BERLIN, "America/New_York", "Australia/Lord_Howe", "Asia/Kolkata", "UTC", "America/St_Johns"])
STARTS = st.sampled_from(
    ["2026-03-28T12:00+00:00", "2026-10-24T12:00+00:00", "2026-03-07T12:00+00:00", "2026-10-31T20:00+00:00",
     "2026-04-04T10:00+00:00", "2026-10-03T10:00+00:00"]
)  # fmt: skip


@settings(deadline=None, max_examples=examples(60))
@given(FIELD, FIELD, ZONES, STARTS, st.integers(0, DAY))
def test_moments_grow_and_looking_back_finds_the_same(minute: str, hour: str, zone: str, start: str, more: int) -> None:
    one = spec(cron=f"{minute} {hour} * * *", timezone=zone)
    moment = ms(start) + more
    forward: list[int] = []
    while len(forward) <= MOST_AT_ONCE and moment < ms(start) + 3 * DAY:
        after = next_after(one, moment, phase=0)
        assert after is not None
        moment = after
        forward.append(moment)
    assert all(one < other for one, other in pairwise(forward))
    assert latest(one, since=forward[0], until=forward[-1]) == forward
    for at in forward:
        shown = datetime.fromisoformat(show_moment(at, zone))
        assert shown.second == 0


GOOD = {"id": "nightly", "cron": "30 2 * * *", "task": TASK}
ZONE = "expected a name of the IANA time zone database, such as Europe/Berlin"
EVERY = "expected a whole number of seconds of at least 1, or a text such as 90s, 15m, 12h or 1d"
AT = "expected a moment such as 2027-01-31T08:00 or 2027-01-31T08:00:00+01:00"


def changed(**keys: Any) -> dict[str, Any]:
    return {key: value for key, value in {**GOOD, **keys}.items() if value is not None}


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (5, ["a schedule is 5, expected a mapping with the keys id, task, cron, every"]),
        (changed(id="a b"), ["id is 'a b', expected 1 to 100 of the characters A-Z a-z 0-9 _ . -"]),
        (changed(id=None), ["a schedule lacks the key 'id', expected 1 to 100"]),
        (changed(task=None), ["a schedule lacks the key 'task', expected a mapping with 'type'"]),
        (changed(cron="61 * * * *"), ["cron is '61 * * * *': the field minute is '61', expected 0 to 59"]),
        (changed(cron="* 7-3 * * *"), ["the field hour is '7-3', expected 0 to 23"]),
        (changed(cron="* * 0 * *"), ["the field day-of-month is '0', expected 1 to 31, or L for the last day"]),
        (changed(cron="* * * 13 *"), ["the field month is '13', expected 1 to 12, or JAN to DEC"]),
        (changed(cron="* * * * 8"), ["the field day-of-week is '8', expected 0 to 7 (0 and 7 are Sunday)"]),
        (changed(cron="a * * * b"), ["the field minute is 'A'", "the field day-of-week is 'B'"]),
        (changed(cron="@daily"), ["cron is '@daily' with 1 fields, expected five: minute, hour"]),
        (changed(cron="0 0 * * * *"), ["with 6 fields, expected five"]),
        (changed(cron="0 0 30 2 *"), ["cron is '0 0 30 2 *', which matches no day of any year"]),
        (changed(cron=5), ["cron is 5, expected five fields: minute, hour"]),
        (changed(timezone="Europe/Berlni"), [f"timezone is 'Europe/Berlni', {ZONE}, did you mean 'Europe/Berlin'?"]),
        (changed(timezone="../etc/passwd"), [f"timezone is '../etc/passwd', {ZONE}"]),
        (changed(timezone="Europe"), [f"timezone is 'Europe', {ZONE}"]),
        (changed(cron=None, every=0), [f"every is 0, {EVERY}"]),
        (changed(cron=None, every="0s"), [f"every is '0s', {EVERY}"]),
        (changed(cron=None, every=0.5), [f"every is 0.5, {EVERY}"]),
        (changed(cron=None, every="1 week"), [f"every is '1 week', {EVERY}"]),
        (changed(cron=None, at="tomorrow"), [f"at is 'tomorrow', {AT}"]),
        (changed(cron=None), ["a schedule has none of them, expected exactly one of cron, every and at"]),
        (changed(every=5), ["a schedule has cron and every, expected exactly one of cron, every and at"]),
        (changed(grace_s=-1), ["grace_s is -1, expected a number of seconds from 0 to 604800"]),
        (changed(misfire="never"), ["misfire is 'never', expected skip, once or all"]),
        (changed(overlap=True), ["overlap is true, expected allow, forbid or replace"]),
        (changed(tz="UTC"), ["unknown key 'tz', expected one of: id, task, cron"]),
        (changed(gracs_s=1), ["unknown key 'gracs_s', did you mean 'grace_s'? expected one of"]),
        (changed(task={"type": ""}), ["task key 'type' is '', expected a string"]),
        (changed(task={**TASK, "key": "k"}), ["unknown key 'key', expected one of: type, params"]),
        (changed(task={**TASK, "priority": 1000}), ["task key 'priority' must be a whole number from -100 to 100"]),
        (changed(task={**TASK, "params": {"x": float("nan")}}), ["the task cannot be written as JSON"]),
        (changed(task={**TASK, "params": {"x": "y" * 70_000}}), ["bytes, expected at most 65536"]),
        (changed(task={"type": "canary"}), ["is done by the Coordinator itself and cannot be durable"]),
    ],
)
def test_each_error_is_told_once_and_says_what_is_allowed(raw: Any, expected: list[str]) -> None:
    found = [problem.text for problem in problems(raw)]
    assert len(found) == len(expected), found
    for text, part in zip(found, expected, strict=True):
        assert part in text


@pytest.mark.parametrize("raw", [GOOD, changed(cron=None, every=1), changed(cron=None, every="1d", overlap="allow")])
def test_a_good_one_is_read_and_sent_between_processes(raw: dict[str, Any]) -> None:
    assert problems(raw) == []
    one = read(raw)
    assert ScheduleSpec.from_dict(one.to_dict()) == one
    assert ScheduleSpec.from_dict({**one.to_dict(), "of_a_later_release": 1}) == one


def test_the_key_names_the_moment() -> None:
    assert key_of("nightly", ms("2026-11-27T03:30:00+01:00")) == "schedule:nightly:2026-11-27T02:30:00Z"


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=8), st.lists, max_leaves=3))
def test_no_input_breaks_the_check(value: Any) -> None:
    for key in ("id", "task", "cron", "every", "at", "timezone", "grace_s", "misfire", "overlap"):
        problems({**GOOD, key: value})
    problems(value)
