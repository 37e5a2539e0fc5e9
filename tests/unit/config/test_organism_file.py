from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from seedcore.config.organism_file import PACKAGED_CONFIG, load_config, parse_config
from seedcore.core.errors import ConfigError
from seedcore.core.spec import OrganSpec
from tests.support.configs import AGENT, only, organ, organism


def test_the_packaged_file_is_valid_and_has_the_documented_organs() -> None:
    spec = load_config(None)
    assert [(o.id, o.type) for o in spec.organs] == [
        ("cognitive_organ_1", "Cognitive"),
        ("actuator_organ_1", "Actuator"),
        ("utility_organ_1", "Utility"),
    ]
    assert spec.source == str(PACKAGED_CONFIG)
    assert spec.organs[0].agent_ids() == ["cognitive_organ_1_agent_0", "cognitive_organ_1_agent_1"]


def test_the_packaged_file_teaches_every_key_and_its_true_default() -> None:
    text = PACKAGED_CONFIG.read_text()
    defaults = OrganSpec(id="x", type="x", agent="x:y")
    for name in OrganSpec.described():
        shown = re.search(rf"^\s*(?:- |# )?{name}: *(.*?)\s*(#.*)?$", text, re.MULTILINE)
        assert shown, f"{name} is not in the packaged file"
        commented = re.search(rf"^\s*# {name}: *(.*?)\s*(#.*)?$", text, re.MULTILINE)
        if commented and name != "min_ready_agents":
            expected = getattr(defaults, name)
            assert yaml.safe_load(commented[1]) == expected, name


def test_the_packaged_file_works_with_every_comment_taken_out() -> None:
    text = PACKAGED_CONFIG.read_text()
    uncommented = re.sub(r"^( {8})# ( *(?:\w+: ))", r"\1\2", text, flags=re.MULTILINE).replace(
        "domains: {}", "domains:"
    )
    spec = parse_config(uncommented.encode())
    assert spec.organs[0].domains == {"legal": ("summarize",)}
    assert spec.organs[0].queue_limit == 1000


def test_what_the_file_does_not_say_is_the_default_of_the_spec() -> None:
    assert only() == OrganSpec(id="one", type="Test", agent=AGENT)


def test_every_key_arrives() -> None:
    keys: dict[str, Any] = {
        "id": "A.b-c_9",
        "type": "Test",
        "agent": AGENT,
        "description": "what it is",
        "options": {"keyword_limit": 3},
        "agent_count": 4,
        "domains": {" Law ": [" Sue "]},
        "task_types": [" Think", "act "],
        "replicas": 2,
        "required": False,
        "min_ready_agents": 3,
        "max_concurrency": 5,
        "queue_limit": 0,
        "task_timeout_s": 1.5,
        "start_timeout_s": 2,
        "health_interval_s": 0.5,
        "health_timeout_s": 4,
        "failure_threshold": 6,
        "node_silence_s": 40,
        "drain_timeout_s": 0,
        "num_cpus": 0,
        "num_gpus": 2,
        "resources": {"ssd": 0.5},
        "labels": {"zone": "in(a, b)", "example.com/disk": "!hdd"},
    }
    (spec,) = parse_config(organism(keys)).organs
    assert spec == OrganSpec(**{**keys, "task_types": ("think", "act"), "domains": {"law": ("sue",)}})
    assert isinstance(spec.start_timeout_s, float)


def test_every_agent_has_to_be_ready_unless_the_file_says_less() -> None:
    assert only(agent_count=7).min_ready_agents == 7
    assert only(agent_count=7, min_ready_agents=2).min_ready_agents == 2


def test_the_source_is_an_absolute_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "o.yaml").write_bytes(organism(organ()))
    monkeypatch.chdir(tmp_path)
    assert load_config(Path("o.yaml")).source == str(tmp_path / "o.yaml")


def test_a_fault_names_the_file_as_the_caller_did(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "o.yaml").write_text("seedcore:\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError) as caught:
        load_config(Path("o.yaml"))
    assert str(caught.value) == "o.yaml:1:10: seedcore is empty, expected a mapping with the key 'organism'"


def test_what_json_says_is_read_as_in_json() -> None:
    options = {"summary_sentences": 1e-05, "keyword_limit": ["1e5", 1e22, "\U0001f600", "\u2028", -3, True, None, {}]}
    assert only(options=options).options == options


def test_anchors_aliases_and_merge_keys_work() -> None:
    spec = parse_config(
        b"""\
seedcore:
  organism:
    organ_types:
      - &base
        id: one
        type: &type Test
        agent: &agent seedcore.agents:TextAnalyst
        agent_count: 3
        options: &options {keyword_limit: 5}
        task_types: [a]
      - <<: *base
        id: two
        task_types: [b]
        options: {<<: *options, summary_sentences: 1}
      - {id: three, type: *type, agent: *agent, <<: [{agent_count: 8, replicas: 2}, {agent_count: 9}]}
"""
    )
    one, two, three = spec.organs
    assert (two.agent, two.agent_count, two.options) == (one.agent, 3, {"keyword_limit": 5, "summary_sentences": 1})
    assert (three.type, three.agent_count, three.replicas) == ("Test", 8, 2)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("missing.yaml", "there is no such file"),
        ("", "is a directory, expected a YAML file"),
        ("pipe", "is not a regular file, expected a YAML file"),
        ("loop", "cannot be read: Too many levels of symbolic links"),
        ("x" * 300, "cannot be read: File name too long"),
        ("a\0b", "cannot be read: the path contains a character that is not allowed in paths"),
    ],
)
def test_a_file_that_cannot_be_read_is_one_fault_without_a_place(tmp_path: Path, name: str, message: str) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(ConfigError) as caught:
        load_config(tmp_path / name)
    (fault,) = caught.value.faults
    assert (fault.source, fault.line, fault.column, fault.message) == (str(tmp_path / name), 0, 0, message)


def test_reading_a_configuration_never_imports_ray() -> None:
    code = "import sys; from seedcore.config import load_config; load_config(None); sys.exit('ray' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
