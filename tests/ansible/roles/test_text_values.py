"""Test that text values, from ``-e key=value`` and INI inventories, give the same result as typed values."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[3]
# Values that tasks combine, and digests, which only decide whether every step is executed.
RESULTS = {"seedcore_gate_report"}
DIGESTED = (
    "__ray_made_from",
    "__seedcore_made_from",
    "__seedcore_services_made_from",
    "__ray_values",
    "fingerprint of the node: args",
    "fingerprint of the run: args",
)
RANDOM = ("Make a token on the head: args", "Make the next token on the head: args")
MOMENT = re.compile(r"\b\d{10}\.\d+|\b\d{8}T\d{6}Z")
SAMPLES: dict[str, Any] = {
    "int": 7,
    "float": 2.5,
    "list": ["10.0.0.1", "10.0.0.2"],
    "dict": {"fast": 1},
    "list of list": [["echo", "a b"], ["true"]],
}
NAMED: dict[str, Any] = {
    "seedcore_node_names": ["head-1", "worker-1"],
    "service_command": ["/bin/echo", "a"],
    "service_after": ["a.service", "b.service"],
    "ray_min_worker_port": 10002,
    "ray_max_worker_port": 19999,
}
pytestmark = pytest.mark.timeout(400)


def options() -> dict[str, dict[str, Any]]:
    """Return every option of every role by name."""
    found: dict[str, dict[str, Any]] = {}
    for path in sorted(ROOT.glob("roles/*/meta/argument_specs.yml")):
        for entry in yaml.safe_load(path.read_text())["argument_specs"].values():
            found.update(entry.get("options") or {})
    return found


def typed(*, flags: bool) -> dict[str, Any]:
    """Give every flag, number, list and mapping a value of its type."""
    values: dict[str, Any] = {}
    for number, (name, option) in enumerate(sorted(options().items())):
        kind = option["type"] + (" of list" if option.get("elements") == "list" else "")
        if name in RESULTS or kind not in (*SAMPLES, "bool"):
            continue
        sample = flags if kind == "bool" else SAMPLES[kind]
        if name.endswith("_port"):
            sample = 21000 + number
        values[name] = NAMED.get(name, sample)
    return values


def as_text(value: Any) -> str:
    """Return a value as users write it on a command line."""
    if isinstance(value, list) and all(isinstance(entry, str) for entry in value):
        return ",".join(value)
    return json.dumps(value)


def plain(value: Any) -> Any:
    """Return a value with numbers as text, because modules accept "60" for 60; mappings and lists keep their type."""
    if isinstance(value, dict):
        return {key: plain(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [plain(entry) for entry in value]
    return MOMENT.sub("now", str(value)).lower()


def difference(by_type: dict[str, Any], by_text: dict[str, Any]) -> str:
    assert len(by_type) > 500
    assert by_type.keys() == by_text.keys()
    different = {
        place: (by_type[place], by_text[place])
        for place in by_type
        if plain(by_type[place]) != plain(by_text[place]) and not place.endswith((*DIGESTED, *RANDOM))
    }
    return "\n".join(f"{place}\n  {a!s:.300}\n  {b!s:.300}" for place, (a, b) in different.items())


@pytest.mark.parametrize("flags", [False, True])
def test_a_value_given_as_text_does_what_the_typed_one_does(ask: Callable[..., Any], *, flags: bool) -> None:
    values = typed(flags=flags)
    by_text = ask({"extra": {name: as_text(value) for name, value in values.items()}})
    assert not difference(ask({"extra": values}), by_text)
