"""Random faults under load, in the manner of Jepsen: heal, wait until it is quiet, then check what is promised."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from typing import Any

import pytest

from seedcore.coordinator.inbox import inbox as inbox_module
from seedcore.core.errors import InboxUnavailableError
from tests.unit.coordinator.inbox.test_inbox import House

SEEDS = range(8)
CALLERS = 6
FAULTS = 6
COORDINATOR_FAULTS = ("coordinator", "disk")
ORGAN_FAULTS = ("organ", "both", "gone")


class Client:
    """Submits tasks with keys of its own, again until each is acknowledged."""

    def __init__(self, house: House, chance: random.Random) -> None:
        self.house, self.chance = house, chance
        self.told: dict[str, dict[str, Any]] = {}
        self.ids: dict[str, str] = {}
        self.kinds: dict[str, str] = {}
        self.is_over = False

    async def run(self, name: int) -> None:
        turn = 0
        while not self.is_over:
            turn += 1
            key = f"{name}-{turn}"
            self.kinds[key] = self.chance.choice(["pay", "fetch"])
            await self.pursue(key, self.chance.choice([0.0, 0.0, 0.005, 0.03]))

    async def pursue(self, key: str, seconds: float) -> None:
        while True:
            try:
                answer = await self.house.submit(
                    self.kinds[key], params={"seconds": seconds, "key": key}, key=key, wait_s=1.0
                )
            except InboxUnavailableError:
                await asyncio.sleep(0.005)
                continue
            before = self.ids.setdefault(key, answer["id"])
            assert before == answer["id"], "a key never has two ids"
            if not answer.get("accepted"):
                self.told[key] = answer
                return
            if self.is_over and self.chance.random() < 0.5:
                return  # somebody who does not wait any more


async def inflict(house: House, fault: str, chance: random.Random) -> None:
    actor = house.cluster.actors.get(f"seedcore_organ.{chance.choice(['pay', 'fetch'])}.0")
    if fault in {"organ", "both"} and actor is not None:
        actor.die()
    if fault == "gone" and actor is not None:
        await house.cluster.kill(actor, restart=False)
    if fault in {"coordinator", "both"}:
        await house.die()
        await asyncio.sleep(chance.uniform(0.0, 0.03))
        await house.begin()
    if fault == "disk" and (session := house.inbox._session) is not None:

        def fail(_: Any) -> Any:
            raise OSError(28, "No space left on device")

        session.store.turn = fail  # type: ignore[method-assign, assignment]


async def quiet(house: House) -> dict[str, int]:
    """Wait until no task waits or runs."""
    async with asyncio.timeout(60):
        while True:
            tasks: dict[str, int] = house.inbox.summary()["tasks"]
            if house.inbox._session is not None and not tasks["ready"] + tasks["later"] + tasks["leased"]:
                return tasks
            await asyncio.sleep(0.02)


@pytest.mark.loop_limit(30.0)  # the machine may be busy, and other tests find what blocks the loop
@pytest.mark.parametrize("seed", SEEDS)
async def test_random_faults_break_no_promise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    monkeypatch.setattr(inbox_module, "REOPEN_AFTER_S", 0.01)
    chance = random.Random(seed)
    kinds = COORDINATOR_FAULTS if seed % 2 else (*COORDINATOR_FAULTS, *ORGAN_FAULTS)
    house = House(tmp_path / "inbox")
    await house.begin()
    client = Client(house, chance)
    callers = [asyncio.create_task(client.run(number)) for number in range(CALLERS)]
    faults = [chance.choice(kinds) for _ in range(FAULTS)]

    for fault in faults:
        await asyncio.sleep(chance.uniform(0.02, 0.15))
        await inflict(house, fault, chance)
    client.is_over = True
    await asyncio.gather(*callers)
    counts = await quiet(house)

    rows = {task["key"]: task for task in await house.inbox.find(limit=1000)}
    assert set(client.ids) <= set(rows), "what was acknowledged is stored"
    for key, task in rows.items():
        effects = house.cluster.began[task["id"]]
        assert task["state"] in {"done", "parked"}, task
        if client.kinds[key] == "pay":
            assert effects <= 1, "never repeated"
            assert (task["state"] == "parked") == (task["executed"] == "unknown")
        if task["state"] == "done":
            assert effects >= 1
            assert house.cluster.done[task["id"]] >= 1
        if effects > 1:
            story = (await house.ended(task["id"]))["story"]
            assert any(entry["executed"] == "unknown" for entry in story), "repeated only after an unknown outcome"
    for key, told in client.told.items():
        assert (told["state"], told["id"]) == (rows[key]["state"], rows[key]["id"]), "a told outcome never changes"
    if not set(faults) & set(ORGAN_FAULTS):
        assert (counts["parked"], max(house.cluster.began.values())) == (0, 1), "organs outlive the Coordinator"
    assert sum(counts.values()) == len(rows) > CALLERS

    await house.die()
    await house.cluster.close()
