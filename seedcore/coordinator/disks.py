"""Room on the nodes' disks where Ray and the deployment write: Ray's own metric is of the disk of ``/`` alone."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from seedcore.core.errors import ClusterError, ConfigError
from seedcore.core.settings import Settings
from seedcore.status.state_api import read_disks

logger = logging.getLogger("seedcore.coordinator.coordinator")

INTERVAL_S = 15.0
TIMEOUT_S = 10.0


class Disks:
    """What Ray's head was last told by the agents of the living nodes."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._disks: list[dict[str, Any]] = []
        self._fault = ""

    def to_list(self) -> list[dict[str, Any]]:
        """Entries ``{"node_name": str, "path": str, "free": int, "size": int}``, in bytes; none if nobody says."""
        return list(self._disks)

    async def watch(self) -> None:
        """Ask again and again; what is not known any more is not said any more."""
        while True:
            # In a thread, which ends by itself: each request has a deadline.
            self._disks, fault = await asyncio.to_thread(self._ask)
            if fault and fault != self._fault:
                logger.warning("the disks of the nodes are not known: %s", fault)
            self._fault = fault
            await asyncio.sleep(INTERVAL_S)

    def _ask(self) -> tuple[list[dict[str, Any]], str]:
        try:
            return read_disks(self._settings, token=self._settings.token(), timeout_s=TIMEOUT_S), ""
        except (ClusterError, ConfigError) as error:
            return [], str(error)
        except Exception as error:
            # Rows of another shape than today's: not to know the disks is no reason to go on saying old figures.
            return [], f"{type(error).__name__}: {error}"
