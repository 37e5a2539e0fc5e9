"""Test common properties of all playbooks: a failed run releases its lock, and a user's strategy changes nothing."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.seedcore.cluster.plugins.module_utils import lock

ROOT = Path(__file__).parents[3]
# Playbooks that only read, or that are about the lock.
LOOKS = {"layout", "check_inventory", "check_host", "recognize", "predict", "moved_to", "lock", "give_up"}
# A failed host does not stop the others, so the run reaches the play that releases the lock.
GOES_ON = {
    "Teardown | Remove the workers", "Teardown | Remove Prometheus", "Remove node | Find the hosts that answer",
    # After its block it releases the lock and ends the run, whatever the block has come to.
    "Revert | Bring back the organism",
}  # fmt: skip
# Steps of roles that release the lock; ``red`` does so if there is nothing to go back to, else a later play does.
GIVES_UP = ("'give_up'", "'red'")
# The playbooks for users: the docs and the Makefile name them, an installed collection as seedcore.cluster.NAME.
ENTRIES = {
    "backup", "bootstrap", "cordon", "deploy", "doctor", "monitoring", "move_head", "preflight", "ray", "remove_node",
    "restart", "restore", "rollback", "rotate_token", "seedcore", "status", "teardown", "uncordon",
    "upgrade_ray",
}  # fmt: skip
INVENTORY = """
all: {vars: {ansible_python_interpreter: "{{ ansible_playbook_python }}", ansible_connection: local}}
ray_head: {hosts: {head-1: }}
ray_workers: {hosts: {worker-1: }}
"""
WRONG_RESTART = (
    "Nothing was restarted: only has worker-9, which this inventory does not have. Its nodes are: worker-1, head-1; "
    "batch must be a whole number of at least 1, got 0; packages must be none or security, got foo; "
    "reboot must be no, if_needed or always, got maybe; packages and reboot need root, and ray_become is false"
)
RED = """
- ansible.builtin.import_playbook: ROOT/playbooks/parts/lock.yml
- name: Work
  hosts: ray_head:ray_workers
  gather_facts: false
  any_errors_fatal: true
  tasks:
    - name: Work
      block:
        - name: See the lock
          ansible.builtin.stat: {path: "{{ lock }}"}
          register: seen
          failed_when: not seen.stat.exists
        - name: Do something that fails
          ansible.builtin.fail: {msg: the disk is full}
          when: inventory_hostname == failing
      rescue:
        - name: Release the lock after a failure
          ansible.builtin.include_role: {name: seedcore.cluster.ray, tasks_from: give_up, rolespec_validate: false}
"""

GREEN_OR_NOT = """
- name: Check
  hosts: ray_head
  gather_facts: false
  tasks:
    - name: Check
      block:
        - name: Require a healthy Coordinator
          ansible.builtin.fail: {msg: "{{ cause }}"}
      rescue:
        - name: Go back to what was green in a later play, or end the run
          ansible.builtin.include_role: {name: seedcore.cluster.seedcore, tasks_from: red, rolespec_validate: false}
