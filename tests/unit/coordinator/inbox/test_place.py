"""Where the inbox may be, and who holds it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from seedcore.coordinator.inbox import place
from seedcore.coordinator.inbox.place import InUseError, Lock, Owner, PlaceError, file_system, is_remote, prepare
from tests.support.waiting import eventually

MOUNTS = r"""
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
31 22 0:30 / /srv rw shared:2 - nfs4 server:/srv rw,vers=4.2
32 31 8:2 / /srv/local rw - xfs /dev/sdb1 rw
33 22 0:44 / /mnt/my\040disk rw - fuse.sshfs me@host: rw
34 22 0:45 / /home rw - autofs auto.home rw
35 34 0:46 / /home rw - cifs //server/home rw
36 22 8:3 / /usb rw - fuseblk /dev/sdc1 rw
"""


@pytest.mark.parametrize(
    ("path", "kind", "remote"),
    [
        ("/var/lib", "ext4", False),
        ("/srv/seedcore", "nfs4", True),
        ("/srv", "nfs4", True),
        ("/srvother", "ext4", False),
        ("/srv/local/state", "xfs", False),
        ("/mnt/my disk/state", "fuse.sshfs", True),
        ("/home/ann", "cifs", True),
        ("/usb/state", "fuseblk", False),
    ],
)
def test_the_file_system_of_a_path(*, path: str, kind: str, remote: bool) -> None:
    assert file_system(path, MOUNTS) == kind
    assert is_remote(kind) is remote


def test_a_directory_in_a_network_file_system_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(place, "file_system", lambda *_: "nfs4")
    with pytest.raises(PlaceError, match="is in a nfs4 file system; the inbox needs a local disk: set SEEDCORE_STATE"):
        prepare(tmp_path / "inbox")


def test_a_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(PlaceError, match="file/inbox cannot be used: Not a directory"):
        prepare(tmp_path / "file" / "inbox")


HOLDER = """
import sys, time
from pathlib import Path
from seedcore.coordinator.inbox.place import Lock
Lock(Path(sys.argv[1]), sys.argv[2]).take()
print("held", flush=True)
time.sleep(600)
"""


def holder(directory: Path, deployment: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", HOLDER, str(directory), deployment]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate()


def test_a_stopped_predecessor_of_the_same_deployment_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(place, "ENDS_WITHIN_S", 0.2)
    predecessor = holder(tmp_path, "test")
    os.kill(predecessor.pid, signal.SIGSTOP)
    try:
        lock = Lock(tmp_path, "test")
        lock.take()
        lock.free()
        assert predecessor.wait(60) == -signal.SIGKILL
    finally:
        end(predecessor)


def test_a_predecessor_that_ends_is_awaited(tmp_path: Path) -> None:
    predecessor = holder(tmp_path, "test")
    predecessor.terminate()
    lock = Lock(tmp_path, "test")
    lock.take()
    end(predecessor)
    owner = Owner.parse((tmp_path / place.LOCK).read_text())
    assert owner == Owner.myself("test")
    lock.free()


def test_a_process_of_another_deployment_is_never_killed(tmp_path: Path) -> None:
    other = holder(tmp_path, "other")
    try:
        with pytest.raises(InUseError, match="belongs to the deployment 'other'"):
            Lock(tmp_path, "test").take()
        assert other.poll() is None
    finally:
        end(other)


def test_a_process_that_is_not_the_one_written_down_is_never_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(place, "ENDS_WITHIN_S", 0.0)
    other = holder(tmp_path, "test")
    try:
        was = Owner.parse((tmp_path / place.LOCK).read_text())
        assert was is not None
        assert was.lives
        for wrong in (
            Owner(was.pid, was.started + 1, was.host, "test"),
            Owner(was.pid, was.started, "another start of the host", "test"),
        ):
            (tmp_path / place.LOCK).write_text(wrong.to_text())
            with pytest.raises(InUseError, match="its owner is not the one that is written there"):
                Lock(tmp_path, "test").take()
        (tmp_path / place.LOCK).write_text("not JSON")
        with pytest.raises(InUseError, match="is not the one that is written there"):
            Lock(tmp_path, "test").take()
        assert other.poll() is None
    finally:
        end(other)


def test_a_dead_process_does_not_live(tmp_path: Path) -> None:
    process = holder(tmp_path, "test")
    owner = Owner.parse((tmp_path / place.LOCK).read_text())
    assert owner is not None
    end(process)
    assert eventually(lambda: not owner.lives)
