"""Clients for programs: every task gets exactly one answer, and is retried only if it certainly did not run.

::

    import seedcore

    with seedcore.Client() as client:
        print(client.status()["status"])
        print(client.submit({"type": "echo", "params": {"x": 1}})["result"])
        for answer in client.map({"type": "echo", "params": {"n": n}} for n in range(100_000)):
            ...

:class:`Client` blocks, :class:`AsyncClient` has the same methods with ``await``. Both have two transports:

``ray``
    This process has joined the cluster (``ray.init``). The client sends tasks directly to the processes of the organs,
    using a routing table that the Coordinator keeps up to date; tasks go on while the Coordinator is busy or away.
    Concurrent tasks travel as one call.
``http``
    This process has not joined the cluster: the client sends tasks to the Coordinator's HTTP server, many at a time.

The default is ``ray`` in a process that has joined Ray and ``http`` in any other.
"""

from __future__ import annotations

from seedcore.client.aio import AsyncClient
from seedcore.client.sync import Client

__all__ = ["AsyncClient", "Client"]
