"""Where the inbox is: its directory, the file system below it, and the lock that one Coordinator holds.

A database in a network file system may be damaged, because locks and fsync do not mean there what they mean on a disk.
Two processes that write to one database may damage it as well, so a process opens it only while it holds the lock.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
from dataclasses import dataclass
from pathlib import Path

from seedcore.core.errors import SeedCoreError
from seedcore.core.state_file import lock
from seedcore.status.host_processes import start_ticks

DATABASE = "inbox.sqlite3"
LOCK = "owner.lock"
# How long a process that is being replaced may take to end before it is killed.
ENDS_WITHIN_S = 5.0
KILLED_WITHIN_S = 5.0
_REMOTE = ("nfs", "cifs", "smb", "9p", "afs", "ceph", "lustre", "beegfs", "gpfs", "glusterfs", "ocfs2", "gfs2", "fuse")
_LOCAL = ("fuseblk",)


class PlaceError(SeedCoreError):
    """The inbox cannot be in this directory."""


class InUseError(SeedCoreError):
    """Another process holds the inbox."""


def file_system(path: str, mounts: str) -> str:
    """Return the type of the file system of an absolute path.

    Args:
        path: The path, without symbolic links.
        mounts: Content of ``/proc/self/mountinfo``.
    """
    best, kind = "", "unknown"
    for line in mounts.splitlines():
        before, _, after = line.partition(" - ")
        fields = before.split(" ")
        if len(fields) <= 4 or not after:  # noqa: PLR2004 - the fifth field is the mount point
            continue
        point = fields[4].replace("\\040", " ").replace("\\011", "\t").replace("\\134", "\\")
        is_above = path == point or path.startswith(point.rstrip("/") + "/")
        # A later mount at the same point hides the earlier one.
        if is_above and len(point) >= len(best):
            best, kind = point, after.split(" ")[0]
    return kind


def is_remote(kind: str) -> bool:
    """Return whether files of this type of file system are, or may be, on another host."""
    return kind not in _LOCAL and kind.startswith(_REMOTE)


def prepare(directory: Path) -> Path:
    """Make the directory, for its owner only; return the path of the database.

    Raises:
        PlaceError: It cannot be made, or is in a network file system.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        directory.chmod(0o700)
        where = directory.resolve()
        kind = file_system(str(where), Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="replace"))
    except OSError as error:
        raise PlaceError(f"the directory {directory} cannot be used: {error.strerror}") from error
    if is_remote(kind):
        text = f"the directory {directory} is in a {kind} file system; the inbox needs a local disk"
        raise PlaceError(f"{text}: set SEEDCORE_STATE_DIR to a directory on one")
    database = where / DATABASE
    # SQLite gives the files beside it the mode of the database.
    with contextlib.suppress(FileExistsError):
        os.close(os.open(database, os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    return database


@dataclass(frozen=True, slots=True)
class Owner:
    """The process that holds the lock, as it has written itself down.

    Attributes:
        pid: Its process id.
        started: When it started, in clock ticks after the start of the host.
        host: Id of that start of the host.
        deployment: Namespace of its Coordinator.
    """

    pid: int
    started: int
    host: str
    deployment: str

    @classmethod
    def myself(cls, deployment: str) -> Owner:
        """Return this process."""
        return cls(os.getpid(), start_ticks(os.getpid()) or 0, _host(), deployment)

    @classmethod
    def parse(cls, text: str) -> Owner | None:
        """Read what an owner has written; None if it is unreadable."""
        try:
            data = json.loads(text)
            return cls(int(data["pid"]), int(data["started"]), str(data["host"]), str(data["deployment"]))
        except (ValueError, KeyError, TypeError):
            return None

    def to_text(self) -> str:
        """Return what :meth:`parse` reads."""
        data = {"pid": self.pid, "started": self.started, "host": self.host, "deployment": self.deployment}
        return json.dumps(data) + "\n"

    @property
    def lives(self) -> bool:
        """Whether exactly this process is there, and not another one with its pid."""
        return self.host == _host() and start_ticks(self.pid) == self.started


class Lock:
    """The lock of one inbox; the kernel frees it when its process ends.

    Args:
        directory: The directory of the inbox.
        deployment: Namespace of this Coordinator.
    """

    def __init__(self, directory: Path, deployment: str) -> None:
        self._path = directory / LOCK
        self._deployment = deployment
        self._descriptor: int | None = None

    def take(self) -> None:
        """Take the lock; end a predecessor of this deployment that does not end by itself.

        A predecessor that was stopped within a transaction would hold the database for ever.

        Raises:
            InUseError: Another deployment holds it, or it could not be taken.
        """
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            if not lock(descriptor):
                self._take_over(descriptor)
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, Owner.myself(self._deployment).to_text().encode(), 0)
        except BaseException:
            os.close(descriptor)
            raise
        self._descriptor = descriptor

    def free(self) -> None:
        """Give the lock back."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)

    def _take_over(self, descriptor: int) -> None:
        owner = Owner.parse(os.pread(descriptor, 4096, 0).decode("utf-8", "replace"))
        if owner is not None and owner.deployment != self._deployment and owner.lives:
            text = f"the inbox in {self._path.parent} belongs to the deployment {owner.deployment!r} (pid {owner.pid})"
            raise InUseError(f"{text}; each deployment needs a state directory of its own")
        if lock(descriptor, timeout_s=ENDS_WITHIN_S):
            return
        # Read it again: another successor may have been quicker.
        owner = Owner.parse(os.pread(descriptor, 4096, 0).decode("utf-8", "replace"))
        if owner is None or owner.deployment != self._deployment or owner.pid == os.getpid() or not owner.lives:
            raise InUseError(f"another process holds {self._path}, and its owner is not the one that is written there")
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(owner.pid, signal.SIGKILL)
        if not lock(descriptor, timeout_s=KILLED_WITHIN_S):
            raise InUseError(f"the Coordinator's earlier process (pid {owner.pid}) holds {self._path} and does not end")


def _host() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
