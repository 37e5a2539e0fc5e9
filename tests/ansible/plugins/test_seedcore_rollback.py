from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Run = Callable[..., dict[str, Any]]


@pytest.fixture
def prefix(tmp_path: Path) -> Path:
    """A deployment with agents that were green one after the other; the last ones are active."""
    below = {
        "releases/0": "ray/old", "agents/0.a": "releases/0", "releases/1": "ray/new", "agents/1.a": "releases/1",
        "agents/1.red": "releases/1", "agents/1.b": "releases/1",
    }  # fmt: skip
    for age, (path, sees) in enumerate(below.items()):
        (tmp_path / path).mkdir(parents=True)
        document = {"release": path.rpartition("/")[2].partition(".")[0], "python": "/x", "below": sees}
        if path.startswith("agents/"):
            document["agents"] = path.rpartition("/")[2]
        (tmp_path / path / "release.json").write_text(json.dumps(document))
        os.utime(tmp_path / path / "release.json", (age, age))
    for day, name in enumerate(("agents/0.a", "agents/1.a", "agents/1.b"), 1):
        (tmp_path / name / "green").write_text(f"2026-11-0{day}T00:00:00Z\n")
    (tmp_path / "releases" / "fat").mkdir()
    (tmp_path / "releases" / "fat" / "release.json").write_text('{"release": "fat"}')
    (tmp_path / "ray" / "new").mkdir(parents=True)
    (tmp_path / "ray" / "current").symlink_to("new")
    (tmp_path / "current").symlink_to("agents/1.b")
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "organism.yaml").write_text("now: 1\n")
    return tmp_path


def active(prefix: Path) -> str:
    return str((prefix / "current").readlink())


def test_it_goes_back_to_what_was_green_before(prefix: Path, run: Run) -> None:
    (prefix / "agents" / "1.a" / "organism.yaml").write_text("then: 1\n")

    for changes_nothing in ({"check": True}, {"state": "found"}):
        preview = run("seedcore_rollback", prefix=str(prefix), **changes_nothing)
        assert (preview["id"], active(prefix)) == ("1.a", "agents/1.b")
        assert preview["changed"] is (changes_nothing == {"check": True})
    done = run("seedcore_rollback", prefix=str(prefix))

    assert (done["changed"], active(prefix)) == (True, "agents/1.a")
    assert (done["release"], done["agents"], done["before"]) == ("1", "1.a", "1.b")
    assert done["environments"] == {}
    assert done["green"] == "2026-11-02T00:00:00Z"
    assert (prefix / "etc" / "organism.yaml").read_text() == "then: 1\n"


def test_a_release_that_is_named_need_not_have_been_green(prefix: Path, run: Run) -> None:
    assert run("seedcore_rollback", prefix=str(prefix), to="1.red")["id"] == "1.red"
    assert active(prefix) == "agents/1.red"
    assert (prefix / "etc" / "organism.yaml").read_text() == "now: 1\n", "none is known of that time"
    # A run that is repeated, on a host that is there already.
    assert run("seedcore_rollback", prefix=str(prefix), to="1.red")["changed"] is False


def test_a_release_that_was_green_without_agents_can_be_active_again_although_agents_see_it(
    prefix: Path, run: Run
) -> None:
    (prefix / "releases" / "1" / "green").write_text("2026-11-02T12:00:00Z\n")

    done = run("seedcore_rollback", prefix=str(prefix))

    assert (done["id"], done["release"], done["agents"]) == ("1", "1", "")
    assert active(prefix) == "releases/1"


def test_the_organism_of_the_package_comes_back_and_so_does_one_of_its_own(prefix: Path, run: Run) -> None:
    own, settings = prefix / "etc" / "organism.yaml", prefix / "etc" / "seedcore.env"
    settings.write_text(f"A=1\nSEEDCORE_CONFIG={own}\nB=2\n")
    settings.chmod(0o640)
    (prefix / "agents" / "1.b" / "organism.yaml").write_text("now: 1\n")

    assert run("seedcore_rollback", prefix=str(prefix), check=True)["changed"] is True
    assert own.exists()
    run("seedcore_rollback", prefix=str(prefix))
    assert not own.exists()
    assert settings.read_text() == "A=1\nSEEDCORE_CONFIG=''\nB=2\n"

    run("seedcore_rollback", prefix=str(prefix), to="1.b")
    assert own.read_text() == "now: 1\n"
    assert settings.read_text() == f"A=1\nSEEDCORE_CONFIG={own}\nB=2\n"
    assert settings.stat().st_mode & 0o777 == 0o640
    assert run("seedcore_rollback", prefix=str(prefix), to="1.b")["changed"] is False


@pytest.mark.parametrize(
    ("to", "said"),
    [
        ("nowhere", "nowhere is not on this host; green were: 1.a, 0.a: name one that every host has"),
        ("fat", "fat is not on this host"),
        ("0.a", "0.a needs another Ray than the nodes run"),
        ("1", "1 is not on this host"),
    ],
)
def test_what_cannot_be_active_is_refused_and_nothing_changes(prefix: Path, run: Run, to: str, said: str) -> None:
    failed = run("seedcore_rollback", prefix=str(prefix), to=to)
    assert said in failed["msg"]
    assert active(prefix) == "agents/1.b"


def test_without_another_green_release_there_is_nothing_to_go_back_to(prefix: Path, run: Run) -> None:
    (prefix / "agents" / "1.a" / "green").unlink()
    failed = run("seedcore_rollback", prefix=str(prefix))
    assert failed["msg"] == "no other release was green with the Ray of the nodes; green were: 0.a"
    assert run("seedcore_rollback", prefix=str(prefix / "blank"))["msg"].startswith("no other release was green")


@pytest.mark.parametrize(
    ("before", "green", "chosen"),
    [
        ("1.a", ("agents/1.a",), "1.a"),
        # What was active before was not green: the last one that was.
        ("1.red", ("agents/1.a",), "1.a"),
        # On another Ray.
        ("0.a", ("agents/0.a", "agents/1.a"), "1.a"),
        # The agents are new, and before them a release without any was green.
        ("1", ("releases/1",), "1"),
        # Only the organism has changed.
        ("1.b", ("agents/1.b", "agents/1.a"), "1.b"),
    ],
)
def test_after_a_red_gate_it_goes_back_to_what_was_active_before_if_that_was_green(
    prefix: Path, run: Run, before: str, green: tuple[str, ...], chosen: str
) -> None:
    for path in prefix.glob("agents/*/green"):
        path.unlink()
    for name in green:
        (prefix / name / "green").write_text("2026-11-05T00:00:00Z\n")
        (prefix / name / "organism.yaml").write_text("then: 1\n")

    found = run("seedcore_rollback", prefix=str(prefix), before=before, state="found")
    assert (found["id"], found["differs"], active(prefix)) == (chosen, True, "agents/1.b")
    assert run("seedcore_rollback", prefix=str(prefix), before=before)["id"] == chosen

    assert active(prefix).rpartition("/")[2] == chosen
    assert (prefix / "etc" / "organism.yaml").read_text() == "then: 1\n"


def test_after_a_red_first_run_there_is_nothing_to_go_back_to(prefix: Path, run: Run) -> None:
    for path in prefix.glob("agents/*/green"):
        path.unlink()
    assert run("seedcore_rollback", prefix=str(prefix), before="")["msg"].startswith("no other release was green")
