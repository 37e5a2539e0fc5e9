"""Settings of a process: where the cluster is and how to reach it, from the environment, with defaults.

A deployment writes these variables into one file (``seedcore.env``). The command line, the Coordinator, the
supervisor and a user's driver all read them through this module, so that they agree.
"""

from __future__ import annotations

import ipaddress
import os
import re
import shlex
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from seedcore.core.errors import ConfigError, Fault

COORDINATOR_NAME = "seedcore_coordinator"
ORGAN_NAME_PREFIX = "seedcore_organ."
DEFAULT_NAMESPACE = "seedcore-dev"
MAX_PORT = 65535
# Settings file of a deployment with inventory/local, in the home of its user.
DEPLOYMENT_SETTINGS = "~/.local/share/seedcore/etc/seedcore.env"
# Any of these names the cluster; Ray sets the last one in every process that it starts.
_SAY_WHERE = (
    "RAY_ADDRESS",
    "RAY_AUTH_MODE",
    "RAY_AUTH_TOKEN",
    "RAY_AUTH_TOKEN_PATH",
    "SEEDCORE_DASHBOARD_URL",
    "SEEDCORE_HTTP_HOST",
    "SEEDCORE_HTTP_PORT",
    "RAY_RAYLET_PID",
)
LOG_LEVEL = "SEEDCORE_LOG_LEVEL"
LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")
DEFAULT_LOG_LEVEL = "INFO"
DEFAULT_STATE_DIR = "~/.local/state/seedcore"
DEFAULT_TOKEN_PATH = "~/.ray/auth_token"  # noqa: S105 - where Ray looks, not a token


