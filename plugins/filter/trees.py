# SPDX-License-Identifier: Apache-2.0
"""Filters for files on the controller."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from pathlib import Path


def tree_digest(directories: Iterable[str]) -> str:
    """Return a digest of all files in directories, by name and content, without Python's caches."""
    digest = hashlib.sha256()
    for directory in directories:
        for path in sorted(Path(directory).rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                content = hashlib.sha256(path.read_bytes()).hexdigest()
                digest.update(f"{path.relative_to(directory)} {content}\n".encode())
    return digest.hexdigest()


def file_digest(path: str) -> str:
    """Return a digest of a file's content."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, Callable[..., str]]:
        """Return them by name."""
        return {"file_digest": file_digest, "tree_digest": tree_digest}
