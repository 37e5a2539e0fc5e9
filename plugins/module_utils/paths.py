"""Read and write paths safely, without following links that another user could have made.

A user who can write to a directory can put a link into it. Root follows a link only if root made it and nobody else
could have; it refuses every other link, wherever it is in the path. Other users follow any link, because it gives them
no more than their own rights.

It uses only the standard library, because it is copied to the host inside the modules.
"""

from __future__ import annotations

import contextlib
import errno
import grp
import os
import pwd
import secrets
import shutil
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# The options of one path in the module files.
NEEDS = {
    "file": ("content", "mode"),
    "directory": ("mode",),
    "link": ("target",),
    "absent": (),
    "attributes": ("mode",),
}
OPTIONS: dict[str, Any] = {
    "path": {"type": "path", "required": True},
    "state": {"type": "str", "choices": list(NEEDS), "default": "file"},
    **{option: {"type": "str"} for option in ("content", "target", "owner", "group", "mode")},
}

_KINDS = {stat.S_IFDIR: "directory", stat.S_IFREG: "file", stat.S_IFLNK: "link"}
_MAX_LINKS = 40
_STEP = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_WRITABLE_BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH


class UntrustedLinkError(OSError):
    """A path contains a link that another user could have made."""

    def __init__(self, path: Path | str, owner: str) -> None:
        text = f"{path} is a link that {owner} can make, and root does not follow it: remove the link"
        super().__init__(errno.ELOOP, text)


@dataclass(frozen=True)
class State:
    """Present or wanted state of a path; ``text`` is the content of a file or the target of a link."""

    kind: str
    text: str = ""
    owner: str = ""
    group: str = ""
    mode: int = 0

    def attributes(self) -> str:
        """Describe it in one line, without its text."""
        more = f" {self.owner}:{self.group} {self.mode:04o}" if self.kind in ("file", "directory") else ""
        return f"{self.kind}{more}"


@contextlib.contextmanager
def directory(path: Path | str, *, make: bool = False) -> Iterator[int]:
    """Open a directory for calls with ``dir_fd``; with ``make``, create missing parts, readable for all.

    Raises:
        UntrustedLinkError: The path contains a link that root does not follow.
        OSError: It does not exist, or is not a directory.
    """
    descriptor = os.open("/", _STEP)
    here = Path("/")
    pending = [part for part in Path(os.path.abspath(path)).parts if part != "/"][::-1]  # noqa: PTH100 - keeps links
    links = 0
    try:
        while pending:
            part = pending.pop()
            try:
                deeper = _entered(descriptor, part, make=make)
            except OSError as error:
                if error.errno not in (errno.ELOOP, errno.ENOTDIR) or not _is_link(part, descriptor):
                    error.filename = str(here / part)
                    raise
                _refuse_untrusted(descriptor, part, here)
                links += 1
                if links > _MAX_LINKS:
                    raise OSError(errno.ELOOP, "too many links", str(here / part)) from error
                target = Path(os.readlink(part, dir_fd=descriptor))
                pending += [name for name in target.parts if name != "/"][::-1]
                if not target.is_absolute():
                    continue
                deeper, part = os.open("/", _STEP), "/"
            os.close(descriptor)
            descriptor, here = deeper, here / part
        yield descriptor
    finally:
        os.close(descriptor)


def is_ours(path: Path) -> bool:
    """Return whether only root and the present user could have created anything at or below a path."""
    mine = (0, os.geteuid())
    try:
        for place in (path.resolve(), *path.resolve().parents):
            status = place.stat()
            open_to_others = status.st_mode & _WRITABLE_BY_OTHERS and (
                place == path or not status.st_mode & stat.S_ISVTX
            )
            if status.st_uid not in mine or open_to_others:
                return False
    except OSError:
        return False
    return not _has_untrusted_link(path)


def _has_untrusted_link(path: Path) -> bool:
    try:
        with directory(path):
            return False
    except OSError:
        return True


