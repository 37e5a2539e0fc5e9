"""Test that files are replaced atomically, never with another content, owner or mode."""

from __future__ import annotations

import errno
import os
import shutil
import stat
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.seedcore.cluster.plugins.module_utils.paths import State, look, put, told


@pytest.mark.parametrize("before", ["", "old"])
@pytest.mark.parametrize("mode", [0o600, 0o640, 0o750])
def test_a_file_has_its_mode_and_content_from_the_moment_it_is_there(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, before: str, mode: int
) -> None:
    path = tmp_path / "wrapper"
    if before:
        path.write_text(before)
    seen: list[tuple[int, str]] = []
    rename = os.rename

    def observed(*arguments: Any, **options: Any) -> None:
        rename(*arguments, **options)
        seen.append((stat.S_IMODE(path.stat().st_mode), path.read_text()))

    monkeypatch.setattr(os, "rename", observed)

    put(path, State("file", "new", mode=mode))

    assert seen == [(mode, "new")]
    assert look(path).mode == mode
    assert [entry.name for entry in tmp_path.iterdir()] == ["wrapper"]


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "No space left on device"),
        (OSError(errno.ENOENT, "No such file or directory", "/a"), "/a: No such file or directory"),
        (shutil.Error([("/a", "/b", "[Errno 28] No space left on device")]), "[Errno 28] No space left on device"),
        (shutil.Error("Destination path '/b' already exists"), "Destination path '/b' already exists"),
    ],
)
def test_every_error_of_a_disk_says_what_it_is(error: OSError, text: str) -> None:
    assert told(error) == text
