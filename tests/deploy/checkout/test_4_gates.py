"""Test failed gates and the runs after them, several releases on a host, and optional organs."""

from __future__ import annotations

import json
import re
import time
from typing import Any

import pytest

from tests.deploy.checkout.conftest import AGENTS, LENS, Site, write_package

pytestmark = pytest.mark.timeout(2400)


def test_an_organism_with_faults_changes_nothing(deployed: Site) -> None:
    before, live = deployed.status(), deployed.deployment.prefix / "etc" / "organism.yaml"
    text = live.read_text()
    bad = deployed.write("bad.yaml", agent="careful:Missing", start_s=1)

    run = deployed.run("bootstrap", organism=bad)

    assert run.returncode != 0
    assert re.search(rf"{re.escape(str(bad))}:\d+:\d+: agent 'careful:Missing' cannot be loaded", run.output), (
        run.output[-4000:]
    )
    assert run.recap["changed"] == 0
    assert live.read_text() == text
    assert deployed.status()["coordinator"]["pid"] == before["coordinator"]["pid"]


def test_a_wait_that_is_too_short_is_red_and_the_truth_follows(deployed: Site) -> None:
    slow = deployed.write("slow.yaml", start_s=40)

    run = deployed.run("bootstrap", organism=slow, seedcore_bootstrap_wait_timeout=10)
    red = deployed.status()

    assert run.returncode != 0
    # The Coordinator's time limit ends shortly before ours; either may be reported first.
    goes_on = r"\w+: still initializing: .+"
    undone = r"init_failed: the running organism was not changed: organs first did not come up within [\d.]+ s(; .*)?"
    assert re.search(rf"({goes_on}|{undone}) \(after \d+ s\)", run.output), run.output[-4000:]
    assert run.failed_after_s < 30
    assert re.search(r"^  \[localhost\] initializing: ", run.output, re.MULTILINE), "what is waited for is shown"
    assert red["status"] in {"initializing", "healthy"}
    later = deployed.deployment.seedcore("status", "--wait", "--timeout", "110")
    assert later.returncode == 0, later.stdout
    # If the reload had been undone, the organism would differ from the host's file, and the gate would report it.
    deployed.run("bootstrap").check()


def test_the_gate_is_red_without_a_node_that_is_expected(deployed: Site) -> None:
    started = time.monotonic()

    run = deployed.run("status", seedcore_gate_timeout=8, seedcore_node_names=["localhost", "worker-9"])

    assert run.returncode != 0
    assert time.monotonic() - started < 120
    assert re.search(r"nodes_missing: .+ \(after \d+ s\)", run.output), run.output[-4000:]
    assert "==> " in run.output, "the evidence is shown"
    # The cause is the last line of the output.
    assert re.match(r"RED on localhost, at: .*Require a healthy Coordinator", run.last_lines[-2]), run.output[-3000:]
    assert re.match(r"nodes_missing: .*worker-9.* \(after \d+ s\)$", run.last_lines[-1])


def test_a_green_status_says_so_in_one_line(deployed: Site) -> None:
    run = deployed.run("status").check()

    assert run.last_lines[-1].startswith("healthy: 2 of 2 organs ready")


def test_what_is_not_required_may_be_missing_where_that_is_allowed(deployed: Site) -> None:
    document = json.loads(deployed.organism.read_text())
    organs = document["seedcore"]["organism"]["organ_types"]
    lacking = {"required": False, "resources": {"nowhere": 1}, "start_timeout_s": 5}
    organs.append({**organs[0], "id": "second", "task_types": ["write"], **lacking})
    partial = deployed.deployment.directory / "partial.yaml"
    partial.write_text(json.dumps(document))

    # A running organism is not replaced by one that does not start.
    replaced = {"seedcore_bootstrap_replace": True, "seedcore_bootstrap_wait_timeout": 60}
    refused = deployed.run("bootstrap", organism=partial, **replaced)
    allowed = deployed.run("bootstrap", organism=partial, seedcore_gate_allow_degraded=True)
    gate = deployed.run("status", organism=partial, seedcore_gate_allow_degraded=True)

    assert refused.returncode != 0
    assert "degraded: second: " in refused.output
    allowed.check()
    gate.check()


