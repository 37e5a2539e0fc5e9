from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Run = Callable[..., dict[str, Any]]


@pytest.fixture
def prefix(tmp_path: Path) -> Path:
    """A deployment with two releases and three layers of agents, the newest of which is active, and half-made ones."""
    below = {
        "releases/1": "ray/old", "agents/1.a": "releases/1", "releases/2": "ray/new", "agents/2.a": "releases/2",
        "agents/2.b": "releases/2",
    }  # fmt: skip
    for age, (path, sees) in enumerate(below.items()):
        (tmp_path / path).mkdir(parents=True)
        (tmp_path / path / "release.json").write_text(json.dumps({"below": sees}))
        os.utime(tmp_path / path / "release.json", (age, age))
    (tmp_path / "releases" / "half").mkdir()
    (tmp_path / "agents" / "half" / "lib").mkdir(parents=True)
    (tmp_path / "current").symlink_to("agents/2.b")
    return tmp_path


def there(prefix: Path) -> list[str]:
    return sorted(
        str(path.relative_to(prefix)) for kind in ("releases", "agents") for path in (prefix / kind).iterdir()
    )


def test_old_layers_and_half_made_ones_are_removed(prefix: Path, run: Run) -> None:
    preview = run("seedcore_prune", prefix=str(prefix), keep=2, check=True)
    assert (preview["changed"], len(there(prefix))) == (True, 7)

    done = run("seedcore_prune", prefix=str(prefix), keep=2)

    assert there(prefix) == ["agents/2.a", "agents/2.b", "releases/2"]
    assert (
        sorted(done["removed"])
        == sorted(preview["removed"])
        == ["agents/1.a", "agents/half", "releases/1", "releases/half"]
    )
    assert done["kept"] == ["agents/2.a", "agents/2.b", "ray/new", "releases/2"]
    assert run("seedcore_prune", prefix=str(prefix), keep=2)["changed"] is False


def test_a_release_stays_as_long_as_its_agents_may_be_active_again(prefix: Path, run: Run) -> None:
    done = run("seedcore_prune", prefix=str(prefix), keep=3)

    assert there(prefix) == ["agents/1.a", "agents/2.a", "agents/2.b", "releases/1", "releases/2"]
    assert [path for path in done["kept"] if path.startswith("ray/")] == ["ray/new", "ray/old"]


def test_without_an_active_layer_nothing_is_removed(prefix: Path, run: Run) -> None:
    (prefix / "current").unlink()
    done = run("seedcore_prune", prefix=str(prefix), keep=1, green=True)
    assert (done["changed"], len(there(prefix))) == (False, 7)
    assert {"ray/new", "ray/old"} <= set(done["kept"])


def test_without_a_number_everything_is_kept(prefix: Path, run: Run) -> None:
    before = there(prefix)
    done = run("seedcore_prune", prefix=str(prefix), green=True)
    assert (done["changed"], there(prefix)) == (False, before)
    assert (prefix / "agents" / "2.b" / "green").exists()


def test_only_the_active_layer_is_marked_as_green(prefix: Path, run: Run) -> None:
    assert run("seedcore_prune", prefix=str(prefix), keep=3, green=True, check=True)["changed"] is True
    assert list(prefix.glob("*/*/green")) == []

    run("seedcore_prune", prefix=str(prefix), keep=3)
    assert list(prefix.glob("*/*/green")) == []

    assert run("seedcore_prune", prefix=str(prefix), keep=3, green=True)["changed"] is False
    assert list(prefix.glob("*/*/green")) == [prefix / "agents" / "2.b" / "green"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ\n", (prefix / "agents" / "2.b" / "green").read_text())


def test_none_is_not_a_number_of_layers_to_keep(prefix: Path, run: Run) -> None:
    assert run("seedcore_prune", prefix=str(prefix), keep=0)["msg"] == "keep is 0, expected 1 or more"


def test_a_layer_that_stays_the_last_green_one_is_not_written_again(prefix: Path, run: Run) -> None:
    mark = prefix / "agents" / "2.b" / "green"
    run("seedcore_prune", prefix=str(prefix), keep=3, green=True)
    os.utime(mark, (1, 1))
    run("seedcore_prune", prefix=str(prefix), keep=3, green=True)
    assert mark.stat().st_mtime == 1

    # It was another one meanwhile.
    mark.write_text("2026-01-01T00:00:00Z\n")
    (prefix / "agents" / "2.a" / "green").write_text("2026-02-02T00:00:00Z\n")
    run("seedcore_prune", prefix=str(prefix), keep=3, green=True)
    assert mark.read_text() > "2026-02-02"


def test_the_organism_is_kept_with_the_layer_that_was_green_with_it(prefix: Path, run: Run) -> None:
    kept, own = prefix / "agents" / "2.b" / "organism.yaml", prefix / "etc" / "organism.yaml"
    run("seedcore_prune", prefix=str(prefix), keep=3, green=True)
    assert not kept.exists()

    own.parent.mkdir()
    own.write_text("one: 1\n")
    own.chmod(0o640)
    run("seedcore_prune", prefix=str(prefix), keep=3, green=True)
    assert (kept.read_text(), kept.stat().st_mode & 0o777) == ("one: 1\n", 0o640)

    own.unlink()
    run("seedcore_prune", prefix=str(prefix), keep=3, green=True)
    assert not kept.exists()
