"""Define the faults: how each is injected and healed, and which processes it may replace."""

from __future__ import annotations

import random
import shutil
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.chaos.places import Containers, Localhost, Place, find, issue_certificate
from benchmarks.chaos.probes import Probes

COORDINATOR = "coordinator"
# Duration of a partition that Ray and the organism must endure without restarts.
SHORT_PARTITION_S = 5.0
# Duration of a fault that is not an outage.
HOLD_S = 20.0
HANG_S = 40.0
# In blocks of 4 kB: only a disk of at most 4 GB is filled.
SMALL_DISK_BLOCKS = 2**20


@dataclass(frozen=True, slots=True)
class Campaign:
    """The context of a fault: the deployment, the probes with their records so far, and the random generator."""

    place: Place
    probes: Probes
    rng: random.Random


def _nothing() -> None:
    """Do nothing: the deployment must recover by itself."""


@dataclass(slots=True, kw_only=True)
class Injected:
    """The effect of an injection.

    Attributes:
        target: What was hit, for people.
        may_replace: The processes that may be replaced because of it; None allows any.
        heal: Undoes the fault; does nothing if the deployment must recover by itself.
        hold_s: Seconds until ``heal`` is called.
        counted_from: Start of the recovery time; None for the moment of the injection.
    """

    target: str
    may_replace: frozenset[str] | None
    heal: Callable[[], None] = _nothing
    hold_s: float = 0.0
    counted_from: float | None = None


@dataclass(frozen=True, slots=True)
class Fault:
    """One kind of fault.

    Attributes:
        name: Its name.
        goal_s: Seconds until work gets done again; None where no goal is set.
        inject: Injects it.
    """

    name: str
    goal_s: float | None
    inject: Callable[[Campaign], Injected]


def _signal(place: Place, host: str, pid: int, name: str) -> None:
    place.run(host, "kill", f"-{name}", str(pid))


def _host_of(place: Place, node: str) -> str:
    return node if node in place.workers else place.head


def _organ(on: Campaign) -> tuple[str, str, int]:
    """Choose a process of an organ; return its name, node and pid."""
    found = sorted(what for what in on.probes.record.processes if what != COORDINATOR)
    what = on.rng.choice(found)
    return (what, *on.probes.record.processes[what])


def _on(probes: Probes, node: str) -> frozenset[str]:
    return frozenset(what for what, (where, _) in probes.record.processes.items() if where == node)


def organ_killed(on: Campaign) -> Injected:
    """Kill a process of an organ."""
    what, node, pid = _organ(on)
    _signal(on.place, _host_of(on.place, node), pid, "KILL")
    return Injected(target=f"{what} (pid {pid})", may_replace=frozenset({what}))


def organ_stopped(on: Campaign) -> Injected:
    """Suspend a process of an organ with SIGSTOP, so that it hangs."""
    what, node, pid = _organ(on)
    _signal(on.place, _host_of(on.place, node), pid, "STOP")
    return Injected(target=f"{what} (pid {pid})", may_replace=frozenset({what}))


def organ_hangs_in_c(on: Campaign) -> Injected:
    """Let an agent hold the interpreter's lock: its whole process hangs."""
    organ = on.rng.choice(["steady", "pair"])
    on.probes.submit(organ, hold_s=HANG_S)
    return Injected(target=organ, may_replace=frozenset({f"{organ}/0", f"{organ}/1"}))


def slow_agents(on: Campaign) -> Injected:
    """Send slow tasks to every organ: work must continue, and no process may be replaced."""
    for organ in ("steady", "pair", "plain"):
        for _ in range(3):
            on.probes.submit(organ, seconds=on.rng.uniform(5, 12))
    return Injected(target="3 tasks of each organ", may_replace=frozenset(), hold_s=HOLD_S)


def _coordinator_pid(probes: Probes) -> int:
    return probes.record.processes[COORDINATOR][1]


