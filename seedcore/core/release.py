"""The release of this interpreter.

A deployed release is a virtual environment with a ``release.json`` at its top. The Coordinator reads the file of the
environment in which it runs, so the status always names the release that really runs.
"""

from __future__ import annotations

import json
import sys
from importlib import metadata
from pathlib import Path

RELEASE_FILE = "release.json"


def release_id(prefix: str | Path = sys.prefix) -> str:
    """Return the id in ``<prefix>/release.json``, else ``<version>+unreleased`` (a checkout, a plain pip install)."""
    try:
        document = json.loads((Path(prefix) / RELEASE_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        document = None
    if isinstance(document, dict) and isinstance(document.get("release"), str) and document["release"]:
        return str(document["release"])
    try:
        version = metadata.version("seedcore")
    except metadata.PackageNotFoundError:
        # The package is imported from a checkout and not installed.
        version = "0"
    return f"{version}+unreleased"


def is_deployed(prefix: str | Path = sys.prefix) -> bool:
    """Return whether this interpreter belongs to a deployed release."""
    return (Path(prefix) / RELEASE_FILE).is_file()
