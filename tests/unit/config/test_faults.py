from __future__ import annotations

import json
import textwrap
import time
from typing import Any

import pytest

from seedcore.config import organism_file as config
from seedcore.config.agent_import import ALLOWED_PATH
from seedcore.config.organism_file import parse_config
from seedcore.config.yaml_source import show
from seedcore.core.task import BUILTIN_TASK_TYPES
from tests.support.configs import AGENT, HEAD, faults, more, organ, organism, places

NOT_THERE = "expected a mapping with the key"
PLAIN = "expected plain strings, numbers, booleans, lists and mappings"
SECONDS = "expected a number of seconds above 0 and up to 604800"
NAME = "a string of 1 to 200 characters"
DOMAINS = "a mapping of domains, each to a list of one or more task types"
RESOURCES = (
    "a mapping of custom resources, each to 0 or a number from 0.0001 to 1000000 "
    "(not CPU, GPU, memory, object_store_memory, which are Ray's own)"
)
LABELS = (
    "a mapping of Ray's node labels (letters, digits and . _ - inside, up to 63), "
    "each to a string: 'value', '!value', 'in(a,b)' or '!in(a,b)'"
)

# Faults of a file as YAML.
YAML_CASES: dict[str, tuple[str | bytes, list[tuple[int, int, str]]]] = {
    "empty": ("", [(1, 1, f"the file is empty, {NOT_THERE} 'seedcore'")]),
    "comments only": ("# a\n# b\n", [(1, 1, f"the file is empty, {NOT_THERE} 'seedcore'")]),
    "null": ("---\n", [(2, 1, f"the file is empty, {NOT_THERE} 'seedcore'")]),
    "scalar": ("x", [(1, 1, f"the file is 'x', {NOT_THERE} 'seedcore'")]),
    "list": ("\n- 1", [(2, 1, f"the file is a list, {NOT_THERE} 'seedcore'")]),
    "no end": (
        "a: [",
        [(1, 5, "bad YAML: expected the node content, but found '<stream end>', while parsing a flow node")],
    ),
    "tab": (
        "seedcore:\n\torganism:",
        [(2, 1, "bad YAML: found character '\\t' that cannot start any token, while scanning for the next token")],
    ),
    "indentation": (
        "seedcore:\n  a: 1\n b: 2",
        [(3, 2, "bad YAML: expected <block end>, but found '<block mapping start>', while parsing a block mapping")],
    ),
    "no alias": ("a: *b", [(1, 4, "bad YAML: found undefined alias 'b'")]),
    "bad escape": ('a: "\\U00110000"', [(1, 7, "bad YAML: chr() arg not in range(0x110000)")]),
    "not UTF-8": (b"a: b\nc: \xc3\xa9\xff", [(2, 5, "the byte 0xff is not UTF-8, expected UTF-8 text")]),
    "UTF-16": ("a: b".encode("utf-16"), [(1, 1, "the byte 0xff is not UTF-8, expected UTF-8 text")]),
    "control character": ("a: b\nc: \x07", [(2, 4, "the character U+0007 is not allowed in YAML")]),
    "too large": (b"#" * (1024 * 1024 + 1), [(1, 1, "the file is larger than 1048576 bytes")]),
    "deep flow": ("[" * 100_000, [(1, 51, "bad YAML: nested deeper than 50 levels")]),
    "deep blocks": ("- " * 100_000, [(1, 101, "bad YAML: nested deeper than 50 levels")]),
    "deep lines": ("[\n" * 100_000, [(51, 1, "bad YAML: nested deeper than 50 levels")]),
    "two documents": (f"{HEAD}---\nx: 1\n", [(7, 1, "a second document begins here, expected one document per file")]),
    "anchor in itself": (more("options: {keyword_limit: &a [*a]}"), [(7, 38, "the anchor contains itself")]),
    "merge with itself": (more("options: &a {<<: *a}"), [(7, 26, "the anchor contains itself")]),
    "merge of a scalar": (
        more("options: {<<: 3}"),
        [(7, 23, "the value of '<<' is not a mapping, expected a mapping or a list of mappings")],
    ),
    "merge of a list with a scalar": (
        more("options: {<<: [{}, 3]}"),
        [(7, 28, "the value of '<<' is not a mapping, expected a mapping or a list of mappings")],
    ),
    "duplicate key": (
        more("agent_count: 1\nagent_count: 2"),
        [(8, 9, "the key 'agent_count' appears twice, first in line 7")],
    ),
    "duplicate key in options": (
        more("options: {keyword_limit: 1, keyword_limit: 2}"),
        [(7, 37, "the key 'keyword_limit' appears twice, first in line 7")],
    ),
    "boolean key": (more("domains: {no: [x]}"), [(7, 19, "a key must be a string, got the boolean false: quote it")]),
    "number key": (more("options: {1: x}"), [(7, 19, "a key must be a string, got 1: quote it")]),
    "list key": (more("options:\n  ? [a]\n  : x"), [(8, 13, "a key must be a string, got a list: quote it")]),
    "date": (more("description: 2024-01-01"), [(7, 22, "YAML reads '2024-01-01' as a date: quote it")]),
    "tag": (more("description: !!binary aGk="), [(7, 22, f"the tag !!binary is not allowed, {PLAIN}")]),
    "python tag": (
        more("options: {keyword_limit: !!python/object/apply:os.system [ls]}"),
        [(7, 34, f"the tag !!python/object/apply:os.system is not allowed, {PLAIN}")],
    ),
    "own tag": (more("options: !mine {a: 1}"), [(7, 18, f"the tag !mine is not allowed, {PLAIN}")]),
    "set": (more("options: !!set {a, b}"), [(7, 18, f"the tag !!set is not allowed, {PLAIN}")]),
    "not an int": (more("agent_count: !!int x"), [(7, 22, "'x' is not of the type int")]),
    "not a bool": (more("required: !!bool maybe"), [(7, 19, "'maybe' is not of the type bool")]),
    "huge int": (more(f"agent_count: {2**64}"), [(7, 22, f"'{2**64}' is too large, expected 64-bit integers")]),
    "nan": (more("num_cpus: .nan"), [(7, 19, "'.nan' is not allowed, expected finite numbers")]),
    "inf": (more("task_timeout_s: .inf"), [(7, 25, "'.inf' is not allowed, expected finite numbers")]),
    "inf in options": (
        more("options: {keyword_limit: -.inf}"),
        [(7, 34, "'-.inf' is not allowed, expected finite numbers")],
    ),
    "overflow": (more("task_timeout_s: 1.0e+999"), [(7, 25, "'1.0e+999' is not allowed, expected finite numbers")]),
    "half a character": (
        more('description: "\\ud800"'),
        [(7, 22, "the text contains half of a surrogate pair, expected whole characters")],
    ),
}

