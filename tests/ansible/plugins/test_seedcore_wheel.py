from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import textwrap
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.seedcore.cluster.plugins.module_utils.source_tree import KEPT

Run = Callable[..., dict[str, Any]]
UV = Path(sys.executable).parent / "uv"

# An included build backend, so that a build downloads nothing.
_BACKEND = """
    import time, zipfile
    from pathlib import Path

    def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
        name = "NAME-1.0-py3-none-any.whl"
        with zipfile.ZipFile(Path(wheel_directory, name), "w") as archive:
            archive.writestr(zipfile.ZipInfo("NAME.py", time.localtime()[:6]), Path("NAME.py").read_bytes())
            archive.writestr("NAME-1.0.dist-info/METADATA", "Metadata-Version: 2.1\\nName: NAME\\nVersion: 1.0\\n")
            archive.writestr("NAME-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\\nGenerator: test\\n")
            archive.writestr("NAME-1.0.dist-info/RECORD", str(time.time_ns()))
        return name
"""


class Workshop:
    """Source trees, a lock and a directory for wheels."""

    def __init__(self, directory: Path, run: Run) -> None:
        self.directory = directory
        self.run = run
        self.lock = directory / "requirements.txt"
        self.lock.write_text("click==8.0\n")
        self.missing_uv = False
        self.more: dict[str, Any] = {}

    def tree(self, name: str, source: str = "X = 1\n", where: str = "") -> Path:
        tree = self.directory / (where or name)
        tree.mkdir(exist_ok=True)
        (tree / f"{name}.py").write_text(source)
        (tree / "backend.py").write_text(textwrap.dedent(_BACKEND).replace("NAME", name))
        (tree / "pyproject.toml").write_text(
            '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
            f'[project]\nname = "{name}"\nversion = "1.0"\n'
        )
        return tree

    def collect(self, package: str, *extra: str, fails: bool = False) -> dict[str, Any]:
        dest = self.directory / "dest"
        shutil.rmtree(dest, ignore_errors=True)
        dest.mkdir()
        result = self.run(
            "seedcore_wheel",
            package=package,
            extra=list(extra),
            lock=str(self.lock),
            dest=str(dest),
            directory=str(self.directory),
            **self.more,
            uv=str(self.directory / "no" / "uv" if self.missing_uv else UV),
        )
        assert result.get("failed", False) == fails, result
        if not fails:
            assert sorted(path.name for path in dest.iterdir() if path.is_file()) == result["wheels"]
        result.pop("invocation", None)  # newer Ansible leaves it out
        return result


@pytest.fixture
def workshop(tmp_path: Path, run: Run) -> Workshop:
    return Workshop(tmp_path, run)


def test_the_same_source_has_the_same_digest_wherever_and_whenever_it_is_built(workshop: Workshop) -> None:
    first = workshop.collect(str(workshop.tree("core")))
    moved = workshop.tree("core", where="elsewhere")
    os.utime(moved / "core.py", (1, 1))
    (moved / "notes.txt").write_text("not in the wheel")
    second = workshop.collect(str(moved))
    assert first == second
    assert (first["version"], first["package"], first["changed"]) == ("1.0", "core-1.0-py3-none-any.whl", False)


def test_another_source_has_another_digest(workshop: Workshop) -> None:
    first = workshop.collect(str(workshop.tree("core")))
    assert workshop.collect(str(workshop.tree("core", "X = 2\n")))["digest"] != first["digest"]


def test_another_lock_has_another_digest(workshop: Workshop) -> None:
    first = workshop.collect("seedcore==1.0")
    workshop.lock.write_text("click==8.1\n")
    assert workshop.collect("seedcore==1.0")["digest"] != first["digest"]


