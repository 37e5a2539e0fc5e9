"""State of the Coordinator that outlives its process, stored in the GCS beside the actor.

It is lost exactly when the actor is lost: with RocksDB storage it survives a restart of the head. The key contains the
actor's id, so that another Coordinator of the same name starts without a record.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from ray.experimental import internal_kv

_NAMESPACE = b"seedcore"
# Calls to the GCS block, in a thread; while the GCS is away nothing can be started anyway.
_TIMEOUT_S = 30.0


class ActorRecord:
    """The record of one actor.

    Args:
        namespace: Ray namespace of the actor.
        actor_id: Its id, which stays the same when Ray restarts it.
    """

    def __init__(self, *, namespace: str, actor_id: str) -> None:
        # A namespace must not match another one that begins with the same text.
        self._prefix = f"{namespace}\n".encode()
        self._key = self._prefix + actor_id.encode()
        # An abandoned call goes on in its thread. A single thread keeps the order, so the last write wins.
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="record")

    async def read(self) -> Mapping[str, Any] | None:
        """Return the last written data, None if there is none.

        Raises:
            TimeoutError: The GCS does not answer.
        """
        text = await asyncio.wait_for(asyncio.to_thread(self._get), _TIMEOUT_S)
        return None if text is None else dict(json.loads(text))

    async def write(self, data: Mapping[str, Any]) -> None:
        """Replace the stored data with ``data``; remove the data of earlier actors.

        Raises:
            TimeoutError: The GCS does not answer. ``data`` may be stored later, but never after a later write.
        """
        text = json.dumps(data, separators=(",", ":")).encode()
        writing = asyncio.get_running_loop().run_in_executor(self._writer, self._put, text)
        # Shield it: a caller that gives up must not remove a write from the queue on which a later one relies.
        await asyncio.wait_for(asyncio.shield(writing), _TIMEOUT_S)

    def _get(self) -> bytes | None:
        found: bytes | None = internal_kv._internal_kv_get(self._key, namespace=_NAMESPACE)  # noqa: SLF001
        return found

    def _put(self, text: bytes) -> None:
        internal_kv._internal_kv_put(self._key, text, overwrite=True, namespace=_NAMESPACE)  # noqa: SLF001
        for key in internal_kv._internal_kv_list(self._prefix, namespace=_NAMESPACE):  # noqa: SLF001
            if key != self._key:
                internal_kv._internal_kv_del(key, namespace=_NAMESPACE)  # noqa: SLF001
