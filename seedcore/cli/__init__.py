"""The command line ``seedcore``; ``app.py`` holds the commands.

It imports nothing heavy, so that even an early Ctrl-C is handled.
"""

from __future__ import annotations

import sys
from typing import NoReturn

INTERRUPTED = 130


def main() -> NoReturn:
    """Run the command line and exit with its code."""
    from seedcore.cli.output import keep_descriptor  # noqa: PLC0415 - see above

    keep_descriptor()
    try:
        from seedcore.cli.app import cli  # noqa: PLC0415 - see above

        cli.main(prog_name="seedcore")
    except KeyboardInterrupt:
        # Click handles Ctrl-C while a command runs; this covers the time before and after.
        sys.stderr.write("interrupted\n")
    sys.exit(INTERRUPTED)
