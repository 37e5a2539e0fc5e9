from __future__ import annotations

import asyncio
import hashlib
import inspect
import json
import os
import re
import shlex
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seedcore.agents import BadTaskError, PlanExecutor, TextAnalyst, utility
from seedcore.config.agent_import import load_agent
from seedcore.config.organism_file import PACKAGED_CONFIG, load_config
from seedcore.core.task import Task, is_plain
from seedcore.dispatch.routing import RoutingTable

TEXT = """\
Ray runs actors on many nodes. An actor keeps its state between two calls. It was a nice day.

When a node dies, Ray restarts the actors of the node on other nodes! Is lunch ready?
"""


def think(kind: str, **params: Any) -> dict[str, Any]:
    return TextAnalyst("a").execute(Task(type=kind, params=params))


async def act(kind: str, **params: Any) -> dict[str, Any]:
    agent = PlanExecutor("a", max_steps=10)
    await agent.start()
    return await agent.execute(Task(type=kind, params=params))


def test_keywords_are_the_most_frequent_words_that_say_something() -> None:
    assert think("keywords", text=TEXT, limit=4) == {
        "words": 36,
        "keywords": [
            {"word": "actors", "count": 2},
            {"word": "node", "count": 2},
            {"word": "nodes", "count": 2},
            {"word": "ray", "count": 2},
        ],
    }


def test_keywords_of_other_languages_are_whole_words() -> None:
    text = "Gr\u00fc\u00dfe aus K\u00f6ln, Gr\u00fc\u00dfe! \u041f\u0440\u0438\u0432\u0435\u0442 x1 it's can\u2019t"
    found = think("keywords", text=text)
    assert [entry["word"] for entry in found["keywords"]] == [
        "gr\u00fc\u00dfe",
        "aus",
        "k\u00f6ln",
        "\u043f\u0440\u0438\u0432\u0435\u0442",
    ]


def test_a_summary_is_the_weightiest_sentences_in_their_order() -> None:
    assert think("summarize", text=TEXT, sentences=2) == {
        "summary": "Ray runs actors on many nodes. "
        "When a node dies, Ray restarts the actors of the node on other nodes!",
        "sentences": 2,
        "of": 5,
    }


def test_the_options_are_the_defaults_of_a_task() -> None:
    agent = TextAnalyst("a", summary_sentences=1, keyword_limit=2)
    assert agent.execute(Task(type="summarize", params={"text": TEXT}))["sentences"] == 1
    assert len(agent.execute(Task(type="keywords", params={"text": TEXT}))["keywords"]) == 2


def test_a_text_without_words_has_nothing_to_say() -> None:
    assert think("keywords", text="...") == {"words": 0, "keywords": []}
    assert think("summarize", text="") == {"summary": "", "sentences": 0, "of": 0}


@given(st.text())
def test_any_text_can_be_read(text: str) -> None:
    summary = think("summarize", text=text, sentences=2)
    assert summary["sentences"] <= min(2, summary["of"])
    assert think("keywords", text=text)["words"] >= len(think("keywords", text=text)["keywords"])


def test_a_long_text_is_read_in_reasonable_time() -> None:
    begun = time.process_time()
    think("summarize", text="A sentence about actors and nodes, and more. " * 20_000)
    think("keywords", text="word" * 250_000 + "'" * 250_000)
    think("summarize", text="\n" * 300_000 + ". " * 300_000)
    assert time.process_time() - begun < 20


async def test_a_plan_changes_a_state_step_by_step() -> None:
    state = {"replicas": 2, "name": "web", "hosts": ["a"]}
    steps = [
        {"op": "require", "key": "replicas", "value": 2},
        {"op": "add", "key": "replicas", "value": 1},
        {"op": "append", "key": "hosts", "value": "b"},
        {"op": "set", "key": "on", "value": True},
        {"op": "render", "key": "title", "template": "$name x $replicas"},
        {"op": "delete", "key": "name"},
    ]
    answer = await act("execute_plan", state=state, steps=steps)
    assert answer == {
        "state": {"replicas": 3, "hosts": ["a", "b"], "on": True, "title": "web x 3"},
        "steps": 6,
        "log": [
            "found replicas as required",
            "added 1 to replicas",
            "appended to hosts",
            "set on",
            "rendered title",
            "deleted name",
        ],
    }
    assert state == {"replicas": 2, "name": "web", "hosts": ["a"]}, "the task's own state was changed"


