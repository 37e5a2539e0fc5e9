"""Write organism.yaml for tests, and collect its faults."""

from __future__ import annotations

import json
import textwrap
from typing import Any

import pytest

from seedcore.config.organism_file import parse_config
from seedcore.core.errors import ConfigError
from seedcore.core.spec import OrganSpec

AGENT = "seedcore.agents:TextAnalyst"
# The lines that most cases need; the additions of a case begin in line 7.
HEAD = """\
seedcore:
  organism:
    organ_types:
      - id: one
        type: Test
        agent: seedcore.agents:TextAnalyst
"""


def organism(*organs: dict[str, Any]) -> bytes:
    return json.dumps({"seedcore": {"organism": {"organ_types": organs}}}).encode()


def organ(**keys: Any) -> dict[str, Any]:
    return {"id": "one", "type": "Test", "agent": AGENT, **keys}


def only(**keys: Any) -> OrganSpec:
    (spec,) = parse_config(organism(organ(**keys))).organs
    return spec


def faults(text: str | bytes, *, check_imports: bool = True) -> list[tuple[int, int, str]]:
    data = text.encode() if isinstance(text, str) else text
    with pytest.raises(ConfigError) as caught:
        parse_config(data, check_imports=check_imports)
    return [(fault.line, fault.column, fault.message) for fault in caught.value.faults]


def places(text: str | bytes) -> list[tuple[int, int]]:
    return [(line, column) for line, column, _ in faults(text)]


def more(text: str) -> str:
    """Return HEAD with more keys of its organ, indented to match."""
    return HEAD + textwrap.indent(textwrap.dedent(text), " " * 8)
