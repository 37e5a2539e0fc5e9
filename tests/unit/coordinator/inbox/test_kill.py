"""A process that writes to the inbox is killed at any moment: the next one finds everything that was told."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from seedcore.coordinator.inbox.decisions import State
from seedcore.coordinator.inbox.sqlite import SqliteStore
from seedcore.coordinator.inbox.store import Store
from tests.support.postgres import Server
from tests.support.waiting import eventually

KILLS = 10

# Goes on for ever: what an earlier epoch has leased it gives back, as recovery does for what never began.
RUN = """
import os, sys
from pathlib import Path
from seedcore.coordinator.inbox import ids
from seedcore.coordinator.inbox.decisions import Answer
from seedcore.coordinator.inbox.messages import Ending, NewTask, Room, Turn
directory = Path(sys.argv[1])
if sys.argv[2:]:
    from seedcore.coordinator.inbox.postgres import PostgresStore
    box = PostgresStore(sys.argv[2], "test", passfile=Path(sys.argv[3]))
else:
    from seedcore.coordinator.inbox.sqlite import SqliteStore
    box = SqliteStore(directory / "inbox", "test")
opened = box.open()
told = os.open(directory / "told", os.O_CREAT | os.O_APPEND | os.O_WRONLY)
endings = [Ending(one.id, Answer(one.attempt, False, "no", 0)) for one in opened.leased]
number, claimed = 0, []
while True:
    new = []
    for _ in range(5):
        number += 1
        task_id = ids.make(opened.epoch, number)
        new.append(NewTask(id=task_id, key=f"k{task_id}", digest=b"d", type="t", lane="t", domain=None, body=b"{}"))
    endings += [Ending(task.id, Answer(task.attempt, True, "yes"), b"{}") for task in claimed]
    turned = box.turn(Turn(new, endings, [Room("o.0", "b", ("t",), 5, 1000)]))
    done = [f"d{one.id}" for one in turned.ended if one is not None and one.state == 2]
    claimed, endings = turned.claimed[0], []
    os.write(told, (" ".join([*(f"a{one.id}" for one in turned.accepted), *done]) + "\\n").encode())
"""


@pytest.mark.loop_limit(60.0)
@pytest.mark.parametrize("database", ["sqlite", "postgres"])
def test_nothing_that_was_told_is_lost_by_kills(tmp_path: Path, database: str, request: pytest.FixtureRequest) -> None:
    where: list[str] = []
    if database == "postgres":
        server: Server = request.getfixturevalue("server")
        where = [server.url(server.new_database()), str(server.passfile)]
    chance = random.Random(20261127)
    told_file = tmp_path / "told"
    for _ in range(KILLS):
        size = told_file.stat().st_size if told_file.exists() else 0
        process = subprocess.Popen([sys.executable, "-c", RUN, str(tmp_path), *where])

        def has_told(size: int = size) -> bool:
            return told_file.exists() and told_file.stat().st_size > size

        eventually(has_told, interval_s=0.005, what="a turn")
        time.sleep(chance.uniform(0.0, 0.1))  # the moment is what is random here, nothing is awaited
        process.kill()
        process.wait()

    store: Store = SqliteStore(tmp_path / "inbox", "test")
    if where:
        from seedcore.coordinator.inbox.postgres import PostgresStore  # noqa: PLC0415 - as in conftest.py

        store = PostgresStore(where[0], "test", passfile=Path(where[1]))
    opened = store.open()
    states = dict(store.query("SELECT id, state FROM task"))
    intact = [("ok",)] if where else store.query("PRAGMA integrity_check")
    store.close()

    told = told_file.read_text().split()
    assert intact == [("ok",)]
    assert opened.epoch == KILLS + 1
    assert len(told) > 100
    assert [word for word in told if int(word[1:]) not in states] == []
    assert [word for word in told if word[0] == "d" and states[int(word[1:])] != State.DONE] == []
