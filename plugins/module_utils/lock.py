# SPDX-License-Identifier: Apache-2.0
"""The lock of a deployment: a file beside it that says which run works on it.

Standard library only: this travels to the host inside the modules.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import time
from typing import Any

SYSTEM_DIRECTORY = "/run/lock"


def path(prefix: str) -> str:
    """Return the file of a deployment's lock; outside of the deployment, which may not exist yet."""
    digest = hashlib.sha256(os.path.abspath(prefix).encode()).hexdigest()[:16]  # noqa: PTH100 - links stay as they are
    if os.geteuid() == 0 and os.access(SYSTEM_DIRECTORY, os.W_OK):
        return f"{SYSTEM_DIRECTORY}/seedcore-{digest}"
    return f"{tempfile.gettempdir()}/seedcore-{os.geteuid()}-{digest}.lock"


def read(descriptor: int) -> dict[str, Any]:
    """Return what stands in the file; an empty or broken one is nobody's."""
    try:
        found = json.loads(os.pread(descriptor, 65536, 0))
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def others(holder: dict[str, Any], *, key: str, dead: str, now: float) -> bool:
    """Say whether the lock is held, by somebody else."""
    if not holder or holder.get("key") in (key, dead):
        return False
    return now < float(holder.get("renewed", 0)) + float(holder.get("lease", 0))


def is_held(prefix: str) -> bool:
    """Say whether some run works on a deployment, without taking part."""
    try:
        descriptor = os.open(path(prefix), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        return others(read(descriptor), key="", dead="", now=time.time())
    finally:
        os.close(descriptor)
