from __future__ import annotations

import os
import pwd
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.ansible.plugins.conftest import FAILED, HEALTHY

evidence: Any = pytest.importorskip("ansible_collections.seedcore.cluster.plugins.plugin_utils.evidence")

Run = Callable[..., dict[str, Any]]


def test_the_ends_of_files_and_outputs_are_returned_in_order(tmp_path: Path, run: Run) -> None:
    (tmp_path / "a.log").write_text("".join(f"line {number}\n" for number in range(100)))
    result = run(
        "seedcore_evidence",
        commands=[["sh", "-c", "echo out; echo err >&2; exit 7"]],
        files=[str(tmp_path / "a.log")],
        lines=2,
    )
    command, file = result["sections"]
    assert command["text"] == "out\nerr\n(exit code 7)"
    assert (file["title"], file["text"]) == (str(tmp_path / "a.log"), "line 98\nline 99")
    assert result["changed"] is False


def test_nothing_that_is_missing_or_broken_fails_it(tmp_path: Path, run: Run) -> None:
    result = run(
        "seedcore_evidence",
        commands=[["/no/such/command"], ["sleep", "300"]],
        files=[str(tmp_path / "none.log"), str(tmp_path / "*.err")],
        secrets=[str(tmp_path / "none")],
        timeout=1,
    )
    missing, hanging, file = (section["text"] for section in result["sections"])
    assert "No such file or directory" in missing
    assert hanging == "(killed after 1 s)"
    assert file == "(there is no such file, or it cannot be read)"


def test_of_many_files_the_newest_are_taken_and_none_twice(tmp_path: Path, run: Run) -> None:
    for number in range(5):
        path = tmp_path / f"worker-{number}.err"
        path.write_text(f"{number}\n")
        os.utime(path, (number, number))
    (tmp_path / "worker-9.err").touch()
    files = [str(tmp_path / "worker-4*"), str(tmp_path / "worker-*.err")]
    result = run("seedcore_evidence", files=files, newest=2)
    assert [section["text"] for section in result["sections"]] == ["4", "3"]


def test_secrets_are_taken_out(tmp_path: Path, run: Run) -> None:
    (tmp_path / "token").write_text("s3cr3t-t0k3n\n")
    (tmp_path / "a.log").write_text("got s3cr3t-t0k3n\nAuthorization: Bearer another\n")
    result = run(
        "seedcore_evidence",
        commands=[["echo", "token=s3cr3t-t0k3n"]],
        files=[str(tmp_path / "a.log")],
        secrets=[str(tmp_path / "token")],
    )
    said = "\n".join(section["text"] for section in result["sections"])
    assert "s3cr3t-t0k3n" not in said
    assert "another" not in said
    assert said.count("********") == 3


def test_root_reads_no_more_than_the_user_whose_files_they_are(common_place: Path, run: Run) -> None:
    nobody = pwd.getpwnam("nobody")
    (common_place / "shadow").write_text("root:hash")
    (common_place / "shadow").chmod(0o600)
    logs, own = common_place / "logs", common_place / "log"
    logs.mkdir()
    own.mkdir(mode=0o700)
    (own / "ray.log").write_text("said by supervisord")
    (own / "ray.log").chmod(0o600)
    (logs / "worker-1.err").write_text("said by a worker")
    (logs / "worker-2.err").symlink_to(common_place / "shadow")
    os.mkfifo(logs / "worker-3.err")
    for path in (logs, *logs.iterdir()):
        os.lchown(path, nobody.pw_uid, nobody.pw_gid)
    latest = common_place / "latest"
    latest.symlink_to(logs)
    os.lchown(latest, nobody.pw_uid, nobody.pw_gid)

    files = [
        f"{own}/*.log",
        f"{logs}/worker-*.err",
        f"{logs}/worker-2.err",
        f"{logs}/worker-3.err",
        f"{latest}/worker-2.err",
    ]
    sections = {row["title"]: row["text"] for row in run("seedcore_evidence", files=files, user="nobody")["sections"]}

    assert sections[f"{own}/ray.log"] == "said by supervisord"
    assert sections[f"{logs}/worker-1.err"] == "said by a worker"
    assert "hash" not in str(sections)
    assert sections[f"{logs}/worker-2.err"] == "(there is no such file, or it cannot be read)"


def test_the_file_has_everything_and_no_colours() -> None:
    sections = [{"title": "a.log", "text": "\x1b[36mray\x1b[39m\nlast"}]
    text = evidence.whole({**FAILED, "cause": "Traceback: other"}, sections, host="head")
    assert text.startswith("init_failed: agent a_agent_0 did not start: no such file\nhost: head\n")
    for part in ("Traceback: no such file", "Traceback: other", '"pid": 42', "==> a.log\nray\nlast"):
        assert part in text


def test_the_screen_has_the_essence_and_the_cause_last() -> None:
    story = "\n".join(f"line {number}" for number in range(100))
    again = f"{story}\n\nDuring handling of the above exception, another exception occurred:\n\nonce more"
    report = {**FAILED, "evidence": {"traceback": again}, "cause": again}
    sections = [{"title": "a.log", "text": "1\n\n2\n3\n4\n5\n6\n7\n8"}, {"title": "b.log", "text": "3\n4\n5\n6\n7\n8"}]
    text = evidence.essence(report, sections, host="head", path="/x/evidence.txt")
    assert text.endswith("init_failed: agent a_agent_0 did not start: no such file")
    assert "line 0\n" in text
    assert "\nline 99\n" in text
    assert "... 70 lines more ..." in text
    assert text.count("==> ") == 2, "the same text is not shown twice"
    assert "==> a.log\n3\n4\n5\n6\n7\n8\n" in text
    for absent in ("once more", "line 50", "\n1\n"):
        assert absent not in text
    assert "/x/evidence.txt" in text


def test_a_report_without_a_traceback_can_be_shown_too() -> None:
    assert "==>" not in evidence.essence(HEALTHY, [], host="head", path="/x")
