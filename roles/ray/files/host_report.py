"""Print, as JSON, what a host has for a deployment under the directory in the first argument.

Run by the Python that the deployment would be made from.
"""

import importlib.util
import json
import os
import platform
import sys


def main() -> None:
    """Look, and print one document."""
    prefix = os.path.abspath(sys.argv[1])
    parent = prefix
    while not os.path.isdir(parent):
        parent = os.path.dirname(parent)
    disk = os.statvfs(parent)
    shm = os.statvfs("/dev/shm") if os.path.isdir("/dev/shm") else None  # noqa: S108
    entries = os.listdir(prefix) if os.path.isdir(prefix) and os.access(prefix, os.R_OK) else []
    report = {
        "python": platform.python_version(),
        "venv": importlib.util.find_spec("ensurepip") is not None,
        "disk_mib": disk.f_bavail * disk.f_frsize // 2**20,
        "shm_mib": shm.f_blocks * shm.f_frsize // 2**20 if shm else 0,
        "writable": os.access(parent, os.W_OK | os.X_OK),
        "parent": parent,
        "foreign": bool(entries) and ".seedcore" not in entries,
    }
    print(json.dumps(report))


main()
