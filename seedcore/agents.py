"""The agents of the packaged organism: small, useful, and one example of each form of an agent.

- :class:`TextAnalyst`, a class that only executes;
- :class:`PlanExecutor`, a class with the full life cycle;
- :func:`utility`, an async function.

They change nothing on their host, and the same task gets the same answer (except ``node_facts`` of :func:`utility`).
An invalid task raises :class:`BadTaskError`; the caller gets its text.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import platform
import re
import shutil
import socket
import string
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from seedcore.core.task import Task

_WORD = re.compile(r"[^\W\d_]+(?:['\u2019-][^\W\d_]+)*")
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[\"'(\u201c]*[^\W_])|\n\s*\n")
_STOP_WORDS = frozenset(
    """a about after all also an and any are as at be because been before but by can could did do does for from had has
    have he her his how i if in into is it its just may more most no not of on one only or other our out over she so
    some such than that the their them then there these they this those to too up was we were what when where which
    while who why will with would you your""".split()  # noqa: SIM905 - as text it can be read
)
_MIN_WORD_CHARS = 3


class BadTaskError(ValueError):
    """A task's params are invalid, or the task cannot be executed with them."""


class TextAnalyst:
    """Find the topics of a text by counting words, without English stop words.

    Task types:
        ``keywords``: params ``text: str, limit: int = <keyword_limit>``; gives ``words`` (how many the text has) and
        ``keywords``, a list of ``{word, count}``, the most frequent first.

        ``summarize``: params ``text: str, sentences: int = <summary_sentences>``; gives ``summary`` (the sentences
        whose words are the text's most frequent, in their order), ``sentences`` (how many it has) and ``of`` (how
        many the text has).

    Args:
        agent_id: The agent's own id.
        summary_sentences: Sentences of a summary, if the task names no other number.
        keyword_limit: Keywords, if the task names no other number.
    """

    def __init__(self, agent_id: str, *, summary_sentences: int = 3, keyword_limit: int = 10) -> None:
        self.agent_id = agent_id
        self.summary_sentences = summary_sentences
        self.keyword_limit = keyword_limit

    def execute(self, task: Task) -> dict[str, Any]:
        """Execute one task; it is sync, so it runs in a thread of the organ."""
        if task.type == "keywords":
            return self._keywords(_text(task), _count(task, "limit", self.keyword_limit))
        if task.type == "summarize":
            return self._summarize(_text(task), _count(task, "sentences", self.summary_sentences))
        raise BadTaskError(f"TextAnalyst does not know the task type {task.type!r}, it knows keywords and summarize")

    def _keywords(self, text: str, limit: int) -> dict[str, Any]:
        counted = Counter(_content_words(text))
        # Ties in alphabetical order: the same text gives the same answer everywhere.
        ranked = sorted(counted.items(), key=lambda entry: (-entry[1], entry[0]))[:limit]
        return {
            "words": len(_WORD.findall(text)),
            "keywords": [{"word": word, "count": count} for word, count in ranked],
        }

    def _summarize(self, text: str, limit: int) -> dict[str, Any]:
        sentences = [" ".join(part.split()) for part in _SENTENCE_END.split(text) if part.strip()]
        weights = Counter(_content_words(text))

        def score(sentence: str) -> float:
            words = _content_words(sentence)
            # The mean, so that a long sentence does not win by its length alone.
            return sum(weights[word] for word in words) / len(words) if words else 0.0

        best = sorted(range(len(sentences)), key=lambda index: (-score(sentences[index]), index))[:limit]
        return {
            "summary": " ".join(sentences[index] for index in sorted(best)),
            "sentences": len(best),
            "of": len(sentences),
        }