def coordinator_killed(on: Campaign) -> Injected:
    """Kill the Coordinator's process; the organs must keep running."""
    pid = _coordinator_pid(on.probes)
    _signal(on.place, on.place.head, pid, "KILL")
    return Injected(target=f"pid {pid}", may_replace=frozenset({COORDINATOR}))


def coordinator_stopped(on: Campaign) -> Injected:
    """Suspend the Coordinator's process with SIGSTOP, so that it hangs."""
    pid = _coordinator_pid(on.probes)
    _signal(on.place, on.place.head, pid, "STOP")
    return Injected(target=f"pid {pid}", may_replace=frozenset({COORDINATOR}))


def gcs_killed(on: Campaign) -> Injected:
    """Kill the GCS: the head's node restarts, and the workers keep running."""
    (pid, *_) = find(on.place, on.place.head, "gcs_server", on.place.prefix)
    _signal(on.place, on.place.head, pid, "KILL")
    return Injected(target=f"pid {pid}", may_replace=_on(on.probes, on.place.head) | {COORDINATOR})


def head_killed(on: Campaign) -> Injected:
    """Kill all of Ray on the head at once."""
    pids = {
        *find(on.place, on.place.head, f"{on.place.prefix}/tmp/"),
        *find(on.place, on.place.head, "ray::", on.place.prefix),
    }
    on.place.run(on.place.head, "kill", "-KILL", *(str(pid) for pid in pids), check=False)
    return Injected(target=f"{len(pids)} processes", may_replace=_on(on.probes, on.place.head) | {COORDINATOR})


def certificate_replaced_badly(on: Campaign) -> Injected:
    """Replace the certificate by one that does not match its key: the old one stays in use, and nothing is killed."""
    etc = Path(on.place.prefix) / "etc"
    kept = etc / "http.pem.kept"
    shutil.copy2(etc / "http.pem", kept)
    other = Path(on.place.prefix).parent / "other"
    other.mkdir(exist_ok=True)
    issue_certificate(other)
    (etc / "http.pem").write_bytes((other / "server.pem").read_bytes())

    def heal() -> None:
        kept.replace(etc / "http.pem")

    return Injected(target="etc/http.pem", may_replace=frozenset(), heal=heal, hold_s=HOLD_S)


def worth_hurting(workers: Sequence[str], processes: Mapping[str, tuple[str, int]]) -> list[str]:
    """Return the workers that hold a whole organ, or else those that hold a part of one, or else all workers.

    A freeze of an idle host would prove nothing.
    """
    hosts: defaultdict[str, set[str]] = defaultdict(set)
    for what, (node, _) in processes.items():
        hosts[what.partition("/")[0]].add(node)
    whole = {next(iter(nodes)) for nodes in hosts.values() if len(nodes) == 1}
    part = {node for nodes in hosts.values() for node in nodes}
    chosen = ([worker for worker in workers if worker in those] for those in (whole, part))
    return next(filter(None, chosen), list(workers))


def _worker(on: Campaign) -> str:
    return on.rng.choice(worth_hurting(on.place.workers, dict(on.probes.record.processes)))


def host_frozen(on: Campaign) -> Injected:
    """Freeze a worker: its processes restart elsewhere, and the old ones must do no work when they wake up."""
    assert isinstance(on.place, Containers)  # noqa: S101 - offered there only
    host = _worker(on)
    container = on.place.container(host)
    container.pause()
    return Injected(target=host, may_replace=_on(on.probes, host), heal=container.unpause, hold_s=90.0)


def _filter(place: Place, host: str, rule: str) -> Callable[[], None]:
    """Install a packet filter on all interfaces but loopback, in both directions; return a function to remove it."""
    for hook in ("input", "output"):
        name = "iif" if hook == "input" else "oif"
        place.run(
            host,
            "nft",
            f"add table inet chaos; add chain inet chaos {hook} {{ type filter hook {hook} priority -300; }}; "
            f'add rule inet chaos {hook} {name} != "lo" {rule} drop',
        )

    def heal() -> None:
        place.run(host, "nft", "delete", "table", "inet", "chaos")

    return heal


