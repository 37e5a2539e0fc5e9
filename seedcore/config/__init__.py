"""Turn organism.yaml into the spec of an organism, or report every error with its line."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from seedcore.config.organism_file import load_config, parse_config

__all__ = ["load_config", "parse_config"]


def __getattr__(name: str) -> Any:
    # An organ's process imports agents with this package but never reads the file.
    if name in __all__:
        return getattr(import_module("seedcore.config.organism_file"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
