"""Check that agents can be imported and fit their options, in the Python in which they will run.

That is this process, or the Python of an environment that an organ names: ``python -P -m seedcore.config.agent_check``
reads the agents as JSON from stdin, and prints their problems as JSON.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from seedcore.config.agent_import import ALLOWED_PATH, Problem, agent_problems, load_agent
from seedcore.core.errors import AgentStartError
from seedcore.core.task import describe

# Importing a large framework for the first time takes this long on a slow disk.
TIMEOUT_S = 120.0
# An agent's import path, and its options; None if these are wrong by themselves.
Asked = tuple[str, Mapping[str, Any] | None]


class CheckError(Exception):
    """An environment could not check its agents; the text tells why."""


def check(asked: Sequence[Asked]) -> list[list[Problem]]:
    """Import each agent in this process and return its problems; what the agents print goes to stderr."""
    loaded: dict[str, object] = {}
    found = []
    with contextlib.redirect_stdout(sys.stderr):
        for path, options in asked:
            if path not in loaded:
                try:
                    loaded[path] = load_agent(path)
                except AgentStartError as error:
                    loaded[path] = error
            found.append(_problems(path, loaded[path], options))
    return found


def check_in(python: str, asked: Sequence[Asked]) -> list[list[Problem]]:
    """Do the same in a process of another Python that has this library.

    Raises:
        CheckError: The process could not be started, ended early, or did not end in time.
    """
    # Only the names of options are checked.
    question = json.dumps([[path, None if options is None else list(map(str, options))] for path, options in asked])
    argv = [python, "-P", "-m", __name__]
    try:
        done = subprocess.run(  # noqa: S603 - the interpreter of a deployed layer
            argv, input=question, stdout=subprocess.PIPE, text=True, timeout=TIMEOUT_S, check=False
        )
    except OSError as error:
        raise CheckError(f"{python} cannot be run: {error.strerror}") from error
    except subprocess.TimeoutExpired:
        raise CheckError(f"its agents were not imported within {TIMEOUT_S:g} s") from None
    try:
        return [[Problem(*problem) for problem in problems] for problems in json.loads(done.stdout)]
    except (ValueError, TypeError):
        raise CheckError(f"the import of its agents ended the process with exit code {done.returncode}") from None


def _problems(path: str, agent: object, options: Mapping[str, Any] | None) -> list[Problem]:
    if isinstance(agent, AgentStartError):
        return [Problem(_line(f"agent {path!r} cannot be loaded: {agent}, expected {ALLOWED_PATH}"))]
    try:
        problems = agent_problems(agent, options)
    except Exception as error:
        # Inspecting a class runs its metaclass, which is user code.
        problems = [Problem(f"it cannot be inspected: {type(error).__name__}: {describe(error)}")]
    return [Problem(_line(f"agent {path!r}: {problem.text}"), problem.option) for problem in problems]


def _line(text: str) -> str:
    return " ".join(part.strip() for part in text.splitlines())


def main() -> None:
    """Answer one question."""
    # What an extension or a child process prints must not get into the answer.
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as answer:
        os.dup2(2, 1)
        asked = [(path, None if names is None else dict.fromkeys(names)) for path, names in json.load(sys.stdin)]
        json.dump([[[one.text, one.option] for one in problems] for problems in check(asked)], answer)


if __name__ == "__main__":
    main()
