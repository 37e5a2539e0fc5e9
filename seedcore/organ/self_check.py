"""Ask Ray's head whether this process is still the current one of its actor."""

from __future__ import annotations

from typing import Any

import ray
from ray.core.generated import gcs_pb2

# These names are created at import, so type checkers do not see them.
_gcs: Any = gcs_pb2


def is_current() -> bool | None:
    """Return whether this process is the one that Ray records for its actor; None if that is unknown.

    It calls the GCS synchronously, so call it in a thread. While the head is away it may take minutes, or raise.
    """
    context = ray.get_runtime_context()
    accessor = ray._private.state.state._connect_and_get_accessor()  # noqa: SLF001 - Ray has no public name for it
    found = accessor.get_actor_info(ray.ActorID.from_hex(str(context.get_actor_id())))
    if found is None:
        return None
    row = _gcs.ActorTableData.FromString(found)
    if row.state == _gcs.ActorTableData.DEAD:
        return False
    # An actor that is being started or restarted has no other process yet.
    is_alive = row.state == _gcs.ActorTableData.ALIVE
    return row.address.worker_id.hex() == context.get_worker_id() if is_alive else None
