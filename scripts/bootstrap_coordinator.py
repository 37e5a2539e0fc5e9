#!/usr/bin/env python3
"""Bring up the Coordinator: run ``seedcore bootstrap`` under the name that the mission's document gives it.

Options and exit codes are the same; ``--help`` lists them.
"""

from __future__ import annotations

import sys

try:
    from seedcore.cli.app import cli
except ModuleNotFoundError as error:
    sys.exit(f"{error}. Let this shell use the deployment's Python first: . ~/.local/share/seedcore/bin/activate")

if __name__ == "__main__":
    cli.main(["bootstrap", *sys.argv[1:]], prog_name="seedcore")