KEYS = ", ".join(config._Organ.model_fields)

# Faults of the YAML's content.
SCHEMA_CASES: dict[str, tuple[str, list[tuple[int, int, str]]]] = {
    "no seedcore": ("{}", [(1, 1, f"the file lacks the key 'seedcore', {NOT_THERE} 'organism'")]),
    "no organism": ("seedcore: {}", [(1, 11, f"seedcore lacks the key 'organism', {NOT_THERE} 'organ_types'")]),
    "no organ_types": (
        "seedcore:\n  organism: {}",
        [(2, 13, "seedcore.organism lacks the key 'organ_types', expected a list of one or more organs")],
    ),
    "no organs": (
        "seedcore: {organism: {organ_types: []}}",
        [(1, 36, "organism.organ_types is an empty list, expected a list of one or more organs")],
    ),
    "organs are a mapping": (
        "seedcore: {organism: {organ_types: {a: 1}}}",
        [(1, 36, "organism.organ_types is a mapping, expected a list of one or more organs")],
    ),
    "an organ is a string": (
        f"{HEAD}      - two\n",
        [(7, 9, f"organ_types[1] is 'two', expected a mapping with the keys {KEYS}")],
    ),
    "an organ without anything": (
        "seedcore:\n  organism:\n    organ_types:\n      - {}\n",
        [
            (4, 9, f"organ_types[0] lacks the key 'agent', expected {ALLOWED_PATH}"),
            (4, 9, "organ_types[0] lacks the key 'id', expected 1 to 100 of the characters A-Z a-z 0-9 _ . -"),
            (4, 9, f"organ_types[0] lacks the key 'type', expected {NAME}"),
        ],
    ),
    "unknown top key": (
        f"{HEAD}sedcore: 1\n",
        [(7, 1, "unknown key 'sedcore', did you mean 'seedcore'? expected one of: seedcore")],
    ),
    "unknown seedcore key": (f"{HEAD}  x: 1\n", [(7, 3, "unknown key 'x', expected one of: organism")]),
    "unknown organism key": (f"{HEAD}    x: 1\n", [(7, 5, "unknown key 'x', expected one of: organ_types, schedules")]),
    "unknown organ key": (
        more("agent_cuont: 1"),
        [(7, 9, f"unknown key 'agent_cuont', did you mean 'agent_count'? expected one of: {KEYS}")],
    ),
    "negative count": (more("agent_count: -1"), [(7, 22, "agent_count is -1, expected an integer from 1 to 100000")]),
    "no agents": (more("agent_count: 0"), [(7, 22, "agent_count is 0, expected an integer from 1 to 100000")]),
    "a million agents": (
        more("agent_count: 1000000"),
        [(7, 22, "agent_count is 1000000, expected an integer from 1 to 100000")],
    ),
    "a count in words": (
        more("agent_count: two"),
        [(7, 22, "agent_count is 'two', expected an integer from 1 to 100000")],
    ),
    "a count in quotes": (
        more("agent_count: '2'"),
        [(7, 22, "agent_count is '2', expected an integer from 1 to 100000")],
    ),
    "a count with a fraction": (
        more("agent_count: 2.0"),
        [(7, 22, "agent_count is 2.0, expected an integer from 1 to 100000")],
    ),
    "a count that is a boolean": (
        more("agent_count: yes"),
        [(7, 22, "agent_count is the boolean true, expected an integer from 1 to 100000")],
    ),
    "a count that is empty": (
        more("agent_count:"),
        [(7, 21, "agent_count is empty, expected an integer from 1 to 100000")],
    ),
    "a boolean that is a number": (more("required: 1"), [(7, 19, "required is 1, expected true or false")]),
    "seconds that are a boolean": (
        more("task_timeout_s: on"),
        [(7, 25, f"task_timeout_s is the boolean true, {SECONDS}")],
    ),
    "no seconds": (more("start_timeout_s: 0"), [(7, 26, f"start_timeout_s is 0, {SECONDS}")]),
    "negative seconds": (more("health_interval_s: -0.5"), [(7, 28, f"health_interval_s is -0.5, {SECONDS}")]),
    "too many seconds": (more("health_timeout_s: 604801"), [(7, 27, f"health_timeout_s is 604801, {SECONDS}")]),
    "no threshold": (
        more("failure_threshold: 0"),
        [(7, 28, "failure_threshold is 0, expected an integer from 1 to 1000")],
    ),
    "negative queue": (
        more("queue_limit: -1"),
        [(7, 22, "queue_limit is -1, expected an integer from 0 to 1000000")],
    ),
    "no concurrency": (
        more("max_concurrency: 0"),
        [(7, 26, "max_concurrency is 0, expected an integer from 1 to 10000")],
    ),
    "negative cpus": (
        more("num_cpus: -1"),
        [(7, 19, "num_cpus is -1, expected 0 or a number from 0.0001 to 1000000")],
    ),
    "cpus finer than Ray": (
        more("num_cpus: 0.00001"),
        [(7, 19, "num_cpus is 1e-05, expected 0 or a number from 0.0001 to 1000000")],
    ),
    "half a GPU too many": (
        more("num_gpus: 1.5"),
        [(7, 19, "num_gpus is 1.5, expected 0, a number from 0.0001 to 1, or an integer up to 1000000")],
    ),
    "label": (more("labels: {zone: in()}"), [(7, 24, f"labels.zone is 'in()', expected {LABELS}")]),
    "label key": (more("labels: {-zone: a}"), [(7, 18, f"labels has the key '-zone', expected {LABELS}")]),
    "label value": (more("labels: {gpu: true}"), [(7, 23, f"labels.gpu is the boolean true, expected {LABELS}")]),
    "a list that is a string": (
        more("task_types: x"),
        [(7, 21, f"task_types is 'x', expected a list of task types, each {NAME}")],
    ),
    "a task type that is a number": (
        more("task_types: [a, 5]"),
        [(7, 25, f"task_types[1] is 5, expected a list of task types, each {NAME}")],
    ),
    "a task type of blanks": (
        more("task_types: ['  ']"),
        [(7, 22, f"task_types[0] is '  ', expected a list of task types, each {NAME}")],
    ),
    "options that are a list": (more("options: [a]"), [(7, 18, "options is a list, expected a mapping")]),
    "a domain without types": (
        more("domains: {law: []}"),
        [
            (
                7,
                24,
                f"domains.law is an empty list, expected {DOMAINS}",
            )
        ],
    ),
    "a domain of blanks": (
        more("domains: {' ': [a]}"),
        [(7, 19, f"domains has the key ' ', expected {DOMAINS}")],
    ),
    "a domain with a wrong type": (
        more("domains: {law: [a, [b]]}"),
        [(7, 28, f"domains.law[1] is a list, expected {DOMAINS}")],
    ),
    "a type that is empty": (HEAD.replace("type: Test", "type: ''"), [(5, 15, f"type is '', expected {NAME}")]),
    "a type with a line break": (
        HEAD.replace("type: Test", 'type: "a\\nb"'),
        [(5, 15, f"type is 'a\\nb', expected {NAME}")],
    ),
    "a description that is too long": (
        more("description: " + "x" * 10_001),
        [(7, 22, f"description is '{'x' * 76}..., expected a string of up to 10000 characters")],
    ),
}
for bad_id in ("a b", "a/b", "", "\u00e9", "x" * 101, "a\n"):
    SCHEMA_CASES[f"id {bad_id[:3]!r}"] = (
        HEAD.replace("id: one", f"id: {json.dumps(bad_id)}"),
        [(4, 13, f"id is {show(bad_id)}, expected 1 to 100 of the characters A-Z a-z 0-9 _ . -")],
    )