def look(path: Path, *, follow: bool = False) -> State:
    """Return the state of a path; with ``follow``, a link to a directory counts as the directory.

    Raises:
        UntrustedLinkError: The path contains a link that root does not follow.
        OSError: It cannot be read.
    """
    try:
        with directory(path.parent) as parent:
            return _look(parent, path, follow=follow)
    except (FileNotFoundError, NotADirectoryError):
        return State("absent")


def name(database: Any, number: int) -> str:
    """Return the name of a user or a group, or its number if it has no name."""
    try:
        return str(database(number)[0])
    except KeyError:
        return str(number)


def named(database: Any, given: str) -> str:
    """Return the name of a user or a group, given by name or by number."""
    return name(database, int(given)) if given.isdigit() else given


def wanted(entry: dict[str, Any], now: State) -> State:
    """Return the wanted state of a path for an entry of the module files and its present state ``now``.

    An owner or group that is not given is kept, or that of this process for a new path.
    """
    kind = entry["state"]
    if kind in ("link", "absent"):
        return State(kind, text=entry["target"] if kind == "link" else "")
    if kind == "attributes" and now.kind == "absent":
        # In check mode the task that would write it has not run.
        return now
    owner = entry["owner"] or now.owner or name(pwd.getpwuid, os.geteuid())
    group = entry["group"] or now.group or name(grp.getgrgid, os.getegid())
    if kind == "attributes":
        kind, text = now.kind, now.text
    else:
        text = entry["content"] if kind == "file" else ""
    return State(kind, text, named(pwd.getpwuid, owner), named(grp.getgrgid, group), int(entry["mode"], 8))


def numbers(owner: str, group: str) -> tuple[int, int]:
    """Return the numbers of a user and a group, each given by name or number; -1 for an empty one.

    Raises:
        LookupError: There is no such user or group.
    """
    uid = gid = -1
    try:
        if owner:
            uid = int(owner) if owner.isdigit() else pwd.getpwnam(owner).pw_uid
        if group:
            gid = int(group) if group.isdigit() else grp.getgrnam(group).gr_gid
    except KeyError as error:
        raise LookupError(f"there is no {'group' if uid != -1 or not owner else 'user'} {error.args[0]}") from error
    return uid, gid


def put(path: Path, then: State) -> None:
    """Write a file, a link or a directory atomically, with its owner and mode from the start.

    Attributes that are not given are kept for a file. The target of a link is not touched.

    Raises:
        UntrustedLinkError: The path contains a link that root does not follow.
        LookupError: There is no such user or group.
        OSError: It cannot be written.
    """
    if then.kind == "directory":
        _put_directory(path, then)
        return
    with directory(path.parent) as parent:
        beside = f".{path.name}.{secrets.token_hex(8)}"
        try:
            if then.kind == "link":
                os.symlink(then.text, beside, dir_fd=parent)
            else:
                _write(parent, path.name, beside, then)
            os.rename(beside, path.name, src_dir_fd=parent, dst_dir_fd=parent)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(beside, dir_fd=parent)
            raise


def remove(path: Path) -> None:
    """Remove a file or a link."""
    with directory(path.parent) as parent:
        os.unlink(path.name, dir_fd=parent)


def set_attributes(path: Path, then: State) -> None:
    """Set owner, group and mode of an existing file, and keep its content and its times.

    Raises:
        OSError: It is not a file, or it has a second hard link and may belong to somebody else.
    """
    with directory(path.parent) as parent:
        descriptor = os.open(path.name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode) or status.st_nlink != 1:
                raise OSError(errno.EPERM, "it is not a file, or has a second hard link", str(path))
            _give(descriptor, then)
        finally:
            os.close(descriptor)


def _put_directory(path: Path, then: State) -> None:
    with directory(path.parent, make=True) as parent, contextlib.suppress(FileExistsError):
        # Not accessible for others until it has its owner.
        os.mkdir(path.name, 0o700, dir_fd=parent)
    with directory(path) as here:
        _give(here, then)


