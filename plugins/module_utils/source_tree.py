# SPDX-License-Identifier: Apache-2.0
"""Handle source trees of packages: select the source files, compute their digest, and keep the built wheels.

It uses only the standard library, like all module_utils.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import stat
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

# Caches and environments, which are not source.
_NOT_SOURCE = frozenset({"__pycache__", ".venv", ".mypy_cache", ".pytest_cache", ".ruff_cache", ".tox", "node_modules"})
# Directories that setuptools leaves in build.
_BUILT = re.compile(r"lib|bdist\.|temp\.")
# Build plugins that take the version from git, so that the tree alone does not determine the wheel.
_FROM_GIT = re.compile(rb"scm|vcs|versioneer|dunamai|\bgit\b")
_BUILD_FILES = ("pyproject.toml", "setup.py", "setup.cfg")
# Part of each digest; another number invalidates all cached wheels.
_FORMAT = 1
# Wheels to keep in a cache.
KEPT = 20


def left_out(source: Path, directory: str, names: list[str]) -> set[str]:
    """Return the names in a directory of the tree that are build leftovers, caches or special files."""
    top = Path(directory) in (source, source / "src")
    return {
        name
        for name in names
        if name in _NOT_SOURCE
        or (top and (name == ".git" or name.endswith(".egg-info")))
        or (Path(directory).name == "build" and Path(directory).parent == source and _BUILT.match(name))
        or not _is_plain(Path(directory, name))
    }


def copy(source: Path, target: Path) -> None:
    """Copy a tree without leftovers of builds, because setuptools would include them.

    Raises:
        OSError: A file in it cannot be read; ``shutil.Error`` is one, too.
    """
    shutil.copytree(
        source, target, symlinks=True, ignore=lambda directory, names: left_out(source, directory, names)
    )  # fmt: skip
    # The version may come from git; its history is large, and no build writes into it.
    if (source / ".git").exists():
        (target / ".git").symlink_to((source / ".git").resolve())


def digest(source: Path) -> str | None:
    """Return a digest of a tree by names, modes and content; None if the tree alone does not determine the wheel."""
    for name in _BUILD_FILES:
        with contextlib.suppress(FileNotFoundError):
            if _FROM_GIT.search((source / name).read_bytes()):
                return None
    found = hashlib.sha256(f"{_FORMAT} {source.resolve().name}\n".encode())
    for path in _files(source):
        state = path.lstat()
        if stat.S_ISLNK(state.st_mode):
            content = str(path.readlink()).encode()
        elif stat.S_ISDIR(state.st_mode):
            content = b""
        else:
            content = path.read_bytes()
        text = f"{path.relative_to(source)}\0{state.st_mode:o}\0{hashlib.sha256(content).hexdigest()}\n"
        found.update(text.encode("utf-8", "surrogateescape"))
    return found.hexdigest()


def built_before(cache: Path, key: str) -> Path | None:
    """Return the wheel that was built from a tree with this digest; None if there is none, or it is damaged."""
    for wheel in (cache / key).glob("*.whl"):
        try:
            with zipfile.ZipFile(wheel) as archive:
                if archive.testzip() is None:
                    # The oldest ones are removed.
                    os.utime(cache / key)
                    return wheel
        except (OSError, zipfile.BadZipFile):
            continue
    return None


def keep(cache: Path, key: str, wheel: Path) -> None:
    """Put a wheel into the cache, and remove the least recently used wheels.

    If there is no space or no write permission, the wheel is not kept, and the next run builds it again.
    """
    with contextlib.suppress(OSError):
        cache.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.TemporaryDirectory(dir=cache, prefix=".") as beside:
            entry = Path(beside, "entry")
            entry.mkdir()
            shutil.copy(wheel, entry / wheel.name)
            shutil.rmtree(cache / key, ignore_errors=True)
            entry.rename(cache / key)
        entries = sorted(cache.glob("[!.]*"), key=lambda path: path.stat().st_mtime, reverse=True)
        for old in entries[KEPT:]:
            shutil.rmtree(old, ignore_errors=True)


def _files(source: Path) -> Iterator[Path]:
    """Yield the source files of a tree in a fixed order."""
    for directory, names, files in os.walk(source):
        out = left_out(source, directory, [*names, *files])
        # os.walk enters only what is left in the list, in this order.
        names[:] = sorted(name for name in names if name not in out)
        for name in sorted({*names, *files} - out):
            yield Path(directory, name)


def _is_plain(path: Path) -> bool:
    return path.is_symlink() or path.is_file() or path.is_dir()