for own in ("CPU", "GPU", "memory", "object_store_memory"):
    SCHEMA_CASES[f"resource {own}"] = (
        more(f"resources: {{{own}: 1}}"),
        [
            (
                7,
                21,
                f"resources has the key '{own}', expected {RESOURCES}",
            )
        ],
    )

TWO = f"{HEAD}        task_types: [a]\n      - id: two\n        type: Test\n        agent: {AGENT}\n"
ONE_ORGAN = "expected one organ for each task type and domain"

# Faults that depend on the environment.
CROSS_CASES: dict[str, tuple[str, list[tuple[int, int, str]]]] = {
    "duplicate id": (
        TWO.replace("id: two", "id: one"),
        [(8, 13, "the organ in line 4 already has the id 'one', expected a unique id")],
    ),
    "more replicas than agents": (
        more("agent_count: 2\nreplicas: 3"),
        [(8, 19, "replicas is 3, expected at most agent_count, which is 2")],
    ),
    "more replicas than the default": (
        more("replicas: 2"),
        [(7, 19, "replicas is 2, expected at most agent_count, which is 1")],
    ),
    "more ready than agents": (
        more("agent_count: 2\nmin_ready_agents: 3"),
        [(8, 27, "min_ready_agents is 3, expected at most agent_count, which is 2")],
    ),
    "two organs, one type": (
        f"{TWO}        task_types: [b, ' A ']\n",
        [(11, 25, f"the organ 'one' already accepts the task type 'a', in line 7, {ONE_ORGAN}")],
    ),
    "one organ, a type twice": (
        more("task_types: [a, A]"),
        [(7, 25, f"this organ already accepts the task type 'a', in line 7, {ONE_ORGAN}")],
    ),
    "two organs, one type in one domain": (
        f"{TWO.replace('task_types: [a]', 'domains: {law: [a]}')}        domains: {{LAW: [A]}}\n",
        [
            (
                11,
                25,
                f"the organ 'one' already accepts the task type 'a' in the domain 'law', in line 7, {ONE_ORGAN}",
            )
        ],
    ),
    "a domain twice": (
        more("domains: {law: [a], Law: [b]}"),
        [(7, 29, "the domain 'law' appears twice (case and outer blanks are ignored), first in line 7")],
    ),
    "a built-in type": (
        more("task_types: [get_metrics]"),
        [(7, 22, "the task type 'get_metrics' is built in, expected another one")],
    ),
    "a built-in type in a domain": (
        more("domains: {law: [Canary]}"),
        [(7, 25, "the task type 'canary' is built in, expected another one")],
    ),
}