def _give(descriptor: int, then: State) -> None:
    """Set owner and mode through a descriptor, so that they apply to the opened file, whatever has its name now."""
    uid, gid = numbers(then.owner, then.group)
    itself = f"/proc/self/fd/{descriptor}"
    status = os.fstat(descriptor)
    if (uid, gid) != (-1, -1) and (status.st_uid, status.st_gid) != (uid, gid):
        os.chown(itself, uid, gid)
    # A change of the owner clears the setuid bits.
    os.chmod(itself, then.mode)  # noqa: PTH101 - of a descriptor


def _write(parent: int, name: str, beside: str, then: State) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with os.fdopen(os.open(beside, flags, 0o600, dir_fd=parent), "w", encoding="utf-8", newline="") as stream:
        with contextlib.suppress(FileNotFoundError):
            there = os.stat(name, dir_fd=parent, follow_symlinks=False)
            if stat.S_ISREG(there.st_mode):
                os.fchown(stream.fileno(), there.st_uid, there.st_gid)
        uid, gid = numbers(then.owner, then.group)
        if (uid, gid) != (-1, -1):
            os.fchown(stream.fileno(), uid, gid)
        stream.write(then.text)
        os.fchmod(stream.fileno(), then.mode or 0o600)


def _look(parent: int, path: Path, *, follow: bool) -> State:
    status = os.stat(path.name or ".", dir_fd=parent, follow_symlinks=False)
    if follow and stat.S_ISLNK(status.st_mode):
        try:
            with directory(path) as there:
                status = os.fstat(there)
        except (FileNotFoundError, NotADirectoryError):
            pass
    kind = _KINDS.get(stat.S_IFMT(status.st_mode), "something else")
    if kind == "link":
        return State(kind, text=os.readlink(path.name, dir_fd=parent))
    text = _read(parent, path.name) if kind == "file" else ""
    owner, group = name(pwd.getpwuid, status.st_uid), name(grp.getgrgid, status.st_gid)
    return State(kind, text, owner, group, stat.S_IMODE(status.st_mode))


def _read(parent: int, name: str) -> str:
    descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=parent)
    with os.fdopen(descriptor, "rb") as stream:
        return stream.read().decode(errors="replace")


def _entered(descriptor: int, part: str, *, make: bool) -> int:
    try:
        return os.open(part, _STEP, dir_fd=descriptor)
    except FileNotFoundError:
        if not make:
            raise
    os.mkdir(part, 0o700, dir_fd=descriptor)
    made = os.open(part, _STEP, dir_fd=descriptor)
    # Independent of the umask.
    os.chmod(f"/proc/self/fd/{made}", 0o755)  # noqa: PTH101, S103 - of a descriptor; a directory above a deployment
    return made


def _is_link(part: str, descriptor: int) -> bool:
    return stat.S_ISLNK(os.stat(part, dir_fd=descriptor, follow_symlinks=False).st_mode)


def _refuse_untrusted(descriptor: int, part: str, here: Path) -> None:
    """Raise if another user than root or the present user could have made the link."""
    me = os.geteuid()
    if me != 0:
        return
    link, holder = os.stat(part, dir_fd=descriptor, follow_symlinks=False), os.fstat(descriptor)
    if link.st_uid != 0:
        raise UntrustedLinkError(here / part, name(pwd.getpwuid, link.st_uid))
    if holder.st_uid != 0:
        raise UntrustedLinkError(here / part, name(pwd.getpwuid, holder.st_uid))
    if holder.st_mode & _WRITABLE_BY_OTHERS and not holder.st_mode & stat.S_ISVTX:
        raise UntrustedLinkError(here / part, "anybody")


def told(error: OSError) -> str:
    """Return an error for people, with its path if that is known: a full disk names none, a copied tree has several."""
    if isinstance(error, shutil.Error):
        causes = error.args[0]
        return str(causes[0][-1] if isinstance(causes, list) and causes else causes)
    named = [str(error.filename)] if error.filename is not None else []
    return ": ".join([*named, error.strerror or str(error)])
