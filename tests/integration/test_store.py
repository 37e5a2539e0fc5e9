"""Test the log messages of a real GCS with a damaged store, which a newer Ray may change."""

from __future__ import annotations

import base64
import os
import subprocess
from pathlib import Path

import ray

from seedcore.status.gcs_store import damage
from tests.support.waiting import eventually

GCS = Path(ray.__file__).parent / "core" / "src" / "ray" / "gcs" / "gcs_server"


def start(directory: Path) -> subprocess.Popen[bytes]:
    logs = directory / "logs"
    logs.mkdir(exist_ok=True)
    config = base64.b64encode(b'{"gcs_storage":"rocksdb"}').decode()
    options = [f"--config_list={config}", f"--log_dir={logs}", "--node-ip-address=127.0.0.1", "--session-name=test"]
    environ = {**os.environ, "RAY_gcs_storage": "rocksdb", "RAY_gcs_storage_path": str(directory / "store")}
    with (logs / "gcs_server.out").open("wb") as out:
        return subprocess.Popen(
            [str(GCS), "--gcs_server_port=0", "--metrics-agent-port=0", *options],
            env=environ, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT,
        )  # fmt: skip


def test_a_gcs_that_cannot_open_its_store_says_so_in_its_log(tmp_path: Path) -> None:
    def manifests() -> list[Path]:
        return [path for path in (tmp_path / "store" / "tables").glob("MANIFEST-*") if path.stat().st_size]

    well = start(tmp_path)
    try:
        eventually(manifests, timeout_s=60, what="a store")
    finally:
        well.kill()
        well.wait()
    assert damage(tmp_path / "logs") is None
    for path in manifests():
        path.write_bytes(os.urandom(200))

    damaged = start(tmp_path)
    try:
        assert damaged.wait(120) != 0
    finally:
        damaged.kill()
        damaged.wait()

    why = damage(tmp_path / "logs")
    assert why is not None
    assert str(tmp_path / "store" / "tables") in why
    assert "Corruption" in why
