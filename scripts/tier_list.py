"""Define every tier of tests with its commands, and the plans that run them; docs/testing.md explains their use."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

# Phases run in sequence, the lanes of a phase in parallel, and the tiers of a lane in sequence. A lane that has
# finished runs tiers that wait in another lane.
Plan = Sequence[Sequence[Sequence[str]]]
Command = Sequence[str]
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
# The tests of each directory share one deployment and run in order; the two directories may run in parallel.
CHECKOUT = "tests/deploy/checkout"
BROKEN = "tests/deploy/broken"


def _nothing_missing() -> str:
    return ""


def _no_browser() -> str:
    if any(map(shutil.which, BROWSERS)):
        return ""
    return "there is no Chromium (Debian: apt-get install chromium, as root)"


def _no_prometheus() -> str:
    if shutil.which("prometheus") and shutil.which("promtool"):
        return ""
    return "there is no Prometheus (Debian: apt-get install prometheus, as root)"


@dataclass(frozen=True)
class Tier:
    """A set of tests that run together.

    Attributes:
        name: Its name in the table and in the file name of its log.
        commands: The commands; all of them run, and each must succeed.
        missing: Returns the reason why the tier cannot run on this machine, or an empty text.
        skip_codes: Exit codes that mean "nothing ran", with the reason; if it is empty, the output's last line is.
        on_path: Puts the programs of the virtual environment on PATH.
        limit_s: Time limit of each command in seconds; a command that exceeds it is ended and has failed.
    """

    name: str
    commands: Sequence[Command]
    missing: Callable[[], str] = _nothing_missing
    skip_codes: Mapping[int, str] = field(default_factory=dict)
    on_path: bool = False
    limit_s: float = 2400.0


def _pytest(*arguments: str) -> list[Command]:
    return [["{bin}/pytest", *arguments, "--durations=15", "--junitxml={report}"]]


_PARALLEL = ("-n", "{workers}", "--dist")
_PYTHON_LINT: list[Command] = [
    ["{bin}/ruff", "check", "."],
    ["{bin}/ruff", "format", "--check", "."],
    ["{bin}/mypy"],
]
_INSTALL = ("{bin}/uv", "pip", "install", "--quiet", "--python", "{bin}/python", "--require-hashes", "--requirement")
# Exit code of molecule/run where there is no Docker.
_NO_DOCKER = {3: ""}
# Exit code of pytest when it has selected no test.
_NOTHING_ALONE = {5: "no test is marked alone"}
# default includes the cases of gate_red.
CONTAINERS = ("default",)
# chaos is left out: the campaign of `make chaos` runs for an hour.
_REST = sorted(
    {path.parent.name for path in Path(__file__).parents[1].glob("molecule/*/molecule.yml")}
    - {*CONTAINERS, "gate_red", "chaos"}
)
_OTHERS = ("--ignore", CHECKOUT, "--ignore", BROKEN)
_RAY = ("tests/integration", "tests/test_coordinator_async_init.py")

TIERS = {
    tier.name: tier
    for tier in (
        Tier("types", _PYTHON_LINT),
        Tier(
            "lint",
            [
                *_PYTHON_LINT,
                ["{bin}/lint-imports"],
                ["{bin}/yamllint", "--strict", "."],
                # ansible-lint needs the Docker modules that the scenarios use.
                [*_INSTALL, "requirements/molecule.txt"],
                ["{bin}/ansible-lint", "--offline"],
            ],
            on_path=True,
        ),
        Tier("sanity", [[".ci/sanity"]]),
        Tier("unit-quick", _pytest("tests/unit", *_PARALLEL, "worksteal", "--hypothesis-profile=quick")),
        Tier("unit", _pytest("tests/unit", *_PARALLEL, "worksteal")),
        Tier("ansible", _pytest("tests/ansible", *_PARALLEL, "worksteal")),
        Tier("integration", _pytest(*_RAY, *_PARALLEL, "loadfile", "-m", "not alone")),
        Tier("alone-integration", _pytest("tests/integration", "-m", "alone"), skip_codes=_NOTHING_ALONE),
        # The shortest test of a whole deployment on this machine.
        Tier("deploy-local", _pytest(CHECKOUT, "-m", "smoke_deploy")),
        Tier("deploy-checkout", _pytest(CHECKOUT, "-m", "not alone"), limit_s=3600.0),
        Tier("deploy", _pytest("tests/deploy", *_OTHERS, "-m", "not alone"), limit_s=3600.0),
        Tier("alone-deploy", _pytest("tests/deploy", "-m", "alone"), skip_codes=_NOTHING_ALONE),
        # -s prints a table: the fault, what the run said, seconds until it was healthy again, tasks that failed.
        Tier("broken-releases", _pytest(BROKEN, "-s"), limit_s=3600.0),
        Tier("browser", _pytest("tests/browser"), _no_browser),
        Tier("monitoring", _pytest("tests/monitoring"), _no_prometheus),
        Tier("containers", [["molecule/run", *CONTAINERS]], skip_codes=_NO_DOCKER),
        Tier("other-containers", [["molecule/run", *_REST]], skip_codes=_NO_DOCKER, limit_s=4 * 3600.0),
        Tier("soak", [["{bin}/python", "-m", "benchmarks.soak"]]),
        Tier("durable-soak", [["{bin}/python", "-m", "benchmarks.soak", "--durable"]]),
    )
}

_TEST: list[Sequence[Sequence[str]]] = [
    [
        # Short tiers come last, because the lane that ends first takes what waits in the other.
        ["lint", "sanity", "unit", "integration", "deploy", "monitoring", "ansible", "browser"],
        ["containers", "deploy-checkout"],
    ],
    [["alone-integration", "alone-deploy"]],
]
PLANS: dict[str, Plan] = {
    "quick": [[["types", "unit-quick"]]],
    "deploy-test": [[["deploy-checkout"], ["deploy"]], [["alone-deploy"]]],
    "check": [[["lint", "unit", "integration"], ["sanity", "ansible", "deploy-local"]], [["alone-integration"]]],
    "test": _TEST,
    "test-all": [*_TEST, [["other-containers"]], [["broken-releases"]], [["soak"]], [["durable-soak"]]],
}
