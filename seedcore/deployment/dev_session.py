"""Run an organism on a private Ray and reload it whenever a developer changes a file of its agents."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from seedcore.config.organism_file import load_config
from seedcore.core.errors import ConfigError, SeedCoreError
from seedcore.core.spec import OrganismSpec
from seedcore.deployment.bootstrap import bootstrap, shutdown
from seedcore.deployment.driver import Driver
from seedcore.deployment.local_ray import LocalRay

POLL_S = 0.2
CHECK_TIMEOUT_S = 60.0
BOOTSTRAP_TIMEOUT_S = 120.0
_NOT_SOURCES = frozenset({"__pycache__", "build", "dist", "node_modules"})
# Lines that Ray itself writes into the log of a worker.
_MARKER = ":"
_ACTOR_CLASS = ":actor_name:"
_COORDINATOR = "CoordinatorActor"
_SERIOUS = re.compile(r"[0-9-]+ [0-9:,]+ (WARNING|ERROR|CRITICAL) ")
# Time for agents to close their resources.
_STOP_S = 5.0

Say = Callable[[str], None]


def import_paths(file: Path) -> list[Path]:
    """Return the directories that may hold an organism's agents: that of its file, and the projects in it."""
    here = file.absolute().parent
    projects = sorted(each.parent for each in here.glob("*/pyproject.toml"))
    return [path for top in (here, *projects) for path in (top, top / "src") if path.is_dir()]


def sources(paths: Sequence[Path]) -> Iterator[Path]:
    """Yield every Python file in and below some directories, except virtual environments and hidden directories."""
    for top in paths:
        for directory, names, files in os.walk(top):
            if "pyvenv.cfg" in files:
                names.clear()
                continue
            names[:] = sorted(name for name in names if not name.startswith(".") and name not in _NOT_SOURCES)
            yield from (Path(directory, name) for name in sorted(files) if name.endswith(".py"))


def with_revisions(spec: OrganismSpec, paths: Sequence[Path]) -> OrganismSpec:
    """Set the revision of each organ whose agent is below one of the paths to a digest of the Python files there."""
    digests: dict[Path, str] = {}

    def revision(agent: str) -> str:
        top = agent.partition(":")[0].partition(".")[0]
        home = next((path for path in paths if (path / top).is_dir() or (path / f"{top}.py").is_file()), None)
        if home is None:
            return ""
        if home not in digests:
            digest = hashlib.sha256()
            for path in sources([home]):
                digest.update(f"{path}\0".encode() + path.read_bytes())
            digests[home] = digest.hexdigest()[:16]
        return digests[home]

    return replace(spec, organs=tuple(replace(organ, revision=revision(organ.agent)) for organ in spec.organs))


class Watch:
    """Detects that a file has been written, added or removed.

    Args:
        file: organism.yaml.
        paths: Directories of Python files.
    """

    def __init__(self, file: Path, paths: Sequence[Path]) -> None:
        self._file = file
        self._paths = paths
        self._seen = self._look()

    def changed(self) -> bool:
        """Return True if a file has changed since the last call; first wait until the editor has finished writing."""
        now = self._look()
        if now == self._seen:
            return False
        while (later := _after_pause(self._look)) != now:
            now = later
        self._seen = now
        return True

    def _look(self) -> dict[Path, tuple[int, int]]:
        found = {}
        for path in (self._file, *sources(self._paths)):
            try:
                status = path.stat()
            except OSError:
                # An editor that replaces a file removes it first.
                continue
            found[path] = (status.st_mtime_ns, status.st_size)
        return found


def _after_pause(look: Callable[[], dict[Path, tuple[int, int]]]) -> dict[Path, tuple[int, int]]:
    time.sleep(POLL_S / 2)
    return look()


