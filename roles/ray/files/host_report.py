"""Print, as JSON, what a host has for a deployment under the directory in the first argument.

Run by the Python that the deployment would be made from, which may be too old: nothing new in here.
"""  # noqa: INP001

import importlib.util
import json
import os
import platform
import ssl
import sys
from pathlib import Path


def main() -> None:
    """Look, and print one document."""
    prefix = Path(sys.argv[1])
    parent = next(path for path in (prefix, *prefix.parents) if path.is_dir())
    disk = os.statvfs(str(parent))
    shm = os.statvfs("/dev/shm") if Path("/dev/shm").is_dir() else None  # noqa: S108
    entries = (
        {entry.name for entry in prefix.iterdir()} if parent == prefix and os.access(str(prefix), os.R_OK) else set()
    )
    trust = [Path(path) for path in ssl.get_default_verify_paths()[:2] if path]
    report = {
        "python": platform.python_version(),
        "venv": importlib.util.find_spec("ensurepip") is not None,
        "certificates": any(path.is_file() or (path.is_dir() and any(path.iterdir())) for path in trust),
        "disk_mib": disk.f_bavail * disk.f_frsize // 2**20,
        "shm_mib": shm.f_blocks * shm.f_frsize // 2**20 if shm else 0,
        "writable": os.access(str(parent), os.W_OK | os.X_OK),
        "parent": str(parent),
        "foreign": bool(entries) and ".seedcore" not in entries,
    }
    sys.stdout.write(json.dumps(report) + "\n")


main()
