"""Test the removal of a deployment: its obstacles, and the files that must not be touched."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.seedcore.cluster.plugins.modules import prefix_absent

Run = Callable[..., dict[str, Any]]


@pytest.fixture
def prefix(tmp_path: Path) -> Path:
    directory = tmp_path / "prefix"
    fill(directory)
    return directory


def fill(directory: Path) -> None:
    (directory / "state" / "gcs").mkdir(parents=True)
    (directory / "state" / "gcs" / "000001.log").write_text("")
    (directory / "etc").mkdir()
    (directory / "etc" / "token").write_text("")
    (directory / ".seedcore").write_text("A deployment.\nmade user: ray\n")


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Path]:
    """Provide a mounted file system, like that of a prefix in production."""
    directory = tmp_path / "mounted"
    directory.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "none", str(directory)], capture_output=True, check=False)
    if done.returncode:
        pytest.skip(f"no file system can be mounted here: {done.stderr.decode().strip()}")
    yield directory
    subprocess.run(["umount", str(directory)], check=True)


def test_a_deployment_is_removed_once(run: Run, prefix: Path) -> None:
    preview = run("prefix_absent", path=str(prefix), check=True)
    assert (preview["changed"], preview["marked"], preview["mark"]) == (True, True, "A deployment.\nmade user: ray\n")
    assert (prefix / "etc" / "token").exists()

    assert run("prefix_absent", path=str(prefix))["changed"]
    assert not prefix.exists()
    assert run("prefix_absent", path=str(prefix))["changed"] is False


def test_what_has_no_mark_stays(run: Run, prefix: Path) -> None:
    (prefix / ".seedcore").unlink()

    answer = run("prefix_absent", path=str(prefix))

    assert (answer["changed"], answer["foreign"]) == (False, True)
    assert (prefix / "etc" / "token").exists()


def test_an_interrupted_removal_can_go_on(prefix: Path, monkeypatch: pytest.MonkeyPatch, run: Run) -> None:
    remove_tree = prefix_absent._remove_tree

    def interrupted(top: Path) -> list[str]:
        if top.name == "state":
            raise KeyboardInterrupt
        left: list[str] = remove_tree(top)
        return left

    monkeypatch.setattr(prefix_absent, "_remove_tree", interrupted)
    with pytest.raises(KeyboardInterrupt):
        prefix_absent.remove(prefix, ".seedcore")

    assert not (prefix / "etc").exists()
    assert run("prefix_absent", path=str(prefix))["changed"]
    assert not prefix.exists()


def test_a_mount_point_is_emptied_and_is_no_fault_the_next_time(run: Run, mounted: Path) -> None:
    (mounted / "lost+found").mkdir()
    fill(mounted)

    answer = run("prefix_absent", path=str(mounted))

    assert answer["left"] == [str(mounted)]
    assert [path.name for path in mounted.iterdir()] == ["lost+found"]
    again = run("prefix_absent", path=str(mounted))
    assert (again["changed"], again["foreign"]) == (False, False)


def test_a_mount_point_inside_is_emptied(run: Run, mounted: Path) -> None:
    (mounted.parent / "prefix").mkdir()
    fill(mounted.parent / "prefix")
    inside = mounted.parent / "prefix" / "state" / "gcs"
    subprocess.run(["mount", "--bind", str(mounted), str(inside)], check=True)
    try:
        (mounted / "000001.log").write_text("")

        answer = run("prefix_absent", path=str(mounted.parent / "prefix"))

        assert answer["left"] == [str(inside), str(mounted.parent / "prefix")]
        assert list(mounted.iterdir()) == []
    finally:
        subprocess.run(["umount", str(inside)], check=True)


def test_a_link_to_a_disk_leaves_nothing_on_the_disk(run: Run, prefix: Path) -> None:
    link = prefix.parent / "link"
    link.symlink_to(prefix)

    assert run("prefix_absent", path=str(link))["changed"]

    assert not prefix.exists()
    assert not link.is_symlink()


def test_what_links_inside_lead_to_stays(run: Run, prefix: Path, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "file").write_text("root's")
    (prefix / "state" / "home").symlink_to(victim)
    (prefix / "tmp").symlink_to(victim)

    run("prefix_absent", path=str(prefix))

    assert (victim / "file").read_text() == "root's"


def test_what_cannot_be_removed_is_named_and_the_mark_stays(prefix: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(path: Path, *, onerror: Callable[..., None]) -> None:
        error = PermissionError(1, "Operation not permitted", str(path / "gcs"))
        onerror(os.unlink, str(path / "gcs"), (PermissionError, error, None))

    monkeypatch.setattr(prefix_absent.shutil, "rmtree", denied)
    with pytest.raises(PermissionError, match="gcs"):
        prefix_absent.remove(prefix, ".seedcore")
    assert (prefix / ".seedcore").exists()
