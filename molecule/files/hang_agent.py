"""Stop the dashboard agent of this host's Ray node with SIGSTOP, so that the node runs but is unhealthy."""  # noqa: INP001

import os
import signal
from pathlib import Path

stopped = 0
for entry in Path("/proc").glob("[0-9]*/cmdline"):
    try:
        found = entry.read_bytes().startswith(b"ray::DashboardAgent")
    except OSError:
        continue
    if found:
        os.kill(int(entry.parent.name), signal.SIGSTOP)
        stopped += 1
print(f"{stopped} agents stopped")  # noqa: T201
raise SystemExit(stopped != 1)
