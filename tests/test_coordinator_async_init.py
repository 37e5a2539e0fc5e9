"""Test the bug of the mission's document and its fix on a real Ray, without mocks.

``scripts/test_coordinator_async_init.py`` checks the same against a deployed cluster.
"""

from __future__ import annotations

import json

from tests.conftest import Organism

BROKEN = """
import asyncio
from pathlib import Path
from seedcore.coordinator.actors import RayOrganRuntime
from seedcore.config.organism_file import load_config
from seedcore.coordinator.organism_manager import OrganismManager

@ray.remote
class BrokenCoordinator:
    def __init__(self, spec, namespace):
        self.loop = asyncio.get_event_loop()
        runtime = RayOrganRuntime(namespace=namespace)
        self.org = OrganismManager(spec, release="x", runtime=runtime, on_change=lambda: None)
        self.loop.run_until_complete(self.org.initialize())

    async def ping(self):
        return "pong"

spec = load_config(Path({path!r}))
broken = BrokenCoordinator.remote(spec, os.environ["RAY_NAMESPACE"])
try:
    say({{"died": False, "answer": ray.get(broken.ping.remote(), timeout=60)}})
except ray.exceptions.ActorDiedError as error:
    say({{"died": True, "text": str(error)}})
"""

DOCUMENT = """
coord = ray.get_actor("seedcore_coordinator", namespace=os.environ["RAY_NAMESPACE"])
status = ray.get(coord.get_status.remote())
ping = ray.get(coord.ping.remote())
result = ray.get(coord.handle.remote({"type": "get_organism_status"}))
say({"status": status, "ping": ping, "result": result})
"""


def test_the_broken_form_dies_and_ours_comes_up_with_the_same_organism(organism: Organism) -> None:
    path = organism.config({"id": "one"}, {"id": "two", "task_types": ["other"]})

    broken = organism.drive(BROKEN.format(path=str(path)))

    assert broken["died"]
    assert "this event loop is already running" in broken["text"].lower()

    done = organism.run("bootstrap", "--config", str(path), "--json")

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["status"]["status"] == "healthy"


def test_the_lines_of_the_document_work_as_they_stand(organism: Organism) -> None:
    organism.up({"id": "one", "agent_count": 2})

    answers = organism.drive(DOCUMENT)

    assert answers["ping"] == "pong"
    status = answers["status"]
    assert (status["status"], status["coordinator"], status["organism_initialized"]) == ("healthy", "available", True)
    assert "error" not in status
    assert answers["result"]["success"] is True
    (organ,) = answers["result"]["result"]
    assert (organ["organ_id"], organ["organ_type"], organ["agent_count"]) == ("one", "Test", 2)
    assert organ["agent_ids"] == ["one_agent_0", "one_agent_1"]


def test_a_failed_initialization_fails_the_creation_of_the_actor(organism: Organism) -> None:
    blocker = organism.directory / "blocker"
    blocker.touch()
    path = organism.config({"agent": "helpers:FailsWhileFileExists", "options": {"path": str(blocker)}})

    failed = organism.drive(
        f"""
from pathlib import Path
from seedcore.coordinator import actors as actor
from seedcore.config.organism_file import load_config
from seedcore.core.settings import Settings
settings = Settings.from_env()
values = {{"namespace": settings.namespace, "http_host": "127.0.0.1", "http_port": settings.http_port,
          "auth_enabled": True, "token_path": str(settings.token_path)}}
spec = load_config(Path({str(path)!r})).to_dict()
coordinator = actor.create_coordinator(spec, values, namespace=settings.namespace, attempt=1)
try:
    ray.get(coordinator.ping.remote(), timeout=60)
    say({{"text": ""}})
except ray.exceptions.ActorDiedError as error:
    say({{"text": str(error)}})
"""
    )

    assert "RuntimeError: Coordinator initialization failed: organ organ_1: agent organ_1_agent_0" in failed["text"]
    assert "the database is locked by blocker" in failed["text"]
    assert organism.actors() == []
