"""SeedCore: a supervised organism of agents on Ray.

The names below are the public interface; each is imported when it is first used, so that
``import seedcore`` costs nothing and never imports Ray.
"""

from __future__ import annotations

from importlib import import_module, metadata
from typing import TYPE_CHECKING, Any

from seedcore.core.moved import accept_old_names

if TYPE_CHECKING:
    from seedcore.client import AsyncClient, Client
    from seedcore.config.organism_file import load_config
    from seedcore.core.settings import Settings
    from seedcore.core.task import Task
    from seedcore.status.probing import probe
    from seedcore.status.report import Report

__all__ = ["AsyncClient", "Client", "Report", "Settings", "Task", "__version__", "load_config", "probe"]

_HOMES = {
    "AsyncClient": "seedcore.client",
    "Client": "seedcore.client",
    "Report": "seedcore.status.probing",
    "Settings": "seedcore.core.settings",
    "Task": "seedcore.core.task",
    "load_config": "seedcore.config.organism_file",
    "probe": "seedcore.status.probing",
}


accept_old_names()


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return metadata.version("seedcore")
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'seedcore' has no attribute {name!r}")
