#!/usr/bin/env python3
"""Bring the Coordinator up: ``seedcore bootstrap`` under the name that the mission's document gives it.

Takes the same options and ends with the same exit codes; ``--help`` lists them.
"""

from __future__ import annotations

import sys

try:
    from seedcore.cli.app import cli
except ModuleNotFoundError as error:
    sys.exit(f"{error}. Let this shell use the deployment's Python first: . ~/.local/share/seedcore/bin/activate")

if __name__ == "__main__":
    cli.main(["bootstrap", *sys.argv[1:]], prog_name="seedcore")
