"""End a Ray head whose test session was killed; the guardian is a process that waits for the end of its input."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from tests.support.processes import end_all

ROOT = Path(__file__).parents[2]
RELEASED = b"released\n"


class Guardian:
    """Kills marked processes and removes a directory as soon as this process has ended without ``release``.

    It is needed because no fixture cleans up when xdist kills its workers on Ctrl-C, or a job runner kills everything.
    """

    def __init__(self, mark: str, directory: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.guardian", mark, str(directory)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            # It outlives its session, and must not keep the session's output open for a reader.
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            # A signal to the session's process group must not reach it.
            start_new_session=True,
        )

    def release(self) -> None:
        """End the guardian without cleaning up: the head is closed, or a user wants to keep it."""
        if self._process.returncode is None:
            self._process.communicate(RELEASED, timeout=60)


def main(mark: str, directory: str) -> None:
    """Wait, then clean up unless released."""
    if sys.stdin.buffer.read() != RELEASED:
        end_all(mark)
        shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
