"""Test the node names of the organs' processes."""

from __future__ import annotations

import time
from typing import Any

import pytest

from seedcore.coordinator.nodes import NodeList


def node(name: str, node_id: str, *, alive: bool = True, head: bool = False) -> dict[str, Any]:
    return {"node_id": node_id, "node_name": name, "alive": alive, "head": head}


def test_the_head_comes_first_and_old_deaths_are_of_no_interest() -> None:
    nodes = NodeList()
    assert nodes.to_dict() == {"alive": 0, "names": [], "gone": [], "list": [], "age_s": None}

    nodes.update([node("b", "2"), node("z", "1", head=True), node("a", "3"), node("old", "0", alive=False)])

    said = nodes.to_dict()
    assert (said["alive"], said["names"], said["gone"]) == (3, ["z", "a", "b"], [])
    assert said["age_s"] < 60


def test_a_node_that_is_lost_stays_until_its_name_is_back() -> None:
    nodes = NodeList()
    nodes.update([node("a", "1", head=True), node("b", "2")])

    nodes.update([node("a", "1", head=True), node("b", "2", alive=False)])
    said = nodes.to_dict()
    assert (said["alive"], said["gone"]) == (1, ["b"])
    assert said["list"][-1]["alive"] is False
    assert said["list"][-1]["gone_since"]

    nodes.update([node("a", "1", head=True), node("b", "3")])
    assert nodes.to_dict()["gone"] == []


def test_a_node_that_is_to_leave_is_known() -> None:
    nodes = NodeList()
    nodes.update([node("a", "1", head=True), {**node("b", "2"), "draining": True}])
    assert nodes.draining == {"2"}

    nodes.update([node("a", "1", head=True), {**node("b", "2", alive=False), "draining": True}])
    assert nodes.draining == set()


def test_the_age_does_not_depend_on_the_clock_of_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = NodeList()
    nodes.update([])
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 3600)

    assert nodes.to_dict()["age_s"] < 60
