from __future__ import annotations

import threading
import time
from pathlib import Path

from tests.support.turns import turn


def test_one_at_a_time(tmp_path: Path) -> None:
    inside, most = 0, 0

    def work() -> None:
        nonlocal inside, most
        with turn(path=tmp_path / "turn"):
            inside += 1
            most = max(most, inside)
            time.sleep(0.05)
            inside -= 1

    threads = [threading.Thread(target=work) for _ in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join(30)

    assert (most, inside) == (1, 0)


def test_who_waits_too_long_goes_on(tmp_path: Path) -> None:
    with turn(path=tmp_path / "turn"):
        began = time.monotonic()
        with turn(path=tmp_path / "turn", timeout_s=0.3):
            assert 0.3 <= time.monotonic() - began < 20
