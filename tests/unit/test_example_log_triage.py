from __future__ import annotations

import gzip
import importlib
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from seedcore.config.organism_file import load_config
from seedcore.core.task import Task, is_plain

EXAMPLE = Path(__file__).parents[2] / "examples" / "log_triage"


@pytest.fixture
def agents(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Provide the example's module of agents, importable as if it were installed."""
    monkeypatch.syspath_prepend(EXAMPLE)
    yield importlib.import_module("log_triage.agents")
    for name in [name for name in sys.modules if name.partition(".")[0] == "log_triage"]:
        del sys.modules[name]


def reader(agents: Any, directory: Path | str = "", **options: Any) -> Any:
    made = agents.LogReader("log_reader_agent_0", directory=str(directory), **options)
    made.start()
    return made


def triage(agents: Any, directory: Path, file: str, **params: Any) -> dict[str, Any]:
    answer = reader(agents, directory).execute(Task(type="triage_log", params={"file": file, **params}))
    assert is_plain(answer)
    return dict(answer)


@pytest.mark.usefixtures("agents")
def test_the_configuration_of_the_example_is_valid() -> None:
    spec = load_config(EXAMPLE / "organism.yaml")
    assert [organ.id for organ in spec.organs] == ["log_reader", "log_report"]


def test_the_package_holds_what_the_configuration_names() -> None:
    project = tomllib.loads((EXAMPLE / "pyproject.toml").read_text())
    assert project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"] == ["log_triage"]
    assert project["project"]["dependencies"] == []


def test_the_whole_organism_triages_the_sample_logs(agents: Any) -> None:
    spec = load_config(EXAMPLE / "organism.yaml")
    reading, reporting = (organ.options for organ in spec.organs)
    made = agents.LogReader("log_reader_agent_0", **reading)
    made.start()
    logs = made.execute(Task(type="list_logs"))["files"]
    assert [log["file"] for log in logs] == ["access.log.gz", "api.log", "worker.log"]
    parts = [made.execute(Task(type="triage_log", params={"file": log["file"]})) for log in logs]
    report = agents.report(Task(type="report_logs", params={"parts": parts}), **reporting)
    assert is_plain(report)
    assert report["lines"] == sum(part["lines"] for part in parts) == 528
    assert sum(report["levels"].values()) == report["lines"]
    assert report["text"].splitlines()[:3] == [
        "528 lines in 3 files: 3 CRITICAL, 47 ERROR, 41 WARNING, 437 INFO",
        "     3  CRITICAL  no healthy upstream left, serving from cache since <n> s  (api.log)",
        "    26  ERROR     upstream <ip> refused the connection (attempt <n> of <n>)  (api.log, worker.log)",
    ]


@pytest.mark.parametrize(
    ("text", "time", "level", "pattern"),
    [
        ("2026-03-02T08:00:00.1Z WARN disk at 90 %", "2026-03-02T08:00:00.1Z", "WARNING", "disk at <n> %"),
        ("2026-03-02 08:00:00,123 ERROR app: x=0xdeadbeef", "2026-03-02 08:00:00,123", "ERROR", "app: x=<hex>"),
        ("[2026-03-02 08:00:00] [fatal] out of memory", "2026-03-02 08:00:00", "CRITICAL", "out of memory"),
        ("Mar  2 08:00:00 host cron[12]: error: no 5", "Mar  2 08:00:00", "ERROR", "no <n>"),
        (
            '10.0.0.1 - - [02/Mar/2026:08:00:00 +0000] "GET /a/7?b=8 HTTP/1.1" 503 12',
            "02/Mar/2026:08:00:00 +0000",
            "ERROR",
            "GET /a/<n> -> 503",
        ),
        ("KeyError: 'x'", None, "ERROR", "KeyError: 'x'"),
        ("nothing special", None, "INFO", "nothing special"),
        ("INFO no error here", None, "INFO", "no error here"),
        ('ERROR user "Ada" 1.2.3.4:80', None, "ERROR", 'user "<text>" <ip>'),
        ("ERROR 0b4cba9e-3b1c-4a57-9d3f-0c1d2e3f4a5b cafebabe1", None, "ERROR", "<uuid> <hex>"),
    ],
)
def test_a_line_of_any_common_format_is_understood(
    agents: Any, text: str, time: str | None, level: str, pattern: str
) -> None:
    line = agents.parse(text)
    assert (line.time, line.level, line.pattern) == (time, level, pattern)


def test_lines_that_say_the_same_are_one_group(agents: Any, tmp_path: Path) -> None:
    lines = [f"2026-03-02T08:00:0{n}Z ERROR shard {n} lost" for n in range(3)]
    (tmp_path / "a.log").write_text("\n".join(["2026-03-02T07:00:00Z INFO up", "", *lines]) + "\n")
    assert triage(agents, tmp_path, "a.log") == {
        "file": "a.log",
        "lines": 4,
        "levels": {"INFO": 1, "ERROR": 3},
        "first": "2026-03-02T07:00:00Z",
        "last": "2026-03-02T08:00:02Z",
        "truncated": False,
        "groups": [
            {
                "pattern": "shard <n> lost",
                "level": "ERROR",
                "count": 3,
                "first": "2026-03-02T08:00:00Z",
                "last": "2026-03-02T08:00:02Z",
                "example": "2026-03-02T08:00:00Z ERROR shard 0 lost",
                "line": 2,
            }
        ],
    }


def test_groups_are_those_of_the_wanted_level_and_the_worst_come_first(agents: Any, tmp_path: Path) -> None:
    (tmp_path / "a.log").write_text("INFO a\nINFO a\nWARNING b\nERROR c\nCRITICAL d\nERROR e\nERROR e\n")
    found = triage(agents, tmp_path, "a.log", min_level="info")["groups"]
    assert [group["pattern"] for group in found] == ["d", "e", "c", "b", "a"]
    assert [group["pattern"] for group in triage(agents, tmp_path, "a.log", top=2)["groups"]] == ["d", "e"]


def test_an_empty_log_has_nothing_to_say(agents: Any, tmp_path: Path) -> None:
    (tmp_path / "a.log").touch()
    answer = triage(agents, tmp_path, "a.log")
    assert (answer["lines"], answer["first"], answer["groups"]) == (0, None, [])


def test_a_packed_and_damaged_text_is_read_as_far_as_it_goes(agents: Any, tmp_path: Path) -> None:
    (tmp_path / "a.log").write_bytes(b"ERROR \xff\xfe\n" + b"x" * 50_000)
    assert triage(agents, tmp_path, "a.log")["levels"] == {"ERROR": 1, "INFO": 5}
    with gzip.open(tmp_path / "b.log.gz", "wt") as file:
        file.write("ERROR packed\n")
    answer = reader(agents, tmp_path, pattern="*").execute(Task(type="triage_log", params={"file": "b.log.gz"}))
    assert answer["groups"][0]["pattern"] == "packed"


def test_no_more_is_read_than_allowed(agents: Any, tmp_path: Path) -> None:
    (tmp_path / "a.log").write_text("ERROR x\n" * 1000)
    made = reader(agents, tmp_path, max_megabytes=0.0001)
    answer = made.execute(Task(type="triage_log", params={"file": "a.log"}))
    assert answer["truncated"]
    assert answer["lines"] < 20


@pytest.mark.parametrize("name", ["../secret.log", "/etc/passwd", "secret.txt", "", None, 5, "no.log", "directory.log"])
def test_nothing_but_a_log_of_the_directory_can_be_read(agents: Any, tmp_path: Path, name: Any) -> None:
    (tmp_path / "secret.log").write_text("ERROR secret")
    (tmp_path / "logs" / "directory.log").mkdir(parents=True)
    (tmp_path / "logs" / "secret.txt").write_text("ERROR secret")
    with pytest.raises(FileNotFoundError, match="there is no log"):
        triage(agents, tmp_path / "logs", name)


@pytest.mark.parametrize("params", [{"min_level": "loud"}, {"top": 0}, {"top": "5"}])
def test_params_of_another_shape_are_refused(agents: Any, tmp_path: Path, params: dict[str, Any]) -> None:
    (tmp_path / "a.log").touch()
    with pytest.raises(ValueError, match="must be"):
        triage(agents, tmp_path, "a.log", **params)


@pytest.mark.parametrize("parts", [None, {}, [1], [{}]])
def test_a_report_wants_answers_of_readers(agents: Any, parts: Any) -> None:
    with pytest.raises(ValueError, match="must be a list of answers of triage_log"):
        agents.report(Task(type="report_logs", params={"parts": parts}))


def test_a_reader_without_its_directory_does_not_start_and_is_not_healthy(agents: Any, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"log_reader_agent_0 cannot read the directory /\S+/gone"):
        reader(agents, tmp_path / "gone")
    (tmp_path / "here").mkdir()
    made = reader(agents, tmp_path / "here")
    assert made.check_health() is True
    (tmp_path / "here").rmdir()
    assert made.check_health() is False
