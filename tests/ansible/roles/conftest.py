from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

PROGRAM = Path(__file__).parents[3] / "tests" / "support" / "render_roles.py"
Ask = Callable[[dict[str, Any]], dict[str, Any]]


@pytest.fixture(scope="session")
def ask() -> Iterator[Ask]:
    """Provide a function that sends a document to the rendering program, which starts once."""
    # The order of a set does not matter.
    environment = {**os.environ, "PYTHONHASHSEED": "0"}
    with subprocess.Popen(
        [sys.executable, str(PROGRAM)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, text=True
    ) as process:
        assert process.stdin
        assert process.stdout
        writing, reading = process.stdin, process.stdout

        def answer(asked: dict[str, Any]) -> dict[str, Any]:
            writing.write(json.dumps(asked) + "\n")
            writing.flush()
            found: dict[str, Any] = json.loads(reading.readline())
            return found

        yield answer
        writing.close()


@pytest.fixture
def rendered(ask: Ask) -> Callable[..., dict[str, Any]]:
    """Provide a function that renders the tasks of one file of a role, by task and field: ``TASK: args``."""

    def render(role: str, step: str, *, facts: Any = None, **extra: Any) -> dict[str, Any]:
        found = ask({"roles": [role], "steps": [step], "facts": facts, "extra": extra})
        return {place.removeprefix(f"head-1: {role}/{step}: "): value for place, value in found.items()}

    return render


@pytest.fixture
def variable(ask: Ask) -> Callable[..., Any]:
    """Provide a function that renders a single variable of a role on a host."""

    def render(
        name: str, role: str = "ray", *, host: str = "head-1", facts: Any = None, known: Any = None,
        inventory: Any = None, **extra: Any,
    ) -> Any:  # fmt: skip
        asked = {"roles": [role], "only": name, "host": host, "facts": facts, "known": known, "extra": extra}
        asked["inventory"] = inventory
        return ask(asked)[name]

    return render