async def test_an_empty_plan_does_nothing() -> None:
    assert await act("execute_plan", steps=[]) == {"state": {}, "steps": 0, "log": []}


@pytest.mark.parametrize(
    ("step", "problem"),
    [
        (5, "'step' must be a mapping, got int"),
        ({"op": "shell"}, "'op' is 'shell', expected one of: add, append, delete, render, require, set"),
        ({"op": ["set"], "key": "a"}, "'op' is ['set'], expected one of: add, append, delete, render, require, set"),
        ({"op": "set", "value": 1}, "params key 'key' must be a string, got NoneType"),
        ({"op": "set", "key": "a"}, "'set' requires a 'value'"),
        ({"op": "append", "key": "a"}, "'append' requires a 'value'"),
        ({"op": "append", "key": "n", "value": 1}, "'append' requires a list, n is a int"),
        ({"op": "add", "key": "n", "value": "1"}, "'add' requires numbers, n has 1 and 'value' is '1'"),
        ({"op": "add", "key": "n", "value": True}, "'add' requires numbers, n has 1 and 'value' is True"),
        ({"op": "delete", "key": "x"}, "there is no 'x' to delete"),
        ({"op": "require", "key": "n", "value": 2}, "n is 1, expected 2"),
        ({"op": "render", "key": "t", "template": "$x"}, "the template uses 'x', which has no value"),
    ],
)
async def test_a_step_that_fails_fails_the_whole_plan(step: Any, problem: str) -> None:
    with pytest.raises(BadTaskError) as caught:
        await act("execute_plan", state={"n": 1}, steps=[{"op": "set", "key": "a", "value": 1}, step])
    assert str(caught.value) == f"step 2: {problem}; no step of the plan was applied"


@pytest.mark.parametrize("steps", [None, {}, [{}] * 11])
async def test_a_plan_that_is_none_or_too_long_is_refused(steps: Any) -> None:
    with pytest.raises(BadTaskError, match="must be a list of at most 10 steps"):
        await act("execute_plan", steps=steps)


async def test_a_template_is_filled() -> None:
    values = {"name": "Ada", "n": 3}
    assert await act("render_template", template="Hello $name, ${n}$$", values=values) == {"text": "Hello Ada, 3$"}
    with pytest.raises(BadTaskError, match="the template uses 'name', which has no value"):
        await act("render_template", template="$name")
    with pytest.raises(BadTaskError, match="is not well-formed: Invalid placeholder"):
        await act("render_template", template="5 $ each")


async def test_an_executor_is_healthy_while_it_is_started() -> None:
    agent = PlanExecutor("a")
    assert await agent.check_health() is False
    await agent.start()
    assert await agent.check_health() is True
    await agent.stop()
    assert await agent.check_health() is False


async def test_echo_gives_back_what_it_got() -> None:
    params = {"a": [1, {"b": None}]}
    assert await utility(Task(type="echo", params=params)) == params
    with pytest.raises(BadTaskError, match="at most 10 characters"):
        await utility(Task(type="echo", params={"a": "x" * 20}), max_echo_chars=10)


@pytest.mark.parametrize("algorithm", ["sha256", "md5", "blake2b"])
async def test_a_checksum_is_that_of_the_text(algorithm: str) -> None:
    answer = await utility(Task(type="checksum", params={"text": "\u00e9", "algorithm": algorithm}))
    assert answer == {"algorithm": algorithm, "hexdigest": hashlib.new(algorithm, b"\xc3\xa9").hexdigest(), "bytes": 2}


