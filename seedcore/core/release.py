"""The release of this interpreter.

A deployed release is a virtual environment with a ``release.json`` at its top. The Coordinator reads the file of the
environment in which it runs, so the status always names the release that really runs. The agents are in a virtual
environment of their own that sees the release; its ``release.json`` names the release, and both interpreters.
"""

from __future__ import annotations

import json
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

RELEASE_FILE = "release.json"


def release_id(prefix: str | Path = sys.prefix) -> str:
    """Return the id in ``<prefix>/release.json``, else ``<version>+unreleased`` (a checkout, a plain pip install)."""
    if found := _text(prefix, "release"):
        return found
    try:
        version = metadata.version("seedcore")
    except metadata.PackageNotFoundError:
        # The package is imported from a checkout and not installed.
        version = "0"
    return f"{version}+unreleased"


def is_deployed(prefix: str | Path = sys.prefix) -> bool:
    """Return whether this interpreter belongs to a deployed release."""
    return (Path(prefix) / RELEASE_FILE).is_file()


def agents_id(prefix: str | Path = sys.prefix) -> str:
    """Return the id of the agents' layer to which this interpreter belongs; empty if it is that of the release."""
    return _text(prefix, "agents")


def python(prefix: str | Path = sys.prefix) -> str:
    """Return the interpreter of the release; seen from the agents' layer, another one than the present one."""
    return _text(prefix, "python") or sys.executable


def agents_python(prefix: str | Path = sys.prefix) -> str:
    """Return the interpreter of the agents' layer to which this one belongs; empty if it is that of the release."""
    return _text(prefix, "agents_python")


def environments(prefix: str | Path = sys.prefix) -> dict[str, str]:
    """Return the environments of the agents' layer to which this interpreter belongs, name to interpreter."""
    found = document(prefix).get("environments")
    return {str(name): str(path) for name, path in found.items()} if isinstance(found, dict) else {}


def successor(prefix: str | Path = sys.prefix) -> str:
    """Return the command of the deployment if another layer has become the active one; empty if this one is.

    A layer is two levels below the deployment's directory, where ``current`` is a link to the active one.
    """
    own = Path(prefix)
    if not is_deployed(own):
        return ""
    top = own.parents[1]
    command, active = top / "bin" / "seedcore", top / "current"
    is_other = (active / RELEASE_FILE).is_file() and active.resolve() != own.resolve()
    return str(command) if is_other and command.is_file() else ""


def document(prefix: str | Path) -> dict[str, Any]:
    """Return the content of ``<prefix>/release.json``; empty if there is none."""
    try:
        found = json.loads((Path(prefix) / RELEASE_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _text(prefix: str | Path, key: str) -> str:
    value = document(prefix).get(key)
    return value if isinstance(value, str) else ""
