from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.seedcore.cluster.plugins.filter.trees import file_digest, tree_digest


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "main.yml").write_text("---\n")
    (tmp_path / "README").write_bytes(b"\xff")
    return tmp_path


def test_a_tree_has_the_digest_of_its_names_and_content(tree: Path) -> None:
    before = tree_digest([str(tree)])

    (tree / "tasks" / "__pycache__").mkdir()
    (tree / "tasks" / "__pycache__" / "main.pyc").touch()
    assert tree_digest([str(tree)]) == before

    (tree / "README").rename(tree / "README.md")
    renamed = tree_digest([str(tree)])
    (tree / "README.md").write_text("")
    assert len({before, renamed, tree_digest([str(tree)])}) == 3


def test_a_file_has_the_digest_of_its_content(tree: Path) -> None:
    before = file_digest(str(tree / "README"))
    (tree / "README").write_text("another")
    assert file_digest(str(tree / "README")) != before
