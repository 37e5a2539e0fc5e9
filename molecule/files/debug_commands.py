"""The debug commands of the mission's document, as they stand in it."""  # noqa: INP001

import ray

ray.init(log_to_driver=False, logging_level="ERROR")
# Check Coordinator status
coord = ray.get_actor("seedcore_coordinator", namespace="seedcore-dev")
status = ray.get(coord.get_status.remote())
print(status)  # noqa: T201

# Test ping
ping = ray.get(coord.ping.remote())
print(ping)  # noqa: T201

# Test task handling
result = ray.get(coord.handle.remote({"type": "get_organism_status"}))
print(result)  # noqa: T201
