"""The releases on this host: which of them can be active, when they were green, and what differs.

Roles install them as layers, each of which sees the packages of the one below it: ``ray/ID``, ``releases/ID``,
``agents/ID``. A layer can be active if no other one sees it, or if it was green without agents on top of it. The link
``current`` names the one that is.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from seedcore.core.release import RELEASE_FILE
from seedcore.core.release import document as read_document

_PATTERNS = ("releases/*", "agents/*")


@dataclass(frozen=True, slots=True)
class Installed:
    """A release on this host, with the agents on top of it if there are any.

    Attributes:
        id: The id that ``playbooks/rollback.yml -e to=ID`` takes.
        release: Id of the library's release.
        agents: Id of the agents' layer; empty if there is none.
        ray: Id of the environment of Ray that it sees; empty for a release that has a Ray of its own.
        installed: When it was installed, ISO 8601.
        green: When the gate passed with it, ISO 8601; empty if it never did.
        active: Whether it is the active one.
        differs: What is different from the active one: ``agents``, ``library``, ``ray``, ``organism``.
    """

    id: str
    release: str
    agents: str
    ray: str
    installed: str
    green: str
    active: bool
    differs: tuple[str, ...]


def installed(prefix: Path) -> list[Installed]:
    """Return the releases of a deployment that can be active, the newest first."""
    paths = [path for pattern in _PATTERNS for path in prefix.glob(pattern) if not path.is_symlink()]
    found = {str(path.relative_to(prefix)): path for path in paths}
    documents = {name: document for name, path in found.items() if (document := read_document(path))}
    seen = {str(document.get("below")) for document in documents.values()}
    active = (prefix / "current").resolve()
    present = next((name for name in documents if found[name].resolve() == active), None)
    organism = _organism(prefix / "etc")
    rows = [
        _row(found[name], documents, name, present, organism)
        for name in documents
        if name not in seen or name == present or _text(found[name] / "green")
    ]
    return sorted(rows, key=lambda row: row.installed, reverse=True)


def _row(path: Path, documents: dict[str, Any], name: str, present: str | None, organism: str) -> Installed:
    document = documents[name]
    parts = _parts(documents, name)
    differs = [key for key, value in _parts(documents, present).items() if parts[key] != value] if present else []
    green = _text(path / "green")
    if present and name != present and green and _organism(path) != organism:
        differs.append("organism")
    made = datetime.fromtimestamp((path / RELEASE_FILE).stat().st_mtime, UTC)
    return Installed(
        id=path.name, release=str(document.get("release") or ""), agents=str(document.get("agents") or ""),
        ray=parts["ray"], installed=made.strftime("%Y-%m-%dT%H:%M:%SZ"), green=green, active=name == present,
        differs=tuple(differs),
    )  # fmt: skip


def _parts(documents: dict[str, Any], name: str) -> dict[str, str]:
    """Return what a layer and those below it consist of; an id would cover those below it, too."""
    parts = {"agents": "", "library": "", "ray": ""}
    while name in documents:
        document = documents[name]
        kind = "agents" if document.get("agents") else "library"
        parts[kind] = str(document.get("content") or document.get("release") or "")
        name = str(document.get("below") or "")
    return {**parts, "ray": name.rpartition("/")[2]}


def _organism(path: Path) -> str:
    return _text(path / "organism.yaml")


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return ""
