"""Make the authority of a cluster and the certificates of its nodes, on the head.

Ray encrypts and authenticates its connections between nodes with them: each end presents its certificate, and both
must be signed by the authority. Usage: node_certificate.py [--check] DIRECTORY authority [--renew], and
node_certificate.py [--check] DIRECTORY node ADDRESS, which prints a JSON document with the PEM files of that node.
Both create only what is missing, or what expires soon, and print whether they have; --check only predicts it.
"""  # noqa: INP001

from __future__ import annotations

import argparse
import datetime as dt
import ipaddress
import json
import os
import sys
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

# Programs of roles also run with older Pythons, which lack datetime.UTC.
UTC_ZONE = dt.timezone.utc  # noqa: UP017
VALID = dt.timedelta(days=3650)
# A deployment renews what would expire within this time.
RENEWED_BEFORE = dt.timedelta(days=60)
# Clocks of hosts differ, and a host that has just booted may be behind.
BACKDATED = dt.timedelta(days=1)


class Pair:
    """A certificate and its key in two files."""

    def __init__(self, directory: Path, name: str) -> None:
        self._certificate, self._key = directory / f"{name}.crt", directory / f"{name}.key"

    def certificate(self) -> Any:
        """Return the certificate; None if a file is missing or no PEM file, or if the certificate expires soon."""
        try:
            found, key = x509.load_pem_x509_certificate(self._certificate.read_bytes()), self.key()
        except (FileNotFoundError, ValueError):
            return None
        soon = dt.datetime.now(UTC_ZONE) + RENEWED_BEFORE
        return found if found.not_valid_after_utc > soon and key.public_key() == found.public_key() else None

    def key(self) -> Any:
        """Return the private key."""
        return serialization.load_pem_private_key(self._key.read_bytes(), password=None)

    def texts(self) -> tuple[str, str]:
        """Return the two files."""
        return self._certificate.read_text("ascii"), self._key.read_text("ascii")

    def write(self, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
        """Replace both files, the key first; only their owner may read the key."""
        plain = serialization.NoEncryption()
        texts = {
            self._key: key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain),
            self._certificate: certificate.public_bytes(serialization.Encoding.PEM),
        }
        for path, text in texts.items():
            new = path.with_name(f"{path.name}.new")
            new.unlink(missing_ok=True)
            with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as stream:
                stream.write(text)
                os.fsync(stream.fileno())
            new.replace(path)


def signed(name: str, key: Any, issuer: Any, issuer_key: Any, *extensions: x509.ExtensionType) -> x509.Certificate:
    """Return a new certificate for a key."""
    now = dt.datetime.now(UTC_ZONE)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject if issuer is None else issuer.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATED)
        .not_valid_after(now + VALID if issuer is None else min(now + VALID, issuer.not_valid_after_utc))
    )
    for extension in extensions:
        builder = builder.add_extension(extension, critical=isinstance(extension, x509.BasicConstraints))
    return builder.sign(issuer_key, hashes.SHA256())


def make_authority(pair: Pair) -> None:
    """Write a new authority."""
    key = ec.generate_private_key(ec.SECP256R1())
    # With a name of its own, so that nobody takes an old authority for the new one.
    name = f"seedcore cluster {x509.random_serial_number():x}"[:64]
    pair.write(signed(name, key, None, key, x509.BasicConstraints(ca=True, path_length=0)), key)


def names_of(address: str) -> list[x509.GeneralName]:
    """Return the names under which processes reach a node: its address, and this host for processes on the node."""
    return [*_names(address), x509.IPAddress(ipaddress.ip_address("127.0.0.1")), x509.DNSName("localhost")]


def _names(address: str) -> list[x509.GeneralName]:
    try:
        return [x509.IPAddress(ipaddress.ip_address(address))]
    except ValueError:
        return [x509.DNSName(address)]


def fits(certificate: Any, authority: Any, address: str) -> bool:
    """Return whether a node can go on with its certificate."""
    try:
        certificate.verify_directly_issued_by(authority)
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (InvalidSignature, ValueError, TypeError, x509.ExtensionNotFound):
        return False
    return list(names) == names_of(address)


def make_node(pair: Pair, authority: Pair, address: str) -> None:
    """Write a new certificate for a node, which it presents both as a server and as a client."""
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = signed(
        f"seedcore node {address}"[:64],
        key,
        authority.certificate(),
        authority.key(),
        x509.BasicConstraints(ca=False, path_length=None),
        x509.SubjectAlternativeName(names_of(address)),
        x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]),
    )
    pair.write(certificate, key)


def main() -> None:
    """Make what is missing."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("directory", type=Path)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("authority").add_argument("--renew", action="store_true")
    commands.add_parser("node").add_argument("address")
    given = parser.parse_args()
    authority = Pair(given.directory, "authority")
    present = authority.certificate()
    document: dict[str, Any]
    if given.command == "authority":
        document = {"changed": present is None or given.renew}
        if document["changed"] and not given.check:
            make_authority(authority)
    elif present is None:
        if not given.check:
            sys.exit(f"{given.directory} has no authority")
        document = {"changed": True}
    else:
        node = Pair(given.directory, f"node-{given.address}")
        own = node.certificate()
        document = {"changed": own is None or not fits(own, present, given.address)}
        if document["changed"] and not given.check:
            make_node(node, authority, given.address)
        if not (document["changed"] and given.check):
            document["certificate"], document["key"] = node.texts()
            document["authority"] = authority.texts()[0]
    json.dump(document, sys.stdout)


main()
