"""Print how many nodes of a name Ray has seen so far, and how many of them are alive: `SEEN ALIVE`.

Usage: node_rows.py NAME
"""  # noqa: INP001

import sys

import ray

ray.init(log_to_driver=False, logging_level="ERROR")
rows = [node for node in ray.nodes() if node["NodeName"] == sys.argv[1]]
print(len(rows), sum(node["Alive"] for node in rows))  # noqa: T201
