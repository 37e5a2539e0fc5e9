"""What the Coordinator has to remember beyond its process, kept in the GCS beside the actor itself.

It is lost exactly when the actor is lost: with RocksDB storage it outlives the head's own restart. The key holds the
actor's id, so that another Coordinator of the same name begins with nothing.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from ray.experimental import internal_kv

_NAMESPACE = b"seedcore"
# Asking the GCS blocks, in a thread; while it is away there is nothing to be started anyway.
_TIMEOUT_S = 30.0


class ActorRecord:
    """The record of one actor.

    Args:
        namespace: Ray namespace of the actor.
        actor_id: Its id, which stays the same when Ray restarts it.
    """

    def __init__(self, *, namespace: str, actor_id: str) -> None:
        # No namespace that begins like another one may be taken for it.
        self._prefix = f"{namespace}\n".encode()
        self._key = self._prefix + actor_id.encode()
        # A call that is given up goes on in its thread. One thread keeps the order: what is written last, stays.
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="record")

    async def read(self) -> Mapping[str, Any] | None:
        """Return what was written, None if nothing was.

        Raises:
            TimeoutError: The GCS does not answer.
        """
        text = await asyncio.wait_for(asyncio.to_thread(self._get), _TIMEOUT_S)
        return None if text is None else dict(json.loads(text))

    async def write(self, data: Mapping[str, Any]) -> None:
        """Keep ``data`` instead of what was written before; what earlier actors have kept goes.

        Raises:
            TimeoutError: The GCS does not answer. ``data`` may be kept later, but never after what is written later.
        """
        text = json.dumps(data, separators=(",", ":")).encode()
        writing = asyncio.get_running_loop().run_in_executor(self._writer, self._put, text)
        # Shielded: who gives up must not take a write out of the queue that a later one relies on being over.
        await asyncio.wait_for(asyncio.shield(writing), _TIMEOUT_S)

    def _get(self) -> bytes | None:
        found: bytes | None = internal_kv._internal_kv_get(self._key, namespace=_NAMESPACE)  # noqa: SLF001
        return found

    def _put(self, text: bytes) -> None:
        internal_kv._internal_kv_put(self._key, text, overwrite=True, namespace=_NAMESPACE)  # noqa: SLF001
        for key in internal_kv._internal_kv_list(self._prefix, namespace=_NAMESPACE):  # noqa: SLF001
            if key != self._key:
                internal_kv._internal_kv_del(key, namespace=_NAMESPACE)  # noqa: SLF001