def test_agents_are_installed_beside_the_active_ones_and_replace_them_later_in_the_same_coordinator(
    deployed: Site,
) -> None:
    before = deployed.status()
    slow = deployed.deployment.directory / "slow.yaml"
    (deployed.agents / "careful.py").write_text(AGENTS.replace('"model"', '"edited"'))

    preview = deployed.run("seedcore", "--check", organism=slow).check()
    assert preview.recap["changed"] > 0
    deployed.run("seedcore", organism=slow).check()

    prefix = deployed.deployment.prefix
    assert [len(list((prefix / kind).iterdir())) for kind in ("releases", "agents")] == [1, 2]
    after = deployed.status()
    assert after["coordinator"]["agents"] == before["coordinator"]["agents"]

    preview = deployed.run("bootstrap", "--check").check()
    assert any("Bootstrap the Coordinator of the active release" in task for task in preview.changed_tasks)
    run = deployed.run("bootstrap").check()

    assert any("Bootstrap the Coordinator of the active release" in task for task in run.changed_tasks)
    after = deployed.status()
    assert after["coordinator"]["agents"] == (prefix / "current").resolve().name != before["coordinator"]["agents"]
    assert (after["release"], after["coordinator"]["pid"]) == (before["release"], before["coordinator"]["pid"])
    assert json.loads(deployed.deployment.seedcore("submit", "read").stdout)["result"] == {"edited": "small"}
    assert deployed.run("bootstrap").check().changed_tasks == []


def test_a_rollback_makes_the_agents_active_that_were_green_before(deployed: Site) -> None:
    now, prefix = deployed.status(), deployed.deployment.prefix
    rows = json.loads(deployed.deployment.seedcore("releases", "--json").stdout)
    assert [row["id"] for row in rows if row["active"]] == [now["coordinator"]["agents"]]
    before = next(row for row in rows if row["green"] and not row["active"])
    assert before["differs"][0] == "agents"

    preview = deployed.run("rollback", "--check").check()
    assert any("Bootstrap the Coordinator" in task for task in preview.changed_tasks)
    assert (prefix / "current").resolve().name == now["coordinator"]["agents"]
    refused = deployed.run("rollback", to="nothing-of-that-name")
    assert refused.returncode != 0
    assert f"nothing-of-that-name is not on this host; green were: {before['id']}" in refused.last_lines[-1]

    run = deployed.run("rollback").check()

    assert run.last_lines[-1].startswith(f"{before['id']} is active, which was green at {before['green']}")
    after = deployed.status()
    assert (after["healthy"], after["coordinator"]["agents"]) == (True, before["id"])
    assert after["coordinator"]["pid"] == now["coordinator"]["pid"], "it is reloaded"
    assert json.loads(deployed.deployment.seedcore("submit", "read").stdout)["result"] == {"model": "small"}
    assert deployed.run("rollback", to=before["id"]).check().changed_tasks == []

    deployed.run("rollback", to=now["coordinator"]["agents"]).check()
    assert json.loads(deployed.deployment.seedcore("submit", "read").stdout)["result"] == {"edited": "small"}


