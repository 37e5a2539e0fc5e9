"""Run the code blocks of README, quickstart, agents and client unchanged against this deployment."""

from __future__ import annotations

import json
import os
import subprocess

import pytest

from tests.deploy.checkout.conftest import Site
from tests.deploy.conftest import BIN, ROOT, RUN_TIMEOUT_S
from tests.support.pages import Block, blocks_to_run

pytestmark = pytest.mark.timeout(2400)

# Variables for the organism and the certificate of the other tests; the pages set their own.
OF_THE_SITE = (
    "seedcore_config",
    "seedcore_extra_requirements",
    "seedcore_http_tls_certificate",
    "seedcore_http_tls_key",
)


class Shell:
    """A user's shell in a checkout, which keeps environment and files from one block to the next."""

    def __init__(self, site: Site) -> None:
        deployment = site.deployment
        self.directory = deployment.directory / "checkout"
        self.directory.mkdir()
        for entry in ROOT.iterdir():
            if entry.name != ".venv":
                (self.directory / entry.name).symlink_to(entry)
        variables = deployment.directory / "pages.json"
        mine = {name: value for name, value in deployment.variables.items() if name not in OF_THE_SITE}
        variables.write_text(json.dumps(mine))
        # The pages use the default path of a deployment.
        place = deployment.directory / "home" / ".local" / "share" / "seedcore"
        place.parent.mkdir(parents=True)
        place.symlink_to(deployment.prefix)
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "SEEDCORE_"))}
        self.environment = {
            **inherited,
            "HOME": str(deployment.directory / "home"),
            "ANSIBLE_HOME": str(deployment.directory / "ansible"),
            "ANSIBLE_NOCOLOR": "1",
            # The prefix and the ports of this test; a user takes the defaults.
            "ARGS": f"-e @{variables}",
            "MAKEFLAGS": f"VENV={BIN.parent}",
        }

    def run(self, script: str) -> str:
        """Run a script, require that each of its commands succeeds, and return its output."""
        after = self.directory.parent / "environment"
        done = subprocess.run(
            ["bash", "-e", "-c", f"{script}\nenv -0 > '{after}'"],
            cwd=self.directory,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=RUN_TIMEOUT_S,
        )
        assert done.returncode == 0, f"{script}\n{done.stdout[-8000:]}"
        self.environment = dict(line.split("=", 1) for line in after.read_text().split("\0") if line)
        return done.stdout


@pytest.fixture(scope="module")
def shell(site: Site) -> Shell:
    """Provide a shell in a checkout after the first command of the quickstart, with the packaged organism deployed."""
    made = Shell(site)
    made.run("make deploy")
    return made


@pytest.mark.parametrize("block", blocks_to_run(), ids=lambda block: block.name)
def test_a_block_of_a_page_runs_as_it_is_written(shell: Shell, block: Block) -> None:
    output = shell.run(block.script)

    if "seedcore submit" in block.script:
        assert '"success": true' in output
    if block.file:
        assert (shell.directory / block.file).read_text() == block.text
