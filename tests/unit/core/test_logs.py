"""Test that an event is one line, whatever text it contains."""

from __future__ import annotations

import io
import logging
import subprocess
import sys
from pathlib import Path

import pytest

from seedcore.core import logs
from seedcore.core.errors import TaskError
from seedcore.core.settings import LOG_LEVELS
from seedcore.core.task import Task

EVIL = "1\n2026-01-01 00:00:00 INFO seedcore.coordinator: token accepted\x1b[2J\r\u2028\u00e9"


@pytest.fixture
def stream() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def logger(stream: io.StringIO) -> logging.Logger:
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logs.Formatter("%(levelname)s %(message)s"))
    logger = logging.getLogger("test_logs")
    logger.handlers = [handler]
    logger.propagate = False
    return logger


def test_text_of_callers_makes_no_second_line(logger: logging.Logger, stream: io.StringIO) -> None:
    logger.warning("task failed: id=%s", EVIL)

    (line,) = stream.getvalue().splitlines()
    assert line == (
        r"WARNING task failed: id=1\n2026-01-01 00:00:00 INFO seedcore.coordinator: token accepted\x1b[2J\r\u2028\xe9"
    )


def test_no_line_of_a_traceback_looks_like_an_event(logger: logging.Logger, stream: io.StringIO) -> None:
    logger.error("request failed", exc_info=ValueError(EVIL))

    first, *others = stream.getvalue().splitlines()
    assert first == "ERROR request failed"
    assert "ValueError: 1" in stream.getvalue()
    assert all(line.startswith("    ") for line in others)
    assert "\x1b" not in stream.getvalue()


def test_a_long_message_is_cut(logger: logging.Logger, stream: io.StringIO) -> None:
    logger.warning("x" * 1_000_000)

    assert len(stream.getvalue()) < logs.MAX_CHARS + 100


def test_an_id_is_bounded_like_every_other_name() -> None:
    assert Task.parse({"type": "t", "id": "x" * 200}).id == "x" * 200
    with pytest.raises(TaskError, match=r"'id' is .*200 characters"):
        Task.parse({"type": "t", "id": "x" * 201})


ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("how", ["configure", "protect_default"])
def test_a_process_logs_that_way(how: str) -> None:
    code = f"import logging, seedcore.core.logs as logs; logs.{how}(); logging.getLogger('seedcore.x').error('a\\nb')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)

    assert done.stderr.splitlines()[-1].endswith(r"a\nb")


def test_an_endless_task_that_ends_ends_its_process_and_says_why() -> None:
    code = """
import asyncio
from seedcore.core.watchdog import run_for_ever

async def broken():
    raise KeyError("used")

async def main():
    cancelled = run_for_ever(asyncio.sleep(60), name="other")
    cancelled.cancel()
    await asyncio.sleep(0)
    run_for_ever(broken(), name="beat")
    await asyncio.sleep(60)

asyncio.run(main())
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT, timeout=50
    )

    assert done.returncode == 1
    assert "the task beat has ended" in done.stderr
    assert "KeyError: 'used'" in done.stderr


AGENT = """
import logging
from seedcore.core import logs
logs.configure_library()
logging.basicConfig(format="%(message)s", level="INFO")
logging.getLogger("seedcore.organ.task_queue").debug("ours")
logging.getLogger("users.agent").info("theirs")
logging.getLogger("users.agent").debug("too much")
"""


TALKS = """
import asyncio, logging
from seedcore.core import logs
from seedcore.organ.organ import Organ
from seedcore.core.spec import OrganSpec
from seedcore.core.task import Task

logs.configure_library()
logs.configure_agents()

class Sync:
    def __init__(self, agent_id):
        logging.info("born")
    def execute(self, task):
        logging.getLogger("mine").info("a\\nb")
        logging.debug("too much")

class Async(Sync):
    async def execute(self, task):
        logging.getLogger("mine").warning("awaited")

async def main():
    for kind in ("Sync", "Async"):
        organ = Organ.__new__(Organ)
        await organ.__init__(OrganSpec(id=kind.lower(), type="T", agent=f"__main__:{kind}").to_dict(), 0, "i")
        while not organ.snapshot().ready:
            await asyncio.sleep(0.01)
        await organ.execute(Task(type="t").to_dict(), 10.0)
        await organ.stop()
    logging.basicConfig(format="own: %(message)s")
    logging.info("now")

asyncio.run(main())
"""


def test_what_agents_log_has_the_time_and_their_ids() -> None:
    done = subprocess.run(
        [sys.executable, "-c", TALKS], capture_output=True, text=True, check=True, cwd=ROOT, timeout=50
    )

    assert [line.split(" ", 2)[2] for line in done.stderr.splitlines() if "_agent_0" in line] == [
        "INFO sync_agent_0 root: born",
        r"INFO sync_agent_0 mine: a\nb",
        "INFO async_agent_0 root: born",
        "WARNING async_agent_0 mine: awaited",
    ]
    assert done.stderr.splitlines()[-1] == "own: now"


@pytest.mark.parametrize(
    ("given", "level", "passed_on"),
    [("", "INFO", {}), ("info", "INFO", {}), ("debug", "DEBUG", {"SEEDCORE_LOG_LEVEL": "DEBUG"}), ("loud", "INFO", {})],
)
def test_the_level_is_that_of_the_environment(
    given: str, level: str, passed_on: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEEDCORE_LOG_LEVEL", given)
    assert (logs.level(), logs.inherited()) == (level, passed_on)


def test_an_organ_leaves_the_loggers_of_its_agents_alone() -> None:
    done = subprocess.run(
        [sys.executable, "-c", AGENT],
        env={"SEEDCORE_LOG_LEVEL": "DEBUG"}, capture_output=True, text=True, check=True,
    )  # fmt: skip

    ours, theirs = done.stderr.splitlines()
    assert ours.endswith(" DEBUG seedcore.organ.task_queue: ours")
    assert theirs == "theirs"


def test_the_levels_are_those_of_python() -> None:
    assert set(LOG_LEVELS) < logging.getLevelNamesMapping().keys()
