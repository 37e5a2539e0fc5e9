"""Keep the valid named tokens in memory and follow changes of their file without a restart."""

from __future__ import annotations

import asyncio
import logging
import time
from pathlib import Path

from seedcore.core.access import Access, NamedToken, TokenFile, find
from seedcore.core.errors import ConfigError

logger = logging.getLogger(__name__)

REFRESH_S = 1.0


class NamedTokens:
    """The tokens in the file; a change applies at most REFRESH_S seconds later.

    Args:
        state_dir: Directory of the file.
    """

    def __init__(self, state_dir: Path) -> None:
        self._file = TokenFile(state_dir)
        self._tokens: tuple[NamedToken, ...] = ()
        self._fault = ""

    def access(self, credentials: bytes) -> Access | None:
        """Return the origin and scope of the credentials; None if they match no valid token."""
        return find(self._tokens, credentials, time.time())

    async def refresh(self) -> None:
        """Read the file; a damaged one admits no token, because it may have lost a revocation."""
        try:
            self._tokens, fault = await asyncio.to_thread(self._file.read), ""
        except ConfigError as error:
            self._tokens, fault = (), str(error)
        if fault and fault != self._fault:
            logger.warning("no named token is valid: %s", fault)
        self._fault = fault

    async def watch(self) -> None:
        """Reload the file for ever."""
        while True:
            await asyncio.sleep(REFRESH_S)
            await self.refresh()
