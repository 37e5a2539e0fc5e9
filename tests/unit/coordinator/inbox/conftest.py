"""Stores in both databases: the same tests are for both."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from seedcore.coordinator.inbox.sqlite import SqliteStore
from seedcore.coordinator.inbox.store import Store
from tests.support import postgres

MakeStore = Callable[[Callable[[], int]], Store]


@pytest.fixture(scope="session")
def server() -> Iterator[postgres.Server]:
    """A PostgreSQL server for all tests of this process."""
    if postgres.binaries() is None:
        pytest.skip("no PostgreSQL server is installed: apt-get install postgresql")
    with postgres.running() as made:
        yield made


@pytest.fixture(params=["sqlite", "postgres"])
def make_store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[MakeStore]:
    """Provide a function that makes a store with a clock; each call is for the same tables."""
    made: list[Store] = []
    server: postgres.Server | None = request.getfixturevalue("server") if request.param == "postgres" else None
    url = server.url(server.new_database()) if server is not None else ""

    def make(clock: Callable[[], int]) -> Store:
        if server is None:
            made.append(SqliteStore(tmp_path / "inbox", "test", clock=clock))
        else:
            # Without PostgreSQL, nobody has its driver.
            from seedcore.coordinator.inbox.postgres import PostgresStore  # noqa: PLC0415

            made.append(PostgresStore(url, "test", passfile=server.passfile, clock=clock))
        return made[-1]

    yield make
    for store in made:
        store.close()
