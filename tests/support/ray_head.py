"""Run a Ray head for a test, in token mode, with RocksDB, a temporary directory and exclusive ports."""

from __future__ import annotations

import contextlib
import os
import secrets
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from seedcore.core.errors import ClusterError
from seedcore.core.settings import Settings
from seedcore.status.state_api import read_cluster
from tests.support.driver import Driver
from tests.support.guardian import Guardian
from tests.support.ports import free_ports, free_range
from tests.support.processes import MARK, end_all
from tests.support.turns import turn
from tests.support.waiting import eventually

# Not 127.0.0.1, because Ray replaces it by the host's outward address.
NODE_IP = "127.0.0.2"
# Agents for the tests; every process of the cluster can import them.
AGENTS = Path(__file__).parents[1] / "agents"


# A head that starts again has the session of its stored state, and numbers its logs.
_LOGS = (
    "raylet*.out",
    "raylet*.err",
    "gcs_server*.out",
    "dashboard.log",
    "dashboard_agent.log",
    "runtime_env_agent.log",
)
# `ray start` with three differences. It starts no Ray Client server, and its dashboard loads only the two modules that
# SeedCore uses, because each module costs a process with two CPU-seconds. It waits for its raylet as long as the raylet
# lives instead of 30 s, because a second attempt only adds load. And it tells the raylet the dashboard agent's port,
# which `ray start` does not: the raylet exits if its agent has not written the port within 15 s.
_RAY = """
import os, sys, time
from ray._private import node, ray_constants, services
from ray.scripts.scripts import main

start_ray_process, get_node, raylets = services.start_ray_process, services.get_node, []

def start(command, process_type, *arguments, **options):
    if process_type == ray_constants.PROCESS_TYPE_DASHBOARD:
        command = [*command, "--modules-to-load=NodeHead,StateHead"]
    if process_type == ray_constants.PROCESS_TYPE_RAYLET:
        given = dict(part.lstrip("-").split("=", 1) for part in [*sys.argv, *command] if "=" in part)
        session = os.path.dirname(os.path.dirname(given["raylet_socket_name"]))
        with open(f"{session}/dashboard_agent_listen_port_{given['node_id']}", "w") as port:
            port.write(given["dashboard-agent-listen-port"])
    started = start_ray_process(command, process_type, *arguments, **options)
    if process_type == ray_constants.PROCESS_TYPE_RAYLET:
        raylets.append(started.process)
    return started

def wait(*arguments):
    while True:
        try:
            return get_node(*arguments)
        except RuntimeError:
            if any(raylet.poll() is not None for raylet in raylets):
                sys.exit("the raylet has ended")
            time.sleep(0.2)

services.start_ray_process, services.get_node = start, wait
node.Node.start_ray_client_server = lambda self: None
main()
"""


