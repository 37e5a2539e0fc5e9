from __future__ import annotations

import json
from typing import Any

import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from seedcore.config import organism_file as config
from seedcore.config.organism_file import parse_config
from seedcore.core.errors import ConfigError
from seedcore.core.spec import OrganismSpec
from tests.support.configs import organ, organism
from tests.support.examples import examples

SLOW = settings(deadline=None, max_examples=examples(100), suppress_health_check=[HealthCheck.too_slow])


def read(data: bytes, *, check_imports: bool = True) -> None:
    """Check that the loader returns a spec or raises well-formed faults."""
    try:
        parse_config(data, name="x.yaml", check_imports=check_imports)
    except ConfigError as error:
        faults = error.faults
    else:
        return
    assert faults
    assert list(faults) == sorted(set(faults), key=lambda fault: (fault.line, fault.column, fault.message))
    for fault in faults:
        assert fault.line >= 1
        assert fault.column >= 1
        assert len(str(fault).splitlines()) == 1
        assert str(fault).encode()


@SLOW
@given(st.binary(max_size=200))
@example(b"\xef\xbb\xbf")
@example(b"%YAML 9.9\n---\n")
@example(b"!<%ff> x")
@example(b"? \n")
@example(b"=")
@example(b"<<")
@example(b"!!int ''")
@example(b"!!float ''")
@example(b"'\x85'")
def test_random_bytes_never_crash_the_parser(data: bytes) -> None:
    read(data)


@SLOW
@given(st.text(alphabet=":-?[]{},&*#!|>'\"%@`<= \n\tab01.~_\\xuU/\u2028\ufeff\U0001f600", max_size=80))
def test_random_yaml_never_crashes_the_parser(text: str) -> None:
    read(text.encode())


PACKAGED = config.PACKAGED_CONFIG.read_text()


@SLOW
@given(st.integers(0, len(PACKAGED)), st.integers(0, 40), st.text(alphabet="-:?[]{},&*#! \n\t\"'a1.", max_size=4))
def test_a_damaged_file_never_crashes_the_parser(start: int, length: int, other: str) -> None:
    read((PACKAGED[:start] + other + PACKAGED[start + length :]).encode(), check_imports=False)


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.dates()
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8) | st.integers(), inner, max_size=4),
    max_leaves=10,
)
FIELDS = sorted(config._Organ.model_fields)


@SLOW
@given(st.lists(st.dictionaries(st.sampled_from([*FIELDS, "x"]), VALUES, max_size=8) | VALUES, max_size=4))
@example([{"domains": {"\n": None}}])
@example([{"resources": {"a\u2028b": None}, "options": {"\r": {}}}])
def test_random_values_never_crash_the_model(organs: list[Any]) -> None:
    text = yaml.safe_dump({"seedcore": {"organism": {"organ_types": organs}}}, allow_unicode=True)
    read(text.encode("utf-8", "replace"))


PLAIN_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63) + 1, 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8"), max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(st.characters(codec="utf-8"), max_size=8), inner, max_size=4)
    ),
    max_leaves=20,
)


@SLOW
@given(PLAIN_VALUES)
def test_plain_options_arrive_as_they_are_and_keep_the_fingerprint(value: Any) -> None:
    spec = parse_config(organism(organ(options={"x": value})), check_imports=False)
    assert spec.organs[0].options == {"x": value}
    assert OrganismSpec.from_dict(json.loads(json.dumps(spec.to_dict()))).fingerprint() == spec.fingerprint()
