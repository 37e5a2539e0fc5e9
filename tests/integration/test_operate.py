"""What an operator orders, on a real Ray: what clients notice of it, and that the next Coordinator knows it."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

from seedcore.core.reason import Reason
from tests.conftest import Organism
from tests.support.waiting import eventually

LOAD = """
import pathlib, seedcore
stop, begun = pathlib.Path({stop!r}), pathlib.Path({begun!r})
failed, count = [], 0
with seedcore.Client() as client:
    while not stop.exists():
        answers = list(client.submit_many([{{"type": "echo"}} for _ in range(20)], timeout_s=60))
        count += len(answers)
        failed += [answer for answer in answers if not answer["success"]]
        begun.touch()
    say([client.transport, count, failed])
"""
SUBMIT = """
import seedcore
with seedcore.Client() as client:
    say([client.transport, client.submit({"type": "echo"}, timeout_s=100)])
"""


def test_a_pause_outlives_a_replacement_of_the_coordinator_and_clients_wait(organism: Organism) -> None:
    organism.up({"id": "pay", "task_types": ["echo"]}, {"id": "other"})
    assert organism.run("pause", "pay").returncode == 0
    with ThreadPoolExecutor(2) as threads:
        # Over Ray, a client sends to the organ itself; over HTTP, to the Coordinator.
        over_ray = threads.submit(organism.drive, SUBMIT, timeout_s=150)
        over_http = organism.start("submit", "echo", "--timeout", "100")
        eventually(lambda: organism.told()["organs"][0]["queued"] == 2, timeout_s=60, what="both tasks wait")

        replaced = organism.run("bootstrap", "--replace", "--config", str(organism.directory / "organism.yaml"))
        assert replaced.returncode == 1
        assert "organs_paused: pay is paused by 'cluster' since " in replaced.stderr
        assert not over_ray.done()

        assert organism.run("resume", "pay").returncode == 0
        transport, answer = over_ray.result(timeout=100)
        assert (transport, answer["success"]) == ("ray", True)
    out, _ = over_http.communicate(timeout=100)
    told = json.loads(out)
    # This one went with the Coordinator, and was told truthfully.
    assert told["success"] is True or told["executed"] == "no", told
    eventually(lambda: organism.probe().reason == Reason.READY, what="all is well")


def test_a_replacement_costs_clients_that_send_to_the_organ_nothing(organism: Organism) -> None:
    organism.up({"id": "pay", "task_types": ["echo"]})
    stop, begun = organism.directory / "stop", organism.directory / "begun"
    with ThreadPoolExecutor(1) as threads:
        load = threads.submit(organism.drive, LOAD.format(stop=str(stop), begun=str(begun)), timeout_s=150)
        eventually(begun.exists, timeout_s=60, what="load")
        before = organism.told()["organs"][0]["replicas"][0]["pid"]
        for _ in range(2):
            replaced = organism.run("replace", "pay", "--json")
            assert replaced.returncode == 0, replaced.stderr
        stop.touch()
        transport, count, failed = load.result(timeout=100)
    assert (transport, failed) == ("ray", [])
    assert count > 20
    assert json.loads(replaced.stdout)[0]["pid"] == organism.told()["organs"][0]["replicas"][0]["pid"] != before
