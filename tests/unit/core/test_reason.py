from __future__ import annotations

import pickle

import pytest

from seedcore.core.errors import ClusterError
from seedcore.core.reason import ExitCode, Reason, Status
from seedcore.status.report import report_of


@pytest.mark.parametrize("reason", Reason)
def test_a_report_says_all_that_its_reason_means_in_plain_words(reason: Reason) -> None:
    report = report_of(reason, "text").to_dict()

    assert report["status"] == reason.status
    assert {type(report[key]) for key in ("status", "reason", "remedy", "help")} == {str}
    assert (report["remedy"] == "") == (reason is Reason.READY) == (report["help"] == "")
    assert report["terminal"] is reason.terminal
    if reason.status is Status.UNHEALTHY:
        assert report["exit_code"] == reason.exit_code != ExitCode.OK
    if reason.status is Status.INITIALIZING:
        assert report["exit_code"] == ExitCode.INITIALIZING == reason.exit_code


def test_a_reason_of_a_newer_release_is_told_as_it_is() -> None:
    report = report_of("out_of_coffee", "text").to_dict()

    assert (report["reason"], report["help"]) == ("out_of_coffee", "docs/status.md#out_of_coffee")
    assert (report["status"], report["exit_code"], report["terminal"]) == (Status.UNHEALTHY, ExitCode.FAILED, False)


def test_an_error_carries_plain_words_to_other_processes() -> None:
    error = pickle.loads(pickle.dumps(ClusterError(Reason.ABSENT, "there is none")))

    assert (error.reason, type(error.reason), str(error)) == ("absent", str, "there is none")
    assert b"Reason" not in pickle.dumps(error)
