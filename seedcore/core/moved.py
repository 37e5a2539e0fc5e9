"""Old names of moved modules, which work with a DeprecationWarning until release 0.3."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from importlib import import_module
from importlib.machinery import ModuleSpec
from types import ModuleType

# By their old names, all from 0.1; remove them in 0.3.
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
# Old modules of actor classes. Ray loads the class of a running actor by the name under which it was started, and an
# upgrade calls the actors of the previous release.
ACTORS = {
    "seedcore.actor": "seedcore.coordinator.actors",
    "seedcore.organism": "seedcore.organ",
    "seedcore.organism.organ": "seedcore.organ.organ",
}

# Methods that actor classes had in 0.1. Ray's pickle of a class refers to each of its methods. If one is missing, Ray
# replaces the class by one whose methods take no arguments, and the new release cannot call the old actor.
METHODS = frozenset({
    "_builtins", "_canary", "_execute_many", "_execute_on_organ", "_execute_on_random_organ", "_get_metrics",
    "_get_organism_status", "_get_organism_summary", "_get_routing_debug", "_initialize_organism", "_inner",
    "_require_open", "_shutdown_organism",
})  # fmt: skip


class ActorClass(type):
    """Metaclass of the actor classes: find removed methods, so that Ray loads the class of an older release's actor."""

    def __getattr__(cls, name: str) -> object:
        if name in METHODS:
            return _removed
        raise AttributeError(f"type object {cls.__name__!r} has no attribute {name!r}")


def _removed(*_args: object, **_options: object) -> None:
    raise NotImplementedError("this release has no such method any more")


class _Finder:
    """Find a moved module by its old name; both names give the same module."""

    @staticmethod
    def find_spec(name: str, _path: Sequence[str] | None, _target: ModuleType | None = None) -> ModuleSpec | None:
        """Return a spec if the module has moved."""
        # A Loader by duck typing: importlib.abc would be imported by every user of the library.
        return ModuleSpec(name, _Finder) if name in MOVED or name in ACTORS else None  # type: ignore[arg-type]

    @staticmethod
    def create_module(_spec: ModuleSpec) -> None:
        """Let Python create a module, which the next step replaces."""

    @staticmethod
    def exec_module(module: ModuleType) -> None:
        """Replace it with the module of the new name."""
        old = module.__name__
        new = MOVED.get(old) or ACTORS[old]
        if old in MOVED:
            warnings.warn(f"{old} is now {new}; release 0.3 removes the old name", DeprecationWarning, stacklevel=2)
        sys.modules[old] = import_module(new)


def accept_old_names() -> None:
    """Make ``import`` find moved modules by their old names."""
    if _Finder not in sys.meta_path:
        # Insert it before the path finder, which would load a moved module a second time.
        sys.meta_path.insert(0, _Finder)
