# SPDX-License-Identifier: Apache-2.0
"""Layers of a deployment: virtual environments, each of which sees the packages of the one below it.

A layer is complete if it has a ``release.json``, which is written last. It uses only the standard library, like all
module_utils.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DOCUMENT = "release.json"
# Holds the time of the last run that ended with a green gate; and the organism of that run, if it had one of its own.
GREEN = "green"
ORGANISM = "organism.yaml"
# Layers of environments are active together with the agents' layer that names them.
ENVIRONMENTS = "environments/"
PATTERNS = ("releases/*", "agents/*", f"{ENVIRONMENTS}*")
_SEES = "_seedcore_layer.pth"


@dataclass(frozen=True)
class Layer:
    """A release, or agents or one of their environments on top of one.

    Attributes:
        path: Its directory, from the prefix: ``releases/0.1.0-2aae1e50dd8c``.
        document: Content of its ``release.json``; empty if it is not complete.
        made: Time at which it was completed.
        green: Time of the last green run with it, as text; empty if there was none.
    """

    path: str
    document: Mapping[str, Any]
    made: float
    green: str

    @property
    def id(self) -> str:
        """Its name, by which people call it."""
        return self.path.rpartition("/")[2]

    @property
    def below(self) -> str:
        """The layer whose packages it sees, from the prefix; a release from before layers sees none."""
        return str(self.document.get("below") or "")

    @property
    def environments(self) -> dict[str, str]:
        """The ids of the environments that belong to it, by their names."""
        found = self.document.get("environments") or {}
        return {name: Path(python).parents[1].name for name, python in found.items()}


def packages(environment: Path) -> Path:
    """Return the directory with the packages of a virtual environment.

    Raises:
        FileNotFoundError: There is none.
    """
    for path in sorted(environment.glob("lib/python*/site-packages")):
        return path
    raise FileNotFoundError(2, "no virtual environment", str(environment))


def put_on_top(above: Path, below: Path) -> None:
    """Let a virtual environment see all packages that another one with the same Python has or sees.

    The packages of ``above`` come first.
    """
    text = f"import site; site.addsitedir({str(packages(below))!r})\n"
    (packages(above) / _SEES).write_text(text, encoding="utf-8")


def read(prefix: Path) -> list[Layer]:
    """Return the layers of a deployment, complete or not, without those of Ray."""
    paths = [path for pattern in PATTERNS for path in sorted(prefix.glob(pattern))]
    return [_layer(prefix, path) for path in paths if path.is_dir() and not path.is_symlink()]


def active(prefix: Path) -> str:
    """Return the path of the active layer, from the prefix; empty if there is none."""
    try:
        return str((prefix / "current").readlink())
    except OSError:
        return ""


def tops(layers: Iterable[Layer]) -> list[Layer]:
    """Return the complete layers that can be active, the newest first: those that no other one sees."""
    complete = [layer for layer in _complete(layers) if not layer.path.startswith(ENVIRONMENTS)]
    seen = {layer.below for layer in complete}
    return sorted((layer for layer in complete if layer.path not in seen), key=lambda layer: layer.made, reverse=True)


def choices(layers: Iterable[Layer]) -> list[Layer]:
    """Return the layers to go back to: those that no other one sees, and those that were green without one above."""
    layers = list(layers)
    found = {layer.path for layer in tops(layers)}
    return [layer for layer in _complete(layers) if layer.path in found or layer.green]


def kept(layers: Iterable[Layer], active_path: str, count: int) -> set[str]:
    """Return the paths to keep, layers of Ray included: of the active layer, the newest others, and what they see."""
    layers = list(layers)
    by_path = {layer.path: layer for layer in layers}
    others = [layer.path for layer in tops(layers) if layer.path != active_path]
    found: set[str] = set()
    pending = [active_path, *others[: max(0, count - 1)]]
    while pending:
        path = pending.pop()
        if path and path not in found:
            found.add(path)
            if path in by_path:
                pending += [by_path[path].below, *_environments(by_path[path])]
    return found


def _complete(layers: Iterable[Layer]) -> list[Layer]:
    """Return the layers that have everything, which agents without one of their environments have not."""
    marked = [layer for layer in layers if layer.document]
    present = {layer.path for layer in marked}
    return [layer for layer in marked if present.issuperset(_environments(layer))]


def _environments(layer: Layer) -> list[str]:
    return [f"{ENVIRONMENTS}{name}" for name in layer.environments.values()]


def _layer(prefix: Path, path: Path) -> Layer:
    document: Any = {}
    made, green = 0.0, ""
    try:
        made = (path / DOCUMENT).stat().st_mtime
        document = json.loads((path / DOCUMENT).read_text(encoding="utf-8"))
        green = (path / GREEN).read_text(encoding="utf-8").strip()
    except (OSError, ValueError):
        pass
    return Layer(str(path.relative_to(prefix)), document if isinstance(document, dict) else {}, made, green)


class NoReleaseError(Exception):
    """There is no release to go back to; the text tells why, and which there are."""


def base(layers: Iterable[Layer], path: str) -> str:
    """Return the layer of Ray that a layer stands on, from the prefix; empty if it is not known."""
    by_path = {layer.path: layer for layer in layers}
    while path in by_path:
        path = by_path[path].below
    return path


def choose(layers: Iterable[Layer], active_path: str, ray: str, wanted: str = "") -> Layer:
    """Return the layer to go back to: the one with this id, else the one that was green last before the active one.

    Args:
        layers: All layers of the host.
        active_path: The active one, from the prefix.
        ray: The layer of Ray that the nodes run from, from the prefix.
        wanted: Its id; empty for the last green one.

    Raises:
        NoReleaseError: There is none, or it does not fit the nodes.
    """
    layers = list(layers)
    for layer in _complete(layers):
        if layer.path == active_path and layer.id == wanted:
            return layer
    # Releases from before there were layers have an installation of their own, and other settings.
    others = [layer for layer in choices(layers) if layer.path != active_path and layer.document.get("python")]
    green = sorted((layer for layer in others if layer.green), key=lambda layer: layer.green, reverse=True)
    usable = [layer for layer in green if base(layers, layer.path) == ray]
    there = f"; green were: {', '.join(layer.id for layer in green)}" if green else ""
    if not wanted:
        if not usable:
            raise NoReleaseError(f"no other release was green with the Ray of the nodes{there}")
        return usable[0]
    for layer in others:
        if layer.id == wanted:
            if base(layers, layer.path) != ray:
                raise NoReleaseError(
                    f"{wanted} needs another Ray than the nodes run: deploy its version of the project"
                )
            return layer
    remedy = "name one that every host has (seedcore releases), or deploy the project's version that it was made from"
    raise NoReleaseError(f"{wanted} is not on this host{there}: {remedy}")


def choose_for_revert(layers: Iterable[Layer], active_path: str, ray: str, before: str) -> Layer:
    """Return the layer to go back to after a red gate: the one that was active before, or the last green one.

    It may be the active one, if only its organism has changed.

    Args:
        layers: All layers of the host.
        active_path: The active one, from the prefix.
        ray: The layer of Ray that the nodes run from, from the prefix.
        before: Id of the layer that was active before the run; it counts only if it was green.

    Raises:
        NoReleaseError: None was green, or none fits the nodes.
    """
    layers = list(layers)
    for layer in _complete(layers):
        if layer.id == before and layer.green and base(layers, layer.path) == ray:
            return layer
    return choose(layers, active_path, ray)
