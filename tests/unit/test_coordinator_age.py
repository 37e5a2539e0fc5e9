"""How old a Coordinator's words are: told by a clock that nobody sets."""

from __future__ import annotations

import time

import pytest

from seedcore.coordinator import STALE_AFTER_S, Coordinator


def coordinator(*, born: float) -> Coordinator:
    one = Coordinator.__new__(Coordinator)
    one._snapshot = {"status": "healthy", "reason": "ready", "message": "all ready", "snapshot_at": time.time()}
    one._snapshot_born = born
    return one


@pytest.mark.parametrize("set_by_s", [-3600.0, 30.0, 3600.0])
async def test_a_clock_that_is_set_neither_hides_nor_makes_a_hang(
    monkeypatch: pytest.MonkeyPatch, set_by_s: float
) -> None:
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + set_by_s)

    fresh = await coordinator(born=time.monotonic()).get_status()
    hung = await coordinator(born=time.monotonic() - STALE_AFTER_S - 2).get_status()

    assert (fresh["status"], fresh["reason"]) == ("healthy", "ready")
    assert (hung["status"], hung["reason"]) == ("unhealthy", "stale")
    assert hung["message"] == "the Coordinator's loop has not turned for 7 s"
    assert hung["age_s"] == pytest.approx(7.0, abs=0.5)