def test_a_red_deployment_goes_back_to_what_was_green(deployed: Site) -> None:
    before, source = deployed.status(), deployed.agents / "careful.py"
    text = source.read_text()
    source.write_text(text.replace("self.text = self.model.read_text()", 'raise RuntimeError("not with me")'))

    run = deployed.run("deploy")
    after = deployed.status()

    assert run.returncode != 0
    cause, _, rest = run.last_lines[-1].partition(". Went back: ")
    assert re.fullmatch(r"init_failed: .*agent first_agent_0 did not start: RuntimeError: not with me.*", cause), cause
    own = before["coordinator"]["agents"]
    assert re.fullmatch(rf"{re.escape(own)} is active, which was green at \S+; before, \S+ was; it is healthy", rest), (
        rest
    )
    assert (after["healthy"], after["coordinator"]["agents"]) == (True, own)
    assert (deployed.deployment.prefix / "current").resolve().name == own
    assert after["coordinator"]["pid"] == before["coordinator"]["pid"]
    assert json.loads(deployed.deployment.seedcore("submit", "read").stdout)["result"] == {"edited": "small"}

    source.write_text(text)
    deployed.run("deploy").check()
    assert deployed.status()["coordinator"]["agents"] == own


@pytest.mark.parametrize("kind", ["releases", "agents"])
def test_a_half_made_layer_is_made_anew(deployed: Site, kind: str) -> None:
    own = deployed.status()["coordinator"]
    layer = deployed.deployment.prefix / kind / own[{"releases": "release", "agents": "agents"}[kind]]
    (layer / "release.json").unlink()

    assert deployed.run("seedcore").check().recap["changed"] > 0

    assert json.loads((layer / "release.json").read_text())["release"] == own["release"]


def test_two_organs_see_two_versions_of_one_package_and_a_change_of_one_leaves_the_other_alone(deployed: Site) -> None:
    here = deployed.deployment.directory
    document = json.loads(deployed.organism.read_text())
    look = {"type": "Test", "agent": "lens:look"}
    document["seedcore"]["organism"]["organ_types"] += [
        {**look, "id": "old", "task_types": ["look_old"]},
        {**look, "id": "new", "task_types": ["look_new"], "environment": "vision"},
    ]
    organism = here / "lenses.yaml"
    organism.write_text(json.dumps(document))
    old = write_package(here / "lens_old", "lens", LENS)
    new = write_package(here / "lens_new", "lens", LENS.replace("'1'", "'2'"))
    given: dict[str, Any] = {
        "seedcore_extra_requirements": [str(deployed.agents), str(old)],
        "seedcore_environments": {"vision": [str(new)]},
    }

    def answers() -> list[Any]:
        submit = deployed.deployment.seedcore
        return [json.loads(submit("submit", kind).stdout)["result"] for kind in ("look_old", "look_new")]

    unknown = deployed.run("bootstrap", organism=organism, **{**given, "seedcore_environments": {}})
    assert "environment is 'vision', but the deployment has none: seedcore_environments makes them" in unknown.output

    deployed.run("bootstrap", organism=organism, **given).check()
    assert answers() == [{"version": "1"}, {"version": "2"}]
    before = processes_of(deployed)
    (old / "lens.py").write_text(LENS.replace("'1'", "'1.1'"))
    deployed.run("bootstrap", organism=organism, **given).check()

    assert answers() == [{"version": "1.1"}, {"version": "2"}]
    after = processes_of(deployed)
    assert after["old"] != before["old"]
    assert after["new"] == before["new"]
    assert len(list((deployed.deployment.prefix / "environments").iterdir())) == 1


def processes_of(deployed: Site) -> dict[str, list[int]]:
    """Return the process ids of every organ."""
    organs = deployed.status()["coordinator"]["organs"]
    return {organ["organ_id"]: [replica["pid"] for replica in organ["replicas"]] for organ in organs}


def test_without_a_certificate_it_is_plain_again(deployed: Site) -> None:
    deployed.deployment.variables |= {"seedcore_http_tls_certificate": "", "seedcore_http_tls_key": ""}

    run = deployed.run("deploy").check()

    assert any("http://127.0.0.1:" in line for line in run.last_lines)
    assert not (deployed.deployment.prefix / "etc" / "http.key").exists()
    assert deployed.deployment.seedcore("status").returncode == 0
