"""Plant links, hard links and pipes wherever this user can write; print how many, and where.

With `replace`, it moves aside the content of the topmost of these directories, and puts links in its place.
Usage: plant.py VICTIM_DIRECTORY {around|beside|replace} PLACE...
"""  # noqa: INP001

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

VICTIM, HOW, PLACES = Path(sys.argv[1]), sys.argv[2], sys.argv[3:]
# Below a directory that this user may not enter: Ray's log monitor ends the node over a log that it may not open.
SECRET = VICTIM / "inside" / "shadow"
# Names that a deployment, Ansible or Ray might use one day.
NAMES = ("seedcore", "seedcore-0123456789ab", "ray", "ansible-tmp-1", "job", "planted", "-rf", "line\nfeed")


def writable() -> Iterator[Path]:
    """Return the directories below the places in which this user may create and rename files."""
    for place in PLACES:
        for top, _directories, _names in os.walk(place):
            if os.access(top, os.W_OK | os.X_OK):
                yield Path(top)


def put(path: Path, target: Path) -> int:
    """Make a link if the path is free; return the number of links made."""
    with contextlib.suppress(OSError):
        path.symlink_to(target)
        return 1
    return 0


def beside(here: Path) -> int:
    """Plant links, hard links and pipes beside the files of a directory."""
    made = sum(put(here / name, target) for name, target in zip(NAMES, [VICTIM, SECRET] * 4, strict=True))
    made += put(here / "worker-hostile-1.err", SECRET)
    with contextlib.suppress(OSError):
        os.mkfifo(here / "worker-pipe-1.err")
        made += 1
    with contextlib.suppress(OSError):
        (here / "worker-hard-1.err").hardlink_to(VICTIM / "open")
        made += 1
    return made


def replace(here: Path) -> int:
    """Move everything in a directory aside, and put links to the victim in its place."""
    made = 0
    for path in list(here.iterdir()):
        if path.name.startswith(".moved-"):
            continue
        # A link may lead where this user may not look: is_dir() would raise PermissionError.
        target = VICTIM if not path.is_symlink() and path.is_dir() else SECRET
        with contextlib.suppress(OSError):
            path.rename(here / f".moved-{path.name}")
            made += put(path, target)
    return made


found = list(writable())
tops = [path for path in found if path.parent not in found]
count = sum(map(replace, tops)) if HOW == "replace" else sum(map(beside, found))
print(f"{count} planted in {len(found)} directories: {sorted(map(str, tops))}")  # noqa: T201
sys.exit(not count)