@pytest.mark.parametrize("algorithm", ["nope", "shake_128", None, ["sha256"]])
async def test_another_algorithm_is_refused(algorithm: Any) -> None:
    with pytest.raises(BadTaskError, match=r"params key 'algorithm' is .*, expected one of: blake2b, .*sha256"):
        await utility(Task(type="checksum", params={"text": "", "algorithm": algorithm}))


async def test_node_facts_are_those_of_this_node() -> None:
    facts = await utility(Task(type="node_facts"))
    assert facts["pid"] == os.getpid()
    assert facts["cpus"] == os.cpu_count()
    assert 0 < facts["disk_free_bytes"] <= facts["disk_total_bytes"]
    assert is_plain(facts)


async def test_a_sleep_takes_its_time_and_leaves_the_loop_free() -> None:
    begun = time.monotonic()
    sleeps = (utility(Task(type="sleep", params={"seconds": 0.2})) for _ in range(50))
    assert await asyncio.gather(*sleeps) == [{"slept_s": 0.2}] * 50
    assert 0.2 <= time.monotonic() - begun < 5


@pytest.mark.parametrize("seconds", [None, True, "1", -1, 61, float("nan")])
async def test_a_sleep_that_is_none_or_too_long_is_refused(seconds: Any) -> None:
    with pytest.raises(BadTaskError, match="must be a number from 0 to 60"):
        await utility(Task(type="sleep", params={"seconds": seconds}))


@pytest.mark.parametrize(
    ("kind", "params", "problem"),
    [
        ("keywords", {}, "params key 'text' must be a string, got NoneType"),
        ("summarize", {"text": 5}, "params key 'text' must be a string, got int"),
        ("keywords", {"text": "a", "limit": 0}, "params key 'limit' must be an integer of 1 or more"),
        ("summarize", {"text": "a", "sentences": True}, "params key 'sentences' must be an integer of 1 or more"),
        ("think", {}, "TextAnalyst does not know the task type 'think', it knows keywords and summarize"),
    ],
)
def test_params_of_another_shape_are_refused_with_the_reason(kind: str, params: dict[str, Any], problem: str) -> None:
    with pytest.raises(BadTaskError) as caught:
        think(kind, **params)
    assert str(caught.value) == problem


async def test_a_type_that_no_agent_knows_is_refused() -> None:
    with pytest.raises(BadTaskError, match="it knows execute_plan and render_template"):
        await act("other")
    with pytest.raises(BadTaskError, match="it knows echo, checksum, node_facts and sleep"):
        await utility(Task(type="other"))


async def run_packaged(kind: str, params: dict[str, Any]) -> Any:
    """Execute a task like the packaged organism, without Ray."""
    spec = load_config(None)
    organs = {organ.id: organ for organ in spec.organs}
    organ = organs[RoutingTable(spec.organs).route(kind, None)]
    target: Any = load_agent(organ.agent)
    task = Task(type=kind, params=params)
    if inspect.iscoroutinefunction(target):
        return await target(task, **organ.options)
    agent = target(organ.agent_ids()[0], **organ.options)
    if hasattr(agent, "start"):
        await agent.start()
    result = agent.execute(task)
    return await result if inspect.isawaitable(result) else result


@pytest.mark.parametrize(
    "command",
    re.findall(r"# Try: +seedcore submit (.*)", PACKAGED_CONFIG.read_text()),
    ids=lambda text: text.split()[0],
)
async def test_the_commands_in_the_packaged_file_work(command: str) -> None:
    kind, *arguments = shlex.split(command)
    params = json.loads(arguments[1]) if arguments else {}
    assert is_plain(await run_packaged(kind, params))


def test_every_type_of_the_packaged_file_is_known_to_its_agent() -> None:
    for organ in load_config(None).organs:
        documentation = inspect.getdoc(load_agent(organ.agent))
        assert documentation is not None
        for kind in organ.task_types:
            assert f"``{kind}``" in documentation
