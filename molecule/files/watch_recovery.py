"""Watch the status on the head until it is healthy again, and print the reasons in between, as JSON.

Fails if a healthy report names one of the given pids, or if the status is not healthy in time.
Usage: watch_recovery.py SECONDS PID...
"""  # noqa: INP001

import json
import subprocess
import sys
import time

SEEDCORE = "/opt/seedcore/bin/seedcore"


def status() -> dict[str, object]:
    """Return the current report."""
    done = subprocess.run([SEEDCORE, "status", "--json"], capture_output=True, check=False, timeout=60)  # noqa: S603
    report = json.loads(done.stdout)
    if (done.returncode == 0) is not report["healthy"]:
        sys.exit(f"exit code {done.returncode}, but healthy is {report['healthy']}")
    return dict(report)


def claimed(report: dict[str, object]) -> set[int]:
    """Return every pid that a report names."""
    coordinator = report["coordinator"]
    return {coordinator["pid"], *(replica["pid"] for organ in coordinator["organs"] for replica in organ["replicas"])}


begun = time.monotonic()
deadline, broken = begun + float(sys.argv[1]), set(map(int, sys.argv[2:]))
said: list[str] = []
while time.monotonic() < deadline:
    now = status()
    if now["healthy"]:
        if claimed(now) & broken:
            sys.exit(f"healthy, with dead processes: {now}")
        break
    if [str(now["reason"])] != said[-1:]:
        said.append(str(now["reason"]))
else:
    sys.exit(f"not healthy again: {said} {now}")
print(json.dumps({"after_s": round(time.monotonic() - begun, 1), "said": said}))  # noqa: T201
