"""Test the program that makes the certificates of a cluster's nodes."""

from __future__ import annotations

import json
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from tests.support.programs import FILES


@pytest.fixture
def tls(tmp_path: Path) -> Path:
    return tmp_path


def run(directory: Path, *words: str, check: bool = False) -> dict[str, Any]:
    command = [sys.executable, str(FILES / "node_certificate.py"), *(["--check"] if check else []), str(directory)]
    done = subprocess.run([*command, *words], capture_output=True, text=True, check=True, timeout=60)
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def verify(directory: Path, document: dict[str, Any], address: str, purpose: str) -> str:
    (directory / "ca.pem").write_text(document["authority"])
    (directory / "own.pem").write_text(document["certificate"])
    command = ["openssl", "verify", "-CAfile", "ca.pem", "-purpose", purpose, "-verify_ip", address, "own.pem"]
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False, timeout=60)
    return done.stdout.strip() if done.returncode == 0 else "refused"


def test_each_node_gets_a_certificate_once(tls: Path) -> None:
    assert run(tls, "authority") == {"changed": True}
    first, other = run(tls, "node", "10.0.0.3"), run(tls, "node", "10.0.0.4")

    for purpose in ("sslserver", "sslclient"):
        assert verify(tls, first, "10.0.0.3", purpose) == "own.pem: OK"
        assert verify(tls, first, "127.0.0.1", purpose) == "own.pem: OK"
        assert verify(tls, first, "10.0.0.4", purpose) == "refused"
        assert verify(tls, other, "10.0.0.4", purpose) == "own.pem: OK"
    assert run(tls, "authority") == {"changed": False}
    assert run(tls, "node", "10.0.0.3") == {**first, "changed": False}
    assert {path.name for path in tls.glob("*.key")} == {"authority.key", "node-10.0.0.3.key", "node-10.0.0.4.key"}
    assert {stat.S_IMODE(path.stat().st_mode) for path in tls.glob("*.key")} == {0o600}


def test_a_new_authority_signs_new_certificates(tls: Path) -> None:
    run(tls, "authority")
    before = run(tls, "node", "10.0.0.3")
    assert run(tls, "authority", "--renew") == {"changed": True}

    after = run(tls, "node", "10.0.0.3")

    assert after["changed"]
    assert after["key"] != before["key"]
    assert verify(tls, after, "10.0.0.3", "sslserver") == "own.pem: OK"
    assert verify(tls, {**after, "certificate": before["certificate"]}, "10.0.0.3", "sslserver") == "refused"


def test_what_is_damaged_is_made_again(tls: Path) -> None:
    run(tls, "authority")
    before = run(tls, "node", "10.0.0.3")
    (tls / "node-10.0.0.3.crt").write_text(before["certificate"][:100])

    assert run(tls, "node", "10.0.0.3", check=True) == {"changed": True}
    after = run(tls, "node", "10.0.0.3")

    assert after["changed"]
    assert verify(tls, after, "10.0.0.3", "sslserver") == "own.pem: OK"


def test_a_prediction_writes_nothing(tls: Path) -> None:
    assert run(tls, "authority", check=True) == {"changed": True}
    assert run(tls, "node", "10.0.0.3", check=True) == {"changed": True}
    assert list(tls.iterdir()) == []
    run(tls, "authority")
    made = run(tls, "node", "10.0.0.3")
    assert run(tls, "node", "10.0.0.3", check=True) == {**made, "changed": False}


def test_a_certificate_ends_before_its_authority(tls: Path) -> None:
    run(tls, "authority")
    made = run(tls, "node", "10.0.0.3")

    own, authority = (x509.load_pem_x509_certificate(made[name].encode()) for name in ("certificate", "authority"))

    assert own.not_valid_after_utc <= authority.not_valid_after_utc
