"""Ask ports of other hosts without a token, like a host on the same network, and print their answers.

Each port gets HTTP requests for the known paths, and a gRPC request for the list of nodes.
Usage: ask_from_outside.py HOST:PORT...
Fails if an answer contains data. An error, a demand for a token or the word of a health check is not data.
"""  # noqa: INP001

import socket
import struct
import sys
from concurrent.futures import ThreadPoolExecutor

PATHS = ("/metrics", "/api/v0/nodes", "/nodes?view=summary", "/coordinator/status", "/")
METHOD = "/ray.rpc.NodeInfoGcsService/GetAllNodeInfo"
TIMEOUT_S = 3.0
MAX_BYTES = 65536
# Data that only a client with the token may read: names of nodes and actors, figures.
DATA = (b"head-1", b"worker-", b"seedcore_coordinator", b"# TYPE", b"ray_node", b"python_info")


def talk(host: str, port: int, message: bytes) -> bytes:
    """Send bytes; return the answer up to its end or the timeout."""
    answer = b""
    with socket.create_connection((host, port), timeout=TIMEOUT_S) as end:
        end.sendall(message)
        try:
            while len(answer) < MAX_BYTES and (part := end.recv(MAX_BYTES)):
                answer += part
        except TimeoutError:
            pass
    return answer


def grpc_request(authority: str) -> bytes:
    """Return a whole HTTP/2 conversation of a client that calls METHOD with an empty message."""

    def frame(kind: int, flags: int, stream: int, body: bytes) -> bytes:
        return struct.pack(">I", len(body))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + body

    def header(name: str, value: str) -> bytes:
        return bytes([0, len(name)]) + name.encode() + bytes([len(value)]) + value.encode()

    names = {":method": "POST", ":scheme": "http", ":path": METHOD, ":authority": authority}
    names |= {"content-type": "application/grpc", "te": "trailers"}
    headers = b"".join(header(name, value) for name, value in names.items())
    return (
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
        + frame(4, 0, 0, b"")
        + frame(1, 4, 1, headers)
        + frame(0, 1, 1, b"\0\0\0\0\0")
    )


def ask(host: str, port: int) -> tuple[list[str], bytes]:
    """Return a short form of the answer to each request, and all answers."""
    said, everything = [], b""
    questions = [(f"GET {path}", f"GET {path} HTTP/1.0\r\nHost: {host}\r\n\r\n".encode()) for path in PATHS]
    for name, message in [*questions, ("gRPC", grpc_request(f"{host}:{port}"))]:
        try:
            answer = talk(host, port, message)
        except ConnectionRefusedError:
            return ["refused"], b""
        except OSError as error:
            return [str(error)], b""
        everything += answer
        first = answer.split(b"\r\n", 1)[0]
        word = first.decode("ascii", "replace") if first.startswith(b"HTTP/") else f"{len(answer)} bytes"
        if b"unauthenticated" in answer.lower():
            word += ", unauthenticated"
        said.append(f"{name}: {word}")
    return said, everything


def main() -> None:
    """Ask all ports at once."""
    leaks = 0
    places = [(place, *place.rpartition(":")[::2]) for place in sys.argv[1:]]
    with ThreadPoolExecutor(len(places)) as together:
        answers = list(together.map(lambda place: ask(place[1], int(place[2])), places))
    for (place, _, _), (said, everything) in zip(places, answers, strict=True):
        data = [word.decode() for word in DATA if word in everything]
        leaks += bool(data)
        print(f"{place:24} {'DATA ' + ', '.join(data) if data else 'no data'}; {'; '.join(dict.fromkeys(said))}")  # noqa: T201
    sys.exit(bool(leaks))


main()
