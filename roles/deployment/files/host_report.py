"""Print a JSON report of a host for a deployment in the directory of the first argument.

The Python that the deployment would use runs this, and it may be too old, so the code avoids newer features.
Usage: host_report.py PREFIX TIME NODE_ADDRESS USER [HEAD_ADDRESS HEAD_PORT], with the controller's time in seconds.
USER runs the services and need not exist yet; it is empty for the present user.
"""  # noqa: INP001

import importlib.util
import json
import os
import platform
import pwd
import shutil
import socket
import ssl
import stat
import subprocess
import sys
import time
from pathlib import Path

# What a run leaves behind when it installs another environment.
INSTALLED = ("ray/*", "cache/wheelhouse-*")
CONNECT_TIMEOUT_S = 5.0
UNITS = Path("/etc/systemd/system")
NOBODY = 65534
# The file that an installation writes last.
LAYERS = ("releases", "agents", "environments")
COMPLETE = ("tools/.*", "ray/*/.complete", *(kind + "/*/release.json" for kind in LAYERS))


def unreachable(address: str, port: int) -> str:
    """Return why a packet to the head does not arrive or gets no answer; a refused connection is an answer."""
    try:
        socket.create_connection((address, port), timeout=CONNECT_TIMEOUT_S).close()
    except ConnectionRefusedError:
        return ""
    except OSError as error:
        return str(error.strerror or error)
    return ""


def not_local(address: str) -> str:
    """Return why an address does not belong to this host."""
    try:
        with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as end:
            end.bind((address, 0))
    except OSError as error:
        return str(error.strerror or error)
    return ""


def unresolved(name: str) -> str:
    """Return why a name has no address."""
    try:
        socket.getaddrinfo(name, None)
    except OSError as error:
        return str(error.strerror or error)
    return ""


def runs(venv: Path) -> bool:
    """Return whether the Python that a virtual environment was made from is still there."""
    return os.access(str(venv / "bin" / "python"), os.X_OK)


