from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import ports
from tests.support.ports import free_ports, free_range

ROOT = Path(__file__).parents[3]
# A range so small that another process would try every port of this one.
SMALL = "from tests.support import ports; ports.FIRST, ports._RANGES_FROM, ports.LAST = 31_000, 31_100, 31_400; "


@pytest.fixture(autouse=True)
def claims(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Use a private claims file: other sessions of this machine may hold any port of the small range."""
    path = tmp_path / "claims"
    monkeypatch.setattr(ports, "CLAIMS", str(path))
    monkeypatch.setattr(ports, "_descriptor", None)
    monkeypatch.setattr(ports, "_claimed", set())
    return path


@pytest.fixture
def all_free(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pretend that all ports are free, so that only claims count."""
    monkeypatch.setattr(ports, "_is_free", lambda _: True)


@pytest.mark.usefixtures("all_free")
def test_what_is_claimed_once_is_not_claimed_again(claims: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ports, "FIRST", 31_000)
    monkeypatch.setattr(ports, "_RANGES_FROM", 31_100)
    monkeypatch.setattr(ports, "LAST", 31_400)

    mine = free_ports(30)
    first, last = free_range(200)
    theirs = other_process(claims, "print(*ports.free_ports(30))")

    assert len(set(mine)) == 30
    assert last - first == 199
    assert set(mine).isdisjoint(theirs)
    assert set(mine).isdisjoint(range(first, last + 1))
    with pytest.raises(AssertionError, match="no 200 consecutive free ports between 31100 and 31400"):
        free_range(200)


@pytest.mark.usefixtures("all_free")
def test_another_process_gets_no_range_that_is_claimed_here(claims: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ports, "_RANGES_FROM", 30_600)
    monkeypatch.setattr(ports, "LAST", 31_000)
    first, last = free_range(140)
    code = "ports._RANGES_FROM, ports.LAST = 30_600, 31_000; print(*ports.free_range(100))"

    theirs = range(*other_process(claims, code))

    assert first not in theirs
    assert last not in theirs


def test_a_port_that_somebody_listens_at_is_not_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.2", free_ports(1)[0]))
        listener.listen()
        taken = listener.getsockname()[1]
        monkeypatch.setattr(ports, "_claimed", set())
        monkeypatch.setattr(ports, "FIRST", taken)
        monkeypatch.setattr(ports, "_RANGES_FROM", taken + 1)

        with pytest.raises(AssertionError, match="free ports"):
            free_ports(1)


def other_process(claims: Path, code: str) -> list[int]:
    same = f"ports.CLAIMS = {str(claims)!r}; ports._is_free = lambda _: True; "
    done = subprocess.run(
        [sys.executable, "-c", SMALL + same + code], cwd=ROOT, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return [int(word) for word in done.stdout.split()]