"""


def plays() -> list[tuple[str, dict[str, Any]]]:
    """Return every play of every playbook, except imports, with its place."""
    return [
        (f"{path.relative_to(ROOT)}: {play['name']}", play)
        for path in sorted(ROOT.glob("playbooks/**/*.yml"))
        for play in yaml.safe_load(path.read_text())
        if "hosts" in play
    ]


def test_people_find_only_what_they_run() -> None:
    entries = {path.stem: path.read_text() for path in ROOT.glob("playbooks/*.yml")}
    parts = {path.stem: path.read_text() for path in ROOT.glob("playbooks/parts/*.yml")}
    imported = re.findall(
        r"import_playbook: (?:\.\./|parts/)?(\w+)\.yml", "".join([*entries.values(), *parts.values()])
    )

    assert entries.keys() == ENTRIES
    assert parts.keys() <= set(imported), "a part that no playbook imports"
    assert set(imported) <= parts.keys() | ENTRIES
    assert {name: text.count("\n") for name, text in entries.items() if text.count("\n") > 100} == {}


def acting(tasks: list[dict[str, Any]], *, gives_up: bool) -> Iterator[str]:
    """Return the tasks that act on a host outside of a block that releases the lock."""
    for task in tasks:
        rescue = str(task.get("rescue", []))
        saved = gives_up or any(step in rescue for step in GIVES_UP)
        yield from acting(task.get("block", []), gives_up=saved)
        for kind in ("import_role", "include_role"):
            role = task.get(f"ansible.builtin.{kind}")
            if role and role.get("tasks_from", "main") not in LOOKS and not gives_up:
                yield task["name"]


def test_every_play_that_works_on_the_deployment_gives_the_lock_back_if_it_fails() -> None:
    unsaved = {
        place: found
        for place, play in plays()
        if (found := list(acting(play.get("tasks", []), gives_up=False))) and play["name"] not in GOES_ON
    }
    assert unsaved == {}
    assert not [place for place, play in plays() if "roles" in play], "a role of a play is in no block"


def test_what_a_run_says_last_is_printed_where_nobody_prints_the_last_lines() -> None:
    # An installed collection has Ansible's own callback, which does not show what set_stats has kept.
    def modules(path: Path) -> str:
        return path.read_text() if "set_stats" in path.read_text() else "ansible.builtin.debug"

    paths = [*ROOT.glob("playbooks/**/*.yml"), *ROOT.glob("roles/*/tasks/*.yml")]
    assert [str(path) for path in paths if "ansible.builtin.debug" not in modules(path)] == []


def test_what_only_a_red_run_needs_is_not_loaded_before() -> None:
    # Ansible loads and copies the whole role for each import, and these added a quarter to the load time of a run.
    text = "".join(path.read_text() for path in ROOT.glob("playbooks/**/*.yml"))
    imported = re.findall(r"import_role:\s+name: seedcore.cluster.ray\s+tasks_from: give_up", text)

    assert text.count("tasks_from: give_up") > 8
    assert imported == []


def test_no_play_ends_for_all_where_a_host_may_be_away() -> None:
    # any_errors_fatal counts an unreachable host even if it is ignored: the run would end there, successful.
    assert [place for place, play in plays() if play.get("any_errors_fatal") and play.get("ignore_unreachable")] == []


def test_every_play_keeps_to_the_strategy_that_it_was_written_for() -> None:
    assert len(plays()) > 15
    assert [place for place, play in plays() if play.get("strategy") != "linear"] == []


CLUSTERS = """
blue_head: {hosts: {head-1: }}
blue_workers: {hosts: {shared-1: }}
green_head: {hosts: {head-2: }}
green_workers: {hosts: {shared-1: }}
"""


def run_playbook(
    directory: Path, playbook: Path, *variables: str, inventory: Path | str = "inventory.yml", limit: str = ""
) -> subprocess.CompletedProcess[str]:
    """Run a playbook of this checkout, or one that imports some, against this machine as two hosts."""
    (directory / "inventory.yml").write_text(INVENTORY)
    limits = ["--limit", limit] if limit else []
    return subprocess.run(
        [Path(sys.executable).parent / "ansible-playbook", "-i", inventory, *limits, playbook,
         *(word for value in variables for word in ("-e", value))],
        cwd=directory, capture_output=True, text=True, check=False, timeout=120,
        env={**os.environ, "ANSIBLE_COLLECTIONS_PATH": str(ROOT / "collections"), "ANSIBLE_HOME": str(directory),
             "ANSIBLE_STDOUT_CALLBACK": "seedcore.cluster.outcome", "ANSIBLE_NOCOLOR": "1"},
    )  # fmt: skip


def test_variables_are_checked_before_any_connection_to_a_host(tmp_path: Path) -> None:
    check = ROOT / "playbooks/parts/check_variables.yml"
    away = ["ansible_connection=ssh", "ansible_host=192.0.2.1", f"ray_prefix={tmp_path}/sc"]
    good = run_playbook(tmp_path, check, *away)
    endless = ["seedcore_bake_tolerance=nan", json.dumps({"ray_poll_interval": math.inf})]
    bad = run_playbook(tmp_path, check, *away, "ray_proxy_url=proxy", "seedcore_http_port=70000", *endless)

    assert good.returncode == 0, good.stdout + good.stderr
    assert bad.returncode == 2
    assert "ray_proxy_url must begin with" in bad.stdout
    assert "seedcore_http_port must be 1 to 65535, got 70000" in bad.stdout
    assert "seedcore_bake_tolerance is nan: give a finite number" in bad.stdout
    assert "ray_poll_interval is inf: give a finite number" in bad.stdout


def test_a_red_run_leaves_no_lock_and_names_what_has_failed(tmp_path: Path) -> None:
    (tmp_path / "red.yml").write_text(RED.replace("ROOT", str(ROOT)))
    path = lock.path(str(tmp_path / "sc"))
    variables = [f"ray_prefix={tmp_path}/sc", "ray_become=false", f"lock={path}", "failing=worker-1"]
    done = run_playbook(tmp_path, tmp_path / "red.yml", *variables)

    assert done.returncode == 2, done.stdout + done.stderr
    assert done.stdout.rstrip().endswith("RED on worker-1, at: Do something that fails\nthe disk is full")
    assert done.stdout.count("RED on") == 1
    assert done.stdout.count("the disk is full") == 3, "where it happens, and last"
    assert not Path(path).exists()


@pytest.mark.parametrize(
    ("cause", "given", "why"),
    [
        ("init_failed: no", "", ". Nothing was reverted: no other release was green with the Ray of the nodes"),
        ("network: no", "", ". Nothing was reverted: another release would not mend that"),
        ("init_failed: no", "seedcore_revert_on_red=false", ". Nothing was reverted: seedcore_revert_on_red is false"),
        ("init_failed: no", "before=", ""),
    ],
)
def test_a_red_run_says_why_there_is_nothing_to_go_back_to(tmp_path: Path, cause: str, given: str, why: str) -> None:
    (tmp_path / "check.yml").write_text(GREEN_OR_NOT)
    # A run that has activated nothing has nothing to revert.
    variables = [f"ray_prefix={tmp_path}/sc", "ray_become=false", json.dumps({"cause": cause})]
    before = [] if given == "before=" else ["seedcore_before=0.1.0-aaaaaaaaaaaa"]
    done = run_playbook(tmp_path, tmp_path / "check.yml", *variables, *before, given or "x=y")

    assert done.returncode == 2, done.stdout + done.stderr
    assert done.stdout.rstrip().endswith(f"RED on head-1, at: Require a healthy Coordinator\n{cause}{why}")


@pytest.mark.parametrize(
    ("playbook", "given", "words"),
    [
        (
            "restart",
            "only=head-1,worker-9 batch=0 packages=foo reboot=maybe",
            WRONG_RESTART,
        ),
        ("cordon", "node=head-1", "head-1, which is not a worker of this inventory. The workers are: worker-1"),
        ("backup", "", "name its file with -e backup_vault_password_file=FILE"),
        ("restore", "from=/nowhere", "from: this machine has no file /nowhere"),
        ("upgrade_ray", "ray_version=2.0.0", "ray_version is 2.0.0, but ray_requirements locks"),
        (
            "move_head",
            f"backup_vault_password_file={__file__} old_head=head-1",
            "old_head is head-1, which is the head of this inventory: put the new head into ray_head",
        ),
        (
            "move_head",
            f"backup_vault_password_file={__file__} old_head=worker-1 old_head_is_gone=yes",
            "but the inventory has it in ray_workers: remove it; a head that is gone comes back from a backup",
        ),
        ("upgrade_ray", "", "name its file with -e backup_vault_password_file=FILE"),
    ],
)
def test_a_wrong_option_of_an_operation_is_one_clear_error_before_any_connection(
    tmp_path: Path, playbook: str, given: str, words: str
) -> None:
    away = ["ansible_connection=ssh", "ansible_host=192.0.2.1", f"ray_prefix={tmp_path}/sc", "ray_become=false"]
    done = run_playbook(tmp_path, ROOT / f"playbooks/{playbook}.yml", *away, *given.split())

    assert done.returncode == 2, done.stdout + done.stderr
    assert words in " ".join(done.stdout.rpartition("RED on")[2].split())


def test_a_playbook_that_runs_as_a_part_knows_that_it_is_one() -> None:
    """Alone, they take the lock and require hosts; as a part, that is the matter of the whole."""
    parts = {"bootstrap.yml", "monitoring.yml", "ray.yml", "seedcore.yml"}
    seen = set()
    for path in (ROOT / "playbooks").rglob("*.yml"):
        for play in yaml.safe_load(path.read_text()):
            name = Path(play.get("ansible.builtin.import_playbook", "")).name
            if name in parts:
                seen.add(name)
                assert play.get("vars", {}).get("ray_lock_kept") is True, f"{path}: {name}"
    assert seen == parts


def test_a_run_that_would_ask_no_host_is_red(tmp_path: Path) -> None:
    (tmp_path / "empty.yml").write_text("all: {hosts: {elsewhere: }}")
    for name in sorted(ENTRIES):
        given = ["node=elsewhere", "teardown_confirmed=yes", "backup_vault_password_file=/dev/null", "from=/nowhere"]
        done = run_playbook(tmp_path, ROOT / f"playbooks/{name}.yml", *given, inventory="empty.yml")

        assert done.returncode == 2, (name, done.stdout + done.stderr)
        groups = "monitoring" if name == "monitoring" else "ray_head or ray_workers"
        assert f"The inventory has no host in {groups}" in done.stdout, name


def test_a_status_without_the_head_is_red(tmp_path: Path) -> None:
    done = run_playbook(tmp_path, ROOT / "playbooks/status.yml", f"ray_prefix={tmp_path}/sc", limit="worker-1")

    assert done.returncode == 2, done.stdout + done.stderr
    assert "nothing was checked: --limit leaves out the head head-1" in done.stdout


def test_an_inventory_may_hold_several_clusters(tmp_path: Path) -> None:
    def groups(*options: str) -> dict[str, list[str]]:
        program = str(Path(sys.executable).parent / "ansible-inventory")
        command = [program, f"--inventory={tmp_path}/clusters", "--list", *options]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
        listed = json.loads(done.stdout)
        return {name: listed.get(name, {}).get("hosts", []) for name in ("ray_head", "ray_workers")}

    shutil.copytree(ROOT / "inventory/clusters", tmp_path / "clusters")
    (tmp_path / "clusters" / "hosts.yml").write_text(CLUSTERS)

    assert groups() == {"ray_head": [], "ray_workers": []}
    assert groups("-e", "seedcore_cluster=blue") == {"ray_head": ["head-1"], "ray_workers": ["shared-1"]}
    assert groups("-e", "seedcore_cluster=green") == {"ray_head": ["head-2"], "ray_workers": ["shared-1"]}
    no_name = run_playbook(tmp_path, ROOT / "playbooks/status.yml", inventory=tmp_path / "clusters")
    assert "name one of the clusters with -e seedcore_cluster=NAME: blue, green" in no_name.stdout
    stranger = run_playbook(
        tmp_path, ROOT / "playbooks/status.yml", "seedcore_cluster=red", inventory=tmp_path / "clusters"
    )
    assert "The inventory has no host in red_head or red_workers" in stranger.stdout
    assert {no_name.returncode, stranger.returncode} == {2}
