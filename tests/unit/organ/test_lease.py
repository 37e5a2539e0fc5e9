"""Test whether a process may accept work, as a table of the messages that it receives."""

from __future__ import annotations

import pytest

from seedcore.organ.lease import Lease

LEASE_S = 12.0
FIRST, SECOND, THIRD = "boot.1", "boot.2", "boot.3"

# What happens: (second, "asked") by the Coordinator, (second, "confirmed", when the head was asked), (second, "looks").
# Then: the epoch, and which of FIRST, SECOND, an unknown one and that of an earlier process are heard.
TABLE: dict[str, tuple[list[tuple[float | str, ...]], str, tuple[bool, bool, bool, bool]]] = {
    "new": ([(1.0, "looks")], FIRST, (True, False, True, True)),
    "asked in time": ([(5.0, "asked"), (16.9, "looks")], FIRST, (True, False, True, True)),
    "not asked": ([(12.0, "looks")], SECOND, (False, False, False, False)),
    "not asked for long, and looked at often": (
        [(12.0, "looks"), (13.0, "looks"), (900.0, "looks")], SECOND, (False, False, False, False),
    ),
    "asked too late": ([(13.0, "asked")], SECOND, (False, True, True, True)),
    "lapsed twice": ([(13.0, "asked"), (40.0, "asked")], THIRD, (False, False, True, True)),
    "the head confirms": ([(10.0, "confirmed", 8.0), (19.9, "looks")], FIRST, (True, False, True, True)),
    "what the head said counts from the question": (
        [(10.0, "confirmed", 8.0), (20.0, "looks")], SECOND, (False, False, False, False),
    ),
    "frozen while the head was asked": (
        [(70.0, "confirmed", 8.0)], SECOND, (False, False, False, False),
    ),
    "the head confirms after a lapse": (
        [(12.0, "looks"), (14.0, "confirmed", 13.0)], SECOND, (False, True, True, True),
    ),
    "an old answer takes nothing back": (
        [(11.0, "asked"), (12.0, "confirmed", 8.0), (22.0, "looks")], FIRST, (True, False, True, True),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", TABLE)
def test_who_is_heard(name: str) -> None:
    events, epoch, heard = TABLE[name]
    lease = Lease("boot", LEASE_S, 0.0)
    for at, what, *when in events:
        now = float(at)
        lease.lapses(now)
        if what == "asked":
            lease.confirm(now, now)
        elif what == "confirmed":
            lease.confirm(float(when[0]), now)
    assert lease.epoch == epoch
    assert tuple(lease.admits(each) for each in (FIRST, SECOND, None, "other.7")) == heard


def test_each_lapse_is_told_once() -> None:
    lease = Lease("boot", LEASE_S, 0.0)
    assert [lease.lapses(now) for now in (11.9, 12.0, 13.0)] == [False, True, False]
    lease.confirm(14.0, 14.0)
    assert [lease.lapses(now) for now in (25.0, 26.0, 27.0)] == [False, True, False]
