from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from seedcore.core.errors import ConfigError
from seedcore.core.settings import Settings


def messages(environ: dict[str, str]) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        Settings.from_env(environ)
    return [str(fault) for fault in caught.value.faults]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    return tmp_path


@pytest.fixture
def homeless(monkeypatch: pytest.MonkeyPatch) -> None:
    """Simulate a user without an entry in passwd and without HOME, as in a service."""
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr("os.getuid", lambda: 4_000_000)


def test_an_empty_environment_gives_the_defaults(home: Path) -> None:
    settings = Settings.from_env({})
    assert settings == Settings()
    assert settings.namespace == "seedcore-dev"
    assert settings.http_url == "http://127.0.0.1:8700"
    assert settings.state_dir == home / ".local/state/seedcore"
    assert settings.config is None
    assert settings.token() is None


def test_every_variable_is_read(home: Path) -> None:
    settings = Settings.from_env(
        {
            "RAY_ADDRESS": "127.0.0.2:26379",
            "RAY_NAMESPACE": "mine",
            "SEEDCORE_DASHBOARD_URL": "https://h:1/",
            "SEEDCORE_HTTP_HOST": "::1",
            "SEEDCORE_HTTP_PORT": "65535",
            "SEEDCORE_CONFIG": "/etc/o.yaml",
            "SEEDCORE_STATE_DIR": "/var/s",
            "SEEDCORE_EXPECTED_NODES": "a, b,,",
            "SEEDCORE_RAY_LOGS": "/ray/logs",
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": "/etc/token",
            "SEEDCORE_LOG_LEVEL": "debug",
        }
    )
    assert settings == Settings(
        address="127.0.0.2:26379",
        namespace="mine",
        dashboard_url="https://h:1",
        http_host="::1",
        http_port=65535,
        config=Path("/etc/o.yaml"),
        state_dir=Path("/var/s"),
        expected_nodes=("a", "b"),
        ray_logs=Path("/ray/logs"),
        auth_enabled=True,
        token_path=Path("/etc/token"),
        log_level="DEBUG",
    )


def test_an_empty_variable_counts_as_unset(home: Path) -> None:
    names = ["RAY_ADDRESS", "RAY_NAMESPACE", "SEEDCORE_HTTP_PORT", "SEEDCORE_CONFIG", "RAY_AUTH_MODE"]
    assert Settings.from_env(dict.fromkeys(names, "")) == Settings()


def test_the_namespace_of_ray_goes_before_ours() -> None:
    assert Settings.from_env({"SEEDCORE_NS": "a"}).namespace == "a"
    assert Settings.from_env({"SEEDCORE_NS": "a", "RAY_NAMESPACE": "b"}).namespace == "b"


@pytest.mark.parametrize("port", ["0", "65536", "-1", "x", "8700 ", "1.5", "\u0663", "\u00b2", "9" * 5000])
def test_a_port_that_cannot_be_is_refused(port: str) -> None:
    assert messages({"SEEDCORE_HTTP_PORT": port}) == [
        f"environment: SEEDCORE_HTTP_PORT is {port!r}, expected a port from 1 to 65535"
    ]


def test_a_log_level_that_does_not_exist_is_refused() -> None:
    assert messages({"SEEDCORE_LOG_LEVEL": "loud"}) == [
        "environment: SEEDCORE_LOG_LEVEL is 'LOUD', expected DEBUG, INFO, WARNING or ERROR"
    ]


@pytest.mark.parametrize(
    "url", ["127.0.0.1:8265", "ftp://x", "http://", "http://:80", "http://[::1", "http://h:x", "http://h:70000"]
)
def test_a_url_that_cannot_be_is_refused(url: str) -> None:
    assert messages({"SEEDCORE_DASHBOARD_URL": url}) == [
        f"environment: SEEDCORE_DASHBOARD_URL is {url!r}, expected a URL such as http://127.0.0.1:8265"
    ]


def test_every_wrong_variable_is_named() -> None:
    found = messages({"SEEDCORE_HTTP_PORT": "x", "SEEDCORE_DASHBOARD_URL": "x", "RAY_AUTH_MODE": "x"})
    assert [text.split()[1] for text in found] == ["SEEDCORE_HTTP_PORT", "SEEDCORE_DASHBOARD_URL", "RAY_AUTH_MODE"]


