"""Print the TCP ports that other hosts can reach, one a line."""  # noqa: INP001

from pathlib import Path

LISTEN = "0A"
LOOPBACK = "7F"


def main() -> None:
    """Read the kernel's tables of TCP sockets."""
    found = set()
    for name in ("tcp", "tcp6"):
        for line in Path("/proc/net", name).read_text(encoding="ascii").splitlines()[1:]:
            local, _, state = line.split()[1:4]
            address, _, port = local.rpartition(":")
            # The first byte of an IPv4 address is the last two of its eight digits.
            loopback = address[-2:] == LOOPBACK if len(address) == 8 else address.endswith("01000000")  # noqa: PLR2004
            if state == LISTEN and not loopback:
                found.add(int(port, 16))
    print("\n".join(map(str, sorted(found))))  # noqa: T201


main()
