"""End a Ray head whose test session has been killed: a process that waits for the end of its standard input."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from tests.support.processes import end_all

ROOT = Path(__file__).parents[2]
RELEASED = b"released\n"


class Guardian:
    """Kills what carries a mark, and removes a directory, as soon as this process has ended without ``release``.

    xdist kills its workers on Ctrl-C, a job runner kills everything: no fixture cleans up then.
    """

    def __init__(self, mark: str, directory: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.guardian", mark, str(directory)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            # It outlives its session, and must not keep a reader of the session's output waiting.
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            # A signal to the group of the session is not for it.
            start_new_session=True,
        )

    def release(self) -> None:
        """Let it go without doing anything: the head is closed, or a person wants to keep it."""
        if self._process.returncode is None:
            self._process.communicate(RELEASED, timeout=60)


def main(mark: str, directory: str) -> None:
    """Wait, then clean up unless released."""
    if sys.stdin.buffer.read() != RELEASED:
        end_all(mark)
        shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
