"""Two hundred simulated losses of power: what was told as accepted or done is there afterwards."""

from __future__ import annotations

import contextlib
import sqlite3
import sys
from pathlib import Path

import pytest

from seedcore.coordinator.inbox.decisions import State
from seedcore.coordinator.inbox.place import DATABASE
from seedcore.coordinator.inbox.sqlite import SqliteStore
from tests.support.power_cut import Event, cuts, record

CUTS = 200

# Accepts and ends tasks, some with large params, and writes down what it tells after each turn.
RUN = """
import os, sys
from pathlib import Path
from seedcore.coordinator.inbox import sqlite
from seedcore.coordinator.inbox.decisions import Answer
from seedcore.coordinator.inbox.messages import Ending, NewTask, Room, Turn
directory, level = Path(sys.argv[1]), sys.argv[2]
class Store(sqlite.SqliteStore):
    def _open(self):
        opened = super()._open()
        self._db.execute("PRAGMA wal_autocheckpoint=60")
        self._db.execute("PRAGMA synchronous=" + level)
        return opened
box = Store(directory, "test")
box.open()
told = os.open(directory / "told", os.O_CREAT | os.O_APPEND | os.O_WRONLY)
number, claimed = 0, []
for turn in range(250):
    new = []
    for _ in range(turn % 5):
        number += 1
        body = b"p" * (2000 if number % 7 == 0 else 100)
        new.append(NewTask(id=number, key=f"k{number}", digest=b"d", type="t", lane="t", domain=None, body=body))
    endings = [Ending(task.id, Answer(task.attempt, True, "yes"), b"{}") for task in claimed]
    turned = box.turn(Turn(new, endings, [Room("o.0", "b", ("t",), 4, 1000)]))
    claimed = turned.claimed[0]
    os.write(told, "".join(f"a{one.id} " for one in turned.accepted).encode())
    os.write(told, "".join(f"d{one.id} " for one in turned.ended).encode())
"""


def events(tmp_path: Path, level: str) -> list[Event]:
    directory = tmp_path / "inbox"
    directory.mkdir()
    return record([sys.executable, "-c", RUN, str(directory), level], directory, tmp_path)


def lost(files: dict[str, bytes], told: list[str], directory: Path) -> list[str]:
    """Open a database as the next Coordinator does; return what was told and is not so."""
    directory.mkdir(exist_ok=True)
    for old in directory.iterdir():
        old.unlink()
    for name, content in files.items():
        if name.startswith(DATABASE) and not name.endswith("-shm"):
            (directory / name).write_bytes(content)
    box = SqliteStore(directory, "test")
    box.open()
    try:
        assert box._db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        states = dict(box._db.execute("SELECT id, state FROM task").fetchall())
        counts = dict(box._counts)
    finally:
        box.close()
    assert sum(counts.values()) == len(states)
    return [
        word for word in told if int(word[1:]) not in states or (word[0] == "d" and states[int(word[1:])] != State.DONE)
    ]


@pytest.mark.loop_limit(60.0)
def test_no_loss_of_power_loses_what_was_told(tmp_path: Path) -> None:
    seen = events(tmp_path, "FULL")
    assert {event.kind for event in seen} >= {"W", "S", "A"}

    images = list(cuts(seen, CUTS // 2, seed=20261127))

    assert len(images) == CUTS
    assert max(len(told) for told, _ in images) > 500
    for told, files in images:
        assert lost(files, told, tmp_path / "image") == []


@pytest.mark.loop_limit(60.0)
def test_the_simulation_finds_a_setting_that_does_lose_something(tmp_path: Path) -> None:
    seen = events(tmp_path, "NORMAL")
    found = 0
    for told, files in cuts(seen, 20, seed=1):
        with contextlib.suppress(sqlite3.DatabaseError):
            found += bool(lost(files, told, tmp_path / "image"))
    assert found > 10
