"""Act as the user of a deployment instead of root.

It uses only the standard library, because it is copied to the host inside the modules.
"""

from __future__ import annotations

import contextlib
import os
import pwd
from collections.abc import Iterator
from typing import Any


def other(user: str | None) -> pwd.struct_passwd | None:
    """Return the account that root must switch to for a user; None if there is none to switch to.

    Raises:
        LookupError: There is no such user.
    """
    if not user or os.geteuid() != 0:
        return None
    try:
        account = pwd.getpwuid(int(user)) if user.isdigit() else pwd.getpwnam(user)
    except KeyError as error:
        raise LookupError(f"there is no user {user}") from error
    return account if account.pw_uid != 0 else None


def popen_options(user: str | None) -> dict[str, Any]:
    """Return the arguments of ``subprocess.Popen`` that run a command as this user, with its groups."""
    account = other(user)
    if account is None:
        return {}
    groups = os.getgrouplist(account.pw_name, account.pw_gid)
    return {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": groups, "cwd": "/"}


def environment(user: str | None) -> dict[str, str]:
    """Return the environment for ``popen_options``."""
    account = other(user)
    if account is None:
        return {}
    return {"HOME": account.pw_dir, "USER": account.pw_name, "LOGNAME": account.pw_name}


@contextlib.contextmanager
def acting_as(user: str | None) -> Iterator[None]:
    """Open files with this user's rights until the end of the block; only in a process with one thread."""
    account = other(user)
    if account is None:
        yield
        return
    groups, gid = os.getgroups(), os.getegid()
    os.setgroups(os.getgrouplist(account.pw_name, account.pw_gid))
    os.setegid(account.pw_gid)
    os.seteuid(account.pw_uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(gid)
        os.setgroups(groups)
