from __future__ import annotations

import grp
import os
import pwd
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

MODULE = "managed_files"
Run = Callable[..., dict[str, Any]]
OWN = {"owner": pwd.getpwuid(os.geteuid()).pw_name, "group": grp.getgrgid(os.getegid()).gr_name}


def test_directories_are_made_once_and_mended_when_they_differ(run: Run, tmp_path: Path) -> None:
    wanted = [
        {"path": str(tmp_path / "a"), "state": "directory", "mode": "0750", **OWN},
        {"path": str(tmp_path / "a" / "b"), "state": "directory", "mode": "0777", **OWN},
    ]

    preview = run(MODULE, files=wanted, check=True)
    assert (preview["changed"], preview["different"]) == (True, [entry["path"] for entry in wanted])
    assert not (tmp_path / "a").exists()

    first = run(MODULE, files=wanted)
    assert first["different"] == preview["different"]
    assert first["diff"][1]["before_header"] == f"{tmp_path}/a/b (absent)"
    assert [(tmp_path / name).stat().st_mode & 0o777 for name in ("a", "a/b")] == [0o750, 0o777]

    assert run(MODULE, files=wanted)["changed"] is False
    (tmp_path / "a").chmod(0o700)
    assert run(MODULE, files=wanted)["different"] == [str(tmp_path / "a")]
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o750


def test_files_and_links_are_written_once_and_mended_when_they_differ(run: Run, tmp_path: Path) -> None:
    text, gone, link = tmp_path / "d" / "text", tmp_path / "gone", tmp_path / "link"
    gone.write_text("old")
    wanted = [
        {"path": str(text.parent), "state": "directory", "mode": "0755"},
        {"path": str(text), "content": "one\r\ntwo\u00e9\n", "mode": "0640"},
        {"path": str(link), "state": "link", "target": "d/text"},
        {"path": str(gone), "state": "absent"},
    ]

    preview = run(MODULE, files=wanted, check=True)
    assert preview["different"] == [entry["path"] for entry in wanted]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["gone"]

    first = run(MODULE, files=wanted)
    assert first["diff"] == preview["diff"]
    assert (text.read_bytes(), text.stat().st_mode & 0o777) == (b"one\r\ntwo\xc3\xa9\n", 0o640)
    assert link.readlink() == Path("d/text")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["d", "link", "text"], "nothing else is left"

    assert run(MODULE, files=wanted)["changed"] is False
    text.write_text("other")
    link.unlink()
    link.symlink_to("elsewhere")
    second = run(MODULE, files=wanted)
    assert second["different"] == [str(text), str(link)]
    assert (second["diff"][0]["before"], second["diff"][1]["before"]) == ("other", "elsewhere")
    assert (text.read_bytes(), link.readlink()) == (b"one\r\ntwo\xc3\xa9\n", Path("d/text"))

    text.chmod(0o600)
    assert run(MODULE, files=wanted)["diff"][0]["after"] == f"file {OWN['owner']}:{OWN['group']} 0640\n"


def test_a_link_to_a_directory_is_good_for_one_and_a_link_to_a_file_is_not_written_through(
    run: Run, tmp_path: Path
) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "there").symlink_to("real")
    (tmp_path / "secret").write_text("keep")
    (tmp_path / "real" / "text").symlink_to("../secret")
    if os.geteuid() == 0:
        os.chown(tmp_path / "secret", 1, 1)

    directory = {"path": str(tmp_path / "there"), "state": "directory", "mode": "0711"}
    run(MODULE, files=[directory, {"path": str(tmp_path / "there" / "text"), "content": "new", "mode": "0600"}])

    assert (tmp_path / "there").is_symlink()
    assert (tmp_path / "real").stat().st_mode & 0o777 == 0o711
    assert ((tmp_path / "real" / "text").read_text(), (tmp_path / "secret").read_text()) == ("new", "keep")
    assert (tmp_path / "real" / "text").stat().st_uid == os.geteuid(), "it is not given to the owner of the other file"


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        ({"state": "directory", "mode": "0700"}, "is a file, but the wanted state is directory: move it away"),
        ({"mode": "0700"}, "a file needs content"),
        ({}, "a file needs content and mode"),
        ({"state": "link"}, "a link needs target"),
        ({"content": "", "mode": "rw"}, "mode is 'rw', expected octal text such as"),
        ({"content": "", "mode": "0888"}, "mode is '0888', expected octal text such as"),
    ],
)
def test_an_entry_that_cannot_be_is_said_and_nothing_is_made(
    run: Run, tmp_path: Path, entry: dict[str, str], says: str
) -> None:
    path = tmp_path / "a"
    path.write_text("mine")

    answer = run(
        MODULE,
        files=[{"path": str(tmp_path / "b"), "content": "", "mode": "0600"}, {"path": str(path), **entry}],
    )

    assert answer["failed"]
    assert answer["msg"].startswith(f"{path}")
    assert says in answer["msg"]
    assert path.read_text() == "mine"
    assert not (tmp_path / "b").exists()