def test_the_content_of_an_extra_package_counts_and_not_its_path(workshop: Workshop) -> None:
    first = workshop.collect("seedcore==1.0", str(workshop.tree("agents")))
    moved = workshop.collect("seedcore==1.0", str(workshop.tree("agents", where="elsewhere")))
    edited = workshop.collect("seedcore==1.0", str(workshop.tree("agents", "X = 2\n")))
    assert first["extra"] == ["agents-1.0-py3-none-any.whl"]
    assert first["extra_digest"] == moved["extra_digest"] != edited["extra_digest"]
    # The release is the same: only the layer of the agents is another one.
    assert first["digest"] == edited["digest"]


def wheel(directory: Path, name: str, version: str, *, needs: str = "") -> Path:
    """Write a wheel into a directory that serves as an index."""
    directory.mkdir(exist_ok=True)
    path = directory / f"{name}-{version}-py3-none-any.whl"
    info = f"{name}-{version}.dist-info"
    required = f"Requires-Dist: {needs}\n" if needs else ""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{name}.py", f"VERSION = '{version}'\n")
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{required}")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return path


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Provide a directory with all available packages in place of an index."""
    for name, version in (
        ("tabular", "2.0"),
        ("tabular", "2.1"),
        ("seedcore", "1.0"),
        ("click", "8.0"),
        ("click", "8.2"),
    ):
        wheel(tmp_path / "index", name, version, needs="click" if name == "tabular" else "")
    monkeypatch.setenv("UV_NO_INDEX", "1")
    monkeypatch.setenv("UV_FIND_LINKS", str(tmp_path / "index"))
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "index"


def test_what_agents_need_is_resolved_once_into_hashes_within_the_lock(workshop: Workshop, index: Path) -> None:
    first = workshop.collect("seedcore==1.0", "tabular>=2")

    assert first["extra"] == ["tabular>=2"]
    assert first["extra_lock"].startswith("tabular==2.1 \\\n    --hash=sha256:")
    # The lock already contains it, with the binding version.
    assert "click" not in first["extra_lock"]
    assert "seedcore" not in first["extra_lock"]
    assert workshop.collect("seedcore==1.0", "tabular>=2") == first

    # Another version of what it needs is another layer.
    wheel(index, "tabular", "2.2")
    second = workshop.collect("seedcore==1.0", "tabular>=2")
    assert "tabular==2.2" in second["extra_lock"]
    assert second["extra_digest"] != first["extra_digest"]


def test_each_environment_is_resolved_by_itself(workshop: Workshop, index: Path) -> None:
    agents = wheel(workshop.directory / "mine", "agents", "1.0", needs="tabular")
    given = {"old": [str(agents), "tabular<2.1"], "new": [str(agents)], "none": []}
    workshop.more["environments"] = given
    first = workshop.collect("seedcore==1.0", "tabular==2.0")["environments"]

    assert "tabular==2.0" in first["old"]["lock"]
    assert "tabular==2.1" in first["new"]["lock"]
    assert (first["none"]["lock"], first["none"]["wheels"]) == ("", [])
    assert first["old"]["wheels"] == first["new"]["wheels"] == [agents.name]
    assert (workshop.directory / "dest" / "environments" / "new" / agents.name).is_file()
    assert len({each["digest"] for each in first.values()}) == 3

    # What is in one does not count for another.
    wheel(index, "tabular", "2.2")
    second = workshop.collect("seedcore==1.0")["environments"]
    assert {name for name in given if first[name]["digest"] != second[name]["digest"]} == {"new"}
    workshop.more["environments"] = {"old": ["click==9"]}
    assert "click" in workshop.collect("seedcore==1.0", fails=True)["msg"]
    workshop.more["environments"] = {"old": "tabular"}
    wrong = workshop.collect("seedcore==1.0", fails=True)
    assert wrong["msg"] == "environments has old: 'tabular', expected a list of packages"


def test_what_a_wheel_of_agents_needs_is_resolved_and_the_wheel_is_not(workshop: Workshop, index: Path) -> None:
    agents = wheel(workshop.directory / "mine", "agents", "1.0", needs="tabular<2.1")
    result = workshop.collect("seedcore==1.0", str(agents))

    assert result["extra_wheels"] == ["agents-1.0-py3-none-any.whl"]
    assert "tabular==2.0" in result["extra_lock"]
    assert "agents" not in result["extra_lock"]


def test_agents_that_need_nothing_new_are_not_resolved(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UV_NO_INDEX", "1")
    agents = wheel(workshop.directory / "mine", "agents", "1.0", needs="Click>=8")
    assert workshop.collect(str(workshop.tree("core")), str(agents))["extra_lock"] == ""


def test_an_extra_of_a_locked_package_is_resolved(workshop: Workshop, index: Path) -> None:
    workshop.lock.write_text("ray==2.60.0\n")
    wheel(index, "ray", "2.60.0", needs="tabular; extra == 'serve'")
    ordinary = wheel(workshop.directory / "mine", "ordinary", "1.0", needs="ray[default]>=2.60")
    serving = wheel(workshop.directory / "mine", "serving", "1.0", needs="ray[serve]")

    assert workshop.collect("seedcore==1.0", str(ordinary))["extra_lock"] == ""
    lock = workshop.collect("seedcore==1.0", str(serving))["extra_lock"]
    assert "tabular==2.1" in lock
    assert "ray==" not in lock


def test_requirements_that_contradict_the_lock_are_named(workshop: Workshop, index: Path) -> None:
    result = workshop.collect("seedcore==1.0", "click==8.2", fails=True)
    assert "the extra requirements cannot be resolved:" in result["msg"]
    assert "click==8.2" in result["msg"]


@pytest.mark.parametrize("needs", ["click==8.2", "click>8,!=8.0", "seedcore>=2"])
def test_a_wheel_of_agents_that_contradicts_what_is_locked_is_named(
    workshop: Workshop, index: Path, needs: str
) -> None:
    agents = wheel(workshop.directory / "mine", "agents", "1.0", needs=needs)
    result = workshop.collect("seedcore==1.0", str(agents), fails=True)
    assert "the extra requirements cannot be resolved:" in result["msg"]
    assert "agents" in result["msg"]
    assert re.split("[<>=]", needs)[0] in result["msg"]


def test_hosts_without_an_index_get_what_the_wheelhouse_has(workshop: Workshop, tmp_path: Path) -> None:
    for name, version in (("tabular", "2.0"), ("seedcore", "1.0"), ("click", "8.0")):
        wheel(tmp_path / "house", name, version)
    with tarfile.open(tmp_path / "wheelhouse.tar", "w") as archive:
        archive.add(tmp_path / "house", arcname=".")
    workshop.more = {"wheelhouse": str(tmp_path / "wheelhouse.tar")}

    assert "tabular==2.0" in workshop.collect("seedcore==1.0", "tabular")["extra_lock"]
    assert "cannot be resolved" in workshop.collect("seedcore==1.0", "absent", fails=True)["msg"]


def test_a_branch_that_has_moved_is_another_release(workshop: Workshop) -> None:
    tree = workshop.tree("agents")

    def git(*arguments: str) -> None:
        user = ["-c", "user.name=me", "-c", "user.email=me@example.org", "-c", "init.defaultBranch=main"]
        subprocess.run(["git", *user, *arguments], cwd=tree, check=True, capture_output=True)

    git("init", "--quiet")
    git("add", ".")
    git("commit", "--quiet", "--message", "first")
    request = f"agents @ git+file://{tree}@main"
    first = workshop.collect(str(workshop.tree("core")), request)
    assert first["extra_wheels"] == ["agents-1.0-py3-none-any.whl"]
    assert workshop.collect(str(workshop.tree("core")), request)["extra_digest"] == first["extra_digest"]

    workshop.tree("agents", "X = 2\n")
    git("commit", "--quiet", "--all", "--message", "second")
    assert workshop.collect(str(workshop.tree("core")), request)["extra_digest"] != first["extra_digest"]

    gone = workshop.collect(str(workshop.tree("core")), f"agents @ git+file://{tree}@no-such-branch", fails=True)
    assert "at no-such-branch cannot be fetched:" in gone["msg"]


def test_relative_paths_start_where_they_are_told_to(workshop: Workshop) -> None:
    workshop.tree("agents")
    assert workshop.collect("seedcore==1.0", "./agents")["extra"] == ["agents-1.0-py3-none-any.whl"]


def test_a_wheel_is_taken_as_it_is(workshop: Workshop) -> None:
    wheel = workshop.directory / "core-2.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("core.py", "X = 1\n")
    result = workshop.collect(str(wheel))
    assert (result["version"], result["wheels"]) == ("2.0", [wheel.name])


@pytest.mark.parametrize(
    ("package", "extra", "said"),
    [
        ("seedcore>=1", [], "names no single version, expected a path or name==version"),
        ("seedcore==1.0", ["./agents"], "'./agents' is neither a path on the controller"),
        ("seedcore==1.0", ["/no/such/agents.whl"], "'/no/such/agents.whl' is neither a path on the controller"),
        ("seedcore==1.0", ["empty"], "is not a Python package: it has neither pyproject.toml nor setup.py"),
        ("seedcore==1.0", [""], "'' is neither a path on the controller"),
    ],
)
def test_what_cannot_be_installed_is_named(workshop: Workshop, package: str, extra: list[str], said: str) -> None:
    (workshop.directory / "empty").mkdir()
    assert said in workshop.collect(package, *extra, fails=True)["msg"]


def test_a_build_that_fails_says_why(workshop: Workshop) -> None:
    tree = workshop.tree("core")
    (tree / "backend.py").write_text("raise RuntimeError('the compiler is missing')")
    result = workshop.collect(str(tree), fails=True)
    assert "the compiler is missing" in result["msg"]
    assert list((workshop.directory / "dest").iterdir()) == []


def test_a_tree_stays_as_it_was_and_what_was_removed_from_it_is_not_built(workshop: Workshop) -> None:
    tree = workshop.tree("core")
    # Like setuptools: the backend includes the leftovers of earlier builds, and leaves its own in the tree.
    backend = (tree / "backend.py").read_text()
    (tree / "backend.py").write_text(
        backend
        + "\n_build = build_wheel\n"
        + "def build_wheel(wheel_directory, *more):\n"
        + "    Path('build/lib').mkdir(parents=True, exist_ok=True)\n"
        + "    for old in Path('build/lib').iterdir():\n"
        + "        Path('core.py').write_bytes(old.read_bytes())\n"
        + "    Path('build/lib/core.py').write_bytes(Path('core.py').read_bytes())\n"
        + "    Path('core.egg-info').mkdir(exist_ok=True)\n"
        + "    return _build(wheel_directory)\n"
    )
    (tree / "data").symlink_to("/nowhere")
    os.mkfifo(tree / "pipe")
    before = sorted(str(path) for path in tree.rglob("*"))
    first = workshop.collect(str(tree))
    assert sorted(str(path) for path in tree.rglob("*")) == before

    (tree / "build" / "lib").mkdir(parents=True)
    (tree / "build" / "lib" / "core.py").write_text("OLD = 1\n")
    assert workshop.collect(str(tree))["digest"] == first["digest"]


def test_a_machine_without_uv_is_told_what_to_do(workshop: Workshop) -> None:
    tree = workshop.tree("core")
    workshop.missing_uv = True
    result = workshop.collect(str(tree), fails=True)
    assert "because this machine has no uv" in result["msg"]
    assert "pip install uv" in result["msg"]


def test_a_tree_whose_every_build_is_another_release_is_warned_of(workshop: Workshop) -> None:
    tree = workshop.tree("native")
    backend = tree / "backend.py"
    backend.write_text(backend.read_text().replace("py3-none-any", "cp311-cp311-linux_x86_64"))
    plain = workshop.tree("plain")

    found = workshop.collect(str(plain), str(tree))

    assert found["compiled"] == ["native-1.0-cp311-cp311-linux_x86_64.whl"]
    assert ["compiled code" in str(text) for text in found["warnings"]] == [True]
    assert workshop.collect(str(plain))["compiled"] == []


@pytest.fixture
def cache(workshop: Workshop) -> Path:
    """Set up the cache that keeps wheels from one run to the next."""
    workshop.more["cache"] = str(workshop.directory / "kept" / "wheels")
    return workshop.directory / "kept" / "wheels"


def counted(tree: Path) -> Path:
    """Make each build of a tree write a line into a file; return the file."""
    log = tree.parent / "builds"
    backend = tree / "backend.py"
    backend.write_text(backend.read_text().replace("def build_wheel", "_LOG = Path(LOG)\ndef build_wheel", 1))
    backend.write_text(backend.read_text().replace("LOG)", f"{str(log)!r})").replace("    name =", _SAYS, 1))
    log.touch()
    return log


_SAYS = "    _LOG.write_text(_LOG.read_text() + 'built\\n')\n    name ="


def test_what_has_not_changed_is_not_built_again(workshop: Workshop, cache: Path) -> None:
    tree = workshop.tree("core")
    builds = counted(tree)

    first, second = workshop.collect(str(tree)), workshop.collect(str(tree))
    assert (first, builds.read_text().split()) == (second, ["built"])

    (tree / "core.py").write_text("X = 2\n")
    assert workshop.collect(str(tree))["digest"] != first["digest"]
    (tree / "core.py").write_text("X = 1\n")
    (tree / "__pycache__").mkdir()
    (tree / "__pycache__" / "core.pyc").touch()
    assert workshop.collect(str(tree)) == first
    assert builds.read_text().split() == ["built", "built"]
    assert len(list(cache.iterdir())) == 2


@pytest.mark.parametrize("change", ["chmod +x core.py", "mv core.py core.old; cp core.old core.py", "ln -s x y"])
def test_whatever_a_build_may_see_counts(workshop: Workshop, cache: Path, change: str) -> None:
    tree = workshop.tree("core")
    builds = counted(tree)
    workshop.collect(str(tree))

    subprocess.run(change, shell=True, cwd=tree, check=True)
    workshop.collect(str(tree))

    assert builds.read_text().split() == ["built", "built"]
    assert len(list(cache.iterdir())) == 2


def test_a_version_that_comes_from_git_is_asked_for_each_time(workshop: Workshop, cache: Path) -> None:
    tree = workshop.tree("core")
    builds = counted(tree)
    with (tree / "pyproject.toml").open("a") as stream:
        stream.write("[tool.setuptools_scm]\n")

    workshop.collect(str(tree))
    workshop.collect(str(tree))

    assert builds.read_text().split() == ["built", "built"]
    assert not cache.exists()


def test_what_was_compiled_is_not_kept(workshop: Workshop, cache: Path) -> None:
    tree = workshop.tree("native")
    (tree / "backend.py").write_text((tree / "backend.py").read_text().replace("none-any", "none-linux_x86_64"))
    workshop.collect(str(workshop.tree("plain")), str(tree))
    assert [path.name for path in cache.glob("*/*")] == ["plain-1.0-py3-none-any.whl"]


def test_a_damaged_wheel_is_built_again_and_a_cache_that_cannot_be_written_stops_nobody(
    workshop: Workshop, cache: Path
) -> None:
    tree = workshop.tree("core")
    first = workshop.collect(str(tree))
    next(cache.glob("*/*.whl")).write_bytes(b"half")
    assert workshop.collect(str(tree)) == first
    assert zipfile.ZipFile(next(cache.glob("*/*.whl"))).testzip() is None

    workshop.more["cache"] = str(workshop.lock / "wheels")
    assert workshop.collect(str(tree)) == first


def test_the_wheels_that_were_used_last_are_kept(workshop: Workshop, cache: Path) -> None:
    for number in range(KEPT + 3):
        old = cache / f"{number:064}"
        old.mkdir(parents=True)
        os.utime(old, (number + 1, number + 1))

    workshop.collect(str(workshop.tree("core")))

    left = sorted(path.name for path in cache.iterdir())
    assert len(left) == KEPT
    assert left[0] == f"{4:064}"
