"""Free space on the nodes' disks that Ray and the deployment use; Ray's own metric covers only the disk of ``/``."""

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
    """The last reports of the agents of the living nodes to Ray's head."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._disks: list[dict[str, Any]] = []
        self._fault = ""

    def to_list(self) -> list[dict[str, Any]]:
        """Return entries ``{"node_name": str, "path": str, "free": int, "size": int}``, in bytes; none if unknown."""
        return list(self._disks)

    async def watch(self) -> None:
        """Poll for ever; drop figures that are no longer known."""
        while True:
            # The thread ends by itself, because each request has a deadline.
            self._disks, fault = await asyncio.to_thread(self._ask)
            if fault and fault != self._fault:
                logger.warning("cannot read the disks of the nodes: %s", fault)
            self._fault = fault
            await asyncio.sleep(INTERVAL_S)

    def _ask(self) -> tuple[list[dict[str, Any]], str]:
        try:
            return read_disks(self._settings, token=self._settings.token(), timeout_s=TIMEOUT_S), ""
        except (ClusterError, ConfigError) as error:
            return [], str(error)
        except Exception as error:
            # The rows have another shape: drop the old figures.
            return [], f"{type(error).__name__}: {error}"
