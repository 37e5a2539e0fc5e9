"""Test the log messages of a real GCS with a damaged store, which a newer Ray may change."""

from __future__ import annotations

import base64
import os
import subprocess
from pathlib import Path

import ray

from seedcore.status.gcs_store import damage
from tests.support.programs import damaged_store
from tests.support.waiting import eventually

GCS = Path(ray.__file__).parent / "core" / "src" / "ray" / "gcs" / "gcs_server"


def start(directory: Path, log: str) -> subprocess.Popen[bytes]:
    logs = directory / "logs"
    logs.mkdir(exist_ok=True)
    config = base64.b64encode(b'{"gcs_storage":"rocksdb"}').decode()
    options = [f"--config_list={config}", f"--log_dir={logs}", "--node-ip-address=127.0.0.1", "--session-name=test"]
    environ = {**os.environ, "RAY_gcs_storage": "rocksdb", "RAY_gcs_storage_path": str(directory / "store")}
    with (logs / f"{log}.out").open("wb") as out, (logs / f"{log}.err").open("wb") as err:
        return subprocess.Popen(
            [str(GCS), "--gcs_server_port=0", "--metrics-agent-port=0", *options],
            env=environ, stdin=subprocess.DEVNULL, stdout=out, stderr=err,
        )  # fmt: skip


def test_a_gcs_that_cannot_open_its_store_says_so_in_its_log_and_gets_a_new_one(tmp_path: Path) -> None:
    store, logs = tmp_path / "store", tmp_path / "logs"

    def manifests() -> list[Path]:
        return [path for path in (store / "tables").glob("MANIFEST-*") if path.stat().st_size]

    well = start(tmp_path, "gcs_server")
    try:
        eventually(manifests, timeout_s=60, what="a store")
    finally:
        well.kill()
        well.wait()
    assert damage(logs) is None
    assert damaged_store.set_aside(store, logs) == ""
    for path in manifests():
        path.write_bytes(os.urandom(200))

    damaged = start(tmp_path, "gcs_server.1")
    try:
        assert damaged.wait(120) != 0
    finally:
        damaged.kill()
        damaged.wait()

    why = damage(logs)
    assert why is not None
    assert str(store / "tables") in why
    assert "Corruption" in why

    assert damaged_store.set_aside(store, logs)
    assert not store.exists()
    again = start(tmp_path, "gcs_server.2")
    try:
        eventually(manifests, timeout_s=60, what="a new store")
    finally:
        again.kill()
        again.wait()
    assert damage(logs) is None