def partition(on: Campaign) -> Injected:
    """Cut off a worker for five seconds: nothing may restart."""
    host = _worker(on)
    heal = _filter(on.place, host, "")
    return Injected(target=host, may_replace=frozenset(), heal=heal, hold_s=SHORT_PARTITION_S)


def packet_loss(on: Campaign) -> Injected:
    """Drop one in ten of a worker's packets."""
    host = _worker(on)
    heal = _filter(on.place, host, "numgen random mod 10 0")
    return Injected(target=host, may_replace=frozenset(), heal=heal, hold_s=2 * HOLD_S)


def wrong_token(on: Campaign) -> Injected:
    """Restart a worker's node with a wrong token: it cannot join until it has the right one."""
    host = _worker(on)
    token = f"{on.place.prefix}/etc/token"
    on.place.run(host, "sh", "-ec", f"cp -p {token} {token}.kept; printf 0123456789abcdef0123456789abcdef >{token}")
    on.place.run(host, "systemctl", "restart", "--no-block", "seedcore-ray")

    def heal() -> None:
        on.place.run(host, "sh", "-ec", f"mv {token}.kept {token}; systemctl restart --no-block seedcore-ray")

    return Injected(target=host, may_replace=_on(on.probes, host), heal=heal, hold_s=2 * HOLD_S)


def disk_full(on: Campaign) -> Injected:
    """Fill the disk of a host that has a small separate disk below the prefix."""
    directory = f"{on.place.prefix}/tmp"
    small = [
        host
        for host in (on.place.head, *on.place.workers)
        if int(on.place.run(host, "stat", "-f", "-c", "%b", directory)) <= SMALL_DISK_BLOCKS
    ]
    if not small:
        raise SystemExit(f"no host has a small separate disk below {directory}: this would fill the machine's own disk")
    host = on.rng.choice(small)
    on.place.run(host, "sh", "-c", f"dd if=/dev/zero of={directory}/chaos-fill bs=1M 2>/dev/null", check=False)

    def heal() -> None:
        on.place.run(host, "rm", "-f", f"{directory}/chaos-fill")

    return Injected(target=host, may_replace=_on(on.probes, host), heal=heal, hold_s=HOLD_S)


def head_rebooted(on: Campaign) -> Injected:
    """Cut the head's power and boot it again; the recovery time starts at the boot."""
    assert isinstance(on.place, Containers)  # noqa: S101 - offered there only
    container = on.place.container(on.place.head)
    container.kill()
    container.wait(timeout=30)
    container.start()
    on_head = _on(on.probes, on.place.head) | {COORDINATOR}
    return Injected(target=on.place.head, may_replace=on_head, counted_from=time.monotonic())


_EVERYWHERE = (
    Fault("organ_killed", 3, organ_killed),
    Fault("organ_stopped", 25, organ_stopped),
    Fault("organ_hangs_in_c", 25, organ_hangs_in_c),
    Fault("slow_agents", None, slow_agents),
    Fault("coordinator_killed", 8, coordinator_killed),
    Fault("coordinator_stopped", 25, coordinator_stopped),
    Fault("gcs_killed", None, gcs_killed),
    Fault("head_killed", 20, head_killed),
)
_LOCAL = (Fault("certificate_replaced_badly", None, certificate_replaced_badly),)
_HOSTS = (
    Fault("host_frozen", 20, host_frozen),
    Fault("partition_5s", None, partition),
    Fault("packet_loss_10_percent", None, packet_loss),
    Fault("wrong_token", None, wrong_token),
    Fault("disk_full", None, disk_full),
    Fault("head_rebooted", 20, head_rebooted),
)


def faults(place: Place) -> tuple[Fault, ...]:
    """Return the faults that can be injected into this place."""
    return _EVERYWHERE + (_LOCAL if isinstance(place, Localhost) else _HOSTS)
