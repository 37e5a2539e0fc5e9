"""Choose the store that the settings ask for; nothing is imported that is not used."""
# ruff: noqa: PLC0415 - the driver of the other database may not be installed

from __future__ import annotations

from typing import TYPE_CHECKING

from seedcore.core.errors import SeedCoreError
from seedcore.core.settings import Settings

if TYPE_CHECKING:
    from seedcore.coordinator.inbox.store import Store


class NoDriverError(SeedCoreError):
    """The driver of the database is not installed."""


def store_of(settings: Settings) -> Store:
    """Return the store, not yet open.

    Raises:
        NoDriverError: The driver of its database is not installed.
    """
    if "://" not in settings.inbox:
        from seedcore.coordinator.inbox.sqlite import SqliteStore

        return SqliteStore(settings.state_dir / "inbox", settings.namespace)
    try:
        from seedcore.coordinator.inbox.postgres import PostgresStore
    except ImportError as error:
        text = f"the driver of PostgreSQL cannot be imported ({error}): install seedcore[postgres]"
        raise NoDriverError(text) from error
    return PostgresStore(
        settings.inbox, settings.namespace, place=settings.inbox_place, passfile=settings.inbox_passfile
    )
