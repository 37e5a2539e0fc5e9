"""The playbooks of an operator, on the deployment that the tests before have hurt and that has healed."""

from __future__ import annotations

import json
import re
import stat
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.deploy.conftest import Deployment

pytestmark = pytest.mark.timeout(2400)

# Where Ansible puts the parts of a backup.
PARTS = Path(tempfile.gettempdir())
# Prints the status codes of some URLs as JSON, asked with the token in the standard input.
ASK = """
import json, sys, urllib.error, urllib.request
token, codes = sys.stdin.read(), []
for url in sys.argv[1:]:
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"})
    try:
        codes.append(urllib.request.urlopen(request, timeout=30).status)
    except urllib.error.HTTPError as error:
        codes.append(error.code)
print(json.dumps(codes))
"""
# Sends tasks until a file appears, half of them durable, then prints the answers as JSON.
LOAD = """
import json, pathlib, sys, threading
from seedcore import Client
answers = []
def send(durable):
    with Client(transport="http") as client:
        while not pathlib.Path(sys.argv[1]).exists():
            task = {"type": "sleep", "params": {"seconds": 0.3}}
            answers.append({**client.submit(task, timeout_s=180, durable=durable), "durable": durable})
threads = [threading.Thread(target=send, args=[durable]) for durable in (True, False, True, False)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
print(json.dumps(answers))
"""


def raylets(deployment: Deployment) -> set[int]:
    """Return the processes of Ray's nodes."""
    return {pid for pid, name in deployment.processes().items() if name == "raylet"}


