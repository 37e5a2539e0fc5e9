"""SeedCore: a supervised organism of agents on Ray.

The names below are the public interface; each is imported when it is first used, so that
``import seedcore`` costs nothing and never imports Ray.
"""

from __future__ import annotations

from importlib import import_module, metadata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from seedcore.client import AsyncClient, Client
    from seedcore.config import load_config
    from seedcore.settings import Settings
    from seedcore.status import Report, probe
    from seedcore.task import Task

__all__ = ["AsyncClient", "Client", "Report", "Settings", "Task", "__version__", "load_config", "probe"]

_HOMES = {
    "AsyncClient": "seedcore.client",
    "Client": "seedcore.client",
    "Report": "seedcore.status",
    "Settings": "seedcore.settings",
    "Task": "seedcore.task",
    "load_config": "seedcore.config",
    "probe": "seedcore.status",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return metadata.version("seedcore")
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'seedcore' has no attribute {name!r}")
