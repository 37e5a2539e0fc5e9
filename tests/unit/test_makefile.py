from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TARGETS = re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE)


@pytest.mark.parametrize("target", TARGETS)
def test_everything_that_a_target_needs_has_a_rule(target: str, tmp_path: Path) -> None:
    # As on a machine where nothing has been installed; nothing is run.
    done = subprocess.run(
        ["make", "--dry-run", f"VENV={tmp_path}/venv", target], cwd=ROOT, capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stderr
    assert done.stdout


def test_a_shell_has_the_environment_of_the_deployment(tmp_path: Path) -> None:
    def shell() -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["make", "--no-print-directory", "shell", f"ray_prefix={tmp_path}"],
            cwd=ROOT, env={**os.environ, "SHELL": "/bin/sh"}, input='echo "$RAY_ADDRESS"\n',
            capture_output=True, text=True, check=False,
        )  # fmt: skip

    assert f"there is no deployment at {tmp_path}: make deploy makes one" in shell().stderr
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "activate").write_text("RAY_ADDRESS=127.0.0.2:26379\nexport RAY_ADDRESS\n")

    assert (done := shell()).returncode == 0, done.stderr
    assert done.stdout == "127.0.0.2:26379\n"


@pytest.mark.parametrize(("subject", "code"), [("Close the file", 0), ("x" * 72, 0), ("x" * 73, 1)])
def test_a_subject_has_at_most_72_characters(subject: str, code: int, tmp_path: Path) -> None:
    message = tmp_path / "message"
    message.write_text(f"{subject}\n\n{'why ' * 50}\n# a comment\n")

    assert subprocess.run([ROOT / ".ci" / "subject", message], capture_output=True, check=False).returncode == code


def passed_on(**environment: str) -> dict[str, str]:
    """Return the environment that a recipe of the Makefile gets from this one."""
    print_it = "include Makefile\nprinted: ; @env -0\n"
    done = subprocess.run(
        ["make", "--no-print-directory", "-f", "-", "printed"],
        cwd=ROOT,
        input=print_it,
        env={"PATH": os.environ["PATH"], "HOME": "/nonexistent", **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return dict(entry.split("=", 1) for entry in done.stdout.split("\0") if "=" in entry)


@pytest.mark.parametrize(
    "name",
    [
        "ANSIBLE_COLLECTIONS_PATH",
        "ANSIBLE_INVENTORY",
        "ANSIBLE_PRIVATE_ROLE_VARS",
        "ANSIBLE_STDOUT_CALLBACK",
        "ANSIBLE_STRATEGY",
        "PIP_TARGET",
        "PYTHONHOME",
        "PYTHONPATH",
        "PYTHONWARNINGS",
        "RAY_ADDRESS",
        "SEEDCORE_CONFIG",
        "UV_PYTHON",
        "UV_CONSTRAINT",
    ],
)
def test_a_recipe_does_not_see_what_a_shell_says_to_our_tools(name: str) -> None:
    assert name not in passed_on(**{name: "/elsewhere"})


@pytest.mark.parametrize(
    "name",
    [
        "ANSIBLE_DISPLAY_OK_HOSTS",
        "ANSIBLE_VAULT_PASSWORD_FILE",
        "PIP_INDEX_URL",
        "PYTHON",
        "UV_INDEX_URL",
        "https_proxy",
    ],
)
def test_a_recipe_sees_what_a_user_means_for_it(name: str) -> None:
    assert passed_on(**{name: "1"})[name] == "1"


def test_the_configuration_is_that_of_the_checkout() -> None:
    assert passed_on(ANSIBLE_CONFIG="/etc/ansible.cfg")["ANSIBLE_CONFIG"] == str(ROOT / "ansible.cfg")


@pytest.mark.parametrize(
    "settings", [{"LC_ALL": "C"}, {"LC_ALL": "xx_YY.UTF-8"}, {"LANG": "xx_YY.UTF-8"}, {"LC_TIME": "xx_YY"}, {}]
)
def test_the_locale_is_one_that_the_machine_has(settings: dict[str, str]) -> None:
    environment = passed_on(**settings)
    program = "import locale; locale.setlocale(locale.LC_ALL, ''); print(locale.getlocale()[1])"

    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False)

    assert done.stdout.strip().upper() == "UTF-8", done.stderr