@contextmanager
def under_load(deployment: Deployment) -> Iterator[None]:
    """Send tasks over HTTP from four threads, each after the answer to the one before; require that all succeed."""
    end = deployment.directory / "enough"
    end.unlink(missing_ok=True)
    command = [*deployment.wrapper, str(deployment.prefix / "bin" / "python"), "-c", LOAD, str(end)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        yield
    finally:
        end.touch()
        answers = json.loads(process.communicate(timeout=300)[0])
    assert len(answers) > 20
    assert [answer for answer in answers if answer["success"] is not True] == []


def codes(deployment: Deployment, token: str) -> list[int]:
    """Return what the Coordinator and Ray's dashboard answer to a token."""
    urls = [
        f"http://127.0.0.1:{deployment.variables['seedcore_http_port']}/coordinator/status",
        f"http://127.0.0.1:{deployment.variables['ray_dashboard_port']}/api/v0/nodes",
    ]
    done = run_inside(deployment, sys.executable, "-c", ASK, *urls, given=token)
    answer: list[int] = json.loads(done)
    return answer


def run_inside(deployment: Deployment, *command: str, given: str) -> str:
    """Run a command on the network of the deployment; return its output."""
    return subprocess.run(
        [*deployment.wrapper, *command], input=given, capture_output=True, text=True, check=True, timeout=120
    ).stdout


def test_a_doctor_names_what_differs_and_changes_nothing(deployed: Deployment) -> None:
    token = deployed.prefix / "etc" / "token"
    token.chmod(0o644)
    try:
        ill = deployed.run("doctor")
    finally:
        assert token.stat().st_mode & 0o777 == 0o644
        token.chmod(0o600)
    assert ill.returncode != 0
    assert "etc/token: mode 0644, wanted 0600" in ill.output
    assert "Coordinator: healthy, 3 of 3 organs ready" in ill.output

    well = deployed.run("doctor").check()

    assert well.recap["changed"] == 0
    assert "No file, account or service differs from the last green run." in well.output


def test_the_prediction_of_a_rotation_changes_nothing(deployed: Deployment) -> None:
    token = (deployed.prefix / "etc" / "token").read_text()
    before = deployed.files("etc")

    predicted = deployed.run("rotate_token", "--check").check()

    tasks = [task.rpartition(" : ")[2] for task in predicted.changed_tasks]
    assert "Make the next token on the head" in tasks
    assert any(task.endswith("seedcore-ray") for task in tasks), "Ray would be restarted"
    assert deployed.files("etc") == before
    assert codes(deployed, token) == [200, 200]


def test_after_a_rotation_the_old_token_opens_nothing_and_nobody_had_to_know_the_new_one(deployed: Deployment) -> None:
    old = (deployed.prefix / "etc" / "token").read_text()

    with under_load(deployed):
        run = deployed.run("rotate_token").check()

    new = (deployed.prefix / "etc" / "token").read_text()
    assert new != old
    assert old not in run.output
    assert new not in run.output
    assert "The new token is in force on 1 node;" in run.output
    assert re.search(r"The organism was away for at most \d+ s", run.output)
    refused, accepted = codes(deployed, old), codes(deployed, new)
    assert set(refused) <= {401, 403}
    assert accepted == [200, 200]
    assert deployed.seedcore("status").returncode == 0
    assert deployed.seedcore("submit", "echo", "--params", '{"text": "hi"}').returncode == 0


def test_a_run_after_a_rotation_changes_nothing(deployed: Deployment) -> None:
    run = deployed.run("deploy").check()

    assert run.recap["changed"] == 0


def test_a_rotation_to_the_token_in_force_changes_nothing(deployed: Deployment) -> None:
    token = (deployed.prefix / "etc" / "token").read_text()

    run = deployed.run("rotate_token", ray_auth_token=token)

    assert run.returncode != 0
    assert "ray_auth_token is the token that is in force, nothing was changed" in " ".join(run.output.split())
    assert token not in run.output
    assert codes(deployed, token) == [200, 200]
    assert not (deployed.prefix / "etc" / "token.next").exists()


def test_a_restart_says_what_it_would_do_and_then_how_long_the_organism_was_away(deployed: Deployment) -> None:
    before = raylets(deployed)
    predicted = deployed.run("restart", "--check").check()
    assert "Would restart localhost." in predicted.output
    assert raylets(deployed) == before

    with under_load(deployed):
        run = deployed.run("restart").check()

    assert re.search(
        r"Restarted localhost. The organism was degraded for at most \d+ s, and away for at most", run.output
    )
    assert not raylets(deployed) & before
    assert not (deployed.prefix / ".restart").exists()
    assert deployed.seedcore("submit", "echo", "--params", '{"text": "hi"}').returncode == 0


def test_a_backup_has_the_token_only_encrypted_and_is_for_its_owner_only(deployed: Deployment) -> None:
    path, password = deployed.directory / "head.tar", deployed.directory / "password"
    password.write_text("secret of the test\n")
    assert deployed.seedcore("token", "add", "early", "--scope", "read").returncode == 0
    token = (deployed.prefix / "etc" / "token").read_text()

    run = deployed.run("backup", to=str(path), backup_vault_password_file=str(password)).check()

    assert f"{path} (" in run.output
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with tarfile.open(path) as archive:
        parts = {entry.name: stream.read() for entry in archive if (stream := archive.extractfile(entry))}
    assert parts.keys() == {"manifest.json", "state.tar.gz", "deployed.tar.gz", "secrets.vault"}
    assert parts["secrets.vault"].startswith(b"$ANSIBLE_VAULT;")
    assert token.encode() not in path.read_bytes()
    assert token not in run.output


def test_a_head_comes_back_from_its_backup_and_what_is_refused_leaves_nothing(deployed: Deployment) -> None:
    path, password, wrong = (deployed.directory / name for name in ("head.tar", "password", "wrong"))
    wrong.write_text("another\n")
    assert deployed.seedcore("token", "add", "later", "--scope", "read").returncode == 0
    before, parts = raylets(deployed), set(PARTS.glob("seedcore-restore-*"))

    refused = deployed.run("restore", **{"from": str(path)}, backup_vault_password_file=str(wrong))

    assert refused.returncode == 2
    assert f"Nothing was changed: the password in {wrong} does not decrypt the tokens of {path}" in " ".join(
        refused.output.split()
    )
    assert raylets(deployed) == before
    assert set(PARTS.glob("seedcore-restore-*")) == parts

    deployed.run("restore", **{"from": str(path)}, backup_vault_password_file=str(password)).check()

    assert not raylets(deployed) & before
    assert set(PARTS.glob("seedcore-restore-*")) == parts
    assert re.findall(r"early|later", deployed.seedcore("token", "list").stdout) == ["early"]
    assert deployed.seedcore("submit", "echo", "--params", '{"text": "hi"}').returncode == 0
