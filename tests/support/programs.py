"""Import programs that the role ``ray`` installs, which are not in a package."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

FILES = Path(__file__).parents[2] / "roles" / "ray" / "files"


def load(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, FILES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


damaged_store = load("damaged_store")
dead_logs = load("dead_logs")
