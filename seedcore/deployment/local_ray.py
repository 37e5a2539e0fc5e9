"""Run a private Ray on loopback that ends with this process, however the process ends.

It is for development on one machine. In a deployment the role ``ray`` runs Ray, see roles/ray.
"""

from __future__ import annotations

import os
import secrets
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from seedcore.core.errors import ClusterError
from seedcore.core.reason import Reason
from seedcore.core.settings import Settings
from seedcore.organ.children import end_children_with_this_process, kill_marked
from seedcore.status.state_api import read_cluster

START_TIMEOUT_S = 120.0
# Not 127.0.0.1, because Ray replaces it by the host's outward address.
_NODE_IP = "127.0.0.2"
_LAST_LINES = 10
_POLL_S = 0.1
_PORTS = (
    "port",
    "dashboard-port",
    "node-manager-port",
    "object-manager-port",
    "dashboard-agent-grpc-port",
    "dashboard-agent-listen-port",
    "runtime-env-agent-port",
    "metrics-export-port",
    "ray-client-server-port",
)


class LocalRay:
    """One Ray head with its own directory, ports and token; it sets its environment in this process.

    Args:
        import_paths: Directories that every process of the cluster imports modules from.
        http_port: Port of the Coordinator's HTTP server; 0 for any free port.

    Attributes:
        directory: Holds all of its files, including the logs; ``stop`` removes it.
        settings: Settings of the cluster.
        activate: A file for other shells to source.
    """

    def __init__(self, import_paths: Sequence[Path], *, http_port: int = 0) -> None:
        # Short: the path of a socket has at most 107 bytes.
        self.directory = Path(tempfile.mkdtemp(prefix="sdev-", dir="/tmp"))
        names = ("http", *_PORTS)
        self._ports = dict(zip(names, free_ports(len(names)), strict=True))
        token = self.directory / "token"
        token.touch(mode=0o600)
        token.write_text(secrets.token_hex(16))
        self.settings = Settings(
            address=f"{_NODE_IP}:{self._ports['port']}",
            dashboard_url=f"http://127.0.0.1:{self._ports['dashboard-port']}",
            http_port=http_port or self._ports["http"],
            state_dir=self.directory / "state",
            auth_enabled=True,
            token_path=token,
        )
        self._environment = {
            "PYTHONPATH": os.pathsep.join([*map(str, import_paths), *filter(None, [os.environ.get("PYTHONPATH", "")])]),
            "PYTHONUNBUFFERED": "1",
            "RAY_ADDRESS": str(self.settings.address),
            "RAY_NAMESPACE": self.settings.namespace,
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(token),
            "RAY_USAGE_STATS_ENABLED": "0",
            "SEEDCORE_DASHBOARD_URL": self.settings.dashboard_url,
            "SEEDCORE_HTTP_HOST": self.settings.http_host,
            "SEEDCORE_HTTP_PORT": str(self.settings.http_port),
            "SEEDCORE_STATE_DIR": str(self.settings.state_dir),
        }
        self.activate = self.directory / "activate"
        lines = [f"export {name}={shlex.quote(value)}\n" for name, value in self._environment.items()]
        programs = shlex.quote(str(Path(sys.executable).parent))
        self.activate.write_text("".join([*lines, f"export PATH={programs}:$PATH\n"]))
        self._mark = ""
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def logs(self) -> Path:
        """Return the directory of the logs of Ray's processes and of the actors."""
        return self.directory / "t" / "session_latest" / "logs"

    def start(self, *, timeout_s: float = START_TIMEOUT_S) -> None:
        """Start Ray and wait until its node is alive. This process must not have imported Ray before.

        Raises:
            ClusterError: Ray has not come up in time, or has ended.
        """
        self._mark = end_children_with_this_process()
        # Variables that the shell sets for another cluster must not reach this one.
        for name in [name for name in os.environ if name.startswith(("RAY_", "SEEDCORE_")) and name.isupper()]:
            if name not in {"SEEDCORE_LOG_LEVEL", "SEEDCORE_ORGAN_PROCESS"}:
                del os.environ[name]
        os.environ.update(self._environment)
        self.settings = replace(self.settings, log_level=Settings.from_env().log_level)
        command = [
            sys.executable,
            "-c",
            "from ray.scripts.scripts import main; main()",
            "start",
            "--head",
            "--block",
            "--disable-usage-stats",
            "--no-monitor",
            "--include-log-monitor=false",
            f"--node-ip-address={_NODE_IP}",
            "--dashboard-host=127.0.0.1",
            f"--temp-dir={self.directory / 't'}",
            *(f"--{name}={self._ports[name]}" for name in _PORTS),
        ]
        started = {
            # Do not start idle workers that no organ would use.
            "RAY_prestart_worker_first_driver": "0",
            "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",
            "RAY_maximum_gcs_destroyed_actor_cached_count": "1000",
            # A busy laptop starts an agent slowly, and the raylet would exit without it.
            "RAY_agent_register_timeout_ms": "120000",
        }
        with (self.directory / "ray.log").open("wb") as log:
            self._process = subprocess.Popen(  # noqa: S603 - Ray's own command
                command,
                env={**os.environ, **started},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # Ctrl-C in the terminal must reach only this process.
                start_new_session=True,
            )
        deadline = time.monotonic() + timeout_s
        while not self._is_alive():
            if self._process.poll() is not None:
                raise ClusterError(Reason.UNREACHABLE, f"Ray exited during its start: {self._last_words()}")
            if time.monotonic() > deadline:
                raise ClusterError(
                    Reason.UNREACHABLE, f"Ray did not come up within {timeout_s:g} s: {self._last_words()}"
                )
            time.sleep(_POLL_S)

    def stop(self) -> None:
        """Kill all of Ray's processes and remove the directory."""
        if self._process is not None:
            while kill_marked(self._mark):
                time.sleep(_POLL_S)
            self._process.wait()
        shutil.rmtree(self.directory, ignore_errors=True)

    def _is_alive(self) -> bool:
        try:
            return bool(read_cluster(self.settings, token=self.settings.token(), timeout_s=2).alive_node_ids)
        except ClusterError:
            return False

    def _last_words(self) -> str:
        lines = (self.directory / "ray.log").read_text(errors="replace").split("\n")
        return " / ".join(line.strip() for line in lines[-_LAST_LINES:] if line.strip())


def free_ports(count: int, *, first: int = 0) -> list[int]:
    """Return free ports of loopback; another process may still take one before its use.

    Args:
        count: Number of ports.
        first: Return ``first`` and the ports after it, or none if one of them is in use; 0 for any ports.
    """
    with ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        try:
            for index, each in enumerate(sockets):
                each.bind(("127.0.0.1", first + index if first else 0))
        except OSError:
            return []
        return [each.getsockname()[1] for each in sockets]