def adopt_deployment() -> Mapping[str, str]:
    """Complete this process's environment from this user's deployment, if nothing in it names a cluster.

    A deployment in its default place writes its settings into a file that a new shell has not read. The settings go
    into the environment, because Ray reads the address and the token from there. Variables that are set stay.
    """
    if any(os.environ.get(name) for name in _SAY_WHERE):
        return os.environ
    try:
        text = Path(DEPLOYMENT_SETTINGS).expanduser().read_text(encoding="utf-8")
    except (OSError, RuntimeError, UnicodeDecodeError):
        return os.environ
    for line in text.splitlines():
        name, equals, value = line.partition("=")
        if equals and name.isidentifier():
            os.environ.setdefault(name, "".join(shlex.split(value)))
    return os.environ


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Settings of a deployment.

    Attributes:
        address: The GCS, ``host:port`` (``RAY_ADDRESS``); None lets Ray find it.
        namespace: Ray namespace of every SeedCore actor (``RAY_NAMESPACE``, else ``SEEDCORE_NS``).
        dashboard_url: Ray's dashboard on the head, which serves the State API (``SEEDCORE_DASHBOARD_URL``).
        http_host: Address of the Coordinator's HTTP server (``SEEDCORE_HTTP_HOST``); without authentication a
            loopback address.
        http_port: Its port (``SEEDCORE_HTTP_PORT``).
        http_tls_cert: Its certificate, PEM, followed by its chain (``SEEDCORE_HTTP_TLS_CERT``); None
            means plain HTTP. Clients trust exactly this certificate.
        http_tls_key: The certificate's private key, PEM (``SEEDCORE_HTTP_TLS_KEY``); only the server reads it.
        config: Path of organism.yaml (``SEEDCORE_CONFIG``); None means the packaged one.
        state_dir: Directory of the desired state, the bootstrap lock and the journal (``SEEDCORE_STATE_DIR``).
        inbox: ``sqlite`` for an inbox for durable tasks in ``state_dir``, or the URL of a PostgreSQL database without
            a password (``SEEDCORE_INBOX``); empty for none.
        inbox_passfile: File with the password of that database (``SEEDCORE_INBOX_PASSFILE``), in the format of
            ``PGPASSFILE``, which is the default; nobody else may read it.
        expected_nodes: Names of the nodes that must be alive (``SEEDCORE_EXPECTED_NODES``, comma-separated).
        ray_logs: Logs of Ray's last session on this host (``SEEDCORE_RAY_LOGS``); None if they are not to be read.
        auth_enabled: Whether the cluster requires a token (``RAY_AUTH_MODE=token``).
        token_path: The file with the token (``RAY_AUTH_TOKEN_PATH``, else ``~/.ray/auth_token``).
        log_level: Log level of SeedCore: DEBUG, INFO, WARNING or ERROR (``SEEDCORE_LOG_LEVEL``). The bootstrap that
            creates the Coordinator passes it to the Coordinator and its organs.
    """

    address: str | None = None
    namespace: str = DEFAULT_NAMESPACE
    dashboard_url: str = "http://127.0.0.1:8265"
    http_host: str = "127.0.0.1"
    http_port: int = 8700
    http_tls_cert: Path | None = None
    http_tls_key: Path | None = None
    config: Path | None = None
    state_dir: Path = field(default_factory=lambda: _at_home(DEFAULT_STATE_DIR))
    inbox: str = ""
    inbox_passfile: Path | None = None
    expected_nodes: tuple[str, ...] = ()
    ray_logs: Path | None = None
    auth_enabled: bool = False
    token_path: Path | None = None
    log_level: str = DEFAULT_LOG_LEVEL

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None) -> Settings:
        """Read the settings from ``environ`` (default: this process's environment, see :func:`adopt_deployment`).

        An empty variable counts as unset.

        Raises:
            ConfigError: A variable has an invalid value; the error names all of them.
        """
        env = adopt_deployment() if environ is None else environ
        faults: list[Fault] = []

        def text(*names: str) -> str | None:
            return next((env[name] for name in names if env.get(name)), None)

        def path(name: str, default: str | None = None) -> Path | None:
            value = text(name) or default
            try:
                return Path(value).expanduser() if value else None
            except RuntimeError:
                faults.append(_env_fault(name, value or "", "a path; '~' is unknown without a home directory"))
                return None

        port_text = text("SEEDCORE_HTTP_PORT") or "8700"
        port = int(port_text) if _PORT.fullmatch(port_text) else 0
        if not 0 < port <= MAX_PORT:
            faults.append(_env_fault("SEEDCORE_HTTP_PORT", port_text, f"a port from 1 to {MAX_PORT}"))
        dashboard = text("SEEDCORE_DASHBOARD_URL") or "http://127.0.0.1:8265"
        if not _is_http_url(dashboard):
            faults.append(_env_fault("SEEDCORE_DASHBOARD_URL", dashboard, "a URL such as http://127.0.0.1:8265"))
        # Like Ray: any case, but no blanks around it.
        mode = (text("RAY_AUTH_MODE") or "disabled").lower()
        if mode not in {"token", "disabled"}:
            faults.append(_env_fault("RAY_AUTH_MODE", mode, "token or disabled"))
        http_host = text("SEEDCORE_HTTP_HOST") or "127.0.0.1"
        if mode == "disabled" and not _is_loopback(http_host):
            wanted = "127.0.0.1, ::1 or localhost without authentication (set RAY_AUTH_MODE=token to open it to others)"
            faults.append(_env_fault("SEEDCORE_HTTP_HOST", http_host, wanted))
        log_level = (text(LOG_LEVEL) or DEFAULT_LOG_LEVEL).upper()
        faults.extend(_log_level_faults(log_level))
        tls_cert, tls_key = path("SEEDCORE_HTTP_TLS_CERT"), path("SEEDCORE_HTTP_TLS_KEY")
        if tls_key is not None and tls_cert is None:
            faults.append(_env_fault("SEEDCORE_HTTP_TLS_CERT", "", "a path, because SEEDCORE_HTTP_TLS_KEY is set"))
        inbox = text("SEEDCORE_INBOX") or "none"
        inbox = inbox if "://" in inbox else inbox.lower()
        faults.extend(_inbox_faults(inbox))
        config, ray_logs = path("SEEDCORE_CONFIG"), path("SEEDCORE_RAY_LOGS")
        state_dir = path("SEEDCORE_STATE_DIR", DEFAULT_STATE_DIR)
        inbox_passfile = path("SEEDCORE_INBOX_PASSFILE")
        token_path = path("RAY_AUTH_TOKEN_PATH", DEFAULT_TOKEN_PATH if mode == "token" else None)
        if faults or state_dir is None:
            raise ConfigError(tuple(faults))
        return cls(
            address=text("RAY_ADDRESS"),
            namespace=text("RAY_NAMESPACE", "SEEDCORE_NS") or DEFAULT_NAMESPACE,
            dashboard_url=dashboard.rstrip("/"),
            http_host=http_host,
            http_port=port,
            http_tls_cert=tls_cert,
            http_tls_key=tls_key,
            config=config,
            state_dir=state_dir,
            inbox="" if inbox == "none" else inbox,
            inbox_passfile=inbox_passfile,
            expected_nodes=tuple(
                name for raw in (text("SEEDCORE_EXPECTED_NODES") or "").split(",") if (name := raw.strip())
            ),
            ray_logs=ray_logs,
            auth_enabled=mode == "token",
            token_path=token_path,
            log_level=log_level,
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, for another process of this host."""
        return {name: str(value) if isinstance(value, Path) else value for name, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Settings:
        """Build them from the result of :meth:`to_dict`; keys of another release are ignored, missing ones default."""
        values = {one.name: data[one.name] for one in fields(cls) if one.name in data}
        paths = {name: Path(values[name]) for name in _PATHS if values.get(name)}
        return cls(**{**values, **paths})

    @property
    def http_url(self) -> str:
        """Return the base URL of the Coordinator's HTTP server, seen from its own host."""
        host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(self.http_host, self.http_host)
        if ":" in host and not host.startswith("["):
            host = f"[{host}]"
        return f"{'https' if self.http_tls_cert else 'http'}://{host}:{self.http_port}"

    @property
    def inbox_place(self) -> str:
        """Return where the inbox is, for people: ``sqlite``, or ``host/database``; empty for none."""
        return database_of(self.inbox) if "://" in self.inbox else self.inbox

    def token(self) -> str | None:
        """Return the token, or None if authentication is off.

        Raises:
            ConfigError: Authentication is on, but no token can be read.
        """
        if not self.auth_enabled:
            return None
        if value := os.environ.get("RAY_AUTH_TOKEN", "").strip():
            return _checked_token(value, source="RAY_AUTH_TOKEN")
        path = self.token_path or _at_home(DEFAULT_TOKEN_PATH)
        try:
            value = path.read_text(encoding="ascii").strip()
        except (OSError, ValueError) as error:
            detail = error.strerror if isinstance(error, OSError) else "not plain ASCII text"
            raise ConfigError((Fault(str(path), 0, 0, f"cannot read the token: {detail}"),)) from error
        if not value:
            raise ConfigError((Fault(str(path), 0, 0, "the token file is empty"),))
        return _checked_token(value, source=str(path))


_PATHS = ("http_tls_cert", "http_tls_key", "config", "state_dir", "inbox_passfile", "ray_logs", "token_path")
_PORT = re.compile(r"[0-9]{1,5}")
_TOKEN = re.compile(r"[!-~]+")


def _at_home(path: str) -> Path:
    try:
        return Path(path).expanduser()
    except RuntimeError:
        # A user without a home directory: the error comes from the code that needs the path.
        return Path(path)


def _checked_token(value: str, *, source: str) -> str:
    if not _TOKEN.fullmatch(value):
        # An HTTP header could not contain it. The message must not contain the token.
        raise ConfigError((Fault(source, 0, 0, "the token is not one word of printable ASCII characters"),))
    return value


def _is_http_url(url: str) -> bool:
    try:
        parts = urlsplit(url)
        # Reading the port validates it.
        return parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _log_level_faults(level: str) -> list[Fault]:
    if level in LOG_LEVELS:
        return []
    return [_env_fault(LOG_LEVEL, level, f"{', '.join(LOG_LEVELS[:-1])} or {LOG_LEVELS[-1]}")]


def database_of(url: str) -> str:
    """Return the host and the name of the database of a URL, without user and password."""
    parts = urlsplit(url)
    given = dict(parse_qsl(parts.query))
    host = parts.netloc.rpartition("@")[2] or given.get("host") or "localhost"
    return f"{host}/{parts.path.strip('/') or given.get('dbname') or parts.username or ''}"


def _inbox_faults(inbox: str) -> list[Fault]:
    allowed = "sqlite, none or a URL such as postgresql://user@host/database"
    if "://" not in inbox:
        return [] if inbox in {"none", "sqlite"} else [_env_fault("SEEDCORE_INBOX", inbox, allowed)]
    try:
        parts = urlsplit(inbox)
        has_password = parts.password is not None or "password" in dict(parse_qsl(parts.query))
        is_url = parts.scheme in {"postgresql", "postgres"} and parts.port != 0
    except ValueError:
        has_password, is_url = "@" in inbox, False
    if has_password:
        # The message must not contain it.
        text = "SEEDCORE_INBOX has a password in its URL: put it into the file that SEEDCORE_INBOX_PASSFILE names"
        return [Fault("environment", 0, 0, text)]
    return [] if is_url else [_env_fault("SEEDCORE_INBOX", inbox, allowed)]


def _env_fault(name: str, value: str, allowed: str) -> Fault:
    return Fault("environment", 0, 0, f"{name} is {value!r}, expected {allowed}")
