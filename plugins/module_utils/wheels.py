"""Build the wheels of a release, and compute a digest of what they contain. It does not import Ansible."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ansible_collections.seedcore.cluster.plugins.module_utils import cli, locking, paths, source_tree

ARGUMENT_SPEC: dict[str, dict[str, Any]] = {
    "package": {"type": "path", "required": True},
    "extra": {"type": "list", "elements": "path", "default": []},
    "environments": {"type": "dict", "default": {}},
    "lock": {"type": "path", "required": True},
    "dest": {"type": "path"},
    "directory": {"type": "path", "required": True},
    "uv": {"type": "path", "default": "uv"},
    "timeout": {"type": "int", "default": 300},
    "python": {"type": "str", "default": "3.11"},
    "wheelhouse": {"type": "path"},
    "environment": {"type": "dict", "default": {}},
    "cache": {"type": "path"},
}
# Files that a release does not run: the tool that packed the wheel, and the list of its files.
_NOT_CONTENT = re.compile(r"[^/]+\.dist-info/(RECORD|WHEEL)")
_PINNED = re.compile(r"[A-Za-z0-9._-]+\s*==\s*(?P<version>[A-Za-z0-9.!+_-]+)")
_REQUIREMENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*\s*(\[[^\]]*\])?\s*($|[<>=!~;@].*)")
_GIT = re.compile(
    r"[A-Za-z0-9][A-Za-z0-9._-]*\s*@\s*git\+(?P<url>[^@#]*?://(?:[^@/#]+@)?[^@#]+)(?:@(?P<ref>[^#]+))?(?:#subdirectory=(?P<below>[^&]+))?"
)
_A_WHEEL = re.compile(r"[^@:]*\.whl")
# The earliest time that a zip file can represent.
_EPOCH = "315532800"
# Return code of cli.run if the command cannot be run at all.
NOT_RUN = -1


@dataclass(frozen=True)
class Part:
    """A package to install: the name of a wheel in ``dest``, which may have been built here, or a requirement."""

    text: str
    is_wheel: bool
    is_built: bool = False


class PackageError(Exception):
    """A package cannot be installed; the text tells what is expected."""


def run(params: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Return the documented result and the warnings; set the variables of ``environment`` in this process.

    Raises:
        PackageError: A package cannot be read or built, or an option is wrong.
        ResolutionError: The requirements cannot be resolved.
    """
    if params["timeout"] < 1:
        raise PackageError(f"timeout is {params['timeout']}, expected 1 or more")
    for name, entries in params["environments"].items():
        if not isinstance(entries, list):
            raise PackageError(f"environments has {name}: {entries!r}, expected a list of packages")
    if not params["dest"]:
        raise PackageError("dest is missing: the action plugin of this name sets it on the controller")
    os.environ.update({str(name): str(value) for name, value in params["environment"].items()})
    found = collect(params)
    warnings = [
        f"{name} has compiled code: each build of it is another release, for this kind of machine alone;"
        " build the wheel once, and name it instead of its source"
        for name in found["compiled"]
    ]
    return found, warnings


def collect(params: dict[str, Any]) -> dict[str, Any]:
    """Build the wheels, and compute the digest of everything.

    Raises:
        PackageError: A package cannot be read or built.
    """
    try:
        lock = Path(params["lock"]).read_bytes()
    except OSError as error:
        raise PackageError(f"the lock {params['lock']} cannot be read: {error.strerror}") from error
    package = resolve(params["package"], params)
    extra = _bundle(params["extra"], package, params, Path(params["dest"]))
    environments = {
        # Packages of two environments may have the same name and version.
        name: _bundle(entries, package, params, Path(params["dest"], "environments", name))
        for name, entries in sorted(params["environments"].items())
    }
    own = _part_content(package, Path(params["dest"]))
    built = [package, *extra.parts, *(part for bundle in environments.values() for part in bundle.parts)]
    return {
        "version": version(package.text),
        "digest": _digest(f"lock {hashlib.sha256(lock).hexdigest()}", own),
        "extra_digest": extra.digest if extra.parts else "",
        "package": package.text,
        "extra": extra.names,
        "extra_wheels": extra.wheels,
        "extra_lock": extra.lock,
        "environments": {
            name: {"digest": bundle.digest, "extra": bundle.names, "wheels": bundle.wheels, "lock": bundle.lock}
            for name, bundle in environments.items()
        },
        "wheels": sorted({part.text for part in (package, *extra.parts) if part.is_wheel}),
        "compiled": sorted({part.text for part in built if part.is_built and not part.text.endswith("-any.whl")}),
    }


