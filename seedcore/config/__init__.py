"""From organism.yaml to the spec of an organism, with every fault at its line."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from seedcore.config.organism_file import load_config, parse_config

__all__ = ["load_config", "parse_config"]


def __getattr__(name: str) -> Any:
    # The process of an organ imports agents with this package, and never reads the file.
    if name in __all__:
        return getattr(import_module("seedcore.config.organism_file"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
