"""Test streamed results, a stream that its caller abandons, and their metrics."""

from __future__ import annotations

from tests.conftest import Organism
from tests.support.waiting import eventually

DRIVE = """
coord = ray.get_actor("seedcore_coordinator", namespace=os.environ["RAY_NAMESPACE"])
endless = {"type": "count", "params": {"count": 10**9}, "timeout_s": 600}
def stream(task):
    return [ray.get(part, timeout=60) for part in coord.stream.remote(task)]
def organ():
    return ray.get(coord.get_status.remote(), timeout=30)["organs"][0]
said = {
    "items": stream({"type": "count", "params": {"count": 5}}),
    "whole": ray.get(coord.handle.remote({"type": "count", "params": {"count": 5}}), timeout=60),
    "unknown": stream({"type": "nothing"}),
    "built_in": stream({"type": "get_routing_debug"}),
    "no_task": stream(None),
}
generator = coord.stream.remote(endless)
said["first"] = ray.get(next(generator), timeout=60)
deadline = time.monotonic() + 60
while not organ()["in_flight"] and time.monotonic() < deadline:
    time.sleep(0.05)
said["under_way"] = organ()["in_flight"]
ray.cancel(generator)
while organ()["replicas"][0]["in_flight"] and time.monotonic() < deadline:
    time.sleep(0.05)
said["left"] = organ()["replicas"][0]["in_flight"]
say(said)
"""


def test_items_come_one_by_one_and_what_is_given_up_ends(organism: Organism) -> None:
    count = {"id": "one", "agent": "helpers:count_up", "task_types": ["count"]}
    organism.up({**count, "task_timeout_s": 600})

    said = organism.drive(DRIVE, timeout_s=170)

    assert said["items"][:-1] == [{"item": number} for number in range(5)]
    assert (said["items"][-1]["success"], said["items"][-1]["result"]) == (True, 5)
    assert said["whole"]["result"] == [0, 1, 2, 3, 4]
    assert [part["error_type"] for part in said["unknown"]] == ["UnknownTaskTypeError"]
    assert [part["success"] for part in said["built_in"]] == [True]
    assert [part["error_type"] for part in said["no_task"]] == ["TaskError"]
    assert said["first"] == {"item": 0}
    assert (said["under_way"], said["left"]) == (1, 0)
    # The agent is free again long before the deadline of the abandoned stream.
    assert organism.submit("count", {"count": 2})["result"] == [0, 1]

    def counted() -> bool:
        metrics = organism.submit("get_metrics")["result"]
        (organ,) = metrics["organs"]
        assert organ["agents"] == {"starting": 0, "ready": 1, "failed": 0, "stuck": 0, "stopped": 0, "down": 0}
        done = [entry for entry in organ["tasks"] if entry["outcome"] == "success"]
        return bool(done) and done[0]["count"] == sum(done[0]["buckets"]) == 3

    eventually(counted, timeout_s=60, what="three tasks were done")
