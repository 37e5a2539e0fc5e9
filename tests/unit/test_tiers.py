"""Test the runner of tiers: every tier runs, and the table lists its result."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.tier_list import CHECKOUT, PLANS, TIERS, Plan, Tier
from scripts.tiers import Runner
from tests.support.waiting import eventually

ROOT = Path(__file__).parents[2]
# Waits for a file that another lane writes.
MEET = "touch {mine}; for _ in $(seq 600); do [ -e {other} ] && exit 0; sleep 0.05; done; exit 1"


def sh(name: str, *scripts: str, **options: object) -> Tier:
    return Tier(name, [["sh", "-c", script] for script in scripts], **options)  # type: ignore[arg-type]


def run(directory: Path, plan: Plan, *tiers: Tier) -> int:
    return Runner(directory, {"bin": str(Path(sys.executable).parent)}, {tier.name: tier for tier in tiers}).run(plan)


def rows(screen: str) -> dict[str, list[str]]:
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in screen.splitlines() if line[:1] == "|"]
    return {row[0]: row[1:] for row in cells}


def test_a_tier_that_fails_stops_no_other_and_its_output_is_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiers = (sh("bad", "echo the cause; exit 7"), sh("next", "true"), sh("later", "echo quiet"))

    assert run(tmp_path, [[["bad", "next"]], [["later"]]], *tiers) == 1

    screen = capsys.readouterr().out
    assert "\nthe cause\n" in screen
    assert "quiet" not in screen
    assert (tmp_path / "later.log").read_text() == "quiet\n"
    table = rows(screen)
    assert [table[name][2] for name in ("bad", "next", "later", "all")] == ["FAILED", "passed", "passed", "FAILED"]
    assert table["bad"][3] == f"exit code 7; {tmp_path}/bad.log"


def test_the_causes_of_a_failed_tier_are_repeated_beside_the_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiers = (
        sh("hosts", "echo 'fatal: [head-1]: FAILED! => no route'; seq 500; exit 1"),
        sh("mute", "seq 500; exit 1"),
        sh("well", "echo 'fatal: nothing'"),
    )

    assert run(tmp_path, [[["hosts", "mute", "well"]]], *tiers) == 1

    last = capsys.readouterr().out.split("==== end of mute ====")[1]
    assert "hosts:\n  fatal: [head-1]: FAILED! => no route\nmute:\n  489\n" in last
    assert "nothing" not in last


def test_a_tier_runs_all_its_commands_and_fails_with_any(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path, [[["lint"]]], sh("lint", "echo first; exit 1", "echo second")) == 1
    assert "first\nsecond\n" in capsys.readouterr().out


def test_what_a_tier_runs_writes_bytecode_also_where_a_shell_says_no(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")

    run(tmp_path, [[["asked"]]], sh("asked", 'echo "said: $PYTHONDONTWRITEBYTECODE"'))

    assert (tmp_path / "asked.log").read_text() == "said: \n"


def test_lanes_run_side_by_side_and_phases_one_after_the_other(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    left, right = tmp_path / "left", tmp_path / "right"
    tiers = (
        sh("one", MEET.format(mine=left, other=right)),
        sh("two", MEET.format(mine=right, other=left)),
        sh("after", f"[ -e {left} ] && [ -e {right} ]"),
    )

    assert run(tmp_path / "reports", [[["one"], ["two"]], [["after"]]], *tiers) == 0

    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[1:3] for line in lines if re.match(r"\d\d:\d\d:\d\d after: ", line)] == [
        ["after:", "begins"],
        ["after:", "passed"],
    ]


def test_a_lane_at_its_end_takes_what_waits_in_another(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    left, right = tmp_path / "left", tmp_path / "right"
    tiers = (
        sh("short", "true"),
        sh("one", MEET.format(mine=left, other=right)),
        sh("two", MEET.format(mine=right, other=left)),
    )

    assert run(tmp_path / "reports", [[["short"], ["one", "two"]]], *tiers) == 0
    assert rows(capsys.readouterr().out)["all"][2] == "passed"


def test_what_cannot_run_here_is_skipped_with_the_reason(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiers = (
        sh("browser", "exit 1", missing=lambda: "there is no Chromium"),
        sh("containers", "echo some; echo molecule: SKIPPED, no Docker; exit 3", skip_codes={3: ""}),
        sh("alone", "exit 5", skip_codes={5: "no test is marked alone"}),
        sh("strict", "exit 3"),
    )

    assert run(tmp_path, [[["browser", "containers", "alone"]]], *tiers) == 0
    table = rows(capsys.readouterr().out)
    assert table["browser"][2:] == ["skipped", "there is no Chromium"]
    assert table["containers"][2:] == ["skipped", "molecule: SKIPPED, no Docker"]
    assert table["alone"][2:] == ["skipped", "no test is marked alone"]
    assert run(tmp_path, [[["strict"]]], *tiers) == 1


def test_tests_are_counted_and_skipped_ones_say_why(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "test_it.py").write_text(
        "import pytest\ndef test_a(): pass\ndef test_b(): pytest.skip('no network')\ndef test_c(): pass\n"
    )
    command = ["{bin}/pytest", "-p", "no:cacheprovider", "--rootdir", str(tmp_path), str(tmp_path)]
    pytest_tier = Tier("unit", [[*command, "--junitxml={report}"]])

    assert run(tmp_path / "reports", [[["unit", "plain"]]], pytest_tier, sh("plain", "true")) == 0

    table = rows(capsys.readouterr().out)
    assert (table["unit"][0], table["unit"][3]) == ("3", "1 skipped: no network")
    assert (table["plain"][0], table["all"][0]) == ("", "3")


def test_a_tier_that_takes_too_long_is_ended_with_what_it_started(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pids = tmp_path / "pids"
    slow = sh("slow", f"sleep 600 & echo $! >{pids}; sleep 600", limit_s=0.5)

    assert run(tmp_path, [[["slow"]]], slow) == 1

    assert "slow: still running after 0.5 s, ending it" in capsys.readouterr().out
    eventually(lambda: not Path(f"/proc/{pids.read_text().strip()}").exists(), what="end of the child")


def test_a_run_that_is_terminated_ends_its_tiers_and_still_says_what_ran(tmp_path: Path) -> None:
    started = tmp_path / "started"
    code = f"""
