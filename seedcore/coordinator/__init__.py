"""Runs in the process of the Coordinator: the organism, the supervision of its organs, and HTTP."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from seedcore.coordinator.coordinator import Coordinator

__all__ = ["Coordinator"]


def __getattr__(name: str) -> Any:
    # The actors of organs are declared in this package, too, and need nothing of the Coordinator itself.
    if name == "Coordinator":
        return import_module("seedcore.coordinator.coordinator").Coordinator
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