def test_a_directory_is_never_removed_or_written_over(run: Run, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()

    for entry in ({"state": "absent"}, {"content": "", "mode": "0600"}, {"state": "link", "target": "b"}):
        answer = run(MODULE, files=[{"path": str(tmp_path / "a"), **entry}])
        assert answer["failed"]
        assert f"{tmp_path}/a is a directory, but the wanted state is" in answer["msg"]
    assert (tmp_path / "a").is_dir()


def hand_to_nobody(path: Path) -> None:
    os.chown(path, pwd.getpwnam("nobody").pw_uid, pwd.getpwnam("nobody").pw_gid)


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    """Provide a directory in which another user may write, like the service's user below a prefix."""
    if os.geteuid() != 0:
        pytest.skip("only root can be led astray by another user's links, and this is not root")
    directory = tmp_path / "theirs"
    directory.mkdir()
    hand_to_nobody(directory)
    return directory


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    """Provide a directory and a file of root, the targets of a link."""
    directory = tmp_path / "victim"
    directory.mkdir(mode=0o755)
    (directory / "file").write_text("root's")
    (directory / "file").chmod(0o600)
    return directory


def attributes(path: Path) -> dict[str, tuple[int, int, int]]:
    return {str(at): (at.lstat().st_uid, at.lstat().st_gid, at.lstat().st_mode) for at in [path, *path.rglob("*")]}


@pytest.mark.parametrize(
    ("planted", "entry"),
    [
        ("gcs", {"path": "gcs", "state": "directory", "mode": "0700"}),
        ("gcs", {"path": "gcs/deeper", "state": "directory", "mode": "0700"}),
        ("gcs", {"path": "gcs/file", "content": "theirs", "mode": "0666"}),
        ("gcs", {"path": "gcs/link", "state": "link", "target": "/"}),
        ("gcs", {"path": "gcs/file", "state": "absent"}),
        ("gcs", {"path": "gcs/file", "state": "attributes", "mode": "0666"}),
    ],
)
def test_root_follows_no_link_that_another_user_has_made(
    run: Run, hostile: Path, victim: Path, planted: str, entry: dict[str, str]
) -> None:
    (hostile / planted).symlink_to(victim)
    os.lchown(hostile / planted, *pwd.getpwnam("nobody")[2:4])
    before = attributes(victim)

    answer = run(MODULE, files=[{**entry, "path": str(hostile / entry["path"]), "owner": "nobody"}])

    assert answer["failed"]
    assert f"{hostile}/{planted} is a link that nobody can make, and root does not follow it" in answer["msg"]
    assert attributes(victim) == before
    assert (victim / "file").read_text() == "root's"


def test_root_gives_no_file_away_that_has_another_name(run: Run, hostile: Path, victim: Path) -> None:
    # With fs.protected_hardlinks=0 any user can create a hard link to another user's file.
    os.link(victim / "file", hostile / "file")
    before = attributes(victim)

    kept = run(
        MODULE,
        files=[{"path": str(hostile / "file"), "state": "attributes", "mode": "0666", "owner": "nobody"}],
    )
    put = run(MODULE, files=[{"path": str(hostile / "file"), "content": "new", "mode": "0666", "owner": "nobody"}])

    assert kept["failed"]
    assert put["changed"]
    assert (attributes(victim), (victim / "file").read_text()) == (before, "root's")


def test_a_link_of_root_in_a_directory_of_root_is_followed(run: Run, tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "prefix").symlink_to("disk")

    run(MODULE, files=[{"path": str(tmp_path / "prefix" / "a"), "state": "directory", "mode": "0750"}])

    assert (tmp_path / "disk" / "a").stat().st_mode & 0o777 == 0o750


def test_a_file_that_something_else_has_written_gets_its_attributes_only(run: Run, tmp_path: Path) -> None:
    token = tmp_path / "token"
    entry = {"path": str(token), "state": "attributes", "mode": "0600", **OWN}
    assert "is absent, not a file" in run(MODULE, files=[entry])["msg"]
    assert run(MODULE, files=[entry], check=True)["changed"] is False
    token.write_text("secret")
    token.chmod(0o644)
    written = token.stat().st_mtime_ns

    assert run(MODULE, files=[entry])["different"] == [str(token)]
    assert (token.stat().st_mode & 0o777, token.stat().st_mtime_ns, token.read_text()) == (0o600, written, "secret")
    assert run(MODULE, files=[entry])["changed"] is False


def test_what_is_made_does_not_depend_on_the_umask(run: Run, tmp_path: Path) -> None:
    umask = os.umask(0o077)
    try:
        directory = {"path": str(tmp_path / "opt" / "x"), "state": "directory", "mode": "0755"}
        run(
            MODULE,
            files=[directory, {"path": str(tmp_path / "opt" / "x" / "f"), "content": "", "mode": "0644"}],
        )
    finally:
        os.umask(umask)
    assert [path.stat().st_mode & 0o777 for path in sorted((tmp_path / "opt").rglob("*"))] == [0o755, 0o644]
    assert (tmp_path / "opt").stat().st_mode & 0o777 == 0o755


def test_an_owner_given_by_number_is_the_same_one(run: Run, tmp_path: Path) -> None:
    entry = {"path": str(tmp_path / "d"), "state": "directory", "mode": "0700"}
    numbers = {"owner": str(os.geteuid()), "group": str(os.getegid())}
    assert run(MODULE, files=[{**entry, **numbers}])["changed"]
    assert not run(MODULE, files=[{**entry, **numbers}])["changed"]
