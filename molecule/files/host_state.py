"""Print the state of a host, one fact a line: files with mode, owner and digest, processes, open ports."""  # noqa: INP001

import hashlib
import os
import stat
from pathlib import Path

PLACES = ("/etc", "/home", "/opt", "/root", "/srv", "/tmp", "/usr/local", "/var")  # noqa: S108
# Files that change without a deployment: logs, timers, directories of Ansible and of systemd, the shared cache.
# The backups that useradd makes are ignored as well.
IGNORED = (
    "/etc/.pwd.lock",
    "/etc/mtab",
    "/home/deploy/.ansible",
    "/root/.ansible",
    "/tmp/ansible_",  # noqa: S108
    "/tmp/systemd-private-",  # noqa: S108
    "/tmp/.",  # noqa: S108
    "/var/cache/seedcore-molecule",
    "/var/lib/systemd",
    "/var/log",
    "/var/tmp/systemd-private-",  # noqa: S108
)
# 127.0.0.11: Docker's name server, whose port changes with a restart.
DOCKER = "0B00007F"
BACKUPS = {f"/etc/{name}-" for name in ("passwd", "shadow", "group", "gshadow", "subuid", "subgid")}


def files() -> list[str]:
    """Return one line for each file and directory."""
    lines = []
    for place in PLACES:
        for top, directories, names in os.walk(place):
            directories[:] = [name for name in directories if not f"{top}/{name}".startswith(IGNORED)]
            for name in [*directories, *names]:
                path = Path(top, name)
                if str(path).startswith(IGNORED) or str(path) in BACKUPS:
                    continue
                status = path.lstat()
                content = ""
                if path.is_symlink():
                    content = str(path.readlink())
                elif stat.S_ISREG(status.st_mode):
                    content = hashlib.sha256(path.read_bytes()).hexdigest()[:12]
                owner = f"{status.st_uid}:{status.st_gid}"
                lines.append(f"file {path} {stat.filemode(status.st_mode)} {owner} {content}")
    return lines


def processes() -> list[str]:
    """Return one line for each running program, except this one and those that systemd starts by itself."""
    names = set()
    for directory in Path("/proc").iterdir():
        if directory.name.isdigit() and int(directory.name) != os.getpid():
            try:
                if words := (directory / "cmdline").read_bytes().split(b"\0")[0]:
                    names.add(words.decode())
            except OSError:
                continue
    own = ("/bin/sh", "sh", "/lib/systemd", "/usr/lib/systemd", "(")
    return [f"process {name}" for name in names if not name.startswith(own)]


def ports() -> list[str]:
    """Return one line for each TCP port that something listens on."""
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path("/proc/net", table).read_text(encoding="ascii").splitlines()[1:]:
            local, _, state = line.split()[1:4]
            if state == "0A" and not local.startswith(DOCKER):
                found.add(int(local.rsplit(":", 1)[1], 16))
    return [f"port {port}" for port in found]


print("\n".join(sorted(files() + processes() + ports())))  # noqa: T201
