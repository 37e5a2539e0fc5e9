"""Keep the valid tokens in memory and follow changes of their files without a restart."""

from __future__ import annotations

import asyncio
import hmac
import logging
import time
from collections.abc import Callable
from pathlib import Path

from seedcore.core.access import CLUSTER_TOKEN, Access, NamedToken, Scope, TokenFile, find
from seedcore.core.errors import ConfigError

logger = logging.getLogger(__name__)

REFRESH_S = 1.0


class NamedTokens:
    """The tokens in the files: a new one is valid at once, a revoked one for at most REFRESH_S seconds more.

    Args:
        state_dir: Directory of the file of named tokens.
        cluster: Reads the cluster's token from its file, None without authentication. While a rotation replaces it, the
            nodes' programs send the new one, and the Coordinator has begun with the old one.
    """

    def __init__(self, state_dir: Path, cluster: Callable[[], str | None] = lambda: None) -> None:
        self._file = TokenFile(state_dir)
        self._read_cluster = cluster
        self._tokens: tuple[NamedToken, ...] = ()
        self._cluster: bytes | None = None
        self._fault = ""
        self._reading = asyncio.Lock()
        self._begun = 0

    async def access(self, credentials: bytes) -> Access | None:
        """Return the origin and scope of the credentials; None if they match no valid token."""
        known = self._find(credentials)
        if known is not None:
            return known
        # It may be newer than the last look at the files. One look serves all requests that wait for it.
        wanted = self._begun + 1
        async with self._reading:
            if self._begun < wanted:
                await self.refresh()
        return self._find(credentials)

    def _find(self, credentials: bytes) -> Access | None:
        if self._cluster is not None and hmac.compare_digest(credentials, self._cluster):
            return Access(CLUSTER_TOKEN, Scope.OPERATE)
        return find(self._tokens, credentials, time.time())

    async def refresh(self) -> None:
        """Read the files; a damaged one admits no token, because it may have lost a revocation."""
        self._begun += 1
        try:
            self._tokens, fault = await asyncio.to_thread(self._file.read), ""
        except ConfigError as error:
            self._tokens, fault = (), str(error)
        try:
            cluster = await asyncio.to_thread(self._read_cluster)
        except ConfigError:
            # The token that the Coordinator has begun with stays valid.
            cluster = None
        self._cluster = cluster.encode() if cluster else None
        if fault and fault != self._fault:
            logger.warning("no named token is valid: %s", fault)
        self._fault = fault

    async def watch(self) -> None:
        """Reload the files for ever."""
        while True:
            await asyncio.sleep(REFRESH_S)
            await self.refresh()
