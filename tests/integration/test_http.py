"""Test the HTTP interface of a real Coordinator against its OpenAPI description, and over TLS."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trustme

from seedcore.status.http_client import request
from tests.conftest import Organism
from tests.support.processes import kill
from tests.support.waiting import eventually

pytestmark = pytest.mark.timeout(600)


# One schema cannot describe the params of every task type, and a very short time limit expires.
_RULES = """
[[operations]]
include-name = "POST /coordinator/tasks"
checks.positive_data_acceptance.expected-statuses = ["2xx", "400", "404", "504"]
checks.not_a_server_error.expected-statuses = ["2xx", "3xx", "4xx", "504"]

[[operations]]
include-name-regex = "POST /coordinator/(rebalance|organs/.*/replace)"
checks.positive_data_acceptance.expected-statuses = ["2xx", "400", "404", "503"]
checks.not_a_server_error.expected-statuses = ["2xx", "3xx", "4xx", "503"]
"""


def test_it_does_what_its_description_says(organism: Organism) -> None:
    # The examples of the description refer to the packaged organism.
    assert organism.run("bootstrap").returncode == 0
    (organism.directory / "schemathesis.toml").write_text(_RULES)
    url, token = organism.settings.http_url, organism.settings.token()

    done = subprocess.run(
        [
            Path(sys.executable).with_name("schemathesis"),
            "run",
            f"{url}/openapi.json",
            "--header",
            f"Authorization: Bearer {token}",
            "--checks=all",
            "--max-examples=25",
            "--seed=1",
            "--generation-database=none",
            "--no-color",
        ],
        cwd=organism.directory,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=500,
        check=False,
    )

    assert done.returncode == 0, done.stdout[-8000:]
    assert organism.probe().healthy


def test_over_tls_everything_that_asks_asks_over_tls(organism: Organism) -> None:
    authority = trustme.CA()
    issued = authority.issue_cert("head.example")
    files = {name: organism.directory / name for name in ("server.pem", "server.key")}
    files["server.pem"].write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
    files["server.key"].write_bytes(issued.private_key_pem.bytes())
    plain = organism.settings
    organism.settings = replace(plain, http_tls_cert=files["server.pem"], http_tls_key=files["server.key"])
    try:
        organism.up({"id": "one", "task_types": ["echo"]})

        assert organism.settings.http_url.startswith("https://")
        status = organism.run("status", "--json")
        assert (status.returncode, json.loads(status.stdout)["healthy"]) == (0, True), status.stderr
        assert organism.submit("echo", {"a": 1})["success"] is True
        assert organism.run("ping").stdout == "pong\n"
        assert organism.run("status", "--wait", "--canary", "--timeout", "60").returncode == 0
        with pytest.raises(OSError, match="certificate verify failed"):
            request(f"{organism.settings.http_url}/livez")
        # A client without TLS settings must see "no answer", never a healthy status.
        assert replace(plain).http_url.startswith("http://")
        organism.settings = plain
        report = organism.probe()
        assert (report.healthy, report.reason) == (False, "not_responding")
    finally:
        organism.settings = replace(plain, http_tls_cert=files["server.pem"], http_tls_key=files["server.key"])


def test_it_tells_what_was_done_lately_and_where(organism: Organism) -> None:
    organism.up({"id": "one", "agent": "helpers:Hostile", "task_types": ["do"]})
    assert organism.submit("do", {"do": "echo"})["success"] is True
    assert organism.submit("do", {"do": "raise"})["success"] is False
    url, token = organism.settings.http_url, organism.settings.token()

    def activity() -> dict[str, Any] | None:
        body: dict[str, Any] = request(f"{url}/coordinator/activity", token=token).body
        return body if sum(body["samples"]["failed_per_s"]) > 0 else None

    lately = eventually(activity, what="an interval with a failure")

    assert (lately["organs"][0]["done"], lately["organs"][0]["failed"]) == (1, 1)
    assert [duration for duration in lately["samples"]["p95_s"] if duration]
    (failure,) = lately["failures"]
    assert (failure["kind"], failure["agent_id"], failure["error"]) == ("task", "one_agent_0", "a plain failure")
    assert organism.told()["nodes"]["names"] == ["head"]


def test_many_tasks_survive_the_death_of_the_coordinator(organism: Organism) -> None:
    organism.up({"id": "one", "task_types": ["echo"], "agent_count": 4})
    path = organism.directory / "tasks.jsonl"
    path.write_text("".join(json.dumps({"type": "echo", "params": {"n": n}}) + "\n" for n in range(3000)))
    batch = organism.start("submit", "--jsonl", str(path), "--in-flight", "8", "--patience", "120")
    assert batch.stdout is not None
    lines = [batch.stdout.readline() for _ in range(100)]

    kill(organism.probe().coordinator["pid"])
    lines += batch.stdout.readlines()
    batch.wait(timeout=60)

    answers = [json.loads(line) for line in lines]
    assert [answer["line"] for answer in answers] == list(range(1, 3001))
    lost = [answer for answer in answers if not answer["success"]]
    # Only what was in flight: after a lost connection a client sends no task before the server has answered.
    assert len(lost) <= 8, lost[:20]
    assert {answer["executed"] for answer in lost} <= {"unknown"}
    assert batch.returncode == (1 if lost else 0)
