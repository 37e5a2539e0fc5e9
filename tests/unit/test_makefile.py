from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TARGETS = re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE)


@pytest.mark.parametrize("target", TARGETS)
def test_everything_that_a_target_needs_has_a_rule(target: str, tmp_path: Path) -> None:
    # Simulate a machine where nothing is installed; a dry run executes nothing.
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
    """Return the environment of a recipe in the Makefile for the given environment."""
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


@pytest.mark.parametrize("target", ["deploy", "status", "teardown"])
def test_a_home_that_cannot_be_written_is_named_with_the_remedy(target: str) -> None:
    def planned(**home: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["make", "--dry-run", target],
            cwd=ROOT, env={"PATH": os.environ["PATH"], **home}, capture_output=True, text=True, check=False,
        )  # fmt: skip

    refused = planned(HOME="/nonexistent")
    assert refused.returncode == 2
    assert "HOME is /nonexistent, which is not writable." in refused.stderr
    assert f"HOME=PATH make {target}" in refused.stderr
    assert planned(HOME=str(ROOT)).returncode == 0
    # Without HOME, the home directory comes from passwd.
    assert planned().returncode == 0


@pytest.mark.parametrize("name", ["plain", "with a blank"])
def test_an_environment_that_was_moved_or_whose_python_is_gone_is_made_anew(tmp_path: Path, name: str) -> None:
    checkout = tmp_path / name
    checkout.mkdir()
    for part in ("Makefile", ".ci", "requirements", "roles", "pyproject.toml"):
        (checkout / part).symlink_to(ROOT / part)
    venv = checkout / ".venv"
    (venv / "bin").mkdir(parents=True)
    (venv / "bin" / "python").symlink_to(sys.executable)
    for stamp in ("deploy", "dev"):
        (venv / stamp).touch()

    def would_make(shebang: str) -> bool:
        (venv / "bin" / "ansible-playbook").write_text(f"{shebang}\n")
        done = subprocess.run(["make", "-n", "status"], cwd=checkout, capture_output=True, text=True, check=True)
        return ".ci/venv" in done.stdout

    here = f"{checkout}/.venv/bin/python"
    assert not would_make(f"#!{here}")
    # The form that pip writes for a path that is long or contains a blank.
    assert not would_make(f'#!/bin/sh\n\'\'\'exec\' "{here}" "$0" "$@"')
    assert would_make("#!/elsewhere/.venv/bin/python")
    (venv / "bin" / "python").unlink()
    (venv / "bin" / "python").symlink_to("/nowhere/python3")
    assert would_make(f"#!{here}")


def test_a_path_with_a_blank_is_one_path() -> None:
    done = subprocess.run(
        ["make", "-n", "deploy", "seedcore_config=my files/organism.yaml", "ray_prefix=my home/sc"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    command = shlex.split(next(line for line in done.stdout.splitlines() if "ansible-playbook" in line))

    assert '{"seedcore_config": "my files/organism.yaml"}' in command
    assert f'{{"ray_prefix": "{ROOT}/my home/sc"}}' in command


@pytest.mark.parametrize("code", [0, 2])
def test_a_build_machine_is_told_how_it_ended_and_how_long_it_took(code: int, tmp_path: Path) -> None:
    for name in ("chromium", "prometheus", "make"):
        program = tmp_path / name
        program.write_text(f'#!/bin/sh\necho "$0 $*"\nexit {code}\n')
        program.chmod(0o755)

    done = subprocess.run(
        [ROOT / ".ci" / "run", "WORKERS=1"],
        env={"PATH": f"{tmp_path}:{os.environ['PATH']}", "SEEDCORE_MOLECULE": "no"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip

    # make exits with 2 for any failed recipe.
    assert done.returncode == code
    tests, last = done.stdout.splitlines()
    assert tests == f"{tmp_path}/make test WORKERS=1"
    word = "FAILED (exit code 2)" if code else "passed"
    assert re.fullmatch(rf"seedcore: make test {re.escape(word)} after \d+ s, including installations", last)


@pytest.mark.parametrize("target", ["test", "molecule", "chaos"])
def test_a_signal_to_make_reaches_the_tests_and_make_waits_for_them(target: str, tmp_path: Path) -> None:
    checkout = tmp_path / "checkout"
    program = tmp_path / "program"
    program.write_text(
        "#!/bin/sh\n[ \"$1\" = -c ] && exit 0\ntrap 'echo cleaned up; exit 0' TERM\necho runs\nread -r line\n"
    )
    program.chmod(0o755)
    (checkout / ".ci").mkdir(parents=True)
    (checkout / "molecule").mkdir()
    (checkout / "roles/ray").mkdir(parents=True)
    (checkout / "roles/ray/files").symlink_to(ROOT / "roles/ray/files")
    for name in ("Makefile", "requirements", "pyproject.toml", ".ci/intact"):
        (checkout / name).symlink_to(ROOT / name)
    for name in ("molecule/run", ".ci/chaos"):
        (checkout / name).symlink_to(program)
    (checkout / ".venv/bin").mkdir(parents=True)
    (checkout / ".venv/bin/python").symlink_to(program)
    (checkout / ".venv/bin/ansible-playbook").write_text(f"#!{checkout}/.venv/bin/python\n")
    for name in ("deploy", "dev"):
        (checkout / ".venv" / name).touch()

    with subprocess.Popen(
        ["make", target],
        cwd=checkout, env={"PATH": os.environ["PATH"]}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as made:  # fmt: skip
        assert made.stdin is not None
        assert made.stdout is not None
        assert made.stdout.readline() == "runs\n"
        made.send_signal(signal.SIGTERM)
        made.wait(timeout=30)
        # End a process that no signal has reached.
        made.stdin.close()
        assert "cleaned up\n" in made.stdout.read()