import signal
from pathlib import Path
from scripts.tier_list import Tier
from scripts.tiers import Runner, interrupt
signal.signal(signal.SIGTERM, interrupt)
tiers = {{
    "quick": Tier("quick", [["true"]]),
    "slow": Tier("slow", [["sh", "-c", "echo $$ >{started}.new; mv {started}.new {started}; exec sleep 600"]]),
    "never": Tier("never", [["true"]]),
}}
raise SystemExit(Runner(Path("{tmp_path}"), {{}}, tiers).run([[["quick", "slow", "never"]]]))
"""
    process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    eventually(started.exists, what="the slow tier")

    process.send_signal(signal.SIGTERM)
    screen, _ = process.communicate(timeout=60)

    assert process.returncode == 1
    table = rows(screen)
    assert [table[name][2] for name in ("quick", "slow", "never")] == ["passed", "FAILED", "FAILED"]
    assert table["never"][3] == "did not run"
    with pytest.raises(ProcessLookupError):
        os.kill(int(started.read_text()), 0)


def test_every_test_file_belongs_to_a_tier_of_make_test() -> None:
    chosen = {name for phase in PLANS["test"] for lane in phase for name in lane}
    named = [part for name in chosen for command in TIERS[name].commands for part in command if part[:6] == "tests/"]

    for path in (ROOT / "tests").rglob("test_*.py"):
        relative = str(path.relative_to(ROOT))
        assert any(relative == part or relative.startswith(f"{part}/") for part in named), relative


def test_the_plans_name_tiers_and_the_shortest_deployment_is_there() -> None:
    for plan in PLANS.values():
        assert {name for phase in plan for lane in phase for name in lane} <= TIERS.keys()
    assert any("pytest.mark.smoke_deploy" in path.read_text() for path in (ROOT / CHECKOUT).glob("test_*.py"))