def test_the_authentication_mode_is_read_as_ray_reads_it() -> None:
    assert Settings.from_env({"RAY_AUTH_MODE": "TOKEN"}).auth_enabled
    assert not Settings.from_env({"RAY_AUTH_MODE": "Disabled"}).auth_enabled
    # Ray would read this as "disabled", which the author did not mean.
    (message,) = messages({"RAY_AUTH_MODE": "token "})
    assert message == "environment: RAY_AUTH_MODE is 'token ', expected token or disabled"


def test_every_path_may_begin_at_home(home: Path) -> None:
    settings = Settings.from_env(
        {
            "SEEDCORE_CONFIG": "~/o.yaml",
            "SEEDCORE_STATE_DIR": "~/s",
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": "~/t",
        }
    )
    assert (settings.config, settings.state_dir, settings.token_path) == (home / "o.yaml", home / "s", home / "t")


@pytest.mark.usefixtures("homeless")
def test_without_a_home_directory_the_state_has_to_be_named() -> None:
    assert messages({"RAY_AUTH_MODE": "token"}) == [
        f"environment: {name} is {path!r}, expected a path; '~' is unknown without a home directory"
        for name, path in [
            ("SEEDCORE_STATE_DIR", "~/.local/state/seedcore"),
            ("RAY_AUTH_TOKEN_PATH", "~/.ray/auth_token"),
        ]
    ]
    assert Settings.from_env({"SEEDCORE_STATE_DIR": "/s"}).state_dir == Path("/s")
    assert Settings(auth_enabled=True).auth_enabled
    with pytest.raises(ConfigError, match="cannot read the token"):
        Settings(auth_enabled=True).token()


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("0.0.0.0", "http://127.0.0.1:8700"),
        ("::", "http://[::1]:8700"),
        ("::1", "http://[::1]:8700"),
        ("[::1]", "http://[::1]:8700"),
        ("head", "http://head:8700"),
    ],
)
def test_the_url_is_one_that_the_own_host_can_reach(host: str, url: str) -> None:
    assert Settings(http_host=host).http_url == url


def test_the_token_is_that_of_the_file(home: Path) -> None:
    path = home / "token"
    path.write_text("  s3cret\n")
    assert Settings(auth_enabled=True, token_path=path).token() == "s3cret"
    assert Settings(auth_enabled=False, token_path=path).token() is None


def test_the_token_is_where_ray_has_it_unless_named(home: Path) -> None:
    (home / ".ray").mkdir()
    (home / ".ray/auth_token").write_text("abc")
    assert Settings.from_env({"RAY_AUTH_MODE": "token"}).token() == "abc"


def test_a_token_in_the_environment_goes_first(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (home / "token").write_text("file")
    settings = Settings(auth_enabled=True, token_path=home / "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", " env ")
    assert settings.token() == "env"
    monkeypatch.setenv("RAY_AUTH_TOKEN", "  ")
    assert settings.token() == "file"


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (None, "cannot read the token: No such file or directory"),
        (b"", "the token file is empty"),
        (b" \n", "the token file is empty"),
        (b"\xff", "cannot read the token: not plain ASCII text"),
        (b"two words", "the token is not one word of printable ASCII characters"),
        (b"a\r\nX: y", "the token is not one word of printable ASCII characters"),
        (b"a\0b", "the token is not one word of printable ASCII characters"),
    ],
)
def test_a_token_that_cannot_be_used_is_a_fault_that_does_not_show_it(
    home: Path, content: bytes | None, problem: str
) -> None:
    path = home / "token"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        Settings(auth_enabled=True, token_path=path).token()
    assert str(caught.value) == f"{path}: {problem}"


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "head.example", "head"])
def test_without_authentication_nobody_else_may_reach_the_coordinator(host: str) -> None:
    (message,) = messages({"SEEDCORE_HTTP_HOST": host})
    assert f"SEEDCORE_HTTP_HOST is {host!r}" in message
    assert "RAY_AUTH_MODE=token" in message
    assert Settings.from_env({"SEEDCORE_HTTP_HOST": host, "RAY_AUTH_MODE": "token"}).http_host == host


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "localhost"])
def test_without_authentication_the_loopback_interface_is_allowed(host: str) -> None:
    assert Settings.from_env({"SEEDCORE_HTTP_HOST": host}).http_host == host


