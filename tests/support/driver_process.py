"""Run the process of a :class:`tests.support.driver.Driver`: join Ray and execute the code of each question.

The process reads each question as a JSON line from standard input and writes a JSON line to standard output. It joins
Ray again only for a question about another namespace. It ends with the session that started it.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import queue
import threading
import time
import traceback
from typing import Any

import ray


def main() -> None:
    """Answer questions until standard input ends."""
    # The output and the child processes of a question must not touch the two pipes.
    questions, answers = os.fdopen(os.dup(0)), os.fdopen(os.dup(1), "w")
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.dup2(2, 1)
    waiting: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()

    def read() -> None:
        for line in questions:
            waiting.put(json.loads(line))
        # The session has ended; a stuck question must not keep this process alive.
        os._exit(0)

    threading.Thread(target=read, daemon=True).start()
    joined = ""
    while True:
        question = waiting.get()
        try:
            for name in [name for name in os.environ if name.startswith("SEEDCORE_")]:
                del os.environ[name]
            os.environ.update(question["env"])
            os.chdir(question["directory"])
            namespace = os.environ["RAY_NAMESPACE"]
            if joined != namespace:
                ray.shutdown()
                ray.init(namespace=namespace, logging_level=logging.ERROR, log_to_driver=False)
                joined = namespace
            answer = {"said": _run(question["code"])}
        except BaseException:
            answer = {"error": traceback.format_exc()}
        answers.write(json.dumps(answer, default=repr) + "\n")
        answers.flush()


def _run(code: str) -> Any:
    said: list[Any] = []
    # Ray pickles classes of __main__ by value, but those of other modules by name only.
    names = {"__name__": "__main__", "json": json, "os": os, "ray": ray, "say": said.append, "time": time}
    with contextlib.ExitStack() as ending:
        exec(compile(code, "<question>", "exec"), {**names, "ending": ending})
    return said[-1]
