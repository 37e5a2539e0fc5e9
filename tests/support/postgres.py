"""A PostgreSQL server for tests: on loopback, in a temporary directory, stopped by its pid."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
import trustme

from tests.support.ports import free_ports
from tests.support.waiting import eventually

PASSWORD = "s3cret-of-the-inbox"


def binaries() -> Path | None:
    """Return the directory of the newest server that is installed; None if there is none."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    return found[-1].parent if found else None


@dataclass
class Server:
    """A server.

    Attributes:
        directory: Its files.
        port: Its port on 127.0.0.1.
    """

    directory: Path
    port: int
    pid: int = 0
    databases: int = field(default=0)

    @property
    def passfile(self) -> Path:
        """Return the file with the password."""
        return self.directory / "pgpass"

    @property
    def authority(self) -> Path:
        """Return the certificate of the authority that its certificate is of."""
        return self.directory / "authority.pem"

    def url(self, database: str = "postgres", **parameters: str) -> str:
        """Return the URL of a database, without the password."""
        query = "&".join(f"{key}={value}" for key, value in parameters.items())
        return f"postgresql://postgres@127.0.0.1:{self.port}/{database}{'?' + query if query else ''}"

    def connect(self, database: str = "postgres") -> psycopg.Connection[Any]:
        """Connect as an administrator."""
        return psycopg.connect(self.url(database), password=PASSWORD, autocommit=True)

    def new_database(self) -> str:
        """Make an empty database; return its name."""
        self.databases += 1
        with self.connect() as connection:
            connection.execute(f"CREATE DATABASE inbox{self.databases}")
        return f"inbox{self.databases}"

    def start(self) -> None:
        """Start it, and wait until it answers."""
        process = self.spawn(
            ["postgres", "-D", self.directory / "data", "-p", str(self.port), "-k", self.directory, "-h", "127.0.0.1",
             "-c", "ssl=on", "-c", "fsync=off", "-c", "max_connections=20", "-c", "shared_buffers=16MB"],
        )  # fmt: skip
        self.pid = process.pid

        def answers() -> bool:
            assert process.poll() is None, (self.directory / "log").read_text()
            try:
                self.connect().close()
            except psycopg.OperationalError:
                return False
            return True

        eventually(answers, what="the server answers")
        self._process = process

    def stop(self, how: signal.Signals = signal.SIGQUIT) -> None:
        """Stop it at once, as a crash does."""
        self._process.send_signal(how)
        self._process.wait(60)

    def spawn(self, command: Sequence[str | Path]) -> subprocess.Popen[bytes]:
        """Start a program of the server, not as root: it refuses that."""
        binary = binaries()
        assert binary is not None
        who: dict[str, Any] = {"user": "nobody", "group": "nogroup", "extra_groups": []} if not os.geteuid() else {}
        with (self.directory / "log").open("ab") as log:
            # If this process is killed, the server ends as well.
            words = ["setpriv", "--pdeathsig", "QUIT", str(binary / command[0]), *map(str, command[1:])]
            return subprocess.Popen(words, stdout=log, stderr=log, cwd=self.directory, start_new_session=True, **who)


@contextmanager
def running() -> Iterator[Server]:
    """Run a server."""
    # Not in pytest's directory, which only its owner may enter.
    directory = Path(tempfile.mkdtemp(prefix="seedcore-pg-"))
    server, authority, owner = Server(directory, free_ports(1)[0]), trustme.CA(), pwd.getpwnam("nobody")
    try:
        authority.cert_pem.write_to_path(str(server.authority))
        if not os.geteuid():
            os.chown(directory, owner.pw_uid, owner.pw_gid)
        (directory / "password").write_text(PASSWORD)
        (directory / "password").chmod(0o644)
        server.passfile.write_text(f"127.0.0.1:{server.port}:*:postgres:{PASSWORD}\n")
        server.passfile.chmod(0o600)
        made = server.spawn(
            ["initdb", "-D", directory / "data", "-U", "postgres", "-A", "scram-sha-256", "--no-sync", "-E", "UTF8",
             "--locale=C", f"--pwfile={directory / 'password'}"],
        )  # fmt: skip
        assert made.wait(120) == 0, (directory / "log").read_text()
        issued = authority.issue_cert("127.0.0.1")
        files = {"server.crt": issued.cert_chain_pems[0].bytes(), "server.key": issued.private_key_pem.bytes()}
        for name, content in files.items():
            (directory / "data" / name).write_bytes(content)
            (directory / "data" / name).chmod(0o600)
            if not os.geteuid():
                os.chown(directory / "data" / name, owner.pw_uid, owner.pw_gid)
        server.start()
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(directory, ignore_errors=True)