class RayHead:
    """One head on loopback; ``start`` may be called again after ``kill``, as a supervisor would."""

    def __init__(self, *, num_cpus: int = 4, python: str = sys.executable) -> None:
        self.mark = secrets.token_hex(8)
        # A short path under /tmp, because Ray's socket paths must stay below 107 bytes.
        self.directory = Path(tempfile.mkdtemp(prefix="sct-", dir="/tmp"))
        self._guardian = Guardian(self.mark, self.directory)
        self.driver = Driver(self.directory / "driver.log")
        ports = free_ports(12)
        self._worker_ports = free_range(400)
        self._gcs_port, self._dashboard_port = ports[0], ports[1]
        self._ports = ports[3:]
        self._num_cpus = num_cpus
        self._python = python
        self._nodes = 0
        self.nodes: dict[str, subprocess.Popen[bytes]] = {}
        self.kept = False
        (self.directory / "mark").write_text(self.mark)
        token = self.directory / "token"
        token.touch(mode=0o600)
        token.write_text(secrets.token_hex(16))
        (self.directory / "gcs").mkdir()
        (self.directory / "tmp").mkdir()
        self.settings = Settings(
            address=f"{NODE_IP}:{self._gcs_port}",
            dashboard_url=f"http://127.0.0.1:{self._dashboard_port}",
            http_port=ports[2],
            state_dir=self.directory / "state",
            auth_enabled=True,
            token_path=token,
        )

    def scope(self, namespace: str) -> Settings:
        """Return settings with this namespace, a free HTTP port and a separate state directory."""
        return replace(
            self.settings,
            namespace=namespace,
            http_port=free_ports(1)[0],
            state_dir=self.directory / namespace,
        )

    def env(self, settings: Settings | None = None) -> dict[str, str]:
        """Return the environment for a process that uses this cluster."""
        chosen = settings or self.settings
        kept = {
            key: value
            for key, value in os.environ.items()
            if not key.startswith(("RAY_", "SEEDCORE_", "COLUMNS", "PYTEST"))
        }
        return {
            **kept,
            MARK: self.mark,
            # A killed Ray leaves files in the directory for temporary files.
            "TMPDIR": str(self.directory / "tmp"),
            "PYTHONPATH": os.pathsep.join([str(AGENTS), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep),
            "RAY_ADDRESS": str(chosen.address),
            "RAY_NAMESPACE": chosen.namespace,
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(chosen.token_path),
            "RAY_USAGE_STATS_ENABLED": "0",
            # With a shorter limit for its agents, the raylet exits on a machine that is short of CPU.
            "RAY_agent_register_timeout_ms": "240000",
            # Ray's default is 15, and tests that run in parallel would take the workers' CPU.
            "RAY_worker_niceness": "0",
            # No test uses prestarted workers, because each test starts its processes with a separate environment.
            "RAY_prestart_worker_first_driver": "0",
            "SEEDCORE_DASHBOARD_URL": chosen.dashboard_url,
            "SEEDCORE_HTTP_HOST": chosen.http_host,
            "SEEDCORE_HTTP_PORT": str(chosen.http_port),
            "SEEDCORE_HTTP_TLS_CERT": str(chosen.http_tls_cert or ""),
            "SEEDCORE_HTTP_TLS_KEY": str(chosen.http_tls_key or ""),
            "SEEDCORE_STATE_DIR": str(chosen.state_dir),
            "SEEDCORE_INBOX": chosen.inbox,
            "SEEDCORE_INBOX_PASSFILE": str(chosen.inbox_passfile or ""),
            "SEEDCORE_LOG_LEVEL": chosen.log_level,
        }

    def start(self, *, timeout_s: float = 240) -> None:
        """Start the head and wait until its node is alive."""
        node_manager, object_manager, agent_grpc, runtime_env, agent_http, metrics, client, scaler, board = self._ports
        command = [
            self._python,
            "-c",
            _RAY,
            "start",
            "--head",
            "--block",
            "--no-monitor",
            "--include-log-monitor=false",
            f"--node-ip-address={NODE_IP}",
            f"--port={self._gcs_port}",
            f"--node-manager-port={node_manager}",
            f"--object-manager-port={object_manager}",
            f"--dashboard-agent-grpc-port={agent_grpc}",
            f"--runtime-env-agent-port={runtime_env}",
            f"--dashboard-agent-listen-port={agent_http}",
            f"--metrics-export-port={metrics}",
            f"--ray-client-server-port={client}",
            f"--min-worker-port={self._worker_ports[0]}",
            f"--max-worker-port={self._worker_ports[1]}",
            "--dashboard-host=127.0.0.1",
            f"--dashboard-port={self._dashboard_port}",
            f"--temp-dir={self.directory / 't'}",
            "--node-name=head",
            "--object-store-memory=400000000",
            f"--num-cpus={self._num_cpus}",
            "--disable-usage-stats",
        ]
        env = {
            **self.env(),
            "RAY_gcs_storage": "rocksdb",
            "RAY_gcs_storage_path": str(self.directory / "gcs"),
            "AUTOSCALER_METRIC_PORT": str(scaler),
            "DASHBOARD_METRIC_PORT": str(board),
        }
        with turn():
            with (self.directory / "head.log").open("wb") as log:
                self.process = subprocess.Popen(
                    command, env=env, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True
                )
            try:
                eventually(self.alive, timeout_s=timeout_s, interval_s=0.2, what="a living head node")
            except AssertionError as error:
                raise AssertionError(f"{error}\n{self._last_words(self.directory / 'head.log')}") from None

    def add_node(self, name: str, *, num_cpus: int = 2, resources: str = "{}", labels: str = "") -> None:
        """Start one more node on this machine and wait until it works; ``kill`` also ends it."""
        self._nodes += 1
        address = f"127.0.0.{2 + self._nodes}"
        ports = free_ports(6)
        low, high = free_range(200)
        command = [
            sys.executable,
            "-c",
            _RAY,
            "start",
            "--block",
            f"--address={NODE_IP}:{self._gcs_port}",
            f"--node-ip-address={address}",
            f"--node-manager-port={ports[0]}",
            f"--object-manager-port={ports[1]}",
            f"--dashboard-agent-grpc-port={ports[2]}",
            f"--runtime-env-agent-port={ports[3]}",
            f"--dashboard-agent-listen-port={ports[4]}",
            f"--metrics-export-port={ports[5]}",
            f"--min-worker-port={low}",
            f"--max-worker-port={high}",
            f"--node-name={name}",
            "--object-store-memory=100000000",
            f"--num-cpus={num_cpus}",
            f"--resources={resources}",
            f"--labels={labels}",
            "--disable-usage-stats",
        ]
        log_path = self.directory / f"{name}.log"

        # A raylet that finds the file with the port does not wait for its agent; see _RAY.
        def agent_listens() -> bool:
            assert process.poll() is None, self._last_words(log_path)
            with contextlib.suppress(OSError), socket.create_connection((address, ports[4]), timeout=1):
                return True
            return False

        def joined() -> bool:
            assert process.poll() is None, self._last_words(log_path)
            try:
                state = read_cluster(self.settings, token=self.settings.token(), timeout_s=5)
            except ClusterError:
                return False
            return name in state.alive_names

        with turn():
            with log_path.open("wb") as log:
                process = self.nodes[name] = subprocess.Popen(
                    command, env=self.env(), stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True
                )
            eventually(joined, timeout_s=240, interval_s=0.2, what=f"a living node {name}")
            eventually(agent_listens, timeout_s=240, interval_s=0.2, what=f"the agent of node {name}")

    def kill(self) -> None:
        """Kill every process of the cluster at once, like a power cut."""
        end_all(self.mark)
        for process in (self.process, *self.nodes.values()):
            process.wait(timeout=10)
        self.nodes.clear()
        self.driver.close()

    def close(self) -> None:
        """Kill everything and remove the directory."""
        self.kill()
        _remove(self.directory)
        self._guardian.release()

    def keep(self, settings: Settings) -> str:
        """Keep everything running after the tests; return instructions to inspect and end it."""
        self.kept = True
        self._guardian.release()
        # Leave out the mark, so that a shell that sources the file is not killed with the cluster.
        changed = {
            key: value for key, value in self.env(settings).items() if key != MARK and os.environ.get(key) != value
        }
        script = self.directory / f"{settings.namespace}.sh"
        script.write_text("".join(f"export {key}={shlex.quote(value)}\n" for key, value in changed.items()))
        programs = Path(sys.executable).parent
        return (
            f"its Ray is kept:\n"
            f"  . {script}; export PATH={programs}:$PATH   then: seedcore status, ray list actors, ray stack\n"
            f"  less {self.directory}/t/session_latest/logs/*\n"
            f"  {sys.executable} -m tests.support.ray_head {self.directory}   ends it"
        )

    def alive(self) -> bool:
        """Return True if the node is alive; fail if the process has ended."""
        assert self.process.poll() is None, f"the head has ended with {self.process.returncode}"
        try:
            state = read_cluster(self.settings, token=self.settings.token(), timeout_s=2)
        except ClusterError:
            return False
        return bool(state.alive_node_ids)

    def _last_words(self, log_path: Path) -> str:
        """Return the last output of `ray start`, the raylets and their agents."""
        logs = self.directory / "t" / "session_latest" / "logs"
        newest = [sorted(logs.glob(name), key=lambda path: path.stat().st_mtime)[-1:] for name in _LOGS]
        paths = [log_path, *(path for last in newest for path in last)]
        ends = [(path.name, path.read_text(errors="replace")[-2000:]) for path in paths if path.exists()]
        return "\n".join(f"==== {name}\n{end}" for name, end in ends)


def _remove(directory: Path) -> None:
    def removed() -> bool:
        # A process that is being killed may still end what it writes.
        shutil.rmtree(directory, ignore_errors=True)
        return not directory.exists()

    eventually(removed, timeout_s=10, what=f"{directory} is gone")


if __name__ == "__main__":
    # End a cluster that --keep-ray has kept after a failed test, by its directory.
    kept = Path(sys.argv[1])
    end_all((kept / "mark").read_text())
    _remove(kept)
