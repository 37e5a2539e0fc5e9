"""Test that the JSON schema agrees with the loader as far as a schema can express it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from seedcore.cli.app import cli
from seedcore.config.organism_file import PACKAGED_CONFIG, parse_config
from seedcore.config.schema import config_schema
from seedcore.core.errors import ConfigError
from tests.support.configs import organ
from tests.support.examples import examples
from tests.unit.config.test_faults import CROSS_CASES, SCHEMA_CASES

ROOT = Path(__file__).parents[3]
SCHEMA = config_schema()
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)
ORGAN = SCHEMA["$defs"]["organ"]["properties"]
# JSON does not distinguish 2 and 2.0.
BEYOND_A_SCHEMA = {"a count with a fraction"}


def document(organs: Any) -> dict[str, Any]:
    return {"seedcore": {"organism": {"organ_types": organs}}}


def loads(value: Any) -> bool:
    try:
        parse_config(json.dumps(value).encode(), check_imports=False)
    except ConfigError:
        return False
    return True


def test_the_command_line_prints_it() -> None:
    done = CliRunner().invoke(cli, ["config", "schema"])

    assert done.exit_code == 0
    assert json.loads(done.stdout) == SCHEMA
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


@pytest.mark.parametrize("path", [PACKAGED_CONFIG, ROOT / "examples" / "log_triage" / "organism.yaml"], ids=str)
def test_it_accepts_what_we_ship(path: Path) -> None:
    VALIDATOR.validate(yaml.safe_load(path.read_text()))


@pytest.mark.parametrize("name", SCHEMA_CASES)
def test_it_rejects_what_the_loader_rejects(name: str) -> None:
    value = yaml.safe_load(SCHEMA_CASES[name][0])

    assert VALIDATOR.is_valid(value) is (name in BEYOND_A_SCHEMA)


@pytest.mark.parametrize("name", CROSS_CASES)
def test_what_is_wrong_between_values_only_the_loader_knows(name: str) -> None:
    value = yaml.safe_load(CROSS_CASES[name][0])

    assert VALIDATOR.is_valid(value)
    assert not loads(value)


def test_every_key_says_what_it_is_and_has_its_default() -> None:
    for name, entry in ORGAN.items():
        assert "Allowed: " in entry["description"], name
        if name not in SCHEMA["$defs"]["organ"]["required"] and name != "min_ready_agents":
            VALIDATOR.validate(document([organ(**{name: entry["default"]})]))


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-1, 2_000_000) | st.floats(-1, 10) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner, max_size=2),
    max_leaves=4,
)


@settings(deadline=None, max_examples=examples(200), suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(st.sampled_from(sorted(ORGAN)), VALUES, max_size=2))
def test_it_accepts_whatever_the_loader_accepts(keys: dict[str, Any]) -> None:
    value = document([organ(**keys)])

    assert VALIDATOR.is_valid(value) or not loads(value)