class PlanExecutor:
    """Execute plans: steps that change a state, all of them or none.

    Task types:
        ``execute_plan``: params ``steps: list, state: dict = {}``; gives ``state`` after the last step, ``steps``
        (how many were done) and ``log`` (a line for each). The task's own state is not changed. The steps are
        ``{"op": "set", "key", "value"}``, ``{"op": "add", "key", "value": number}``,
        ``{"op": "append", "key", "value"}``, ``{"op": "delete", "key"}``,
        ``{"op": "render", "key", "template"}`` (fills ``$name`` from the state) and
        ``{"op": "require", "key", "value"}`` (fails unless the state has this value). A failed step fails the plan.

        ``render_template``: params ``template: str, values: dict = {}``; gives ``text``, with every ``$name`` filled.

    Args:
        agent_id: The agent's own id.
        max_steps: Longest plan that is accepted.
    """

    def __init__(self, agent_id: str, *, max_steps: int = 1000) -> None:
        self.agent_id = agent_id
        self.max_steps = max_steps
        self._operations: dict[str, Callable[[dict[str, Any], str, Mapping[str, Any]], str]] = {}

    async def start(self) -> None:
        """Prepare the agent; slow steps (a model, a connection) belong here and not into the constructor."""
        self._operations = {
            "add": _add,
            "append": _append,
            "delete": _delete,
            "render": _render,
            "require": _require,
            "set": _set,
        }

    async def execute(self, task: Task) -> dict[str, Any]:
        """Execute one task."""
        if task.type == "execute_plan":
            return self._execute_plan(task)
        if task.type == "render_template":
            values = task.params.get("values", {})
            return {"text": _fill(_string(task.params, "template"), _mapping("values", values))}
        raise BadTaskError(f"PlanExecutor does not know {task.type!r}, it knows execute_plan and render_template")

    async def check_health(self) -> bool:
        """Return whether the agent is healthy; called every few seconds, and False takes it out of service."""
        return bool(self._operations)

    async def stop(self) -> None:
        """Release the resources of ``start``."""
        self._operations = {}

    def _execute_plan(self, task: Task) -> dict[str, Any]:
        steps = task.params.get("steps")
        if not isinstance(steps, list) or len(steps) > self.max_steps:
            raise BadTaskError(f"params key 'steps' must be a list of at most {self.max_steps} steps")
        state = {
            key: list(value) if isinstance(value, list) else value
            for key, value in _mapping("state", task.params.get("state", {})).items()
        }
        log = []
        for number, step in enumerate(steps, start=1):
            try:
                log.append(self._step(state, step))
            except BadTaskError as error:
                raise BadTaskError(f"step {number}: {error}; no step of the plan was applied") from error
        return {"state": state, "steps": len(steps), "log": log}

    def _step(self, state: dict[str, Any], step: Any) -> str:
        step = _mapping("step", step)
        operation = self._operations.get(str(step.get("op")))
        if operation is None:
            raise BadTaskError(f"'op' is {step.get('op')!r}, expected one of: {', '.join(self._operations)}")
        return operation(state, _string(step, "key"), step)


async def utility(task: Task, *, max_sleep_s: float = 60.0, max_echo_chars: int = 100_000) -> dict[str, Any]:
    """Report facts about the node and do small chores; a single function can be an agent.

    Task types:
        ``echo``: any params; gives them back.

        ``checksum``: params ``text: str, algorithm: str = "sha256"``; gives ``algorithm, hexdigest, bytes``
        of the text in UTF-8.

        ``node_facts``: no params; gives ``host, pid, python, system, cpus, load_1m, disk_total_bytes`` and
        ``disk_free_bytes`` (of the file system of ``/``) of the node that did the task.

        ``sleep``: params ``seconds: float``; gives ``slept_s``; for trying out a slow task.

    Args:
        task: What to do.
        max_sleep_s: Longest sleep that is accepted.
        max_echo_chars: Largest echo that is accepted, as text.
    """
    if task.type == "echo":
        if len(repr(task.params)) > max_echo_chars:
            raise BadTaskError(f"echo accepts at most {max_echo_chars} characters")
        return dict(task.params)
    if task.type == "checksum":
        return await asyncio.to_thread(_checksum, _text(task), task.params.get("algorithm", "sha256"))
    if task.type == "node_facts":
        return await asyncio.to_thread(_node_facts)
    if task.type == "sleep":
        seconds = task.params.get("seconds")
        if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 <= seconds <= max_sleep_s:
            raise BadTaskError(f"params key 'seconds' must be a number from 0 to {max_sleep_s:g}")
        await asyncio.sleep(seconds)
        return {"slept_s": seconds}
    raise BadTaskError(f"utility does not know {task.type!r}, it knows echo, checksum, node_facts and sleep")


