from __future__ import annotations

import grp
import os
import pwd
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Run = Callable[..., dict[str, Any]]
OWN = {"owner": pwd.getpwuid(os.geteuid()).pw_name, "group": grp.getgrgid(os.getegid()).gr_name}


def test_directories_are_made_once_and_mended_when_they_differ(run: Run, tmp_path: Path) -> None:
    wanted = [
        {"path": str(tmp_path / "a"), "state": "directory", "mode": "0750", **OWN},
        {"path": str(tmp_path / "a" / "b"), "state": "directory", "mode": "0777", **OWN},
    ]

    preview = run("files", files=wanted, check=True)
    assert (preview["changed"], preview["different"]) == (True, [entry["path"] for entry in wanted])
    assert not (tmp_path / "a").exists()

    first = run("files", files=wanted)
    assert first["different"] == preview["different"]
    assert first["diff"][1]["before_header"] == f"{tmp_path}/a/b (absent)"
    assert [(tmp_path / name).stat().st_mode & 0o777 for name in ("a", "a/b")] == [0o750, 0o777]

    assert run("files", files=wanted)["changed"] is False
    (tmp_path / "a").chmod(0o700)
    assert run("files", files=wanted)["different"] == [str(tmp_path / "a")]
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

    preview = run("files", files=wanted, check=True)
    assert preview["different"] == [entry["path"] for entry in wanted]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["gone"]

    first = run("files", files=wanted)
    assert first["diff"] == preview["diff"]
    assert (text.read_bytes(), text.stat().st_mode & 0o777) == (b"one\r\ntwo\xc3\xa9\n", 0o640)
    assert link.readlink() == Path("d/text")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["d", "link", "text"], "nothing else is left"

    assert run("files", files=wanted)["changed"] is False
    text.write_text("other")
    link.unlink()
    link.symlink_to("elsewhere")
    second = run("files", files=wanted)
    assert second["different"] == [str(text), str(link)]
    assert (second["diff"][0]["before"], second["diff"][1]["before"]) == ("other", "elsewhere")
    assert (text.read_bytes(), link.readlink()) == (b"one\r\ntwo\xc3\xa9\n", Path("d/text"))

    text.chmod(0o600)
    assert run("files", files=wanted)["diff"][0]["after"] == f"file {OWN['owner']}:{OWN['group']} 0640\n"


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
    run("files", files=[directory, {"path": str(tmp_path / "there" / "text"), "content": "new", "mode": "0600"}])

    assert (tmp_path / "there").is_symlink()
    assert (tmp_path / "real").stat().st_mode & 0o777 == 0o711
    assert ((tmp_path / "real" / "text").read_text(), (tmp_path / "secret").read_text()) == ("new", "keep")
    assert (tmp_path / "real" / "text").stat().st_uid == os.geteuid(), "it is not given to the owner of the other file"


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        ({"state": "directory", "mode": "0700"}, "is a file, and would have to be a directory: move it away"),
        ({"mode": "0700"}, "a file needs content"),
        ({}, "a file needs content and mode"),
        ({"state": "link"}, "a link needs target"),
        ({"content": "", "mode": "rw"}, "mode is 'rw', allowed is octal text such as"),
        ({"content": "", "mode": "0888"}, "mode is '0888', allowed is octal text such as"),
    ],
)
def test_an_entry_that_cannot_be_is_said_and_nothing_is_made(
    run: Run, tmp_path: Path, entry: dict[str, str], says: str
) -> None:
    path = tmp_path / "a"
    path.write_text("mine")

    answer = run(
        "files",
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
        answer = run("files", files=[{"path": str(tmp_path / "a"), **entry}])
        assert answer["failed"]
        assert f"{tmp_path}/a is a directory, and would have to be" in answer["msg"]
    assert (tmp_path / "a").is_dir()
