# SPDX-License-Identifier: Apache-2.0
"""The lock of a deployment: a file outside of it that names the run that works on it.

It uses only the standard library, because it is copied to the host inside the modules.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import pwd
import stat
import tempfile
import time
from pathlib import Path
from typing import Any

# Only root can write here: in a public directory anybody could hold the lock, or put a link in its place.
SYSTEM_DIRECTORY = "/run/seedcore"
POLL_S = 0.05


def path(prefix: str) -> str:
    """Return the lock file of a deployment; it is outside of the deployment, which may not exist yet."""
    digest = hashlib.sha256(os.path.abspath(prefix).encode()).hexdigest()[:16]  # noqa: PTH100 - links stay as they are
    if os.geteuid() == 0:
        return f"{SYSTEM_DIRECTORY}/{digest}.lock"
    return f"{_own_directory()}/.seedcore-{os.geteuid()}-{digest}.lock"


def opened(path: str, *, timeout_s: float) -> int:
    """Open the file and hold a lock on it while it is read and written.

    Raises:
        OSError: The file cannot be opened, belongs to another user, or was held for ``timeout_s`` seconds.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        _make_system_directory(path)
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except FileNotFoundError:
            # The run that has just released its lock has removed the directory as well.
            if time.monotonic() >= deadline:
                raise
            continue
        try:
            _hold(descriptor, deadline)
            if os.fstat(descriptor).st_nlink:
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        # The previous holder has removed this file meanwhile; the next run opens another one.
        os.close(descriptor)


def removed(path: str) -> None:
    """Remove the file while it is held, and the directory if it is empty then."""
    Path(path).unlink()
    if path.startswith(f"{SYSTEM_DIRECTORY}/"):
        with contextlib.suppress(OSError):
            Path(SYSTEM_DIRECTORY).rmdir()


def read(descriptor: int) -> dict[str, Any]:
    """Return the content of the file; empty if it is empty or broken."""
    try:
        found = json.loads(os.pread(descriptor, 65536, 0))
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def others(holder: dict[str, Any], *, key: str, dead: str, now: float) -> bool:
    """Return whether another run holds the lock."""
    if not holder or holder.get("key") in (key, dead):
        return False
    return now < float(holder.get("renewed", 0)) + float(holder.get("lease", 0))


def is_held(prefix: str) -> bool:
    """Return whether some run works on a deployment, without taking the lock."""
    try:
        descriptor = os.open(path(prefix), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        return others(read(descriptor), key="", dead="", now=time.time())
    finally:
        os.close(descriptor)


def _own_directory() -> str:
    """Return the user's home, or the directory for temporary files if there is none."""
    try:
        home = Path(pwd.getpwuid(os.geteuid()).pw_dir)
        if home.stat().st_uid == os.geteuid() and os.access(home, os.W_OK):
            return str(home)
    except (KeyError, OSError):
        pass
    return tempfile.gettempdir()


def _make_system_directory(path: str) -> None:
    if not path.startswith(f"{SYSTEM_DIRECTORY}/"):
        return
    with contextlib.suppress(FileExistsError):
        os.mkdir(SYSTEM_DIRECTORY, 0o700)  # noqa: PTH102 - beside the call below
    status = os.stat(SYSTEM_DIRECTORY, follow_symlinks=False)  # noqa: PTH116 - no link
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != 0 or status.st_mode & 0o022:
        text = f"{SYSTEM_DIRECTORY} is not a directory that only root can write: move it away"
        raise PermissionError(errno.EPERM, text)


def _hold(descriptor: int, deadline: float) -> None:
    if os.fstat(descriptor).st_uid != os.geteuid():
        raise PermissionError(errno.EPERM, "it belongs to another user: remove it")
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise TimeoutError(errno.ETIMEDOUT, "another process keeps it open and locked") from None
            time.sleep(POLL_S)
        else:
            return
