from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import trustme
from ansible.errors import AnsibleFilterError
from ansible_collections.seedcore.cluster.plugins.filter.environments import environments
from ansible_collections.seedcore.cluster.plugins.filter.faults import argument_faults, no_networks
from ansible_collections.seedcore.cluster.plugins.filter.tls import tls_faults
from ansible_collections.seedcore.cluster.plugins.filter.typed import typed


@pytest.mark.parametrize(
    "value",
    [
        {"vision": ["my_vision", "torch==2.4"], "text": []},
        '{"vision": ["my_vision", " torch==2.4"], "text": ""}',
        {"vision": "my_vision, torch==2.4", "text": []},
    ],
)
def test_environments_may_be_given_as_text(value: Any) -> None:
    assert environments(value) == {"packages": {"vision": ["my_vision", "torch==2.4"], "text": []}, "faults": []}
    assert environments("") == environments({}) == {"packages": {}, "faults": []}
    assert environments("vision=my_vision")["packages"] == {"vision": ["my_vision"]}


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("vision", 'it is "vision", expected a mapping of names to lists of packages, such as {vision: [my_vision]}'),
        (["a"], 'it is ["a"], expected a mapping'),
        ({"vision": None}, "vision is null, expected a list of packages"),
        ({"vision": 5}, "vision is 5, expected a list of packages"),
        ({"vision": [5]}, "vision is [5], expected a list of packages"),
        ({"Vi sion": ["a"]}, 'the name "Vi sion" is not allowed, expected up to 31 of a-z 0-9 _ -, a letter first'),
        ({3: ["a"]}, "the name 3 is not allowed"),
    ],
)
def test_environments_that_cannot_be_are_told_with_what_is_expected(value: Any, said: str) -> None:
    found = environments(value)
    assert found["packages"] == {}
    (fault,) = found["faults"]
    assert fault.startswith(said)


@pytest.mark.parametrize(
    ("value", "kind", "meant"),
    [
        ("false", "bool", False),
        ("Yes", "bool", True),
        (False, "bool", False),
        ("a, b", "list", ["a", "b"]),
        ("", "list", []),
        (["a"], "list", ["a"]),
        ('["a,b"]', "list", ["a,b"]),
        ('{"a": 1}', "dict", {"a": 1}),
        ("a=1,b=2", "dict", {"a": "1", "b": "2"}),
        ("", "dict", {}),
        ({"a": 1}, "dict", {"a": 1}),
    ],
)
def test_a_text_becomes_what_it_stands_for(value: Any, kind: str, meant: Any) -> None:
    assert typed(value, kind) == meant


@pytest.mark.parametrize(("value", "kind"), [("perhaps", "bool"), (1, "dict"), ({"a": 1}, "list")])
def test_what_stands_for_nothing_is_named(value: Any, kind: str) -> None:
    with pytest.raises(AnsibleFilterError, match=f"is not a {kind}"):
        typed(value, kind)


def test_a_flag_of_one_letter_is_refused_with_the_remedy() -> None:
    assert argument_faults({"ray_become": "n"}, {"ray_become": {"type": "bool"}}) == [
        "ray_become is 'n': give true or false"
    ]


@pytest.mark.parametrize(
    "value", ["nan", "inf", "-inf", "1e999", math.nan, math.inf, 10**400], ids=lambda value: str(value)[:9]
)
def test_a_number_that_is_no_limit_is_refused(value: Any) -> None:
    options = {"ray_max_clock_skew": {"type": "float"}}
    assert argument_faults({"ray_max_clock_skew": "0.5"}, options) == []
    assert argument_faults({"ray_max_clock_skew": value}, options)[0].endswith(": give a finite number")


def test_what_nft_would_refuse_as_a_network_is_named() -> None:
    right = ["10.0.0.7", "10.0.0.0/24", "fd00::/8", "::1"]
    wrong = ["10.0.0.0/99", "10.0.0.1/24", "monitoring.example", "300.1.1.1", ""]
    assert no_networks([*right, *wrong]) == wrong


def test_a_certificate_that_holds_and_its_key_have_no_fault() -> None:
    issued = trustme.CA().issue_cert("head.example")
    chain = "".join(blob.bytes().decode() for blob in issued.cert_chain_pems)

    assert tls_faults(chain, issued.private_key_pem.bytes().decode()) == []


def test_what_nobody_would_believe_is_named_before_it_is_on_a_host() -> None:
    authority = trustme.CA()
    issued = authority.issue_cert("head.example")
    certificate, key = issued.cert_chain_pems[0].bytes().decode(), issued.private_key_pem.bytes().decode()
    other = authority.issue_cert("head.example").private_key_pem.bytes().decode()
    past = authority.issue_cert(
        "head.example",
        not_before=datetime.now(UTC) - timedelta(days=9),
        not_after=datetime.now(UTC) - timedelta(days=1),
    )
    future = authority.issue_cert("head.example", not_before=datetime.now(UTC) + timedelta(days=1))

    assert tls_faults(certificate, other) == ["the key does not belong to the certificate"]
    assert tls_faults("no certificate", key) == ["the certificate is not a PEM file with a certificate"]
    assert tls_faults(certificate, "no key") == ["the key is not a PEM file with a private key"]
    for cert, words in ((past, "the certificate expired at "), (future, "the certificate is not valid before ")):
        (fault,) = tls_faults(cert.cert_chain_pems[0].bytes().decode(), cert.private_key_pem.bytes().decode())
        assert fault.startswith(words)