@dataclass(frozen=True)
class _Bundle:
    """Packages that are installed together on top of a release, and what they need beyond its lock."""

    parts: list[Part]
    lock: str
    digest: str

    @property
    def names(self) -> list[str]:
        return [part.text for part in self.parts]

    @property
    def wheels(self) -> list[str]:
        return [part.text for part in self.parts if part.is_wheel]


def _bundle(entries: list[str], package: Part, params: dict[str, Any], directory: Path) -> _Bundle:
    """Build the packages into a directory, and resolve what they need.

    Raises:
        PackageError: A package cannot be read or built.
        ResolutionError: Their requirements contradict each other or the lock.
    """
    directory.mkdir(parents=True, exist_ok=True)
    parts = [resolve(entry, {**params, "dest": str(directory)}) for entry in entries]
    wheels = [Path(params["dest"], package.text)] if package.is_wheel else []
    wheels += [directory / name for name in sorted({part.text for part in parts if part.is_wheel})]
    request = locking.Request(
        requirements=[part.text for part in parts if not part.is_wheel],
        package="" if package.is_wheel else package.text,
        wheels=wheels,
        lock=Path(params["lock"]).resolve(),
        python=params["python"],
        wheelhouse=Path(params["wheelhouse"]).resolve() if params["wheelhouse"] else None,
    )
    # Without packages of the user, the release's lock has everything.
    lock = locking.resolve(request, uv=params["uv"], timeout_s=params["timeout"]) if parts else ""
    return _Bundle(parts, lock, _digest(*(_part_content(part, directory) for part in parts), lock))


def _part_content(part: Part, directory: Path) -> str:
    return content(directory / part.text) if part.is_wheel else part.text


