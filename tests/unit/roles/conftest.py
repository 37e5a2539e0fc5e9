from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

PROGRAM = Path(__file__).parents[3] / "tests" / "support" / "render_roles.py"


@cache
def _rendered(asked: str) -> dict[str, Any]:
    done = subprocess.run([sys.executable, str(PROGRAM)], input=asked, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.fixture
def rendered() -> Callable[..., dict[str, Any]]:
    """Render one role with variables, facts and results of tasks; a variable of the role is ``head-1: ROLE: NAME``."""

    def render(role: str, *, facts: dict[str, Any] | None = None, known: Any = None, **extra: Any) -> dict[str, Any]:
        return _rendered(json.dumps({"roles": [role], "facts": facts, "known": known, "extra": extra}))

    return render


@pytest.fixture
def variable() -> Callable[..., Any]:
    """Render one variable of a role on a host, and nothing else."""

    def render(
        name: str, role: str = "ray", *, host: str = "head-1", facts: Any = None, known: Any = None, **extra: Any
    ) -> Any:
        asked = {"roles": [role], "only": name, "host": host, "facts": facts, "known": known, "extra": extra}
        return _rendered(json.dumps(asked))[name]

    return render
