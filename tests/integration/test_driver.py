"""Test the driver of the tests: a question that hangs, fails, or kills the process affects no other question."""

from __future__ import annotations

import os

import pytest

from tests.conftest import Organism

WHO = "say([os.getpid(), os.environ['RAY_NAMESPACE'], ray.get_runtime_context().namespace, os.getcwd()])"


def test_one_process_answers_until_a_question_spoils_it(organism: Organism) -> None:
    pid, *where = organism.drive(WHO)
    assert where == [organism.settings.namespace, organism.settings.namespace, str(organism.directory)]
    assert organism.drive("print('not an answer'); os.environ['SEEDCORE_OF_A_QUESTION'] = '1'; say(os.getpid())") == pid
    assert organism.drive("say([os.getpid(), os.environ.get('SEEDCORE_OF_A_QUESTION')])") == [pid, None]

    with pytest.raises(AssertionError, match="ZeroDivisionError"):
        organism.drive("1 / 0")
    after_error = organism.drive(WHO)[0]
    with pytest.raises(AssertionError, match="the driver did not answer in time"):
        organism.drive("time.sleep(600)", timeout_s=1)
    after_hang = organism.drive(WHO)[0]
    with pytest.raises(AssertionError, match="the driver process exited"):
        organism.drive("os._exit(3)")
    after_exit = organism.drive(WHO)[0]

    assert len({pid, after_error, after_hang, after_exit}) == 4
    for old in (pid, after_error, after_hang, after_exit):
        if old != after_exit:
            with pytest.raises(ProcessLookupError):
                os.kill(old, 0)
