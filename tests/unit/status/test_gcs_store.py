"""Test what is done with the store of a GCS that did not start."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from seedcore.status import gcs_store
from tests.support.programs import damaged_store

CHECK = "[2026-11-26 10:00:01,456 C 42 42] (gcs_server) rocksdb_store_client.cc:95:  A bug in Ray. Check failed: "
OPEN = CHECK + "open_status.ok() Failed to open RocksDB at /x/state/gcs/tables: "
CORRUPT = OPEN + "Corruption: MANIFEST-000005 may be corrupted\n"
CORRUPT_ROW = CHECK + "get_status.ok() RocksDB Get failed for table=ACTOR: Corruption: block checksum mismatch\n"
NO_SPACE = (
    CHECK + "put_status.ok() RocksDB Put failed for table=ACTOR: IO error: No space left on device: While appending\n"
)
LOCKED = OPEN + "IO error: While lock file: /x/LOCK: Resource temporarily unavailable\n"
FORBIDDEN = OPEN + "IO error: While opendir: /x: Permission denied\n"


@pytest.fixture
def head(tmp_path: Path) -> SimpleNamespace:
    store, logs = tmp_path / "state" / "gcs", tmp_path / "logs"
    (store / "tables").mkdir(parents=True)
    logs.mkdir()
    (logs / "gcs_server.err").touch()
    return SimpleNamespace(store=store, logs=logs, log=logs / "gcs_server.out")


def copies(head: SimpleNamespace) -> list[Path]:
    return sorted(head.store.parent.glob("gcs-damaged-*"))


@pytest.mark.parametrize("text", [CORRUPT, CORRUPT_ROW], ids=["at its start", "later"])
def test_a_corrupt_store_is_moved_aside_once(head: SimpleNamespace, text: str) -> None:
    head.log.write_text(text)

    line = damaged_store.set_aside(head.store, head.logs)

    (place,) = copies(head)
    assert (place / "tables").is_dir()
    assert not head.store.exists()
    assert str(place) in line
    assert "Corruption: " in line
    # The start after it may fail before the GCS writes a log of its own.
    assert damaged_store.set_aside(head.store, head.logs) == ""


@pytest.mark.parametrize("text", [NO_SPACE, LOCKED, FORBIDDEN, "starting\n", None])
def test_any_other_store_stays_where_it_is(head: SimpleNamespace, text: str | None) -> None:
    if text is not None:
        head.log.write_text(text)

    assert damaged_store.set_aside(head.store, head.logs) == ""

    assert head.store.is_dir()
    assert copies(head) == []


def test_only_the_newest_copies_are_kept(head: SimpleNamespace) -> None:
    for year in (2023, 2024, 2025):
        head.store.with_name(f"gcs-damaged-{year}0101T000000Z").mkdir()
    head.log.write_text(CORRUPT)

    damaged_store.set_aside(head.store, head.logs)

    kept = [path.name for path in copies(head)]
    assert len(kept) == damaged_store.KEPT_COPIES
    assert kept[0] == "gcs-damaged-20250101T000000Z"


def test_a_full_disk_is_told_by_the_store_or_by_the_disk(
    head: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    head.log.write_text(NO_SPACE)
    cause = gcs_store.damage(head.logs)
    assert gcs_store.full_disk(cause) == cause
    head.log.write_text(CORRUPT)
    cause = gcs_store.damage(head.logs)
    assert gcs_store.full_disk(cause, head.store, None, Path("/no/such/directory")) is None

    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=4096))
    assert gcs_store.full_disk(cause, head.store) == f"the disk of {head.store} has 4096 bytes free"
