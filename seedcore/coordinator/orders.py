"""What operators have ordered until they take it back: paused organs and drained nodes.

The orders are in a file on the head, and not in Ray: they outlive the Coordinator, its replacement by another release,
and a store of Ray's head that is damaged.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from seedcore.core.errors import ConfigError, Fault
from seedcore.core.state_file import replace_file

FILE_NAME = "orders.json"


@dataclass(frozen=True, slots=True)
class Order:
    """Since when something is ordered (ISO 8601), and the name of the token of who has ordered it."""

    since: str
    by: str

    def __str__(self) -> str:
        return f"by {self.by!r} since {self.since}"


class Orders:
    """The orders of one deployment.

    Args:
        state_dir: Directory of the file; None to keep them in memory only.

    Attributes:
        paused: The organs that begin no task, by id.
        drained: The nodes on which no organ shall run, by name.
    """

    def __init__(self, state_dir: Path | None = None) -> None:
        self._path = None if state_dir is None else state_dir / FILE_NAME
        self.paused: dict[str, Order] = {}
        self.drained: dict[str, Order] = {}

    async def load(self) -> None:
        """Read the file.

        Raises:
            ConfigError: It cannot be read, so nobody knows which organs must not work.
        """
        if self._path is not None:
            self.paused, self.drained = await asyncio.to_thread(_read, self._path)

    async def give(self, orders: dict[str, Order], name: str, *, by: str) -> Order:
        """Add an order to ``paused`` or ``drained`` and store it; one that is there stays as it is.

        Raises:
            ConfigError: It cannot be stored, so it is not given.
        """
        if name not in orders:
            orders[name] = Order(datetime.now(UTC).isoformat(timespec="seconds"), by)
            await self._write(undo=lambda: orders.pop(name))
        return orders[name]

    async def take_back(self, orders: dict[str, Order], name: str) -> Order | None:
        """Remove an order; return it, or None if there was none.

        Raises:
            ConfigError: That cannot be stored, so the order stays.
        """
        order = orders.pop(name, None)
        if order is not None:
            await self._write(undo=lambda: orders.setdefault(name, order))
        return order

    async def _write(self, undo: Any) -> None:
        document = {
            key: {name: asdict(order) for name, order in orders.items()}
            for key, orders in (("paused", self.paused), ("drained", self.drained))
        }
        try:
            if self._path is not None:
                await asyncio.to_thread(replace_file, self._path, json.dumps(document, indent=1) + "\n")
        except ConfigError:
            undo()
            raise


def _read(path: Path) -> tuple[dict[str, Order], dict[str, Order]]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        return _orders(document["paused"]), _orders(document["drained"])
    except FileNotFoundError:
        return {}, {}
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        why = f"cannot be read ({type(error).__name__}: {error}), so it is unknown which organs are paused"
        raise ConfigError((Fault(str(path), 0, 0, f"{why}: mend it, or remove it to resume all"),)) from error


def _orders(found: Any) -> dict[str, Order]:
    return {str(name): Order(str(one["since"]), str(one["by"])) for name, one in found.items()}
