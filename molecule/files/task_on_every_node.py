"""Run a task on each living node of the cluster, and print as JSON the host that each one ran on."""  # noqa: INP001

import json
import socket

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy


@ray.remote(num_cpus=0.1)
def hostname() -> str:
    """Return the name of this host."""
    return socket.gethostname()


ray.init(log_to_driver=False, logging_level="ERROR")
nodes = {node["NodeName"]: node["NodeID"] for node in ray.nodes() if node["Alive"]}
tasks = {
    name: hostname.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node_id, soft=False)).remote()
    for name, node_id in nodes.items()
}
print(json.dumps({name: ray.get(task, timeout=60) for name, task in tasks.items()}))  # noqa: T201
