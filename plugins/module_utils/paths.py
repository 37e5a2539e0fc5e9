# SPDX-License-Identifier: Apache-2.0
"""What is at a path, and putting something there.

Standard library only: this travels to the host inside the modules.
"""

from __future__ import annotations

import grp
import os
import pwd
import stat
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_KINDS = {stat.S_IFDIR: "directory", stat.S_IFREG: "file", stat.S_IFLNK: "link"}


@dataclass(frozen=True)
class State:
    """What is at a path, or shall be there; text is a file's content or where a link leads."""

    kind: str
    text: str = ""
    owner: str = ""
    group: str = ""
    mode: int = 0

    def attributes(self) -> str:
        """Say in one line what it is, without its text."""
        more = f" {self.owner}:{self.group} {self.mode:04o}" if self.kind in ("file", "directory") else ""
        return f"{self.kind}{more}"


def look(path: Path, *, follow: bool = False) -> State:
    """Say what is at a path; with ``follow`` a link that leads to a directory is that directory."""
    try:
        status = path.stat() if follow and path.is_dir() else path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return State("absent")
    kind = _KINDS.get(stat.S_IFMT(status.st_mode), "something else")
    if kind == "link":
        return State(kind, text=str(path.readlink()))
    text = path.read_bytes().decode(errors="replace") if kind == "file" else ""
    owner, group = name(pwd.getpwuid, status.st_uid), name(grp.getgrgid, status.st_gid)
    return State(kind, text, owner, group, stat.S_IMODE(status.st_mode))


def name(database: Any, number: int) -> str:
    """Return the name of a user or a group, or its number where it has none."""
    try:
        return str(database(number)[0])
    except KeyError:
        return str(number)


def put(path: Path, then: State) -> None:
    """Put a file or a link into its place, whole; a file is closed until it has its owner and its mode."""
    if then.kind == "link":
        beside = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
        try:
            Path(beside, "link").symlink_to(then.text)
            Path(beside, "link").replace(path)
        finally:
            beside.rmdir()
        return
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8", newline="") as stream:
            stream.write(then.text)
        if path.exists() and not path.is_symlink():
            # Whose it is stays, unless something else is asked for; what a link leads to is another file.
            os.chown(name, path.stat().st_uid, path.stat().st_gid)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
