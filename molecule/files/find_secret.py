"""Search every place that other users can see for the content of a file, and print each match.

Usage: find_secret.py FILE
"""  # noqa: INP001

import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

SKIPPED = ("/proc", "/sys", "/dev", "/var/cache/seedcore-molecule", "/usr/lib", "/usr/share", "/usr/bin", "/usr/sbin")
MAX_BYTES = 256 * 2**20
COMMANDS = (
    ["journalctl", "--no-pager", "--all"],
    ["systemctl", "show", "*"],
    ["systemctl", "cat", "seedcore-*"],
)


def open_to_all(path: Path) -> bool:
    """Return whether everybody may read a file and enter the directories above it."""
    state = path.lstat()
    if not stat.S_ISREG(state.st_mode) or not state.st_mode & stat.S_IROTH or state.st_size > MAX_BYTES:
        return False
    return all(above.stat().st_mode & stat.S_IXOTH for above in path.parents)


def files() -> Iterator[Path]:
    """Return every file outside of the directories of the distribution."""
    for top, directories, names in os.walk("/"):
        directories[:] = [name for name in directories if not f"{top.rstrip('/')}/{name}".startswith(SKIPPED)]
        yield from (Path(top, name) for name in names)


def places() -> Iterator[tuple[str, bytes]]:
    """Return the name and the content of each place."""
    for path in files():
        try:
            if open_to_all(path):
                yield str(path), path.read_bytes()
        except OSError:
            continue
    for path in [entry / part for entry in Path("/proc").glob("[0-9]*") for part in ("cmdline", "environ")]:
        try:
            yield str(path), path.read_bytes()
        except OSError:
            continue
    for command in COMMANDS:
        yield " ".join(command), subprocess.run(command, capture_output=True, check=False).stdout  # noqa: S603


def main() -> None:
    """Search every place, and count the places."""
    secret = Path(sys.argv[1]).read_bytes().strip()
    looked, found = 0, []
    for name, content in places():
        looked += 1
        if secret in content:
            found.append(name)
    print(f"{looked} places searched")  # noqa: T201
    print("\n".join(found))  # noqa: T201
    sys.exit(bool(found))


main()