@pytest.mark.parametrize(
    ("text", "expected"),
    [pytest.param(*case, id=name) for name, case in {**YAML_CASES, **SCHEMA_CASES, **CROSS_CASES}.items()],
)
def test_each_fault_is_reported_once_with_its_place(text: str | bytes, expected: list[tuple[int, int, str]]) -> None:
    assert faults(text) == expected


def test_all_built_in_types_are_refused() -> None:
    kinds = sorted(BUILTIN_TASK_TYPES)
    assert len(faults(organism(organ(task_types=kinds)))) == len(kinds)


def test_a_type_may_have_one_organ_without_a_domain_and_one_in_each() -> None:
    spec = parse_config(
        organism(
            organ(task_types=["a"], domains={"law": ["a"]}),
            organ(id="two", domains={"art": ["a"]}),
            organ(id="three"),
        )
    )
    assert [o.domains for o in spec.organs] == [{"law": ("a",)}, {"art": ("a",)}, {}]


def test_every_fault_is_reported_at_once_in_order_of_place(module: Any) -> None:
    name = module("def work(task, *, size): ...\n")
    text = f"""\
seedcore:
  organism:
    organ_types:
      - id: a b
        type: Test
        agent: {name}:work
        options: {{sise: 1}}
        agent_count: -1
        replicas: yes
        task_types: [x, canary, 5, X]
      - type: Test
        agent: {name}:wrok
        typ: 1
        agent_count: 1
        min_ready_agents: 2
      - 7
    more: 1
---
"""
    found = faults(text)
    assert [(line, column) for line, column, _ in found] == [
        (4, 13),  # the id
        (6, 16),  # an option is missing
        (7, 19),  # an option is unknown
        (8, 22),  # negative
        (9, 19),  # a boolean
        (10, 25),  # built in
        (10, 33),  # not a string
        (10, 36),  # twice
        (11, 9),  # no id
        (12, 16),  # no such name
        (13, 9),  # unknown key
        (15, 27),  # more than there are
        (16, 9),  # not an organ
        (17, 5),  # unknown key
        (18, 1),  # a second document
    ]
    assert all("\n" not in message for _, _, message in found)


