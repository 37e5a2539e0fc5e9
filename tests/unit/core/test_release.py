from __future__ import annotations

from importlib import metadata
from pathlib import Path

import pytest

from seedcore.core.release import is_deployed, release_id


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
