from __future__ import annotations

import sys
from importlib import metadata
from pathlib import Path

import pytest

from seedcore.core.release import agents_id, agents_python, environments, is_deployed, python, release_id, successor


def test_the_release_is_that_of_the_environment(tmp_path: Path) -> None:
    (tmp_path / "release.json").write_text('{"release": "1.2.3-abc", "more": 1}')
    assert release_id(tmp_path) == "1.2.3-abc"
    assert is_deployed(tmp_path)


@pytest.mark.parametrize("content", [None, "", "{", "[]", "{}", '{"release": 5}', '{"release": ""}', "\ud800"])
def test_without_a_release_it_is_the_version(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "release.json").write_bytes(content.encode("utf-8", "surrogatepass"))
    assert release_id(tmp_path) == f"{metadata.version('seedcore')}+unreleased"
    assert is_deployed(tmp_path) is (content is not None)


def test_a_checkout_that_is_not_installed_has_a_release_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", absent)
    assert release_id(tmp_path) == "0+unreleased"


def test_the_layer_of_the_agents_names_the_release_that_it_sees(tmp_path: Path) -> None:
    assert (agents_id(tmp_path), agents_python(tmp_path), python(tmp_path)) == ("", "", sys.executable)

    (tmp_path / "release.json").write_text('{"release": "1-a", "python": "/r/1-a/bin/python"}')
    assert (release_id(tmp_path), agents_id(tmp_path), agents_python(tmp_path)) == ("1-a", "", "")
    assert python(tmp_path) == "/r/1-a/bin/python"

    names = '"agents": "1-a.b", "agents_python": "/a/1-a.b/bin/python"'
    (tmp_path / "release.json").write_text('{"release": "1-a", "python": "/r/1-a/bin/python", ' + names + "}")
    assert (release_id(tmp_path), agents_id(tmp_path)) == ("1-a", "1-a.b")
    assert (python(tmp_path), agents_python(tmp_path)) == ("/r/1-a/bin/python", "/a/1-a.b/bin/python")
    assert environments(tmp_path) == {}

    names += ', "environments": {"vision": "/e/vision-c/bin/python"}'
    (tmp_path / "release.json").write_text('{"release": "1-a", ' + names + "}")
    assert environments(tmp_path) == {"vision": "/e/vision-c/bin/python"}


def test_a_layer_knows_when_another_one_has_become_active(tmp_path: Path) -> None:
    for name in ("releases/1", "agents/1.a", "agents/half"):
        (tmp_path / name).mkdir(parents=True)
    one, two = tmp_path / "releases" / "1", tmp_path / "agents" / "1.a"
    for layer in (one, two):
        (layer / "release.json").write_text('{"release": "1"}')
    assert successor(one) == "", "nothing is active"

    (tmp_path / "current").symlink_to("agents/1.a")
    assert successor(one) == "", "there is no command to go on with"
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "seedcore").touch()
    assert (successor(one), successor(two)) == (str(tmp_path / "bin" / "seedcore"), "")
    assert successor(tmp_path / "current") == ""
    assert successor(tmp_path) == "", "a checkout"

    (tmp_path / "current").unlink()
    (tmp_path / "current").symlink_to("agents/half")
    assert successor(one) == ""
