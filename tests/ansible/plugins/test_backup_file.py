"""Test the file of a backup: what is in it, and what is refused."""

from __future__ import annotations

import io
import json
import stat
import tarfile
from pathlib import Path

import pytest
from ansible_collections.seedcore.cluster.plugins.modules import backup_file
from ansible_collections.seedcore.cluster.plugins.modules.backup_file import BackupError

PARTS = {"organism.yaml": b"seedcore: {}\n", "secrets.vault": b"$ANSIBLE_VAULT;1.1;AES256\n00\n"}


@pytest.fixture
def made(tmp_path: Path) -> Path:
    path = tmp_path / "backup.tar"
    backup_file.write(path, {"release": "1-a"}, PARTS)
    return path


def rewrite(path: Path, **changed: bytes) -> None:
    with tarfile.open(path) as archive:
        content = {entry.name: stream.read() for entry in archive if (stream := archive.extractfile(entry))}
    with tarfile.open(path, "w") as archive:
        for name, data in {**content, **{key.replace("_", "."): value for key, value in changed.items()}}.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))


def test_it_is_for_its_owner_only_and_gives_back_what_was_put_in(made: Path, tmp_path: Path) -> None:
    assert stat.S_IMODE(made.stat().st_mode) == 0o600
    manifest, parts = backup_file.read(made)
    assert (manifest["release"], parts) == ("1-a", PARTS)
    (tmp_path / "parts").mkdir()
    paths = backup_file.unpack(parts, tmp_path / "parts")
    assert {name: Path(path).read_bytes() for name, path in paths.items()} == PARTS
    assert {stat.S_IMODE(Path(path).stat().st_mode) for path in paths.values()} == {0o600}
    assert [path.name for path in tmp_path.glob(".*")] == [], "nothing is left beside it"


def test_a_part_that_was_changed_added_or_taken_away_is_named(made: Path) -> None:
    rewrite(made, organism_yaml=b"seedcore: {organism: {}}\n")
    with pytest.raises(BackupError, match=r"the digest of organism\.yaml does not agree"):
        backup_file.read(made)
    backup_file.write(made, {}, PARTS)
    rewrite(made, more_txt=b"")
    with pytest.raises(BackupError, match=r"the digest of more\.txt does not agree"):
        backup_file.read(made)


def test_what_is_no_backup_or_a_newer_one_is_refused(made: Path, tmp_path: Path) -> None:
    rewrite(made, manifest_json=json.dumps({"format": 2, "digests": {}}).encode())
    with pytest.raises(BackupError, match="has format 2, expected at most 1"):
        backup_file.read(made)
    made.write_bytes(b"no archive")
    for path in (made, tmp_path / "nowhere"):
        with pytest.raises(BackupError, match="is not a backup, or is damaged"):
            backup_file.read(path)


def test_a_part_is_not_written_outside_of_the_directory(tmp_path: Path) -> None:
    with pytest.raises(BackupError, match="a part has the name"):
        backup_file.unpack({"../escaped": b""}, tmp_path)
