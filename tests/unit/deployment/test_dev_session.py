"""Test what `seedcore dev` imports, watches and prints; tests/integration/test_dev.py runs the whole command."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from seedcore.core.spec import OrganismSpec, OrganSpec
from seedcore.deployment.dev_session import DevSession, Logs, Watch, import_paths, with_revisions
from seedcore.deployment.local_ray import free_ports
from tests.support.waiting import eventually


def organism(*agents: str) -> OrganismSpec:
    return OrganismSpec(
        organs=tuple(OrganSpec(id=f"o{index}", type="T", agent=agent) for index, agent in enumerate(agents))
    )


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Create a directory with organism.yaml, a project, a module and a virtual environment."""
    (tmp_path / "organism.yaml").touch()
    for path in ("mine/pyproject.toml", "mine/mine.py", "beside.py", "venv/pyvenv.cfg", "venv/lib/installed.py"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text("")
    return tmp_path


def revisions(project: Path, *agents: str) -> list[str]:
    spec = with_revisions(organism(*agents), import_paths(project / "organism.yaml"))
    return [organ.revision for organ in spec.organs]


def test_agents_are_imported_from_beside_the_file_and_from_the_projects_there(project: Path) -> None:
    (project / "mine" / "src").mkdir()

    assert import_paths(project / "organism.yaml") == [project, project / "mine", project / "mine" / "src"]


def test_an_organ_has_another_revision_when_the_code_of_its_agent_is_another(project: Path) -> None:
    agents = ("mine:agent", "seedcore.agents:echo")
    before = revisions(project, *agents)
    assert before[0]
    assert before[1] == "", "its code is installed, and not followed"

    os.utime(project / "mine" / "mine.py", (1, 1))
    assert revisions(project, *agents) == before, "the content counts"
    (project / "mine" / "mine.py").write_text("x = 1")
    after = revisions(project, *agents)

    assert after[0] not in {"", before[0]}
    assert after[1] == ""


def test_what_is_written_added_or_removed_is_noticed_once(project: Path) -> None:
    watch = Watch(project / "organism.yaml", import_paths(project / "organism.yaml"))
    assert not watch.changed()

    for change in (
        lambda: (project / "organism.yaml").write_text("seedcore: {}"),
        lambda: (project / "mine" / "more.py").write_text("y = 2"),
        (project / "beside.py").unlink,
    ):
        change()
        assert watch.changed()
        assert not watch.changed()
    (project / "venv" / "lib" / "installed.py").write_text("of an environment")
    (project / "notes.txt").write_text("no source")
    assert not watch.changed()


def test_lines_of_agents_are_shown_whole_and_of_the_coordinator_what_is_serious(tmp_path: Path) -> None:
    shown: list[tuple[str, str]] = []
    logs = Logs(tmp_path, lambda name, line: shown.append((name, line)))
    logs.names = {7: "files/0"}
    agent, coordinator = tmp_path / "worker-ab-01000000-7.out", tmp_path / "worker-cd-01000000-8.err"

    agent.write_text(":job_id:01000000\n:actor_name:OrganActor\nhello\nhalf of a l")
    coordinator.write_text(
        ":actor_name:CoordinatorActor\n2026-11-27 07:13:46,425 INFO seedcore: reloaded\n"
        "2026-11-27 07:13:47,425 WARNING seedcore: organ files is down\n"
    )
    eventually(lambda: len(shown) == 2, timeout_s=10, what="two lines")
    with agent.open("a") as stream:
        stream.write("ine\n")
    logs.close()

    assert set(shown) == {
        ("files/0", "hello"),
        ("files/0", "half of a line"),
        ("CoordinatorActor", "2026-11-27 07:13:47,425 WARNING seedcore: organ files is down"),
    }


def test_a_file_that_vanishes_after_the_check_ends_nothing(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    file = project / "organism.yaml"
    session = DevSession(file, [project], http_port=0, say=said.append, show=lambda *_: None)
    try:
        monkeypatch.setattr(session, "_fault", lambda: "")
        file.unlink()
        assert session.apply() is False
        assert said[0].startswith(f"{file}: ")
        assert said[1] == "the organism stays as it is until a file changes"
    finally:
        session._logs.close()
        session.ray.stop()


def test_a_port_that_is_taken_is_not_free() -> None:
    (port,) = free_ports(1)
    assert free_ports(1, first=port) == [port]
    with socket.socket() as held:
        held.bind(("127.0.0.1", port))
        assert free_ports(1, first=port) == []