def _digest(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def resolve(entry: str, params: dict[str, Any]) -> Part:
    """Return a requirement unchanged, or the wheel in ``dest`` that was made from a path.

    Raises:
        PackageError: It is neither, or it cannot be built.
    """
    text = entry.strip()
    path = Path(params["directory"], text)
    if text and path.exists():
        if path.suffix == ".whl":
            shutil.copy(path, params["dest"])
            return Part(path.name, is_wheel=True)
        return Part(build(path, params), is_wheel=True, is_built=True)
    if match := _GIT.fullmatch(text):
        return Part(build_from_git(match, params), is_wheel=True, is_built=True)
    if _REQUIREMENT.fullmatch(text) and not _A_WHEEL.fullmatch(text):
        return Part(text, is_wheel=False)
    raise PackageError(
        f"{entry!r} is neither a path on the controller (seen from {params['directory']}) nor a requirement"
    )


def build_from_git(match: re.Match[str], params: dict[str, Any]) -> str:
    """Build the present state of a branch, a tag or a commit, because it may change before a node is added.

    Raises:
        PackageError: It cannot be fetched or built.
    """
    url, ref, below = match["url"], match["ref"] or "HEAD", match["below"] or ""
    environ = {"GIT_TERMINAL_PROMPT": "0"}
    with tempfile.TemporaryDirectory() as scratch:
        for argv in (
            ["git", "clone", "--quiet", url, f"{scratch}/tree"],
            ["git", "-C", f"{scratch}/tree", "checkout", "--quiet", ref],
        ):
            answer = cli.run(argv, timeout_s=params["timeout"], environ=environ)
            if answer.rc != 0:
                said = (answer.stderr.strip().splitlines() or [f"no answer within {params['timeout']} s"])[-1]
                raise PackageError(f"{url} at {ref} cannot be fetched: {said}")
        return build(Path(scratch, "tree", below), params)


def build(source: Path, params: dict[str, Any]) -> str:
    """Build a source tree; its build requirements come from uv's cache if possible, else from the index."""
    if source.is_dir() and not ((source / "pyproject.toml").is_file() or (source / "setup.py").is_file()):
        raise PackageError(f"{source} is not a Python package: it has neither pyproject.toml nor setup.py")
    cache, key = Path(params["cache"] or ""), _key(source) if params["cache"] else None
    if key and (known := source_tree.built_before(cache, key)):
        shutil.copy(known, params["dest"])
        return str(known.name)
    with tempfile.TemporaryDirectory(dir=params["dest"]) as out, tempfile.TemporaryDirectory() as beside:
        tree = copy(source, Path(beside, source.resolve().name)) if source.is_dir() else source
        argv = [params["uv"], "build", "--wheel", "--no-create-gitignore", "--no-config", "--out-dir", out, str(tree)]
        # uv trusts the certificates that the controller trusts.
        environ = {"SOURCE_DATE_EPOCH": _EPOCH, "UV_SYSTEM_CERTS": os.environ.get("UV_SYSTEM_CERTS", "true")}
        answer = cli.Answer(None, "", "")
        for more in (["--offline"], []):
            answer = cli.run([*argv, *more], timeout_s=params["timeout"], environ=environ)
            if answer.rc == 0:
                break
        if answer.rc == NOT_RUN:
            raise PackageError(
                f"{source} cannot be built, because this machine has no uv ({answer.stderr.strip()}):"
                f" pip install uv, set seedcore_controller_uv to its path, or give wheels instead of source trees"
            )
        if answer.rc is None:
            raise PackageError(f"{source} was not built within {params['timeout']} s")
        if answer.rc != 0:
            raise PackageError(
                f"{source} cannot be built by {params['uv']}: {(answer.stderr or answer.stdout).strip()}"
            )
        wheel = next(Path(out).glob("*.whl"))
        # What was compiled depends on this machine, too.
        if key and wheel.name.endswith("-any.whl"):
            source_tree.keep(cache, key, wheel)
        shutil.move(wheel, Path(params["dest"], wheel.name))
        return wheel.name


def _key(source: Path) -> str | None:
    """Return the digest under which a tree's wheel is kept; None if each run must rebuild it."""
    try:
        return source_tree.digest(source) if source.is_dir() else None
    except OSError:
        # The build reports what cannot be read.
        return None


def copy(source: Path, target: Path) -> Path:
    """Copy a source tree without leftovers of builds.

    Raises:
        PackageError: A file in it cannot be read.
    """
    try:
        source_tree.copy(source, target)
    except OSError as error:
        raise PackageError(f"{source} cannot be read: {paths.told(error)}") from error
    return target


def content(wheel: Path) -> str:
    """Return a digest of the files in a wheel by name and content, independent of the zip format.

    Raises:
        PackageError: The file is not a wheel.
    """
    try:
        with zipfile.ZipFile(wheel) as archive:
            names = sorted(name for name in archive.namelist() if not _NOT_CONTENT.fullmatch(name))
            lines = [f"{name} {hashlib.sha256(archive.read(name)).hexdigest()}" for name in names]
    except zipfile.BadZipFile as error:
        raise PackageError(f"{wheel.name} is not a wheel: {error}") from error
    return "\n".join([wheel.name.split("-")[0], *lines])


def version(package: str) -> str:
    """Return the version from the name of a wheel or from a pinned requirement.

    Raises:
        PackageError: The requirement does not name one version.
    """
    if package.endswith(".whl"):
        return package.split("-")[1]
    match = _PINNED.fullmatch(package)
    if match is None:
        raise PackageError(f"the package {package!r} names no single version, expected a path or name==version")
    return match["version"]
