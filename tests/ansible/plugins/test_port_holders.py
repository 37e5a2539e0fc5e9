"""Test who holds the ports of a deployment."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.seedcore.cluster.plugins.module_utils import processes
from ansible_collections.seedcore.cluster.plugins.modules import port_holders


def test_a_process_that_closes_a_file_meanwhile_still_holds_its_socket(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = tmp_path / "7" / "fd"
    files.mkdir(parents=True)
    # Reading it fails, as for a link that has gone since the directory was read.
    (files / "3").touch()
    (files / "4").symlink_to("socket:[42]")
    (files / "5").touch()
    (tmp_path / "8").mkdir()
    monkeypatch.setattr(processes, "PROC", tmp_path)

    assert port_holders.holders({"42", "43"}) == {"42": 7}