class Logs:
    """Shows the output of the agents' processes, line by line, and the warnings of the Coordinator.

    Args:
        directory: Directory of Ray's logs; it need not exist yet.
        show: Called from a thread with the name of a process and a line.

    Attributes:
        names: Names of processes by pid; lines of other processes carry the name of their actor's class.
    """

    def __init__(self, directory: Path, show: Callable[[str, str], None]) -> None:
        self.names: dict[int, str] = {}
        self._directory = directory
        self._show = show
        self._read: dict[Path, int] = {}
        self._actors: dict[str, str] = {}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="logs", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Show the lines written so far, and end."""
        self._ended.set()
        self._thread.join()

    def _follow(self) -> None:
        while not self._ended.wait(POLL_S):
            self._show_new()
        self._show_new()

    def _show_new(self) -> None:
        for path in sorted(self._directory.glob("worker-*-*-*.[eo][ru][rt]")):
            begin = self._read.get(path, 0)
            with path.open("rb") as stream:
                stream.seek(begin)
                lines, end, _ = stream.read().rpartition(b"\n")
            if end:
                self._read[path] = begin + len(lines) + 1
                for line in lines.decode(errors="replace").split("\n"):
                    self._show_line(path, line)

    def _show_line(self, path: Path, line: str) -> None:
        # worker-<id>-<job>-<pid>.err, and .out
        pid = int(path.stem.rpartition("-")[2])
        if line.startswith(_ACTOR_CLASS):
            self._actors[path.stem] = line.removeprefix(_ACTOR_CLASS)
            return
        actor = self._actors.get(path.stem, "worker")
        if line and not line.startswith(_MARKER) and (actor != _COORDINATOR or _SERIOUS.match(line)):
            self._show(self.names.get(pid, actor), line)


class DevSession:
    """One organism on a private Ray.

    Args:
        file: organism.yaml.
        paths: Directories to import agents from and to watch.
        http_port: Port of the Coordinator's HTTP server; 0 for any free port.
        say: Called with one line for the user at the terminal.
        show: Called with the name of an actor and a line that it has written.
    """

    def __init__(
        self,
        file: Path,
        paths: Sequence[Path],
        *,
        http_port: int,
        say: Say,
        show: Callable[[str, str], None],
    ) -> None:
        self._file = file.absolute()
        self._paths = [path.absolute() for path in paths]
        self._say = say
        self.ray = LocalRay(self._paths, http_port=http_port)
        self._logs = Logs(self.ray.logs, show)
        self._driver = Driver(self.ray.settings, lambda: BOOTSTRAP_TIMEOUT_S)

    def run(self, *, until: threading.Event) -> None:
        """Follow the files until the event is set; stop everything at the end, also after an error.

        Raises:
            ClusterError: Ray does not come up.
        """
        try:
            # Create the watch before the start, so that a change made meanwhile is applied after it.
            watch = Watch(self._file, self._paths)
            self.ray.start()
            self._driver.join()
            self._say(f"Page:   {self.ray.settings.http_url}/   (the token is in {self.ray.settings.token_path})")
            self._say(f"Shell:  . {self.ray.activate}   then: seedcore status, seedcore submit TYPE --params JSON")
            self.apply()
            while not until.wait(POLL_S):
                if watch.changed():
                    self.apply()
        finally:
            with contextlib.suppress(SeedCoreError):
                shutdown(self.ray.settings, timeout_s=_STOP_S)
            self._driver.leave()
            self._logs.close()
            self.ray.stop()

    def apply(self) -> bool:
        """Apply the files to the organism; return False, without any change, if they are faulty."""
        begun = time.monotonic()
        fault = self._fault()
        try:
            spec = None if fault else with_revisions(load_config(self._file, check_imports=False), self._paths)
        except (OSError, ConfigError) as error:
            # An editor has changed or removed a file since the check.
            fault, spec = str(error), None
        if spec is None:
            self._say(fault)
            self._say("the organism stays as it is until a file changes")
            return False
        outcome = bootstrap(
            self.ray.settings, spec, wait_timeout_s=BOOTSTRAP_TIMEOUT_S, retries=0, on_progress=self._say
        )
        verb = {"none": "unchanged", "create": "started", "replace": "replaced", "reload": "reloaded"}[outcome.action]
        report = outcome.report
        self._logs.names = {
            replica["pid"]: f"{organ['organ_id']}/{replica['replica']}"
            for organ in report.coordinator.get("organs") or ()
            for replica in organ["replicas"]
            if replica.get("pid")
        }
        if outcome.cause:
            self._say(outcome.cause.rstrip())
        self._say(f"{verb} in {time.monotonic() - begun:.1f} s: {report.reason}: {report.message}")
        return report.healthy

    def _fault(self) -> str:
        """Return what is wrong with the files, "" if nothing is. A new process imports the present code."""
        command = [sys.executable, "-m", "seedcore", "config", "check", "--config", str(self._file)]
        try:
            done = subprocess.run(  # noqa: S603 - our own command
                command,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                check=False,
                timeout=CHECK_TIMEOUT_S,
            )
        except subprocess.TimeoutExpired:
            return f"{self._file}: its agents could not be imported within {CHECK_TIMEOUT_S:g} s"
        return done.stderr.strip() if done.returncode else ""
