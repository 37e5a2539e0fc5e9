from __future__ import annotations

import json
import pickle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seedcore.core.spec import OrganismSpec, OrganSpec

NAMES = st.text(st.characters(codec="utf-8"), max_size=10)
SPECS = st.builds(
    OrganSpec,
    id=NAMES,
    type=NAMES,
    agent=NAMES,
    options=st.dictionaries(NAMES, st.none() | st.integers() | NAMES | st.lists(NAMES)),
    agent_count=st.integers(1, 50),
    task_types=st.lists(NAMES).map(tuple),
    domains=st.dictionaries(NAMES, st.lists(NAMES).map(tuple)),
    replicas=st.integers(1, 7),
    resources=st.dictionaries(NAMES, st.floats(0, 9)),
)


def organ(**keys: Any) -> OrganSpec:
    return OrganSpec(**{"id": "one", "type": "T", "agent": "m:a", **keys})


@given(st.lists(SPECS, max_size=3).map(tuple))
def test_a_spec_survives_json_and_pickle(organs: tuple[OrganSpec, ...]) -> None:
    spec = OrganismSpec(organs=organs, source="/o.yaml")
    back = OrganismSpec.from_dict(json.loads(json.dumps(spec.to_dict())))
    assert back == spec
    assert back.fingerprint() == spec.fingerprint()
    assert pickle.loads(pickle.dumps(spec)) == spec


@given(SPECS)
def test_every_agent_lives_in_exactly_one_replica(spec: OrganSpec) -> None:
    shared = [agent for replica in range(spec.replicas) for agent in spec.agent_ids(replica)]
    assert sorted(shared) == sorted(spec.agent_ids())
    assert len(set(shared)) == spec.agent_count
    sizes = [len(spec.agent_ids(replica)) for replica in range(spec.replicas)]
    assert max(sizes) - min(sizes) <= 1


def test_agent_ids_are_as_documented() -> None:
    assert organ(agent_count=3).agent_ids() == ["one_agent_0", "one_agent_1", "one_agent_2"]


def test_all_agents_have_to_be_ready_unless_said_otherwise() -> None:
    assert organ(agent_count=5).min_ready_agents == 5
    assert organ(agent_count=5, min_ready_agents=2).min_ready_agents == 2


@pytest.mark.parametrize(
    "change",
    [
        {"id": "two"},
        {"options": {"a": 1}},
        {"agent_count": 2},
        {"task_types": ("t",)},
        {"domains": {"d": ("t",)}},
        {"required": False},
        {"num_cpus": 1.0},
        {"description": "other"},
    ],
)
def test_a_fingerprint_changes_with_the_content(change: dict[str, Any]) -> None:
    assert organ(**change).fingerprint() != organ().fingerprint()
    assert OrganismSpec(organs=(organ(**change),)).fingerprint() != OrganismSpec(organs=(organ(),)).fingerprint()


def test_a_fingerprint_does_not_depend_on_the_order_of_keys_or_the_file() -> None:
    one, two = organ(options={"a": 1, "b": 2}), organ(options={"b": 2, "a": 1})
    assert one.fingerprint() == two.fingerprint()
    assert (
        OrganismSpec(organs=(one,), source="a").fingerprint() == OrganismSpec(organs=(two,), source="b").fingerprint()
    )


def test_only_organs_with_agents_of_ones_own_run_with_their_interpreter() -> None:
    agents = ["mine.agents:Reader", "seedcore.agents:utility", "seedcore_like:Agent"]
    spec = OrganismSpec(organs=tuple(organ(id=agent, agent=agent) for agent in agents), source="/o.yaml")

    placed = spec.with_python("/a/1/bin/python")

    assert [one.python for one in placed.organs] == ["/a/1/bin/python", "", "/a/1/bin/python"]
    assert placed.source == spec.source
    assert placed.organs[1] == spec.organs[1]
    assert len({one.fingerprint() for one in (spec, placed, spec.with_python("/a/2/bin/python"))}) == 3
    assert spec.with_python("") == spec
    assert "python" not in OrganSpec.described()


def test_an_organ_with_an_environment_runs_with_its_interpreter_also_an_agent_of_the_library() -> None:
    named = {"mine.agents:Reader": "vision", "seedcore.agents:utility": "vision", "mine.agents:Writer": ""}
    organs = tuple(organ(id=agent, agent=agent, environment=name) for agent, name in named.items())
    vision = "/environments/vision-c/bin/python"

    placed = OrganismSpec(organs=organs).with_python("/agents/1-a.b/bin/python", {"vision": vision})

    assert [one.python for one in placed.organs] == [vision, vision, "/agents/1-a.b/bin/python"]
    assert placed.agents() == "1-a.b,vision-c"
