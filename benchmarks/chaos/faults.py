"""The faults: how each is injected, healed, and what may come of it."""

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
# A partition that Ray and the organism have to sit out.
SHORT_PARTITION_S = 5.0
# For how long a fault that is no outage is kept up.
HOLD_S = 20.0
HANG_S = 40.0
# Blocks of 4 kB: only a disk of at most 4 GB is filled.
SMALL_DISK_BLOCKS = 2**20


@dataclass(frozen=True, slots=True)
class Campaign:
    """What every fault is given: the deployment, what was seen of it so far, and where its choices come from."""

    place: Place
    probes: Probes
    rng: random.Random


def _nothing() -> None:
    """Leave it to the deployment: it has to mend itself."""


@dataclass(slots=True, kw_only=True)
class Injected:
    """What an injection has done.

    Attributes:
        target: What was hurt, for people.
        may_replace: The processes that may be replaced because of it; None allows any.
        heal: Undoes it; a fault that the deployment must mend by itself has nothing to undo.
        hold_s: How long it lasts before ``heal`` is called.
        counted_from: From when the recovery counts; None for the moment of the injection.
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
    """Choose a process of an organ: its name, node and pid."""
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
    """Stop a process of an organ: it hangs."""
    what, node, pid = _organ(on)
    _signal(on.place, _host_of(on.place, node), pid, "STOP")
    return Injected(target=f"{what} (pid {pid})", may_replace=frozenset({what}))


def organ_hangs_in_c(on: Campaign) -> Injected:
    """Let an agent hold the interpreter's lock: its whole process hangs."""
    organ = on.rng.choice(["steady", "pair"])
    on.probes.submit(organ, hold_s=HANG_S)
    return Injected(target=organ, may_replace=frozenset({f"{organ}/0", f"{organ}/1"}))


def slow_agents(on: Campaign) -> Injected:
    """Let some tasks of every organ take their time: nothing may stop, and nothing be replaced."""
    for organ in ("steady", "pair", "plain"):
        for _ in range(3):
            on.probes.submit(organ, seconds=on.rng.uniform(5, 12))
    return Injected(target="3 tasks of each organ", may_replace=frozenset(), hold_s=HOLD_S)


def _coordinator_pid(probes: Probes) -> int:
    return probes.record.processes[COORDINATOR][1]


def coordinator_killed(on: Campaign) -> Injected:
    """Kill the Coordinator's process: organs go on."""
    pid = _coordinator_pid(on.probes)
    _signal(on.place, on.place.head, pid, "KILL")
    return Injected(target=f"pid {pid}", may_replace=frozenset({COORDINATOR}))


def coordinator_stopped(on: Campaign) -> Injected:
    """Stop the Coordinator's process: it hangs."""
    pid = _coordinator_pid(on.probes)
    _signal(on.place, on.place.head, pid, "STOP")
    return Injected(target=f"pid {pid}", may_replace=frozenset({COORDINATOR}))


def gcs_killed(on: Campaign) -> Injected:
    """Kill the process that knows the cluster: the head's node is started anew, workers live on."""
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
    """Renew the certificate by one that does not fit its key: the old one stays in use, and nothing is killed."""
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
    """Return the workers whose loss is felt: all of an organ is there, else a part of one, else all workers.

    A host with nothing on it proves nothing when it freezes.
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
    """Freeze a worker: what ran there comes up elsewhere, and the old processes must do no work when they wake up."""
    assert isinstance(on.place, Containers)  # noqa: S101 - offered there only
    host = _worker(on)
    container = on.place.container(host)
    container.pause()
    return Injected(target=host, may_replace=_on(on.probes, host), heal=container.unpause, hold_s=90.0)


def _filter(place: Place, host: str, rule: str) -> Callable[[], None]:
    """Put a packet filter on everything but loopback, in and out; returns what removes it."""
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
    """Cut a worker off for five seconds: nothing may be restarted."""
    host = _worker(on)
    heal = _filter(on.place, host, "")
    return Injected(target=host, may_replace=frozenset(), heal=heal, hold_s=SHORT_PARTITION_S)


def packet_loss(on: Campaign) -> Injected:
    """Lose one packet of ten of a worker."""
    host = _worker(on)
    heal = _filter(on.place, host, "numgen random mod 10 0")
    return Injected(target=host, may_replace=frozenset(), heal=heal, hold_s=2 * HOLD_S)


def wrong_token(on: Campaign) -> Injected:
    """Start a worker's node with another token: it stays out until it has the right one."""
    host = _worker(on)
    token = f"{on.place.prefix}/etc/token"
    on.place.run(host, "sh", "-ec", f"cp -p {token} {token}.kept; printf 0123456789abcdef0123456789abcdef >{token}")
    on.place.run(host, "systemctl", "restart", "--no-block", "seedcore-ray")

    def heal() -> None:
        on.place.run(host, "sh", "-ec", f"mv {token}.kept {token}; systemctl restart --no-block seedcore-ray")

    return Injected(target=host, may_replace=_on(on.probes, host), heal=heal, hold_s=2 * HOLD_S)


def disk_full(on: Campaign) -> Injected:
    """Fill the disk of a host that has a small one of its own below the prefix."""
    directory = f"{on.place.prefix}/tmp"
    small = [
        host
        for host in (on.place.head, *on.place.workers)
        if int(on.place.run(host, "stat", "-f", "-c", "%b", directory)) <= SMALL_DISK_BLOCKS
    ]
    if not small:
        raise SystemExit(f"no host has a small disk of its own below {directory}: this machine's would be filled")
    host = on.rng.choice(small)
    on.place.run(host, "sh", "-c", f"dd if=/dev/zero of={directory}/chaos-fill bs=1M 2>/dev/null", check=False)

    def heal() -> None:
        on.place.run(host, "rm", "-f", f"{directory}/chaos-fill")

    return Injected(target=host, may_replace=_on(on.probes, host), heal=heal, hold_s=HOLD_S)


def head_rebooted(on: Campaign) -> Injected:
    """Cut the head's power and boot it again; the recovery counts from the boot."""
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
    """Return the faults that can be injected there."""
    return _EVERYWHERE + (_LOCAL if isinstance(place, Localhost) else _HOSTS)
