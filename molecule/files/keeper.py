"""Start or ask a detached actor on one node; its pid and its count show whether it survived.

Usage: keeper.py start NODE | keeper.py ask
"""  # noqa: INP001

import json
import os
import sys

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

NAME = "molecule_keeper"
TIMEOUT_S = 120


@ray.remote(num_cpus=0.1, max_restarts=-1, max_task_retries=-1)
class Keeper:
    """Counts its calls."""

    def __init__(self) -> None:
        self.count = 0

    def ask(self) -> dict[str, object]:
        """Return the process and the count."""
        self.count += 1
        return {"pid": os.getpid(), "count": self.count}


ray.init(namespace="molecule", log_to_driver=False, logging_level="ERROR")
if sys.argv[1] == "start":
    (node_id,) = (node["NodeID"] for node in ray.nodes() if node["Alive"] and node["NodeName"] == sys.argv[2])
    affinity = NodeAffinitySchedulingStrategy(node_id, soft=False)
    keeper = Keeper.options(name=NAME, lifetime="detached", get_if_exists=True, scheduling_strategy=affinity).remote()
else:
    keeper = ray.get_actor(NAME)
print(json.dumps(ray.get(keeper.ask.remote(), timeout=TIMEOUT_S)))  # noqa: T201
