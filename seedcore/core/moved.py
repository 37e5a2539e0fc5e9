"""Modules that have moved: their old names still work, for one release, with a DeprecationWarning."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from importlib import import_module
from importlib.machinery import ModuleSpec
from types import ModuleType

# By their old names, all of 0.1; remove them with 0.3.
MOVED = {
    "seedcore.bootstrap": "seedcore.deployment.bootstrap",
    "seedcore.errors": "seedcore.core.errors",
    "seedcore.release": "seedcore.core.release",
    "seedcore.rest": "seedcore.status.http_client",
    "seedcore.schema": "seedcore.config.schema",
    "seedcore.settings": "seedcore.core.settings",
    "seedcore.spec": "seedcore.core.spec",
    "seedcore.task": "seedcore.core.task",
}
# Where the classes of actors were. Ray loads the class of a running actor by the name that it was started under, and an
# upgrade calls the actors of the release before it.
ACTORS = {
    "seedcore.actor": "seedcore.coordinator.actors",
    "seedcore.organism": "seedcore.organ",
    "seedcore.organism.organ": "seedcore.organ.organ",
}


class _Finder:
    """Finds a moved module by its old name; both names give the same module."""

    @staticmethod
    def find_spec(name: str, _path: Sequence[str] | None, _target: ModuleType | None = None) -> ModuleSpec | None:
        """Find the module, if it is one that has moved."""
        # A Loader by duck typing: importlib.abc would be imported by every user of the library.
        return ModuleSpec(name, _Finder) if name in MOVED or name in ACTORS else None  # type: ignore[arg-type]

    @staticmethod
    def create_module(_spec: ModuleSpec) -> None:
        """Leave it to Python to make a module, which the next step replaces."""

    @staticmethod
    def exec_module(module: ModuleType) -> None:
        """Put the module of the new name in its place."""
        old = module.__name__
        new = MOVED.get(old) or ACTORS[old]
        if old in MOVED:
            warnings.warn(f"{old} is now {new}; the old name goes in release 0.3", DeprecationWarning, stacklevel=2)
        sys.modules[old] = import_module(new)


def accept_old_names() -> None:
    """Let ``import`` find moved modules by their old names."""
    if _Finder not in sys.meta_path:
        # Before the finder of paths, which would load a module of a package that has moved once more.
        sys.meta_path.insert(0, _Finder)
