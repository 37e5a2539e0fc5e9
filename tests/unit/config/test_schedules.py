"""Schedules in organism.yaml: every error has its place, and the schema says the same."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from click.testing import CliRunner

from seedcore.cli.app import cli
from seedcore.config.organism_file import load_config, parse_config
from seedcore.config.schema import config_schema
from seedcore.core.errors import ConfigError
from seedcore.core.spec import OrganismSpec
from tests.support.configs import HEAD, faults

VALIDATOR = jsonschema.Draft202012Validator(config_schema())
ORGANS = HEAD + "        task_types: [Pay]\n        domains: {EU: [refund]}\n"
GOOD = """\
- {id: nightly, cron: "30 2 * * *", timezone: Europe/Berlin, task: {type: pay, params: {a: 1}}}
- {id: poll, every: 15m, misfire: all, overlap: allow, grace_s: 5, task: {type: refund, domain: eu}}
- {id: once, at: 2027-01-31T08:00, task: {type: PAY}}
"""


def schedules(text: str) -> str:
    return ORGANS + "    schedules:\n" + textwrap.indent(text, "      ")


def test_they_are_part_of_the_organism() -> None:
    spec = parse_config(schedules(GOOD).encode())
    assert [one.id for one in spec.schedules] == ["nightly", "poll", "once"]
    assert (spec.schedules[1].every, spec.schedules[1].misfire, spec.schedules[2].at) == (
        "15m", "all", "2027-01-31T08:00"
    )  # fmt: skip
    assert OrganismSpec.from_dict(spec.to_dict()) == spec
    VALIDATOR.validate(_plain(schedules(GOOD)))


def _plain(text: str) -> object:
    """Return the file as a program sees it; PyYAML would make a date of a moment."""
    loader: Any = type("Loader", (yaml.SafeLoader,), {})
    loader.yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith("timestamp")]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    return yaml.load(text, loader)


def test_without_schedules_the_fingerprint_is_that_of_earlier_releases() -> None:
    bare, empty = parse_config(ORGANS.encode()), parse_config((ORGANS + "    schedules: []\n").encode())
    with_one = parse_config(schedules(GOOD).encode())
    assert bare.fingerprint() == empty.fingerprint() != with_one.fingerprint()
    assert OrganismSpec.from_dict({"organs": bare.to_dict()["organs"]}) == OrganismSpec(organs=bare.organs)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("- 5\n", [(10, 9, "a schedule is 5, expected a mapping with the keys")]),
        (
            '- {id: a, cron: "* 25 * * *", task: {type: pay}}\n',
            [(10, 23, "cron is '* 25 * * *': the field hour is '25', expected 0 to 23")],
        ),
        ("- {id: a, every: 0, task: {type: pay}}\n", [(10, 24, "every is 0, expected a whole number of seconds")]),
        ("- {id: a, evry: 5, every: 5, task: {type: pay}}\n", [(10, 17, "unknown key 'evry', did you mean 'every'?")]),
        (
            "- {id: a, every: 5, task: {type: pay, key: x}}\n",
            [(10, 45, "unknown key 'key', expected one of: type, params")],
        ),
        (
            "- {id: a, every: 5, task: {type: pai}}\n",
            [(10, 40, "no organ accepts the task type 'pai', expected one of: pay")],
        ),
        (
            "- {id: a, every: 5, task: {type: refund}}\n",
            [(10, 40, "no organ accepts the task type 'refund', expected one of: pay")],
        ),
        (
            "- {id: a, every: 5, task: {type: x, domain: eu}}\n",
            [(10, 40, "no organ accepts the task type 'x' in the domain 'eu', expected one of: pay, refund")],
        ),
        (
            "- {id: a, every: 5, task: {type: pay}}\n- {id: a, every: 6, task: {type: pay}}\n",
            [(11, 14, "the schedule in line 10 already has the id 'a', expected a unique id")],
        ),
        (
            "- {id: a, cron: 5, at: x, task: 1}\n",
            [(10, 23, "cron"), (10, 30, "at"), (10, 30, "both"), (10, 39, "task")],
        ),
    ],
)
def test_each_fault_is_reported_with_its_place(text: str, expected: list[tuple[int, int, str]]) -> None:
    found = faults(schedules(text))
    assert [(line, column) for line, column, _ in found] == [(line, column) for line, column, _ in expected]
    for (_, _, message), (_, _, part) in zip(found, expected, strict=True):
        assert part in message or len(expected) > 1


@pytest.mark.parametrize(
    "text", ["5", "{}", "- {id: a, task: {type: pay}}", "- {id: a, every: 1, at: x, task: {type: pay}}", "- {}"]
)
def test_the_schema_rejects_what_the_loader_rejects(text: str) -> None:
    document = _plain(schedules(text + "\n"))
    assert not VALIDATOR.is_valid(document)
    with pytest.raises(ConfigError):
        parse_config(schedules(text + "\n").encode())


def test_schedules_need_an_inbox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "organism.yaml"
    path.write_text(schedules(GOOD))
    text = "schedules need an inbox for durable tasks, and this deployment has none: set seedcore_inbox to sqlite"

    load_config(path, has_inbox=True)
    with pytest.raises(ConfigError) as refused:
        load_config(path, has_inbox=False)
    assert [(fault.line, fault.message) for fault in refused.value.faults] == [(9, text)]

    # A workstation does not know what the deployment has; the environment of a deployment says it.
    monkeypatch.delenv("SEEDCORE_INBOX", raising=False)
    done = CliRunner().invoke(cli, ["config", "check", "--config", str(path)])
    assert done.exit_code == 0, done.output
    assert "1 organs, 1 agents, 3 schedules, fingerprint" in done.output
    monkeypatch.setenv("SEEDCORE_INBOX", "none")
    refusal = CliRunner().invoke(cli, ["config", "check", "--config", str(path)])
    assert refusal.exit_code == 2
    assert f"{path}:9:5: {text}" in refusal.output