@pytest.fixture
def fresh_shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Simulate a shell whose home has a deployment but which has not sourced it; return the settings file."""
    monkeypatch.setattr(os, "environ", {"HOME": str(tmp_path)})
    path = tmp_path / ".local" / "share" / "seedcore" / "etc" / "seedcore.env"
    path.parent.mkdir(parents=True)
    path.write_text(
        "# Managed by Ansible\nRAY_ADDRESS=127.0.0.2:26379\nRAY_AUTH_MODE=token\nRAY_AUTH_TOKEN_PATH='/my home/token'\n"
        "RAY_NAMESPACE=team-a\nSEEDCORE_DASHBOARD_URL=http://127.0.0.1:28265\nSEEDCORE_CONFIG=''\n"
    )
    return path


def test_a_fresh_shell_finds_the_deployment_of_its_user(fresh_shell: Path) -> None:
    settings = Settings.from_env()

    assert (settings.address, settings.namespace) == ("127.0.0.2:26379", "team-a")
    assert settings.dashboard_url == "http://127.0.0.1:28265"
    assert settings.token_path == Path("/my home/token")
    # Ray reads the token from there.
    assert os.environ["RAY_ADDRESS"] == "127.0.0.2:26379"


def test_what_a_shell_says_of_the_organism_stays(fresh_shell: Path) -> None:
    os.environ["RAY_NAMESPACE"] = "mine"
    settings = Settings.from_env()

    assert (settings.address, settings.namespace) == ("127.0.0.2:26379", "mine")


@pytest.mark.parametrize("name", ["RAY_ADDRESS", "SEEDCORE_DASHBOARD_URL", "RAY_RAYLET_PID"])
def test_a_shell_that_says_where_the_cluster_is_is_believed(fresh_shell: Path, name: str) -> None:
    os.environ[name] = "http://127.0.0.1:1"
    settings = Settings.from_env()

    assert settings.namespace == "seedcore-dev"
    assert not settings.auth_enabled


def test_without_a_deployment_there_are_the_defaults(fresh_shell: Path) -> None:
    fresh_shell.unlink()
    assert Settings.from_env().address is None


@pytest.mark.parametrize("script", ["bootstrap_coordinator.py", "test_coordinator_async_init.py"])
def test_a_script_under_a_python_without_its_packages_says_what_to_type(script: str) -> None:
    path = Path(__file__).parents[3] / "scripts" / script

    # -S: like the Python of a checkout in which only a deployment has run.
    run = subprocess.run([sys.executable, "-S", str(path)], capture_output=True, text=True, timeout=60, check=False)

    assert run.returncode == 1
    assert run.stderr.startswith("No module named ")
    assert run.stderr.endswith("first: . ~/.local/share/seedcore/bin/activate\n")
    assert len(run.stderr.splitlines()) == 1


def test_the_check_of_a_cluster_knows_the_deployment_before_ray_is_imported(fresh_shell: Path, tmp_path: Path) -> None:
    path = Path(__file__).parents[3] / "scripts" / "test_coordinator_async_init.py"
    (tmp_path / "ray.py").write_text("import os\nraise ModuleNotFoundError(os.environ['RAY_AUTH_MODE'])\n")
    environ = {"HOME": str(tmp_path), "PYTHONPATH": str(tmp_path)}

    run = subprocess.run(
        [sys.executable, str(path)], env=environ, capture_output=True, text=True, timeout=60, check=False
    )

    assert run.stderr.startswith("token. ")


def test_settings_travel_as_plain_data() -> None:
    sent = Settings(namespace="n", http_port=1, http_tls_cert=Path("/c.pem"), token_path=Path("/t"), auth_enabled=True)

    assert Settings.from_dict({**sent.to_dict(), "of_a_later_release": 1}) == sent
    assert not any(isinstance(value, Path) for value in sent.to_dict().values())
    assert Settings.from_dict({"http_port": 2}) == Settings(http_port=2)