def test_a_fault_behind_an_anchor_is_one_fault() -> None:
    text = f"""\
seedcore:
  organism:
    organ_types:
      - &base
        id: one
        type: Test
        agent: {AGENT}x
        agent_count: &count -1
        task_types: [get_metrics]
      - {{<<: *base, id: two, agent_count: *count}}
      - {{<<: *base, id: three, task_types: []}}
"""
    assert places(text) == [(7, 16), (8, 22), (9, 22)]


def test_what_an_alias_repeats_is_a_fault_where_the_alias_stands() -> None:
    text = HEAD.replace("- id", "- &base\n        id") + "        task_types: [a]\n      - <<: *base\n"
    assert places(text) == [(9, 13), (9, 13)]  # the id and the task type


def test_aliases_of_aliases_do_not_blow_up() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 20)]
    begun = time.process_time()
    found = faults(more("options:\n" + textwrap.indent("\n".join(lines), "  ")))
    assert time.process_time() - begun < 30
    assert "the file has more than 100000 values" in [message for _, _, message in found]


def test_merges_of_merges_do_not_blow_up() -> None:
    lines = ["a0: &a0 {x: 1}"]
    lines += [f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 10)}]}}" for n in range(1, 20)]
    found = faults(more("options:\n" + textwrap.indent("\n".join(lines), "  ")))
    assert "the file has more than 100000 values" in [message for _, _, message in found]


def test_a_chain_of_anchors_is_not_deeper_than_allowed() -> None:
    lines = ["a0: &a0 [x]", *(f"a{n}: &a{n} [*a{n - 1}]" for n in range(1, 2000))]
    found = faults(more("options:\n" + textwrap.indent("\n".join(lines), "  ")))
    assert "nested deeper than 50 levels" in [message for _, _, message in found]
