"""Copies of the inbox: what is in them, and what becomes of the tasks when one takes the place of a lost inbox."""

from __future__ import annotations

import sqlite3
import stat
from pathlib import Path
from typing import Any

import pytest

from seedcore.coordinator.inbox import copies, schema
from seedcore.coordinator.inbox.copies import CopyError
from seedcore.coordinator.inbox.decisions import State
from seedcore.coordinator.inbox.messages import NewTask, Room, Turn
from seedcore.coordinator.inbox.place import DATABASE
from seedcore.coordinator.inbox.sqlite import SqliteStore


def task(number: int, *, repeatable: bool = False, kind: str = "pay") -> NewTask:
    return NewTask(
        id=number, key=f"k{number}", digest=b"d", type=kind, lane=kind, domain=None, body=b"{}", repeatable=repeatable
    )


def store(directory: Path, *tasks: NewTask, lease: int = 0) -> SqliteStore:
    """Return an open inbox with these tasks, of which the first ones are leased."""
    made = SqliteStore(directory, "test")
    made.open()
    made.turn(Turn(new=tasks))
    if lease:
        made.turn(Turn(rooms=[Room("one.0", "boot1", ("pay",), lease, 60_000)]))
    return made


def rows(directory: Path) -> dict[int, tuple[str, str | None]]:
    connection = sqlite3.connect(directory / DATABASE)
    found = {
        number: (State(state).word, boot)
        for number, state, boot in connection.execute("SELECT id, state, boot FROM task")
    }
    connection.close()
    return found


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """Provide a copy with a leased and a waiting task that may not be repeated, and one of each that may."""
    made = store(tmp_path / "old", task(1), task(2, repeatable=True), lease=2)
    made.turn(Turn(new=[task(3), task(4, repeatable=True)]))
    told = made.copy()
    made.turn(Turn(new=[task(5)]))
    made.close()
    assert told["tasks"] == {**dict.fromkeys((state.word for state in State), 0), "leased": 2, "ready": 2}
    return Path(told["path"])


def test_a_copy_is_one_file_for_its_owner_with_what_was_accepted_before_it(copied: Path) -> None:
    assert stat.S_IMODE(copied.stat().st_mode) == 0o600
    assert sorted(path.name for path in copied.parent.glob("*copy*")) == ["copy.sqlite3"]
    connection = sqlite3.connect(copied)
    assert [number for (number,) in connection.execute("SELECT id FROM task ORDER BY id")] == [1, 2, 3, 4]
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("delete",)
    connection.close()


def test_what_may_not_be_repeated_waits_for_a_person(copied: Path, tmp_path: Path) -> None:
    told = copies.restore(copied, tmp_path / "new")

    assert rows(tmp_path / "new") == {
        1: ("parked", "boot1"), 2: ("ready", None), 3: ("parked", None), 4: ("ready", None)
    }  # fmt: skip
    assert told["epoch"] == 1001
    made = SqliteStore(tmp_path / "new", "test")
    assert made.open().epoch == 1002
    shown = made.read(3)
    made.close()
    assert shown is not None
    assert shown["error"].startswith("restored from a backup")
    assert [entry["what"] for entry in shown["story"]] == ["restored"]


def test_what_waited_runs_if_nothing_was_executed_since(copied: Path, tmp_path: Path) -> None:
    copies.restore(copied, tmp_path / "new", run_waiting=True)

    assert rows(tmp_path / "new") == {
        1: ("parked", "boot1"), 2: ("ready", None), 3: ("ready", None), 4: ("ready", None)
    }  # fmt: skip


def test_an_inbox_with_tasks_is_replaced_only_if_that_is_said_and_kept_beside(copied: Path, tmp_path: Path) -> None:
    living = store(tmp_path / "new", task(9))
    with pytest.raises(CopyError, match="shut it down first"):
        copies.restore(copied, tmp_path / "new", replace=True)
    living.close()
    with pytest.raises(CopyError, match="an inbox with 1 tasks that have not ended"):
        copies.restore(copied, tmp_path / "new")
    assert rows(tmp_path / "new") == {9: ("ready", None)}

    copies.restore(copied, tmp_path / "new", replace=True)

    assert 9 not in rows(tmp_path / "new")
    assert (tmp_path / "new" / copies.REPLACED).exists()


def test_a_copy_of_a_newer_release_or_a_damaged_one_changes_nothing(copied: Path, tmp_path: Path) -> None:
    connection = sqlite3.connect(copied)
    with connection:
        connection.execute("UPDATE meta SET version = ?", (schema.VERSION + 1,))
    connection.close()
    with pytest.raises(schema.SchemaError, match="restore it with the newer release"):
        copies.restore(copied, tmp_path / "new")
    copied.write_bytes(b"nothing of that kind")
    with pytest.raises(CopyError, match="not a database of an inbox"):
        copies.restore(copied, tmp_path / "new")
    with pytest.raises(CopyError, match="there is no file"):
        copies.restore(tmp_path / "nowhere", tmp_path / "new")

    assert not (tmp_path / "new" / DATABASE).exists()


def test_an_inbox_that_nobody_has_open_is_copied_as_well(tmp_path: Path) -> None:
    store(tmp_path / "old", task(1)).close()

    told: dict[str, Any] = copies.copy_closed(tmp_path / "old")

    assert told["tasks"]["ready"] == 1
    with pytest.raises(CopyError, match="there is no inbox"):
        copies.copy_closed(tmp_path / "empty")