def closed(paths: "list[Path]", user: str) -> str:
    """Return the first directory on a path that a user may not enter, or the file that it may not read.

    A child process checks it as that user. For a user that does not exist yet it checks as nobody, who has no special
    rights either.
    """
    if not user or os.geteuid() != 0:
        return ""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            become(user)
            os.write(writing, first_closed(paths).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as stream:
        answer = stream.read().decode()
    os.waitpid(child, 0)
    return answer


def become(user: str) -> None:
    """Switch to a user permanently."""
    try:
        entry = pwd.getpwnam(user)
        uid, gid, groups = entry.pw_uid, entry.pw_gid, os.getgrouplist(user, entry.pw_gid)
    except KeyError:
        uid, gid, groups = NOBODY, NOBODY, []
    os.setgroups(groups)
    os.setgid(gid)
    os.setuid(uid)


def first_closed(paths: "list[Path]") -> str:
    """Return the first place on a path that this process may not access; a missing one does not count."""
    for path in paths:
        for place in reversed((path, *path.parents)):
            try:
                mode = place.stat().st_mode
            except PermissionError:
                continue
            except OSError:
                break
            if not os.access(str(place), os.X_OK if stat.S_ISDIR(mode) else os.R_OK):
                return str(place)
    return ""


def nft_chains() -> "list[str]":
    """Return the chains of nftables as table/chain, except those whose rules were flushed.

    The list is empty without nft, or without the right to read the rules.
    """
    nft = shutil.which("nft", path="/usr/sbin:/sbin:/usr/bin:/bin")
    if nft is None:
        return []
    done = subprocess.run([nft, "list", "ruleset"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=False)  # noqa: S603
    return chains_of(done.stdout.decode(errors="replace"))


def chains_of(ruleset: str) -> "list[str]":
    """Parse the chains in the output of nft; a chain without a hook is only a name and needs no rules."""
    found, table, chain, hooked, rules = [], "", "", False, 0
    for line in ruleset.splitlines():
        words = line.split()
        if words[:1] == ["table"]:
            table = words[2]
        elif words[:1] == ["chain"]:
            chain, hooked, rules = words[1], False, 0
        elif words[:1] == ["type"] and chain:
            hooked = True
        elif words == ["}"] and chain:
            found += [table + "/" + chain] if rules or not hooked else []
            chain = ""
        elif words and chain:
            rules += 1
    return sorted(found)


def units() -> "dict[str, str]":
    """Return the service units in /etc, each with its working directory."""
    found = {}
    for path in UNITS.glob("*.service"):
        try:
            lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            continue
        directories = [line.partition("=")[2].strip() for line in lines if line.startswith("WorkingDirectory=")]
        found[path.stem] = directories[-1] if directories else ""
    return found


def owner(path: Path) -> str:
    """Return the owner of a path itself, even of a link; empty if it is missing or the owner has no name here."""
    try:
        return pwd.getpwuid(path.lstat().st_uid).pw_name
    except (OSError, KeyError):
        return ""


def runtime_revisions(prefix: Path) -> "dict[str, str]":
    """Return the content of each Ray environment's ``.complete``: when it was recreated, mostly empty."""
    return {path.parent.name: path.read_text(encoding="utf-8").strip() for path in prefix.glob("ray/*/.complete")}


def user_namespaces() -> bool:
    """Return whether the host allows user namespaces, without which a unit that needs one would not start."""
    try:
        return int(Path("/proc/sys/user/max_user_namespaces").read_text(encoding="ascii")) > 0
    except (OSError, ValueError):
        return False


def mark(prefix: Path) -> str:
    """Return the content of a deployment's mark; empty if there is none."""
    try:
        return (prefix / ".seedcore").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def main() -> None:
    """Collect the report and print it."""
    prefix = Path(sys.argv[1])
    parent = next(path for path in (prefix, *prefix.parents) if path.is_dir())
    disk = os.statvfs(str(parent))
    shm = os.statvfs("/dev/shm") if Path("/dev/shm").is_dir() else None  # noqa: S108
    entries = (
        {entry.name for entry in prefix.iterdir()} if parent == prefix and os.access(str(prefix), os.R_OK) else set()
    )
    trust = [Path(path) for path in ssl.get_default_verify_paths()[:2] if path]
    asked, node_ip, head = float(sys.argv[2]), sys.argv[3], sys.argv[5:7]
    report = {
        "asked": asked,
        "node_ip": node_ip,
        "not_local": not_local(node_ip),
        "time": time.time(),
        "system": platform.system(),
        "machine": platform.machine(),
        "libc": platform.libc_ver()[0],
        "memory_mib": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20,
        "hostname": socket.gethostname(),
        "unresolved": unresolved(socket.gethostname()),
        "unreachable": unreachable(head[0], int(head[1])) if head else "",
        "python": platform.python_version(),
        "python_path": str(Path(sys.executable).resolve()),
        "closed_prefix": closed([prefix.parent], sys.argv[4]),
        "closed_python": closed([Path(sys.executable), Path(sys.executable).resolve(), Path(os.__file__)], sys.argv[4]),
        "implementation": platform.python_implementation(),
        "venv": importlib.util.find_spec("ensurepip") is not None,
        "certificates": any(path.is_file() or (path.is_dir() and any(path.iterdir())) for path in trust),
        "nftables": shutil.which("nft", path="/usr/sbin:/sbin:/usr/bin:/bin") is not None,
        "nft_chains": nft_chains(),
        "user_namespaces": user_namespaces(),
        "disk_mib": disk.f_bavail * disk.f_frsize // 2**20,
        "shm_mib": shm.f_blocks * shm.f_frsize // 2**20 if shm else 0,
        "writable": os.access(str(parent), os.W_OK | os.X_OK),
        "parent": str(parent),
        "active": (prefix / "current").resolve().name if (prefix / "current").is_symlink() else "",
        "complete": sorted(
            str(path.relative_to(prefix)) for pattern in COMPLETE for path in prefix.glob(pattern) if runs(path.parent)
        ),
        "installed": sorted(
            str(path.relative_to(prefix))
            for pattern in INSTALLED
            for path in prefix.glob(pattern)
            if path.is_dir() and not path.is_symlink()
        ),
        "mark": mark(prefix),
        "units": units(),
        "owner": owner(prefix / "state" / "home"),
        "runtime_revisions": runtime_revisions(prefix),
        "has_state": any((prefix / "state" / "gcs").glob("*")),
        "foreign": bool(entries - {"lost+found"}) and ".seedcore" not in entries,
    }
    sys.stdout.write(json.dumps(report) + "\n")


if __name__ == "__main__":
    main()
