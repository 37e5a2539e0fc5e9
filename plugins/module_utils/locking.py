# SPDX-License-Identifier: Apache-2.0
"""Resolve the requirements of packages, once for all nodes, into a list with hashes.

It uses only the standard library, like all module_utils.
"""

from __future__ import annotations

import re
import tarfile
import tempfile
import zipfile
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ansible_collections.seedcore.cluster.plugins.module_utils import cli

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_LOCKED = re.compile(r"(?m)^([A-Za-z0-9][A-Za-z0-9._-]*)(?:\[[^]]*\])?==([^\s;\\]+)")
# Lists do not name the extras that they were made with; all are made with these.
_LOCKED_EXTRAS = {"ray": {"default"}}
_SHOWN_LINES = 10


class ResolutionError(Exception):
    """No set of versions satisfies all requirements; the text tells why."""


@dataclass(frozen=True)
class Request:
    """The input of a resolution.

    Attributes:
        requirements: Requirements in the user's words.
        package: A requirement that is installed separately; empty if there is none.
        wheels: Wheels whose requirements are resolved, but which are installed separately.
        lock: A file with versions that are always installed and must be kept.
        python: The Python of the nodes, ``3.11.7``.
        wheelhouse: A tar file with all available packages; None means a package index.
    """

    requirements: Sequence[str]
    package: str
    wheels: Sequence[Path]
    lock: Path
    python: str
    wheelhouse: Path | None = None


def resolve(request: Request, *, uv: str, timeout_s: float) -> str:
    """Return the lines of a requirements file with hashes for everything beyond the lock and the wheels; may be empty.

    Raises:
        ResolutionError: There is no such set of versions, or the resolution failed.
    """
    pinned = _LOCKED.findall(f"{request.lock.read_text(encoding='utf-8')}\n{request.package}")
    pinned += [(name_of(wheel), wheel.name.split("-")[1]) for wheel in request.wheels]
    versions: dict[str, set[str]] = {}
    for name, version in pinned:
        versions.setdefault(canonical(name), set()).add(version)
    if match := _NAME.match(request.package):
        versions.setdefault(canonical(match[0]), set())
    if not request.requirements and all(_is_met(need, versions) for wheel in request.wheels for need in needs(wheel)):
        return ""
    with tempfile.TemporaryDirectory() as scratch:
        asked, answer_file = Path(scratch, "asked.in"), Path(scratch, "extra.txt")
        lines = [*request.requirements, *(f"{name_of(wheel)} @ {wheel.resolve().as_uri()}" for wheel in request.wheels)]
        lines += [request.package] if request.package else []
        asked.write_text("\n".join(lines) + "\n", encoding="utf-8")
        argv = [uv, "pip", "compile", "--quiet", "--directory", scratch, "--universal", "--generate-hashes"]
        argv += ["--no-header", "--no-annotate", "--python-version", request.python]
        argv += ["--constraint", str(request.lock), "--output-file", str(answer_file)]
        argv += [part for name in sorted(versions) for part in ("--no-emit-package", name)]
        if request.wheelhouse:
            argv += ["--no-index", "--offline", "--find-links", str(_unpacked(request.wheelhouse, Path(scratch)))]
        answer = cli.run([*argv, str(asked)], timeout_s=timeout_s)
        if answer.rc is None:
            raise ResolutionError(f"the extra requirements were not resolved within {timeout_s:g} s")
        if answer.rc != 0:
            said = [line for line in (answer.stderr or answer.stdout).splitlines() if line.strip()]
            raise ResolutionError("the extra requirements cannot be resolved:\n" + "\n".join(said[-_SHOWN_LINES:]))
        return answer_file.read_text(encoding="utf-8")


def _is_met(need: str, versions: Mapping[str, Collection[str]]) -> bool:
    """Return whether these versions certainly satisfy a requirement."""
    match = _NAME.match(need)
    known = versions.get(canonical(match[0])) if match else None
    if known is None:
        return False
    try:
        # Ansible needs it too, so the controller has it.
        from packaging.requirements import InvalidRequirement, Requirement  # noqa: PLC0415
    except ImportError:
        return not re.search(r"[<>=~@[]", need.partition(";")[0])
    try:
        wanted = Requirement(need)
    except InvalidRequirement:
        return False
    if wanted.extras - _LOCKED_EXTRAS.get(canonical(wanted.name), set()):
        return False
    # A package of which only the place is known is believed.
    return not wanted.url and all(wanted.specifier.contains(version, prereleases=True) for version in known)


def needs(wheel: Path) -> list[str]:
    """Return what a wheel requires, except for its extras.

    Raises:
        ResolutionError: The file is not a wheel.
    """
    try:
        with zipfile.ZipFile(wheel) as archive:
            metadata = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
            text = archive.read(metadata[0]).decode("utf-8", "replace") if metadata else ""
    except zipfile.BadZipFile as error:
        raise ResolutionError(f"{wheel.name} is not a wheel: {error}") from error
    required = [line.partition(":")[2].strip() for line in text.splitlines() if line.startswith("Requires-Dist:")]
    return [line for line in required if not re.search(r";.*\bextra\b", line)]


def name_of(wheel: Path) -> str:
    """Return the name of the package in a wheel."""
    return wheel.name.split("-")[0]


def canonical(name: str) -> str:
    """Return a package's name in the form of an index."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _unpacked(wheelhouse: Path, scratch: Path) -> Path:
    target = scratch / "wheels"
    target.mkdir()
    try:
        with tarfile.open(wheelhouse) as archive:
            for member in archive:
                source = archive.extractfile(member) if member.isfile() else None
                if source:
                    (target / Path(member.name).name).write_bytes(source.read())
    except (OSError, tarfile.TarError) as error:
        raise ResolutionError(f"the wheelhouse {wheelhouse} cannot be read: {error}") from error
    return target