def _content_words(text: str) -> list[str]:
    words = (word.lower().replace("\u2019", "'") for word in _WORD.findall(text))
    return [word for word in words if len(word) >= _MIN_WORD_CHARS and not _is_filler(word)]


def _is_filler(word: str) -> bool:
    # Treat "it's" and "they'll" like the stop words "it" and "they".
    return word.partition("'")[0] in _STOP_WORDS or word.endswith("n't")


def _text(task: Task) -> str:
    return _string(task.params, "text")


def _string(params: Mapping[str, Any], key: str) -> str:
    value = params.get(key)
    if not isinstance(value, str):
        raise BadTaskError(f"params key {key!r} must be a string, got {type(value).__name__}")
    return value


def _mapping(name: str, value: Any) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise BadTaskError(f"{name!r} must be a mapping, got {type(value).__name__}")
    return value


def _count(task: Task, key: str, default: int) -> int:
    value = task.params.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise BadTaskError(f"params key {key!r} must be an integer of 1 or more")
    return value


def _fill(template: str, values: Mapping[str, Any]) -> str:
    try:
        return string.Template(template).substitute(values)
    except KeyError as error:
        raise BadTaskError(f"the template uses {error.args[0]!r}, which has no value") from error
    except ValueError as error:
        raise BadTaskError(f"the template is not well-formed: {error} ($$ stands for a dollar sign)") from error


def _set(state: dict[str, Any], key: str, step: Mapping[str, Any]) -> str:
    if "value" not in step:
        raise BadTaskError("'set' requires a 'value'")
    state[key] = step["value"]
    return f"set {key}"


def _add(state: dict[str, Any], key: str, step: Mapping[str, Any]) -> str:
    old, new = state.get(key, 0), step.get("value")
    for value in (old, new):
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise BadTaskError(f"'add' requires numbers, {key} has {old!r} and 'value' is {new!r}")
    state[key] = old + new
    return f"added {new} to {key}"


def _append(state: dict[str, Any], key: str, step: Mapping[str, Any]) -> str:
    if "value" not in step:
        raise BadTaskError("'append' requires a 'value'")
    if not isinstance(state.setdefault(key, []), list):
        raise BadTaskError(f"'append' requires a list, {key} is a {type(state[key]).__name__}")
    state[key] = [*state[key], step["value"]]
    return f"appended to {key}"


def _delete(state: dict[str, Any], key: str, _: Mapping[str, Any]) -> str:
    if key not in state:
        raise BadTaskError(f"there is no {key!r} to delete")
    del state[key]
    return f"deleted {key}"


def _render(state: dict[str, Any], key: str, step: Mapping[str, Any]) -> str:
    state[key] = _fill(_string(step, "template"), state)
    return f"rendered {key}"


def _require(state: dict[str, Any], key: str, step: Mapping[str, Any]) -> str:
    if state.get(key) != step.get("value"):
        raise BadTaskError(f"{key} is {state.get(key)!r}, expected {step.get('value')!r}")
    return f"found {key} as required"


def _checksum(text: str, algorithm: Any) -> dict[str, Any]:
    # Exclude the shake functions, whose digests have no fixed length.
    allowed = sorted(name for name in hashlib.algorithms_guaranteed if not name.startswith("shake"))
    if algorithm not in allowed:
        raise BadTaskError(f"params key 'algorithm' is {algorithm!r}, expected one of: {', '.join(allowed)}")
    data = text.encode()
    digest = hashlib.new(algorithm, data, usedforsecurity=False).hexdigest()
    return {"algorithm": algorithm, "hexdigest": digest, "bytes": len(data)}


def _node_facts() -> dict[str, Any]:
    disk = shutil.disk_usage("/")
    return {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "python": platform.python_version(),
        "system": platform.platform(),
        "cpus": os.cpu_count(),
        "load_1m": round(os.getloadavg()[0], 2),
        "disk_total_bytes": disk.total,
        "disk_free_bytes": disk.free,
    }
