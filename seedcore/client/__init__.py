"""Clients for programs: every task gets exactly one answer, and is sent again only if it surely did not run.

::

    import seedcore

    with seedcore.Client() as client:
        print(client.status()["status"])
        print(client.submit({"type": "echo", "params": {"x": 1}})["result"])
        for answer in client.map({"type": "echo", "params": {"n": n}} for n in range(100_000)):
            ...

:class:`Client` blocks, :class:`AsyncClient` is the same with ``await``. Both work in two ways:

``ray``
    This process has joined the cluster (``ray.init``). Tasks go to the processes of the organs directly, by a routing
    table that the Coordinator keeps up to date here; its own load and absence do not matter to them. Tasks that come
    up together travel as one call.
``http``
    This process has not, and need not: the Coordinator's HTTP server takes the tasks, many at a time.

Without a word, it is ``ray`` in a process that has joined Ray and ``http`` in any other.
"""

from __future__ import annotations

from seedcore.client.aio import AsyncClient
from seedcore.client.sync import Client

__all__ = ["AsyncClient", "Client"]
