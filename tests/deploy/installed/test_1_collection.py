"""Test the built collection: install it into an empty path and deploy it without internet."""

from __future__ import annotations

import json
import socket
import struct
import subprocess
import sys
import tarfile
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.deploy.conftest import Deployment, Run
from tests.deploy.installed.conftest import Installed, run

pytestmark = pytest.mark.timeout(2400)

# Write every packet of the loopback interface to standard output until the end, each after its length.
CAPTURE = """
import socket, struct, sys
packets = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
packets.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 26)
packets.bind(("lo", 0))
sys.stderr.write("capturing\\n")
sys.stderr.flush()
while True:
    packet = packets.recv(1 << 17)
    sys.stdout.buffer.write(struct.pack("!I", len(packet)) + packet)
    sys.stdout.buffer.flush()
"""


def test_it_has_what_it_needs_and_nothing_else(artefact: Path) -> None:
    with tarfile.open(artefact) as archive:
        names = archive.getnames()

    top = {name.split("/")[0] for name in names}
    assert top == {
        "CONTRIBUTING.md",
        "FILES.json",
        "LICENSE",
        "MANIFEST.json",
        "README.md",
        "changelogs",
        "docs",
        "examples",
        "inventory",
        "meta",
        "playbooks",
        "plugins",
        "roles",
    }
    assert [name for name in names if name.endswith(".whl")] == ["roles/seedcore/files/seedcore-0.1.0-py3-none-any.whl"]
    assert not [name for name in names if "__pycache__" in name]


def test_a_collection_without_the_library_says_so_before_anything_starts(installed: Installed) -> None:
    done = installed.deployment.run("preflight", seedcore_package=str(installed.collections))

    assert done.returncode != 0
    assert "is not a Python package" in done.output


def test_it_deploys_without_the_checkout(deployed: Deployment, first: Run) -> None:
    status = deployed.seedcore("status", "--json")

    assert status.returncode == 0, status.stderr
    assert json.loads(status.stdout)["healthy"] is True
    assert "healthy: 3 of 3 organs ready" in first.output
    assert len(list((deployed.prefix / "cache" / "wheelhouse").glob("ray-*.whl"))) == 1


def test_it_does_so_without_a_network(deployed: Deployment, network: Sequence[str]) -> None:
    if not network:
        pytest.skip("this machine lets nobody have a network of its own (unshare --net)")

    assert deployed.wrapper == network
    assert run(*network, "ip", "route").stdout == ""
    assert run(*network, "ip", "-oneline", "link").stdout.count("\n") == 1


def test_neither_the_token_nor_a_payload_is_in_clear_between_the_nodes(
    deployed: Deployment, network: Sequence[str], tmp_path: Path
) -> None:
    if not network:
        pytest.skip("this machine lets nobody have a network of its own (unshare --net)")
    payload, token = b"a payload that nobody else may read", (deployed.prefix / "etc" / "token").read_bytes().strip()
    captured = tmp_path / "packets"
    with captured.open("wb") as out, subprocess.Popen(
        [*network, sys.executable, "-c", CAPTURE], stdout=out, stderr=subprocess.PIPE, text=True
    ) as capture:  # fmt: skip
        assert capture.stderr is not None
        assert capture.stderr.readline() == "capturing\n"
        # HTTP to the Coordinator, and then Ray's RPC to an organ. A driver joins the cluster with the token.
        assert deployed.seedcore("submit", "echo", "--params", json.dumps({"text": payload.decode()})).returncode == 0
        assert deployed.seedcore("bootstrap").returncode == 0
        capture.terminate()

    seen = ports_with(captured, token, payload)

    # These two are HTTP on the head itself; seedcore_http_tls_certificate encrypts the Coordinator's.
    http = {deployed.variables["seedcore_http_port"], deployed.variables["ray_dashboard_port"]}
    assert seen[payload]
    assert [ports for ports in seen[payload] | seen[token] if not http & set(ports)] == []


def ports_with(captured: Path, *texts: bytes) -> dict[bytes, set[tuple[int, int]]]:
    """Return for each text the two ports of every TCP packet that contains it."""
    found: dict[bytes, set[tuple[int, int]]] = defaultdict(set)
    data, at = captured.read_bytes(), 0
    while at + 4 <= len(data):
        (length,) = struct.unpack_from("!I", data, at)
        packet = data[at + 4 : at + 4 + length]
        at += 4 + length
        # An Ethernet header of 14 bytes, and then IPv4.
        if len(packet) < 54 or packet[23] != socket.IPPROTO_TCP:
            continue
        ports = struct.unpack_from("!HH", packet, 14 + 4 * (packet[14] & 15))
        for text in texts:
            if text in packet:
                found[text].add(ports)
    return found
