"""`seedcore releases`: what is on this host, when it was green, which is active, and what differs."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from seedcore.cli.app import cli


@pytest.fixture
def prefix(tmp_path: Path) -> Path:
    """A deployment with three layers of agents on two releases; the last but one is active."""
    layers: dict[str, dict[str, Any]] = {
        "releases/0-fat": {"release": "0-fat"},
        "releases/1-a": {"release": "1-a", "content": "lib1", "below": "ray/r1"},
        "agents/1-a.x": {"release": "1-a", "agents": "1-a.x", "content": "mine1", "below": "releases/1-a"},
        "releases/1-b": {"release": "1-b", "content": "lib2", "below": "ray/r1"},
        "agents/1-b.y": {"release": "1-b", "agents": "1-b.y", "content": "mine1", "below": "releases/1-b"},
        "agents/1-b.z": {"release": "1-b", "agents": "1-b.z", "content": "mine2", "below": "releases/1-b"},
    }
    for age, (path, document) in enumerate(layers.items()):
        (tmp_path / path).mkdir(parents=True)
        (tmp_path / path / "release.json").write_text(json.dumps(document))
        os.utime(tmp_path / path / "release.json", (age, age))
    (tmp_path / "agents" / "half").mkdir()
    for name in ("1-a.x", "1-b.y"):
        (tmp_path / "agents" / name / "green").write_text("2026-11-27T10:00:00Z\n")
    (tmp_path / "current").symlink_to("agents/1-b.y")
    return tmp_path


@pytest.fixture
def listed(prefix: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, dict[str, Any]]:
    monkeypatch.setattr(sys, "prefix", str(prefix / "current"))
    found = CliRunner().invoke(cli, ["releases", "--json"])
    assert found.exit_code == 0, found.output
    return {row["id"]: row for row in json.loads(found.stdout)}


def test_every_release_that_can_be_active_is_listed_with_what_differs(listed: dict[str, dict[str, Any]]) -> None:
    assert list(listed) == ["1-b.z", "1-b.y", "1-a.x", "0-fat"]
    assert [row["id"] for row in listed.values() if row["active"]] == ["1-b.y"]
    assert {name: row["differs"] for name, row in listed.items()} == {
        "1-b.z": ["agents"], "1-b.y": [], "1-a.x": ["library"], "0-fat": ["agents", "library", "ray"],
    }  # fmt: skip
    assert {name for name, row in listed.items() if row["green"] == "2026-11-27T10:00:00Z"} == {"1-b.y", "1-a.x"}
    assert (listed["1-b.z"]["release"], listed["1-b.z"]["ray"], listed["0-fat"]["ray"]) == ("1-b", "r1", "")
    assert listed["0-fat"]["installed"] == "1970-01-01T00:00:00Z"


def test_a_release_that_was_green_without_agents_is_listed_although_agents_see_it(
    prefix: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (prefix / "releases" / "1-b" / "green").write_text("2026-11-27T09:00:00Z\n")
    monkeypatch.setattr(sys, "prefix", str(prefix / "current"))

    rows = json.loads(CliRunner().invoke(cli, ["releases", "--json"]).stdout)

    assert [(row["id"], row["differs"]) for row in rows if row["id"] == "1-b"] == [("1-b", ["agents"])]


def test_another_organism_is_a_difference(prefix: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (prefix / "agents" / "1-a.x" / "organism.yaml").write_text("other: 1\n")
    (prefix / "etc").mkdir()
    (prefix / "etc" / "organism.yaml").write_text("present: 1\n")
    monkeypatch.setattr(sys, "prefix", str(prefix / "agents" / "1-b.y"))

    lines = CliRunner().invoke(cli, ["releases"]).stdout.splitlines()

    assert lines[0].split() == ["ID", "INSTALLED", "GREEN", "DIFFERS"]
    assert [line.split(maxsplit=3)[::3] for line in lines[1:]] == [
        ["1-b.z", "agents"], ["1-b.y", "active"], ["1-a.x", "library, organism"], ["0-fat", "agents, library, ray"],
    ]  # fmt: skip


def test_a_checkout_says_that_it_is_no_release(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    found = CliRunner().invoke(cli, ["releases"])
    assert found.exit_code == 1
    assert "this is not a release of a deployment" in found.stderr
