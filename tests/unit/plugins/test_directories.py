from __future__ import annotations

import grp
import os
import pwd
from collections.abc import Callable
from pathlib import Path
from typing import Any

Run = Callable[..., dict[str, Any]]
OWN = {"owner": pwd.getpwuid(os.geteuid()).pw_name, "group": grp.getgrgid(os.getegid()).gr_name}


def test_directories_are_made_once_and_mended_when_they_differ(run: Run, tmp_path: Path) -> None:
    wanted = [
        {"path": str(tmp_path / "a"), "mode": "0750", **OWN},
        {"path": str(tmp_path / "a" / "b"), "mode": "0777", **OWN},
    ]

    preview = run("directories", directories=wanted, check=True)
    assert (preview["changed"], preview["different"]) == (True, [entry["path"] for entry in wanted])
    assert not (tmp_path / "a").exists()

    first = run("directories", directories=wanted)
    assert first["different"] == preview["different"]
    assert f"{tmp_path}/a/b: absent" in first["diff"]["before"]
    assert [(tmp_path / name).stat().st_mode & 0o777 for name in ("a", "a/b")] == [0o750, 0o777]

    assert run("directories", directories=wanted)["changed"] is False
    (tmp_path / "a").chmod(0o700)
    assert run("directories", directories=wanted)["different"] == [str(tmp_path / "a")]
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o750


def test_a_file_in_the_way_is_said(run: Run, tmp_path: Path) -> None:
    (tmp_path / "a").touch()

    answer = run("directories", directories=[{"path": str(tmp_path / "a"), "mode": "0700", **OWN}])

    assert answer["failed"]
    assert f"{tmp_path}/a cannot be made: File exists" in answer["msg"]
