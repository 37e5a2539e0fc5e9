# SPDX-License-Identifier: Apache-2.0
"""A filter that returns what is wrong with a certificate and its key, before they are copied to a host."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any


def tls_faults(certificate: str, key: str) -> list[str]:
    """Return what is wrong with the texts of a certificate (optionally with its chain) and its key, one line each."""
    # Ansible's vault needs this package; ansible-doc and the sanity tests run without it.
    from cryptography.hazmat.primitives.serialization import load_pem_private_key  # noqa: PLC0415
    from cryptography.x509 import load_pem_x509_certificate  # noqa: PLC0415

    try:
        first = load_pem_x509_certificate(certificate.encode())
    except ValueError:
        return ["the certificate is not a PEM file with a certificate"]
    faults = []
    now = datetime.now(UTC)
    begins, ends = _validity(first)
    if now > ends:
        faults.append(f"the certificate expired at {ends:%Y-%m-%d %H:%M} UTC: renew it")
    if now < begins:
        faults.append(f"the certificate is not valid before {begins:%Y-%m-%d %H:%M} UTC: check the controller's clock")
    try:
        own = load_pem_private_key(key.encode(), password=None).public_key()
    except TypeError:
        return [*faults, "the key has a password: give a key without one"]
    except ValueError:
        return [*faults, "the key is not a PEM file with a private key"]
    if _raw(own) != _raw(first.public_key()):
        faults.append("the key does not belong to the certificate")
    return faults


def _raw(key: Any) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat  # noqa: PLC0415

    return bytes(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))


def _validity(certificate: Any) -> tuple[datetime, datetime]:
    """Return its first and last moment; older versions of the package return them without a time zone."""
    if hasattr(certificate, "not_valid_after_utc"):
        return certificate.not_valid_before_utc, certificate.not_valid_after_utc
    return certificate.not_valid_before.replace(tzinfo=UTC), certificate.not_valid_after.replace(tzinfo=UTC)


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, Callable[..., list[str]]]:
        """Return them by name."""
        return {"tls_faults": tls_faults}
