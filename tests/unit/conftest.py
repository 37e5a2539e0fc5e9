from __future__ import annotations

import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.support.fake_cluster import FakeCluster
from tests.support.loop_guard import guarded_loops

# `make quick` runs few examples. Tests that set their own number limit it with `examples`. There is no deadline for an
# example, because its duration depends on the machine.
settings.register_profile("full", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("quick", settings.get_profile("full"), max_examples=10)
settings.load_profile("full")


@pytest.fixture(autouse=True)
def loop_guard(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test if a callback of the library blocks its event loop."""
    marker = request.node.get_closest_marker("loop_limit")
    with guarded_loops(*marker.args if marker else ()) as guard:
        yield
    assert not guard.faults, "\n".join(guard.faults)


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[FakeCluster]:
    """Provide a running fake of Ray's head and the Coordinator."""
    with FakeCluster(tmp_path).running() as fake:
        yield fake


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], str]]:
    """Provide a function that writes a module for import during this test and returns its name."""
    monkeypatch.syspath_prepend(tmp_path)
    before = set(sys.modules)

    def write(source: str, name: str = "users_agents") -> str:
        (tmp_path / f"{name}.py").write_text(textwrap.dedent(source))
        return name

    yield write
    for name in set(sys.modules) - before:
        del sys.modules[name]
