"""What Ray's head says of the very process that asks."""

from __future__ import annotations

from typing import Any

import ray
from ray.core.generated import gcs_pb2

# Their names are made when they are imported, and no type checker sees them.
_gcs: Any = gcs_pb2


def is_current() -> bool | None:
    """Say whether this actor's process is the one that Ray has for it; None if it does not say, or not yet.

    Asks the GCS synchronously: the caller is a thread. While the head is away it may take minutes, or raise.
    """
    context = ray.get_runtime_context()
    accessor = ray._private.state.state._connect_and_get_accessor()  # noqa: SLF001 - Ray has no public name for it
    found = accessor.get_actor_info(ray.ActorID.from_hex(str(context.get_actor_id())))
    if found is None:
        return None
    row = _gcs.ActorTableData.FromString(found)
    if row.state == _gcs.ActorTableData.DEAD:
        return False
    # An actor that is being started, or started again, has no process yet that could be another one.
    is_alive = row.state == _gcs.ActorTableData.ALIVE
    return row.address.worker_id.hex() == context.get_worker_id() if is_alive else None
