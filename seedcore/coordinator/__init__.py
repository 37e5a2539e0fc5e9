"""Code of the Coordinator's process: the organism, the supervision of its organs, and HTTP."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from seedcore.coordinator.coordinator import Coordinator

__all__ = ["Coordinator"]


def __getattr__(name: str) -> Any:
    # This package also declares the actors of organs, which do not need the Coordinator.
    if name == "Coordinator":
        return import_module("seedcore.coordinator.coordinator").Coordinator
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
